//! Runs given on the command line, for commands that read them.

use std::fs;
use std::path::PathBuf;

use anyhow::bail;
use forgetlab_study::run::{Results, RunDir, RunError, RunState, holds_csvs, read_csvs};

use super::warn;

/// A run, or a folder of results of which only the CSVs were kept.
pub struct Loaded {
    /// The folder's name; its path where two folders have the same name.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// What happened in the run.
    pub state: RunState,
}

/// Loads runs by their paths, names or unique beginnings of names; tells on standard error what a folder of
/// CSVs lacks, and which runs cannot be read and are left out. Also whether there is one of these.
pub fn load(runs: &[String]) -> anyhow::Result<(Vec<Loaded>, bool)> {
    let results = Results::from_env();
    let mut loaded: Vec<Loaded> = Vec::new();
    let mut unreadable = false;
    for run in runs {
        let place = find(&results, run)?;
        match read(place, &loaded) {
            Ok(one) => loaded.push(one),
            Err(error) => {
                warn(format_args!("{run} is unreadable and left out: {error}"));
                unreadable = true;
            }
        }
    }
    if loaded.is_empty() {
        bail!("none of these runs can be read");
    }
    Ok((loaded, unreadable))
}

/// The folder of a run, and the run where it has events.
fn find(results: &Results, run: &str) -> anyhow::Result<(PathBuf, Option<RunDir>)> {
    Ok(match results.find(run) {
        Ok(dir) if dir.events_path().exists() || !holds_csvs(dir.path()) => {
            (dir.path().to_owned(), Some(dir))
        }
        Ok(dir) => (dir.path().to_owned(), None),
        Err(RunError::NotARun { path }) if holds_csvs(&path) => (path, None),
        Err(RunError::NotARun { path }) => bail!(
            "{} is neither a run (it has no config.toml) nor a folder of results (no metrics.csv)",
            path.display()
        ),
        Err(error) => return Err(error.into()),
    })
}

fn read((path, events): (PathBuf, Option<RunDir>), before: &[Loaded]) -> Result<Loaded, RunError> {
    let mut name = RunDir::name_of(&path);
    if before.iter().any(|other| other.name == name) {
        // Folders of the same name in different places.
        name = path.display().to_string();
    }
    let mut state = match events {
        Some(dir) => dir.checked_state()?,
        None => {
            let read = read_csvs(&path)?;
            warn(format_args!(
                "note: {name} is read from its CSVs: {}",
                read.lacks.join("; ")
            ));
            read.state
        }
    };
    if state.config.is_none() {
        // A run of an older version, or its CSVs alone.
        let config = fs::read_to_string(path.join("config.toml")).ok();
        let config: Option<toml::Table> = config.and_then(|text| text.parse().ok());
        state.config = config.and_then(|config| serde_json::to_value(config).ok());
    }
    Ok(Loaded { name, path, state })
}

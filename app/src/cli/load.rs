//! Runs given on the command line, for commands that read them.

use std::fs;
use std::path::PathBuf;

use anyhow::bail;
use forgetlab_study::report::SweepPoint;
use forgetlab_study::run::{
    Found, PointSpec, PointStatus, Results, RunDir, RunError, RunState, SweepDir, holds_csvs,
    read_csvs,
};

use super::warn;

/// A run, or a folder of results of which only the CSVs were kept.
pub struct Loaded {
    /// The folder's name; its path where two folders have the same name.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// What happened in the run.
    pub state: RunState,
    /// Its grid and its place on each axis, where it is a point of a sweep.
    pub point: Option<PointSpec>,
}

impl Loaded {
    /// The run as a point of its sweep, if it is one.
    pub fn sweep_point(&self) -> Option<SweepPoint> {
        let point = self.point.as_ref()?;
        Some(SweepPoint {
            name: self.name.clone(),
            grid: point.grid.clone(),
            place: point.place.clone(),
            state: self.state.clone(),
        })
    }
}

/// Loads runs by their paths, names or unique beginnings of names; tells on standard error what a folder of
/// CSVs lacks, and which runs cannot be read and are left out. Also whether there is one of these.
pub fn load(runs: &[String]) -> anyhow::Result<(Vec<Loaded>, bool)> {
    let results = Results::from_env();
    let mut loaded: Vec<Loaded> = Vec::new();
    let mut unreadable = false;
    for run in runs {
        for (told, place, point) in find(&results, run)? {
            match read(place, &loaded) {
                Ok(one) => loaded.push(Loaded { point, ..one }),
                Err(error) => {
                    warn(format_args!("{told} is unreadable and left out: {error}"));
                    unreadable = true;
                }
            }
        }
    }
    if loaded.is_empty() {
        bail!("none of these runs can be read");
    }
    Ok((loaded, unreadable))
}

/// The folder of a run, and the run where it has events.
type Place = (PathBuf, Option<RunDir>);

/// What a name stands for: a run, or every point of a sweep that somebody has begun with.
fn find(results: &Results, name: &str) -> anyhow::Result<Vec<(String, Place, Option<PointSpec>)>> {
    Ok(match results.find_any(name) {
        Ok(Found::Sweep(sweep)) => points(&sweep)?,
        Ok(Found::Run(dir)) => vec![(name.to_owned(), place_of(&dir), None)],
        Err(RunError::NotARun { path }) if holds_csvs(&path) => {
            vec![(name.to_owned(), (path, None), None)]
        }
        Err(RunError::NotARun { path }) => bail!(
            "{} is neither a run (it has no config.toml) nor a folder of results (no metrics.csv)",
            path.display()
        ),
        Err(error) => return Err(error.into()),
    })
}

fn place_of(dir: &RunDir) -> Place {
    let has_events = dir.events_path().exists() || !holds_csvs(dir.path());
    (dir.path().to_owned(), has_events.then(|| dir.clone()))
}

/// Every point of a sweep that somebody has begun with.
fn points(sweep: &SweepDir) -> anyhow::Result<Vec<(String, Place, Option<PointSpec>)>> {
    let spec = sweep.spec()?;
    let all = spec.points.len();
    let statuses = sweep.statuses()?.into_iter();
    let finished = statuses.filter(|(_, status)| *status == PointStatus::Finished);
    let finished = finished.count();
    // Of committed results, CSVs alone, nothing tells how a run stands.
    if finished < all && sweep.join("configs").exists() {
        let name = sweep.name();
        warn(format_args!(
            "note: {name}: {finished} of {all} points are finished"
        ));
    }
    if sweep.join("configs").exists() {
        for point in &spec.points {
            sweep.check_run(&point.name)?;
        }
    }
    let points = spec.points.into_iter();
    let begun: Vec<_> = points
        .filter_map(|point| {
            let place = place_of(&sweep.run(&point.name)?);
            Some((point.name.clone(), place, Some(point)))
        })
        .collect();
    if begun.is_empty() {
        bail!("{}: nobody has begun with a point yet", sweep.name());
    }
    Ok(begun)
}

fn read((path, events): Place, before: &[Loaded]) -> Result<Loaded, RunError> {
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
    Ok(Loaded {
        name,
        path,
        state,
        point: None,
    })
}

//! Runs given on the command line, for commands that read them.

use std::fs;
use std::path::PathBuf;

use anyhow::bail;
use forgetlab_study::report::SweepPoint;
use forgetlab_study::run::{
    Found, PointSpec, Results, RunDir, RunError, RunState, SweepDir, holds_csvs, read_csvs,
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
        for found in find(&results, run)? {
            unreadable |= !add(found, &mut loaded);
        }
    }
    if loaded.is_empty() {
        bail!("none of these runs can be read");
    }
    Ok((loaded, unreadable))
}

/// Loads the points of a sweep that somebody has begun with; also whether one cannot be read and is left out.
pub fn load_sweep(sweep: &SweepDir) -> anyhow::Result<(Vec<Loaded>, bool)> {
    let mut loaded = Vec::new();
    let mut unreadable = false;
    for found in points(sweep)? {
        unreadable |= !add(found, &mut loaded);
    }
    if loaded.is_empty() {
        bail!("no point can be read");
    }
    Ok((loaded, unreadable))
}

/// The folder of a run, and the run where it has events.
type Place = (PathBuf, Option<RunDir>);

/// A run that is to be read.
struct ToRead {
    /// Its name, as it was given.
    told: String,
    place: Place,
    /// What it is in its sweep.
    point: Option<PointSpec>,
}

/// Reads a run and adds it; `false`, told on standard error, where it cannot be read.
fn add(found: ToRead, loaded: &mut Vec<Loaded>) -> bool {
    let ToRead { told, place, point } = found;
    match read(place, loaded) {
        Ok(one) => loaded.push(Loaded { point, ..one }),
        Err(error) => {
            warn(format_args!("{told} is unreadable and left out: {error}"));
            return false;
        }
    }
    true
}

/// What a name stands for: a run, or every point of a sweep that somebody has begun with.
fn find(results: &Results, name: &str) -> anyhow::Result<Vec<ToRead>> {
    let run = |place: Place| {
        let (told, point) = (name.to_owned(), None);
        vec![ToRead { told, place, point }]
    };
    Ok(match results.find_any(name) {
        Ok(Found::Sweep(sweep)) => {
            tell_unfinished(&sweep)?;
            points(&sweep)?
        }
        Ok(Found::Run(dir)) => run(place_of(&dir)),
        Err(RunError::NotARun { path }) if holds_csvs(&path) => run((path, None)),
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

/// Whether a sweep is as it was worked on; of committed results, CSVs alone, nothing tells how a run stands.
fn is_whole(sweep: &SweepDir) -> bool {
    sweep.join("configs").exists()
}

/// Tells that points are missing in what is told of a sweep, or are not whole.
fn tell_unfinished(sweep: &SweepDir) -> anyhow::Result<()> {
    let statuses = sweep.statuses()?;
    let counts = sweep.counts(&statuses)?;
    if counts.finished < counts.all && is_whole(sweep) {
        warn(format_args!(
            "note: {}: {} of {} points are finished",
            sweep.name(),
            counts.finished,
            counts.all
        ));
    }
    Ok(())
}

/// Every point of a sweep that somebody has begun with.
fn points(sweep: &SweepDir) -> anyhow::Result<Vec<ToRead>> {
    let mut begun = Vec::new();
    for point in sweep.spec()?.points {
        let Some(run) = sweep.run(&point.name) else {
            continue;
        };
        if is_whole(sweep) {
            sweep.refuse_foreign(&point.name)?;
        }
        begun.push(ToRead {
            told: point.name.clone(),
            place: place_of(&run),
            point: Some(point),
        });
    }
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

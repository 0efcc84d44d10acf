//! Other runs that are live on the device of a run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use forgetlab_engine::human_bytes;
use forgetlab_study::experiment::RunConfig;
use forgetlab_study::run::{Results, RunDir, RunState, Ticket};
use forgetlab_worker::train::Prepared;

use super::devices;

/// One line on the other live runs of the device and what each of them takes; `None` where it is this run's
/// alone. Seen are the runs under the results folder and those beside this one.
pub fn warning(dir: &RunDir, prepared: &Prepared) -> Option<String> {
    let config = &prepared.config;
    let device = devices::own(&config.device);
    let others: Vec<String> = live_beside(dir.path())
        .iter()
        .filter(|other| Ticket::of(other.path()).is_none())
        .filter_map(|other| {
            let theirs = other.read_config().ok()?;
            let same = devices::of_run(other).as_ref() == Some(&device);
            same.then(|| {
                let state = other.brief_state(true).unwrap_or_default();
                let takes = takes(memory(&state), &theirs);
                format!("{} ({takes})", other.path().display())
            })
        })
        .collect();
    let (who, all) = match others.len() {
        0 => return None,
        1 => ("another run is".to_owned(), "both"),
        n => (format!("{n} other runs are"), "all"),
    };
    let own = format!("about {}", human_bytes(prepared.memory()));
    Some(format!(
        "{who} live on {device}: {}; this one takes {}: {all} will be slower",
        others.join(", "),
        takes(Some(&own), config)
    ))
}

/// Live runs that can be seen from the folder of a run or sweep, but itself: under the results folder, points of sweeps
/// included, and beside it.
pub fn live_beside(folder: &Path) -> Vec<RunDir> {
    let (own, results) = (whole(folder), Results::from_env());
    let beside = own.parent().map(Path::to_owned);
    let sweeps = results.sweeps().unwrap_or_default().into_iter();
    let points = sweeps.map(|sweep| Some(sweep.join("points")));
    let folders = [Some(results.runs()), beside].into_iter().chain(points);
    let mut seen = BTreeSet::from([own]);
    let mut runs = Vec::new();
    for folder in folders.flatten() {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        let found = paths.iter().filter_map(|path| RunDir::open(path).ok());
        runs.extend(found.filter(|run| seen.insert(whole(run.path())) && run.is_live()));
    }
    runs
}

/// A path by which it is known whether two are the same.
pub fn whole(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// What a run takes, in words.
fn takes(memory: Option<&str>, config: &RunConfig) -> String {
    let memory = memory.map_or("memory not known yet".into(), |about| {
        format!("{about} of memory")
    });
    match (config.device.as_str(), config.threads) {
        ("cpu", 1) => format!("{memory}, 1 thread"),
        ("cpu", threads) => format!("{memory}, {threads} threads"),
        _ => memory,
    }
}

/// The memory that a run said it takes.
fn memory(state: &RunState) -> Option<&str> {
    let said = state.log.iter().rev();
    let said = said.filter_map(|line| line.message.strip_prefix("memory: "));
    said.filter_map(|text| text.split(';').next()).next()
}

//! What can go of a run, and its removal.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{ArmStatus, CheckpointStore, RunDir, RunError, RunFound, RunLock, RunStatus};

/// A run without events that is younger may just be starting.
const STARTING: Duration = Duration::from_secs(60);

/// What the lab itself writes into the folder of a run.
const OWN: [&str; 23] = [
    "arms",
    "choices.csv",
    super::commander::FILE,
    "config.toml",
    "curves.csv",
    "differences.csv",
    "digest.json",
    "environment.json",
    "events.index",
    "events.jsonl",
    "figures",
    "labels.toml",
    "metrics.csv",
    "outcomes.jsonl",
    "plugin-call.json",
    "plugin_metrics.csv",
    "queued.json",
    "replay.csv",
    "requests",
    "stop-requested",
    "summary.csv",
    "verdicts.csv",
    "worker.log",
];

impl RunFound {
    /// Why nobody would miss the run, in words; `None` where something was measured, or it may still begin.
    pub fn useless(&self, dir: &RunDir) -> Option<&'static str> {
        let arms = &self.state.arms;
        let measured = arms
            .iter()
            .flat_map(|arm| &arm.evaluations)
            .any(|e| e.step > 0);
        let failed = |status: &ArmStatus| matches!(status, ArmStatus::Failed(_));
        match self.status {
            RunStatus::Live => None,
            RunStatus::Crashed if self.state.times.is_none() => {
                let old = self.age(dir) > STARTING;
                old.then_some("never begun")
            }
            RunStatus::Crashed if !measured => Some("crashed before anything was measured"),
            RunStatus::Interrupted if !measured => Some("interrupted before anything was measured"),
            RunStatus::Failed if arms.iter().all(|arm| failed(&arm.status)) => {
                Some("every arm failed")
            }
            _ => None,
        }
    }

    /// Time since its last event, or since it was made.
    pub fn age(&self, dir: &RunDir) -> Duration {
        let last = self
            .state
            .times
            .map(|(_, last)| Duration::from_secs_f64(last.max(0.0)));
        let last = last.map(|since| UNIX_EPOCH + since);
        let made = || {
            fs::metadata(dir.config_path())
                .and_then(|data| data.modified())
                .ok()
        };
        let last = last.or_else(made).unwrap_or(UNIX_EPOCH);
        SystemTime::now().duration_since(last).unwrap_or_default()
    }
}

impl RunDir {
    /// Whether the folder is a run beyond doubt, and no other program's with a `config.toml`.
    pub fn is_certain(&self) -> bool {
        let begun = || self.load_state().is_ok_and(|state| state.times.is_some());
        self.read_config().is_ok() || begun()
    }

    /// Names in its folder that the lab did not give.
    pub fn foreign(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let own = |name: &str| {
            OWN.contains(&name)
                || name == super::lock::FILE
                || name.starts_with(".tmp-")
                || name.starts_with("events.jsonl.damaged-")
                || name.ends_with(".csv.longer")
        };
        let mut foreign: Vec<String> = names.filter(|name| !own(name)).collect();
        foreign.sort();
        foreign
    }

    /// Bytes of all of its files.
    pub fn size(&self) -> u64 {
        size(self.path())
    }

    /// Bytes of its checkpoints.
    pub fn checkpoints_size(&self) -> u64 {
        self.checkpoint_folders()
            .iter()
            .map(|folder| size(folder))
            .sum()
    }

    /// Removes all checkpoints; what was measured stays.
    pub fn remove_checkpoints(&self, _lock: &RunLock) -> Result<(), RunError> {
        self.checkpoint_folders()
            .iter()
            .try_for_each(|folder| remove_all(folder))
    }

    /// Checkpoints of every arm and every first phase.
    pub(super) fn all_checkpoints(&self) -> impl Iterator<Item = CheckpointStore> {
        self.checkpoint_folders()
            .into_iter()
            .map(CheckpointStore::new)
    }

    /// Whether anything was ever saved.
    pub(super) fn has_checkpoints(&self) -> Result<bool, RunError> {
        for store in self.all_checkpoints() {
            if !store.steps()?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn checkpoint_folders(&self) -> Vec<PathBuf> {
        let arms = fs::read_dir(self.join("arms"))
            .into_iter()
            .flatten()
            .flatten();
        let folders = arms.map(|arm| arm.path().join("checkpoints"));
        folders.filter(|folder| folder.is_dir()).collect()
    }
}

/// Removes a file, a link itself, or a folder with what is in it.
pub(super) fn remove_all(path: &Path) -> Result<(), RunError> {
    let data = fs::symlink_metadata(path).map_err(RunError::io("read", path))?;
    match data.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
    .map_err(RunError::io("remove", path))
}

/// Bytes of a file or of everything in a folder; links count as themselves.
pub(super) fn size(path: &Path) -> u64 {
    let Ok(data) = fs::symlink_metadata(path) else {
        return 0;
    };
    if !data.is_dir() {
        return data.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::super::{Event, OutFolder, fixture};
    use super::*;
    use crate::experiment::{Overrides, resolve};

    fn run(dir: &Path) -> RunDir {
        let OutFolder::Fresh(run) = RunDir::out(dir).unwrap() else {
            panic!()
        };
        let config = resolve("toy-continual", &Overrides::default()).unwrap();
        run.write_config(&config).unwrap();
        run
    }

    fn found(status: RunStatus, change: impl FnOnce(&mut RunFound)) -> RunFound {
        let (state, settings) = (fixture::state(), toml::Table::new());
        let mut found = RunFound {
            status,
            state,
            settings,
        };
        change(&mut found);
        found
    }

    /// Else figures that somebody waited days for would be offered for removal.
    #[test]
    fn only_runs_that_measured_nothing_are_useless() {
        let folder = tempfile::tempdir().unwrap();
        let dir = run(folder.path());
        let useless = |found: &RunFound| found.useless(&dir);
        for status in [
            RunStatus::Live,
            RunStatus::Finished,
            RunStatus::Failed,
            RunStatus::Interrupted,
            RunStatus::Crashed,
        ] {
            assert_eq!(useless(&found(status, |_| ())), None, "{status:?}");
            let blank = found(status, |f| {
                f.state
                    .arms
                    .iter_mut()
                    .for_each(|arm| arm.evaluations.truncate(1));
            });
            let expected = match status {
                RunStatus::Interrupted => Some("interrupted before anything was measured"),
                RunStatus::Crashed => Some("crashed before anything was measured"),
                _ => None,
            };
            assert_eq!(useless(&blank), expected, "{status:?}");
        }
        let failed = found(RunStatus::Failed, |f| {
            let arms = f.state.arms.iter_mut();
            arms.for_each(|arm| arm.status = ArmStatus::Failed("NaN".into()));
        });
        assert_eq!(useless(&failed), Some("every arm failed"));
        // One that was made just now may be about to begin.
        let fresh = found(RunStatus::Crashed, |f| f.state = Default::default());
        assert_eq!(useless(&fresh), None);
        let config = fs::File::options()
            .append(true)
            .open(dir.config_path())
            .unwrap();
        config
            .set_modified(SystemTime::now() - 2 * STARTING)
            .unwrap();
        assert_eq!(useless(&fresh), Some("never begun"));
    }

    /// Else `runs prune` would take somebody's files for a run, or what a link in a run leads to.
    #[test]
    fn a_run_goes_whole_and_nothing_else_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept.txt");
        fs::write(&kept, "mine").unwrap();
        let dir = run(&folder.path().join("run"));
        assert!(dir.is_certain() && dir.foreign().is_empty());
        let checkpoints = dir.join("arms/none-seed0/checkpoints");
        fs::create_dir_all(&checkpoints).unwrap();
        fs::write(checkpoints.join("step-1.safetensors"), [0; 1000]).unwrap();
        fs::write(dir.join("notes.md"), "12345").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path(), dir.join("arms/link")).unwrap();
        assert_eq!(dir.foreign(), ["notes.md"]);
        assert_eq!(dir.checkpoints_size(), 1000);
        let size = dir.size();
        assert!((1005..100_000).contains(&size), "{size}");

        let lock = dir.lock().unwrap();
        dir.writer(&lock)
            .unwrap()
            .writer
            .append(Event::RunFinished {})
            .unwrap();
        dir.remove_checkpoints(&lock).unwrap();
        assert_eq!(dir.checkpoints_size(), 0);
        assert!(
            dir.load_state().unwrap().finished,
            "what was measured stays"
        );
        dir.remove(&lock).unwrap();
        assert!(!dir.path().exists());
        assert_eq!(fs::read_to_string(&kept).unwrap(), "mine");

        let other = folder.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("config.toml"), "[server]\nport = 80\n").unwrap();
        assert!(!RunDir::open(&other).unwrap().is_certain());
    }
}

//! The folder of a new run, taken away again where the run is refused before it has begun.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use forgetlab_study::experiment::RunConfig;
use forgetlab_study::run::{OutFolder, Results, RunDir, RunError, RunLock, write_atomically};

use super::advice;

/// A run that is to be worked on, with what was made for it.
pub struct NewRun {
    /// Its folder.
    pub dir: RunDir,
    /// The lock of a folder that is new; nobody else could take it for one since.
    pub lock: Option<RunLock>,
    made: Made,
}

/// What was made for a run.
enum Made {
    /// Nothing: the run was there.
    Nothing,
    /// Files, in a folder that was there and held these.
    Files { before: BTreeSet<OsString> },
    /// These folders, the run's own first.
    Folders(Vec<PathBuf>),
}

/// What a run that has not begun leaves in its folder.
const FILES: [&str; 7] = [
    "config.toml",
    "environment.json",
    "events.jsonl",
    "plugin-call.json",
    "queued.json",
    "worker.lock",
    "worker.log",
];

impl NewRun {
    /// Creates a run directory with its configuration, or finds the same run in it already.
    pub fn create(config: &RunConfig, out: Option<&Path>) -> anyhow::Result<Self> {
        let mut new = match out {
            None => {
                let results = Results::from_env();
                let mut folders = missing(&results.runs());
                let dir = results.create(&config.experiment)?;
                folders.insert(0, dir.path().to_owned());
                Self::fresh(dir, Made::Folders(folders))
            }
            Some(path) => {
                let (folders, before) = (missing(path), entries(path));
                match RunDir::out(path)? {
                    OutFolder::Existing(dir) => return Self::found(dir, config),
                    OutFolder::Fresh(dir) if folders.is_empty() => {
                        Self::fresh(dir, Made::Files { before })
                    }
                    OutFolder::Fresh(dir) => Self::fresh(dir, Made::Folders(folders)),
                }
            }
        };
        match new.begin(config) {
            Ok(true) => Ok(new),
            Ok(false) => Self::found(new.dir, config),
            Err(error) => {
                new.undo();
                Err(error)
            }
        }
    }

    fn fresh(dir: RunDir, made: Made) -> Self {
        let lock = None;
        Self { dir, lock, made }
    }

    /// Takes the lock and writes the configuration; `false` where another process has made this run meanwhile.
    fn begin(&mut self, config: &RunConfig) -> anyhow::Result<bool> {
        let lock = self.dir.lock()?;
        if RunDir::open(self.dir.path()).is_ok() {
            return Ok(false);
        }
        // The disk may have no room for a run at all; a kill in this moment leaves a temporary file, which a
        // folder for a run may hold.
        let probe = self.dir.join(".tmp-probe");
        write_atomically(&probe, |w| w.write_all(&[0; 4096]))?;
        fs::remove_file(&probe).with_context(|| format!("cannot remove {}", probe.display()))?;
        self.dir.write_config(config)?;
        self.lock = Some(lock);
        Ok(true)
    }

    /// The run that an output folder holds, if it is the one that is asked for.
    fn found(dir: RunDir, config: &RunConfig) -> anyhow::Result<Self> {
        if dir.read_config()? != *config {
            bail!(
                "{} holds a run of another configuration; give another folder to --out, or go on with \
                 that run: {}",
                dir.path().display(),
                advice::resume(&dir, &[])
            );
        }
        Ok(Self::fresh(dir, Made::Nothing))
    }

    /// Removes what was made for a run that has not begun; one that has can be resumed, and stays.
    pub fn undo(&self) {
        // Where somebody else is at it by now, it is theirs.
        let lock = self.dir.lock();
        if matches!(lock, Err(RunError::Busy { .. })) || has_begun(&self.dir) {
            return;
        }
        // Best effort: the error that is told is why the run was refused.
        match &self.made {
            Made::Nothing => {}
            Made::Files { before } => {
                let made = FILES
                    .iter()
                    .filter(|file| !before.contains(OsStr::new(file)));
                for file in made {
                    let _ = fs::remove_file(self.dir.join(file));
                }
            }
            Made::Folders(folders) => {
                let _ = fs::remove_dir_all(self.dir.path());
                for folder in folders {
                    // Not those that hold something else by now.
                    let _ = fs::remove_dir(folder);
                }
            }
        }
    }
}

/// Whether anything has happened in a run; also where that cannot be told.
pub fn has_begun(dir: &RunDir) -> bool {
    dir.load_state().map_or(true, |state| state.times.is_some())
}

/// Of a folder and those above it the ones that are not there, the folder itself first.
fn missing(path: &Path) -> Vec<PathBuf> {
    let above = path
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty());
    let missing = above.take_while(|path| path.symlink_metadata().is_err());
    missing.map(Path::to_owned).collect()
}

fn entries(path: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).collect()
}

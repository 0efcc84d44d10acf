//! The directory of one run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::experiment::{RunConfig, position};

use super::checkpoint::CheckpointStore;
use super::file::{create_folder, is_deleting, read_small, remove_leftovers};
use super::lock::{self, RunLock};
use super::{ArmStatus, Environment, RunError, RunState, StopRequest, write_atomically};

const CONFIG: &str = "config.toml";
const EVENTS: &str = "events.jsonl";
/// A configuration or environment with more bytes is none of ours.
const LONGEST_SETTINGS: u64 = 16 << 20;

/// The directory of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

/// The folder given with `--out`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutFolder {
    /// Empty, ready for a new run.
    Fresh(RunDir),
    /// Holds a run already.
    Existing(RunDir),
}

/// Status of a run, derived from its lock and its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// A worker holds the lock.
    Live,
    /// Stopped cleanly before its end; can be resumed.
    Interrupted,
    /// The worker ended without recording a stop; can be resumed.
    Crashed,
    /// Every arm reached the end of its last phase.
    Finished,
    /// Ended, but at least one arm failed or was skipped.
    Failed,
}

impl RunStatus {
    /// Whether the run can be resumed.
    pub fn is_resumable(self) -> bool {
        matches!(self, Self::Interrupted | Self::Crashed)
    }

    /// The status in one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Interrupted => "interrupted",
            Self::Crashed => "crashed",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

impl RunDir {
    /// Opens an existing run.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        if Self::holds_run(path) {
            Ok(Self {
                path: path.to_owned(),
            })
        } else {
            Err(RunError::NotARun {
                path: path.to_owned(),
            })
        }
    }

    /// Opens the folder of `--out`, created if missing. A folder with anything but a run in it is refused.
    pub fn out(path: &Path) -> Result<OutFolder, RunError> {
        create_folder(path)?;
        if Self::holds_run(path) {
            return Ok(OutFolder::Existing(Self {
                path: path.to_owned(),
            }));
        }
        for entry in fs::read_dir(path).map_err(RunError::io("read", path))? {
            let entry = entry.map_err(RunError::io("read", path))?.file_name();
            // A run that was killed before it had written its configuration leaves only these.
            if entry != lock::FILE && !entry.as_encoded_bytes().starts_with(b".tmp-") {
                let entry = entry.to_string_lossy().into_owned();
                return Err(RunError::OccupiedOut {
                    path: path.to_owned(),
                    entry,
                });
            }
        }
        Ok(OutFolder::Fresh(Self {
            path: path.to_owned(),
        }))
    }

    /// Whether a folder holds a run.
    pub(super) fn holds_run(path: &Path) -> bool {
        path.join(CONFIG).is_file() && !is_deleting(path)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder's name.
    pub fn name(&self) -> String {
        Self::name_of(&self.path)
    }

    /// Name of a folder, which may be given as `.`.
    pub fn name_of(path: &Path) -> String {
        let full = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        full.file_name()
            .unwrap_or(full.as_os_str())
            .to_string_lossy()
            .into_owned()
    }

    /// Path of a file or folder of the run.
    pub fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.path.join(relative)
    }

    /// Path of `config.toml`.
    pub fn config_path(&self) -> PathBuf {
        self.join(CONFIG)
    }

    /// Path of `events.jsonl`.
    pub fn events_path(&self) -> PathBuf {
        self.join(EVENTS)
    }

    /// Which file its events are: device and inode, which tell whether the folder was moved or exchanged meanwhile.
    ///
    /// # Errors
    /// [`RunError::Moved`] where there is none.
    pub fn place(&self) -> Result<(u64, u64), RunError> {
        let path = self.events_path();
        match fs::metadata(&path) {
            Ok(found) => Ok((found.dev(), found.ino())),
            Err(_) => Err(RunError::Moved { path }),
        }
    }

    /// Refuses to go on where its events are another file than they were.
    ///
    /// # Errors
    /// [`RunError::Moved`]
    pub fn must_be_at(&self, place: (u64, u64)) -> Result<(), RunError> {
        match self.place()? == place {
            true => Ok(()),
            false => Err(RunError::Moved {
                path: self.events_path(),
            }),
        }
    }

    /// Takes the run's lock, the right to write to it.
    pub fn lock(&self) -> Result<RunLock, RunError> {
        RunLock::acquire(&self.path)
    }

    /// Process id of the worker that holds the lock: `None` if none does, `Some(None)` if the id could not
    /// be read.
    pub fn live(&self) -> Option<Option<u32>> {
        lock::holder(&self.path)
    }

    /// Whether a worker holds the lock.
    pub fn is_live(&self) -> bool {
        self.live().is_some()
    }

    /// Writes the resolved configuration; `forgetlab run` takes the file as an EXPERIMENT.
    pub fn write_config(&self, config: &RunConfig) -> Result<(), RunError> {
        let path = self.config_path();
        let text = toml::to_string(config).map_err(|error| RunError::Malformed {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        write_atomically(&path, |w| w.write_all(text.as_bytes()))
    }

    /// Reads the configuration the run was started with.
    pub fn read_config(&self) -> Result<RunConfig, RunError> {
        self.read_toml()
    }

    /// Reads `config.toml` as what the caller wants to see in it.
    pub(super) fn read_toml<T: DeserializeOwned>(&self) -> Result<T, RunError> {
        read_toml(&self.config_path())
    }

    /// Writes `environment.json`.
    pub fn write_environment(&self, environment: &Environment) -> Result<(), RunError> {
        write_atomically(&self.join("environment.json"), |w| {
            serde_json::to_writer_pretty(&mut *w, environment)?;
            w.write_all(b"\n")
        })
    }

    /// Reads `environment.json`; `None` if the run was killed before it was written.
    pub fn read_environment(&self) -> Result<Option<Environment>, RunError> {
        let path = self.join("environment.json");
        let Some(text) = read_small(&path, LONGEST_SETTINGS)? else {
            return Ok(None);
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| RunError::Malformed {
                path,
                problem: error.to_string(),
            })
    }

    /// Removes what workers that were killed had begun to write.
    pub fn remove_leftovers(&self, _lock: &RunLock) {
        for folder in [self.path.clone(), self.join("figures")] {
            remove_leftovers(&folder);
        }
        self.requests().remove_leftovers();
    }

    /// Status of a run with this state, given whether its lock is held.
    pub fn status_of(live: bool, state: &RunState) -> RunStatus {
        if live {
            RunStatus::Live
        } else if state.finished {
            let all_finished = state
                .arms
                .iter()
                .all(|arm| arm.status == ArmStatus::Finished);
            if all_finished {
                RunStatus::Finished
            } else {
                RunStatus::Failed
            }
        } else if state.interrupted.is_some() {
            RunStatus::Interrupted
        } else {
            RunStatus::Crashed
        }
    }

    /// The checkpoints of an arm.
    pub fn checkpoints(&self, slug: &str) -> CheckpointStore {
        CheckpointStore::new(self.join("arms").join(slug).join("checkpoints"))
    }

    /// The stop request of the run, to make, check or clear.
    pub fn stop_request(&self) -> StopRequest {
        StopRequest::new(&self.path)
    }
}

/// Reads a file of settings.
pub(super) fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, RunError> {
    let malformed = |problem: &str| RunError::Malformed {
        path: path.to_owned(),
        problem: problem.into(),
    };
    let text = read_small(path, LONGEST_SETTINGS)?.ok_or_else(|| malformed("is gone"))?;
    let text = String::from_utf8(text).map_err(|_| malformed("is not UTF-8"))?;
    toml::from_str(&text).map_err(|error| {
        let (line, column) = position(&text, error.span());
        malformed(&format!(
            "line {line}, column {column}: {}",
            error.message()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::super::Event;
    use super::*;
    use crate::experiment::{Overrides, resolve};

    /// `--out ~` by mistake must not mix a run into somebody's files.
    #[test]
    fn an_occupied_out_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/b");
        let OutFolder::Fresh(run) = RunDir::out(&out).unwrap() else {
            panic!()
        };
        drop(run.lock().unwrap());
        assert!(matches!(RunDir::out(&out).unwrap(), OutFolder::Fresh(_)));
        run.write_config(&resolve("toy-continual", &Overrides::default()).unwrap())
            .unwrap();
        assert_eq!(RunDir::out(&out).unwrap(), OutFolder::Existing(run));
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let error = RunDir::out(dir.path()).unwrap_err().to_string();
        assert!(error.contains("something else already (`"), "{error}");
    }

    /// A run must be repeatable from the file it leaves behind.
    #[test]
    fn the_configuration_comes_back_and_a_spoilt_one_is_located() {
        let dir = tempfile::tempdir().unwrap();
        let OutFolder::Fresh(run) = RunDir::out(dir.path()).unwrap() else {
            panic!()
        };
        let config = resolve("toy-continual", &Overrides::default()).unwrap();
        run.write_config(&config).unwrap();
        assert_eq!(run.read_config().unwrap(), config);
        fs::write(run.config_path(), "experiment = \"x\"\nseeds = [1,\n").unwrap();
        let error = run.read_config().unwrap_err().to_string();
        assert!(error.contains("line"), "{error}");
    }

    /// `list` must tell a run that goes on from one that died.
    #[test]
    fn status_comes_from_lock_and_events() {
        let dir = tempfile::tempdir().unwrap();
        let OutFolder::Fresh(run) = RunDir::out(dir.path()).unwrap() else {
            panic!()
        };
        let lock = run.lock().unwrap();
        let mut writer = run.writer(&lock).unwrap().writer;
        let start = Event::WorkerStarted {
            pid: 1,
            version: String::new(),
            device: String::new(),
            resumed: false,
        };
        writer.append(start.clone()).unwrap();
        assert_eq!(run.status().unwrap(), RunStatus::Live);
        drop(lock);
        assert_eq!(run.status().unwrap(), RunStatus::Crashed);
        writer
            .append(Event::Interrupted {
                reason: "SIGINT".into(),
            })
            .unwrap();
        assert_eq!(run.status().unwrap(), RunStatus::Interrupted);
        writer.append(start).unwrap();
        assert_eq!(run.status().unwrap(), RunStatus::Crashed);
        writer.append(Event::RunFinished {}).unwrap();
        assert_eq!(run.status().unwrap(), RunStatus::Finished);
    }
}

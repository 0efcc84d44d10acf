//! The directory of one run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::experiment::{RunConfig, position};

use super::checkpoint::CheckpointStore;
use super::file::create_folder;
use super::lock::{self, RunLock};
use super::{
    ArmStatus, Environment, EventWriter, Follow, RunError, RunState, StopRequest, write_atomically,
};

const CONFIG: &str = "config.toml";
const EVENTS: &str = "events.jsonl";

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
        path.join(CONFIG).is_file()
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder's name.
    pub fn name(&self) -> String {
        let full = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
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
        let path = self.config_path();
        let text = fs::read_to_string(&path).map_err(RunError::io("read", &path))?;
        toml::from_str(&text).map_err(|error| {
            let (line, column) = position(&text, error.span());
            let problem = format!("line {line}, column {column}: {}", error.message());
            RunError::Malformed { path, problem }
        })
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
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RunError::io("read", &path)(error)),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| RunError::Malformed {
                path,
                problem: error.to_string(),
            })
    }

    /// Opens the events for appending; hold the lock first.
    pub fn writer(&self, _lock: &RunLock) -> Result<EventWriter, RunError> {
        EventWriter::open(&self.events_path())
    }

    /// Follows the events from the beginning.
    pub fn follow(&self) -> Follow {
        Follow::new(&self.events_path())
    }

    /// The state derived from all events so far.
    pub fn load_state(&self) -> Result<RunState, RunError> {
        let mut follow = self.follow();
        follow.poll()?;
        Ok(follow.state)
    }

    /// Status of the run.
    pub fn status(&self) -> Result<RunStatus, RunError> {
        let live = self.is_live();
        Ok(Self::status_of(live, &self.load_state()?))
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

#[cfg(test)]
mod tests {
    use super::super::{Event, EventWriter};
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
        assert!(error.contains("not a run"), "{error}");
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
        let mut writer: EventWriter = run.writer(&lock).unwrap();
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

//! Requests to whoever works on a run: to add an arm, to stop one.
//!
//! Each is a file in the folder `requests` of the run, whole once it has its name. The worker takes them up between the
//! turns of its arms, the oldest first; it answers each by an [`Event::RequestAnswered`](super::Event) and removes it.
//! One that no worker is there for waits for the next.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::experiment::ArmSpec;
use crate::printed::one_line;

use super::commander::{self, Command, Commander};
use super::file::{random_hex, read_small, remove_if_there, remove_leftovers};
use super::{RunDir, RunError, SweepDir, write_atomically};

/// Folder of a run that holds them.
pub(super) const FOLDER: &str = "requests";
/// A request of more bytes is none of ours.
const LONGEST: u64 = 1 << 20;
/// Who asks, beside what is asked.
const BY: &str = "by";
/// Characters of a request's name, at most.
const LONGEST_NAME: usize = 80;

/// What can be asked of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// To train one more arm, with every seed of the run.
    AddArm(ArmSpec),
    /// To stop the arm with this slug; the others go on.
    StopArm(String),
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its name, by which its answer is known.
    pub id: String,
    /// What is asked, or why it cannot be read.
    pub ask: Result<Ask, String>,
    /// Who asks, where that is told.
    pub by: Option<Commander>,
}

/// The requests of a run.
#[derive(Clone, Debug)]
pub struct Requests {
    run: PathBuf,
    /// Whether the run is a point of a sweep.
    of_sweep: bool,
}

impl Requests {
    pub(super) fn new(run: &Path, of_sweep: bool) -> Self {
        let run = run.to_owned();
        Self { run, of_sweep }
    }

    /// Asks for one more arm; the request's name.
    ///
    /// # Errors
    /// [`RunError::OfSweep`] where the run is a point of a sweep; another where the disk fails.
    pub fn add_arm(&self, arm: &ArmSpec) -> Result<String, RunError> {
        self.may_add()?;
        self.make(&Ask::AddArm(arm.clone()))
    }

    /// Refuses to add an arm where the run's arms are not its own.
    ///
    /// # Errors
    /// [`RunError::OfSweep`]
    pub fn may_add(&self) -> Result<(), RunError> {
        match self.of_sweep {
            true => Err(RunError::OfSweep {
                path: self.run.clone(),
            }),
            false => Ok(()),
        }
    }

    /// Asks to stop the arm with a slug; the request's name.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn stop_arm(&self, slug: &str) -> Result<String, RunError> {
        self.make(&Ask::StopArm(slug.to_owned()))
    }

    fn make(&self, ask: &Ask) -> Result<String, RunError> {
        let folder = self.folder();
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(RunError::io("create", &folder)(error));
            }
            _ => {}
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis();
        let id = format!("{now:013}-{}-{}", std::process::id(), random_hex(8));
        let mut told = serde_json::to_value(ask).unwrap_or_default();
        if let (Some(told), Ok(by)) = (
            told.as_object_mut(),
            serde_json::to_value(Commander::this()),
        ) {
            told.insert(BY.to_owned(), by);
        }
        write_atomically(&self.path(&id), |w| {
            serde_json::to_writer(&mut *w, &told)?;
            w.write_all(b"\n")
        })?;
        Ok(id)
    }

    /// Those that wait, the oldest first. What has a name that none of ours has is passed over.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn pending(&self) -> Result<Vec<Request>, RunError> {
        let folder = self.folder();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(RunError::io("read", &folder))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(RunError::io("read", &folder))?.file_name();
            ids.extend(name.to_str().and_then(id_of).map(str::to_owned));
        }
        ids.sort();
        let requests = ids.into_iter().filter_map(|id| {
            let (ask, by) = self.read(&id)?;
            Some(Request { id, ask, by })
        });
        Ok(requests.collect())
    }

    /// What a request asks, and who does; `None` where it is gone.
    fn read(&self, id: &str) -> Option<(Result<Ask, String>, Option<Commander>)> {
        let bytes = match read_small(&self.path(id), LONGEST) {
            Ok(bytes) => bytes?,
            Err(error) => return Some((Err(error.to_string()), None)),
        };
        let told = |error: serde_json::Error| one_line(&error.to_string()).into_owned();
        let mut by = None;
        let ask = serde_json::from_slice(&bytes).and_then(|mut whole: Value| {
            let own = whole.as_object_mut().and_then(|whole| whole.remove(BY));
            by = own.and_then(|by| serde_json::from_value(by).ok());
            serde_json::from_value(whole)
        });
        Some((ask.map_err(told), by))
    }

    /// Removes one that was answered.
    ///
    /// # Errors
    /// Where it stays.
    pub fn remove(&self, id: &str) -> Result<(), RunError> {
        remove_if_there(&self.path(id))
    }

    /// Removes what processes that were killed had begun to write.
    pub(super) fn remove_leftovers(&self) {
        remove_leftovers(&self.folder());
    }

    fn folder(&self) -> PathBuf {
        self.run.join(FOLDER)
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder().join(format!("{id}.json"))
    }
}

impl RunDir {
    /// Takes the right to command the run, for as long as the command takes.
    ///
    /// # Errors
    /// [`RunError::Commanded`] where somebody else is at it; another where the file cannot be written.
    pub fn command(&self) -> Result<Command, RunError> {
        commander::acquire(self.path())
    }

    /// The requests to whoever works on the run: to add an arm, to stop one.
    pub fn requests(&self) -> Requests {
        Requests::new(self.path(), self.is_point())
    }

    /// Whether it is a point of a sweep.
    fn is_point(&self) -> bool {
        let whole = fs::canonicalize(self.path()).unwrap_or_else(|_| self.path().to_owned());
        let sweep = whole.parent().and_then(Path::parent);
        sweep.is_some_and(|sweep| SweepDir::is_point(sweep, &whole))
    }
}

/// The request that a file is by its name.
fn id_of(name: &str) -> Option<&str> {
    let id = name.strip_suffix(".json")?;
    let is_ours = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!id.is_empty() && id.len() <= LONGEST_NAME && id.chars().all(is_ours)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(requests: &Requests) -> Vec<Result<Ask, String>> {
        let pending = requests.pending().unwrap().into_iter();
        pending.map(|request| request.ask).collect()
    }

    /// A request that is lost, or met twice, would train another study than was asked for.
    #[test]
    fn requests_wait_in_order_until_they_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let requests = Requests::new(dir.path(), false);
        assert_eq!(requests.pending().unwrap(), []);
        let arm = ArmSpec::parse("true-data:kl:10+lr=1e-3", 1.0).unwrap();
        let first = requests.add_arm(&arm).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let second = requests.stop_arm("none-seed0").unwrap();
        assert_ne!(first, second);
        let (add, stop) = (Ask::AddArm(arm.clone()), Ask::StopArm("none-seed0".into()));
        let Ok(Ask::AddArm(read)) = &asks(&requests)[0] else {
            panic!()
        };
        assert_eq!((read.name(), asks(&requests).len()), (arm.name(), 2));
        let by = requests.pending().unwrap().remove(0).by;
        assert_eq!(by.map(|by| by.pid), Some(std::process::id()));
        assert_eq!(asks(&requests)[1], Ok(stop.clone()));
        assert!(matches!(add, Ask::AddArm(_)));
        requests.remove(&first).unwrap();
        requests.remove(&first).unwrap();
        assert_eq!(asks(&requests), [Ok(stop)]);
        let of_sweep = Requests::new(dir.path(), true);
        assert!(matches!(
            of_sweep.add_arm(&arm),
            Err(RunError::OfSweep { .. })
        ));
    }

    /// A file that somebody put there must not end a run, nor keep it waiting.
    #[test]
    fn what_is_no_request_is_told_or_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let requests = Requests::new(dir.path(), false);
        let folder = dir.path().join(FOLDER);
        fs::create_dir_all(folder.join("2.json")).unwrap();
        fs::write(folder.join("1.json"), "{\"stop_arm\": ").unwrap();
        fs::write(folder.join("3.json"), "[".repeat(100_000)).unwrap();
        fs::write(folder.join("4.json"), vec![b' '; (1 << 20) + 1]).unwrap();
        fs::write(folder.join("5.json"), r#"{"remove_all": "/"}"#).unwrap();
        for foreign in [".tmp-1-6.json", "notes.txt", "a b.json", "..json"] {
            fs::write(folder.join(foreign), "{}").unwrap();
        }
        let pending = requests.pending().unwrap();
        let ids: Vec<&str> = pending.iter().map(|request| &*request.id).collect();
        assert_eq!(ids, ["1", "2", "3", "4", "5"]);
        assert!(pending.iter().all(|request| request.ask.is_err()));
        fs::remove_dir_all(&folder).unwrap();
        fs::write(&folder, "").unwrap();
        assert!(requests.pending().is_err());
    }
}

//! The request to a worker process to stop cleanly.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::commander::Commander;
use super::file::read_small;
use super::{RunError, write_atomically};

/// Bytes of a request that are read.
const LONGEST: u64 = 4096;

/// A file in the run directory that asks the worker to stop at the next step, with a checkpoint.
#[derive(Clone, Debug)]
pub struct StopRequest {
    path: PathBuf,
}

impl StopRequest {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            path: dir.join("stop-requested"),
        }
    }

    /// Whether a stop was requested; one look at the file system, cheap enough for every step.
    pub fn pending(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok()
    }

    /// Who requests a stop, if somebody does: `forgetlab stop of USER@HOST (process PID)`.
    pub fn by(&self) -> Option<String> {
        if !self.pending() {
            return None;
        }
        let said = read_small(&self.path, LONGEST).ok().flatten();
        let by = said.and_then(|said| serde_json::from_slice::<Commander>(&said).ok());
        Some(match by {
            Some(by) => format!("forgetlab stop of {by}"),
            // Anybody may put a file there.
            None => "forgetlab stop".to_owned(),
        })
    }

    /// Requests a stop.
    pub fn make(&self) -> Result<(), RunError> {
        write_atomically(&self.path, |w| {
            serde_json::to_writer(&mut *w, &Commander::this())?;
            w.write_all(b"\n")
        })
    }

    /// Removes the request; a worker does so when it starts, once it holds the lock.
    pub fn clear(&self) -> Result<(), RunError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RunError::io("remove", &self.path)(error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request left over from the last life of a run would stop the next one at once.
    #[test]
    fn a_request_is_seen_until_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let stop = StopRequest::new(dir.path());
        assert!(!stop.pending());
        stop.clear().unwrap();
        stop.make().unwrap();
        assert!(stop.pending());
        let by = stop.by().unwrap();
        let this = format!("(process {})", std::process::id());
        assert!(
            by.starts_with("forgetlab stop of ") && by.ends_with(&this),
            "{by}"
        );
        fs::write(&stop.path, "").unwrap();
        assert_eq!(stop.by().unwrap(), "forgetlab stop");
        stop.clear().unwrap();
        assert!(!stop.pending());
    }
}

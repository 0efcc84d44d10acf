//! The request to a worker process to stop cleanly.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{RunError, write_atomically};

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

    /// Requests a stop.
    pub fn make(&self) -> Result<(), RunError> {
        write_atomically(&self.path, |w| {
            writeln!(w, "by process {}", std::process::id())
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
        stop.clear().unwrap();
        assert!(!stop.pending());
    }
}

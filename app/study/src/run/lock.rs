//! The lock that allows one worker per run. The system releases it when the process that holds it ends,
//! so it cannot go stale: whether a run is live is told by the lock, never by a timeout.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::RunError;
use super::file::open_regular;

pub(super) const FILE: &str = "worker.lock";

/// How long [`RunLock::acquire`] waits for readers, which hold the lock while they test it.
const PATIENCE: Duration = Duration::from_millis(300);

/// The right to write to a run; released when dropped, and when the process ends in any way.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the lock of the run in `dir`; the error names the process that holds it.
    pub fn acquire(dir: &Path) -> Result<Self, RunError> {
        let path = dir.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(RunError::io("open", &path))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(RunError::Busy {
                        path: dir.to_owned(),
                        pid: read_pid(&mut file),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(RunError::io("lock", &path)(error)),
            }
        }
        // The pid is only for messages: a full disk must not keep a run from being resumed.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

/// Process id of the holder of the lock of the run in `dir`: `None` if the lock is free, `Some(None)` if
/// the id could not be read.
pub(super) fn holder(dir: &Path) -> Option<Option<u32>> {
    let mut file = open_regular(&dir.join(FILE)).ok()??;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(read_pid(&mut file)),
        // Free, or a file system without locks, where nothing can be said.
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two workers on one run would interleave their events and ruin both.
    #[test]
    fn a_second_worker_is_refused_and_told_who_runs() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::acquire(dir.path()).unwrap();
        assert_eq!(holder(dir.path()), Some(Some(std::process::id())));
        let error = RunLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        assert!(error.contains("already being run"), "{error}");
        drop(lock);
        assert_eq!(holder(dir.path()), None);
        RunLock::acquire(dir.path()).unwrap();
    }

    /// `forgetlab list` at the wrong moment must not keep a worker from starting.
    #[test]
    fn a_passing_reader_does_not_refuse_a_worker() {
        let dir = tempfile::tempdir().unwrap();
        drop(RunLock::acquire(dir.path()).unwrap());
        let reader = File::open(dir.path().join(FILE)).unwrap();
        reader.try_lock_shared().unwrap();
        let waiter = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(60));
            drop(reader);
        });
        RunLock::acquire(dir.path()).unwrap();
        waiter.join().unwrap();
    }
}

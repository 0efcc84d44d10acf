//! Who commands a run: one at a time, and whoever else wants to is told who does.
//!
//! The right is a lock on a small file in the run's folder, held while a command is given, which for `forgetlab add`
//! is until the worker has answered. The system releases it when its process ends, so it cannot go stale; what the file
//! says counts only while the lock is held. On a file system without locks everybody may command.

use std::env;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::printed::one_line;

use super::RunError;

/// File that is locked.
pub(super) const FILE: &str = "commander.json";
/// Bytes of it that are read.
const LONGEST: u64 = 4096;
/// How long a command waits for the one before it.
const PATIENCE: Duration = Duration::from_millis(500);

/// A process that gives commands, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commander {
    /// Login name of the user.
    pub user: String,
    /// Name of the machine.
    pub host: String,
    /// Process there.
    pub pid: u32,
    /// Seconds since the Unix epoch.
    pub since: u64,
}

impl Commander {
    /// This process, now.
    pub fn this() -> Self {
        let named = |name: &&str| env::var(name).ok().filter(|value| !value.is_empty());
        let user = ["USER", "LOGNAME"].iter().find_map(named);
        let host = fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let host = host.map(|name| name.trim().to_owned());
        let host = host.or_else(|| named(&"HOSTNAME"));
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            user: user.unwrap_or_else(|| "somebody".into()),
            host: host.unwrap_or_else(|| "this machine".into()),
            pid: std::process::id(),
            since: since.map_or(0, |since| since.as_secs()),
        }
    }
}

impl fmt::Display for Commander {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user, host, pid, ..
        } = self;
        write!(f, "{}@{} (process {pid})", one_line(user), one_line(host))
    }
}

/// The right to command a run, until it is dropped or the process ends in any way.
#[derive(Debug)]
pub struct Command {
    _file: Option<File>,
}

/// Takes the right to command the run in `dir`; see [`RunError::Commanded`].
pub(super) fn acquire(dir: &Path) -> Result<Command, RunError> {
    let path = dir.join(FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&path).map_err(RunError::io("open", &path))?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(RunError::Commanded {
                    path: dir.to_owned(),
                    by: match read(&mut file) {
                        Some(by) => by.to_string(),
                        None => "another process".to_owned(),
                    },
                });
            }
            Err(TryLockError::Error(_)) => return Ok(Command { _file: None }),
        }
    }
    // Who it is is only for messages: a full disk must not keep a run from being stopped.
    let text = serde_json::to_string(&Commander::this()).unwrap_or_default();
    let _ = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{text}"));
    Ok(Command { _file: Some(file) })
}

fn read(file: &mut File) -> Option<Commander> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two people at one run must not undo each other's commands in silence, and a lab that was killed must not keep
    /// others from theirs.
    #[test]
    fn one_commands_and_the_other_is_told_who() {
        let dir = tempfile::tempdir().unwrap();
        let first = acquire(dir.path()).unwrap();
        let error = acquire(dir.path()).unwrap_err();
        let told = error.to_string();
        assert!(matches!(error, RunError::Commanded { .. }), "{told}");
        assert!(told.contains(&Commander::this().to_string()), "{told}");
        drop(first);
        drop(acquire(dir.path()).unwrap());
        // What is left in the file is nobody's.
        fs::write(dir.path().join(FILE), "{ torn").unwrap();
        let second = acquire(dir.path()).unwrap();
        fs::write(dir.path().join(FILE), "x\u{1b}[2J").unwrap();
        let told = acquire(dir.path()).unwrap_err().to_string();
        assert!(told.contains("another process"), "{told}");
        drop(second);
    }

    /// Names come from the environment of whoever commands.
    #[test]
    fn a_name_commands_no_terminal() {
        let evil = Commander {
            user: "a\u{1b}[2J\nb".into(),
            host: "c".into(),
            pid: 3,
            since: 0,
        };
        assert_eq!(evil.to_string(), "a\\u{1b}[2J\\nb@c (process 3)");
    }
}

//! Errors of runs on disk.

use std::io;
use std::path::{Path, PathBuf};

/// Failure to read or write a run. Each message says what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An operation of the file system failed.
    #[error("cannot {what} {}: {}", path.display(), describe(source))]
    Io {
        /// The operation, e.g. `write`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// No run of that name.
    #[error("no run `{name}` under {}{}", runs.display(), hint(near))]
    NotFound {
        /// The name looked for.
        name: String,
        /// The folder it was looked for in.
        runs: PathBuf,
        /// Runs with a similar name.
        near: Vec<String>,
    },
    /// More than one run has a name that begins so.
    #[error("`{name}` could be any of {}; give more of the name", matches.join(", "))]
    Ambiguous {
        /// The beginning of a name looked for.
        name: String,
        /// Every run whose name begins so.
        matches: Vec<String>,
    },
    /// The folder holds no run.
    #[error("{} is not a run: it has no config.toml", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// The output folder is in use for something else.
    #[error(
        "{} holds something that is not a run (`{entry}`); give an empty or a new folder to --out",
        path.display()
    )]
    OccupiedOut {
        /// The folder.
        path: PathBuf,
        /// A file or folder in it that does not belong to a run.
        entry: String,
    },
    /// Another process holds the run's lock.
    #[error(
        "{} is already being run by {}; watch it with `forgetlab attach {}` or stop it with \
         `forgetlab stop {}`", path.display(), holder(*pid), path.display(), path.display()
    )]
    Busy {
        /// The run directory.
        path: PathBuf,
        /// Process that holds the lock, where it could be read.
        pid: Option<u32>,
    },
    /// A file of the run cannot be parsed.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column for text files.
        problem: String,
    },
    /// A checkpoint is torn, corrupt or of another format version.
    #[error("checkpoint {}: {problem}", path.display())]
    BadCheckpoint {
        /// The checkpoint's JSON file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl RunError {
    /// Wraps an I/O error with the operation and the path; for `map_err`.
    pub fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether a file exists, and may be intact, but could not be read now.
    pub fn is_unreadable(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() != io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Whether the disk has no room left.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if disk_full(source))
    }
}

fn disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn describe(error: &io::Error) -> String {
    let advice = if disk_full(error) {
        "; nothing already written was harmed: free some space and try again (a run: `forgetlab resume`)"
    } else if matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    ) {
        "; choose a writable folder with --out or FORGETLAB_RESULTS"
    } else {
        ""
    };
    format!("{error}{advice}")
}

fn hint(near: &[String]) -> String {
    match near {
        [] => "; `forgetlab list` shows the runs there are".to_owned(),
        near => format!("; did you mean {}?", near.join(" or ")),
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

//! Errors of runs on disk.

use std::io;
use std::path::{Path, PathBuf};

use super::{shell_path, shell_word};

/// Failure to read or write a run. Each message says what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An operation of the file system failed.
    #[error("cannot {what} {}: {}", path.display(), describe(what, source))]
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
    #[error("`{name}` could be any of {}; give more of the name", quoted(matches).join(", "))]
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
    /// A sweep, where one run is wanted.
    #[error(
        "{} is a sweep of several runs; name one of them: {}", path.display(), shell_path(&path.join("points"))
    )]
    IsSweep {
        /// The folder.
        path: PathBuf,
    },
    /// A run in the place of a sweep's point that is another one.
    #[error(
        "{} is not the run of its point: {key} is {found} there, and {wanted} in the sweep; move it away",
        path.display()
    )]
    ForeignRun {
        /// Folder of the run.
        path: PathBuf,
        /// The setting that differs.
        key: String,
        /// Its value in the sweep.
        wanted: String,
        /// Its value in the run.
        found: String,
    },
    /// An arm for a point of a sweep.
    #[error(
        "{} is a point of a sweep, and the points of a sweep have the same arms; run its configuration by itself to add \
         one: `forgetlab run {}`", path.display(), shell_path(path)
    )]
    OfSweep {
        /// Folder of the run.
        path: PathBuf,
    },
    /// The output folder is in use for something else.
    #[error(
        "{} holds something else already (`{entry}`); give an empty or a new folder to --out",
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
         `forgetlab stop {}`", path.display(), holder(*pid), shell_path(path), shell_path(path)
    )]
    Busy {
        /// The run directory.
        path: PathBuf,
        /// Process that holds the lock, where it could be read.
        pid: Option<u32>,
    },
    /// Somebody else commands the run right now.
    #[error("{} is being commanded by {by}; look at what comes of it, and try again", path.display())]
    Commanded {
        /// The run directory.
        path: PathBuf,
        /// Who does.
        by: String,
    },
    /// A file of the run cannot be parsed.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column for text files.
        problem: String,
    },
    /// A line of a run's events was changed, lost, repeated or moved.
    #[error(
        "{}, line {line}: {problem}; restore the file from a copy, or go on from what is whole before it with \
         `forgetlab resume {} --go-back`", path.display(), run(path)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 0: the file as a whole.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The run's folder is not where it was.
    #[error(
        "{} is no longer the file this run writes to: its folder was moved, removed or exchanged. Nothing more is \
         written; move it back and go on with `forgetlab resume`", path.display()
    )]
    Moved {
        /// The file.
        path: PathBuf,
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

    /// Whether this process, or the whole system, may open no more files.
    pub fn lacks_descriptors(&self) -> bool {
        matches!(self, Self::Io { source, .. } if lacks_descriptors(source))
    }

    /// Whether the disk has no room left.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if disk_full(source))
    }
}

/// The run of one of its files, as it is given on a command line.
fn run(file: &Path) -> String {
    shell_path(file.parent().unwrap_or(file))
}

fn disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// EMFILE or ENFILE, which have no [`io::ErrorKind`].
fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

fn describe(what: &str, error: &io::Error) -> String {
    let advice = if disk_full(error) {
        "; nothing already written was harmed: free some space and try again (a run: `forgetlab resume RUN`)"
    } else if what != "read"
        && matches!(
            error.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        )
    {
        "; choose a writable folder with --out or FORGETLAB_RESULTS"
    } else if error.kind() == io::ErrorKind::FileTooLarge {
        "; nothing already written was harmed: raise the limit on the size of files (`ulimit -f`) and try again"
    } else if lacks_descriptors(error) {
        "; nothing already written was harmed: raise the limit on open files (`ulimit -n`) and try again"
    } else {
        ""
    };
    format!("{error}{advice}")
}

fn hint(near: &[String]) -> String {
    match near {
        [] => "; `forgetlab list` shows the runs there are".to_owned(),
        near => format!("; did you mean {}?", quoted(near).join(" or ")),
    }
}

/// Names as they are given on a command line.
fn quoted(names: &[String]) -> Vec<String> {
    names.iter().map(|name| shell_word(name)).collect()
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

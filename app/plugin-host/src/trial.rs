//! The check of a library in a child process: whatever the library does, the one who asked is told.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    Helper, OnLate, Plugin,
    child::{Heard, Voice, Word},
    dry_run::{Told, dry_run},
};

/// The child's task.
pub(super) const TRY: &str = "try";
/// Time without a word after which the call under way is taken to never return.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time a process has to end by itself, exit handlers of the library included.
const GRACE: Duration = Duration::from_secs(10);

/// Why a library does not work.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum CheckError {
    /// The check could not be made.
    #[error("no process could be started to check it in: {0}")]
    NotStarted(String),
    /// It failed, misbehaved or broke its contract.
    #[error("{0}")]
    Failed(String),
    /// It ended the process.
    #[error("it ended the process it was in during {during} ({how})")]
    Ended {
        /// What was being done.
        during: String,
        /// Exit code or signal.
        how: String,
    },
    /// It did not return.
    #[error("it has not returned from {during} for {} s", PATIENCE.as_secs())]
    Hung {
        /// What was being done.
        during: String,
    },
}

/// What is told while a library is checked.
pub trait CheckReport {
    /// Something was tried, and went as `how` says.
    fn tried(&mut self, what: &str, how: &str);
    /// A call takes long.
    fn late(&mut self, call: &str);
}

/// Checks a library in a process of its own.
///
/// # Errors
/// Unless the strategy came through every trial and its process ended as it should.
pub fn check(
    library: &Path,
    settings: &Map<String, Value>,
    helper: &Helper,
    report: &mut dyn CheckReport,
) -> Result<(), CheckError> {
    let settings = Value::from(settings.clone()).to_string();
    let mut child = helper
        .start(TRY, library, &[&settings])
        .map_err(|error| CheckError::NotStarted(error.to_string()))?;
    let mut during = String::from("its start");
    let result = loop {
        match child.next(PATIENCE) {
            Heard::Nothing => return Err(CheckError::Hung { during }),
            Heard::End => {
                let how = child.end(GRACE).words();
                return Err(CheckError::Ended { during, how });
            }
            Heard::Word(word) => match *word {
                Word::Doing(what) => during = what,
                Word::Line(what, how) => report.tried(&what, &how),
                Word::Late(call) => report.late(&call),
                Word::Looked(_) => {}
                Word::Checked(result) => break result,
            },
        }
    };
    result.map_err(CheckError::Failed)?;
    let end = child.end(GRACE);
    if !end.printed.is_empty() {
        report.tried("printed", &end.printed);
    }
    match end.status {
        Some(status) if status.success() => Ok(()),
        Some(_) => Err(CheckError::Ended {
            during: "its exit".into(),
            how: end.words(),
        }),
        None => Err(CheckError::Failed(
            "the process it was in does not end".into(),
        )),
    }
}

/// The child's side: checks the library and tells of it.
pub(super) fn answer(library: &Path, settings: &str, voice: Voice) {
    // The watchdog speaks on a thread of its own.
    let voice = Arc::new(Mutex::new(voice));
    let late = Arc::clone(&voice);
    let on_late: OnLate = Arc::new(move |call| {
        if call.first {
            speak(&late).say(&Word::Late(call.to_string()));
        }
    });
    let mut report = |told| {
        speak(&voice).say(&match told {
            Told::Doing(what) => Word::Doing(what),
            Told::Line(what, how) => Word::Line(what.into(), how),
        });
    };
    report(Told::Doing("dlopen".into()));
    let checked = Plugin::load(library)
        .map_err(|error| error.to_string())
        .and_then(|plugin| {
            let settings = serde_json::from_str(settings).unwrap_or_default();
            dry_run(&plugin, &settings, &on_late, &mut report).map_err(|error| error.to_string())
        });
    speak(&voice).say(&Word::Checked(checked));
}

fn speak(voice: &Mutex<Voice>) -> MutexGuard<'_, Voice> {
    voice.lock().unwrap_or_else(PoisonError::into_inner)
}

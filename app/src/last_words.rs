//! What is known of the end of a worker whose run's events do not tell it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use forgetlab_plugin_host::breadcrumb::{self, Breadcrumb};
use forgetlab_study::run::{RunDir, RunState, Ticket, readable_utc};
use forgetlab_worker::train::BREADCRUMB;

/// Where a detached worker's output goes, inside the run directory: each worker's after that of the one before it.
pub const LOG: &str = "worker.log";
/// How the output of a worker begins there.
const HEADING: &str = "--- worker started ";
/// Bytes of the log's end that are looked at.
const TAIL: u64 = 64 << 10;
/// Seconds by which the clock of the file system may be behind.
const CLOCKS: f64 = 1.0;

/// The line before a worker's output in the log.
pub fn heading() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    format!("{HEADING}{} UTC ---\n", readable_utc(now))
}

/// The strategy's call that a process was in when it ended, if it was in one.
pub fn call_of(dir: &RunDir, pid: u32) -> Option<Breadcrumb> {
    breadcrumb::read(&dir.join(BREADCRUMB)).filter(|call| call.pid == pid)
}

/// The same of the last worker of a run.
pub fn last_call(dir: &RunDir, state: &RunState) -> Option<Breadcrumb> {
    call_of(dir, state.pid?)
}

/// Why the last worker of a crashed run ended, as far as it is known, in one sentence without its end.
pub fn why(dir: &RunDir, state: &RunState) -> Option<String> {
    if let Some(ticket) = Ticket::of(dir.path()) {
        let device = ticket.device;
        return Some(format!(
            "its worker ended while it waited in the queue for {device}"
        ));
    }
    let inside = last_call(dir, state).map(|call| {
        format!(
            "its worker ended inside strategy `{}`, arm {}, call {}",
            call.plugin, call.arm, call.call
        )
    });
    inside.or_else(|| said(dir, state).map(|said| format!("its worker ended: {said}")))
}

/// The error that the last detached worker ended with, unless something happened in the run after it.
fn said(dir: &RunDir, state: &RunState) -> Option<String> {
    let path: PathBuf = dir.join(LOG);
    let mut log = File::open(path).ok()?;
    let data = log.metadata().ok().filter(|data| data.is_file())?;
    let written = data.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    if state
        .times
        .is_some_and(|(_, last)| written.as_secs_f64() + CLOCKS < last)
    {
        return None;
    }
    log.seek(SeekFrom::Start(data.len().saturating_sub(TAIL)))
        .ok()?;
    let mut tail = Vec::new();
    log.take(TAIL).read_to_end(&mut tail).ok()?;
    error_in(&String::from_utf8_lossy(&tail))
}

/// The last error in what the last worker printed, with its causes, on one line.
fn error_in(log: &str) -> Option<String> {
    let last = log.rfind(HEADING).map_or(log, |at| &log[at..]);
    let lines: Vec<&str> = last.lines().collect();
    let error = lines.iter().rposition(|line| line.starts_with("error: "))?;
    let first = lines[error].strip_prefix("error: ")?;
    let causes = lines[error + 1..].iter().map(|line| line.trim());
    let told: Vec<&str> = [first].into_iter().chain(causes).collect();
    Some(told.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else nobody would learn why a run in the background ended, or learn the reason of another day.
    #[test]
    fn the_last_error_of_the_last_worker_is_found() {
        let log = "\
--- worker started 2026-01-01 10:00:00 UTC ---
error: old
--- worker started 2026-01-02 10:00:00 UTC ---
none: step 4
error: the run stopped
  because: cannot write events.jsonl: No space left on device
";
        let told = "the run stopped; because: cannot write events.jsonl: No space left on device";
        assert_eq!(error_in(log).as_deref(), Some(told));
        let silent = format!("{log}{}none: step 4\n", heading());
        assert_eq!(error_in(&silent), None);
        assert_eq!(error_in("error: torn\n").as_deref(), Some("torn"));
    }
}

//! The worker's wait for its turn.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use forgetlab_study::printed::path_in_line;
use forgetlab_study::run::{
    Event, Queue, Results, RunDir, RunLock, StopRequest, SweepDir, Turn, is_worked_on,
};

use super::super::signals::Signals;
use super::super::{devices, out, unless_gone};
use super::ahead::{device_of, working_on};

/// Time between two looks at who is ahead.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time after which it decides anew whose turn it is, whoever was ahead.
const DECIDE_EVERY: Duration = Duration::from_secs(30);
/// Time between two looks at whether it is to stop.
const LOOK_FOR_STOP: Duration = Duration::from_millis(100);

/// Waits until the device of a run is free and its turn has come; `false` where it was asked to stop, which its events
/// then say.
pub fn run(dir: &RunDir, lock: &RunLock) -> anyhow::Result<bool> {
    dir.stop_request().clear()?;
    let device = devices::own(&dir.read_config()?.device);
    match wait(dir.path(), &device, &dir.stop_request())? {
        None => Ok(true),
        Some(reason) => {
            let reason = format!("{reason}, while it waited in the queue for {device}");
            dir.writer(lock)?
                .writer
                .append(Event::Interrupted { reason })?;
            dir.stop_request().clear()?;
            Ok(false)
        }
    }
}

/// The same of a sweep that this process has said to work through.
pub fn sweep(sweep: &SweepDir) -> anyhow::Result<bool> {
    sweep.stop_request().clear()?;
    let device = device_of(sweep).unwrap_or_else(|| "cpu".into());
    let stopped = wait(sweep.path(), &device, &sweep.stop_request())?;
    Ok(stopped.is_none())
}

/// Waits for a turn; why it stopped waiting, where that did not come.
fn wait(folder: &Path, device: &str, stop: &StopRequest) -> anyhow::Result<Option<String>> {
    let signals = Signals::watch(true)?;
    let queue = Queue::of(&Results::from_env());
    let ticket = queue.join(folder, device)?;
    let mut ahead: Option<(PathBuf, Instant)> = None;
    loop {
        let gone = || anyhow!("{} was moved or removed while it waited", folder.display());
        if !folder.exists() {
            return Err(gone());
        }
        // While the one ahead is there, nothing else need be looked at; it may have gone to the end of the line.
        let still = |(other, since): &(PathBuf, Instant)| {
            since.elapsed() < DECIDE_EVERY && is_worked_on(other)
        };
        if !ahead.as_ref().is_some_and(still) {
            let working = || working_on(device, folder).into_iter().next();
            match queue.turn(folder, &ticket, working)? {
                Turn::Come => return Ok(None),
                Turn::Gone => return Err(gone()),
                Turn::Behind(other) => {
                    if ahead.as_ref().is_none_or(|(before, _)| *before != other) {
                        let line = format!("waits for {device}, behind {}", path_in_line(&other));
                        unless_gone(writeln!(out::stdout(), "{line}"))?;
                    }
                    ahead = Some((other, Instant::now()));
                }
            }
        }
        let looked = Instant::now();
        while looked.elapsed() < LOOK_EVERY {
            let reason = match signals.caught() {
                Some(signal) => Some(signal.to_owned()),
                None => stop.by(),
            };
            if let Some(reason) = reason {
                queue.leave(folder, &ticket)?;
                return Ok(Some(reason));
            }
            thread::sleep(LOOK_FOR_STOP);
        }
    }
}

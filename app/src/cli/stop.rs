//! `forgetlab stop`.

use std::io::Write;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use forgetlab_study::printed::one_line;
use forgetlab_study::run::{Found, PointStatus, Results, RunStatus, SweepDir, shell_path};

use super::progress::LOOK_EVERY;
use super::{advice, out, queue, unless_gone};

/// Arguments of `stop`.
#[derive(clap::Args)]
pub struct Args {
    /// Run or sweep: a path, a name or the unique beginning of a name
    run: String,
}

/// How often it says that it still waits.
const REMIND_EVERY: Duration = Duration::from_secs(30);

/// Longest that a process which works on a sweep has no point.
const BETWEEN_POINTS: Duration = Duration::from_secs(1);

const REMINDER: &str = "still waiting for the step to end; Ctrl-C stops only the waiting";

/// Asks the worker to stop and waits until it has.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let dir = match Results::from_env().find_any(&args.run)? {
        Found::Run(dir) => dir,
        Found::Sweep(sweep) => return stop_sweep(&sweep),
    };
    let name = one_line(&dir.name()).into_owned();
    let mut out = out::stdout();
    if !dir.is_live() {
        let status = dir.status()?;
        writeln!(out, "{name} is not running ({})", status.word())?;
        return Ok(ExitCode::SUCCESS);
    }
    let request = dir.stop_request();
    request.make()?;
    let asked = match queue::words(dir.path()) {
        Some(_) => writeln!(out, "asked {name} to leave the queue ..."),
        None => writeln!(out, "asked {name} to stop at its next step ..."),
    };
    // Whoever does not read still waits for the run to end.
    unless_gone(asked.and_then(|()| out.flush()))?;
    let mut told = Instant::now();
    while dir.is_live() {
        thread::sleep(LOOK_EVERY);
        // A worker that began just now clears what it takes for an old request.
        if !request.pending() && dir.is_live() {
            request.make()?;
        }
        if told.elapsed() >= REMIND_EVERY {
            told = Instant::now();
            unless_gone(writeln!(out, "{REMINDER}").and_then(|()| out.flush()))?;
        }
    }
    // A worker that ended of its own did not see it.
    request.clear()?;
    match dir.status()? {
        RunStatus::Interrupted => {
            writeln!(out, "stopped; go on with `{}`", advice::resume(&dir, &[]))?;
        }
        RunStatus::Crashed => {
            writeln!(out, "{}", advice::after_crash(&dir, &dir.load_state()?))?;
        }
        status => writeln!(out, "it had come to its end: {}", status.word())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks everybody who works on a sweep to stop, and waits until nobody does.
fn stop_sweep(sweep: &SweepDir) -> anyhow::Result<ExitCode> {
    // The points that are worked on; `None` where nobody works on any, or goes on to the next.
    let live = || -> anyhow::Result<Option<Vec<String>>> {
        let statuses = sweep.statuses()?;
        let is_live = sweep.counts(&statuses)?.is_live();
        let live = statuses
            .into_iter()
            .filter(|(_, status)| *status == PointStatus::Live);
        Ok(is_live.then(|| live.map(|(point, _)| point.name).collect()))
    };
    let name = one_line(&sweep.name()).into_owned();
    let mut out = out::stdout();
    if live()?.is_none() {
        writeln!(out, "{name} is not running")?;
        return Ok(ExitCode::SUCCESS);
    }
    sweep.stop_request().make()?;
    let asked = writeln!(out, "asked {name} to stop at its next steps ...");
    unless_gone(asked.and_then(|()| out.flush()))?;
    let mut told = Instant::now();
    let mut gone_since = None;
    loop {
        let Some(live) = live()? else {
            // One of several processes may be between two points.
            if gone_since.get_or_insert_with(Instant::now).elapsed() >= BETWEEN_POINTS {
                break;
            }
            thread::sleep(LOOK_EVERY);
            continue;
        };
        gone_since = None;
        if told.elapsed() >= REMIND_EVERY {
            told = Instant::now();
            unless_gone(writeln!(out, "{REMINDER}").and_then(|()| out.flush()))?;
        }
        // A process that began just now clears what it takes for an old request.
        if !sweep.stop_request().pending() {
            sweep.stop_request().make()?;
        }
        // Also those that no sweep's process works on.
        for point in live {
            if let Some(run) = sweep.run(&point).filter(|run| run.is_live()) {
                run.stop_request().make()?;
            }
        }
        thread::sleep(LOOK_EVERY);
    }
    // Whoever ended of its own did not see it.
    sweep.stop_request().clear()?;
    let resume = format!("forgetlab resume {}", shell_path(sweep.path()));
    writeln!(out, "stopped; go on with `{resume}`")?;
    Ok(ExitCode::SUCCESS)
}

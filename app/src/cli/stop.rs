//! `forgetlab stop`.

use std::io::Write;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use forgetlab_study::experiment::{ArmInfo, arms_named};
use forgetlab_study::printed::one_line;
use forgetlab_study::run::{Found, PointStatus, Results, RunDir, RunStatus, SweepDir, shell_path};

use super::add::{Asked, wait};
use super::progress::LOOK_EVERY;
use super::{Usage, advice, out, queue, unless_gone};

/// Arguments of `stop`.
#[derive(clap::Args)]
pub struct Args {
    /// Run or sweep: a path, a name or the unique beginning of a name
    run: String,
    /// Only this arm, at its next evaluation; the others go on (may be given again)
    #[arg(long, value_name = "ARM")]
    arm: Vec<String>,
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
        Found::Sweep(_) if !args.arm.is_empty() => {
            let what = "--arm is for one run: name it as SWEEP/POINT";
            return Err(Usage(what.to_owned()).into());
        }
        Found::Sweep(sweep) => return stop_sweep(&sweep),
    };
    if !args.arm.is_empty() {
        return stop_arms(&dir, &args.arm);
    }
    let name = one_line(&dir.name()).into_owned();
    let mut out = out::stdout();
    if !dir.is_live() {
        let status = dir.status()?;
        writeln!(out, "{name} is not running ({})", status.word())?;
        return Ok(ExitCode::SUCCESS);
    }
    let request = dir.stop_request();
    let command = dir.command()?;
    // Before it is asked: it may leave at once.
    let waits = queue::words(dir.path());
    request.make()?;
    drop(command);
    let asked = match waits {
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

/// Asks the worker to stop arms; those of a run that nobody works on stop once somebody does.
fn stop_arms(dir: &RunDir, names: &[String]) -> anyhow::Result<ExitCode> {
    let _command = dir.command()?;
    let state = dir.brief_state(dir.is_live())?;
    let infos: Vec<&ArmInfo> = state.arms.iter().map(|arm| &arm.info).collect();
    let coeff = dir.read_config()?.replay.coeff;
    let mut arms = Vec::new();
    for name in names {
        let named = arms_named(&infos, name, coeff);
        if named.is_empty() {
            let all: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
            let all = all.join(", ");
            return Err(Usage(format!("the run has no arm `{name}`; its arms are {all}")).into());
        }
        arms.extend(named);
    }
    arms.sort_unstable();
    arms.dedup();
    let mut asked = Vec::new();
    for arm in arms {
        let arm = &state.arms[arm];
        let label = state.arm_label(arm);
        if arm.status.is_over() {
            let told = format!("{} is over: {}", one_line(&label), arm.status.word());
            unless_gone(writeln!(out::stdout(), "{told}"))?;
            continue;
        }
        asked.push(Asked {
            id: dir.requests().stop_arm(&arm.info.slug)?,
            what: format!("stop {label}"),
        });
    }
    wait(dir, &asked)
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

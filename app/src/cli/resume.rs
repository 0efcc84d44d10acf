//! `forgetlab resume`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use forgetlab_study::printed::{one_line, path_in_line};
use forgetlab_study::report;
use forgetlab_study::run::{Found, Results, RunDir, RunStatus};

use super::supervise::{self, Parent};
use super::work::Work;
use super::worker::{WorkerArgs, workers};
use super::{Usage, advice, out, queue, sweep, unless_gone, warn};

/// Arguments of `resume`.
#[derive(clap::Args)]
pub struct Args {
    /// Run or sweep: a path, a name or the unique beginning of a name
    pub run: String,
    /// Of a sweep, start or go on with this point alone
    #[arg(long, value_name = "POINT")]
    pub point: Option<String>,
    /// Points of a sweep worked on at a time [default: on the CPU one for each core, on a GPU one]
    #[arg(long, value_name = "N", value_parser = workers(), conflicts_with = "point")]
    pub workers: Option<usize>,
    /// Of a sweep, also begin anew with points that failed or were refused; what they have is set aside
    #[arg(long)]
    pub retry: bool,
    /// End with the process that works on the sweep
    #[arg(long, hide = true, value_name = "PID")]
    pub with_parent: Option<u32>,
    /// Go on without this arm (may be given again)
    #[arg(long, value_name = "ARM")]
    pub skip_arm: Vec<String>,
    /// Where files of the run are damaged, go on from what is whole, and train again what is missing
    #[arg(long)]
    pub go_back: bool,
    /// How the run is worked on
    #[command(flatten)]
    pub worker: WorkerArgs,
}

/// Goes on with a run, or with a point of a sweep, in a process that this one waits for; with a sweep in one for each
/// of its points.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let sweep = match Results::from_env().find_any(&args.run)? {
        Found::Sweep(sweep) => sweep,
        Found::Run(_) if args.point.is_some() || args.workers.is_some() || args.retry => {
            let what = "--point, --workers and --retry are for sweeps";
            return Err(Usage(format!("{what}, and {} is a run", args.run)).into());
        }
        Found::Run(_) => return supervise::run(&args.worker),
    };
    if (args.go_back || !args.skip_arm.is_empty()) && args.point.is_none() {
        let what = "--go-back and --skip-arm are for one run: name it with --point";
        return Err(Usage(what.to_owned()).into());
    }
    if args.worker.in_background() && args.point.is_some() {
        let what = "--detach and --queue are for a run or a whole sweep, not for --point";
        return Err(Usage(what.to_owned()).into());
    }
    if let Some(point) = &args.point {
        return sweep::run_point(&sweep, point, args);
    }
    sweep::resume(&sweep, args).map(ExitCode::from)
}

/// Goes on with a run, in this process or in one that it leaves in the background; one that is over is said to be so.
pub fn work(args: &Args, parent: &Parent) -> anyhow::Result<u8> {
    let dir = match (Results::from_env().find_any(&args.run)?, &args.point) {
        (Found::Run(dir), _) => dir,
        (Found::Sweep(sweep), Some(point)) => return sweep::body(&sweep, point, args, parent),
        (Found::Sweep(_), None) => return Err(Usage("this works on one run".into()).into()),
    };
    if let Some(words) = queue::words(dir.path()) {
        bail!(
            "{} {words}; `{}` takes it out of the line",
            one_line(&dir.name()),
            advice::stop(&dir)
        );
    }
    if args.go_back {
        for line in dir.go_back(&dir.lock()?)? {
            warn(line);
        }
    }
    let work = Work {
        dir: &dir,
        skip_arms: &args.skip_arm,
        args: &args.worker,
        parent,
    };
    match dir.status()? {
        RunStatus::Finished | RunStatus::Failed if !is_asked(&dir)? => already_over(&dir),
        _ => work.resume(),
    }
}

/// Whether a request waits for a worker.
fn is_asked(dir: &RunDir) -> anyhow::Result<bool> {
    let pending = dir.requests().pending().unwrap_or_default();
    if pending.is_empty() {
        return Ok(false);
    }
    let state = dir.brief_state(false)?;
    let mut pending = pending.iter();
    Ok(pending.any(|request| state.answer(&request.id).is_none()))
}

/// Shows a run that needs no more work. The exit code still tells whether an arm failed.
pub fn already_over(dir: &RunDir) -> anyhow::Result<u8> {
    let state = dir.checked_state()?;
    // The worker may have died between its last event and its last file.
    let written = report::write(dir, &state)?;
    for note in &written.notes {
        warn(format_args!("note: {note}"));
    }
    let name = dir.name();
    let table = report::table(&[(name.as_str(), &state)], super::glyphs());
    let mut out = out::stdout();
    unless_gone(writeln!(
        out,
        "{table}\n{} is finished: {}",
        one_line(&name),
        path_in_line(&written.summary)
    ))?;
    Ok(super::code_of(dir.status()?))
}

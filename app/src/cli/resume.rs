//! `forgetlab resume`.

use std::io::Write;

use forgetlab_study::printed::{one_line, path_in_line};
use forgetlab_study::report;
use forgetlab_study::run::{Results, RunDir, RunStatus};

use super::supervise::Parent;
use super::work::Work;
use super::worker::WorkerArgs;
use super::{out, unless_gone, warn};

/// Arguments of `resume`.
#[derive(clap::Args)]
pub struct Args {
    /// Run: a path, a name or the unique beginning of a name
    pub run: String,
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

/// Goes on with a run, in this process or in one that it leaves in the background; one that is over is said to be so.
pub fn work(args: &Args, parent: &Parent) -> anyhow::Result<u8> {
    let dir = Results::from_env().find(&args.run)?;
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
        RunStatus::Finished | RunStatus::Failed => already_over(&dir),
        _ => work.resume(),
    }
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

//! The hidden `worker` command: what `run`, `resume` and `--detach` start.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use forgetlab_study::run::{Lease, RunDir, SweepDir};
use signal_hook::consts::SIGHUP;

use super::signals::let_pass;
use super::supervise::{Parent, be_waited_for};
use super::work::Work;
use super::worker::WorkerArgs;
use super::{exit, queue, resume, run};

/// Arguments of `worker`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// What `forgetlab run` starts and waits for
    Run(run::Args),
    /// What `forgetlab resume` starts and waits for
    Resume(resume::Args),
    /// What --detach leaves in the background
    Detached(Detached),
    /// What --detach of a sweep leaves there
    Sweep(resume::Args),
}

#[derive(clap::Args)]
struct Detached {
    run: PathBuf,
    #[arg(long)]
    skip_arm: Vec<String>,
    #[command(flatten)]
    worker: WorkerArgs,
}

/// Does the work of `run` or `resume` for the process that waits for it, or on its own in the background.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Run(args) => be_waited_for(|parent| run::work(&args, parent)),
        Command::Resume(args) => be_waited_for(|parent| resume::work(&args, parent)),
        Command::Detached(args) => detached(args).map(ExitCode::from),
        Command::Sweep(mut args) => {
            leave_session()?;
            let mut through = None;
            if args.worker.queue {
                through = in_line(&SweepDir::open(Path::new(&args.run))?)?;
                if through.is_none() {
                    return Ok(ExitCode::from(exit::INTERRUPTED));
                }
            }
            (args.worker.detach, args.worker.queue) = (false, false);
            let code = resume::run(&args);
            drop(through);
            code
        }
    }
}

/// Leaves the terminal's session.
fn leave_session() -> anyhow::Result<()> {
    // First of all: the terminal may go at any time.
    let_pass(SIGHUP)?;
    // Fails only where it leads a session already, which is as good.
    let _ = rustix::process::setsid();
    Ok(())
}

/// Waits until the device of a sweep is free; what says from the beginning that this process works through it. `None`
/// where it was asked to stop.
fn in_line(sweep: &SweepDir) -> anyhow::Result<Option<Lease>> {
    let Some(lease) = sweep.work_through()? else {
        bail!(
            "another process works through {} already",
            sweep.path().display()
        );
    };
    Ok(queue::wait_for_sweep(sweep)?.then_some(lease))
}

/// Leaves the terminal's session, then works, where it is to wait in line once its turn has come.
fn detached(args: Detached) -> anyhow::Result<u8> {
    leave_session()?;
    let dir = RunDir::open(&args.run)?;
    let work = Work {
        dir: &dir,
        skip_arms: &args.skip_arm,
        args: &WorkerArgs {
            detach: true,
            ..args.worker.clone()
        },
        parent: &Parent::none(),
    };
    let lock = dir.lock()?;
    if args.worker.queue && !queue::wait_for_run(&dir, &lock)? {
        return Ok(exit::INTERRUPTED);
    }
    work.go_on(Some(lock), None)
}

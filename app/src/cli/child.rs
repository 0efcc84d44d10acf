//! The hidden `worker` command: what `run`, `resume` and `--detach` start.

use std::path::PathBuf;
use std::process::ExitCode;

use forgetlab_study::run::RunDir;
use signal_hook::consts::SIGHUP;

use super::signals::let_pass;
use super::supervise::{Parent, be_waited_for};
use super::work::Work;
use super::worker::WorkerArgs;
use super::{resume, run};

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
            args.worker.detach = false;
            resume::run(&args)
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

/// Leaves the terminal's session, then works.
fn detached(args: Detached) -> anyhow::Result<u8> {
    leave_session()?;
    let dir = RunDir::open(&args.run)?;
    let work = Work {
        dir: &dir,
        skip_arms: &args.skip_arm,
        args: &WorkerArgs {
            detach: true,
            ..args.worker
        },
        parent: &Parent::none(),
    };
    work.go_on(None, None)
}

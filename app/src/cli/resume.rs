//! `forgetlab resume`.

use std::io::{self, Write};
use std::process::ExitCode;

use forgetlab_study::report;
use forgetlab_study::run::{Results, RunDir, RunStatus};

use super::worker::{self, WorkerArgs};

/// Arguments of `resume`.
#[derive(clap::Args)]
pub struct Args {
    /// Run: a path, a name or the unique beginning of a name
    pub run: String,
    /// Go on without this arm (may be given again)
    #[arg(long, value_name = "ARM")]
    pub skip_arm: Vec<String>,
    /// How the run is worked on
    #[command(flatten)]
    pub worker: WorkerArgs,
}

/// Goes on with a run; one that is over is said to be so.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let dir = Results::from_env().find(&args.run)?;
    match dir.status()? {
        RunStatus::Finished | RunStatus::Failed => already_over(&dir),
        _ => worker::resume(&dir, &args.skip_arm, &args.worker),
    }
}

/// Shows a run that needs no more work. The exit code still tells whether an arm failed.
pub fn already_over(dir: &RunDir) -> anyhow::Result<ExitCode> {
    let state = dir.load_state()?;
    // The worker may have died between its last event and its last file.
    let written = report::write(dir, &state)?;
    let name = dir.name();
    let table = report::table(&[(name.as_str(), &state)], super::glyphs());
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{table}\n{name} is finished: {}",
        written.summary.display()
    )?;
    Ok(super::code_of(dir.status()?))
}

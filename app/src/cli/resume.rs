//! `forgetlab resume`.

use std::process::ExitCode;

use forgetlab_engine::run::Results;

/// Arguments of `resume`.
#[derive(clap::Args)]
pub struct Args {
    /// Run: a path, a name or the unique beginning of a name
    pub run: String,
    /// Go on without this arm (may be given again)
    #[arg(long, value_name = "ARM")]
    pub skip_arm: Vec<String>,
    /// Run in the background, surviving this terminal
    #[arg(long)]
    pub detach: bool,
}

/// Goes on with a run.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let dir = Results::from_env().find(&args.run)?;
    anyhow::bail!(
        "cannot resume {}: this build has no training engine",
        dir.name()
    )
}

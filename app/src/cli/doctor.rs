//! `forgetlab doctor`.

use std::process::ExitCode;

/// Arguments of `doctor`.
#[derive(clap::Args)]
pub struct Args {}

/// Says what works here.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this build has no engine to examine")
}

//! `forgetlab cache`: first phases and tokenized texts that later runs need not make again.

mod list;
mod prune;
mod users;

use std::process::ExitCode;

use forgetlab_engine::human_bytes;

/// What is kept for later runs: first phases that were trained, and texts as tokens.
#[derive(clap::Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the entries: what each is, how large, when it was used last, and by which runs here
    List,
    /// Remove entries, which runs then train or tokenize again; shows them and asks first
    Prune(prune::Args),
}

/// Runs `forgetlab cache`.
pub fn run(args: CacheArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List => list::run(),
        Command::Prune(args) => prune::run(&args),
    }
}

fn entries_and_bytes(entries: usize, bytes: u64) -> String {
    let word = if entries == 1 { "entry" } else { "entries" };
    format!("{entries} {word}, {}", human_bytes(bytes as f64))
}

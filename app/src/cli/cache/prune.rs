//! `forgetlab cache prune`.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use forgetlab_study::printed::path_in_line;
use forgetlab_study::run::{CacheEntry, Results};

use super::super::confirm::confirmed;
use super::super::{WhileRead, exit, out, unless_gone, warn};
use super::{entries_and_bytes, list};

/// Without --older-than and --all: entries that are damaged, and what killed processes left.
#[derive(clap::Args)]
pub struct Args {
    /// Entries that nobody has used for that long, and damaged ones
    #[arg(long, value_name = "DAYS", conflicts_with = "all")]
    older_than: Option<u32>,
    /// Every entry
    #[arg(long)]
    all: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Removes the entries that were asked for; never what a process is writing.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let results = Results::from_env();
    let entries = results.cache().entries()?.into_iter();
    let goes: Vec<CacheEntry> = entries.filter(|entry| args.take(entry)).collect();
    let mut out = WhileRead(out::stdout());
    if goes.is_empty() {
        let folder = results.cache_folder();
        writeln!(out, "nothing to remove under {}", path_in_line(&folder))?;
        return Ok(ExitCode::SUCCESS);
    }
    list::show(&mut out, &results, &goes)?;
    if !args.yes && !confirmed(&mut out, "remove these entries? [y/N] ")? {
        return Ok(ExitCode::SUCCESS);
    }
    let (mut removed, mut bytes) = (0, 0);
    for entry in &goes {
        match entry.remove() {
            Ok(()) => {
                removed += 1;
                bytes += entry.bytes;
            }
            Err(error) => warn(format_args!("error: {error}")),
        }
    }
    unless_gone(writeln!(
        out,
        "removed {}",
        entries_and_bytes(removed, bytes)
    ))?;
    Ok(match removed == goes.len() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit::FAILED),
    })
}

impl Args {
    fn take(&self, entry: &CacheEntry) -> bool {
        let days = self
            .older_than
            .map(|days| Duration::from_secs(u64::from(days) * 24 * 60 * 60));
        self.all || entry.is_useless() || days.is_some_and(|days| entry.age() >= days)
    }
}

//! `forgetlab queue`, and what stands behind `--queue`: the line of runs that wait until nobody works on their device.

mod ahead;
mod wait;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use forgetlab_study::printed::path_in_line;
use forgetlab_study::report::{Format, Sheet};
use forgetlab_study::run::{Queue, Results, RunDir, Waiting, readable_utc};
use serde_json::json;

use super::{out, unless_gone};

pub use ahead::{is_held_up, place, words};
pub use wait::{run as wait_for_run, sweep as wait_for_sweep};

/// Time between two looks at a place in line.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Arguments of `queue`.
#[derive(clap::Args)]
pub struct Args {
    /// One JSON object a line instead of text
    #[arg(long)]
    json: bool,
}

/// Lists who waits for which device, in order.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let results = Results::from_env();
    let mut line = Queue::of(&results).line()?;
    line.sort_by_cached_key(|waiting| (waiting.ticket.device.clone(), waiting.place));
    let mut out = out::stdout();
    let told = match args.json {
        true => line.iter().try_for_each(|waiting| {
            let Waiting {
                folder,
                ticket,
                place,
            } = waiting;
            out.json(&json!({
                "device": ticket.device,
                "place": place,
                "run": RunDir::name_of(folder),
                "path": folder.to_string_lossy(),
                "since": ticket.since,
            }))
        }),
        false if line.is_empty() => {
            let runs = results.runs();
            writeln!(out, "nobody waits in the queue of {}", path_in_line(&runs))
        }
        false => out.write_all(table(&line).write(Format::Text(super::glyphs())).as_bytes()),
    };
    unless_gone(told)?;
    Ok(ExitCode::SUCCESS)
}

/// What somebody who watches was told of a place in line.
#[derive(Default)]
pub struct Told {
    words: Option<String>,
    looked: Option<Instant>,
}

impl Told {
    /// Tells what a run or sweep waits for, where that has changed.
    pub fn look(&mut self, folder: &Path) -> anyhow::Result<()> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let words = words(folder);
        if words != self.words
            && let Some(words) = &words
        {
            let mut out = out::stdout();
            unless_gone(writeln!(out, "{words}").and_then(|()| out.flush()))?;
        }
        self.words = words;
        Ok(())
    }
}

fn table(line: &[Waiting]) -> Sheet {
    let head = ["run", "device", "place", "since (UTC)"];
    let mut sheet = Sheet::new(String::new(), &head);
    sheet.rows = line
        .iter()
        .map(|waiting| {
            vec![
                RunDir::name_of(&waiting.folder),
                waiting.ticket.device.clone(),
                waiting.place.to_string(),
                readable_utc(waiting.ticket.since.max(0.0) as u64),
            ]
        })
        .collect();
    sheet
}

//! `forgetlab watch`: how runs stand, for logs and scripts.

mod line;
mod once;

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use forgetlab_study::printed::one_line;
use forgetlab_study::run::{Found, Results, RunDir, RunStatus, readable_utc};
use forgetlab_tui::Seen;
use forgetlab_tui::lab::Feed;

use super::progress::{LOOK_EVERY, lasting_words};
use super::{Usage, attach, code_of, exit, out, queue, signals, top, unless_gone};
use crate::local_lab::RunFeed;
use line::Figures;

/// Arguments of `watch`.
#[derive(clap::Args)]
pub struct Args {
    /// Runs: paths, names or unique beginnings of names
    #[arg(required = true)]
    run: Vec<String>,
    /// Time between two lines [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = top::seconds, conflicts_with = "once")]
    every: Option<f64>,
    /// One JSON object a line instead of text
    #[arg(long)]
    json: bool,
    /// One frame of the lab's watch screen; with --json, one object a run
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    frame: once::FrameArgs,
}

/// Seconds between two lines.
const EVERY: f64 = 10.0;

/// Tells how runs stand until nobody works on any; the exit code is that of the run that ended worst.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let results = Results::from_env();
    let mut all = Vec::new();
    for name in &args.run {
        match results.find_any(name)? {
            Found::Run(dir) => all.push(Followed::new(dir)),
            Found::Sweep(_) => {
                let what = format!(
                    "{} is a sweep: `attach` follows it; of one of its runs, write SWEEP/POINT",
                    one_line(name)
                );
                return Err(Usage(what).into());
            }
        }
    }
    match args.once {
        true => once::run(all, &args),
        false => follow(all, &args),
    }
}

/// A run that is followed.
struct Followed {
    dir: RunDir,
    feed: RunFeed,
    seen: Seen,
    figures: Figures,
    queue: queue::Told,
    /// Whether something has happened since the last line.
    new: bool,
}

impl Followed {
    fn new(dir: RunDir) -> Self {
        Self {
            feed: RunFeed::new(dir.clone()),
            seen: Seen::new(dir.name()),
            figures: Figures::default(),
            queue: queue::Told::default(),
            new: true,
            dir,
        }
    }

    fn status(&self) -> RunStatus {
        self.seen.status().unwrap_or(RunStatus::Live)
    }

    fn is_over(&self) -> bool {
        self.status() != RunStatus::Live
    }

    /// Reads what is new, and returns what of it is worth a line.
    fn look(&mut self) -> anyhow::Result<Vec<String>> {
        let update = self.feed.poll()?;
        let records = update.records.clone();
        self.new |= !records.is_empty();
        self.seen.take(update);
        let words = records.iter();
        let words = words.filter_map(|record| lasting_words(self.seen.state(), record));
        Ok(words.collect())
    }

    /// Tells how it stands.
    fn tell(&mut self, json: bool) -> anyhow::Result<()> {
        self.new = false;
        let now = top::now();
        let mut out = out::stdout();
        let told = match json {
            true => out.json(&self.figures.json(&self.seen, now)),
            false => {
                let words = self.figures.words(&self.seen, now);
                writeln!(out, "{}", stamped(&self.seen, &words))
            }
        };
        Ok(unless_gone(told.and_then(|()| out.flush()))?)
    }
}

/// A text of a run behind the time and the run's name.
fn stamped(seen: &Seen, text: &str) -> String {
    let now = readable_utc(top::now() as u64);
    format!("{now} {} {}", one_line(seen.name()), one_line(text))
}

fn follow(mut all: Vec<Followed>, args: &Args) -> anyhow::Result<ExitCode> {
    let leave = signals::leaving()?;
    let every = Duration::from_secs_f64(args.every.unwrap_or(EVERY));
    let mut told: Option<Instant> = None;
    loop {
        let due = told.is_none_or(|at| at.elapsed() >= every);
        if due {
            told = Some(Instant::now());
        }
        for run in all.iter_mut().filter(|run| !run.is_over()) {
            let words = run.look()?;
            if !args.json {
                run.queue.look(run.dir.path())?;
                for words in words {
                    unless_gone(writeln!(out::stdout(), "{}", stamped(&run.seen, &words)))?;
                }
            }
            if run.is_over() || (due && run.new) {
                run.tell(args.json)?;
            }
            if run.is_over() && !args.json {
                let farewell = attach::farewell(&run.dir, run.seen.state(), run.status());
                unless_gone(writeln!(out::stdout(), "{farewell}"))?;
            }
        }
        if all.iter().all(Followed::is_over) {
            return Ok(ExitCode::from(worst(&all)));
        }
        if leave.load(Ordering::Relaxed) {
            for run in all.iter().filter(|run| !run.is_over() && !args.json) {
                unless_gone(writeln!(out::stdout(), "{}", attach::left_going(&run.dir)))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// The exit code of the run that ended worst: what cannot be gone on with is worse than what can.
fn worst(all: &[Followed]) -> u8 {
    let codes = || all.iter().map(|run| code_of(run.status()));
    let order = [exit::FAILED, exit::ARM_FAILED, exit::INTERRUPTED];
    let mut found = order
        .into_iter()
        .filter(|code| codes().any(|own| own == *code));
    found.next().unwrap_or(exit::DONE)
}

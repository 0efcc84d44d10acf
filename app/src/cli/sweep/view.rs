//! What a sweep shows while it is worked on: a line as a point begins and ends, and on a terminal how much is done.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use forgetlab_study::run::SweepDir;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::{out, unless_gone};
use super::percent_done;

/// Time between two looks at how much is done, which reads the runs' events.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Shows a sweep.
pub struct View {
    bar: Option<(MultiProgress, ProgressBar)>,
    looked: Mutex<Option<Instant>>,
}

impl View {
    /// A bar where standard output and error are terminals, else lines alone.
    pub fn new() -> Self {
        let terminal = out::is_terminal() && out::errors_on_terminal();
        let bar = terminal.then(|| {
            let all = MultiProgress::with_draw_target(out::bars());
            let style = ProgressStyle::with_template("[{bar:20}] {percent:>3}% {wide_msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::hidden());
            let bar = all.add(bar.with_style(style.progress_chars("=> ")));
            (all, bar)
        });
        Self {
            bar,
            looked: Mutex::default(),
        }
    }

    /// Says a line, above the bar where there is one.
    pub fn say(&self, line: &str) -> anyhow::Result<()> {
        if let Some((all, _)) = &self.bar {
            out::line_above(all, line);
            return Ok(());
        }
        let mut out = out::stdout();
        Ok(unless_gone(
            writeln!(out, "{line}").and_then(|()| out.flush()),
        )?)
    }

    /// Shows how much is done, now and then. Showing never fails: what cannot be read is told by others.
    pub fn look(&self, sweep: &SweepDir) {
        let Some((_, bar)) = &self.bar else {
            return;
        };
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        if let Ok(statuses) = sweep.statuses()
            && let Ok(counts) = sweep.counts(&statuses)
        {
            bar.set_position(percent_done(sweep, &statuses));
            let told = format!("{} of {} points finished", counts.finished, counts.all);
            out::set_message(bar, &told);
        }
        *looked = Some(Instant::now());
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some((_, bar)) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

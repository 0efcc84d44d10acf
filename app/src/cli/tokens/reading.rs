//! How far the reading of sources is: a bar on a terminal, a line now and then otherwise.

use std::time::{Duration, Instant};

use forgetlab_engine::human_bytes;
use forgetlab_study::report::{human_count, human_seconds};
use forgetlab_worker::data::Progress;
use indicatif::{ProgressBar, ProgressStyle};

use super::super::{out, warn};

/// Time between lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// Shows how far reading is, with its rate and the time that is left.
pub struct Reading {
    what: &'static str,
    bar: Option<ProgressBar>,
    began: Instant,
    told: Instant,
}

impl Reading {
    /// Begins to show what is done.
    pub fn new(what: &'static str) -> Self {
        let bar = out::errors_on_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, out::bars());
            let style =
                "{prefix} [{bar:20}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left{msg}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style.progress_chars("=> "));
            }
            out::set_prefix(&bar, what);
            bar
        });
        Self {
            what,
            bar,
            began: Instant::now(),
            told: Instant::now(),
        }
    }

    /// Shows how far it is.
    pub fn show(&mut self, progress: &Progress) {
        let tokens = match progress.tokens {
            0 => String::new(),
            tokens => format!(", {} tokens", human_count(tokens)),
        };
        if let Some(bar) = &self.bar {
            bar.set_length(progress.bytes);
            bar.set_position(progress.bytes_read);
            out::set_message(bar, &tokens);
        } else if self.told.elapsed() >= PAUSE {
            self.told = Instant::now();
            let seconds = self.began.elapsed().as_secs_f64();
            let rate = progress.bytes_read as f64 / seconds;
            let left = (progress.bytes - progress.bytes_read) as f64 / rate;
            warn(format_args!(
                "{} {} of {}, {}/s, {} left{tokens}",
                self.what,
                human_bytes(progress.bytes_read as f64),
                human_bytes(progress.bytes as f64),
                human_bytes(rate),
                human_seconds(left),
            ));
        }
    }

    /// Takes the bar away; the seconds it took.
    pub fn end(self) -> f64 {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        self.began.elapsed().as_secs_f64()
    }
}

//! When live progress is due, and how fast training goes.

use std::time::{Duration, Instant};

/// Least time between two progress events of an arm.
const INTERVAL: Duration = Duration::from_millis(500);

/// Measures from one progress event to the next; made anew whenever an arm's turn begins.
pub(super) struct Pace {
    since: Instant,
    tokens: Option<u64>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            tokens: None,
        }
    }

    /// Trained tokens per second since the last event, when the next one is due. `tokens` counts all so far.
    pub(super) fn due(&mut self, tokens: u64) -> Option<f64> {
        let Some(before) = self.tokens else {
            // The first step of a turn starts the clock.
            (self.since, self.tokens) = (Instant::now(), Some(tokens));
            return None;
        };
        let elapsed = self.since.elapsed();
        if elapsed < INTERVAL {
            return None;
        }
        (self.since, self.tokens) = (Instant::now(), Some(tokens));
        Some((tokens - before) as f64 / elapsed.as_secs_f64())
    }
}

//! How a run or a sweep stands: its style, and the points of a sweep in words.

use forgetlab_study::run::{RunStatus, SweepCounts};
use ratatui::style::Style;

use crate::theme::Theme;

use super::text::plural;

/// The style of a status.
pub fn status_style(theme: Theme, status: RunStatus) -> Style {
    match status {
        RunStatus::Live => theme.good().patch(theme.heading()),
        RunStatus::Finished => Style::new(),
        RunStatus::Interrupted => theme.warn(),
        RunStatus::Failed | RunStatus::Crashed => theme.bad(),
    }
}

/// How the points of a sweep stand, in words.
pub fn in_words(counts: SweepCounts) -> String {
    let SweepCounts {
        all,
        finished,
        bad,
        live,
        worked_on: _,
    } = counts;
    let mut text = format!("{finished} of {} finished", plural(all, "point"));
    for (count, word) in [(live, "live"), (bad, "failed or refused")] {
        if count > 0 {
            text += &format!(", {count} {word}");
        }
    }
    text
}

//! The replay samples of an arm: the latest texts, their likelihood and diversity.

use forgetlab_study::run::ArmState;
use ratatui::style::Style;

use crate::theme::Theme;
use crate::widgets::text::{nats, percent, plural, wrap};

/// The samples of an arm, named by `label`, as lines.
pub fn lines(label: &str, arm: &ArmState, theme: Theme, width: usize) -> Vec<(String, Style)> {
    let heading = wrap(label, width).into_iter();
    let mut lines: Vec<_> = heading.map(|line| (line, theme.heading())).collect();
    let Some(look) = arm.replay.last() else {
        lines.push(("nothing was replayed yet".into(), theme.dim()));
        return lines;
    };
    let quality = look.quality;
    let share = quality.duplicate_rows as f64 / quality.rows.max(1) as f64;
    let distinct: Vec<String> = (1..)
        .zip(quality.distinct)
        .map(|(n, share)| format!("{n}-grams {}", percent(share)))
        .collect();
    let nll = match look.nll {
        Some(nll) => format!(", {} nats a token under the reference", nats(nll)),
        None => String::new(),
    };
    let texts = match look.rows.len() {
        0 => "its texts come with the next look".into(),
        rows => format!("first {}{nll}", plural(rows, "row")),
    };
    let figures = [
        format!(
            "batch of step {}: {}, duplicates {}",
            look.step,
            plural(quality.rows, "row"),
            percent(share)
        ),
        format!("distinct: {}", distinct.join(", ")),
        texts,
    ];
    let wrapped = figures.iter().flat_map(|text| wrap(text, width));
    lines.extend(wrapped.map(|line| (line, Style::new())));
    for (row, text) in (1..).zip(&look.rows) {
        lines.push((String::new(), Style::new()));
        lines.push((format!("row {row}"), theme.dim()));
        let wrapped = wrap(text, width).into_iter();
        lines.extend(wrapped.map(|line| (line, Style::new())));
    }
    lines
}

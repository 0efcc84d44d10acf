//! Overlays of a screen: help, log, replay, messages and questions.

use forgetlab_study::report::Margins;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear};

use crate::keymap::{Binding, KEYMAP, Place};
use crate::theme::Theme;
use crate::widgets::text::wrap;

/// A text that can be scrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// The help, opened from this place.
    Help(Place),
    /// The log of the run being watched.
    Log,
    /// Replay samples of the arm under the cursor.
    Replay,
}

/// An overlay of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// A text, and the index of the first line shown.
    Text(Text, usize),
    /// The question whether to stop this run.
    AskStop(String),
    /// The question what to do with these live runs when leaving.
    AskQuit(Vec<String>),
}

/// Lines of the help: the keys of `from`, how to read the screen, then all other keys; `margins` are those of the
/// run's verdicts.
pub fn help_lines(
    theme: Theme,
    from: Place,
    margins: Margins,
    width: usize,
) -> Vec<(String, Style)> {
    let mut lines = Vec::new();
    add_keys(&mut lines, theme, from, width);
    add_keys(&mut lines, theme, Place::Everywhere, width);
    lines.push(("Reading the screen".into(), theme.heading()));
    for paragraph in reading(margins) {
        let text = wrap(&paragraph, width).into_iter();
        lines.extend(text.map(|line| (line, Style::new())));
        lines.push((String::new(), Style::new()));
    }
    let others = Place::ALL.into_iter();
    for place in others.filter(|place| *place != from && *place != Place::Everywhere) {
        add_keys(&mut lines, theme, place, width);
    }
    lines.pop();
    lines
}

/// Adds the keys of a place.
fn add_keys(lines: &mut Vec<(String, Style)>, theme: Theme, place: Place, width: usize) {
    lines.push((place.title().to_string(), theme.heading()));
    for binding in KEYMAP.iter().filter(|binding| binding.place == place) {
        let keys = keys(binding);
        for (index, text) in wrap(binding.long, width.saturating_sub(20))
            .iter()
            .enumerate()
        {
            let keys = if index == 0 { keys.as_str() } else { "" };
            lines.push((format!("  {keys:<16}  {text}"), Style::new()));
        }
    }
    lines.push((String::new(), Style::new()));
}

/// How figures and verdicts are to be read.
fn reading(margins: Margins) -> [String; 5] {
    let points = margins.accuracy * 100.0;
    let nats = margins.ntp;
    [
        "Forgetting compares an old dataset's score now with its score when it was last trained \
         on; the table shows the mean over old datasets. For one arm, \"vs end\" is this, against the end \
         of the phase that trained it, and \"vs best\" is against its best score so far at the end of \
         a phase. Learning compares the new dataset with the start of its phase. \
         Accuracy is in percentage points, NTP in nats per token."
            .into(),
        format!(
            "The verdict goes by the 95 % interval of forgetting, shown in brackets, of the old \
             dataset that fares worst, which is named. \"keeps\": all of the interval is at most \
             the run's margin, {points} points of accuracy, or {nats} nats where there is no \
             accuracy. \"FORGETS\": all of it is above the margin. \"unclear\": neither, or there \
             is no interval. \"·\": no old data yet. \"…\": being computed."
        ),
        "The interval is over seeds (over rows, too, where these agree). With \"1 seed\" it is over \
         the held-out rows or questions of that seed, and says nothing of other seeds."
            .into(),
        "\"worst\" is the largest loss of old data since it was last trained on, with its step. \
         Where it is above the margin and above what chance makes of the lowest of so many \
         evaluations, the verdict is FORGETS by a loss \"at step N\", even if the score came back. \
         \"kept\" is the mean share of the score that was kept over the steps since then."
            .into(),
        "Figures of an arm are means over its seeds (×3: three of them), at the steps that all of \
         them have reached; o opens the single seeds. Every curve has its own colour and marker; \
         dotted lines end phases."
            .into(),
    ]
}

fn keys(binding: &Binding) -> String {
    let names: Vec<String> = binding.keys.iter().map(|key| key.name()).collect();
    names.join(" ")
}

/// Draws a text over the whole body.
pub fn draw_text(
    frame: &mut Frame,
    area: Rect,
    theme: Theme,
    title: &str,
    lines: &[(String, Style)],
    scroll: usize,
) {
    frame.render_widget(Clear, area);
    let height = usize::from(area.height.saturating_sub(2));
    let first = scroll.min(lines.len().saturating_sub(height));
    let last = (first + height).min(lines.len());
    let place = format!(" {}-{last} of {} ", (first + 1).min(last), lines.len());
    let block = Block::bordered()
        .title(Line::styled(format!(" {title} "), theme.heading()))
        .title_bottom(Line::raw(place).right_aligned());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    for (row, (text, style)) in inner.rows().zip(&lines[first..]) {
        frame.render_widget(Line::styled(text.as_str(), *style), row);
    }
}

/// Draws a message or a question in a box in the middle.
pub fn draw_box(
    frame: &mut Frame,
    area: Rect,
    theme: Theme,
    title: &str,
    text: &str,
    keys: &[(String, &str)],
) {
    let width = area.width.saturating_sub(4).min(76);
    let mut lines: Vec<Line> = wrap(text, usize::from(width.saturating_sub(4)))
        .into_iter()
        .map(Line::raw)
        .collect();
    // However long the message, the keys are shown.
    let room = usize::from(area.height).saturating_sub(4 + keys.len());
    if lines.len() > room {
        lines.truncate(room.saturating_sub(1));
        lines.push(Line::styled("…", theme.dim()));
    }
    lines.push(Line::default());
    for (key, words) in keys {
        let key = ratatui::text::Span::styled(format!("{key:>5}  "), theme.key());
        lines.push(Line::from(vec![key, ratatui::text::Span::raw(*words)]));
    }
    let height = (lines.len() as u16 + 2).min(area.height);
    let middle = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, middle);
    let block = Block::bordered().title(Line::styled(format!(" {title} "), theme.heading()));
    let inner = block.inner(middle);
    frame.render_widget(block, middle);
    let inner = Rect {
        x: inner.x + 1,
        width: inner.width.saturating_sub(2),
        ..inner
    };
    for (row, line) in inner.rows().zip(lines) {
        frame.render_widget(line, row);
    }
}

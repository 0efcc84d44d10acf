//! Overlays of a screen: help, log, replay, messages and questions.

use forgetlab_study::report::{FORGETS, KEEPS};
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

/// Lines of the help: the keys, those of `from` first, then how to read the screen.
pub fn help_lines(theme: Theme, from: Place, width: usize) -> Vec<(String, Style)> {
    let mut lines = Vec::new();
    let places = [from, Place::Everywhere].into_iter();
    let others = Place::ALL
        .into_iter()
        .filter(|p| *p != from && *p != Place::Everywhere);
    for place in places.chain(others) {
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
    lines.push(("Reading the screen".into(), theme.heading()));
    let text = format!(
        "Forgetting compares an old dataset's score now with its score when it was last trained \
         on; the table shows the mean over old datasets. Learning compares the new dataset with \
         the start of its phase. Accuracy is in percentage points, NTP in nats per token. \
         \"keeps\": lost at most {:.0} points (or {KEEPS} nats). \"FORGETS\": lost more than \
         {:.0} points (or {FORGETS} nats). \"slips\": in between. Every curve has its own colour \
         and marker; dotted lines end phases.",
        KEEPS * 100.0,
        FORGETS * 100.0,
    );
    let text = wrap(&text, width);
    lines.extend(text.into_iter().map(|line| (line, Style::new())));
    lines
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

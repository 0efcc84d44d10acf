//! Overlays of a screen: help and other texts, lists to choose from, messages and questions.

use forgetlab_study::report::Margins;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear};

use crate::keymap::{Keymap, Place};
use crate::theme::Theme;
use crate::widgets::text::{StyledLines, wrap};

use super::Ask;
use super::picker::Picker;
use super::typed::Typed;

/// A text that can be scrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// The help, opened from this place.
    Help(Place),
    /// A title, and what there is to be told.
    Told(String, String),
}

/// An overlay of the screen.
#[derive(Clone, Debug, PartialEq)]
pub enum Overlay {
    /// A text, and the index of the first line shown.
    Text(Text, usize),
    /// A list to choose from.
    Picker(Picker),
    /// A line being typed.
    Line(Typed),
    /// A question to be answered by yes or no.
    Ask(Ask),
    /// The question what to do with these live runs when leaving.
    AskQuit(Vec<String>),
}

/// The lab in six lines, for who has never seen it.
pub const TOUR: [&str; 6] = [
    "3 Compose starts a run: s begins the one that is filled in, in a worker of its own.",
    "2 Watch shows it: which arm keeps what it knew (up), and learns (right); the table has the verdicts.",
    "1 Runs lists them all; space marks several, Enter opens them as one comparison.",
    "Arrows or hjkl move, Enter goes in, Esc comes out, Tab changes the pane, / filters.",
    ": types a command, Tab completes it; every key has one. ? shows the keys of a screen.",
    "q leaves. Runs go on without the lab; `forgetlab` shows them again.",
];

/// Lines of the help: the tour, the keys of `from`, how to read the screen, then all other keys; `margins` are those of
/// the run's verdicts.
pub fn help_lines(
    theme: Theme,
    keymap: &Keymap,
    from: Place,
    margins: Margins,
    width: usize,
) -> Vec<(String, Style)> {
    let mut lines = StyledLines::new(width);
    add_keys(&mut lines, theme, keymap, from);
    add_keys(&mut lines, theme, keymap, Place::Everywhere);
    lines.add("The lab in six lines", theme.heading());
    TOUR.iter().for_each(|line| lines.add(line, Style::new()));
    lines.add("\n", Style::new());
    lines.add("Reading the screen", theme.heading());
    for paragraph in reading(margins) {
        lines.add(&paragraph, Style::new());
        lines.add("\n", Style::new());
    }
    let others = Place::ALL.into_iter();
    for place in others.filter(|place| *place != from && *place != Place::Everywhere) {
        add_keys(&mut lines, theme, keymap, place);
    }
    lines.finish()
}

/// Adds the keys of a place, what they do, and the names of their commands.
fn add_keys(lines: &mut StyledLines, theme: Theme, keymap: &Keymap, place: Place) {
    lines.add(place.title(), theme.heading());
    for (binding, keys) in keymap.of(place) {
        let names: Vec<String> = keys.iter().map(|key| key.name()).collect();
        let command = match place.open() || place == Place::Everywhere {
            true => format!(":{}", binding.action.name()),
            false => String::new(),
        };
        let lead = format!("  {:<12} {command:<13} ", names.join(" "));
        lines.add_after(&lead, binding.long, Style::new());
    }
    lines.add("\n", Style::new());
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
             is no interval. \"·\": no old data yet, or none that was ever learned. \"…\": being computed."
        ),
        "The interval is over seeds (over rows, too, where these agree). With \"1 seed\" it is over \
         the held-out rows or questions of that seed, and says nothing of other seeds."
            .into(),
        "\"worst\" is the largest loss of old data since it was last trained on, with its step. \
         Where it is above the margin and above what chance makes of the lowest of so many \
         evaluations, the verdict is FORGETS by a loss \"at step N\", even if the score came back. \
         It is over all old datasets; `forgetlab compare` and its tables tell what the dataset forgot and lost that the verdict \
         rests on. \"kept\" in the table \
         is the mean score of the old data now; of one arm, \"mean kept\" is the mean share of the score that was \
         kept over the steps since then. FLOPs are without evaluation."
            .into(),
        "Figures of an arm are means over its seeds (×3: three of them), at the steps that all of \
         them have reached; o opens the single seeds. Every curve has its own colour and marker; \
         dotted lines end phases, after which the mean over old data takes in one dataset more. A dot in place of a figure: there is none, or none yet."
            .into(),
    ]
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

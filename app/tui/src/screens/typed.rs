//! A line being typed in the footer: a command, a filter, a name, a note; with completions above it.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Clear;
use unicode_width::UnicodeWidthStr;

use crate::keymap::Action;
use crate::theme::Theme;
use crate::widgets::line_edit::LineEdit;
use crate::widgets::text::clip;

use super::Prompt;

/// Most completions that are shown.
const SHOWN: usize = 8;

/// State of the line.
#[derive(Clone, Debug, PartialEq)]
pub struct Typed {
    /// What it is for.
    pub prompt: Prompt,
    /// What was typed.
    pub line: LineEdit,
    /// Completions of it, and the one that is in the line.
    completions: (Vec<String>, Option<usize>),
    /// How far back in what was typed before.
    back: usize,
    /// Why the line cannot be taken, if it cannot.
    pub problem: Option<String>,
}

impl Typed {
    /// A line for a prompt, with what is there now.
    pub fn new(prompt: Prompt) -> Self {
        let now = match &prompt {
            Prompt::Filter(now)
            | Prompt::Name(_, now)
            | Prompt::Note(_, now)
            | Prompt::Setting(_, now) => now.clone(),
            Prompt::Command | Prompt::AddArm(_) | Prompt::Tag(_) | Prompt::Write => String::new(),
        };
        Self {
            prompt,
            line: LineEdit::new(now),
            completions: (Vec::new(), None),
            back: 0,
            problem: None,
        }
    }

    /// Types a character.
    pub fn typed(&mut self, c: char) {
        self.line.typed(c);
        self.changed();
    }

    fn changed(&mut self) {
        self.completions = (Vec::new(), None);
        self.problem = None;
    }

    /// Applies a key's action on the line itself; `before` is what was typed before, the latest last.
    pub fn act(&mut self, action: Action, before: &[String]) {
        match action {
            Action::Up if self.back < before.len() => self.back += 1,
            Action::Down if self.back > 0 => self.back -= 1,
            Action::Up | Action::Down => return,
            other => {
                if self.line.act(other) {
                    self.changed();
                }
                return;
            }
        }
        let old = before
            .len()
            .checked_sub(self.back)
            .and_then(|at| before.get(at));
        self.line = LineEdit::new(old.cloned().unwrap_or_default());
        self.changed();
    }

    /// Puts the next completion into the line; `all` are those of what is typed.
    pub fn complete(&mut self, all: impl FnOnce(&str) -> Vec<String>) {
        if self.completions.0.is_empty() {
            self.completions = (all(self.line.parts().0), None);
        }
        let (known, at) = &mut self.completions;
        if known.is_empty() {
            self.problem = Some("nothing completes this".into());
            return;
        }
        let next = at.map_or(0, |at| (at + 1) % known.len());
        *at = Some(next);
        self.line.complete(&known[next]);
        if known.len() == 1 {
            self.changed();
        }
    }

    /// What stands before the line.
    fn lead(&self) -> &'static str {
        match self.prompt {
            Prompt::Command => ":",
            Prompt::Filter(_) => "/",
            Prompt::AddArm(_) => "arm: ",
            Prompt::Name(..) => "name: ",
            Prompt::Note(..) => "note: ",
            Prompt::Tag(_) => "tags: ",
            Prompt::Setting(..) => "value: ",
            Prompt::Write => "file: ",
        }
    }

    /// Draws the line in the footer, and completions or a problem above it.
    pub fn draw(&self, frame: &mut Frame, body: Rect, foot: Rect, theme: Theme, about: &str) {
        let (before, after) = self.line.parts();
        let width = usize::from(foot.width);
        let lead = self.lead();
        // The end of a long line is what is being typed.
        let room = width.saturating_sub(lead.width() + 2);
        let skip = before.chars().count().saturating_sub(room);
        let before: String = before.chars().skip(skip).collect();
        let (under, rest) = match after.chars().next() {
            Some(c) => after.split_at(c.len_utf8()),
            None => (" ", ""),
        };
        let mut spans = vec![
            Span::styled(lead, theme.key()),
            Span::raw(before),
            Span::styled(under.to_owned(), theme.selected()),
            Span::raw(rest.to_owned()),
        ];
        let used: usize = spans.iter().map(Span::width).sum();
        if used + 4 < width && !about.is_empty() {
            let about = clip(about, width - used - 3);
            spans.push(Span::styled(format!("   {about}"), theme.dim()));
        }
        frame.render_widget(Clear, foot);
        frame.render_widget(Line::from(spans), foot);
        let mut above: Vec<(String, Style)> = Vec::new();
        let (known, at) = &self.completions;
        let first = at.unwrap_or(0) / SHOWN * SHOWN;
        for (index, text) in known.iter().enumerate().skip(first).take(SHOWN) {
            let style = match Some(index) == *at {
                true => theme.selected(),
                false => Style::new(),
            };
            above.push((text.clone(), style));
        }
        if known.len() > first + SHOWN {
            above.push((
                format!("… {} more", known.len() - first - SHOWN),
                theme.dim(),
            ));
        }
        if let Some(problem) = &self.problem {
            above.push((format!("! {problem}"), theme.bad()));
        }
        let height = (above.len() as u16).min(body.height);
        let area = Rect {
            y: body.bottom() - height,
            height,
            ..body
        };
        frame.render_widget(Clear, area);
        for (row, (text, style)) in area.rows().zip(above) {
            let text = clip(&text, usize::from(row.width));
            let text = format!("{text:<width$}", width = usize::from(row.width));
            frame.render_widget(Line::styled(text, style), row);
        }
    }
}

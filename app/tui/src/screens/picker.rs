//! A list over a screen, to choose from; typing narrows it.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear};
use unicode_width::UnicodeWidthStr;

use crate::keymap::Action;
use crate::theme::Theme;
use crate::widgets::line_edit::LineEdit;
use crate::widgets::text::{clip, scroll_to};

use super::{Choices, step};

/// State of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Picker {
    choices: Choices,
    typed: LineEdit,
    cursor: usize,
}

impl Picker {
    /// A list, with the cursor on the one that is chosen now.
    pub fn new(choices: Choices) -> Self {
        let cursor = choices.names.iter().position(|name| *name == choices.now);
        Self {
            choices,
            typed: LineEdit::default(),
            cursor: cursor.unwrap_or(0),
        }
    }

    /// The names that hold every word that was typed.
    fn shown(&self) -> Vec<&String> {
        let words = self.typed.text().to_lowercase();
        let words: Vec<&str> = words.split_whitespace().collect();
        let names = self.choices.names.iter();
        names
            .filter(|name| {
                let name = name.to_lowercase();
                words.iter().all(|word| name.contains(word))
            })
            .collect()
    }

    /// Types a character.
    pub fn typed(&mut self, c: char) {
        self.typed.typed(c);
        self.cursor = 0;
    }

    /// Applies a key's action. Returns what is to be done, with its argument, once one is chosen.
    pub fn act(&mut self, action: Action) -> Option<(Action, String)> {
        let len = self.shown().len();
        match action {
            Action::Up => self.cursor = step(self.cursor, -1, len),
            Action::Down => self.cursor = step(self.cursor, 1, len),
            Action::Enter => {
                let name = self.shown().get(self.cursor).copied()?;
                return Some((self.choices.action, name.clone()));
            }
            other => {
                self.typed.act(other);
                self.cursor = 0;
            }
        }
        None
    }

    /// Draws the list in the middle of an area.
    pub fn draw(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let shown = self.shown();
        let longest = self.choices.names.iter().map(|name| name.width()).max();
        let width = (longest.unwrap_or(0).max(self.choices.title.width()) as u16 + 6)
            .clamp(30, area.width.saturating_sub(4).max(1));
        let height = (self.choices.names.len() as u16 + 3).min(area.height);
        let middle = Rect {
            x: area.x + (area.width.saturating_sub(width)) / 2,
            y: area.y + (area.height - height) / 2,
            width,
            height,
        };
        frame.render_widget(Clear, middle);
        let title = format!(" {} ", self.choices.title);
        let block = Block::bordered().title(Line::styled(title, theme.heading()));
        let inner = block.inner(middle);
        frame.render_widget(block, middle);
        let mut rows = inner.rows();
        if let Some(row) = rows.next() {
            let text = match self.typed.text() {
                "" => Line::styled("type to narrow", theme.dim()),
                typed => Line::from(vec![
                    Span::raw(typed.to_owned()),
                    Span::styled(" ", theme.selected()),
                ]),
            };
            frame.render_widget(text, row);
        }
        let first = scroll_to(
            self.cursor,
            shown.len(),
            usize::from(inner.height.saturating_sub(1)),
        );
        for (row, (index, name)) in rows.zip(shown.iter().enumerate().skip(first)) {
            let now = if **name == self.choices.now {
                "• "
            } else {
                "  "
            };
            let text = clip(&format!("{now}{name}"), usize::from(row.width));
            let style = match index == self.cursor {
                true => theme.selected(),
                false => Style::new(),
            };
            let text = format!("{text:<width$}", width = usize::from(row.width));
            frame.render_widget(Line::styled(text, style), row);
        }
        if shown.is_empty() && inner.height > 1 {
            let row = Rect {
                y: inner.y + 1,
                height: 1,
                ..inner
            };
            frame.render_widget(Line::styled("none has these words", theme.warn()), row);
        }
    }
}

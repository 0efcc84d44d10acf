//! A line that is being typed.

use crate::keymap::Action;

/// The text, and where its cursor is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineEdit {
    text: String,
    /// Characters before the cursor.
    at: usize,
}

impl LineEdit {
    /// A text with the cursor at its end.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            at: text.chars().count(),
            text,
        }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text before the cursor, and after it.
    pub fn parts(&self) -> (&str, &str) {
        self.text.split_at(self.byte(self.at))
    }

    fn byte(&self, at: usize) -> usize {
        let mut bytes = self.text.char_indices().map(|(byte, _)| byte);
        bytes.nth(at).unwrap_or(self.text.len())
    }

    /// Types a character.
    pub fn typed(&mut self, c: char) {
        if !c.is_control() {
            let at = self.byte(self.at);
            self.text.insert(at, c);
            self.at += 1;
        }
    }

    /// Puts a text in place of what is before the cursor.
    pub fn complete(&mut self, before: &str) {
        let (_, after) = self.parts();
        self.text = format!("{before}{after}");
        self.at = before.chars().count();
    }

    /// Applies a key's action; whether it is one of a line.
    pub fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Erase if self.at > 0 => {
                self.at -= 1;
                let at = self.byte(self.at);
                self.text.remove(at);
            }
            Action::Erase => {}
            Action::EraseAll => *self = Self::default(),
            Action::Left => self.at = self.at.saturating_sub(1),
            Action::Right => self.at = (self.at + 1).min(self.text.chars().count()),
            Action::First => self.at = 0,
            Action::Last => self.at = self.text.chars().count(),
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and notes are not all ASCII; a cursor in the middle of a character would be a panic.
    #[test]
    fn a_line_is_typed_and_mended_in_the_middle() {
        let mut line = LineEdit::new("naïve 日本");
        for action in [
            Action::Left,
            Action::Erase,
            Action::First,
            Action::Right,
            Action::Right,
        ] {
            assert!(line.act(action));
        }
        line.typed('x');
        assert_eq!(
            (line.text(), line.parts()),
            ("naxïve 本", ("nax", "ïve 本"))
        );
        line.complete("metric kl");
        assert_eq!(line.text(), "metric klïve 本");
        line.act(Action::EraseAll);
        line.act(Action::Erase);
        assert_eq!(line, LineEdit::default());
    }
}

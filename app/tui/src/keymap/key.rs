//! Keys of the keyboard, and how they are written.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// A key on the keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// A character with Ctrl.
    Ctrl(char),
    /// A key with a name.
    Named(KeyCode),
}

/// Keys with a name: as shown, and as written in the file of keys.
const NAMED: [(KeyCode, &str, &str); 15] = [
    (KeyCode::Up, "↑", "up"),
    (KeyCode::Down, "↓", "down"),
    (KeyCode::Left, "←", "left"),
    (KeyCode::Right, "→", "right"),
    (KeyCode::PageUp, "PgUp", "page-up"),
    (KeyCode::PageDown, "PgDn", "page-down"),
    (KeyCode::Home, "Home", "home"),
    (KeyCode::End, "End", "end"),
    (KeyCode::Enter, "Enter", "enter"),
    (KeyCode::Esc, "Esc", "esc"),
    (KeyCode::Tab, "Tab", "tab"),
    (KeyCode::BackTab, "S-Tab", "shift-tab"),
    (KeyCode::Backspace, "Bksp", "backspace"),
    (KeyCode::Delete, "Del", "delete"),
    (KeyCode::F(1), "F1", "f1"),
];

impl Key {
    /// The key as it is shown.
    pub fn name(self) -> String {
        match self {
            Self::Char(' ') => "space".into(),
            Self::Char(c) => c.into(),
            Self::Ctrl(c) => format!("^{}", c.to_ascii_uppercase()),
            Self::Named(KeyCode::F(n)) => format!("F{n}"),
            Self::Named(code) => {
                let named = NAMED.iter().find(|(known, ..)| *known == code);
                named.map_or(String::new(), |(_, name, _)| (*name).to_owned())
            }
        }
    }

    /// The key that is written so: a character, `space`, `ctrl-a`, `f5`, `page-up`, …
    pub fn parse(text: &str) -> Option<Self> {
        let mut chars = text.chars();
        if let (Some(c), None) = (chars.next(), chars.next()) {
            return Some(Self::Char(c));
        }
        let lower = text.to_ascii_lowercase();
        if lower == "space" {
            return Some(Self::Char(' '));
        }
        if let Some(rest) = lower.strip_prefix("ctrl-") {
            let mut rest = rest.chars();
            return match (rest.next(), rest.next()) {
                (Some(c), None) => Some(Self::Ctrl(c)),
                _ => None,
            };
        }
        let number = lower.strip_prefix('f').and_then(|n| n.parse::<u8>().ok());
        if let Some(n @ 1..=12) = number {
            return Some(Self::Named(KeyCode::F(n)));
        }
        let named = NAMED.iter().find(|(.., name)| *name == lower)?;
        Some(Self::Named(named.0))
    }

    /// Whether a key press is of this key.
    pub fn matches(self, event: KeyEvent) -> bool {
        let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
        match self {
            Self::Char(c) => event.code == KeyCode::Char(c) && !ctrl,
            Self::Ctrl(c) => event.code == KeyCode::Char(c) && ctrl,
            Self::Named(code) => event.code == code,
        }
    }

    /// Whether it types a character where text is typed.
    pub fn types(self) -> bool {
        matches!(self, Self::Char(_))
    }
}

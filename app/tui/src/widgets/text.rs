//! Short forms of numbers; clipping, wrapping and scrolling of text.

use forgetlab_study::printed::{harmless, one_line};
use ratatui::style::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Lines of wrapped text, each with a style.
pub struct StyledLines {
    width: usize,
    lines: Vec<(String, Style)>,
}

impl StyledLines {
    /// No lines yet; those to come have at most `width` columns.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            lines: Vec::new(),
        }
    }

    /// Wraps a text and adds its lines; none for an empty text.
    pub fn add(&mut self, text: &str, style: Style) {
        let wrapped = wrap(text, self.width).into_iter();
        self.lines.extend(wrapped.map(|line| (line, style)));
    }

    /// Wraps a text behind a lead, which its further lines leave room for.
    pub fn add_after(&mut self, lead: &str, text: &str, style: Style) {
        let indent = lead.width();
        let wrapped = wrap(text, self.width.saturating_sub(indent)).into_iter();
        let lines = wrapped.enumerate().map(|(index, line)| match index {
            0 => (format!("{lead}{line}"), style),
            _ => (format!("{:indent$}{line}", ""), style),
        });
        self.lines.extend(lines);
    }

    /// Adds a line as it is, its spaces included; what does not fit is cut off.
    pub fn add_line(&mut self, text: &str, style: Style) {
        self.lines.push((clip(text, self.width), style));
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines.
    pub fn finish(self) -> Vec<(String, Style)> {
        self.lines
    }
}

/// `text` in at most `width` columns, the end replaced by `…` where it does not fit.
pub fn clip(text: &str, width: usize) -> String {
    let text = one_line(text);
    if text.width() <= width {
        return text.into_owned();
    }
    let mut clipped = String::new();
    let mut used = 0;
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide + 1 > width {
            break;
        }
        used += wide;
        clipped.push(c);
    }
    if width > 0 {
        clipped.push('…');
    }
    clipped
}

/// `text` broken at spaces into lines of at most `width` columns; longer words are cut.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    for paragraph in harmless(text).lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let gap = usize::from(!line.is_empty());
            if line.width() + gap + word.width() <= width {
                if gap == 1 {
                    line.push(' ');
                }
                line.push_str(word);
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            for c in word.chars() {
                if line.width() + c.width().unwrap_or(0) > width {
                    lines.push(std::mem::take(&mut line));
                }
                line.push(c);
            }
        }
        lines.push(line);
    }
    lines
}

/// The lines of [`wrap`] in parts, each with whether it is in one of these ranges of the text's characters.
pub fn wrap_marked(
    text: &str,
    ranges: &[(usize, usize)],
    width: usize,
) -> Vec<Vec<(String, bool)>> {
    let text = harmless(text);
    let mut chars = text.chars().enumerate().peekable();
    let is_in = |at: usize| ranges.iter().any(|range| (range.0..range.1).contains(&at));
    let parts = |line: String| {
        let mut parts: Vec<(String, bool)> = Vec::new();
        for c in line.chars() {
            // Of white space a line has one column, or none.
            let space = chars.next_if(|(_, next)| next.is_whitespace());
            while chars.next_if(|(_, next)| next.is_whitespace()).is_some() {}
            let at = match c {
                ' ' => space,
                _ => chars.next(),
            };
            let marked = at.is_some_and(|(at, _)| is_in(at));
            match parts.last_mut() {
                Some((part, same)) if *same == marked => part.push(c),
                _ => parts.push((c.into(), marked)),
            }
        }
        parts
    };
    wrap(&text, width).into_iter().map(parts).collect()
}

/// Index of the first line of a list to show, so that `cursor` is in sight and no row is left empty.
pub fn scroll_to(cursor: usize, len: usize, height: usize) -> usize {
    let last = len.saturating_sub(height);
    cursor.saturating_sub(height / 2).min(last)
}

/// A count in at most five characters: `980`, `12.3k`, `4.0M`.
pub fn count(value: u64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let value = value as f64;
    for (size, unit) in UNITS {
        // What would round up to "1000k" is the next unit's.
        if value >= size * 0.9995 {
            let scaled = value / size;
            let decimals = usize::from(scaled < 99.95);
            return format!("{scaled:.decimals$}{unit}");
        }
    }
    format!("{value}")
}

/// A count with its noun: `1 seed`, `2 seeds`.
pub fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// Seconds as `42s`, `3m05s`, `2h07m`, `3d04h`.
pub fn seconds(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return "?".into();
    }
    let s = value as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86_400, s / 3600 % 24),
    }
}

/// A share as a percentage with one decimal: `97.5%`; `100%` without.
pub fn percent(value: f64) -> String {
    let shown = format!("{:.1}", value * 100.0);
    match shown.as_str() {
        "-0.0" => "0.0%".into(),
        "100.0" => "100%".into(),
        _ => format!("{shown}%"),
    }
}

/// A number in nats with four digits: `1.234`, `12.34`, `123.4`.
pub fn nats(value: f64) -> String {
    let decimals = match value.abs() {
        v if v < 9.9995 => 3,
        v if v < 99.995 => 2,
        _ => 1,
    };
    let shown = format!("{value:.decimals$}");
    match shown.strip_prefix('-') {
        Some(zero) if zero.chars().all(|c| c == '0' || c == '.') => zero.into(),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_at_a_glance() {
        let counts = [0, 999, 1_000, 12_345, 999_999, 4_000_000, 123_456_789];
        let shown: Vec<String> = counts.into_iter().map(count).collect();
        let expected = ["0", "999", "1.0k", "12.3k", "1.0M", "4.0M", "123M"];
        assert_eq!(shown, expected);
        let times: Vec<String> = [5.9, 65.0, 7_620.0, 273_600.0].map(seconds).into();
        assert_eq!(times, ["5s", "1m05s", "2h07m", "3d04h"]);
        assert_eq!(seconds(f64::NAN), "?");
        assert_eq!(percent(0.9999), "100%");
        assert_eq!(percent(-0.0001), "0.0%");
        assert_eq!(nats(-0.0001), "0.000");
    }

    /// Else what is only given would be taken for what is trained on.
    #[test]
    fn marks_stay_on_their_characters_when_text_is_wrapped() {
        let lines = wrap_marked("one  two\n\nthree four", &[(2, 6), (15, 99)], 7);
        let line = |parts: &[(&str, bool)]| -> Vec<(String, bool)> {
            let parts = parts.iter();
            parts.map(|(part, is)| ((*part).to_owned(), *is)).collect()
        };
        assert_eq!(
            lines,
            [
                line(&[("on", false), ("e t", true), ("wo", false)]),
                line(&[]),
                line(&[("three", false)]),
                line(&[("four", true)]),
            ]
        );
    }

    #[test]
    fn long_names_and_messages_stay_inside() {
        assert_eq!(clip("self-generated", 8), "self-ge…");
        assert_eq!(clip("ab", 2), "ab");
        assert_eq!(clip("ab", 0), "");
        let lines = wrap("a plugin that/returned/wrong lengths", 10);
        assert_eq!(lines, ["a plugin", "that/retur", "ned/wrong", "lengths"]);
        assert_eq!(scroll_to(9, 10, 4), 6);
        assert_eq!(scroll_to(0, 10, 4), 0);
        assert_eq!(scroll_to(3, 2, 4), 0);
    }
}

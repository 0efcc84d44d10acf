//! Text that does nothing to a terminal, whatever a model, a file, a plugin or a name holds.
//!
//! A terminal obeys what it shows: control characters move its cursor, clear it or set its title, and characters
//! that nobody sees turn its writing around or make two names look alike. These are shown by their codes, as
//! `\u{1b}`; all other text stays as it is.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;

/// A text of any number of lines: line ends and tabs stay.
pub fn harmless(text: &str) -> Cow<'_, str> {
    replaced(text, "\n\t", |c, out| out.extend(c.escape_default()))
}

/// A text that stands in a line of output, which it cannot end: its line ends are shown as `\n`.
pub fn one_line(text: &str) -> Cow<'_, str> {
    replaced(text, "", |c, out| out.extend(c.escape_default()))
}

/// A path that stands in a line of output.
pub fn path_in_line(path: &Path) -> String {
    one_line(&path.to_string_lossy()).into_owned()
}

/// JSON that says the same, with the characters escaped that a terminal would obey.
pub fn harmless_json(json: &str) -> Cow<'_, str> {
    // Outside of strings, JSON has none but line ends.
    replaced(json, "\n", |c, out| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

/// Whether [`harmless`] leaves a text as it is.
pub fn is_harmless(text: &str) -> bool {
    matches!(harmless(text), Cow::Borrowed(_))
}

/// The text with every character escaped that could do harm, but for those that are kept.
fn replaced<'a>(text: &'a str, keep: &str, escape: fn(char, &mut String)) -> Cow<'a, str> {
    let plain = |b: u8| matches!(b, b' '..=b'~') || keep.as_bytes().contains(&b);
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut before = None;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let after = rest.clone().next();
        if keep.contains(c) || !(c.is_control() || is_unseen(c)) || is_joined(before, c, after) {
            out.push(c);
        } else {
            escape(c, &mut out);
        }
        before = Some(c);
    }
    // Every escape is longer than its character.
    match out.len() == text.len() {
        true => Cow::Borrowed(text),
        false => Cow::Owned(out),
    }
}

/// Characters that leave no mark of their own: Unicode's `Default_Ignorable_Code_Point`, which has all that turn the
/// direction of writing, the separators of lines and paragraphs, and the anchors of annotations.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Whether an unseen character does what it is for: joins or parts letters (Persian, Hindi) or pictures, or chooses
/// between two forms of the character before it. Beside ASCII letters, as in a name, it can only deceive.
fn is_joined(before: Option<char>, c: char, after: Option<char>) -> bool {
    let chooses = |c| matches!(c, '\u{fe00}'..='\u{fe0f}');
    let seen = |c: char| !c.is_ascii() && !c.is_control() && !is_unseen(c);
    match c {
        '\u{200c}' | '\u{200d}' => {
            before.is_some_and(|c| seen(c) || chooses(c)) && after.is_some_and(seen)
        }
        c => chooses(c) && before.is_some_and(seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name or an answer must not set the title of the window, clear the screen, or overwrite what was printed.
    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        let told = |text: &str| harmless(text).into_owned();
        assert_eq!(told("\u{1b}]0;mine\u{7}"), "\\u{1b}]0;mine\\u{7}");
        assert_eq!(told("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(told("\u{9b}31m\u{90}x\u{85}"), "\\u{9b}31m\\u{90}x\\u{85}");
        assert_eq!(told("100 %\rfail\u{8}\u{8}"), "100 %\\rfail\\u{8}\\u{8}");
        assert_eq!(told("\u{7f}\u{0}\u{b}\u{c}"), "\\u{7f}\\u{0}\\u{b}\\u{c}");
        for c in (0..=0x9f)
            .filter_map(char::from_u32)
            .filter(|c| c.is_control())
        {
            let shown = one_line(&c.to_string()).into_owned();
            assert!(
                shown.starts_with('\\') && shown.is_ascii(),
                "{c:?}: {shown}"
            );
        }
    }

    /// Two names can look the same, and only one of them is the arm that was asked for.
    #[test]
    fn what_turns_or_hides_writing_is_shown() {
        for c in "\u{202a}\u{202b}\u{202d}\u{202e}\u{202c}\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}"
            .chars()
            .chain("\u{200b}\u{2060}\u{feff}\u{ad}\u{2028}\u{2029}\u{fff9}\u{e0041}\u{3164}\u{200d}\u{fe0f}".chars())
        {
            let shown = format!("no\\u{{{:x}}}ne", u32::from(c));
            assert_eq!(harmless(&format!("no{c}ne")), shown);
        }
        assert_eq!(harmless("é\u{200d}\u{200d}é"), "é\\u{200d}\\u{200d}é");
        assert_eq!(harmless("é\u{200d}"), "é\\u{200d}");
    }

    /// What a model writes in another language, and the lab's own glyphs, must not turn into codes.
    #[test]
    fn texts_of_every_language_stay_as_they_are() {
        for text in [
            "plain\n\tand indented",
            "über ─ ▸ … ± 日本語 עברית العربية",
            "می‌خواهم क्‍ष",
            "👩‍👩‍👧 ❤️‍🔥 e\u{301}",
        ] {
            assert!(is_harmless(text), "{}", harmless(text));
        }
    }

    /// A name with a line end could tell of a run that is not there.
    #[test]
    fn a_field_never_ends_its_line() {
        assert_eq!(one_line("a\nb\tc\u{2028}d"), "a\\nb\\tc\\u{2028}d");
        assert_eq!(path_in_line(Path::new("a\nb")), "a\\nb");
    }

    /// JSON has an escape of its own for every character: scripts must read what was meant.
    #[test]
    fn json_means_the_same_with_its_escapes() {
        let text = "\u{9b}2J \u{202e}\u{7f}\u{e0041} é\u{1b}";
        let json = serde_json::to_string(text).unwrap();
        let shown = harmless_json(&json);
        assert_eq!(shown, r#""\u009b2J \u202e\u007f\udb40\udc41 é\u001b""#);
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
    }
}

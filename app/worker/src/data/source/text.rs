//! Text files: what is no text at all, lines, and blocks between blank lines.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::{Content, Document, Meter, Part, Place, SourceError, files};

/// The most bytes without a line's end; without a limit, a damaged file could take all memory.
const MOST_LINE: u64 = 1 << 30;

/// Bytes of a text file, as they are read: UTF-16, bytes 0 and lines without end are errors.
pub(super) struct Text {
    inner: Box<dyn BufRead>,
    /// Lines that were read to their end so far; shared, so that a parser's reader can be asked, too.
    lines: Rc<Cell<u64>>,
    /// Bytes of the inner buffer that were looked at.
    seen: usize,
    /// Bytes since the last line's end.
    line_bytes: u64,
    at_start: bool,
    /// What is read, where it is wanted once more.
    kept: Option<Vec<u8>>,
}

/// Why bytes are no text.
#[derive(Debug, thiserror::Error)]
enum NoText {
    #[error(
        "line 1: the file is UTF-16; convert it first, e.g. `iconv -f UTF-16 -t UTF-8 OLD > NEW`"
    )]
    Utf16,
    #[error("line {0} holds a byte 0: this is no text, or a file that was not written to its end")]
    Zero(u64),
    #[error("line {0} is longer than {MOST_LINE} bytes; cut the file into lines")]
    Endless(u64),
}

impl Text {
    /// Opens a file, built in or on disk.
    pub(super) fn open(path: &Path, meter: &Meter) -> Result<Self, SourceError> {
        Ok(Self {
            inner: files::open_unpacked(path, meter)?,
            lines: Rc::default(),
            seen: 0,
            line_bytes: 0,
            at_start: true,
            kept: None,
        })
    }

    /// Begins to keep what is read.
    pub(super) fn keep(&mut self) {
        self.kept = Some(Vec::new());
    }

    /// What was read since.
    pub(super) fn kept(&mut self) -> Vec<u8> {
        self.kept.take().unwrap_or_default()
    }

    /// Counts the lines that were read to their end.
    pub(super) fn line_ends(&self) -> Rc<Cell<u64>> {
        self.lines.clone()
    }

    /// The first byte that is neither space nor a byte order mark, which is not taken.
    pub(super) fn first(&mut self) -> io::Result<Option<u8>> {
        loop {
            let buffer = self.fill_buf()?;
            let skipped = if buffer.starts_with(b"\xef\xbb\xbf") {
                3
            } else {
                0
            };
            let blank = buffer[skipped..]
                .iter()
                .take_while(|b| b.is_ascii_whitespace());
            let skipped = skipped + blank.count();
            match (buffer.get(skipped).copied(), buffer.is_empty()) {
                (None, false) => self.consume(skipped),
                (first, _) => {
                    self.consume(skipped);
                    return Ok(first);
                }
            }
        }
    }
}

impl BufRead for Text {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let bad = |problem| Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        let buffer = self.inner.fill_buf()?;
        if self.at_start && (buffer.starts_with(b"\xff\xfe") || buffer.starts_with(b"\xfe\xff")) {
            return bad(NoText::Utf16);
        }
        self.at_start = false;
        let new = &buffer[self.seen..];
        let number = || self.lines.get() + 1;
        if new.contains(&0) {
            let at = new.iter().take_while(|&&byte| byte != 0).count();
            let before = buffer[..self.seen + at].iter();
            let before = before.filter(|&&byte| byte == b'\n').count();
            return bad(NoText::Zero(number() + before as u64));
        }
        if self.line_bytes + buffer.len() as u64 > MOST_LINE && !buffer.contains(&b'\n') {
            return bad(NoText::Endless(number()));
        }
        self.seen = buffer.len();
        Ok(buffer)
    }

    fn consume(&mut self, amount: usize) {
        // What was filled in before is there still, so this reads nothing.
        if let Ok(buffer) = self.inner.fill_buf() {
            let taken = &buffer[..amount.min(buffer.len())];
            if let Some(kept) = &mut self.kept {
                kept.extend_from_slice(taken);
            }
            let ends = taken.iter().filter(|&&byte| byte == b'\n').count();
            match taken.iter().rposition(|&byte| byte == b'\n') {
                Some(last) => self.line_bytes = (taken.len() - last - 1) as u64,
                None => self.line_bytes += taken.len() as u64,
            }
            self.lines.set(self.lines.get() + ends as u64);
        }
        self.seen = self.seen.saturating_sub(amount);
        self.inner.consume(amount);
    }
}

impl Read for Text {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let buffer = self.fill_buf()?;
        let amount = buffer.len().min(out.len());
        out[..amount].copy_from_slice(&buffer[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}

/// An error of reading as one of the file.
pub(super) fn failed(path: &Path) -> impl Fn(io::Error) -> SourceError {
    move |source| match source.get_ref().is_some_and(|error| error.is::<NoText>()) {
        true => SourceError::Malformed {
            path: path.into(),
            problem: source.to_string(),
        },
        false => SourceError::Io {
            path: path.into(),
            source,
        },
    }
}

/// What is said of bytes that are not UTF-8: the first wrong one, and what to do.
pub(super) fn not_utf8(bytes: &[u8], valid_up_to: usize) -> String {
    let before = String::from_utf8_lossy(&bytes[..valid_up_to.min(bytes.len())]);
    let byte = bytes.get(valid_up_to).copied().unwrap_or_default();
    format!(
        "not UTF-8: byte {byte:#04x} after {} characters; convert the file first, e.g. from Latin-1 with \
         `iconv -f LATIN1 -t UTF-8 OLD > NEW`",
        before.chars().count()
    )
}

/// Calls `each` with every line of a UTF-8 file, its end cut off.
pub(super) fn lines(
    path: &Path,
    text: &mut Text,
    mut each: impl FnMut(&str, Place) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let file: Arc<Path> = path.into();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if text.read_until(b'\n', &mut line).map_err(failed(path))? == 0 {
            break;
        }
        let place = Place {
            file: file.clone(),
            number,
            unit: "line",
        };
        let text = std::str::from_utf8(&line)
            .map_err(|e| SourceError::record(&place, not_utf8(&line, e.valid_up_to())))?;
        let text = match number {
            1 => text.trim_start_matches('\u{feff}'),
            _ => text,
        };
        each(text.trim_end_matches(['\n', '\r']), place)?;
    }
    Ok(())
}

/// The most bytes of a part of a text file's block: however long a block is, no more of it is in memory.
pub(super) const MOST_PART: usize = 1 << 18;

/// Documents of a text file: its blocks between blank lines, long ones in parts.
pub(super) fn blocks(
    path: &Path,
    meter: &Meter,
    each: &mut dyn FnMut(Part) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let file: Arc<Path> = path.into();
    let mut block = String::new();
    let mut first = 0;
    let mut give = |text: String, number, is_last| {
        let place = Place {
            file: file.clone(),
            number,
            unit: "line",
        };
        let document = Document {
            content: Content::Text(text),
            place,
        };
        each(Part { document, is_last })
    };
    lines(path, &mut Text::open(path, meter)?, |line, place| {
        if line.trim().is_empty() {
            return match block.is_empty() {
                true => Ok(()),
                false => give(std::mem::take(&mut block), first, true),
            };
        }
        if block.is_empty() {
            first = place.number;
        } else {
            block.push('\n');
        }
        block.push_str(line);
        while block.len() > MOST_PART {
            let rest = block.split_off(cut(&block, MOST_PART, MOST_PART));
            give(std::mem::replace(&mut block, rest), first, false)?;
            first = place.number;
        }
        Ok(())
    })?;
    match block.is_empty() {
        true => Ok(()),
        false => give(block, first, true),
    }
}

/// Where to cut a text that is longer than `wanted` bytes, so that both parts have the tokens that they have together:
/// before a single space between words, or behind a single end of a line; only where there is neither before `most`
/// bytes, between characters. The length of the text where it need not be cut.
pub(in crate::data) fn cut(text: &str, wanted: usize, most: usize) -> usize {
    if text.len() <= wanted {
        return text.len();
    }
    let bytes = text.as_bytes();
    let between_words = |at: usize| {
        let is_word = |c: Option<char>| c.is_some_and(|c| !c.is_whitespace());
        is_word(text[..at].chars().next_back()) && is_word(text[at + 1..].chars().next())
    };
    let space = |at: usize| (bytes[at] == b' ' && between_words(at)).then_some(at);
    let line_end = |at: usize| (bytes[at] == b'\n' && between_words(at)).then_some(at + 1);
    let before = || (wanted / 2..wanted).rev();
    let behind = || wanted..most.min(text.len());
    let whole = || (text.len() <= most).then_some(text.len());
    let character = || (1..=most).rev().find(|at| text.is_char_boundary(*at));
    let place = before()
        .find_map(space)
        .or_else(|| before().find_map(line_end))
        .or_else(|| behind().find_map(|at| space(at).or_else(|| line_end(at))))
        .or_else(whole)
        .or_else(character);
    // A limit below the first character's length cuts nothing.
    place.unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::super::{Fields, read};
    use super::*;

    /// A piece that ends within a word, or without end, would have other tokens, or take all memory.
    #[test]
    fn long_texts_are_cut_between_words() {
        for (text, wanted, most, head) in [
            ("short", 8, 8, "short"),
            ("one two six", 8, 8, "one two"),
            ("one two  six", 9, 9, "one two  "),
            ("one two  six ten", 9, 20, "one two  six"),
            ("one two  six", 9, 20, "one two  six"),
            ("one\ntwo\nsix", 9, 9, "one\ntwo\n"),
            ("one\n\n\ntwo\n six", 13, 13, "one\n\n\ntwo\n si"),
            ("oneoneone\ntwo", 4, 12, "oneoneone\n"),
            ("ñññññ", 5, 5, "ññ"),
            ("汉", 2, 2, "汉"),
        ] {
            assert_eq!(&text[..cut(text, wanted, most)], head, "{text:?}");
        }
    }

    /// Text in another encoding would be learned as other letters, or told as a bug of a parser.
    #[test]
    fn other_encodings_are_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let says = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let error = read(&path, &Fields::default()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            error
        };
        let record = |name: &str| match name.rsplit_once('.') {
            Some((_, "csv")) => "text\nok\ncafé\n",
            Some((_, "txt")) => "ok\n\ncafé\n",
            _ => "{\"text\":\"ok\"}\n\n{\"text\":\"café\"}\n",
        };
        for name in ["x.txt", "x.jsonl", "x.csv", "x.json"] {
            let text = record(name);
            let words = || text.encode_utf16();
            for bytes in [
                [0xfeff]
                    .into_iter()
                    .chain(words())
                    .flat_map(u16::to_le_bytes)
                    .collect::<Vec<_>>(),
                [0xfeff]
                    .into_iter()
                    .chain(words())
                    .flat_map(u16::to_be_bytes)
                    .collect(),
            ] {
                let error = says(name, &bytes);
                for said in ["line 1", "UTF-16", "iconv -f UTF-16 -t UTF-8"] {
                    assert!(error.contains(said), "{said} in {error}");
                }
            }
            // Without its mark.
            let error = says(
                name,
                &words().flat_map(u16::to_le_bytes).collect::<Vec<_>>(),
            );
            assert!(error.contains("line 1 holds a byte 0"), "{error}");
            let latin: Vec<u8> = text.chars().map(|c| c as u8).collect();
            let error = says(name, &latin);
            for said in ["line 3", "not UTF-8", "iconv -f LATIN1"] {
                assert!(error.contains(said), "{said} in {error}");
            }
            assert!(error.contains("byte 0xe9 after"), "{error}");
        }
        let torn = [b"{\"text\":\"ok\"}\n{\"te".as_slice(), &[0; 5000]].concat();
        assert!(says("t.jsonl", &torn).contains("line 2 holds a byte 0"));
    }
}

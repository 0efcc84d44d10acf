//! Reading `events.jsonl`: as it grows, and only as far as it is whole.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::file::open_regular;
use super::super::outcomes_file::{self, OutcomesReader};
use super::super::{Event, Record, RunError};
use super::seal::{Chain, sealed};
use super::{CHECKED_SCHEMA, Mark};

/// A line longer than this is none of ours, bytes.
const LONGEST: u64 = 64 << 20;
/// Bytes read at a time.
const CHUNK: usize = 1 << 18;

/// Reads `events.jsonl` as it grows.
#[derive(Debug)]
pub struct EventReader {
    path: PathBuf,
    at: Position,
    /// A line that is no event. It is what a crash left where the next event fits behind it, else damage.
    odd: Option<(u64, &'static str)>,
    /// The end of the last line that is an event beyond doubt.
    whole: u64,
    /// Checksum after each event, where they are kept.
    marks: Option<Vec<Chain>>,
    outcomes: OutcomesReader,
}

/// Where a reader stands between two lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// End of the last line that was read, bytes.
    pub offset: u64,
    /// Lines read so far.
    pub lines: u64,
    /// Whether the last line lacks its newline as yet.
    pub unended: bool,
    /// Number the next event must have.
    pub next_seq: u64,
    pub chain: Chain,
    /// Whether a line had a checksum: every later one must have one.
    checked: bool,
}

impl Position {
    /// Behind one more line that was written, `bytes` long.
    pub fn took(&mut self, bytes: u64, chain: Chain) {
        self.offset += bytes;
        self.lines += 1;
        self.unended = false;
        self.next_seq += 1;
        self.chain = chain;
        self.checked = true;
    }

    pub fn mark(&self) -> Mark {
        Mark {
            events: self.next_seq,
            crc32: self.chain.0,
        }
    }
}

/// A line as it was found.
enum Line {
    Event(Box<Record>),
    Odd(&'static str),
}

impl EventReader {
    /// A reader at the beginning; the file need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            at: Position::default(),
            odd: None,
            whole: 0,
            marks: None,
            outcomes: OutcomesReader::new(outcomes_file::beside(path)),
        }
    }

    /// The same, keeping what [`EventReader::fits`] needs.
    pub fn with_marks(path: &Path) -> Self {
        Self {
            marks: Some(Vec::new()),
            ..Self::new(path)
        }
    }

    /// Everything written since the last call.
    ///
    /// # Errors
    /// Where the file cannot be read, or a line of it is damaged, lost, repeated or moved.
    pub fn poll(&mut self) -> Result<Vec<Record>, RunError> {
        let mut records = Vec::new();
        self.read(|record| records.push(record))?;
        Ok(records)
    }

    /// Gives everything written since the last call to `each`, event by event.
    ///
    /// # Errors
    /// As [`EventReader::poll`].
    pub fn read(&mut self, mut each: impl FnMut(Record)) -> Result<(), RunError> {
        let Some(mut file) = open_regular(&self.path)? else {
            return match self.at.offset {
                0 => Ok(()),
                _ => Err(self.damaged(self.at.lines, "the file is gone")),
            };
        };
        let length = self.seek(&mut file)?;
        if length < self.at.offset {
            return Err(self.damaged(self.at.lines, "the file has become shorter"));
        }
        let mut reader = BufReader::with_capacity(CHUNK, file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = LONGEST + 1;
            let read = io::Read::take(&mut reader, limit).read_until(b'\n', &mut line);
            let read = read.map_err(RunError::io("read", &self.path))? as u64;
            if read == 0 {
                return Ok(());
            }
            let ended = line.last() == Some(&b'\n');
            if !ended && read == limit {
                return Err(self.damaged(self.at.lines + 1, "it is longer than any event"));
            }
            let content = if ended {
                &line[..line.len() - 1]
            } else {
                &line[..]
            };
            if !ended && !self.is_whole(content) {
                // Its end is yet to be written, or a crash has torn it.
                return Ok(());
            }
            let rest = std::mem::replace(&mut self.at.unended, !ended) && content.is_empty();
            match rest {
                true => self.at.offset += read,
                false => self.take(content, read, &mut each)?,
            }
        }
    }

    fn seek(&self, file: &mut File) -> Result<u64, RunError> {
        let length = file.metadata().and_then(|data| {
            file.seek(SeekFrom::Start(self.at.offset))?;
            Ok(data.len())
        });
        length.map_err(RunError::io("read", &self.path))
    }

    /// Whether a line without its newline is an event all the same.
    fn is_whole(&self, content: &[u8]) -> bool {
        match sealed(content) {
            Some((inside, found)) => self.at.chain.after(inside) == found,
            None => {
                !self.at.checked
                    && matches!(parse(content), Line::Event(record) if record.v < CHECKED_SCHEMA)
            }
        }
    }

    /// Takes one line, `bytes` long with its newline.
    fn take(
        &mut self,
        content: &[u8],
        bytes: u64,
        each: &mut impl FnMut(Record),
    ) -> Result<(), RunError> {
        self.at.lines += 1;
        if is_blank(content) {
            self.at.offset += bytes;
            return Ok(());
        }
        let found = match sealed(content) {
            Some((inside, found)) => {
                if self.at.chain.after(inside) != found {
                    return Err(self.unfit());
                }
                self.at.chain = found;
                self.at.checked = true;
                parse(content)
            }
            None => {
                self.at.chain = self.at.chain.after(content);
                match parse(content) {
                    Line::Event(record) if self.at.checked || record.v >= CHECKED_SCHEMA => {
                        Line::Odd("it has no checksum")
                    }
                    line => line,
                }
            }
        };
        match found {
            Line::Odd(why) => {
                self.odd.get_or_insert((self.at.lines, why));
                self.at.offset += bytes;
                Ok(())
            }
            Line::Event(record) => {
                self.follows(&record)?;
                self.odd = None;
                self.at.next_seq = record.seq + 1;
                self.at.offset += bytes;
                self.whole = self.at.offset;
                if let Some(marks) = &mut self.marks {
                    marks.push(self.at.chain);
                }
                let mut record = *record;
                self.outcomes.attach(&mut record)?;
                each(record);
                Ok(())
            }
        }
    }

    /// Refuses an event that does not follow the last one.
    fn follows(&self, record: &Record) -> Result<(), RunError> {
        if record.seq == self.at.next_seq {
            return Ok(());
        }
        let (seq, next) = (record.seq, self.at.next_seq);
        Err(match self.odd {
            Some((line, why)) => self.damaged(line, why),
            None if seq < next => self.damaged(self.at.lines, &format!("event {seq} comes again")),
            None => self.damaged(
                self.at.lines,
                &format!("event {seq} follows {}", words_before(next)),
            ),
        })
    }

    /// The error of a checksum that does not fit, at the first line that is odd.
    fn unfit(&self) -> RunError {
        let (line, why) = self.odd.unwrap_or((
            self.at.lines,
            "it or a line before it was changed, moved or lost (its checksum does not fit)",
        ));
        self.damaged(line, why)
    }

    /// Refuses lines at the end that are no events; not while a worker writes.
    ///
    /// # Errors
    /// Names the first of them.
    pub fn check_end(&self) -> Result<(), RunError> {
        match self.odd {
            Some((line, why)) => Err(self.damaged(line, why)),
            None => Ok(()),
        }
    }

    /// The error of a last line that has its checksum, not its newline, and was changed.
    pub(super) fn torn_off(&self) -> RunError {
        self.damaged(
            self.at.lines + 1,
            "it was changed (its checksum does not fit)",
        )
    }

    fn damaged(&self, line: u64, problem: &str) -> RunError {
        RunError::Damaged {
            path: self.path.clone(),
            line,
            problem: problem.to_owned(),
        }
    }

    /// Where the reader stands.
    pub fn mark(&self) -> Mark {
        self.at.mark()
    }

    /// Whether the events were at this mark once; the reader was made by [`EventReader::with_marks`].
    pub fn fits(&self, mark: Mark) -> bool {
        let Some(last) = mark.events.checked_sub(1) else {
            return true;
        };
        let marks = self.marks.as_ref();
        let at = marks.and_then(|marks| marks.get(usize::try_from(last).ok()?));
        at.is_some_and(|chain| chain.0 == mark.crc32)
    }

    /// End of the last event beyond doubt, bytes.
    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    /// A reader that goes on where another has stood, of files that are the same up to there.
    pub(super) fn from(path: &Path, at: Position, outcomes: u64) -> Self {
        let mut reader = Self {
            whole: at.offset,
            at,
            ..Self::new(path)
        };
        reader.outcomes.skip_to(outcomes);
        reader
    }

    /// Bytes of the scores of single rows that belong to what was read.
    pub(super) fn rows_read(&self) -> u64 {
        self.outcomes.asked()
    }

    /// Where it stands; `None` behind a line that is no event.
    pub(super) fn position(&self) -> Option<&Position> {
        self.odd.is_none().then_some(&self.at)
    }

    /// The same beyond doubt: lines that are no events were refused.
    pub(super) fn end(&self) -> &Position {
        &self.at
    }
}

/// Whether a line says nothing.
pub(super) fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

fn parse(line: &[u8]) -> Line {
    match serde_json::from_slice::<Record>(line) {
        Ok(mut record) => {
            if record.v < CHECKED_SCHEMA
                && let Event::Evaluated { scores, .. } = &mut record.event
            {
                // What single rows scored was not kept for all of them.
                scores.iter_mut().for_each(|score| score.rows_kept = false);
            }
            Line::Event(Box::new(record))
        }
        Err(_) => Line::Odd("it is not an event"),
    }
}

/// What stands before event `next`.
fn words_before(next: u64) -> String {
    match next.checked_sub(1) {
        Some(last) => format!("event {last}"),
        None => "no other".to_owned(),
    }
}

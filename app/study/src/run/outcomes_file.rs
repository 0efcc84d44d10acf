//! `outcomes.jsonl`, beside the events: the scores of every single held-out row and question.
//!
//! One line an arm, step and dataset, written before the event of the evaluation. Lines may be written again after a
//! resume, with the same content; the last one counts, and one that is torn or does not fit its checksum is passed over:
//! the event tells that it was there. Numbers are little-endian, in base64.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::event_log::{CHECKED_SCHEMA, Chain, sealed};
use super::file::open_regular;
use super::{Event, Outcomes, OutcomesLine, Record, RunError, RunState};

/// A line longer than this is none of ours, bytes.
const LONGEST: u64 = 1 << 30;
/// Bytes that are read at a time, where as many are not wanted yet.
const AHEAD: u64 = 1 << 20;

/// The file beside the events.
pub fn beside(events: &Path) -> PathBuf {
    events.with_file_name("outcomes.jsonl")
}

/// Appends to the file, which the first outcomes create.
#[derive(Debug)]
pub struct OutcomesWriter {
    path: PathBuf,
    file: Option<File>,
}

impl OutcomesWriter {
    /// Nothing is opened before something is to be written.
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Appends the outcomes of an evaluation, before its event is written. On an error, what was half written is
    /// removed.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn append(&mut self, event: &Event) -> Result<(), RunError> {
        let text = lines(event).map_err(|error| RunError::io("write", &self.path)(error.into()))?;
        if text.is_empty() {
            return Ok(());
        }
        self.write(text).map_err(RunError::io("write", &self.path))
    }

    fn write(&mut self, mut text: Vec<u8>) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .read(true)
                    .open(&self.path)?,
            ),
        };
        let len = file.metadata()?.len();
        if ends_in_the_middle(file, len)? {
            text.insert(0, b'\n');
        }
        let written = file.write_all(&text);
        if written.is_err() {
            let _ = file.set_len(len);
        }
        written
    }

    /// Length of the file, bytes.
    pub fn length(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |data| data.len())
    }

    /// Syncs everything appended so far to disk.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn sync(&self) -> Result<(), RunError> {
        let synced = self.file.as_ref().map_or(Ok(()), File::sync_data);
        synced.map_err(RunError::io("sync", &self.path))
    }
}

/// The lines of an evaluation, each with its checksum.
fn lines(event: &Event) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    let Event::Evaluated {
        arm, step, scores, ..
    } = event
    else {
        return Ok(text);
    };
    for score in scores {
        if let Some(outcomes) = &score.outcomes {
            let mut line = serde_json::to_vec(&outcomes.line(*arm, *step, &score.dataset))?;
            Chain::default().seal(&mut line);
            text.extend(line);
            text.push(b'\n');
        }
    }
    Ok(text)
}

/// Whether the last line lacks its end, after a crash.
fn ends_in_the_middle(file: &mut File, len: u64) -> io::Result<bool> {
    let Some(last) = len.checked_sub(1) else {
        return Ok(false);
    };
    let mut byte = [0];
    file.seek(SeekFrom::Start(last))?;
    file.read_exact(&mut byte)?;
    Ok(byte != *b"\n")
}

/// Reads `outcomes.jsonl` as it grows, and gives them to the events they belong to.
#[derive(Debug)]
pub struct OutcomesReader {
    path: PathBuf,
    /// Where reading began.
    begin: u64,
    offset: u64,
    /// What was read and nobody has asked for yet.
    known: HashMap<Key, Arc<Outcomes>>,
    /// Whether something was not there: then all was read, and what is known stays so, as lines may come twice.
    ahead: bool,
}

/// Arm, step and dataset.
type Key = (usize, u64, String);

impl OutcomesReader {
    /// A reader at the beginning; the file need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            begin: 0,
            offset: 0,
            known: HashMap::new(),
            ahead: false,
        }
    }

    /// Bytes behind which all is that nobody has asked for yet; what is read twice from there does no harm.
    pub fn asked(&self) -> u64 {
        self.offset.saturating_sub(2 * AHEAD)
    }

    /// Goes on behind what another one has read.
    pub fn skip_to(&mut self, offset: u64) {
        (self.begin, self.offset) = (offset, offset);
    }

    /// Gives the scores of an evaluation their outcomes, where there are some.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn attach(&mut self, record: &mut Record) -> Result<(), RunError> {
        let tells = record.v >= CHECKED_SCHEMA;
        let (arm, step, scores) = match &mut record.event {
            Event::Evaluated {
                arm, step, scores, ..
            } => (arm, step, scores),
            // From here on a line may come twice, and the last one counts.
            Event::Rewound { .. } | Event::WorkerStarted { resumed: true, .. } => {
                self.keep_all();
                return Ok(());
            }
            _ => return Ok(()),
        };
        let mut fresh = false;
        for score in scores {
            if tells && !score.rows_kept {
                continue;
            }
            let key = (*arm, *step, score.dataset.clone());
            let known = self.known.contains_key(&key);
            if !known && !std::mem::replace(&mut fresh, self.ahead) {
                // Lines are in the order of the events.
                let wanted = (!self.ahead).then_some(&key);
                if !self.read(wanted)? && !self.ahead {
                    self.keep_all();
                    self.read(None)?;
                    fresh = true;
                }
            }
            score.outcomes = match self.ahead {
                true => self.known.get(&key).cloned(),
                false => self.known.remove(&key),
            };
        }
        Ok(())
    }

    /// Reads all lines again and keeps them from now on, whoever has asked for them.
    fn keep_all(&mut self) {
        if !self.ahead {
            self.ahead = true;
            self.offset = self.begin;
            self.known.clear();
        }
    }

    /// Gives the scores of a run that was read from its CSVs their outcomes, where they were kept; whether any were.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn attach_to(&mut self, state: &mut RunState) -> Result<bool, RunError> {
        self.read(None)?;
        for (i, arm) in state.arms.iter_mut().enumerate() {
            for evaluation in &mut arm.evaluations {
                for score in &mut evaluation.scores {
                    let key = (i, evaluation.step, score.dataset.clone());
                    score.outcomes = self.known.get(&key).cloned();
                }
            }
        }
        Ok(!self.known.is_empty())
    }

    /// Reads on, beyond the scores that are wanted, or to the end; whether they were there. Lines that are torn or
    /// changed are passed over.
    fn read(&mut self, wanted: Option<&Key>) -> Result<bool, RunError> {
        let Some(mut file) = open_regular(&self.path)? else {
            return Ok(false);
        };
        let failed = RunError::io("read", &self.path);
        let length = file.metadata().and_then(|data| {
            file.seek(SeekFrom::Start(self.offset))?;
            Ok(data.len())
        });
        if length.map_err(failed)? <= self.offset {
            return Ok(false);
        }
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let mut line = Vec::new();
        let (begin, mut found) = (self.offset, false);
        loop {
            line.clear();
            let read = Read::take(&mut reader, LONGEST).read_until(b'\n', &mut line);
            let read = read.map_err(RunError::io("read", &self.path))?;
            if line.last() != Some(&b'\n') && (read as u64) < LONGEST {
                return Ok(found);
            }
            self.offset += read as u64;
            if let Some(line) = whole(line.trim_ascii_end())
                && let Some(outcomes) = line.outcomes()
            {
                let key = (line.arm, line.step, line.dataset);
                found |= wanted == Some(&key);
                self.known.insert(key, Arc::new(outcomes));
            }
            if found && self.offset - begin >= AHEAD {
                return Ok(true);
            }
        }
    }
}

/// A line as it was written: those of older versions have no checksum.
fn whole(text: &[u8]) -> Option<OutcomesLine> {
    match sealed(text) {
        Some((content, found)) if Chain::default().after(content) != found => None,
        _ => serde_json::from_slice(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EventReader, EventWriter, Score, fixture};
    use super::*;

    fn some() -> [Outcomes; 3] {
        let questions = Outcomes {
            right: (0..21).map(|i| u32::from(i % 3 == 0)).collect(),
            ..Outcomes::default()
        };
        let digits = Outcomes {
            ntp: (0..21).map(|i| i as f32 / 7.0).collect(),
            ..questions.clone()
        };
        let text = Outcomes {
            right: vec![0, 500, 70_000],
            weights: vec![10, 512, 100_000],
            ntp: vec![1.5, f32::MIN_POSITIVE, 3.0],
        };
        [questions, digits, text]
    }

    /// An interval over rows that are not those measured would be a wrong figure in a paper.
    #[test]
    fn outcomes_come_back_bit_for_bit_with_their_evaluation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let state = fixture::state();
        let mut evaluation = state.arms[1].evaluations[2].clone();
        let mut writer = EventWriter::open(&path).unwrap().writer;
        let mut expected = Vec::new();
        for outcomes in some() {
            evaluation.step += 1;
            evaluation.scores[1].outcomes = Some(Arc::new(outcomes));
            evaluation.scores[1].rows_kept = true;
            writer.append(fixture::evaluated(1, &evaluation)).unwrap();
            expected.push(fixture::evaluated(1, &evaluation));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("outcomes"), "the events stay small: {text}");
        let read: Vec<Event> = EventReader::new(&path)
            .poll()
            .unwrap()
            .into_iter()
            .map(|record| record.event)
            .collect();
        assert_eq!(read, expected);

        // A torn line costs its own evaluation alone.
        let file = beside(&path);
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() - 9]).unwrap();
        evaluation.step += 1;
        writer.append(fixture::evaluated(1, &evaluation)).unwrap();
        let read = EventReader::new(&path).poll().unwrap();
        let outcomes = |i: usize| match &read[i].event {
            Event::Evaluated { scores, .. } => scores[1].outcomes.clone(),
            _ => None,
        };
        assert!(outcomes(1).is_some() && outcomes(2).is_none() && outcomes(3).is_some());
        let lacks = |i: usize| match &read[i].event {
            Event::Evaluated { scores, .. } => scores.iter().any(Score::lacks_rows),
            _ => false,
        };
        assert!(
            !lacks(1) && lacks(2) && !lacks(3),
            "what is lost is known to be"
        );
    }

    /// A run that was killed and went back has lines without events, and two of one evaluation: the last one is that of
    /// the evaluation that counts.
    #[test]
    fn a_run_that_went_back_has_the_rows_of_what_was_done_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let evaluated = |step: u64, first: u32| {
            let mut evaluation = fixture::state().arms[1].evaluations[2].clone();
            evaluation.step = step;
            let right = [first, 1, 1].into();
            evaluation.scores[1].outcomes = Some(Arc::new(Outcomes {
                right,
                ..Outcomes::default()
            }));
            evaluation.scores[1].rows_kept = true;
            fixture::evaluated(1, &evaluation)
        };
        let mut writer = EventWriter::open(&path).unwrap().writer;
        writer.append(evaluated(1, 0)).unwrap();
        writer.append(evaluated(2, 0)).unwrap();
        let told = std::fs::read(&path).unwrap();
        writer.append(evaluated(3, 0)).unwrap();
        drop(writer);
        // Killed behind the rows and before the event.
        std::fs::write(&path, told).unwrap();
        let mut writer = EventWriter::open(&path).unwrap().writer;
        let (pid, version, device) = (1, "1".to_owned(), "cpu".to_owned());
        let started = Event::WorkerStarted {
            pid,
            version,
            device,
            resumed: true,
        };
        let back = Event::Rewound {
            arm: 1,
            step: 1,
            reason: "resumed".into(),
        };
        for event in [started, back, evaluated(2, 1), evaluated(3, 1)] {
            writer.append(event).unwrap();
        }
        let read = EventReader::new(&path).poll().unwrap();
        let first = |record: &Record| match &record.event {
            Event::Evaluated { step, scores, .. } => {
                let outcomes = scores[1].outcomes.as_ref()?;
                Some((*step, outcomes.right[0]))
            }
            _ => None,
        };
        let rows: Vec<_> = read.iter().filter_map(first).collect();
        assert_eq!(
            (rows[0], &rows[rows.len() - 2..]),
            ((1, 0), &[(2, 1), (3, 1)][..])
        );
    }
}

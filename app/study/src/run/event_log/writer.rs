//! Appending to `events.jsonl`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::outcomes_file::{self, OutcomesWriter};
use super::super::{EVENT_SCHEMA, Event, Record, RunError, RunState, write_atomically};
use super::reader::{EventReader, Position, is_blank};
use super::seal::{Chain, sealed};
use super::{Mark, index};

/// Appends to `events.jsonl`. Only the holder of the run's lock may have one.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    pub(super) file: File,
    /// Its end. The last line may lack its newline: a crash has torn it, or its newline off.
    at: Position,
    outcomes: OutcomesWriter,
    /// Bytes of events in the last index.
    indexed: u64,
}

/// An [`EventWriter`] with what it found.
#[derive(Debug)]
pub struct Opened {
    /// Appends behind what was there.
    pub writer: EventWriter,
    /// What the events before tell.
    pub state: RunState,
    /// Knows the marks of the events before ([`EventReader::fits`]).
    pub before: EventReader,
}

impl EventWriter {
    /// Opens (or creates) the events at `path` and continues their numbering.
    ///
    /// # Errors
    /// Where the file cannot be read or is damaged.
    pub fn open(path: &Path) -> Result<Opened, RunError> {
        let mut before = EventReader::with_marks(path);
        let mut state = RunState::default();
        before.read(|record| state.apply(&record))?;
        before.check_end()?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path)
            .map_err(RunError::io("open", path))?;
        let mut writer = Self {
            path: path.to_owned(),
            file,
            at: before.end().clone(),
            outcomes: OutcomesWriter::new(outcomes_file::beside(path)),
            indexed: 0,
        };
        writer.take_up(&before)?;
        Ok(Opened {
            writer,
            state,
            before,
        })
    }

    /// Goes on behind what a reader has read, and behind a line that a crash has torn.
    fn take_up(&mut self, before: &EventReader) -> Result<(), RunError> {
        let mut torn = Vec::new();
        self.file
            .seek(SeekFrom::Start(self.at.offset))
            .and_then(|_| self.file.read_to_end(&mut torn))
            .map_err(RunError::io("read", &self.path))?;
        if torn.is_empty() {
            return Ok(());
        }
        self.at.offset += torn.len() as u64;
        self.at.unended = true;
        if !is_blank(&torn) {
            if sealed(&torn).is_some() {
                // Ended as lines are, and yet changed.
                return Err(before.torn_off());
            }
            // The next checksum covers it, which tells it from damage.
            self.at.chain = self.at.chain.after(&torn);
            self.at.lines += 1;
        }
        Ok(())
    }

    /// Appends an event with the current time. On an error, e.g. a full disk, the half-written line is
    /// removed.
    pub fn append(&mut self, event: Event) -> Result<Record, RunError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.append_at(now.as_secs_f64(), event)
    }

    /// Appends an event with a given time, in seconds since the Unix epoch.
    pub fn append_at(&mut self, time: f64, mut event: Event) -> Result<Record, RunError> {
        if let Event::Evaluated { scores, .. } = &mut event {
            for score in scores {
                score.rows_kept = score.outcomes.is_some();
            }
        }
        self.outcomes.append(&event)?;
        let record = Record {
            v: EVENT_SCHEMA,
            seq: self.at.next_seq,
            time,
            event,
        };
        let (line, chain) = self
            .line(&record)
            .map_err(|error| RunError::io("write", &self.path)(error.into()))?;
        match self.file.write_all(&line) {
            Ok(()) => {
                self.at.took(line.len() as u64, chain);
                Ok(record)
            }
            Err(error) => {
                // If even this fails, the next writer takes it for a torn line.
                let _ = self.file.set_len(self.at.offset);
                Err(RunError::io("write", &self.path)(error))
            }
        }
    }

    /// The line of a record, with its newline and, where it lacks one, that of the line before.
    fn line(&self, record: &Record) -> serde_json::Result<(Vec<u8>, Chain)> {
        let mut object = serde_json::to_vec(record)?;
        let chain = self.at.chain.seal(&mut object);
        object.push(b'\n');
        if self.at.unended {
            object.insert(0, b'\n');
        }
        Ok((object, chain))
    }

    /// Syncs everything appended so far to disk, and tells where it ends.
    ///
    /// # Errors
    /// Where the disk fails, or the file is not where it was opened: its folder was moved or removed.
    pub fn sync(&mut self) -> Result<Mark, RunError> {
        self.file
            .sync_data()
            .map_err(RunError::io("sync", &self.path))?;
        self.outcomes.sync()?;
        let identity =
            |data: io::Result<fs::Metadata>| data.ok().map(|data| (data.dev(), data.ino()));
        let here = identity(self.file.metadata());
        if here.is_none() || here != identity(fs::metadata(&self.path)) {
            return Err(RunError::Moved {
                path: self.path.clone(),
            });
        }
        Ok(self.at.mark())
    }

    /// Writes the index of the events with the state they tell, where they have grown by a fifth since the last one,
    /// or `now`. Without one a run is only slower to open: that it cannot be written is no error.
    pub fn index(&mut self, state: &RunState, now: bool) {
        let grown = self.at.offset >= self.indexed + self.indexed / 5;
        if self.at.offset >= index::WORTH && (grown || now) {
            let path = index::beside(&self.path);
            let rows = self.outcomes.length();
            let written = index::write(&path, &self.path, (&self.at, rows), state);
            self.indexed = self.at.offset;
            if written.is_err() {
                // One that is out of date is passed over.
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Sets aside what is damaged of the events at `path` and all that follows it; whether anything was.
///
/// What is set aside is kept whole beside them, under a name that this returns.
///
/// # Errors
/// Where the disk fails.
pub fn cut_damage(path: &Path) -> Result<Option<PathBuf>, RunError> {
    let mut reader = EventReader::new(path);
    let read = reader.read(|_| {}).and_then(|()| reader.check_end());
    match read {
        Ok(()) => return Ok(None),
        Err(RunError::Damaged { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut aside = path.to_owned();
    for n in 1.. {
        aside = path.with_file_name(format!("events.jsonl.damaged-{n}"));
        if fs::symlink_metadata(&aside).is_err() {
            break;
        }
    }
    fs::copy(path, &aside).map_err(RunError::io("copy", path))?;
    // Another file, so that no index of the damaged one is taken for its own.
    let mut whole = File::open(&aside)
        .map_err(RunError::io("read", &aside))?
        .take(reader.whole());
    write_atomically(path, |w| io::copy(&mut whole, w).map(drop))?;
    Ok(Some(aside))
}

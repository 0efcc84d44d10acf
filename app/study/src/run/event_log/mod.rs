//! `events.jsonl`: one writer appends, any number of readers follow.
//!
//! Every line ends in a checksum of all lines up to it (`seal`), and every event has a number. A crash may leave a torn
//! last line: readers wait for its end, the next writer begins a new line behind it, and the next checksum covers it.
//! Whatever else does not fit is damage, and an error of who reads it. What is already written is never changed. Runs of
//! older versions have no checksums: their numbers alone must follow each other.

mod index;
mod reader;
mod seal;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Record, RunError, RunState};
use index::{Indexed, Part};

pub use reader::EventReader;
pub(super) use seal::{Chain, sealed};
pub use writer::{EventWriter, Opened, cut_damage};

/// The first version of the schema whose lines have checksums.
const CHECKED_SCHEMA: u32 = 2;

/// Events of so many bytes take long to read.
const LONG: u64 = 4 << 20;

/// How far the events went at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Number of events.
    pub events: u64,
    /// Checksum of the last of them, which covers all before it.
    pub crc32: u32,
}

/// A reader that keeps a run's state up to date with its events.
#[derive(Debug)]
pub struct Follow {
    reader: EventReader,
    /// State derived from the events read so far.
    pub state: RunState,
}

impl Follow {
    /// Follows the events at `path` from the beginning.
    pub fn new(path: &Path) -> Self {
        Self {
            reader: EventReader::new(path),
            state: RunState::default(),
        }
    }

    /// The same, beginning with what the run's index has, where it is of these events: quicker, and trusting.
    ///
    /// # Errors
    /// As [`EventReader::poll`].
    pub fn quickly(path: &Path) -> Result<Self, RunError> {
        Self::behind(path, Part::Whole)?.map_or_else(|| Self::keeping_index(path), Ok)
    }

    /// What a list of runs shows of one: its state without all evaluations but the last, metrics, replay samples and
    /// log where an index has it.
    ///
    /// # Errors
    /// As [`EventReader::poll`].
    pub fn briefly(path: &Path) -> Result<Self, RunError> {
        Self::behind(path, Part::Head)?.map_or_else(|| Self::keeping_index(path), Ok)
    }

    /// What an index has, and what follows it; `None` where there is none, or the events behind it do not follow: then
    /// they are not those it was made of, such as a copy that was written over them.
    fn behind(path: &Path, part: Part) -> Result<Option<Self>, RunError> {
        let Some(Indexed {
            position,
            mut state,
        }) = index::read(path, part)
        else {
            return Ok(None);
        };
        let mut reader = EventReader::from(path, position);
        if part == Part::Whole {
            reader.attach_rows(&mut state)?;
        }
        let mut follow = Self { reader, state };
        match follow.catch_up() {
            Ok(()) => Ok(Some(follow)),
            Err(RunError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads everything, and keeps what it tells in the user's cache where that took long.
    fn keeping_index(path: &Path) -> Result<Self, RunError> {
        let mut follow = Self::new(path);
        follow.catch_up()?;
        if let Some(position) = follow.reader.position()
            && position.offset >= LONG
            && let Some(cached) = index::in_cache(path)
        {
            // It only saves time.
            let _ = index::write(&cached, path, position, &follow.state);
        }
        Ok(follow)
    }

    /// Applies new events to `state` and returns them; empty when nothing happened.
    pub fn poll(&mut self) -> Result<Vec<Record>, RunError> {
        let records = self.reader.poll()?;
        for record in &records {
            self.state.apply(record);
        }
        Ok(records)
    }

    /// Applies new events to `state` alone.
    ///
    /// # Errors
    /// As [`EventReader::poll`].
    pub fn catch_up(&mut self) -> Result<(), RunError> {
        let Self { reader, state } = self;
        reader.read(|record| state.apply(&record))
    }

    /// See [`EventReader::check_end`].
    ///
    /// # Errors
    /// Where the last lines are no events.
    pub fn check_end(&self) -> Result<(), RunError> {
        self.reader.check_end()
    }
}

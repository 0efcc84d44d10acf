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

use super::{ArmState, Event, Record, RunError, RunState};
use index::{Indexed, Part};

pub use reader::EventReader;
pub(super) use seal::{Chain, sealed};
pub use writer::{EventWriter, Opened, cut_damage};

/// The first version of the schema whose lines have checksums.
pub(super) const CHECKED_SCHEMA: u32 = 2;

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

/// Events after which a state that is kept thin is thinned while it is read.
const THIN_EVERY: usize = 1024;

/// A reader that keeps a run's state up to date with its events.
#[derive(Debug)]
pub struct Follow {
    reader: EventReader,
    /// State derived from the events read so far.
    pub state: RunState,
    /// Whether the state is kept thin.
    thin: bool,
}

/// Going back to a checkpoint: number of the event, arm, step.
type Rewind = (u64, usize, u64);

impl Follow {
    /// Follows the events at `path` from the beginning, and keeps all that they tell.
    pub fn new(path: &Path) -> Self {
        Self {
            reader: EventReader::new(path),
            state: RunState::default(),
            thin: false,
        }
    }

    /// Follows them, beginning with what the run's index has, where it is of these events: quicker, and trusting. The
    /// state is kept thin ([`RunState::thin`]).
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
    /// they are not those it was made of, such as a copy that was written over them. Nor where they go back to what the
    /// index has dropped.
    fn behind(path: &Path, part: Part) -> Result<Option<Self>, RunError> {
        let Some(Indexed {
            position,
            rows,
            state,
        }) = index::read(path, part)
        else {
            return Ok(None);
        };
        let mut follow = Self {
            reader: EventReader::from(path, position, rows),
            state,
            thin: true,
        };
        match follow.read_on(&[]) {
            Ok(rewinds) => Ok(rewinds.is_empty().then_some(follow)),
            Err(RunError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads everything, and keeps what it tells in the user's cache where that took long.
    fn keeping_index(path: &Path) -> Result<Self, RunError> {
        let begun = || Self {
            thin: true,
            ..Self::new(path)
        };
        let mut follow = begun();
        let rewinds = follow.read_on(&[])?;
        if !rewinds.is_empty() {
            // Once more without what came to nothing, which has overtaken what was dropped.
            follow = begun();
            follow.read_on(&rewinds)?;
        }
        if let Some(position) = follow.reader.position()
            && position.offset >= LONG
            && let Some(cached) = index::in_cache(path)
        {
            // It only saves time.
            let at = (position, follow.reader.rows_read());
            let _ = index::write(&cached, path, at, &follow.state);
        }
        Ok(follow)
    }

    /// Applies new events to `state` and returns them; empty when nothing happened.
    ///
    /// Where the state is kept thin and they go back to a checkpoint, what was dropped may be missed: follow the run
    /// anew.
    ///
    /// # Errors
    /// As [`EventReader::poll`].
    pub fn poll(&mut self) -> Result<Vec<Record>, RunError> {
        let records = self.reader.poll()?;
        for record in &records {
            self.state.apply(record);
        }
        if self.thin {
            self.state.thin();
        }
        Ok(records)
    }

    /// Applies new events to `state` alone.
    ///
    /// # Errors
    /// As [`EventReader::poll`].
    pub fn catch_up(&mut self) -> Result<(), RunError> {
        self.read_on(&[]).map(drop)
    }

    /// The same, but for evaluations that one of the `known` rewinds takes back. Returns the rewinds that were met,
    /// where one of them went back to what was dropped.
    fn read_on(&mut self, known: &[Rewind]) -> Result<Vec<Rewind>, RunError> {
        let Self {
            reader,
            state,
            thin,
        } = self;
        let (mut rewinds, mut lost, mut read) = (Vec::new(), false, 0_usize);
        reader.read(|record| {
            match record.event {
                Event::Rewound { arm, step, .. } => {
                    rewinds.push((record.seq, arm, step));
                    lost |= state.arms.get(arm).is_some_and(ArmState::is_thinned);
                }
                Event::Evaluated { arm, step, .. }
                    if known
                        .iter()
                        .any(|&(seq, of, to)| record.seq < seq && arm == of && step > to) =>
                {
                    return;
                }
                _ => {}
            }
            state.apply(&record);
            read += 1;
            if *thin && read.is_multiple_of(THIN_EVERY) {
                state.thin();
            }
        })?;
        if *thin {
            state.thin();
        }
        Ok(if lost { rewinds } else { Vec::new() })
    }

    /// See [`EventReader::check_end`].
    ///
    /// # Errors
    /// Where the last lines are no events.
    pub fn check_end(&self) -> Result<(), RunError> {
        self.reader.check_end()
    }
}

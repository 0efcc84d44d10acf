//! Whether the disk has room for the checkpoints of a run.

use std::path::Path;

use anyhow::bail;
use forgetlab_engine::{Memory, human_bytes};
use forgetlab_study::run::RunDir;
use forgetlab_worker::train::Prepared;

use crate::machine::disk;

/// Share of the free disk from which on its user is to know.
const TIGHT: f64 = 0.8;

/// Bytes below which nothing is refused: a small run that fills its disk goes on where there is room, and loses seconds.
const SMALL: f64 = (64_u64 << 20) as f64;

/// How what a run will take stands to what is free.
#[derive(Debug, PartialEq, Eq)]
pub enum Fit {
    /// There is room.
    Easily,
    /// There is, and little will be left.
    Tightly,
    /// There is none.
    Not,
}

impl Fit {
    /// Of so many bytes, of which some are there already, on a disk with so many free.
    pub fn of(needed: f64, there: f64, free: f64) -> Self {
        match needed - there {
            more if more < SMALL => Self::Easily,
            more if more > free => Self::Not,
            more if more > TIGHT * free => Self::Tightly,
            _ => Self::Easily,
        }
    }
}

/// Bytes that are free on the disk that holds a folder, or would; `None` where the system does not tell.
pub fn free(folder: &Path) -> Option<f64> {
    Some(disk(folder)?.free() as f64)
}

/// Refuses a run whose checkpoints its disk has no room for; one line where there is hardly room. Those that it wrote
/// before count as room.
pub fn check(dir: &RunDir, prepared: &Prepared) -> anyhow::Result<Option<String>> {
    let needed = prepared.disk();
    let Some(free) = free(dir.path()) else {
        return Ok(None);
    };
    match Fit::of(needed.total(), dir.checkpoints_size() as f64, free) {
        Fit::Easily => Ok(None),
        Fit::Tightly => Ok(Some(words(&needed, free))),
        Fit::Not => bail!(
            "{}: give another folder with --out or FORGETLAB_RESULTS, make room, or take fewer arms or seeds, \
             training.concurrent_arms=1 or adapters (model.lora_rank)",
            words(&needed, free)
        ),
    }
}

/// What the checkpoints take, and what is free.
pub fn words(needed: &Memory, free: f64) -> String {
    format!(
        "the checkpoints of this run take up to {} of disk, {} are free ({needed})",
        human_bytes(needed.total()),
        human_bytes(free)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a run would end in its last hour for want of disk, or one that goes on be refused for its own files.
    #[test]
    fn what_is_there_already_or_is_small_needs_no_room() {
        let gib = |n: f64| n * (1_u64 << 30) as f64;
        let fit = |needed, there, free| Fit::of(gib(needed), gib(there), gib(free));
        assert_eq!(fit(100.0, 0.0, 99.0), Fit::Not);
        assert_eq!(fit(100.0, 10.0, 99.0), Fit::Tightly);
        assert_eq!(fit(100.0, 0.0, 1000.0), Fit::Easily);
        assert_eq!(fit(100.0, 200.0, 0.0), Fit::Easily);
        assert_eq!(fit(0.01, 0.0, 0.0), Fit::Easily);
    }
}

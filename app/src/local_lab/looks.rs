//! The texts of replay batches, which are read from a run's events when somebody looks at them.

use std::fs::File;
use std::io::{BufRead, BufReader};

use anyhow::{Context, bail};
use forgetlab_study::run::{Event, Record, ReplayLook, RunDir};

/// The replay batch of an arm at a step, with its texts. Of several, as after going back to a checkpoint, the last one.
pub fn look(dir: &RunDir, arm: usize, step: u64) -> anyhow::Result<ReplayLook> {
    let path = dir.events_path();
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut line, mut found) = (Vec::new(), None);
    // Most lines are none: only those that look like one are read as JSON.
    let kind = br#""event":"replay_seen""#;
    while reader
        .read_until(b'\n', &mut line)
        .with_context(|| format!("cannot read {}", path.display()))?
        > 0
    {
        let is_kind = line.windows(kind.len()).take(256).any(|part| part == kind);
        if is_kind
            && let Ok(record) = serde_json::from_slice::<Record>(&line)
            && let Event::ReplaySeen { arm: of, seen } = record.event
            && (of, seen.step) == (arm, step)
        {
            found = Some(seen);
        }
        line.clear();
    }
    match found {
        Some(seen) => Ok(seen),
        None => bail!("the events of this run do not have this batch"),
    }
}

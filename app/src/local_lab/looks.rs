//! The texts of replay batches and of students, which are read from a run's events when somebody looks at them.

use std::fs::File;
use std::io::{BufRead, BufReader};

use anyhow::{Context, bail};
use forgetlab_study::run::{Event, Record, ReplayLook, RunDir, SampleLook};

/// The replay batch of an arm at a step, with its texts.
pub fn look(dir: &RunDir, arm: usize, step: u64) -> anyhow::Result<ReplayLook> {
    let found = last(dir, "replay_seen", |event| match event {
        Event::ReplaySeen { arm: of, seen } => (of == arm && seen.step == step).then_some(seen),
        _ => None,
    })?;
    match found {
        Some(seen) => Ok(seen),
        None => bail!("the events of this run do not have this batch"),
    }
}

/// What the student of an arm wrote at a step.
pub(super) fn samples(dir: &RunDir, arm: usize, step: u64) -> anyhow::Result<SampleLook> {
    let found = last(dir, "sampled", |event| match event {
        Event::Sampled { arm: of, look } => (of == arm && look.step == step).then_some(look),
        _ => None,
    })?;
    match found {
        Some(look) => Ok(look),
        None => bail!("the events of this run do not have what was written then"),
    }
}

/// What the last event of a kind tells that tells it: after going back to a checkpoint there may be several.
fn last<T>(
    dir: &RunDir,
    kind: &str,
    tells: impl Fn(Event) -> Option<T>,
) -> anyhow::Result<Option<T>> {
    let path = dir.events_path();
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut line, mut found) = (Vec::new(), None);
    // Most lines are none: only those that look like one are read as JSON.
    let kind = format!(r#""event":"{kind}""#).into_bytes();
    while reader
        .read_until(b'\n', &mut line)
        .with_context(|| format!("cannot read {}", path.display()))?
        > 0
    {
        let is_kind = line.windows(kind.len()).take(256).any(|part| part == kind);
        if is_kind && let Ok(record) = serde_json::from_slice::<Record>(&line) {
            found = tells(record.event).or(found);
        }
        line.clear();
    }
    Ok(found)
}

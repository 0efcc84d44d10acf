//! A look at what an arm replays: a few rows as text, and figures by which to judge them.
//!
//! One at the first replay batch of a phase, then one an evaluation interval. Which batch is looked at
//! depends on the step and on the events alone, so a resumed arm looks at the same ones; and a look draws
//! nothing at random and changes no weight.

use std::time::Instant;

use forgetlab_plugin_host::ReplayBatch;
use forgetlab_study::printed::harmless;
use forgetlab_study::run::{Event, Quality, ReplayLook};

use super::context::RunContext;
use super::error::TrainError;
use super::learner::Learner;

/// Rows that are shown and scored, at most.
const ROWS: usize = 4;
/// Characters shown of a row, at most.
const CHARACTERS: usize = 600;

/// Looks at a replay batch, where a look is due, and puts what is seen into the events.
///
/// # Errors
/// When the device or the disk fails.
pub(super) fn look(
    context: &mut RunContext,
    arm: usize,
    learner: &mut Learner,
    batch: &ReplayBatch,
) -> Result<(), TrainError> {
    let point = learner.point;
    let phase = context.config.in_phase(point.phase);
    let interval = point.phase_start + phase.interval_start(point.step - point.phase_start);
    let last =
        |state: &forgetlab_study::run::RunState| state.arms.get(arm)?.replay.last().map(|l| l.step);
    if context
        .journal
        .state(last)
        .is_some_and(|step| step >= interval)
    {
        return Ok(());
    }
    let start = Instant::now();
    let (t, rows) = (batch.seq_len, batch.rows.min(ROWS));
    let tokens = &batch.tokens[..rows * t];
    let losses = context
        .engine
        .evaluate(&learner.reference, None, tokens, t)?;
    let (mut sum, mut targets) = (0.0, 0_u64);
    for (losses, &len) in losses.chunks_exact(t).zip(&batch.lengths) {
        // Position t predicts token t + 1; padding is neither.
        let own = &losses[..(len as usize).saturating_sub(1)];
        sum += own.iter().map(|loss| f64::from(loss.ntp)).sum::<f64>();
        targets += own.len() as u64;
    }
    let nll = (targets > 0).then(|| sum / targets as f64);
    let all: Vec<&[u32]> = batch
        .tokens
        .chunks_exact(t)
        .zip(&batch.lengths)
        .map(|(row, &len)| &row[..len as usize])
        .collect();
    let text = |row: &&[u32]| match context.suite.decode(row) {
        Ok(text) => beginning(&text),
        Err(error) => format!("({error})"),
    };
    let seen = ReplayLook {
        step: point.step,
        rows: all[..rows].iter().map(text).collect(),
        nll: nll.filter(|nll| nll.is_finite()),
        quality: Quality::of(&all),
    };
    context.journal.emit(Event::ReplaySeen { arm, seen })?;
    learner.cost.seconds_eval += start.elapsed().as_secs_f64();
    Ok(())
}

/// The beginning of a text, which does nothing to the terminal of who looks at it.
fn beginning(text: &str) -> String {
    let taken: String = text.chars().take(CHARACTERS).collect();
    let mut shown = harmless(&taken).replace('\t', " ");
    if text.chars().nth(CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model may say anything, also what would clear the screen of who looks at it.
    #[test]
    fn what_a_model_says_does_no_harm_to_a_terminal() {
        assert_eq!(
            beginning("a\u{1b}[2J\tb\nc\u{202e}\r"),
            "a\\u{1b}[2J b\nc\\u{202e}\\r"
        );
        let long = beginning(&"é".repeat(5000));
        assert_eq!(long.chars().count(), CHARACTERS + 1);
        assert!(long.ends_with('…'));
    }
}

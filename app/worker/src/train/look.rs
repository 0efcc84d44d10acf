//! A look at what an arm replays: a few rows as text, and figures by which to judge them.
//!
//! One at the first replay batch of a phase, then one an evaluation interval. Which batch is looked at
//! depends on the step and on the events alone, so a resumed arm looks at the same ones; and a look draws
//! nothing at random and changes no weight. What it takes counts as evaluation.

use std::time::Instant;

use forgetlab_engine::Weights;
use forgetlab_engine::model::ModelConfig;
use forgetlab_plugin_host::ReplayBatch;
use forgetlab_study::printed::harmless;
use forgetlab_study::run::{Event, Quality, ReplayLook, RowLook, RunState};

use super::arm::ArmRun;
use super::context::RunContext;
use super::error::TrainError;

/// Rows that are shown and scored, at most.
pub(super) const ROWS: usize = 4;
/// Characters shown of a row, at most.
const CHARACTERS: usize = 600;

/// Looks at a replay batch, where a look is due, and puts what is seen into the events.
///
/// # Errors
/// When the device or the disk fails.
pub(super) fn look(
    context: &mut RunContext,
    run: &mut ArmRun,
    batch: &ReplayBatch,
) -> Result<(), TrainError> {
    let (arm, point) = (run.index(), run.learner.point);
    let phase = context.config.in_phase(point.phase);
    let interval = point.phase_start + phase.interval_start(point.step - point.phase_start);
    let last = |state: &RunState| state.arms.get(arm)?.replay.last().map(|l| l.step);
    if context
        .journal
        .state(last)
        .is_some_and(|step| step >= interval)
    {
        return Ok(());
    }
    let start = Instant::now();
    let reference = likelihoods(context, &run.learner.reference, batch)?;
    let student = likelihoods(context, &run.learner.student, batch)?;
    let all: Vec<&[u32]> = batch
        .tokens
        .chunks_exact(batch.seq_len)
        .zip(&batch.lengths)
        .map(|(row, &len)| &row[..len as usize])
        .collect();
    let lens = all.iter().take(ROWS).map(|row| row.len());
    run.learner.cost.flops_eval += flops(&context.engine.layout().config, lens);
    let mut seen = ReplayLook {
        step: point.step,
        rows: Vec::new(),
        about: Vec::new(),
        nll: mean(&reference),
        nll_student: mean(&student),
        scored: scored(batch),
        quality: Quality::of(&all),
    };
    for (i, row) in all.iter().take(ROWS).enumerate() {
        let weights = &batch.weights[i * batch.seq_len..][..row.len()];
        let (text, masked) = text(context, row, weights);
        let own = batch.row_objectives.as_ref().and_then(|own| own[i]);
        let generated = run.generates();
        // What is drawn where there is one old dataset can be of no other.
        let old = context.suite.old(point.phase);
        let only = old
            .first()
            .filter(|_| old.len() == 1 && generated == Some(false));
        let dataset = context.suite.dataset_of(row).or(only.copied());
        seen.rows.push(text);
        seen.about.push(RowLook {
            masked,
            objective: own.or(run.spec.objective),
            generated,
            dataset: dataset.map(|i| context.suite.held_out()[i].dataset.clone()),
            nll: mean(&reference[i..=i]),
            nll_student: mean(&student[i..=i]),
            copies: all.iter().filter(|other| *other == row).count() - 1,
        });
    }
    context.journal.emit(Event::ReplaySeen { arm, seen })?;
    run.learner.cost.seconds_eval += start.elapsed().as_secs_f64();
    Ok(())
}

/// FLOPs of a look at rows of these lengths: a forward of the reference and one of the student.
pub(super) fn flops(model: &ModelConfig, lens: impl Iterator<Item = usize>) -> f64 {
    let forward = |len: usize| model.forward_flops(len, len.saturating_sub(1));
    2.0 * lens.map(forward).sum::<f64>()
}

/// Sum of the cross entropies of each shown row, and its number of tokens to predict.
fn likelihoods(
    context: &mut RunContext,
    weights: &Weights,
    batch: &ReplayBatch,
) -> Result<Vec<(f64, u64)>, TrainError> {
    let (t, rows) = (batch.seq_len, batch.rows.min(ROWS));
    let tokens = &batch.tokens[..rows * t];
    let losses = context.engine.evaluate(weights, None, tokens, t)?;
    let rows = losses.chunks_exact(t).zip(&batch.lengths);
    let sums = rows.map(|(losses, &len)| {
        // Position t predicts token t + 1; padding is neither.
        let own = &losses[..(len as usize).saturating_sub(1)];
        let sum = own.iter().map(|loss| f64::from(loss.ntp)).sum();
        (sum, own.len() as u64)
    });
    Ok(sums.collect())
}

/// Mean over rows of these sums and counts; `None` where there is nothing to predict, or no finite mean.
fn mean(rows: &[(f64, u64)]) -> Option<f64> {
    let sum: f64 = rows.iter().map(|row| row.0).sum();
    let count: u64 = rows.iter().map(|row| row.1).sum();
    Some(sum / count as f64).filter(|mean| mean.is_finite())
}

/// Share of a batch's tokens, the first of each row left out, that have a weight.
fn scored(batch: &ReplayBatch) -> Option<f64> {
    let all: usize = batch.lengths.iter().map(|&len| len as usize - 1).sum();
    let scored = batch.weights.iter().filter(|&&weight| weight > 0.0).count();
    (all > 0).then(|| scored as f64 / all as f64)
}

/// A row as text, and which of its characters are of tokens without a weight.
fn text(context: &RunContext, row: &[u32], weights: &[f32]) -> (String, Vec<(usize, usize)>) {
    let is_masked = |i: usize| weights[i] == 0.0;
    let changes = (1..row.len()).filter(|&i| is_masked(i) != is_masked(i - 1));
    // Characters are of a token at least, but for a few: what lies behind is not shown.
    let changes: Vec<usize> = changes.take_while(|&i| i <= 2 * CHARACTERS).collect();
    match context.suite.decode_parts(row, changes.iter().copied()) {
        Ok((text, ends)) => marked(&text, &ends, weights.first().is_some_and(|w| *w == 0.0)),
        Err(error) => (format!("({error})"), Vec::new()),
    }
}

/// The beginning of a text, which does nothing to the terminal of who looks at it, and which of its characters are of
/// masked parts; these and the others take turns.
fn marked(text: &str, ends: &[usize], mut is_masked: bool) -> (String, Vec<(usize, usize)>) {
    let (mut shown, mut masked) = (String::new(), Vec::new());
    let (mut rest, mut at, mut length) = (text.chars(), 0, 0);
    for end in ends.iter().copied().chain([usize::MAX]) {
        let end = end.min(CHARACTERS);
        let part: String = rest.by_ref().take(end.saturating_sub(at)).collect();
        let part = harmless(&part).replace('\t', " ");
        let start = length;
        length += part.chars().count();
        if is_masked && length > start {
            masked.push((start, length));
        }
        shown.push_str(&part);
        at = at.max(end);
        is_masked = !is_masked;
    }
    if rest.next().is_some() {
        shown.push('…');
    }
    (shown, masked)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model may say anything, also what would clear the screen of who looks at it.
    #[test]
    fn what_a_model_says_does_no_harm_to_a_terminal() {
        let beginning = |text: &str| marked(text, &[], false).0;
        assert_eq!(
            beginning("a\u{1b}[2J\tb\nc\u{202e}\r"),
            "a\\u{1b}[2J b\nc\\u{202e}\\r"
        );
        let long = beginning(&"é".repeat(5000));
        assert_eq!(long.chars().count(), CHARACTERS + 1);
        assert!(long.ends_with('…'));
    }

    /// Else a prompt would be taken for what is trained on.
    #[test]
    fn masked_parts_are_told_by_their_characters() {
        assert_eq!(
            marked("aé\u{1b}bc", &[1, 3], true),
            ("aé\\u{1b}bc".into(), vec![(0, 1), (8, 10)])
        );
        assert_eq!(marked("abc", &[0, 2], true).1, [(2, 3)]);
        let long = "x".repeat(CHARACTERS + 9);
        let (_, masked) = marked(&long, &[CHARACTERS - 1, CHARACTERS + 4], false);
        assert_eq!(masked, [(CHARACTERS - 1, CHARACTERS)]);
    }
}

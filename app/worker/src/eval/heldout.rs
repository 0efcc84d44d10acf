//! Held-out loss, KL and accuracy of a dataset, in one pass.

use forgetlab_engine::model::ModelConfig;
use forgetlab_engine::ops::head::PositionLoss;
use forgetlab_engine::{Engine, EngineError, Weights};
use forgetlab_study::run::Outcomes;

use crate::data::{Accuracy, Batch, HeldOut, Reduction};

/// Figures of one dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Cross entropy, nats per token: the sum over targets, divided as [`Reduction`] says.
    pub ntp: f64,
    /// KL(reference || student), nats per token, reduced the same way.
    pub kl: f64,
    /// Share of rows or of targets that are right.
    pub accuracy: f64,
    /// Loss and accuracy of every row.
    pub outcomes: Outcomes,
}

/// Evaluates `student` on held-out rows against `reference`; without one the KL is 0.
///
/// A greedy decoder that starts at the prompt writes the right answer exactly when, given the
/// right answer so far, the right token has the largest logit at every position; so one pass over
/// the true rows tells what decoding token by token would.
///
/// # Errors
/// When the device fails.
pub fn evaluate(
    engine: &mut Engine,
    student: &Weights,
    reference: Option<&Weights>,
    data: &HeldOut,
    reduction: Reduction,
) -> Result<Figures, EngineError> {
    let batch = &data.batch;
    let t = batch.seq_len;
    let targets = targets(batch);
    let wanted = wanted(&targets, data);
    let losses = engine.evaluate_where(student, reference, &batch.tokens, t, Some(&wanted))?;
    let scored = losses.iter().zip(&targets);
    let scored: Vec<_> = scored.filter(|(_, t)| **t).map(|(l, _)| l).collect();
    let n = reduction.count(batch);
    let accuracy = match data.accuracy {
        Accuracy::Answers { prompt_len } => {
            let rows = losses.chunks_exact(t).zip(&batch.lens);
            let exact =
                rows.filter(|(row, len)| row[prompt_len - 1..**len - 1].iter().all(|l| l.correct));
            exact.count() as f64 / batch.rows().max(1) as f64
        }
        Accuracy::Tokens => {
            let right = scored.iter().filter(|l| l.correct);
            right.count() as f64 / scored.len().max(1) as f64
        }
    };
    Ok(Figures {
        ntp: scored.iter().map(|l| f64::from(l.ntp)).sum::<f64>() / n,
        kl: scored.iter().map(|l| f64::from(l.kl)).sum::<f64>() / n,
        accuracy,
        outcomes: outcomes(&losses, &targets, data, reduction),
    })
}

/// Loss and accuracy of every row, whose weighted means are those of the dataset.
fn outcomes(
    losses: &[PositionLoss],
    targets: &[bool],
    data: &HeldOut,
    reduction: Reduction,
) -> Outcomes {
    let batch = &data.batch;
    let t = batch.seq_len;
    let rows = losses
        .chunks_exact(t)
        .zip(targets.chunks_exact(t))
        .zip(&batch.lens);
    let (mut outcomes, mut exact) = (Outcomes::default(), Vec::new());
    for ((losses, targets), &len) in rows {
        let scored = || {
            losses
                .iter()
                .zip(targets)
                .filter(|(_, target)| **target)
                .map(|(l, _)| l)
        };
        let weight = match reduction {
            Reduction::Positions => len,
            Reduction::Targets => scored().count(),
        };
        let sum: f64 = scored().map(|l| f64::from(l.ntp)).sum();
        outcomes.ntp.push((sum / weight.max(1) as f64) as f32);
        outcomes.weights.push(weight as u32);
        outcomes
            .right
            .push(scored().filter(|l| l.correct).count() as u32);
        if let Accuracy::Answers { prompt_len } = data.accuracy {
            exact.push(losses[prompt_len - 1..len - 1].iter().all(|l| l.correct));
        }
    }
    if let Accuracy::Answers { .. } = data.accuracy {
        let alike = outcomes.weights.windows(2).all(|two| two[0] == two[1]);
        let whole = |(exact, weight): (bool, &u32)| if exact { *weight } else { 0 };
        outcomes.right = exact
            .iter()
            .copied()
            .zip(&outcomes.weights)
            .map(whole)
            .collect();
        if alike {
            outcomes.right = exact.into_iter().map(u32::from).collect();
            outcomes.weights = Vec::new();
        }
    }
    outcomes
}

/// Positions whose next token is a target, `[B, T]`.
fn targets(batch: &Batch) -> Vec<bool> {
    let mut targets = vec![false; batch.mask.len()];
    let t = batch.seq_len;
    for (row, mask) in targets.chunks_exact_mut(t).zip(batch.mask.chunks_exact(t)) {
        row[..t - 1].copy_from_slice(&mask[1..]);
    }
    targets
}

/// FLOPs of one model's pass over held-out rows, padding left out.
pub(super) fn forward_flops(model: &ModelConfig, data: &HeldOut) -> f64 {
    let wanted = wanted(&targets(&data.batch), data);
    let rows = wanted
        .chunks_exact(data.batch.seq_len)
        .zip(&data.batch.lens);
    rows.map(|(row, &len)| model.forward_flops(len, row.iter().filter(|w| **w).count()))
        .sum()
}

/// Positions that are scored.
fn wanted(targets: &[bool], data: &HeldOut) -> Vec<bool> {
    match data.accuracy {
        Accuracy::Answers { prompt_len } => with_answers(targets, &data.batch, prompt_len),
        Accuracy::Tokens => targets.to_vec(),
    }
}

/// Targets, and positions whose next token is one of an answer, target or not.
fn with_answers(targets: &[bool], batch: &Batch, prompt_len: usize) -> Vec<bool> {
    let mut wanted = targets.to_vec();
    let rows = wanted.chunks_exact_mut(batch.seq_len).zip(&batch.lens);
    rows.for_each(|(row, len)| row[prompt_len - 1..len - 1].fill(true));
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Rows;
    use forgetlab_engine::model::{ModelConfig, Params};
    use forgetlab_engine::ops::head::PositionLoss;
    use forgetlab_engine::{Hardware, Stream};

    /// Of every kind: a prompt and an answer, an answer that is no target, a row that is all target.
    fn batch() -> Batch {
        let mut rows = Rows::default();
        for (len, from) in [(9, 4), (5, 5), (7, 1), (6, 5)] {
            let tokens: Vec<u32> = (0..len).map(|i| (i * i + 3 * len) % 23).collect();
            let mask: Vec<bool> = (0..len).map(|i| i >= from).collect();
            rows.push(&tokens, &mask);
        }
        rows.all(0)
    }

    /// Leaving prompts and padding out of the vocabulary projection must change no figure of a run.
    #[test]
    fn figures_are_those_of_scoring_every_position() {
        let config = ModelConfig::llama(16, 2, [4, 2, 4], 20, 23);
        let mut engine = Engine::new(config, &Hardware::cpu(2)).unwrap();
        let weights = |purpose: &str| {
            let mut params = Params::init(engine.layout(), &Stream::new(7, purpose));
            params.data.iter_mut().for_each(|x| *x *= 8.0);
            engine.weights(params).unwrap()
        };
        let (student, reference) = (weights("student"), weights("reference"));
        let batch = batch();
        let (t, tokens) = (batch.seq_len, &batch.tokens);
        let all = engine
            .evaluate(&student, Some(&reference), tokens, t)
            .unwrap();
        let place = |row: usize, column: usize| &all[row * t + column];
        // Of the masks above, by hand.
        let targets: Vec<&PositionLoss> = [(0, 3..8), (2, 0..6), (3, 4..5)]
            .into_iter()
            .flat_map(|(row, columns)| columns.map(move |column| place(row, column)))
            .collect();
        let mean = |of: fn(&PositionLoss) -> f32| {
            targets.iter().map(|l| f64::from(of(l))).sum::<f64>() / 12.0
        };
        let answers = (0..4).filter(|&row| {
            let end = batch.lens[row] - 1;
            (2..end).all(|column| place(row, column).correct)
        });
        let right_targets = targets.iter().filter(|l| l.correct).count();
        for (accuracy, right) in [
            (Accuracy::Tokens, right_targets as f64 / 12.0),
            (
                Accuracy::Answers { prompt_len: 3 },
                answers.count() as f64 / 4.0,
            ),
        ] {
            let data = HeldOut {
                dataset: "test".into(),
                batch: batch.clone(),
                accuracy,
            };
            let found = evaluate(
                &mut engine,
                &student,
                Some(&reference),
                &data,
                Reduction::Targets,
            );
            let found = found.unwrap();
            let figures = (found.ntp, found.kl, found.accuracy);
            assert_eq!(figures, (mean(|l| l.ntp), mean(|l| l.kl), right));
            // Rows add up to the dataset.
            let (rows, weights) = (&found.outcomes, found.outcomes.weights().unwrap());
            assert_eq!(weights, [5.0, 0.0, 6.0, 1.0]);
            let ntp = rows
                .ntp
                .iter()
                .zip(&weights)
                .map(|(&ntp, w)| f64::from(ntp) * w);
            // Each row's is rounded to f32, by half a unit in the last of 24 places at most.
            let rounding = found.ntp / f64::from(1 << 24);
            assert!((ntp.sum::<f64>() / 12.0 - found.ntp).abs() <= rounding);
            if accuracy == Accuracy::Tokens {
                let right = rows
                    .accuracies()
                    .iter()
                    .zip(&weights)
                    .map(|(a, w)| a * w)
                    .sum::<f64>();
                assert_eq!(right / 12.0, found.accuracy);
            }
        }
    }
}

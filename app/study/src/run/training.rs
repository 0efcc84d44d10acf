//! Figures of training between evaluations: a point of the events stands for a stretch of steps, so that a phase has a
//! bounded number of them whatever its length, and equal runs have the same ones.

use serde::{Deserialize, Serialize};

use super::nan::null_is_nan;

/// The figures of one step of training.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrainingStep {
    /// Loss of the new data: NTP, nats per token; of a regression what its stage minimises, the penalty apart.
    pub loss: f64,
    /// Loss of the replayed data before the coefficient, where there was some; of a regression the penalty.
    pub replay: Option<f64>,
    /// Norm of the gradient.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
}

/// The figures of a stretch of consecutive steps of an arm, of one phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingStretch {
    /// Phase, from 0.
    pub phase: usize,
    /// Steps of the arm at its end.
    pub step: u64,
    /// Steps it stands for.
    pub steps: u64,
    /// Loss of the new data, the mean of its steps.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Loss of the replayed data before the coefficient, the mean of the steps that had some.
    pub replay: Option<f64>,
    /// The largest norm of a gradient: a single spike shows.
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// Learning rate of its last step.
    #[serde(deserialize_with = "null_is_nan")]
    pub lr: f64,
}

impl TrainingStretch {
    /// The most of a phase and an arm.
    pub const MOST: u64 = 200;
}

/// A stretch that has not come to its end. It is part of checkpoints: a resumed run records what one that was never
/// interrupted does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenStretch {
    steps: u64,
    #[serde(deserialize_with = "null_is_nan")]
    loss: f64,
    replays: u64,
    #[serde(deserialize_with = "null_is_nan")]
    replay: f64,
    #[serde(deserialize_with = "null_is_nan")]
    grad_norm: f64,
    #[serde(deserialize_with = "null_is_nan")]
    lr: f64,
}

impl OpenStretch {
    /// Whether it has no step as yet.
    pub fn is_empty(&self) -> bool {
        self.steps == 0
    }

    /// Adds a step.
    pub fn add(&mut self, step: TrainingStep) {
        self.steps += 1;
        self.loss += step.loss;
        if let Some(replay) = step.replay {
            self.replays += 1;
            self.replay += replay;
        }
        if step.grad_norm.is_nan() || step.grad_norm > self.grad_norm {
            self.grad_norm = step.grad_norm;
        }
        self.lr = step.lr;
    }

    /// Ends it where it is due after `done` of at most `most` steps of the phase, or `now`; `step` counts those of the
    /// arm. Nothing where it has no step.
    pub fn end(
        &mut self,
        (phase, step): (usize, u64),
        (done, most): (u64, u64),
        now: bool,
    ) -> Option<TrainingStretch> {
        let stride = most.div_ceil(TrainingStretch::MOST).max(1);
        if self.is_empty() || !now && done < most && !done.is_multiple_of(stride) {
            return None;
        }
        let sums = std::mem::take(self);
        Some(TrainingStretch {
            phase,
            step,
            steps: sums.steps,
            loss: sums.loss / sums.steps as f64,
            replay: (sums.replays > 0).then(|| sums.replay / sums.replays as f64),
            grad_norm: sums.grad_norm,
            lr: sums.lr,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All stretches of a phase that has `taken` of at most `most` steps; saved and read back at every step.
    fn stretches(taken: u64, most: u64) -> Vec<TrainingStretch> {
        let mut open = OpenStretch::default();
        let mut all = Vec::new();
        for done in 1..=taken {
            open.add(TrainingStep {
                loss: 1.0 / done as f64,
                replay: done.is_multiple_of(2).then_some(done as f64),
                grad_norm: if done == 7 { 1e3 } else { 0.1 },
                lr: done as f64,
            });
            let saved = serde_json::to_string(&open).unwrap();
            open = serde_json::from_str(&saved).unwrap();
            all.extend(open.end((1, 100 + done), (done, most), done == taken));
        }
        assert!(open.is_empty());
        all
    }

    /// Else a run of a million steps would fill the disk, and the memory of who looks at it, or steps would be missing.
    #[test]
    fn a_phase_of_any_length_has_a_bounded_number_and_every_step_is_in_one() {
        for (taken, most) in [
            (1, 1),
            (3, 200),
            (200, 200),
            (201, 201),
            (150, 399),
            (399, 399),
            (9_999, 10_000),
            (777, 1_000_000),
        ] {
            let all = stretches(taken, most);
            assert!(
                all.len() as u64 <= TrainingStretch::MOST,
                "{taken} of {most}"
            );
            let steps: u64 = all.iter().map(|stretch| stretch.steps).sum();
            assert_eq!(steps, taken);
            let ends: Vec<u64> = all.iter().map(|stretch| stretch.step).collect();
            assert!(ends.is_sorted() && ends.last() == Some(&(100 + taken)));
        }
        assert_eq!(
            stretches(200, 200).len(),
            200,
            "short phases keep every step"
        );
    }

    /// Else a loss that breaks out for one step would be averaged away, or replay be diluted by steps without it.
    #[test]
    fn a_spike_shows_and_means_are_over_what_there_was() {
        let all = stretches(1000, 1000);
        let second = all[1];
        assert_eq!((second.step, second.steps, second.lr), (110, 5, 10.0));
        assert_eq!((second.grad_norm, all[0].grad_norm), (1e3, 0.1));
        assert_eq!(second.replay, Some(8.0));
        let loss = (6..=10).map(|done| 1.0 / f64::from(done)).sum::<f64>() / 5.0;
        assert_eq!(second.loss, loss);
        assert_eq!(stretches(1, 1)[0].replay, None);
    }
}

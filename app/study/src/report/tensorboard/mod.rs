//! What a run measured, for TensorBoard.

mod file;

use std::collections::HashMap;
use std::io::{self, Write};

use crate::run::{ArmState, Evaluation, Event, Progress, Record, RunState, TrainingStretch};

use file::Scalar;

/// When what a run measured was measured, and what it tells of its training between two evaluations.
#[derive(Debug, Default)]
pub struct Moments {
    /// Of an arm and a step, the time of its evaluation.
    evaluated: HashMap<(usize, u64), f64>,
    /// Of an arm, its live progress in order of steps.
    progress: HashMap<usize, Vec<(u64, f64, Progress)>>,
}

impl Moments {
    /// Takes in the next event of a run.
    pub fn take(&mut self, record: &Record) {
        match record.event {
            Event::Evaluated { arm, step, .. } => {
                self.evaluated.insert((arm, step), record.time);
            }
            Event::Progress {
                arm,
                step,
                ntp,
                replay,
                grad_norm,
                tokens_per_second,
                ..
            } => {
                let progress = Progress {
                    ntp,
                    replay,
                    grad_norm,
                    tokens_per_second,
                };
                let all = self.progress.entry(arm).or_default();
                keep_up_to(all, step.saturating_sub(1));
                all.push((step, record.time, progress));
            }
            Event::Rewound { arm, step, .. } => {
                keep_up_to(self.progress.entry(arm).or_default(), step);
            }
            _ => {}
        }
    }

    /// The time of an evaluation; where it is not known, as of CSVs alone, the seconds that the arm had worked.
    fn of(&self, arm: usize, evaluation: &Evaluation) -> f64 {
        let time = self.evaluated.get(&(arm, evaluation.step)).copied();
        time.unwrap_or_else(|| evaluation.cost.seconds())
    }

    /// The time of the first evaluation at a step or after it, else of the last.
    fn at(&self, arm: usize, state: &ArmState, step: u64) -> f64 {
        let mut evaluations = state.evaluations.iter();
        let after = evaluations.find(|evaluation| evaluation.step >= step);
        let evaluation = after.or(state.evaluations.last());
        evaluation.map_or(0.0, |evaluation| self.of(arm, evaluation))
    }
}

/// Writes what an arm of a run measured as an event file of TensorBoard: scores by dataset (`accuracy/DATASET`,
/// `forgetting_ntp/DATASET`, …), costs (`cost/…`), training between evaluations (`train/…`) and what its strategy
/// reported (`strategy/…`). `false`, and nothing written, where it has measured nothing.
///
/// # Errors
/// Those of the writer.
pub fn tensorboard(
    state: &RunState,
    arm: usize,
    moments: &Moments,
    out: &mut dyn Write,
) -> io::Result<bool> {
    let scalars = scalars(state, arm, moments);
    if scalars.is_empty() {
        return Ok(false);
    }
    file::write(&scalars, out)?;
    Ok(true)
}

/// Every number of an arm, in order of steps.
fn scalars(run: &RunState, arm: usize, moments: &Moments) -> Vec<Scalar> {
    let Some(state) = run.arms.get(arm) else {
        return Vec::new();
    };
    let mut scalars = Vec::new();
    for evaluation in &state.evaluations {
        let time = moments.of(arm, evaluation);
        let step = evaluation.step;
        let mut add = |tag: String, value: Option<f64>| {
            scalars.extend(value.map(|value| Scalar {
                tag,
                step,
                time,
                value,
            }));
        };
        for score in &evaluation.scores {
            let dataset = &score.dataset;
            let forgetting = state.forgetting(&run.phases, dataset, evaluation);
            let named = [
                ("accuracy", score.accuracy),
                ("ntp", score.ntp),
                ("kl", score.kl),
                ("error", score.fit.map(|fit| fit.error)),
                ("forgetting_accuracy", forgetting.accuracy),
                ("forgetting_ntp", forgetting.ntp),
                ("forgetting_error", forgetting.error),
            ];
            for (name, value) in named {
                add(format!("{name}/{dataset}"), value);
            }
        }
        let cost = &evaluation.cost;
        let costs = [
            ("tokens_trained", Some(cost.tokens_trained as f64)),
            ("tokens_generated", Some(cost.tokens_generated as f64)),
            ("seconds", Some(cost.seconds())),
            ("flops", cost.flops()),
        ];
        for (name, value) in costs {
            add(format!("cost/{name}"), value);
        }
    }
    for &(step, time, progress) in moments.progress.get(&arm).into_iter().flatten() {
        let Progress {
            ntp,
            replay,
            grad_norm,
            tokens_per_second,
        } = progress;
        // Older runs recorded nothing else of their training.
        let older = state.training.is_empty();
        let named = [
            ("loss", Some(ntp).filter(|_| older)),
            ("replay", replay.filter(|_| older)),
            ("grad_norm", Some(grad_norm).filter(|_| older)),
            ("tokens_per_second", Some(tokens_per_second)),
        ];
        scalars.extend(named.into_iter().filter_map(|(name, value)| {
            let tag = format!("train/{name}");
            value.map(|value| Scalar {
                tag,
                step,
                time,
                value,
            })
        }));
    }
    scalars.extend(training(state, arm, moments));
    scalars.extend(
        state
            .plugin_metrics
            .iter()
            .map(|(step, name, value)| Scalar {
                tag: format!("strategy/{name}"),
                step: *step,
                time: moments.at(arm, state, *step),
                value: *value,
            }),
    );
    scalars.sort_by_key(|scalar| scalar.step);
    scalars
}

/// The recorded training of an arm.
fn training(state: &ArmState, arm: usize, moments: &Moments) -> Vec<Scalar> {
    let of_stretch = |stretch: &TrainingStretch| {
        let (step, time) = (stretch.step, moments.at(arm, state, stretch.step));
        let named = [
            ("loss", Some(stretch.loss)),
            ("replay", stretch.replay),
            ("grad_norm", Some(stretch.grad_norm)),
            ("lr", Some(stretch.lr)),
        ];
        named.map(|(name, value)| {
            Some(Scalar {
                tag: format!("train/{name}"),
                step,
                time,
                value: value?,
            })
        })
    };
    state
        .training
        .iter()
        .flat_map(of_stretch)
        .flatten()
        .collect()
}

/// Drops progress after a step, from the end.
fn keep_up_to(progress: &mut Vec<(u64, f64, Progress)>, step: u64) {
    while progress.last().is_some_and(|(last, ..)| *last > step) {
        progress.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;

    fn take(moments: &mut Moments, time: f64, event: Event) {
        moments.take(&Record {
            v: 2,
            seq: 0,
            time,
            event,
        });
    }

    fn progress(step: u64, ntp: f64) -> Event {
        Event::Progress {
            arm: 0,
            phase: 0,
            step,
            ntp,
            replay: None,
            grad_norm: 1.0,
            tokens_per_second: 5.0,
        }
    }

    /// What a killed worker had trained and nobody has kept must not stand beside what was trained in its place.
    #[test]
    fn progress_that_was_taken_back_is_gone() {
        let mut moments = Moments::default();
        for (time, step) in [(10.0, 1), (11.0, 5), (12.0, 9)] {
            take(&mut moments, time, progress(step, step as f64));
        }
        let reason = String::new();
        let rewound = Event::Rewound {
            arm: 0,
            step: 5,
            reason,
        };
        take(&mut moments, 20.0, rewound);
        take(&mut moments, 21.0, progress(7, 70.0));
        let run = fixture::state();
        let found = scalars(&run, 0, &moments);
        let ntp = found.iter().filter(|scalar| scalar.tag == "train/loss");
        let ntp: Vec<_> = ntp.map(|s| (s.step, s.time, s.value)).collect();
        assert_eq!(ntp, [(1, 10.0, 1.0), (5, 11.0, 5.0), (7, 21.0, 70.0)]);
        assert!(!found.iter().any(|scalar| scalar.tag == "train/replay"));
        assert!(found.is_sorted_by_key(|scalar| scalar.step));
    }

    /// Live progress comes when a clock says so: two equal runs would have other curves.
    #[test]
    fn recorded_training_takes_the_place_of_live_progress() {
        let mut run = fixture::state();
        run.arms[0].training.push(TrainingStretch {
            phase: 0,
            step: 4,
            steps: 4,
            loss: 1.5,
            replay: None,
            grad_norm: 0.5,
            lr: 1e-3,
        });
        let mut moments = Moments::default();
        take(&mut moments, 10.0, progress(3, 9.0));
        let found = scalars(&run, 0, &moments);
        let of = |tag: &str| -> Vec<(u64, f64)> {
            let with = found.iter().filter(|scalar| scalar.tag == tag);
            with.map(|scalar| (scalar.step, scalar.value)).collect()
        };
        assert_eq!(of("train/loss"), [(4, 1.5)]);
        assert_eq!(of("train/lr"), [(4, 1e-3)]);
        assert_eq!(of("train/tokens_per_second"), [(3, 5.0)]);
    }
}

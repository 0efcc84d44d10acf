//! What an evaluation found, as events have it.

use forgetlab_study::experiment::REGRESSION_DATASETS;
use forgetlab_study::run::{Cost, Evaluation, Fit, Role, Score};

use crate::regression;

/// An evaluation as an event has it; `step` counts those of the first phase, too.
pub(super) fn evaluation(
    phase: usize,
    step: u64,
    cost: Cost,
    found: &regression::Evaluation,
) -> Evaluation {
    let roles = match phase {
        0 => [Role::New, Role::Future],
        _ => [Role::Old, Role::New],
    };
    let errors = [found.old.rmse, found.new.rmse];
    let scores = REGRESSION_DATASETS.iter().zip(roles).zip(errors);
    let scores = scores.map(|((dataset, role), error)| {
        let of_old = |value: Option<f64>| value.filter(|_| role == Role::Old);
        Score {
            dataset: (*dataset).to_owned(),
            role,
            ntp: None,
            kl: of_old(found.kl),
            accuracy: None,
            fit: Some(Fit {
                error,
                distance: of_old(found.function_distance),
            }),
            choices: None,
            outcomes: None,
            rows_kept: false,
        }
    });
    Evaluation {
        phase,
        step,
        cost,
        scores: scores.collect(),
    }
}

/// Nothing paid yet. There are no tokens, and FLOPs are not counted.
pub(super) fn nothing_paid() -> Cost {
    Cost {
        flops_train: f64::NAN,
        flops_reference: f64::NAN,
        flops_generate: f64::NAN,
        flops_eval: f64::NAN,
        ..Cost::default()
    }
}

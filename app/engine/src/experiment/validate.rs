//! Configurations that parse but make no sense.

use crate::data::TASKS;

use super::{DataSpec, Objective, RunConfig, SpecError};

/// Parameters of a student, at most.
const MOST_PARAMETERS: u64 = 8_000_000_000;

/// Checks every value, alone and with others. The first that makes no sense is named by its key.
pub fn validate(config: &RunConfig) -> Result<(), SpecError> {
    let c = config;
    at_least_one("seeds", c.seeds.len())?;
    for (i, seed) in c.seeds.iter().enumerate() {
        demand("seeds", i64::try_from(*seed).is_ok(), || {
            format!("{seed} is above {}", i64::MAX)
        })?;
        demand("seeds", !c.seeds[..i].contains(seed), || {
            format!("{seed} is given twice")
        })?;
    }
    device(&c.device)?;
    at_least_one("threads", c.threads)?;

    at_least_one("model.d_model", c.model.d_model)?;
    at_least_one("model.n_layers", c.model.n_layers)?;
    at_least_one("model.head_dim", c.model.head_dim)?;
    demand("model.head_dim", c.model.head_dim.is_multiple_of(2), || {
        format!(
            "{} must be even: rotary embeddings pair its halves",
            c.model.head_dim
        )
    })?;
    demand(
        "model.d_model",
        c.model.d_model.is_multiple_of(c.model.head_dim),
        || {
            format!(
                "{} must be a multiple of model.head_dim = {}",
                c.model.d_model, c.model.head_dim
            )
        },
    )?;

    sizes(c)?;

    let DataSpec::Digits { n_digits, held_out } = &c.data;
    demand("data.n_digits", (1..=6).contains(n_digits), || {
        format!("{n_digits} must be 1 to 6")
    })?;
    demand("data.held_out", *held_out > 0.0 && *held_out < 1.0, || {
        format!("{held_out} must be a share between 0 and 1")
    })?;

    let o = &c.optimizer;
    positive("optimizer.lr", o.lr)?;
    for (key, beta) in [("optimizer.beta1", o.beta1), ("optimizer.beta2", o.beta2)] {
        demand(key, (0.0..1.0).contains(&beta), || {
            format!("{beta} must be 0 or more, below 1")
        })?;
    }
    positive("optimizer.eps", o.eps)?;
    not_negative("optimizer.weight_decay", o.weight_decay)?;

    at_least_one("training.batch_size", c.training.batch_size)?;
    demand("training.eval_every", c.training.eval_every > 0, || {
        "must be at least 1".into()
    })?;
    at_least_one("training.eval_rows", c.training.eval_rows)?;
    not_negative("training.checkpoint_seconds", c.training.checkpoint_seconds)?;

    at_least_one("replay.batch_size", c.replay.batch_size)?;
    not_negative("replay.coeff", c.replay.coeff)?;
    positive(
        "replay.call_deadline_seconds",
        c.replay.call_deadline_seconds,
    )?;

    at_least_one("phases", c.phases.len())?;
    for (i, phase) in c.phases.iter().enumerate() {
        if !TASKS.contains(&phase.dataset.as_str()) {
            return Err(SpecError::unknown("dataset", &phase.dataset, TASKS));
        }
        demand(&format!("phases.{i}.steps"), phase.steps > 0, || {
            "must be at least 1".into()
        })?;
    }
    at_least_one("arms", c.arms.len())?;
    for (i, arm) in c.arms.iter().enumerate() {
        let bad = |problem| SpecError::Arm {
            arm: arm.name(),
            problem,
        };
        arm.check().map_err(bad)?;
        if let (Some(Objective::Replace), Some(share)) = (arm.objective, arm.coeff)
            && share > 0.0
            && share * (c.training.batch_size as f64) < 0.5
        {
            return Err(bad(format!(
                "{share} of {rows} rows is less than one; a share of {:.3} replaces one of them, \
                 0 none",
                1.0 / c.training.batch_size as f64,
                rows = c.training.batch_size,
            )));
        }
        if c.arms[..i].contains(arm) {
            return Err(bad(
                "is given twice; arms may differ in settings, not in nothing".into(),
            ));
        }
    }
    Ok(())
}

/// Refuses what no machine can hold before it is asked for: a failed allocation ends the process.
fn sizes(c: &RunConfig) -> Result<(), SpecError> {
    for (key, value, most) in [
        ("threads", c.threads, 4096),
        ("model.d_model", c.model.d_model, 1 << 16),
        ("model.n_layers", c.model.n_layers, 1 << 10),
        ("training.batch_size", c.training.batch_size, 1 << 20),
        ("training.eval_rows", c.training.eval_rows, 1 << 24),
        ("replay.batch_size", c.replay.batch_size, 1 << 20),
    ] {
        demand(key, value <= most, || {
            format!("{value} must be at most {most}")
        })?;
    }
    let (d, l) = (c.model.d_model as u64, c.model.n_layers as u64);
    let parameters = 12 * d * d * l;
    demand("model.d_model", parameters <= MOST_PARAMETERS, || {
        format!(
            "with model.n_layers = {l} the model has {:.0} billion parameters; it must have at \
             most {:.0} billion",
            parameters as f64 / 1e9,
            MOST_PARAMETERS as f64 / 1e9
        )
    })
}

fn device(device: &str) -> Result<(), SpecError> {
    let known = device == "cpu"
        || device == "cuda"
        || device
            .strip_prefix("cuda:")
            .is_some_and(|n| n.parse::<u32>().is_ok());
    demand("device", known, || {
        format!("`{device}` must be cpu, cuda or cuda:N")
    })
}

fn at_least_one(key: &str, value: usize) -> Result<(), SpecError> {
    demand(key, value > 0, || "must be at least 1".into())
}

fn positive(key: &str, value: f64) -> Result<(), SpecError> {
    demand(key, value.is_finite() && value > 0.0, || {
        format!("{value} must be a finite number above 0")
    })
}

fn not_negative(key: &str, value: f64) -> Result<(), SpecError> {
    demand(key, value.is_finite() && value >= 0.0, || {
        format!("{value} must be a finite number, 0 or more")
    })
}

fn demand(key: &str, good: bool, problem: impl FnOnce() -> String) -> Result<(), SpecError> {
    if good {
        Ok(())
    } else {
        Err(SpecError::value(key, problem()))
    }
}

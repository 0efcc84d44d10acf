//! Checks of a configuration's values, alone and against each other.

use super::{
    DIGIT_TASKS, DataSpec, MiniSpec, ModelSpec, Objective, OptimizerSpec, ReplaySpec, RunConfig,
    SpecError, TextSpec, TrainingSpec,
};

/// Maximum number of parameters of a student.
const MOST_PARAMETERS: u64 = 8_000_000_000;

/// Checks every value, alone and against the others; the error names the key of the first invalid one.
pub fn validate(config: &RunConfig) -> Result<(), SpecError> {
    seeds(&config.seeds)?;
    device(&config.device)?;
    at_least_one("threads", config.threads)?;
    sizes(config)?;
    model(&config.model)?;
    data(&config.data, &config.model)?;
    optimizer(&config.optimizer)?;
    training(&config.training)?;
    replay(&config.replay)?;
    phases(config)?;
    arms(config)
}

fn seeds(seeds: &[u64]) -> Result<(), SpecError> {
    at_least_one("seeds", seeds.len())?;
    for (i, seed) in seeds.iter().enumerate() {
        demand("seeds", i64::try_from(*seed).is_ok(), || {
            format!("{seed} is above {}", i64::MAX)
        })?;
        demand("seeds", !seeds[..i].contains(seed), || {
            format!("{seed} is given twice")
        })?;
    }
    Ok(())
}

/// Refuses sizes that no machine can hold before memory is allocated: a failed allocation ends the
/// process.
fn sizes(config: &RunConfig) -> Result<(), SpecError> {
    let RunConfig {
        training, replay, ..
    } = config;
    for (key, value, most) in [
        ("threads", config.threads, 4096),
        ("training.batch_size", training.batch_size, 1 << 20),
        ("training.eval_rows", training.eval_rows, 1 << 24),
        ("replay.batch_size", replay.batch_size, 1 << 20),
    ] {
        at_most(key, value, most)?;
    }
    Ok(())
}

fn model(model: &ModelSpec) -> Result<(), SpecError> {
    match model {
        ModelSpec::Mini(model) => mini(model),
        ModelSpec::Pretrained(model) => {
            demand("model.pretrained", !model.pretrained.is_empty(), || {
                "must name a folder, a .gguf file or a hub id".into()
            })?;
            at_most("model.lora_rank", model.lora.rank, 1 << 12)?;
            positive("model.lora_alpha", model.lora.alpha)
        }
    }
}

fn data(data: &DataSpec, model: &ModelSpec) -> Result<(), SpecError> {
    match (data, model) {
        (DataSpec::Digits { n_digits, held_out }, ModelSpec::Mini(_)) => {
            demand("data.n_digits", (1..=6).contains(n_digits), || {
                format!("{n_digits} must be 1 to 6")
            })?;
            share("data.held_out", *held_out)
        }
        (DataSpec::Text(text), ModelSpec::Pretrained(_)) => texts(text),
        (DataSpec::Digits { .. }, ModelSpec::Pretrained(_)) => Err(SpecError::value(
            "model.pretrained",
            "goes with data.kind = text: the digit tasks have tokens of their own",
        )),
        (DataSpec::Text(_), ModelSpec::Mini(_)) => Err(SpecError::value(
            "data.kind",
            "text needs model.pretrained, whose tokenizer makes tokens of it",
        )),
    }
}

fn optimizer(optimizer: &OptimizerSpec) -> Result<(), SpecError> {
    positive("optimizer.lr", optimizer.lr)?;
    for (key, beta) in [
        ("optimizer.beta1", optimizer.beta1),
        ("optimizer.beta2", optimizer.beta2),
    ] {
        demand(key, (0.0..1.0).contains(&beta), || {
            format!("{beta} must be 0 or more, below 1")
        })?;
    }
    positive("optimizer.eps", optimizer.eps)?;
    not_negative("optimizer.weight_decay", optimizer.weight_decay)
}

fn training(training: &TrainingSpec) -> Result<(), SpecError> {
    at_least_one("training.batch_size", training.batch_size)?;
    demand("training.eval_every", training.eval_every > 0, || {
        "must be at least 1".into()
    })?;
    at_least_one("training.eval_rows", training.eval_rows)?;
    not_negative("training.checkpoint_seconds", training.checkpoint_seconds)
}

fn replay(replay: &ReplaySpec) -> Result<(), SpecError> {
    at_least_one("replay.batch_size", replay.batch_size)?;
    not_negative("replay.coeff", replay.coeff)?;
    positive("replay.call_deadline_seconds", replay.call_deadline_seconds)
}

fn phases(config: &RunConfig) -> Result<(), SpecError> {
    at_least_one("phases", config.phases.len())?;
    let datasets: Vec<&str> = match &config.data {
        DataSpec::Digits { .. } => DIGIT_TASKS.to_vec(),
        DataSpec::Text(text) => text.datasets.iter().map(|d| d.name.as_str()).collect(),
    };
    let pretrained = matches!(config.model, ModelSpec::Pretrained(_));
    for (i, phase) in config.phases.iter().enumerate() {
        if !datasets.contains(&phase.dataset.as_str()) {
            return Err(SpecError::unknown("dataset", &phase.dataset, datasets));
        }
        // The first phase of a pretrained model may leave it untouched.
        let may_be_empty = i == 0 && pretrained;
        demand(
            &format!("phases.{i}.steps"),
            phase.steps > 0 || may_be_empty,
            || "must be at least 1".into(),
        )?;
    }
    Ok(())
}

fn arms(config: &RunConfig) -> Result<(), SpecError> {
    at_least_one("arms", config.arms.len())?;
    let rows = config.training.batch_size;
    for (i, arm) in config.arms.iter().enumerate() {
        let bad = |problem| SpecError::Arm {
            arm: arm.name(),
            problem,
        };
        arm.check().map_err(bad)?;
        if let (Some(Objective::Replace), Some(share)) = (arm.objective, arm.coeff)
            && share > 0.0
            && share * (rows as f64) < 0.5
        {
            return Err(bad(format!(
                "{share} of {rows} rows is less than one; a share of {:.3} replaces one of them, \
                 0 none",
                1.0 / rows as f64,
            )));
        }
        if config.arms[..i].contains(arm) {
            return Err(bad(
                "is given twice; arms may differ in settings, not in nothing".into(),
            ));
        }
    }
    Ok(())
}

fn mini(model: &MiniSpec) -> Result<(), SpecError> {
    let MiniSpec {
        d_model,
        n_layers,
        head_dim,
    } = *model;
    at_least_one("model.d_model", d_model)?;
    at_least_one("model.n_layers", n_layers)?;
    at_least_one("model.head_dim", head_dim)?;
    at_most("model.d_model", d_model, 1 << 16)?;
    at_most("model.n_layers", n_layers, 1 << 10)?;
    demand("model.head_dim", head_dim.is_multiple_of(2), || {
        format!("{head_dim} must be even: rotary embeddings pair its halves")
    })?;
    demand("model.d_model", d_model.is_multiple_of(head_dim), || {
        format!("{d_model} must be a multiple of model.head_dim = {head_dim}")
    })?;
    let parameters = 12 * (d_model * d_model * n_layers) as u64;
    demand("model.d_model", parameters <= MOST_PARAMETERS, || {
        format!(
            "with model.n_layers = {n_layers} the model has {:.0} billion parameters; it must have \
             at most {:.0} billion",
            parameters as f64 / 1e9,
            MOST_PARAMETERS as f64 / 1e9
        )
    })
}

fn texts(text: &TextSpec) -> Result<(), SpecError> {
    demand(
        "data.rows.seq_len",
        (2..=1 << 20).contains(&text.rows.seq_len),
        || format!("{} must be 2 to 1048576", text.rows.seq_len),
    )?;
    share("data.rows.held_out", text.rows.held_out)?;
    at_least_one("data.datasets", text.datasets.len())?;
    let datasets = text.datasets.iter().map(|d| ("data.datasets", &d.name));
    let questions = text.questions.iter().map(|q| ("data.questions", &q.name));
    let names: Vec<_> = datasets.chain(questions).collect();
    for (i, (key, name)) in names.iter().enumerate() {
        demand(key, !name.trim().is_empty(), || "needs a name".into())?;
        let twice = names[..i].iter().any(|(_, other)| other == name);
        demand(key, !twice, || format!("`{name}` is the name of two"))?;
    }
    for dataset in &text.datasets {
        let key = format!("data.datasets.{}.files", dataset.name);
        at_least_one(&key, dataset.files.len())?;
    }
    for questions in &text.questions {
        let key = format!("data.questions.{}.most", questions.name);
        at_least_one(&key, questions.most)?;
    }
    Ok(())
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

fn share(key: &str, value: f64) -> Result<(), SpecError> {
    demand(key, value > 0.0 && value < 1.0, || {
        format!("{value} must be a share between 0 and 1")
    })
}

fn at_most(key: &str, value: usize, most: usize) -> Result<(), SpecError> {
    demand(key, value <= most, || {
        format!("{value} must be at most {most}")
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

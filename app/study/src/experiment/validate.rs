//! Checks of a configuration's values, alone and against each other.

use super::regression_checks;
use super::{
    DIGIT_TASKS, DataSpec, Fractions, MOST_SAMPLES, MiniSpec, ModelSpec, Objective, OptimizerSpec,
    PhaseSettings, Precision, REGRESSION_DATASETS, RunConfig, SpecError, TextSpec, TokensSpec,
    TrainingSpec,
};

/// Maximum number of parameters of a student.
const MOST_PARAMETERS: u64 = 8_000_000_000;

/// Checks every value, alone and against the others; the error names the key of the first invalid one.
pub fn validate(config: &RunConfig) -> Result<(), SpecError> {
    seeds(&config.seeds)?;
    device(&config.device)?;
    at_least_one("threads", config.threads)?;
    precision(config)?;
    settings(config)?;
    regression_checks::first_rate(config)?;
    let of_all = matches!(&config.model, ModelSpec::Mini(model) if model.lora.rank > 0);
    demand("model.lora_rank", !of_all, || {
        "adapters are for the phases after the first: give them to arms, e.g. none+lora_rank=4"
            .into()
    })?;
    not_negative("verdict.margin_accuracy", config.verdict.margin_accuracy)?;
    not_negative("verdict.margin_ntp", config.verdict.margin_ntp)?;
    let margin = config.verdict.margin_error.unwrap_or(0.0);
    not_negative("verdict.margin_error", margin)?;
    arms(config)?;
    of_arms(config)
}

/// Checks what decides the numbers of an arm.
fn settings(config: &RunConfig) -> Result<(), SpecError> {
    sizes(config)?;
    model(&config.model)?;
    data(&config.data, &config.model)?;
    if config.regression().is_some() {
        regression_checks::rest(config)?;
        positive("optimizer.lr", config.optimizer.lr)?;
    } else {
        optimizer("optimizer", &config.optimizer)?;
        batches(config)?;
    }
    training(&config.training)?;
    not_negative("replay.coeff", config.replay.coeff)?;
    phases(config)
}

/// Checks the format of numbers: f64 is that of a regression.
fn precision(config: &RunConfig) -> Result<(), SpecError> {
    let of_regression = config.regression().is_some();
    let fits = (config.precision == Precision::F64) == of_regression;
    demand("precision", fits, || match of_regression {
        true => "must be f64: the regression knows no other".into(),
        false => "f64 is that of a regression; write f32 or bf16".into(),
    })
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
        ModelSpec::Mini(model) => {
            at_most("model.lora_rank", model.lora.rank, 1 << 12)?;
            positive("model.lora_alpha", model.lora.alpha)?;
            mini(model)
        }
        ModelSpec::Pretrained(model) => {
            demand("model.pretrained", !model.pretrained.is_empty(), || {
                "must name a folder, a .gguf file or a hub id".into()
            })?;
            at_most("model.lora_rank", model.lora.rank, 1 << 12)?;
            positive("model.lora_alpha", model.lora.alpha)
        }
        ModelSpec::Bayesian(model) => regression_checks::model(model),
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
            "text needs model.pretrained, whose tokenizer makes tokens of it; for a small model it is tokens",
        )),
        (DataSpec::Tokens(tokens), ModelSpec::Mini(_)) => corpora(tokens),
        (DataSpec::Tokens(_), ModelSpec::Pretrained(_)) => Err(SpecError::value(
            "model.pretrained",
            "goes with data.kind = text: the tokens of corpora are not those of its tokenizer",
        )),
        (DataSpec::Regression(data), ModelSpec::Bayesian(_)) => regression_checks::data(data),
        (DataSpec::Regression(_), _) => Err(SpecError::value(
            "data.kind",
            "regression needs a network of model.hidden",
        )),
        (_, ModelSpec::Bayesian(_)) => Err(SpecError::value(
            "model.hidden",
            "goes with data.kind = regression: it takes numbers, not tokens",
        )),
    }
}

fn optimizer(section: &str, optimizer: &OptimizerSpec) -> Result<(), SpecError> {
    let key = |name: &str| format!("{section}.{name}");
    positive(&key("lr"), optimizer.lr)?;
    for (name, beta) in [("beta1", optimizer.beta1), ("beta2", optimizer.beta2)] {
        demand(&key(name), (0.0..1.0).contains(&beta), || {
            format!("{beta} must be 0 or more, below 1")
        })?;
    }
    positive(&key("eps"), optimizer.eps)?;
    not_negative(&key("weight_decay"), optimizer.weight_decay)
}

/// Checks the batches of an experiment on tokens, and what calls its strategies.
fn batches(config: &RunConfig) -> Result<(), SpecError> {
    at_least_one("training.batch_size", config.training.batch_size)?;
    at_least_one("training.eval_rows", config.training.eval_rows)?;
    at_least_one("replay.batch_size", config.replay.batch_size)?;
    let deadline = config.replay.call_deadline_seconds;
    positive("replay.call_deadline_seconds", deadline)
}

fn training(training: &TrainingSpec) -> Result<(), SpecError> {
    at_least_one("training.generation_bytes", training.generation_bytes)?;
    demand("training.eval_every", training.eval_every > 0, || {
        "must be at least 1".into()
    })?;
    not_negative("training.eval_growth", training.eval_growth)?;
    let samples = training.samples.unwrap_or(0);
    demand("training.samples", samples <= MOST_SAMPLES, || {
        format!("{samples} must be at most {MOST_SAMPLES}")
    })?;
    not_negative("training.checkpoint_seconds", training.checkpoint_seconds)
}

fn phases(config: &RunConfig) -> Result<(), SpecError> {
    at_least_one("phases", config.phases.len())?;
    let datasets: Vec<&str> = match &config.data {
        DataSpec::Digits { .. } => DIGIT_TASKS.to_vec(),
        DataSpec::Text(text) => text.datasets.iter().map(|d| d.name.as_str()).collect(),
        DataSpec::Tokens(tokens) => tokens.datasets.iter().map(|d| d.name.as_str()).collect(),
        DataSpec::Regression(_) => REGRESSION_DATASETS.to_vec(),
    };
    let pretrained = matches!(config.model, ModelSpec::Pretrained(_));
    for (i, phase) in config.phases.iter().enumerate() {
        if !datasets.contains(&phase.dataset.as_str()) {
            return Err(SpecError::unknown("dataset", &phase.dataset, datasets));
        }
        if let Some(mix) = &phase.mix
            && !datasets.contains(&mix.dataset.as_str())
        {
            return Err(SpecError::unknown("dataset", &mix.dataset, datasets));
        }
        // The first phase of a pretrained model may leave it untouched; that of a regression has its own length.
        let may_be_empty = pretrained || config.regression().is_some();
        length(config, i, i == 0 && may_be_empty)?;
        phase_settings(config, i)?;
    }
    Ok(())
}

/// Checks how long a phase is.
fn length(config: &RunConfig, i: usize, may_be_empty: bool) -> Result<(), SpecError> {
    let phase = &config.phases[i];
    let key = |name: &str| format!("phases.{i}.{name}");
    let given = [
        ("steps", phase.steps as f64),
        ("tokens", phase.tokens.map_or(0.0, |tokens| tokens as f64)),
        (
            "tokens_per_parameter",
            phase.tokens_per_parameter.unwrap_or(0.0),
        ),
        ("epochs", phase.epochs.unwrap_or(0.0)),
    ];
    let is_given = [
        phase.steps > 0,
        phase.tokens.is_some(),
        phase.tokens_per_parameter.is_some(),
        phase.epochs.is_some(),
    ];
    let all: Vec<_> = given
        .iter()
        .zip(is_given)
        .filter(|(_, given)| *given)
        .collect();
    match &all[..] {
        [] => demand(&key("steps"), may_be_empty, || "must be at least 1".into()),
        [((name, value), _)] => {
            let of_tokens = matches!(config.data, DataSpec::Tokens(_));
            demand(&key(name), *name == "steps" || of_tokens, || {
                "goes with data.kind = tokens; rows of other data are not all of one length".into()
            })?;
            positive(&key(name), *value)
        }
        [((first, _), _), ((second, _), _), ..] => Err(SpecError::value(
            &key(second),
            format!("a phase has one length, and `{first}` says it, too"),
        )),
    }
}

/// Checks what a phase has for itself.
fn phase_settings(config: &RunConfig, i: usize) -> Result<(), SpecError> {
    let phase = &config.phases[i];
    let key = |name: &str| format!("phases.{i}.{name}");
    if let Some(rows) = phase.batch_size {
        at_least_one(&key("batch_size"), rows)?;
        at_most(&key("batch_size"), rows, 1 << 20)?;
    }
    demand(&key("eval_every"), phase.eval_every != Some(0), || {
        "must be at least 1".into()
    })?;
    for (name, value) in [
        ("target_loss", phase.target_loss),
        ("seconds", phase.seconds),
    ] {
        value.map_or(Ok(()), |value| positive(&key(name), value))?;
    }
    if let Some(mix) = &phase.mix {
        demand(&key("mix.share"), (0.0..1.0).contains(&mix.share), || {
            format!("{} must be a share, 0 or more and below 1", mix.share)
        })?;
        let of_tokens = matches!(config.data, DataSpec::Tokens(_));
        demand(
            &key("mix.dataset"),
            of_tokens && mix.dataset != phase.dataset,
            || "must be another dataset than the phase's, of data.kind = tokens".into(),
        )?;
    }
    joint(config, i)?;
    let own = &phase.optimizer;
    for (key, steps, tokens) in [
        (
            key("optimizer"),
            own.warmup_steps.unwrap_or(0),
            own.warmup_tokens,
        ),
        (
            "optimizer".into(),
            config.optimizer.warmup_steps,
            config.optimizer.warmup_tokens,
        ),
    ] {
        demand(
            &format!("{key}.warmup_tokens"),
            tokens.is_none() || steps == 0,
            || "a warm-up has one length, and warmup_steps says it, too".into(),
        )?;
        let of_tokens = matches!(config.data, DataSpec::Tokens(_));
        demand(
            &format!("{key}.warmup_tokens"),
            tokens.is_none() || of_tokens,
            || "goes with data.kind = tokens".into(),
        )?;
    }
    let own = config.in_phase(i).optimizer;
    match config.regression() {
        Some(_) => positive(&key("optimizer.lr"), own.lr),
        None => optimizer(&key("optimizer"), &own),
    }
}

/// Checks joint training.
fn joint(config: &RunConfig, i: usize) -> Result<(), SpecError> {
    let phase = &config.phases[i];
    let of_tokens = matches!(config.data, DataSpec::Tokens(_));
    let key = format!("phases.{i}.joint");
    demand(&key, !phase.joint || i == 1 && of_tokens, || {
        "is for the second phase, of data.kind = tokens".into()
    })?;
    demand(&key, !phase.joint || phase.mix.is_none(), || {
        "has a mixture of its own: leave out `mix`".into()
    })?;
    let other = config.phases[0].dataset != phase.dataset;
    demand(&key, !phase.joint || other, || {
        "mixes the data of two phases, and these are of one dataset".into()
    })
}

fn corpora(tokens: &TokensSpec) -> Result<(), SpecError> {
    demand(
        "data.seq_len",
        (2..=1 << 20).contains(&tokens.seq_len),
        || format!("{} must be 2 to 1048576", tokens.seq_len),
    )?;
    demand("data.held_out_rows", tokens.held_out_rows > 0, || {
        "must be at least 1".into()
    })?;
    let size = tokens.vocab_size;
    demand(
        "data.vocab_size",
        size.is_none_or(|size| (2..=1 << 24).contains(&size)),
        || "must be 2 to 16777216".into(),
    )?;
    demand(
        "data.tokenizer",
        tokens.tokenizer.is_some() || size.is_some(),
        || "must name a tokenizer.json; files of tokens alone need data.vocab_size".into(),
    )?;
    at_least_one("data.datasets", tokens.datasets.len())?;
    for (i, corpus) in tokens.datasets.iter().enumerate() {
        let twice = tokens.datasets[..i]
            .iter()
            .any(|other| other.name == corpus.name);
        demand("data.datasets", !corpus.name.trim().is_empty(), || {
            "needs a name".into()
        })?;
        demand("data.datasets", !twice, || {
            format!("`{}` is the name of two", corpus.name)
        })?;
        at_least_one(
            &format!("data.datasets.{}.files", corpus.name),
            corpus.files.len(),
        )?;
    }
    Ok(())
}

fn arms(config: &RunConfig) -> Result<(), SpecError> {
    at_least_one("arms", config.arms.len())?;
    let mut names: Vec<String> = Vec::new();
    for arm in &config.arms {
        let name = arm.name();
        let problem = match names.contains(&name) {
            true => Err("is given twice; arms may differ in settings, not in nothing".into()),
            false if config.regression().is_some() => {
                regression_checks::arm(arm).and_then(|()| arm.check())
            }
            false => arm.check(),
        };
        problem.map_err(|problem| SpecError::Arm {
            arm: name.clone(),
            problem,
        })?;
        names.push(name);
    }
    Ok(())
}

/// Checks what the settings of each arm make of the configuration.
fn of_arms(config: &RunConfig) -> Result<(), SpecError> {
    for arm in &config.arms {
        let bad = |problem| SpecError::Arm {
            arm: arm.name(),
            problem,
        };
        let own = config.of_arm(arm).map_err(bad)?;
        if own != *config {
            settings(&own).map_err(|error| bad(error.to_string()))?;
        }
        let adapters = own.model.lora_rank() > 0;
        if own.phases.iter().any(|phase| phase.joint) && (arm.objective.is_some() || adapters) {
            return Err(bad(
                "joint training is plain training of all weights: none+joint=true".into(),
            ));
        }
        if let (Some(Objective::Replace), Some(share)) = (arm.objective, arm.coeff) {
            let never = (1..own.phases.len()).find(|&phase| never_a_row(&own, share, phase));
            if let Some(phase) = never.filter(|_| share > 0.0) {
                let rows = own.in_phase(phase).batch_size;
                return Err(bad(format!(
                    "{share} of {rows} rows is less than one{}; a share of {} replaces one at every step, 0 none",
                    match own.replay.fractions {
                        Fractions::Carry => " in all steps of a phase",
                        Fractions::Drop => "",
                    },
                    1.0 / rows as f64,
                )));
            }
        }
    }
    Ok(())
}

/// Whether a share of the batches of a phase comes to no row at all.
fn never_a_row(config: &RunConfig, share: f64, phase: usize) -> bool {
    let PhaseSettings {
        steps, batch_size, ..
    } = config.in_phase(phase);
    let rows = |step| config.replay.fractions.rows(share, batch_size, step);
    match config.replay.fractions {
        Fractions::Drop => rows(0) == 0,
        // 0 steps are not known yet.
        Fractions::Carry => steps > 0 && share * batch_size as f64 * (steps as f64) < 1.0 - 1e-9,
    }
}

fn mini(model: &MiniSpec) -> Result<(), SpecError> {
    let MiniSpec {
        d_model,
        n_layers,
        head_dim,
        ..
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

//! Checks of the study on a line: its own settings, and those of all experiments that it does not have.

use super::{
    ArmSpec, BayesianSpec, Fractions, GENERATION_BYTES, Objective, PhaseSpec, REGRESSION_DATASETS,
    RegressionSpec, RunConfig, SpecError,
};

/// Numbers beyond which a study on a line is none: its work is on the CPU, and all of it in memory.
const MOST: usize = 1_000_000;

/// Checks the points and the grid.
pub(super) fn data(data: &RegressionSpec) -> Result<(), SpecError> {
    for (name, set) in [("old", &data.old), ("new", &data.new)] {
        let key = |setting: &str| format!("data.{name}.{setting}");
        count(&key("points"), set.points, 1)?;
        number(&key("noise"), set.noise, set.noise > 0.0, "above 0")?;
        interval(&key("from"), set.from, set.to)?;
    }
    count("data.grid", data.grid, 2)?;
    count("data.picture_points", data.picture_points, 2)?;
    interval("data.picture", data.picture[0], data.picture[1])
}

/// Checks the network and the sampling of its posterior.
pub(super) fn model(model: &BayesianSpec) -> Result<(), SpecError> {
    let BayesianSpec {
        map,
        sghmc,
        finetuning,
        ..
    } = model;
    let narrowest = model.hidden.iter().copied().min().unwrap_or(0);
    count("model.hidden", narrowest, 1)?;
    count("model.hidden", model.hidden.iter().sum(), 1)?;
    for (key, value) in [
        ("model.map.steps", map.steps),
        ("model.sghmc.chains", sghmc.chains),
        ("model.sghmc.particles", sghmc.particles),
        ("model.sghmc.thinning", sghmc.thinning),
    ] {
        count(key, value, 1)?;
    }
    count("model.sghmc.burn_in", sghmc.burn_in, 0)?;
    count("model.sghmc.particles", model.functions(), 1)?;
    for (key, value) in [
        ("model.prior_std", model.prior_std),
        ("model.map.lr_start", map.lr_start),
        ("model.map.lr_end", map.lr_end),
        ("model.map.clip", map.clip),
        ("model.map.init_std", map.init_std),
        ("model.sghmc.step_size", sghmc.step_size),
        ("model.sghmc.clip", sghmc.clip),
        ("model.finetuning.clip", finetuning.clip),
        ("model.finetuning.kl_std", finetuning.kl_std),
    ] {
        number(key, value, value > 0.0, "above 0")?;
    }
    let (temperature, friction) = (sghmc.temperature, sghmc.friction);
    let key = "model.sghmc.temperature";
    number(key, temperature, temperature >= 0.0, "0 or more")?;
    let fits = friction > 0.0 && friction <= 1.0;
    number("model.sghmc.friction", friction, fits, "above 0, at most 1")
}

/// Checks what the study has of the settings that all experiments share, and refuses what it does not use.
pub(super) fn rest(config: &RunConfig) -> Result<(), SpecError> {
    let refuse = |key: &str, problem: &str| Err(SpecError::value(key, problem));
    if config.device != "cpu" {
        let problem = format!(
            "`{}` must be cpu: this experiment computes in f64, on the CPU alone",
            config.device
        );
        return refuse("device", &problem);
    }
    let names: Vec<&str> = config.phases.iter().map(|p| p.dataset.as_str()).collect();
    if names != REGRESSION_DATASETS {
        return refuse("phases", "must be two, on `old` and then on `new`");
    }
    let unused = "is no setting of this experiment: it trains on all points at every step";
    let training = &config.training;
    for (key, used) in [
        ("training.batch_size", training.batch_size > 0),
        ("training.eval_rows", training.eval_rows > 0),
        ("training.eval_growth", training.eval_growth != 0.0),
        ("training.micro_batch", training.micro_batch > 0),
        ("training.recompute", training.recompute),
        (
            "training.generation_bytes",
            training.generation_bytes != GENERATION_BYTES,
        ),
        ("training.samples", training.samples.unwrap_or(0) > 0),
        ("training.concurrent_arms", training.concurrent_arms > 0),
        ("replay.batch_size", config.replay.batch_size > 0),
        (
            "replay.fractions",
            config.replay.fractions != Fractions::Carry,
        ),
    ] {
        if used {
            return refuse(key, unused);
        }
    }
    if !config.optimizer.is_gradient_descent() {
        return refuse("optimizer", "takes lr alone: it is plain gradient descent");
    }
    for (i, phase) in config.phases.iter().enumerate() {
        let mut plain = PhaseSpec {
            dataset: phase.dataset.clone(),
            steps: phase.steps,
            eval_every: phase.eval_every,
            ..PhaseSpec::default()
        };
        plain.optimizer.lr = phase.optimizer.lr;
        if *phase != plain {
            let problem = "takes steps, eval_every and optimizer.lr alone in this experiment";
            return refuse(&format!("phases.{i}"), problem);
        }
    }
    match config.phases[0].steps {
        0 => Ok(()),
        _ => refuse("phases.old.steps", OF_FIRST),
    }
}

const OF_FIRST: &str = "follows from model.map and model.sghmc, which train the old points";

/// Refuses a rate of the first phase; where an arm has one of its own, the first phase of its configuration has the
/// run's, which is nothing to it.
pub(super) fn first_rate(config: &RunConfig) -> Result<(), SpecError> {
    let rate = config.phases.first().and_then(|first| first.optimizer.lr);
    match rate.filter(|_| config.regression().is_some()) {
        Some(_) => Err(SpecError::value("phases.old.optimizer.lr", OF_FIRST)),
        None => Ok(()),
    }
}

/// Checks an arm: with the penalty or without it.
pub(super) fn arm(arm: &ArmSpec) -> Result<(), String> {
    let plain = arm.strategy == "none" && arm.objective.is_none();
    let penalised = arm.strategy == "true-data" && arm.objective == Some(Objective::Kl);
    if !plain && !penalised {
        return Err(
            "this experiment has `none` and `true-data:kl:COEFF` alone: its one way of replay is the KL divergence \
             to the old predictive distribution at the old inputs"
                .into(),
        );
    }
    match arm.settings.keys().next() {
        Some(key) => Err(format!(
            "`{key}` is no setting here: the penalty takes all old inputs at every step"
        )),
        None => Ok(()),
    }
}

fn count(key: &str, value: usize, least: usize) -> Result<(), SpecError> {
    if (least..=MOST).contains(&value) {
        return Ok(());
    }
    let problem = format!("{value} must be {least} to {MOST}");
    Err(SpecError::value(key, problem))
}

fn number(key: &str, value: f64, fits: bool, must: &str) -> Result<(), SpecError> {
    if value.is_finite() && fits {
        return Ok(());
    }
    Err(SpecError::value(key, format!("{value} must be {must}")))
}

fn interval(key: &str, from: f64, to: f64) -> Result<(), SpecError> {
    let fits = from.is_finite() && to.is_finite() && from < to;
    match fits {
        true => Ok(()),
        false => Err(SpecError::value(key, format!("{from} must be below {to}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Overrides, Precision, SamplesSettings, expand, first_phase_hash, resolve};
    use super::*;

    fn preset(name: &str, set: &[(&str, &str)]) -> Result<RunConfig, SpecError> {
        let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let overrides = Overrides {
            preset: Some(name.into()),
            set: set.collect(),
            ..Overrides::default()
        };
        resolve("regression-1d", &overrides)
    }

    /// Else `paper` would be another study than the one it is named after.
    #[test]
    fn the_papers_preset_has_the_numbers_of_the_source() {
        let config = preset("paper", &[]).unwrap();
        let (model, data) = config.regression().unwrap();
        assert_eq!(
            (&model.hidden[..], model.prior_std),
            (&[48, 48, 24][..], 1.0)
        );
        assert_eq!(model.weights(), 96 + 49 * 48 + 49 * 24 + 25);
        let map = &model.map;
        let rates = (map.lr_start, map.lr_end, map.clip);
        assert_eq!((map.steps, rates), (12_000, (7e-3, 2e-4, 25.0)));
        let s = &model.sghmc;
        assert_eq!(
            (s.chains, s.particles, s.burn_in, s.thinning),
            (4, 80, 5000, 12)
        );
        assert_eq!((s.temperature, model.functions()), (0.12, 320));
        // The source's are of the mean over its functions.
        let functions = 320_f64;
        assert_eq!(config.optimizer.lr * functions, 3.5e-3);
        assert_eq!(model.finetuning.clip, 40.0 * functions.sqrt());
        assert_eq!((model.finetuning.kl_std, config.replay.coeff), (0.08, 1.0));
        let of = |set: &SamplesSettings| (set.points, set.from, set.to, set.noise);
        assert_eq!(of(&data.old), (82, -3.2, -0.08, 0.02));
        assert_eq!(of(&data.new), (44, 0.28, 3.2, 0.045));
        assert_eq!(config.all_steps(), [12_000 + 5000 + 79 * 12 + 1, 8000]);
        assert_eq!(config.precision, Precision::F64);
        let names: Vec<String> = config.arms.iter().map(ArmSpec::name).collect();
        assert_eq!(names, ["none", "true-data:kl:1"]);
    }

    /// Else a run's own configuration would be refused, or be another one.
    #[test]
    fn a_configuration_keeps_through_a_file_and_has_no_settings_of_tokens() {
        for name in ["cpu", "paper", "smoke"] {
            let config = preset(name, &[("optimizer.lr", "2e-5")]).unwrap();
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<RunConfig>(&text).unwrap(), config);
            for setting in ["beta1", "batch_size", "eval_rows", "call_deadline"] {
                assert!(!text.contains(setting), "{setting} in\n{text}");
            }
        }
        let misspelt = preset("smoke", &[("model.sghmc.burnin", "3")]).unwrap_err();
        assert!(
            misspelt.to_string().contains("`model.sghmc.burn_in`"),
            "{misspelt}"
        );
    }

    /// Else arms that differ in a rate or a coefficient alone would sample the same posterior again and again, or take
    /// another one for theirs.
    #[test]
    fn the_first_phase_is_the_same_for_all_settings_of_the_second() {
        let hash = |set: &[(&str, &str)]| {
            let config = preset("smoke", set).unwrap();
            first_phase_hash(&config, 0, "1")
        };
        let base = hash(&[]);
        for same in [
            ("optimizer.lr", "1e-5"),
            ("phases.new.steps", "5"),
            ("replay.coeff", "0.5"),
            ("training.eval_every", "7"),
            ("threads", "1"),
        ] {
            assert_eq!(hash(&[same]), base, "{same:?}");
        }
        for other in [
            ("data.old.points", "5"),
            ("data.grid", "9"),
            ("model.sghmc.particles", "3"),
            ("model.prior_std", "2.0"),
            ("phases.old.eval_every", "7"),
        ] {
            assert_ne!(hash(&[other]), base, "{other:?}");
        }
    }

    /// Else an arm with a rate or a length of its own would be named so and trained as the others.
    #[test]
    fn an_arm_may_have_a_rate_and_a_length_of_its_own() {
        let overrides = Overrides {
            preset: Some("smoke".into()),
            arms: vec!["none".into(), "true-data:kl:0.5+lr=1e-5+steps=7".into()],
            ..Overrides::default()
        };
        let config = resolve("regression-1d", &overrides).unwrap();
        let arms = expand(&config);
        assert_eq!((arms[0].info.lr, arms[1].info.lr), (1.09375e-4, 1e-5));
        let own = &arms[1].config;
        assert_eq!(own.in_phase(0), config.in_phase(0));
        assert_eq!(
            (own.in_phase(1).steps, own.in_phase(1).optimizer.lr),
            (7, 1e-5)
        );
    }
}

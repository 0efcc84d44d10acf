//! Finite differences, a target whose moments are known, runs that were interrupted; in `numpy` the same numbers by
//! another implementation.

mod numpy;

use forgetlab_engine::Stream;
use forgetlab_study::experiment::{Overrides, SghmcSettings, Student, resolve};
use serde::de::DeserializeOwned;

use super::mlp::{Mlp, Trace};
use super::posterior::Potential;
use super::sghmc::clip;
use super::*;

/// Largest difference, relative to the largest of the expected numbers.
#[track_caller]
fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0_f64, |m, x| m.max(x.abs()));
    let pairs = got.iter().zip(expected);
    let error = pairs.fold(0.0_f64, |m, (a, b)| m.max((a - b).abs())) / scale;
    if std::env::var_os("FORGETLAB_TEST_ERRORS").is_some() {
        println!("{what}: {error:.1e}");
    }
    assert!(error <= tolerance, "{what}: {error:e} > {tolerance:e}");
}

/// A state as a file would hold it.
fn through_json<T: serde::Serialize + DeserializeOwned>(state: &T) -> T {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

/// The smallest of the presets, with the penalty of weight 1.
fn smoke() -> Config {
    let overrides = Overrides {
        preset: Some("smoke".into()),
        ..Overrides::default()
    };
    Config::of(&resolve("regression-1d", &overrides).unwrap(), Some(1.0)).unwrap()
}

fn tiny() -> Config {
    let mut config = smoke();
    config.hidden = vec![6, 5];
    config.map.steps = 60;
    config.sghmc.burn_in = 20;
    config.sghmc.thinning = 3;
    config.finetuning.steps = 50;
    config.evaluation.pretraining_every = 20;
    config.evaluation.finetuning_every = 20;
    config.evaluation.grid = 12;
    config.evaluation.picture_points = 9;
    config
}

/// Else training follows something other than the slope of the loss it reports.
#[test]
fn gradients_agree_with_finite_differences() {
    let config = tiny();
    let mlp = Mlp::new(&config.hidden);
    let data = Data::new(&config, 5);
    let potential = Potential {
        mlp: &mlp,
        points: &data.old,
        noise: 0.3,
        prior_std: 0.8,
    };
    let mut random = Stream::new(5, "weights").at(0);
    let weights: Vec<f64> = (0..mlp.len())
        .map(|_| 0.6 * f64::from(random.normal()))
        .collect();
    let (mut trace, mut gradient) = (Trace::default(), vec![0.0; mlp.len()]);
    potential.value_and_gradient(&weights, &mut trace, &mut gradient);
    let mut ignored = gradient.clone();
    let differences: Vec<f64> = (0..mlp.len())
        .map(|i| {
            let mut at = |offset: f64| {
                let mut moved = weights.clone();
                moved[i] += offset;
                potential.value_and_gradient(&moved, &mut trace, &mut ignored)
            };
            let h = 1e-3;
            (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)
        })
        .collect();
    assert_close("gradient", &gradient, &differences, 1e-9);
}

/// Else the old predictive distribution, which the penalty holds on to, is not the posterior's.
///
/// With U = k θ² / 2 the chain is linear, and its stationary variance is exactly (T / k) / (1 − η k / (2 (2 − α))).
/// Every dimension is a chain of its own, read once after many relaxation times: independent draws, so that the mean
/// is off by σ / √n and the variance by σ² √(2 / n), of which four are allowed (1 in 16 000).
#[test]
fn sampling_a_gaussian_gives_its_mean_and_variance() {
    let settings = SghmcSettings {
        step_size: 0.05,
        friction: 0.3,
        temperature: 0.5,
        ..smoke().sghmc
    };
    let (curvature, centre, dimensions) = (2.0, 1.5, 20_000);
    let stream = Stream::new(9, "gaussian");
    let mut chain = Chain::at(vec![-1.0; dimensions]);
    for step in 0..200 {
        let gradient: Vec<f64> = chain
            .position
            .iter()
            .map(|x| curvature * (x - centre))
            .collect();
        chain.step(&gradient, &settings, &mut stream.at(step));
    }
    let n = dimensions as f64;
    let mean = chain.position.iter().sum::<f64>() / n;
    let variance = chain
        .position
        .iter()
        .map(|x| (x - mean).powi(2))
        .sum::<f64>()
        / n;
    let shift = settings.step_size * curvature / (2.0 * (2.0 - settings.friction));
    let exact = settings.temperature / curvature / (1.0 - shift);
    assert!((mean - centre).abs() < 4.0 * (exact / n).sqrt(), "{mean}");
    assert!(
        (variance - exact).abs() < 4.0 * exact * (2.0 / n).sqrt(),
        "{variance} for {exact}"
    );
}

/// Else one step far from the data throws the weights away.
#[test]
fn a_long_gradient_is_scaled_to_the_bound_and_a_short_one_left() {
    let mut long = [30.0, -40.0];
    assert_close("norm", &[clip(&mut long, 25.0)], &[50.0], 1e-15);
    assert_close("long", &long, &[15.0, -20.0], 1e-15);
    let mut short = [3.0, -4.0];
    clip(&mut short, 25.0);
    assert_eq!(short, [3.0, -4.0]);
}

/// Else a run that was stopped ends with other numbers than one that was not.
#[test]
fn resumed_equals_uninterrupted_bit_for_bit_at_every_evaluation() {
    let config = tiny();
    let mut whole = Pretraining::new(&config, 3).unwrap();
    let mut resumed = Pretraining::new(&config, 3).unwrap();
    let mut stages = Vec::new();
    while !whole.is_done() {
        let evaluation = whole.step().unwrap();
        assert_eq!(resumed.step().unwrap(), evaluation);
        if let Some(evaluation) = evaluation {
            stages.push(evaluation.stage);
            resumed = Pretraining::resume(&config, 3, through_json(resumed.state())).unwrap();
            assert_eq!(resumed.evaluate(), evaluation);
        }
        assert_eq!(resumed.state(), whole.state());
    }
    assert!(stages.contains(&Stage::Map) && stages.contains(&Stage::Sampling));
    let posterior = whole.posterior().unwrap();
    assert_eq!(posterior.particles.len(), 2 * 4);

    for (student, penalised) in [
        (Student::Ensemble, false),
        (Student::Ensemble, true),
        (Student::Map, true),
    ] {
        let mut config = config.clone();
        config.finetuning.student = student;
        let new = || Finetuning::new(&config, 3, &posterior, penalised).unwrap();
        let (mut whole, mut resumed) = (new(), new());
        while !whole.is_done() {
            let evaluation = whole.step().unwrap();
            assert_eq!(resumed.step().unwrap(), evaluation);
            if evaluation.is_some() {
                let state = through_json(&resumed.state());
                resumed = Finetuning::resume(&config, 3, &posterior, penalised, state).unwrap();
            }
        }
        assert_eq!(resumed.state(), whole.state());
        let picture = Picture::new(&config, 3, &posterior);
        assert_eq!(resumed.band(&picture.x), whole.band(&picture.x));
    }
}

/// Else figures depend on the machine's number of cores.
#[test]
fn threads_do_not_change_a_bit() {
    let config = tiny();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let mut pretraining = Pretraining::new(&config, 7).unwrap();
            while !pretraining.is_done() {
                pretraining.step().unwrap();
            }
            let posterior = pretraining.posterior().unwrap();
            let mut finetuning = Finetuning::new(&config, 7, &posterior, true).unwrap();
            while !finetuning.is_done() {
                finetuning.step().unwrap();
            }
            (posterior, finetuning.state(), finetuning.evaluate())
        })
    };
    assert_eq!(run(1), run(3));
}

/// Else the study's smallest scale shows something else than what it is for.
#[test]
fn finetuning_forgets_and_the_penalty_makes_it_forget_less() {
    let config = smoke();
    let mut pretraining = Pretraining::new(&config, 0).unwrap();
    while !pretraining.is_done() {
        pretraining.step().unwrap();
    }
    let posterior = pretraining.posterior().unwrap();
    let [without, with] = [false, true].map(|penalised| {
        let mut finetuning = Finetuning::new(&config, 0, &posterior, penalised).unwrap();
        let before = finetuning.evaluate();
        assert_eq!(before.distance_to_posterior, Some(0.0));
        assert_eq!(before.function_distance, Some(0.0));
        assert!(before.kl.unwrap().abs() < 1e-12);
        while !finetuning.is_done() {
            finetuning.step().unwrap();
        }
        let after = finetuning.evaluate();
        assert!(after.new.rmse < before.new.rmse);
        assert!(after.old.rmse > before.old.rmse);
        after
    });
    assert!(with.old.function_rmse < without.old.function_rmse);
    assert!(with.function_distance < without.function_distance);
    assert!(with.kl < without.kl);
}

/// Else a foreign checkpoint ends in a panic or in silent nonsense.
#[test]
fn foreign_states_are_named() {
    let state = Pretraining::new(&tiny(), 0).unwrap().state().clone();
    let other = Pretraining::resume(&smoke(), 0, state);
    assert!(matches!(other, Err(Error::State(_))));
    let posterior = Posterior {
        map: vec![0.0; 3],
        particles: vec![vec![0.0; 3]],
    };
    let other = Finetuning::new(&tiny(), 0, &posterior, true);
    assert!(matches!(other, Err(Error::State(_))));
}

/// Else a learning rate that is too high ends in curves of NaN.
#[test]
fn divergence_is_an_error() {
    let mut config = tiny();
    config.map.clip = f64::MAX;
    config.map.lr_start = 1e300;
    let mut pretraining = Pretraining::new(&config, 0).unwrap();
    let error = (0..60).find_map(|_| pretraining.step().err()).unwrap();
    assert!(
        error.to_string().contains("MAP training diverged"),
        "{error}"
    );
}

//! The same numbers by numpy (`tests/fixtures/regression/make.py`).

use forgetlab_study::experiment::Student;
use serde::Deserialize;

use super::super::mlp::{Mlp, Trace};
use super::super::posterior::Potential;
use super::super::*;
use super::{assert_close, smoke, tiny};

const FIXTURE: &str = include_str!("../../../../../tests/fixtures/regression/regression.json");

#[derive(Deserialize)]
struct Fixture {
    map: Vec<MapCase>,
    finetuning: Vec<FinetuningCase>,
}

#[derive(Deserialize)]
struct MapCase {
    hidden: Vec<usize>,
    x: Vec<f64>,
    y: Vec<f64>,
    settings: MapCaseSettings,
    weights: Vec<f64>,
    outputs: Vec<f64>,
    value: f64,
    stride: usize,
    gradient: Vec<f64>,
    outputs_after: Vec<f64>,
    value_after: f64,
}

#[derive(Deserialize)]
struct MapCaseSettings {
    noise: f64,
    prior_std: f64,
    lr_start: f64,
    lr_end: f64,
    clip: f64,
    steps: usize,
}

#[derive(Deserialize)]
struct FinetuningCase {
    hidden: Vec<usize>,
    penalised: bool,
    settings: FinetuningCaseSettings,
    x: Vec<f64>,
    y: Vec<f64>,
    x_old: Vec<f64>,
    before: Vec<Vec<f64>>,
    start: Vec<Vec<f64>>,
    loss: f64,
    kl: f64,
    gradient: Vec<Vec<f64>>,
    after: Vec<Vec<f64>>,
    loss_after: f64,
    kl_after: f64,
}

#[derive(Deserialize)]
struct FinetuningCaseSettings {
    noise: f64,
    kl_std: f64,
    kl_weight: f64,
    lr: f64,
    clip: f64,
    steps: usize,
}

fn fixture() -> Fixture {
    serde_json::from_str(FIXTURE).unwrap()
}

/// Else the study trains another network, or on another loss, than the paper's.
#[test]
fn the_potential_its_gradient_and_its_descent_are_those_of_numpy() {
    for case in fixture().map {
        let s = case.settings;
        let mut config = smoke();
        config.hidden = case.hidden;
        config.prior_std = s.prior_std;
        config.old.noise = s.noise;
        config.map.steps = s.steps;
        config.map.lr_start = s.lr_start;
        config.map.lr_end = s.lr_end;
        config.map.clip = s.clip;
        let mlp = Mlp::new(&config.hidden);
        let points = Points {
            x: case.x,
            y: case.y,
        };
        let potential = Potential {
            mlp: &mlp,
            points: &points,
            noise: s.noise,
            prior_std: s.prior_std,
        };
        let (mut trace, mut gradient) = (Trace::default(), vec![0.0; mlp.len()]);
        let mut measure = |weights: &[f64]| {
            let value = potential.value_and_gradient(weights, &mut trace, &mut gradient);
            (value, trace.outputs().to_vec(), gradient.clone())
        };
        let (value, outputs, gradient) = measure(&case.weights);
        assert_close("value", &[value], &[case.value], 1e-13);
        assert_close("outputs", &outputs, &case.outputs, 1e-13);
        let strided: Vec<f64> = gradient.into_iter().step_by(case.stride).collect();
        assert_close("gradient", &strided, &case.gradient, 1e-12);

        let state = PretrainingState {
            step: 0,
            map: case.weights,
            chains: Vec::new(),
            kept: vec![Vec::new(); config.sghmc.chains],
        };
        let mut training = Pretraining::on(points.clone(), &config, 0, state).unwrap();
        for _ in 0..s.steps {
            training.step().unwrap();
        }
        let (value, outputs, _) = measure(&training.state().map);
        assert_close("value after", &[value], &[case.value_after], 1e-10);
        assert_close("outputs after", &outputs, &case.outputs_after, 1e-10);
    }
}

/// Else the arms do not differ by the penalty that the figure is about.
#[test]
fn finetuning_and_its_penalty_are_those_of_numpy() {
    for case in fixture().finetuning {
        let s = case.settings;
        let mut config = tiny();
        config.hidden = case.hidden;
        config.new.noise = s.noise;
        config.finetuning = FinetuningConfig {
            student: Student::Ensemble,
            steps: s.steps,
            lr: s.lr,
            clip: s.clip,
            kl_std: s.kl_std,
            kl_weight: s.kl_weight,
        };
        config.evaluation.finetuning_every = s.steps;
        let data = Data {
            old: Points {
                y: vec![0.0; case.x_old.len()],
                x: case.x_old,
            },
            new: Points {
                x: case.x,
                y: case.y,
            },
        };
        let posterior = Posterior {
            map: case.before[0].clone(),
            particles: case.before,
        };
        let state = FinetuningState {
            step: 0,
            functions: case.start,
        };
        let mut training =
            Finetuning::on(data, &config, &posterior, case.penalised, state).unwrap();
        let now = training.evaluate();
        let figures = [now.loss, now.kl.unwrap()];
        assert_close("evaluated", &figures, &[case.loss, case.kl], 1e-13);
        assert_close("loss", &[training.gradients()], &[case.loss], 1e-13);
        let gradient = training.last_gradients().concat();
        assert_close("gradient", &gradient, &case.gradient.concat(), 1e-12);

        let mut last = None;
        while !training.is_done() {
            last = training.step().unwrap().or(last);
        }
        let last = last.unwrap();
        let after = training.state().functions.concat();
        assert_close("weights after", &after, &case.after.concat(), 1e-10);
        let figures = [last.loss, last.kl.unwrap()];
        assert_close("after", &figures, &[case.loss_after, case.kl_after], 1e-10);
    }
}

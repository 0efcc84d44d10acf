//! Every figure of an evaluation.

use std::sync::Arc;

use forgetlab_engine::model::ModelConfig;
use forgetlab_engine::{Engine, EngineError, Weights};
use forgetlab_study::experiment::When;
use forgetlab_study::run::{Outcomes, Role, Score};

use crate::data::Suite;

use super::heldout::forward_flops;
use super::{Choices, evaluate};

/// The model that is evaluated, and at which point of the run.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The model.
    pub student: &'a Weights,
    /// What its KL is measured against; `None` for a model that is its own reference.
    pub reference: Option<&'a Weights>,
    /// Phase, from 0; it decides the datasets' roles.
    pub phase: usize,
    /// Whether questions are due that are asked at the ends of phases alone.
    pub at_end: bool,
}

/// Held-out figures of every dataset, then those of every set of questions that is due.
///
/// # Errors
/// When the device fails.
pub fn scores(
    engine: &mut Engine,
    suite: &Suite,
    questions: &[Choices],
    subject: Subject,
) -> Result<Vec<Score>, EngineError> {
    let Subject {
        student,
        reference,
        phase,
        at_end,
    } = subject;
    let finite = |x: f64| x.is_finite().then_some(x);
    let mut scores = Vec::new();
    for (i, data) in suite.held_out().iter().enumerate() {
        let figures = evaluate(engine, student, reference, data, suite.reduction())?;
        scores.push(Score {
            dataset: data.dataset.clone(),
            role: suite.role(i, phase),
            ntp: finite(figures.ntp),
            kl: finite(figures.kl),
            accuracy: finite(figures.accuracy),
            fit: None,
            choices: None,
            outcomes: Some(Arc::new(figures.outcomes)),
            rows_kept: true,
        });
    }
    for choices in due(questions, at_end) {
        let answered = choices.ask(engine, student)?;
        let found = answered.as_ref().map(|answered| answered.scores);
        let outcomes = answered.map(|answered| Outcomes {
            right: answered.right.into_iter().map(u32::from).collect(),
            ..Outcomes::default()
        });
        let accuracy = found.map(|c| c.accuracy_normalised.unwrap_or(c.accuracy).mean);
        scores.push(Score {
            dataset: choices.name.clone(),
            role: Role::Old,
            ntp: None,
            kl: None,
            accuracy,
            fit: None,
            choices: found,
            rows_kept: outcomes.is_some(),
            outcomes: outcomes.map(Arc::new),
        });
    }
    Ok(scores)
}

/// Questions to be asked.
fn due(questions: &[Choices], at_end: bool) -> impl Iterator<Item = &Choices> {
    let due = move |choices: &&Choices| at_end || choices.when == When::Always;
    questions.iter().filter(due)
}

/// FLOPs of [`scores`]: a forward of the student, and of the reference where there is one, over all held-out
/// rows, and a forward of the student over the questions that are due.
pub fn flops(
    model: &ModelConfig,
    suite: &Suite,
    questions: &[Choices],
    reference: bool,
    at_end: bool,
) -> f64 {
    let held_out = suite.held_out().iter();
    let rows: f64 = held_out.map(|data| forward_flops(model, data)).sum();
    let models = if reference { 2.0 } else { 1.0 };
    let asked = due(questions, at_end).map(|choices| choices.flops(model));
    models * rows + asked.sum::<f64>()
}

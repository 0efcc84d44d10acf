//! Every figure of an evaluation.

use forgetlab_engine::{Engine, EngineError, Weights};
use forgetlab_study::experiment::When;
use forgetlab_study::run::{Role, Score};

use crate::data::Suite;

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
            choices: None,
        });
    }
    let due = |choices: &&Choices| at_end || choices.when == When::Always;
    for choices in questions.iter().filter(due) {
        let found = choices.ask(engine, student)?;
        let accuracy = found.map(|c| c.accuracy_normalised.unwrap_or(c.accuracy).mean);
        scores.push(Score {
            dataset: choices.name.clone(),
            role: Role::Old,
            ntp: None,
            kl: None,
            accuracy,
            choices: found,
        });
    }
    Ok(scores)
}

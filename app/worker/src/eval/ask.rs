//! Asking a model multiple-choice questions.

use forgetlab_engine::model::ModelConfig;
use forgetlab_engine::{Asked, Engine, EngineError, Query, Weights};
use forgetlab_study::experiment::When;

use crate::data::Suite;

use super::{Answered, ChoiceError, ChoiceTask, Wanted};

/// Multiple-choice questions, ready to be asked.
#[derive(Debug)]
pub struct Choices {
    /// Name of the dataset.
    pub name: String,
    /// When they are asked.
    pub when: When,
    task: ChoiceTask,
}

/// Questions that cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("questions `{name}`: {source}")]
pub struct QuestionsError {
    /// Dataset.
    pub name: String,
    /// What is wrong.
    #[source]
    pub source: Box<ChoiceError>,
}

/// The most positions of one forward; larger wastes padding, smaller repacks the weights more often.
const MAX_POSITIONS: usize = 1 << 13;

/// Every set of questions of an experiment, ready to be asked.
///
/// # Errors
/// [`QuestionsError`] names the first set that its tokenizer or chat template cannot put.
pub fn questions(suite: &Suite) -> Result<Vec<Choices>, QuestionsError> {
    let Some(tokenizer) = suite.tokenizer() else {
        return Ok(Vec::new());
    };
    let sets = suite.questions().iter();
    sets.map(|set| {
        let settings = suite.chat_settings();
        let task = ChoiceTask::of(&set.questions, set.style, tokenizer, &settings);
        let task = task.map_err(|source| QuestionsError {
            name: set.name.clone(),
            source: Box::new(source),
        })?;
        Ok(Choices {
            name: set.name.clone(),
            when: set.when,
            task,
        })
    })
    .collect()
}

/// Requests that one forward answers.
struct Pass {
    /// Their numbers.
    requests: Vec<usize>,
    /// Tokens of the longest.
    seq_len: usize,
}

/// The most that sets of questions ask of a model at a time.
pub fn largest_pass(questions: &[Choices]) -> Asked {
    let all = questions.iter().flat_map(|choices| {
        let requests = choices.task.requests();
        let candidates = |&i: &usize| match &requests[i].wanted {
            Wanted::Next(candidates) => candidates.len(),
            Wanted::Span(span) => span.len(),
        };
        choices.passes().into_iter().map(move |pass| Asked {
            rows: pass.requests.len(),
            seq_len: pass.seq_len,
            candidates: pass.requests.iter().map(candidates).sum(),
        })
    });
    let positions = |asked: &Asked| asked.rows * asked.seq_len;
    all.max_by_key(positions).unwrap_or_default()
}

impl Choices {
    /// All requests, the longest first.
    fn passes(&self) -> Vec<Pass> {
        let requests = self.task.requests();
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|&i| requests[i].tokens.len());
        let mut passes = Vec::new();
        while let Some(&last) = order.last() {
            // The longest of what is left decides how wide the pass is.
            let seq_len = requests[last].tokens.len();
            let rows = (MAX_POSITIONS / seq_len).clamp(1, order.len());
            let requests = order.split_off(order.len() - rows);
            passes.push(Pass { requests, seq_len });
        }
        passes
    }

    /// FLOPs of asking a model all questions.
    pub(super) fn flops(&self, model: &ModelConfig) -> f64 {
        let requests = self.task.requests().iter();
        let flops = requests.map(|request| {
            let scored = match &request.wanted {
                Wanted::Next(_) => 1,
                Wanted::Span(span) => span.len(),
            };
            model.forward_flops(request.tokens.len(), scored)
        });
        flops.sum()
    }

    /// Asks a model all questions; `None` where one of its log-probabilities is NaN.
    ///
    /// # Errors
    /// When the device fails.
    pub fn ask(
        &self,
        engine: &mut Engine,
        model: &Weights,
    ) -> Result<Option<Answered>, EngineError> {
        let requests = self.task.requests();
        let mut answers = vec![Vec::new(); requests.len()];
        for Pass {
            requests: pass,
            seq_len,
        } in self.passes()
        {
            let rows = pass.len();
            let (mut tokens, mut queries) = (Vec::with_capacity(rows * seq_len), Vec::new());
            for (row, &i) in pass.iter().enumerate() {
                let request = &requests[i];
                tokens.extend_from_slice(&request.tokens);
                tokens.resize((row + 1) * seq_len, 0);
                let query = |position: usize, candidates| Query {
                    position: row * seq_len + position,
                    candidates,
                };
                match &request.wanted {
                    Wanted::Next(candidates) => {
                        queries.push(query(request.tokens.len() - 1, candidates.clone()));
                    }
                    Wanted::Span(span) => {
                        queries.extend(span.clone().map(|p| query(p - 1, vec![request.tokens[p]])))
                    }
                }
            }
            let found = engine.log_probs(model, &tokens, seq_len, &queries)?;
            let mut found = found.into_iter();
            for &i in &pass {
                answers[i] = match &requests[i].wanted {
                    Wanted::Next(_) => {
                        let of_choices = found.next().unwrap_or_default();
                        of_choices.into_iter().map(f64::from).collect()
                    }
                    Wanted::Span(span) => {
                        let parts = found.by_ref().take(span.len()).flatten();
                        vec![parts.map(f64::from).sum()]
                    }
                };
            }
        }
        Ok(self.task.score(&answers).ok())
    }
}

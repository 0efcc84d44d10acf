//! The prompts that a student continues at every evaluation, to be read beside the curves.
//!
//! It always writes the most likely token: the same weights write the same text, so that two evaluations differ by what
//! was learned in between and not by luck. Rows are written to one length, whatever ends them, so that what they cost
//! is known before.

use forgetlab_engine::model::ModelConfig;
use forgetlab_engine::{Engine, EngineError, Request, Sampling, Stream, Weights};
use forgetlab_study::printed::harmless;
use forgetlab_study::run::{Continuation, SampleLook};

use crate::data::{Accuracy, HeldOut, Suite};

/// Tokens of a text that are given.
const GIVEN: usize = 16;
/// Tokens of a question that are given, at most: up to where the answer begins.
const QUESTION: usize = 64;
/// Tokens that follow the longest prompt.
const WRITTEN: usize = 32;
/// Characters shown of a prompt or of what follows it, at most.
const CHARACTERS: usize = 400;

/// Prompts, each with the number of the dataset that it is of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompts {
    datasets: Vec<Option<usize>>,
    tokens: Vec<Vec<u32>>,
    /// Tokens of a row, the prompt included.
    length: usize,
}

impl Prompts {
    /// So many prompts of each dataset: what its rows begin with, then beginnings of held-out rows. Where there are
    /// any, the bare BOS token is one too. Of equal ones the first stays.
    pub fn of(suite: &Suite, each: usize) -> Self {
        let mut prompts = Self::default();
        if each == 0 {
            return prompts;
        }
        prompts.add(None, suite.special_tokens().bos.into_iter().collect());
        let held_out = suite.held_out();
        let markers: Vec<Vec<u32>> = (0..held_out.len())
            .map(|dataset| suite.task(dataset).markers)
            .collect();
        for (dataset, own) in markers.iter().enumerate() {
            let alone = markers.iter().filter(|other| *other == own).count() == 1;
            prompts.add(alone.then_some(dataset), own.clone());
        }
        for (dataset, data) in held_out.iter().enumerate() {
            for prompt in beginnings(data).take(each - 1) {
                prompts.add(Some(dataset), prompt);
            }
        }
        let longest = prompts.tokens.iter().map(Vec::len).max().unwrap_or(0);
        prompts.length = suite.seq_len().min(longest + WRITTEN);
        prompts.tokens.iter_mut().for_each(|prompt| {
            prompt.truncate(prompts.length);
        });
        prompts
    }

    fn add(&mut self, dataset: Option<usize>, tokens: Vec<u32>) {
        if !tokens.is_empty() && !self.tokens.contains(&tokens) {
            self.datasets.push(dataset);
            self.tokens.push(tokens);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Tokens of all rows that are written, prompts included.
    pub fn row_tokens(&self) -> usize {
        self.tokens.len() * self.length
    }

    /// FLOPs of writing all of them once.
    pub fn flops(&self, model: &ModelConfig) -> f64 {
        let rows = self.tokens.iter();
        rows.map(|prompt| model.generation_flops(prompt.len(), self.length))
            .sum()
    }

    /// How a student continues them after so many steps.
    ///
    /// # Errors
    /// When the device fails.
    pub fn write(
        &self,
        engine: &mut Engine,
        student: &Weights,
        suite: &Suite,
        step: u64,
    ) -> Result<SampleLook, EngineError> {
        let request = Request {
            prompts: &self.tokens,
            length: self.length,
            sampling: &Sampling::greedy(),
            // Nothing is drawn from it.
            stream: &Stream::new(0, "continued prompts"),
            first_row: 0,
        };
        let written = engine.generate(student, request)?;
        let end = suite.special_tokens().eos;
        let rows = written.tokens.chunks_exact(self.length.max(1));
        let rows = rows.zip(&self.tokens).zip(&self.datasets);
        let samples = rows.map(|((row, prompt), dataset)| {
            let own = row[prompt.len()..].iter().position(|id| Some(*id) == end);
            let row = &row[..own.map_or(row.len(), |end| prompt.len() + end + 1)];
            let (prompt, text) = match suite.decode_parts(row, [prompt.len()]) {
                Ok((text, ends)) => {
                    let at = text.char_indices().nth(ends[0]);
                    let (prompt, text) = text.split_at(at.map_or(text.len(), |(at, _)| at));
                    (shown(prompt), shown(text))
                }
                Err(error) => (String::new(), format!("({error})")),
            };
            Continuation {
                dataset: dataset.map(|dataset| suite.held_out()[dataset].dataset.clone()),
                prompt,
                text,
            }
        });
        Ok(SampleLook {
            step,
            samples: samples.collect(),
        })
    }
}

/// Beginnings of held-out rows: up to the answer where they have one, else of so many tokens. Rows whose question is
/// long come last, and cut.
fn beginnings(data: &HeldOut) -> impl Iterator<Item = Vec<u32>> + '_ {
    let batch = &data.batch;
    let given = move |row: usize| {
        let mask = &batch.mask[row * batch.seq_len..][..batch.lens[row]];
        match (data.accuracy, mask.iter().position(|target| *target)) {
            (Accuracy::Answers { prompt_len }, _) => prompt_len,
            (Accuracy::Tokens, Some(first)) if first > 1 => first,
            (Accuracy::Tokens, _) => GIVEN.min(mask.len() / 2),
        }
    };
    let tokens = move |row: usize| {
        let given = given(row).min(QUESTION).min(batch.lens[row]);
        batch.tokens[row * batch.seq_len..][..given].to_vec()
    };
    let short = (0..batch.rows()).filter(move |row| given(*row) <= QUESTION);
    let long = (0..batch.rows()).filter(move |row| given(*row) > QUESTION);
    short.chain(long).map(tokens)
}

/// The beginning of a text, which does nothing to a terminal.
fn shown(text: &str) -> String {
    let taken: String = text.chars().take(CHARACTERS).collect();
    harmless(&taken).replace('\t', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use forgetlab_engine::Hardware;
    use forgetlab_engine::model::Params;
    use forgetlab_study::experiment::{Overrides, resolve};

    fn suite(experiment: &str) -> Suite {
        let overrides = Overrides {
            preset: Some("smoke".into()),
            ..Overrides::default()
        };
        Suite::new(&resolve(experiment, &overrides).unwrap()).unwrap()
    }

    /// Else a student would be shown with words that were put into its mouth, or cost more than was said.
    #[test]
    fn a_student_is_given_questions_and_beginnings_and_no_answers() {
        let suite = suite("instruct");
        let prompts = Prompts::of(&suite, 3);
        assert_eq!(Prompts::of(&suite, 0), Prompts::default());
        // BOS, what begins the turns of all datasets, and two of each.
        let datasets = suite.held_out().len();
        assert_eq!(prompts.tokens.len(), 2 + 2 * datasets);
        let own = prompts.datasets.iter().flatten().count();
        assert_eq!(own, 2 * datasets);
        for (dataset, prompt) in prompts.datasets.iter().zip(&prompts.tokens) {
            let Some(dataset) = dataset else { continue };
            let batch = &suite.held_out()[*dataset].batch;
            let mut rows = (0..batch.rows()).map(|row| row * batch.seq_len);
            let start = rows.find(|start| batch.tokens[*start..].starts_with(prompt));
            let mask = &batch.mask[start.unwrap()..][..prompt.len()];
            let is_chat = batch.mask[start.unwrap()..][..2] == [false; 2];
            assert!(!is_chat || mask.iter().all(|target| !target));
            assert!(prompt.len() <= if is_chat { QUESTION } else { GIVEN });
        }

        let model = suite.pretrained().unwrap().config;
        let flops = prompts.tokens.iter();
        let flops = flops.map(|prompt| model.generation_flops(prompt.len(), prompts.length));
        assert_eq!(prompts.flops(&model), flops.sum::<f64>());
        assert!(prompts.length <= suite.seq_len());
        let mut engine = Engine::new(model, &Hardware::cpu(2)).unwrap();
        let params = Params::init(engine.layout(), &Stream::new(7, "test"));
        let weights = engine.weights(params).unwrap();
        let mut write = || prompts.write(&mut engine, &weights, &suite, 5).unwrap();
        let look = write();
        assert_eq!(look, write(), "nothing is drawn at random");
        assert_eq!((look.step, look.samples.len()), (5, prompts.tokens.len()));
        for (sample, prompt) in look.samples.iter().zip(&prompts.tokens) {
            assert_eq!(sample.prompt, shown(&suite.decode(prompt).unwrap()));
        }
    }

    /// Else a mark would stand in the middle of a letter, or behind where it belongs.
    #[test]
    fn characters_of_several_tokens_belong_to_the_last_of_them() {
        let suite = suite("instruct");
        let text = "a Ω¿ gate";
        let tokens = suite.encode(text).unwrap();
        let (whole, ends) = suite.decode_parts(&tokens, 0..=tokens.len()).unwrap();
        assert_eq!(whole, text);
        assert!(ends.is_sorted() && ends[0] == 0);
        assert_eq!(ends.last(), Some(&text.chars().count()));
        assert!(ends.windows(2).any(|two| two[0] == two[1]), "{ends:?}");
    }

    /// Else replayed rows would be said to be of another task.
    #[test]
    fn rows_are_of_the_dataset_that_they_are_from() {
        for experiment in ["toy-continual", "instruct"] {
            let suite = suite(experiment);
            let all: Vec<usize> = (0..suite.held_out().len()).collect();
            let rows = suite.draw(&all, &mut Stream::new(1, "rows").at(0)).unwrap();
            for (row, &dataset) in all.iter().enumerate() {
                let tokens = &rows.tokens[row * rows.seq_len..][..rows.lens[row]];
                assert_eq!(suite.dataset_of(tokens), Some(dataset), "{experiment}");
            }
            assert_eq!(suite.dataset_of(&[3, 3, 3]), None);
        }
    }
}

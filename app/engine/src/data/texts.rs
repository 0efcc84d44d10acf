//! Datasets of text, conversations and questions, in the tokens of a pretrained model.

use std::path::PathBuf;

use crate::batch::Query;
use crate::engine::Compute;
use crate::error::ComputeError;
use crate::eval::{Accuracy, ChoiceError, ChoiceTask, HeldOut, Wanted};
use crate::pretrained::{Hub, Pretrained, open};
use crate::random::Random;
use crate::weights::Weights;
use forgetlab_plugin_host::SpecialTokens;
use forgetlab_study::experiment::{
    PretrainedSpec, QuestionStyle, QuestionsSpec, TextSpec, TokenSetSettings, When,
};
use forgetlab_study::run::ChoiceScores;

use super::{
    Chat, DataError, Fields, Message, Rows, SourceError, TokenSet, Tokenizer, hash_files,
    read_questions,
};

/// What an experiment on text reads, and what its model and tokenizer are.
#[derive(Debug)]
pub(super) struct Texts {
    pub pretrained: Pretrained,
    pub tokenizer: Tokenizer,
    pub sets: Vec<TextSet>,
    pub choices: Vec<Choices>,
    /// The most tokens of a row.
    pub seq_len: usize,
    pub pad: u32,
    /// What begins a user's turn, or a text where there is no chat template.
    pub markers: Vec<u32>,
    /// The token that begins rows of text.
    bos: Option<u32>,
}

/// Rows of a dataset.
#[derive(Debug)]
pub(super) struct TextSet {
    pub name: String,
    pub train: Rows,
    held_out: Rows,
}

/// Multiple-choice questions, ready to be asked.
#[derive(Debug)]
pub struct Choices {
    /// Name of the dataset.
    pub name: String,
    /// When they are asked.
    pub when: When,
    task: ChoiceTask,
}

/// Positions of a pass over questions, at most: padding is wasted, and so is packing the weights anew.
const POSITIONS: usize = 1 << 13;

impl Texts {
    /// Opens the model and reads the files.
    pub fn open(spec: &TextSpec, model: &PretrainedSpec) -> Result<Self, DataError> {
        let pretrained = open(&model.pretrained, &Hub::from_env(), &()).map_err(Box::new)?;
        if model.hash.is_some() && pretrained.hash().map_err(Box::new)? != model.hash {
            return Err(DataError::Changed {
                name: model.pretrained.clone(),
            });
        }
        let tokenizer = Tokenizer::of(&pretrained).map_err(Box::new)?;
        let seq_len = spec.rows.seq_len;
        if let Some(most) = pretrained.max_positions.filter(|&most| most < seq_len) {
            return Err(DataError::TooLong {
                seq_len,
                model: pretrained.name,
                most,
            });
        }
        let sets = spec.datasets.iter().map(|dataset| {
            let rows = |source| DataError::Rows {
                name: dataset.name.clone(),
                source: Box::new(source),
            };
            let files = &dataset.files;
            unchanged(&dataset.name, files, dataset.hash.as_deref(), |source| {
                rows(source.into())
            })?;
            let set = TokenSet::from_files(files, &Fields::default(), &tokenizer, &spec.rows);
            let set = set.map_err(rows)?;
            Ok(TextSet {
                name: dataset.name.clone(),
                train: set.train,
                held_out: set.held_out,
            })
        });
        let sets = sets.collect::<Result<_, DataError>>()?;
        let choices = spec.questions.iter();
        let choices = choices.map(|questions| Choices::open(questions, &tokenizer, &spec.rows));
        let choices = choices.collect::<Result<_, _>>()?;
        let special = tokenizer.special_tokens();
        let bos = match &spec.rows.bos {
            Some(token) => Some(tokenizer.token_id(token).map_err(Box::new)?),
            None => special.bos,
        };
        Ok(Self {
            markers: markers(&tokenizer, &spec.rows, bos)?,
            pad: special.pad.or(special.eos).or(bos).unwrap_or(0),
            pretrained,
            tokenizer,
            sets,
            choices,
            seq_len,
            bos,
        })
    }

    /// Ids of the special tokens; BOS is what begins rows of text.
    pub fn special_tokens(&self) -> SpecialTokens {
        SpecialTokens {
            bos: self.bos,
            ..self.tokenizer.special_tokens()
        }
    }
}

impl TextSet {
    /// Appends training rows drawn with replacement.
    pub fn draw(&self, random: &mut Random, rows: usize, out: &mut Rows) {
        for _ in 0..rows {
            let (tokens, mask) = self
                .train
                .row(random.below(self.train.len() as u64) as usize);
            out.push(tokens, mask);
        }
    }

    /// Up to `most` held-out rows, from all over the dataset, the same for every run.
    pub fn held_out(&self, most: usize, pad: u32) -> HeldOut {
        let all = self.held_out.len();
        let rows = most.min(all);
        let spread: Vec<usize> = (0..rows).map(|i| i * all / rows).collect();
        HeldOut {
            dataset: self.name.clone(),
            batch: self.held_out.batch(&spread, pad),
            accuracy: Accuracy::Tokens,
        }
    }
}

impl Choices {
    fn open(
        spec: &QuestionsSpec,
        tokenizer: &Tokenizer,
        rows: &TokenSetSettings,
    ) -> Result<Self, DataError> {
        let unread = |source| DataError::Questions {
            name: spec.name.clone(),
            source: Box::new(source),
        };
        let file = std::slice::from_ref(&spec.file);
        unchanged(&spec.name, file, spec.hash.as_deref(), unread)?;
        let mut questions = read_questions(&spec.file).map_err(unread)?;
        // Files have their own order, often by difficulty or subject.
        questions.sort_by_cached_key(|q| *blake3::hash(q.question.as_bytes()).as_bytes());
        questions.truncate(spec.most);
        let ask = || match spec.style {
            QuestionStyle::Chat => {
                let chat = Chat::new(tokenizer, &rows.chat)?;
                ChoiceTask::chat(&questions, tokenizer, &chat)
            }
            QuestionStyle::Plain => {
                let first = tokenizer.special_tokens().bos;
                let first = first.filter(|_| tokenizer.adds_bos());
                ChoiceTask::plain(&questions, tokenizer, first)
            }
        };
        let task = ask().map_err(|source: ChoiceError| DataError::Choices {
            name: spec.name.clone(),
            source: Box::new(source),
        })?;
        Ok(Self {
            name: spec.name.clone(),
            when: spec.when,
            task,
        })
    }

    /// Asks a model all questions; `None` where its answers are none.
    ///
    /// # Errors
    /// When the device fails.
    pub fn ask(
        &self,
        compute: &mut Compute,
        model: &Weights,
    ) -> Result<Option<ChoiceScores>, ComputeError> {
        let requests = self.task.requests();
        let mut answers = vec![Vec::new(); requests.len()];
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|&i| requests[i].tokens.len());
        while let Some(&last) = order.last() {
            // The longest of what is left decides how wide the pass is.
            let seq_len = requests[last].tokens.len();
            let rows = (POSITIONS / seq_len).clamp(1, order.len());
            let pass = order.split_off(order.len() - rows);
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
            let found = compute.log_probs(model, &tokens, seq_len, &queries)?;
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

/// Whether files still have the hash they had, where that is known.
fn unchanged(
    name: &str,
    files: &[PathBuf],
    hash: Option<&str>,
    unread: impl FnOnce(SourceError) -> DataError,
) -> Result<(), DataError> {
    let Some(hash) = hash else { return Ok(()) };
    match hash_files(files).map_err(unread)? == hash {
        true => Ok(()),
        false => Err(DataError::Changed { name: name.into() }),
    }
}

/// What stands before a user's words, or what begins a text where there is no chat template.
fn markers(
    tokenizer: &Tokenizer,
    rows: &TokenSetSettings,
    bos: Option<u32>,
) -> Result<Vec<u32>, DataError> {
    const WORDS: &str = "\u{f5a1}";
    let user = [Message::new("user", WORDS)];
    let rendered = Chat::new(tokenizer, &rows.chat).and_then(|chat| chat.render(&user, false));
    match rendered.as_deref().map(|text| text.split_once(WORDS)) {
        Ok(Some((header, _))) => Ok(tokenizer.encode(header).map_err(Box::new)?),
        _ => Ok(bos.into_iter().collect()),
    }
}

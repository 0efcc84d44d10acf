//! Multiple choice: what to ask a model, and what its answers are worth.
//!
//! A [`ChoiceTask`] turns questions into [`ChoiceRequest`]s for log-probabilities; whoever has the model
//! answers them; the task turns the answers into accuracies. Two ways of asking:
//!
//! - **chat**, as the paper does: the question and its lettered choices are the user's turn, worded
//!   as Inspect's `multiple_choice` words them, and the assistant's answer is `ANSWER: X`. Where the
//!   answers differ in their last token alone, as they should, one pass tells them all apart.
//! - **plain**, as lm-evaluation-harness does: a context is followed by a space and a text, which alone is
//!   scored; the choice with the largest log-probability counts (`acc`), or with the largest log-probability
//!   per character (`acc_norm`). By the [`Form`] of a question the context is `Question: …\nAnswer:` and the
//!   text a choice; or the context is the text that the choices go on with (HellaSwag, OpenBookQA); or a choice
//!   stands in the context, in place of a blank, and the text is what follows the blank (WinoGrande).

use std::ops::Range;

use forgetlab_study::experiment::{ChatSettings, QuestionStyle};
use forgetlab_study::run::{ChoiceScores, Estimate};

use crate::data::{Chat, ChatError, Form, Message, Question, Tokenizer, TokenizerError, letter};

/// A request for log-probabilities of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoiceRequest {
    /// Tokens of the text.
    pub tokens: Vec<u32>,
    /// Log-probabilities that are wanted.
    pub wanted: Wanted,
}

/// Log-probabilities (natural) that a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The log-probability of each of these tokens to come next: as many figures.
    Next(Vec<u32>),
    /// The log-probability of these tokens of the text, each given all before it, added up: one
    /// figure. Never begins at 0.
    Span(Range<usize>),
}

/// Questions that cannot be asked, or answers that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template failed.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The tokenizer merges what is scored into what stands before it.
    #[error(
        "{place}: choice {letter} adds no token of its own to the question, so it cannot be scored"
    )]
    Merged {
        /// The question.
        place: crate::data::Place,
        /// The choice.
        letter: char,
    },
    /// A request that was answered with too many figures or too few, or with no number.
    #[error("request {request} of {of} was answered with {answer:?}")]
    Answer {
        /// Which, counted from 0.
        request: usize,
        /// Requests made.
        of: usize,
        /// What came back.
        answer: Vec<f64>,
    },
}

/// Questions, ready to be asked.
#[derive(Clone, Debug)]
pub struct ChoiceTask {
    requests: Vec<ChoiceRequest>,
    questions: Vec<Asked>,
    plain: bool,
}

/// A question that was asked.
#[derive(Clone, Debug)]
struct Asked {
    answer: usize,
    /// Characters of what is scored, for each choice.
    lengths: Vec<usize>,
    /// Its requests: one for all choices, or one each.
    requests: Range<usize>,
}

/// Questions with the answers of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// Accuracies.
    pub scores: ChoiceScores,
    /// Whether each question is answered rightly; by the length-normalised score where they are plain.
    pub right: Vec<bool>,
}

impl ChoiceTask {
    /// Asks in a conversation, for `ANSWER: X`.
    ///
    /// # Errors
    /// Where the chat template or the tokenizer fails.
    pub fn chat(
        questions: &[Question],
        tokenizer: &Tokenizer,
        chat: &Chat,
    ) -> Result<Self, ChoiceError> {
        Self::ask(questions, false, |question| {
            let prompt = chat.render(&[Message::new("user", chat_prompt(question))], true)?;
            let mut answers = Vec::new();
            for choice in 0..question.choices.len() {
                let text = format!("{prompt}ANSWER: {}", letter(choice));
                answers.push(tokenizer.encode_with_spans(&text)?);
            }
            let ids: Vec<Vec<u32>> = answers
                .iter()
                .map(|answer| answer.iter().map(|(id, _)| *id).collect())
                .collect();
            if let Some((tokens, candidates)) = last_differs(&ids) {
                let wanted = Wanted::Next(candidates);
                return Ok(vec![ChoiceRequest { tokens, wanted }]);
            }
            let spans = answers.iter().zip(ids).map(|(answer, tokens)| {
                let start = answer.partition_point(|(_, span)| span.end <= prompt.len());
                let wanted = Wanted::Span(start.max(1)..tokens.len());
                ChoiceRequest { tokens, wanted }
            });
            Ok(spans.collect())
        })
    }

    /// Asks as a run does: in a conversation, or in plain text that begins with BOS where the tokenizer adds it.
    ///
    /// # Errors
    /// Where the chat template or the tokenizer fails.
    pub fn of(
        questions: &[Question],
        style: QuestionStyle,
        tokenizer: &Tokenizer,
        settings: &ChatSettings,
    ) -> Result<Self, ChoiceError> {
        match style {
            QuestionStyle::Chat => {
                let chat = Chat::new(tokenizer, settings)?;
                Self::chat(questions, tokenizer, &chat)
            }
            QuestionStyle::Plain => {
                let first = tokenizer.special_tokens().bos;
                let first = first.filter(|_| tokenizer.adds_bos());
                let first = first.map(|bos| tokenizer.known(bos)).transpose()?;
                Self::plain(questions, tokenizer, first)
            }
        }
    }

    /// Asks in plain text, which begins with the token `first` where there is one.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn plain(
        questions: &[Question],
        tokenizer: &Tokenizer,
        first: Option<u32>,
    ) -> Result<Self, ChoiceError> {
        Self::ask(questions, true, |question| {
            let mut requests = Vec::new();
            for choice in 0..question.choices.len() {
                let (context, text) = plain_prompt(question, choice);
                // Space at the end of the context is scored with what follows it.
                let start = tokenizer.encode(context.trim_end())?.len();
                let start = start + usize::from(first.is_some());
                let text = tokenizer.encode(&format!("{context} {text}"))?;
                let tokens: Vec<u32> = first.into_iter().chain(text).collect();
                if tokens.len() <= start {
                    return Err(ChoiceError::Merged {
                        place: question.place.clone(),
                        letter: letter(choice),
                    });
                }
                let wanted = Wanted::Span(start..tokens.len());
                requests.push(ChoiceRequest { tokens, wanted });
            }
            Ok(requests)
        })
    }

    fn ask(
        questions: &[Question],
        plain: bool,
        mut requests_of: impl FnMut(&Question) -> Result<Vec<ChoiceRequest>, ChoiceError>,
    ) -> Result<Self, ChoiceError> {
        let mut task = Self {
            requests: Vec::new(),
            questions: Vec::new(),
            plain,
        };
        for question in questions {
            let from = task.requests.len();
            task.requests.extend(requests_of(question)?);
            task.questions.push(Asked {
                answer: question.answer,
                lengths: (0..question.choices.len())
                    .map(|choice| plain_prompt(question, choice).1.chars().count())
                    .collect(),
                requests: from..task.requests.len(),
            });
        }
        Ok(task)
    }

    /// Requests to put to the model.
    pub fn requests(&self) -> &[ChoiceRequest] {
        &self.requests
    }

    /// Accuracies and which questions are answered rightly, from the answers to [`ChoiceTask::requests`] in their
    /// order.
    ///
    /// # Errors
    /// [`ChoiceError::Answer`] where one has another number of figures than was asked for, or NaN.
    pub fn score(&self, answers: &[Vec<f64>]) -> Result<Answered, ChoiceError> {
        for (i, request) in self.requests.iter().enumerate() {
            let answer = answers.get(i).map_or(&[][..], Vec::as_slice);
            let wanted = match &request.wanted {
                Wanted::Next(candidates) => candidates.len(),
                Wanted::Span(_) => 1,
            };
            if answer.len() != wanted || answer.iter().any(|p| p.is_nan()) {
                return Err(ChoiceError::Answer {
                    request: i,
                    of: self.requests.len(),
                    answer: answer.to_vec(),
                });
            }
        }
        let (mut right, mut right_normalised, mut chance) = (Vec::new(), Vec::new(), 0.0);
        for question in &self.questions {
            let of_choices: Vec<f64> = answers[question.requests.clone()].concat();
            let lengths = question.lengths.iter();
            let per_character: Vec<f64> = of_choices
                .iter()
                .zip(lengths)
                .map(|(p, &n)| p / n as f64)
                .collect();
            right.push(largest(&of_choices) == question.answer);
            right_normalised.push(largest(&per_character) == question.answer);
            chance += 1.0 / question.lengths.len() as f64;
        }
        let scores = ChoiceScores {
            questions: self.questions.len(),
            accuracy: Estimate::share(&right),
            accuracy_normalised: self.plain.then(|| Estimate::share(&right_normalised)),
            chance: chance / self.questions.len() as f64,
        };
        let right = if self.plain { right_normalised } else { right };
        Ok(Answered { scores, right })
    }
}

/// The user's turn of a chat question; a blank is left in its sentence.
fn chat_prompt(question: &Question) -> String {
    let letters: Vec<String> = (0..question.choices.len())
        .map(|i| letter(i).into())
        .collect();
    let choices = question.choices.iter().zip(&letters);
    let choices: Vec<String> = choices
        .map(|(text, letter)| format!("{letter}) {text}"))
        .collect();
    let passage = match &question.form {
        Form::Asked {
            passage: Some(passage),
        } => format!("{passage}\n\n"),
        _ => String::new(),
    };
    format!(
        "Answer the following multiple choice question. The entire content of your response should \
         be of the following format: 'ANSWER: $LETTER' (without quotes) where LETTER is one of \
         {}.\n\n{passage}{}\n\n{}",
        letters.join(","),
        question.question,
        choices.join("\n")
    )
}

/// The context of a choice of a plain question, and the text after it, which is scored.
fn plain_prompt(question: &Question, choice: usize) -> (String, &str) {
    let (asked, choice) = (&question.question, &*question.choices[choice]);
    match &question.form {
        Form::Asked { passage: None } => (format!("Question: {asked}\nAnswer:"), choice),
        Form::Asked {
            passage: Some(passage),
        } => (format!("{passage}\nQuestion: {asked}\nAnswer:"), choice),
        Form::Continued => (asked.clone(), choice),
        Form::Filled => {
            let (before, after) = asked.split_once('_').unwrap_or((asked, ""));
            (format!("{before}{choice}"), after.trim())
        }
    }
}

/// What the rows share, and their last tokens, where they differ in these alone.
fn last_differs(rows: &[Vec<u32>]) -> Option<(Vec<u32>, Vec<u32>)> {
    let (_, shared) = rows.first()?.split_last()?;
    let last = rows.iter().map(|row| {
        let (last, before) = row.split_last()?;
        (before == shared && !before.is_empty()).then_some(*last)
    });
    let last: Vec<u32> = last.collect::<Option<_>>()?;
    let differ = (1..last.len()).all(|i| !last[..i].contains(&last[i]));
    differ.then(|| (shared.to_vec(), last))
}

/// Position of the largest, the first of equals.
fn largest(of: &[f64]) -> usize {
    (1..of.len()).fold(0, |best, i| if of[i] > of[best] { i } else { best })
}

#[cfg(test)]
mod tests;

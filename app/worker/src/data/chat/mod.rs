//! Conversations as tokens, and which of the tokens are the assistant's.
//!
//! A conversation becomes text by the model's chat template, as in [`Template`], and the text is
//! encoded whole, as the model saw it in its own training. Only what the assistant wrote, and the
//! token that ends its turn, is a target. Where that stands in the text is found by rendering the
//! conversation once more with a mark in the place of what the assistant wrote: what stands before
//! the mark and after it is the same in both, so the rest is the assistant's, however the template
//! trims. A token that holds bytes of both (a template's newline merged with the answer's first)
//! counts as the assistant's, as in transformers' own mask.

mod template;
#[cfg(test)]
mod tests;

use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use template::Template;

use forgetlab_study::experiment::ChatSettings;

use super::{Tokenizer, TokenizerError};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or another role that the template knows.
    pub role: String,
    /// Text of the message.
    pub content: String,
    /// Other fields of the message, which templates may read.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Message {
    /// A message of a role.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            more: serde_json::Map::new(),
        }
    }
}

/// Tokens of a row and which of them are targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Whether a token is a target, i.e. to be predicted from those before it.
    pub mask: Vec<bool>,
}

/// A conversation that cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// A model that was not made for conversations.
    #[error(
        "the tokenizer of {name} has no chat template; choose an instruction-tuned model, or data \
         that is plain text"
    )]
    NoTemplate {
        /// Where the tokenizer came from.
        name: String,
    },
    /// The template is no Jinja, or uses something in a wrong way.
    #[error("the chat template fails: {problem}")]
    Template {
        /// What the template engine said.
        problem: String,
    },
    /// The template refuses the conversation.
    #[error("the chat template refuses this conversation: {text}")]
    Raised {
        /// What the template said.
        text: String,
    },
    /// Nothing to learn.
    #[error(
        "no assistant turn; every conversation needs a message with role `assistant`, whose text \
         is what is learned"
    )]
    NoAssistant,
    /// What the assistant wrote is not in the rendered text, or not in one place.
    #[error(
        "message {turn}: the chat template does not write this turn of the assistant's in one \
         piece, so its tokens cannot be told from the others"
    )]
    Scattered {
        /// Which message, counted from 1.
        turn: usize,
    },
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A tokenizer and its chat template.
pub struct Chat<'a> {
    tokenizer: &'a Tokenizer,
    template: Template,
}

/// Stands for what the assistant wrote: private-use characters that no text or template holds.
const MARK: &str = "\u{f5a1}\u{f5b2}\u{f5c3}";

impl<'a> Chat<'a> {
    /// The chat template of a tokenizer.
    ///
    /// # Errors
    /// [`ChatError::NoTemplate`], or [`ChatError::Template`] where it is no Jinja.
    pub fn new(tokenizer: &'a Tokenizer, settings: &ChatSettings) -> Result<Self, ChatError> {
        let source = tokenizer.template().ok_or_else(|| ChatError::NoTemplate {
            name: tokenizer.name().into(),
        })?;
        let tokens = tokenizer.special_tokens();
        let special = [
            ("bos_token", tokens.bos),
            ("eos_token", tokens.eos),
            ("pad_token", tokens.pad),
        ];
        let special = special
            .into_iter()
            .filter_map(|(name, id)| Some((name, tokenizer.token_name(id?)?)))
            .collect();
        Ok(Self {
            tokenizer,
            template: Template::new(source, special, settings.date)?,
        })
    }

    /// The text of a conversation, with the beginning of the assistant's answer if `generation`.
    ///
    /// # Errors
    /// Where the template fails or refuses the conversation.
    pub fn render(&self, messages: &[Message], generation: bool) -> Result<String, ChatError> {
        self.template.render(messages, generation)
    }

    /// Tokens that ask the assistant for its answer.
    ///
    /// # Errors
    /// Where the template or the tokenizer fails.
    pub fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, ChatError> {
        Ok(self.tokenizer.encode(&self.render(messages, true)?)?)
    }

    /// Tokens of a conversation; what the assistant wrote and the end of its turns are targets.
    ///
    /// # Errors
    /// [`ChatError`] where there is no assistant turn, or the template refuses or scatters it.
    pub fn encode(&self, messages: &[Message]) -> Result<Example, ChatError> {
        let text = self.render(messages, false)?;
        let turns = self.assistant_turns(messages, &text)?;
        let mut example = Example::default();
        for (id, span) in self.tokenizer.encode_with_spans(&text)? {
            example.tokens.push(id);
            let target = |turn: &Range<usize>| span.start < turn.end && turn.start < span.end;
            example.mask.push(turns.iter().any(target));
        }
        Ok(example)
    }

    /// Bytes of a rendered conversation that the assistant wrote, ends of turns included.
    fn assistant_turns(
        &self,
        messages: &[Message],
        text: &str,
    ) -> Result<Vec<Range<usize>>, ChatError> {
        let mut turns = Vec::new();
        let mut marked = messages.to_vec();
        for (i, message) in messages.iter().enumerate() {
            if message.role != "assistant" {
                continue;
            }
            marked[i].content = MARK.into();
            let around = self.render(&marked, false)?;
            let cut = self.render(&marked[..=i], false)?;
            let turn = turn(text, &around).ok_or(ChatError::Scattered { turn: i + 1 })?;
            // What ends the turn is written even where the conversation ends with it; a special
            // token that is not begins the next turn.
            let tail = cut.split_once(MARK).map_or("", |(_, tail)| tail);
            let end = self.end_of_turn(tail);
            let ended = text[turn.end..].starts_with(&tail[..end]);
            turns.push(turn.start..turn.end + if ended { end } else { 0 });
            marked[i].content.clone_from(&message.content);
        }
        match turns.is_empty() {
            true => Err(ChatError::NoAssistant),
            false => Ok(turns),
        }
    }

    /// Length of the special token that `tail` begins with, and of any space before it.
    fn end_of_turn(&self, tail: &str) -> usize {
        let trimmed = tail.trim_start();
        match self.tokenizer.special_at(trimmed) {
            Some(n) => tail.len() - trimmed.len() + n,
            None => 0,
        }
    }
}

/// What `text` has in the place of the mark in `around`.
fn turn(text: &str, around: &str) -> Option<Range<usize>> {
    let (before, after) = around.split_once(MARK)?;
    let whole = text.starts_with(before)
        && text.ends_with(after)
        && before.len() + after.len() <= text.len()
        && !after.contains(MARK);
    whole.then(|| before.len()..text.len() - after.len())
}

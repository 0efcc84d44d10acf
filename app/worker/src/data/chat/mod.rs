//! Conversations as tokens, and which of the tokens are the assistant's.
//!
//! A conversation becomes text by the model's chat template, as in [`Template`], and the text is
//! encoded whole, as the model saw it in its own training. Only what the assistant wrote (text, calls of tools,
//! reasoning), and the token that ends its turn, is a target. Where the template says by `{% generation %}` what
//! that is, it is that; else it is found as in [`turns`]. A token that holds bytes of both (a template's newline
//! merged with the answer's first) counts as the assistant's, as in transformers' own mask.

mod conversation;
mod given;
mod jinja;
mod labels;
mod marks;
mod template;
#[cfg(test)]
mod tests;
mod turns;
mod unused;

use std::ops::Range;

pub use conversation::{Conversation, Message};
pub(super) use given::{given, pairs};
pub(super) use jinja::limits::on_deep_stack;
pub(super) use labels::says_nothing;
pub use template::Template;

use forgetlab_study::experiment::ChatSettings;

use super::{Tokenizer, TokenizerError};

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
    /// The machine gives no thread to run a template in.
    #[error("cannot start a thread for the chat template: {0}")]
    Stack(#[source] std::io::Error),
    /// Nothing to learn.
    #[error(
        "no assistant turn; every conversation needs a message with role `assistant`, whose text \
         is what is learned (the roles here are {})", roles.join(", ")
    )]
    NoAssistant {
        /// Roles of the messages.
        roles: Vec<String>,
    },
    /// Nothing to learn, by the word of the record or the template.
    #[error("nothing of this conversation is learned: {by}")]
    NothingLearned {
        /// Who says so.
        by: &'static str,
    },
    /// What the assistant wrote is not in the rendered text, or not in one place.
    #[error(
        "message {turn}: the chat template does not write this turn of the assistant's in one \
         piece, so its tokens cannot be told from the others"
    )]
    Scattered {
        /// Which message, counted from 1.
        turn: usize,
    },
    /// `{% generation %}` tags whose text the template changes afterwards.
    #[error(
        "the chat template changes what its {{% generation %}} tags enclose, so the assistant's tokens \
         cannot be told from the others; leave the tags away"
    )]
    Generation,
    /// A field that the template does not read.
    #[error("{what} is not used: the chat template of this model does not read it; {advice}")]
    Unused {
        /// The field and where it stands.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// A part of a content that is no text.
    #[error("message {message}: a part of type `{kind}` is not read; only text is learned here")]
    Part {
        /// Which message, counted from 1.
        message: usize,
        /// What the part says it is.
        kind: String,
    },
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A tokenizer and its chat template.
pub struct Chat<'a> {
    tokenizer: &'a Tokenizer,
    template: Template,
    /// The template for conversations with tools, where it is another.
    with_tools: Option<Template>,
}

impl<'a> Chat<'a> {
    /// The chat template of a tokenizer.
    ///
    /// # Errors
    /// [`ChatError::NoTemplate`], or [`ChatError::Template`] where it is no Jinja.
    pub fn new(tokenizer: &'a Tokenizer, settings: &ChatSettings) -> Result<Self, ChatError> {
        let source = tokenizer.template().ok_or_else(|| ChatError::NoTemplate {
            name: tokenizer.name().into(),
        })?;
        let special = tokenizer.named_tokens();
        let compiled = |source| Template::new(source, special.clone(), settings.date);
        Ok(Self {
            tokenizer,
            template: compiled(source)?,
            with_tools: tokenizer.tool_template().map(compiled).transpose()?,
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

    /// The text of a whole conversation.
    ///
    /// # Errors
    /// Where the template fails or refuses the conversation.
    pub fn text(&self, conversation: &Conversation) -> Result<String, ChatError> {
        let template = self.template_for(conversation);
        let conversation = unused::flattened(template, conversation)?;
        template.text(&conversation, false)
    }

    /// Tokens of a conversation; what the assistant wrote and the end of its turns are targets.
    ///
    /// # Errors
    /// [`ChatError`] where there is no assistant turn, or the template refuses or scatters it, or does not read a
    /// field.
    pub fn encode(&self, conversation: &Conversation) -> Result<Example, ChatError> {
        on_deep_stack(|| self.encode_here(conversation)).map_err(ChatError::Stack)?
    }

    fn encode_here(&self, conversation: &Conversation) -> Result<Example, ChatError> {
        let template = self.template_for(conversation);
        let conversation = unused::flattened(template, conversation)?;
        let text = template.text(&conversation, false)?;
        unused::check(template, &conversation, &text)?;
        let learned = self.learned(template, &conversation, &text)?;
        let mut example = Example::default();
        for (id, span) in self.tokenizer.encode_with_spans(&text)? {
            example.tokens.push(id);
            let overlaps = |turn: &Range<usize>| span.start < turn.end && turn.start < span.end;
            example.mask.push(learned.iter().any(overlaps));
        }
        Ok(example)
    }

    fn template_for(&self, conversation: &Conversation) -> &Template {
        match &self.with_tools {
            Some(template) if conversation.tools.is_some() => template,
            _ => &self.template,
        }
    }

    /// Bytes of a rendered conversation that are learned.
    fn learned(
        &self,
        template: &Template,
        conversation: &Conversation,
        text: &str,
    ) -> Result<Vec<Range<usize>>, ChatError> {
        let messages = &conversation.messages;
        let turns = turns::Turns::new(self.tokenizer, template, conversation, text);
        if template.is_tagged() {
            let tagged = template.generations(conversation, text)?;
            let left_out = turns.of(|message| !message.learned)?;
            let learned = without(tagged, &left_out);
            return match learned.iter().all(Range::is_empty) {
                true => Err(ChatError::NothingLearned {
                    by: "the template's {% generation %} tags enclose nothing of it that the record lets learn",
                }),
                false => Ok(learned),
            };
        }
        if !messages.iter().any(|message| message.role == "assistant") {
            let roles = messages.iter().map(|message| format!("`{}`", message.role));
            return Err(ChatError::NoAssistant {
                roles: roles.collect(),
            });
        }
        let learned = turns.of(|message| message.learned)?;
        match learned.is_empty() {
            true => Err(ChatError::NothingLearned {
                by: "the record says of every turn of the assistant's that it is not (or it stands in `prompt`)",
            }),
            false => Ok(learned),
        }
    }
}

/// Ranges less what others hold; both are in order.
fn without(ranges: Vec<Range<usize>>, others: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut left = Vec::new();
    for mut range in ranges {
        for other in others {
            if other.start < range.end && range.start < other.end {
                left.push(range.start..other.start.max(range.start));
                range.start = other.end.min(range.end);
            }
        }
        left.push(range);
    }
    left.retain(|range| !range.is_empty());
    left
}

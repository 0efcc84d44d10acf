//! Chat templates, rendered as transformers renders them.
//!
//! What transformers' environment gives to a template is in [`jinja`]. `strftime_now` tells a date that is a
//! setting, so that a dataset does not change overnight. Where the template marks by `{% generation %}` what the
//! assistant writes, [`Template::generations`] finds that.

use std::collections::HashSet;
use std::ops::Range;

use chrono::NaiveDate;
use minijinja::{Environment, Error, ErrorKind, Value};

use super::jinja::{self, CLOSE, GENERATION, OPEN, Raised, limits};
use super::{ChatError, Conversation, Message};

/// Name of the one template of an environment.
const NAME: &str = "chat_template";

/// A compiled chat template.
pub struct Template {
    environment: Environment<'static>,
    /// The same, which marks what `{% generation %}` encloses, where it has such tags.
    marked: Option<Environment<'static>>,
    special: Vec<(String, String)>,
    /// Variables that it reads.
    variables: HashSet<String>,
    source: String,
}

impl Template {
    /// Compiles a template. `special` names the tokens it may use, e.g. `bos_token`.
    ///
    /// # Errors
    /// [`ChatError::Template`] where it is no Jinja, or larger than any template needs to be.
    pub fn new(
        source: &str,
        special: Vec<(String, String)>,
        date: NaiveDate,
    ) -> Result<Self, ChatError> {
        if source.len() > limits::SOURCE {
            let (len, most) = (source.len(), limits::SOURCE);
            return Err(ChatError::Template {
                problem: format!("it has {len} bytes, of which at most {most} are read"),
            });
        }
        let (code, most) = (jinja::longest_code(source), limits::CODE);
        if code > most {
            return Err(ChatError::Template {
                problem: format!(
                    "it has an expression of {code} bytes, of which at most {most} are read"
                ),
            });
        }
        let (source, tagged) = jinja::prepared(source);
        limits::on_deep_stack(|| {
            let compiled = || -> Result<Environment<'static>, Error> {
                let mut environment = jinja::environment(date)?;
                environment.add_template_owned(NAME, source.clone())?;
                Ok(environment)
            };
            let environment = compiled().map_err(told)?;
            let mut marked = tagged.then(compiled).transpose().map_err(told)?;
            if let Some(marked) = &mut marked {
                marked.add_filter(GENERATION, |body: &str| jinja::marked(body));
            }
            let template = environment.get_template(NAME).map_err(told)?;
            let variables = template.undeclared_variables(false);
            Ok(Self {
                environment,
                marked,
                special,
                variables,
                source,
            })
        })
        .map_err(ChatError::Stack)?
    }

    /// The text of a conversation, with the beginning of the assistant's answer if asked for.
    ///
    /// # Errors
    /// [`ChatError::Raised`] where the template refuses the conversation.
    pub fn render(&self, messages: &[Message], generation: bool) -> Result<String, ChatError> {
        self.text(&messages.to_vec().into(), generation)
    }

    /// The text of a conversation with tools and documents.
    pub(super) fn text(
        &self,
        conversation: &Conversation,
        generation: bool,
    ) -> Result<String, ChatError> {
        let rendered = || run(&self.environment, &self.special, conversation, generation);
        limits::on_deep_stack(rendered).map_err(ChatError::Stack)?
    }

    /// Whether it says by `{% generation %}` what is learned.
    pub(super) fn is_tagged(&self) -> bool {
        self.marked.is_some()
    }

    /// Whether it reads a variable.
    pub(super) fn reads(&self, variable: &str) -> bool {
        self.variables.contains(variable)
    }

    /// Whether a name stands anywhere in it.
    pub(super) fn mentions(&self, name: &str) -> bool {
        self.source.contains(name)
    }

    /// Bytes of `text`, which is the conversation rendered, that `{% generation %}` tags enclose.
    pub(super) fn generations(
        &self,
        conversation: &Conversation,
        text: &str,
    ) -> Result<Vec<Range<usize>>, ChatError> {
        let Some(marked) = &self.marked else {
            return Ok(Vec::new());
        };
        let marked = run(marked, &self.special, conversation, false)?;
        let (mut plain, mut open, mut found) = (String::new(), Vec::new(), Vec::new());
        for c in marked.chars() {
            match c {
                OPEN => open.push(plain.len()),
                CLOSE => found.extend(open.pop().map(|start| start..plain.len())),
                c => plain.push(c),
            }
        }
        match plain == text && open.is_empty() {
            true => Ok(found),
            false => Err(ChatError::Generation),
        }
    }
}

fn run(
    environment: &Environment,
    special: &[(String, String)],
    conversation: &Conversation,
    generation: bool,
) -> Result<String, ChatError> {
    let Conversation {
        messages,
        tools,
        documents,
        variables,
    } = conversation;
    let special = special
        .iter()
        .map(|(name, text)| (name.as_str(), Value::from(text.as_str())));
    let variables = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()));
    let messages: Vec<Value> = messages.iter().map(Message::value).collect();
    let none = || Value::from(());
    let given = [
        ("messages", Value::from(messages)),
        ("tools", tools.clone().unwrap_or_else(none)),
        ("documents", documents.clone().unwrap_or_else(none)),
        ("add_generation_prompt", Value::from(generation)),
    ];
    let values = Value::from_pairs(special.chain(variables).chain(given));
    let template = environment.get_template(NAME).map_err(told)?;
    template.render(values).map_err(told)
}

fn told(error: Error) -> ChatError {
    let raised = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<Raised>());
    match (raised, error.kind()) {
        (Some(Raised(text)), _) => ChatError::Raised { text: text.clone() },
        (None, ErrorKind::OutOfFuel) => ChatError::Template {
            problem: format!(
                "it does more work on this conversation, or makes more text, than any needs to ({error})"
            ),
        },
        (None, _) => ChatError::Template {
            problem: error.to_string(),
        },
    }
}

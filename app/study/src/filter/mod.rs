//! The language by which runs and arms are filtered.
//!
//! ```text
//! toy none                    both texts stand in a name: of the run, its experiment, its preset, a tag or an arm
//! "self-generated:kl"         a text with spaces, brackets or signs stands in quotes
//! tag:paper -status:failed    a text of one field; `-` and NOT exclude
//! preset=cpu name~^2026       the whole text; a regular expression
//! forgot>10% verdict:FORGETS  a figure (10% is 0.1, 3k is 3000)
//! cfg.optimizer.lr<=1e-3      a setting of the configuration
//! (a OR b) AND NOT c          AND may be left out and binds closer than OR
//! ```
//!
//! Texts are compared without regard to case. Where a record has several values of a field (a run has those of all of
//! its arms), one that fits is enough, for `!=` too: `-tag:x` is what has no such tag. What is not known never fits,
//! neither `forgot>0` nor `forgot!=0`.
//!
//! In reading order: `fields`, `test` (one condition), `config` (settings by their paths), `parse`, `complete`.

mod complete;
mod config;
mod fields;
mod parse;
mod test;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use fields::Field;
use test::{NumberTest, TextTest};

pub use complete::complete;
pub use config::Config;
pub use fields::{FIELDS, FieldKind, field_names};

/// Something that a [`Filter`] is asked about: a run, or an arm of one.
pub trait Record {
    /// Names in which a bare word is looked for.
    fn words(&self) -> Vec<Cow<'_, str>>;

    /// Its values of a text field of [`FIELDS`]; none where it has none.
    fn texts(&self, field: &str) -> Vec<Cow<'_, str>>;

    /// Its values of a figure of [`FIELDS`]; none where that is not known.
    fn numbers(&self, field: &str) -> Vec<f64>;

    /// Its configuration; those of all of its runs, where it is several.
    fn configs(&self) -> Vec<Config<'_>>;
}

/// A filter, ready to be asked. The default lets everything pass.
#[derive(Clone, Debug, Default)]
pub struct Filter(Expression);

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {}: {words}", position + 1)]
pub struct FilterError {
    /// Characters before the fault.
    pub position: usize,
    /// What is wrong, and what would be right.
    pub words: String,
}

/// A filter's parts.
#[derive(Clone, Debug)]
enum Expression {
    /// Every one holds; nothing at all is everything.
    All(Vec<Expression>),
    /// At least one holds.
    Any(Vec<Expression>),
    Not(Box<Expression>),
    /// Stands in a name.
    Word(TextTest),
    Text(Field, TextTest),
    Number(Field, NumberTest),
    /// A setting by its path.
    Setting(Vec<String>, config::Test),
}

impl Default for Expression {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

impl Filter {
    /// Reads a filter; an empty text lets everything pass.
    ///
    /// # Errors
    /// Says where the text is none, and what is wrong.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        parse::parse(text).map(Self)
    }

    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, Expression::All(parts) if parts.is_empty())
    }

    /// Whether a record passes.
    pub fn matches(&self, record: &impl Record) -> bool {
        holds(&self.0, record)
    }

    /// Whether it asks for the field, however deep.
    pub fn asks_for(&self, field: &str) -> bool {
        asks_for(&self.0, field)
    }
}

fn holds(expression: &Expression, record: &impl Record) -> bool {
    match expression {
        Expression::All(parts) => parts.iter().all(|part| holds(part, record)),
        Expression::Any(parts) => parts.iter().any(|part| holds(part, record)),
        Expression::Not(part) => !holds(part, record),
        Expression::Word(test) => record.words().iter().any(|word| test.holds(word)),
        Expression::Text(field, test) => {
            let mut texts = record.texts(field.name).into_iter();
            texts.any(|text| test.holds(&text))
        }
        Expression::Number(field, test) => {
            let mut numbers = record.numbers(field.name).into_iter();
            numbers.any(|number| test.holds(number))
        }
        Expression::Setting(path, test) => {
            let mut configs = record.configs().into_iter();
            configs.any(|config| config.any(path, |value| test.holds(value)))
        }
    }
}

fn asks_for(expression: &Expression, name: &str) -> bool {
    match expression {
        Expression::All(parts) | Expression::Any(parts) => {
            parts.iter().any(|part| asks_for(part, name))
        }
        Expression::Not(part) => asks_for(part, name),
        Expression::Text(field, _) | Expression::Number(field, _) => field.name == name,
        Expression::Word(_) | Expression::Setting(..) => false,
    }
}

//! Errors in the description of a run.

use std::ops::Range;
use std::path::PathBuf;

/// Why a requested run is invalid. Each message names the offending value and what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// An unknown name.
    #[error("unknown {what} `{name}`{}", hint(near.as_deref(), known))]
    Unknown {
        /// What kind of thing was named, e.g. `experiment`.
        what: &'static str,
        /// The name as given.
        name: String,
        /// The most similar known name, where one is similar enough to suggest.
        near: Option<String>,
        /// Every known name.
        known: Vec<String>,
    },
    /// A TOML file that does not parse or has unknown keys.
    #[error("{}, line {line}, column {column}: {message}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A malformed or inconsistent arm.
    #[error("arm `{arm}`: {problem}")]
    Arm {
        /// The arm as given.
        arm: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
    /// A `--set` that cannot be applied.
    #[error("--set {key}={value}: {problem}")]
    Set {
        /// The key as given.
        key: String,
        /// The value as given.
        value: String,
        /// What is wrong.
        problem: String,
    },
    /// An axis of a sweep that is invalid.
    #[error("axis {key}: {problem}")]
    Axis {
        /// Key of its setting.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// A value that is invalid, alone or with others.
    #[error("{key}: {problem}")]
    Value {
        /// The key, as `--set` takes it.
        key: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
}

impl SpecError {
    pub(super) fn unknown<'a>(
        what: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let known: Vec<String> = known.into_iter().map(str::to_owned).collect();
        let near = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
        Self::Unknown {
            what,
            name: name.to_owned(),
            near,
            known,
        }
    }

    pub(super) fn value(key: &str, problem: impl Into<String>) -> Self {
        Self::Value {
            key: key.to_owned(),
            problem: problem.into(),
        }
    }

    pub(super) fn axis(key: &str, problem: impl Into<String>) -> Self {
        Self::Axis {
            key: key.to_owned(),
            problem: problem.into(),
        }
    }

    pub(super) fn toml(path: PathBuf, text: &str, error: &toml::de::Error) -> Self {
        let (line, column) = position(text, error.span());
        Self::Toml {
            path,
            line,
            column,
            message: error.message().trim_end().to_owned(),
        }
    }
}

/// The known name most similar to a misspelt one, if one is similar enough to suggest.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&name, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| {
            let length = candidate.chars().count().max(3);
            *distance <= length / 3
                || candidate.starts_with(&name)
                || (length > 3 && name.starts_with(candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Line and column, from 1, of the start of a span of `text`; (1, 1) without a span.
pub(crate) fn position(text: &str, span: Option<Range<usize>>) -> (usize, usize) {
    let at = span.map_or(0, |span| span.start).min(text.len());
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

fn hint(near: Option<&str>, known: &[String]) -> String {
    const FEW: usize = 8;
    let few = known.len() <= FEW;
    let known = known.join(", ");
    match near {
        Some(near) if !few => format!("; did you mean `{near}`?"),
        Some(near) => format!("; did you mean `{near}`? (there are: {known})"),
        None => format!("; there are: {known}"),
    }
}

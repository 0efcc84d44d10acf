//! The name of an arm: `STRATEGY[:OBJECTIVE[:COEFF]][+KEY=VALUE]…`, read and written.
//!
//! A key is a setting of the strategy or of the finetuning phases ([`super::PHASE_SETTINGS`]); its value is TOML, a
//! bare word a string. `+`, `,` and `=` inside quotes or brackets are part of a value. Numbers are written without
//! `+`. Every name of an arm, on screen and in files, is written by [`ArmSpec::name`].

use toml::{Table, Value};

use super::settings::of_one_phase;
use super::{ArmSpec, Objective, PHASE_SETTINGS, SpecError};

const SHAPE: &str =
    "write STRATEGY[:OBJECTIVE[:COEFF]][+KEY=VALUE], e.g. self-generated:kl:10+lr=1e-3";

impl ArmSpec {
    /// Parses `STRATEGY[:OBJECTIVE[:COEFF]][+KEY=VALUE]…`. The objective defaults to `kl` (to none for the
    /// strategy `none`), the coefficient to `default_coeff`; the share of `replace` must be given.
    pub fn parse(text: &str, default_coeff: f64) -> Result<Self, SpecError> {
        Self::read(text.trim(), default_coeff).map_err(|problem| SpecError::Arm {
            arm: text.to_owned(),
            problem,
        })
    }

    fn read(text: &str, default_coeff: f64) -> Result<Self, String> {
        let mut pieces = split_outside_quotes(text, '+').into_iter();
        let mut spec = Self::head(pieces.next().unwrap_or_default(), default_coeff)?;
        for piece in pieces {
            let Some((key, value)) = piece.split_once('=') else {
                return Err(match piece.parse::<u32>() {
                    Ok(_) => "numbers are written without `+`, e.g. 1e3".to_owned(),
                    Err(_) => format!("`+{piece}` sets nothing: write +KEY=VALUE, e.g. +lr=1e-3"),
                });
            };
            spec.set(key.trim(), parse_value(value.trim())?)?;
        }
        spec.check()?;
        Ok(spec)
    }

    /// `STRATEGY[:OBJECTIVE[:COEFF]]`.
    fn head(text: &str, default_coeff: f64) -> Result<Self, String> {
        let mut parts = text.split(':').map(str::trim);
        let strategy = parts.next().unwrap_or_default();
        if strategy.is_empty() || strategy.contains(|c: char| c.is_whitespace() || c == '=') {
            return Err(SHAPE.into());
        }
        let objective = match parts.next() {
            Some(name) => Some(name.parse::<Objective>().map_err(|e| e.to_string())?),
            None if strategy == "none" => None,
            None => Some(Objective::Kl),
        };
        let coeff = parts.next().map(|number| {
            number.parse::<f64>().map_err(|_| {
                format!("coefficient `{number}` is not a number, e.g. {strategy}:kl:10")
            })
        });
        let coeff = coeff.transpose()?;
        if let Some(rest) = parts.next() {
            return Err(format!("`{rest}` is one part too many: {SHAPE}"));
        }
        let coeff = match objective {
            None => None,
            Some(Objective::Replace) if coeff.is_none() => {
                return Err(format!(
                    "replace needs the share of rows to replace, 0 to 1, e.g. {strategy}:replace:0.1"
                ));
            }
            Some(_) => Some(coeff.unwrap_or(default_coeff)),
        };
        Ok(Self {
            strategy: strategy.to_owned(),
            objective,
            coeff,
            ..Self::plain()
        })
    }

    /// Gives the arm a setting of its own: of the finetuning phases where the key is one of theirs, in full or short,
    /// else of its strategy.
    ///
    /// # Errors
    /// In words, where the key is given twice.
    pub(in super::super) fn set(&mut self, key: &str, value: Value) -> Result<(), String> {
        if key.is_empty() {
            return Err(SHAPE.into());
        }
        let short = PHASE_SETTINGS.iter().find(|setting| setting.short == key);
        let twice = match (short, is_of_phases(key)) {
            (Some(setting), _) => {
                self.bare.push(setting.short.to_owned());
                self.phases.insert(setting.key.to_owned(), value)
            }
            (None, true) => self.phases.insert(key.to_owned(), value),
            (None, false) => {
                let prefix = format!("{}.", self.strategy);
                let path: Vec<&str> = key
                    .strip_prefix(&prefix)
                    .unwrap_or(key)
                    .split('.')
                    .collect();
                insert(&mut self.settings, &path, value)?
            }
        };
        match twice {
            Some(_) => Err(format!("`{key}` is given twice")),
            None => Ok(()),
        }
    }

    /// The name of the arm, which reads back as the same arm: strategy, objective and coefficient, then what sets it
    /// apart from the run's settings and the strategy's defaults.
    pub fn name(&self) -> String {
        let mut name = match (self.objective, self.coeff) {
            (Some(objective), Some(coeff)) => format!("{}:{objective}:{coeff}", self.strategy),
            (Some(objective), None) => format!("{}:{objective}", self.strategy),
            (None, _) => self.strategy.clone(),
        };
        let order = |key: &str| {
            let at = PHASE_SETTINGS.iter().position(|setting| setting.key == key);
            at.unwrap_or(PHASE_SETTINGS.len())
        };
        let mut of_phases: Vec<(&String, &Value)> = self.phases.iter().collect();
        of_phases.sort_by_key(|(key, _)| order(key));
        for (key, value) in of_phases {
            // Where the strategy has a setting of the short name, only the full one is clear.
            let short = PHASE_SETTINGS.iter().find(|setting| setting.key == *key);
            let short = short.map(|setting| setting.short);
            let key = short.filter(|short| !self.has(short)).unwrap_or(key);
            name.push_str(&format!("+{key}={}", write_value(value)));
        }
        for (key, value) in &self.settings {
            let both = PHASE_SETTINGS.iter().any(|setting| setting.short == key);
            let of = if both {
                format!("{}.", self.strategy)
            } else {
                String::new()
            };
            name.push_str(&format!("+{of}{key}={}", write_value(value)));
        }
        name
    }

    /// Whether its strategy is known to have a setting of this name.
    fn has(&self, name: &str) -> bool {
        self.settings.contains_key(name) || self.defaults.contains_key(name)
    }
}

/// Whether a key is one of the phases' settings in full: `optimizer.lr`, `phases.sort.steps`.
fn is_of_phases(key: &str) -> bool {
    of_one_phase(key).is_some() || PHASE_SETTINGS.iter().any(|setting| setting.key == key)
}

/// Puts a value into a table at a path; returns the one that was there.
///
/// # Errors
/// In words, where the path goes through a value that is no table.
pub(in super::super) fn insert(
    table: &mut Table,
    path: &[&str],
    value: Value,
) -> Result<Option<Value>, String> {
    match path {
        [] => Ok(None),
        [name] => Ok(table.insert((*name).to_owned(), value)),
        [first, rest @ ..] => {
            let inner = table.entry(*first).or_insert_with(|| Table::new().into());
            match inner.as_table_mut() {
                Some(inner) => insert(inner, rest, value),
                None => Err(format!("`{first}` has a value already, it is no table")),
            }
        }
    }
}

/// Splits a text at a separator; one within quotes or brackets does not count.
pub fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut from) = (Vec::new(), 0);
    let (mut quote, mut depth, mut escaped) = (None, 0_u32, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), _) if c == open && !escaped => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, _) if c == separator && depth == 0 => {
                parts.push(&text[from..at]);
                from = at + c.len_utf8();
            }
            (None, _) => {}
        }
        escaped = false;
    }
    parts.push(&text[from..]);
    parts
}

/// Parses a TOML value; a bare word is a string.
///
/// # Errors
/// In words, where it is neither.
pub(in super::super) fn parse_value(text: &str) -> Result<Value, String> {
    match text.parse::<Value>() {
        Ok(value) => Ok(value),
        Err(_)
            if !text.is_empty() && !text.contains(['"', '\'', '[', ']', '{', '}', '\n', '#']) =>
        {
            Ok(Value::String(text.to_owned()))
        }
        Err(error) => Err(format!(
            "the value is not TOML ({}); quote a text that has brackets or quotes in it",
            error.message().trim_end()
        )),
    }
}

/// A value as a name has it: numbers in their shortest form, plain words bare, other strings quoted.
fn write_value(value: &Value) -> String {
    match value {
        Value::Float(number) => shortest(*number),
        Value::String(text) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let bare = text.chars().all(plain) && parse_value(text).as_ref() == Ok(value);
            match bare {
                true => text.clone(),
                // JSON's quoting is TOML's, on one line.
                false => serde_json::Value::from(text.as_str()).to_string(),
            }
        }
        other => other.to_string(),
    }
}

/// A number in its shortest form that reads back as the same number: `0.5`, `1e-3`.
pub fn shortest(number: f64) -> String {
    let (plain, exponent) = (number.to_string(), format!("{number:e}"));
    match exponent.len() < plain.len() {
        true => exponent,
        false => plain,
    }
}

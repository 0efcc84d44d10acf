//! Jinja as transformers compiles it: Jinja2's own forms with Python's texts, lists and dicts.
//!
//! minijinja does the parsing and running. What it does otherwise than Jinja2 on Python, or not at all, stands
//! here: methods in [`methods`], filters and tests in [`filters`], `tojson` in [`json`], how a value is written in
//! [`python`]. A template is foreign code: [`limits`] says how large and how deep it may be and how much it may do,
//! [`stored`] what it may keep.

mod filters;
mod json;
pub(super) mod limits;
mod methods;
pub(super) mod python;
mod source;
mod stored;

use std::fmt::Write as _;

use chrono::NaiveDate;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value};

pub(crate) use methods::of_dict;
pub(super) use source::{longest_code, prepared};

/// The filter that a `{% generation %}` block becomes; see [`prepared`].
pub(super) const GENERATION: &str = "generation__";

/// The filter of what a template binds to a name; see [`prepared`].
pub(super) const STORED: &str = "stored";

/// What a template gave to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub String);

/// An environment with everything that transformers gives to a template. `strftime_now` tells `date`.
pub(super) fn environment(date: NaiveDate) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    environment.set_fuel(Some(limits::FUEL));
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(|out, _, value| Ok(out.write_str(&python::text(value)?)?));
    environment.add_filter("tojson", json::tojson);
    filters::add(&mut environment);
    for name in ["debug", "pprint"] {
        environment.remove_global(name);
        environment.remove_filter(name);
    }
    environment.add_function("raise_exception", |text: Value| -> Result<Value, Error> {
        let raised = Raised(python::text(&text)?);
        Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(raised))
    });
    environment.add_function("strftime_now", move |format: &str| now(date, format));
    environment.add_filter(GENERATION, |body: String| body);
    environment.add_filter(STORED, stored::stored);
    environment.add_function("namespace", stored::namespace);
    Ok(environment)
}

/// Begins what a `{% generation %}` block encloses, in a rendering that is made to find it.
pub(super) const OPEN: char = '\u{f5d4}';
/// Ends it.
pub(super) const CLOSE: char = '\u{f5e5}';

/// What a `{% generation %}` block encloses, between marks.
pub(super) fn marked(body: &str) -> String {
    format!("{OPEN}{body}{CLOSE}")
}

/// `datetime.now().strftime(format)` at the midnight that a day begins with.
fn now(date: NaiveDate, format: &str) -> Result<String, Error> {
    let mut text = String::new();
    let now = date.and_time(chrono::NaiveTime::MIN);
    match write!(text, "{}", now.format(format)) {
        Ok(()) => Ok(text),
        Err(_) => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now: {format:?} is no date format"),
        )),
    }
}

/// An error of a template that says what is wrong.
fn wrong(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}

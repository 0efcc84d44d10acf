//! A condition on one value.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};

/// What stands between a field and a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Has,
    Is,
    IsNot,
    Above,
    AtLeast,
    Below,
    AtMost,
    Like,
}

impl Operator {
    /// The longer of two that begin alike first.
    pub const ALL: [(&'static str, Self); 8] = [
        ("!=", Self::IsNot),
        (">=", Self::AtLeast),
        ("<=", Self::AtMost),
        (">", Self::Above),
        ("<", Self::Below),
        ("=", Self::Is),
        ("~", Self::Like),
        (":", Self::Has),
    ];

    pub fn sign(self) -> &'static str {
        let mut all = Self::ALL.into_iter();
        all.find(|(_, own)| *own == self)
            .map_or("", |(sign, _)| sign)
    }

    /// Whether it asks which of two is larger.
    pub fn is_order(self) -> bool {
        matches!(
            self,
            Self::Above | Self::AtLeast | Self::Below | Self::AtMost
        )
    }
}

/// A condition on a text.
#[derive(Clone, Debug)]
pub(super) enum TextTest {
    /// Contains this, which is in lower case.
    Has(String),
    /// Is this, which is in lower case.
    Is(String),
    IsNot(String),
    Like(Regex),
}

impl TextTest {
    /// The condition of an operator that orders nothing.
    pub fn new(operator: Operator, value: &str) -> Result<Self, String> {
        let lower = value.to_lowercase();
        Ok(match operator {
            Operator::Is => Self::Is(lower),
            Operator::IsNot => Self::IsNot(lower),
            Operator::Like => Self::Like(regex(value)?),
            _ => Self::Has(lower),
        })
    }

    pub fn holds(&self, text: &str) -> bool {
        match self {
            Self::Has(part) => text.to_lowercase().contains(part),
            Self::Is(whole) => text.to_lowercase() == *whole,
            Self::IsNot(whole) => text.to_lowercase() != *whole,
            Self::Like(regex) => regex.is_match(text),
        }
    }
}

fn regex(pattern: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(pattern);
    // A pattern that is typed needs little.
    let built = builder.case_insensitive(true).size_limit(1 << 20).build();
    built.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        let why = last.strip_prefix("error: ").unwrap_or(last);
        format!("`{pattern}` is no regular expression: {why}")
    })
}

/// A condition on a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumberTest {
    operator: Operator,
    value: f64,
}

impl NumberTest {
    pub fn new(operator: Operator, value: f64) -> Self {
        Self { operator, value }
    }

    /// Whether it holds for a number; for what is none it never does.
    pub fn holds(self, number: f64) -> bool {
        let Some(order) = number.partial_cmp(&self.value) else {
            return false;
        };
        // What was written as 0.3 is 0.1 + 0.2.
        let close = (number - self.value).abs() <= 1e-9 * self.value.abs().max(1e-300);
        let order = if close { Ordering::Equal } else { order };
        match self.operator {
            Operator::Above => order.is_gt(),
            Operator::AtLeast => order.is_ge(),
            Operator::Below => order.is_lt(),
            Operator::AtMost => order.is_le(),
            Operator::IsNot => order.is_ne(),
            Operator::Has | Operator::Is | Operator::Like => order.is_eq(),
        }
    }
}

/// A number as it is typed: `0.1`, `1e-3`, `10%`, `3k`, `2M`, `1G`.
pub(super) fn number(text: &str) -> Option<f64> {
    const UNITS: [(char, f64); 5] = [('%', 0.01), ('k', 1e3), ('K', 1e3), ('M', 1e6), ('G', 1e9)];
    let unit = UNITS.into_iter().find(|(sign, _)| text.ends_with(*sign));
    let (digits, scale) = match unit {
        Some((sign, scale)) => (text.strip_suffix(sign)?, scale),
        None => (text, 1.0),
    };
    let value: f64 = digits.parse().ok()?;
    let value = match scale < 1.0 {
        // 10 / 100 is 0.1 to the bit, 10 · 0.01 need not be.
        true => value / 100.0,
        false => value * scale,
    };
    value.is_finite().then_some(value)
}

//! Grids over an experiment's settings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Value;

use super::SpecError;
use super::arm::{parse_value, shortest, split_outside_quotes};

/// A grid of a sweep: what its points share, and the axes along which they differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridSpec {
    /// Name, where a sweep has several.
    #[serde(default)]
    pub name: String,
    /// Arms in place of the preset's, as written on the command line.
    #[serde(default)]
    pub arms: Vec<String>,
    /// Datasets of the phases that its points have; all of them where it is empty.
    #[serde(default)]
    pub phases: Vec<String>,
    /// Settings in place of the preset's, by their keys.
    #[serde(default)]
    pub set: toml::Table,
    /// Axes; every combination of their values is a point.
    #[serde(default)]
    pub axes: Vec<AxisSpec>,
}

/// An axis of a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AxisSpec {
    /// Key of the setting that differs.
    pub key: String,
    /// Short name; the last part of the key where there is none.
    #[serde(default)]
    pub name: Option<String>,
    /// Its values.
    pub values: Vec<Value>,
    /// Settings that go along, by their keys: as many values each.
    #[serde(default)]
    pub with: BTreeMap<String, Vec<Value>>,
}

/// A value on an axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AxisValue {
    /// Key of the setting.
    pub key: String,
    /// Short name of the axis.
    pub name: String,
    /// Value.
    pub value: Value,
}

impl AxisSpec {
    /// Short name.
    pub fn name(&self) -> &str {
        let last = self.key.rsplit('.').next().unwrap_or_default();
        self.name.as_deref().unwrap_or(last)
    }

    /// An axis as it is written on the command line, `KEY=VALUE,VALUE…`.
    ///
    /// # Errors
    /// In words, where it is written otherwise.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shape = "write KEY=VALUE,VALUE..., e.g. model.d_model=32,64,128";
        let (key, values) = text.split_once('=').ok_or(shape)?;
        let texts = split_outside_quotes(values, ',').into_iter();
        let values: Result<Vec<Value>, String> =
            texts.map(|value| parse_value(value.trim())).collect();
        match key.trim() {
            "" => Err(shape.to_owned()),
            key => Ok(Self {
                key: key.to_owned(),
                name: None,
                values: values?,
                with: BTreeMap::new(),
            }),
        }
    }

    /// Checks its values, and those that go along.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        let bad = |problem: String| Err(SpecError::axis(&self.key, problem));
        if self.values.is_empty() {
            return bad("has no values".to_owned());
        }
        for (i, value) in self.values.iter().enumerate() {
            if self.values[..i].contains(value) {
                return bad(format!("has {value} twice"));
            }
        }
        let other = self
            .with
            .iter()
            .find(|(_, values)| values.len() != self.values.len());
        match other {
            Some((key, values)) => bad(format!(
                "has {} values, and {key}, which goes along, {}",
                self.values.len(),
                values.len()
            )),
            None => Ok(()),
        }
    }
}

impl GridSpec {
    /// Puts axes of the command line in the place of those of the same key, or beside them.
    pub(super) fn with_axes(mut self, axes: &[AxisSpec]) -> Self {
        for axis in axes {
            match self.axes.iter_mut().find(|own| own.key == axis.key) {
                Some(own) => *own = own.restricted_to(axis),
                None => self.axes.push(axis.clone()),
            }
        }
        self
    }

    /// Every combination of values, by their indices; the last axis runs fastest.
    pub(super) fn combinations(&self) -> Vec<Vec<usize>> {
        let mut all = vec![Vec::new()];
        for axis in &self.axes {
            let longer = all.iter().flat_map(|head: &Vec<usize>| {
                (0..axis.values.len()).map(|i| [&head[..], &[i]].concat())
            });
            all = longer.collect();
        }
        all
    }
}

impl AxisSpec {
    /// Its values that another axis names, with what goes along; the other axis where it has more.
    fn restricted_to(&self, other: &Self) -> Self {
        let places: Option<Vec<usize>> = other
            .values
            .iter()
            .map(|value| self.values.iter().position(|own| same(own, value)))
            .collect();
        let Some(places) = places else {
            return Self {
                name: self.name.clone(),
                ..other.clone()
            };
        };
        let of = |values: &Vec<Value>| {
            let kept = places.iter().filter_map(|&i| values.get(i).cloned());
            kept.collect::<Vec<_>>()
        };
        Self {
            values: of(&self.values),
            with: self
                .with
                .iter()
                .map(|(key, values)| (key.clone(), of(values)))
                .collect(),
            ..self.clone()
        }
    }
}

/// Whether two values are one; 10 and 10.0 are.
fn same(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| value.as_float().or(value.as_integer().map(|i| i as f64));
    a == b || number(a).is_some() && number(a) == number(b)
}

/// A value in few characters: numbers at their shortest, texts without quotes.
pub fn said(value: &Value) -> String {
    match value {
        Value::Float(number) => shortest(*number),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To run a part of a study, its axis must take along what goes with each value.
    #[test]
    fn an_axis_of_the_command_line_takes_a_part_of_the_presets() {
        let own: AxisSpec = toml::from_str(
            "key = 'model.d_model'\nname = 'size'\nvalues = [32, 64, 128]\nwith = { 'optimizer.lr' = [1.0, 2.0, 3.0] }",
        )
        .unwrap();
        let part = own.restricted_to(&AxisSpec::parse("model.d_model=128,32").unwrap());
        assert_eq!(part.values, [Value::from(128), Value::from(32)]);
        assert_eq!(
            part.with["optimizer.lr"],
            [Value::from(3.0), Value::from(1.0)]
        );
        assert_eq!(part.name(), "size");
        let other = own.restricted_to(&AxisSpec::parse("model.d_model=16,32").unwrap());
        assert_eq!(other.values.len(), 2);
        assert!(other.with.is_empty());
    }
}

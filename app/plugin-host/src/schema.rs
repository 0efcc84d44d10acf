//! Settings of a strategy: the supported subset of JSON Schema, and the check of values against it.

use serde_json::{Map, Value};

use super::{LoadError, SettingsError};

/// Settings a strategy takes, sorted by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// One entry a setting.
    pub settings: Vec<Setting>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Name.
    pub name: String,
    /// Types a value may have.
    pub types: Vec<SettingType>,
    /// Description for the user.
    pub description: String,
    /// Value if none is given.
    pub default: Option<Value>,
    /// Whether it must be given (and has no default).
    pub required: bool,
    /// The only values allowed; empty: any.
    pub choices: Vec<Value>,
    /// Smallest number allowed.
    pub minimum: Option<f64>,
    /// Largest number allowed.
    pub maximum: Option<f64>,
}

/// Type of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingType {
    /// True or false.
    Boolean,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// A text.
    String,
    /// What generated rows begin with: a special token's name, a text, a token id or a list of them.
    Prompt,
}

impl Schema {
    /// Parses a schema; keywords outside the subset are an error, as they would not be checked.
    pub fn parse(json: &str) -> Result<Self, LoadError> {
        parse(json).map_err(LoadError::BadSchema)
    }

    /// Checks settings and fills in defaults. `strategy` names it in errors.
    pub fn resolve(
        &self,
        strategy: &str,
        given: &Map<String, Value>,
    ) -> Result<Map<String, Value>, SettingsError> {
        if let Some(name) = given.keys().find(|name| self.get(name).is_none()) {
            return Err(SettingsError::Unknown {
                strategy: strategy.into(),
                name: name.clone(),
                hint: self.hint(name),
            });
        }
        let mut resolved = Map::new();
        for setting in &self.settings {
            let value = given.get(&setting.name).or(setting.default.as_ref());
            let Some(value) = value else {
                if setting.required {
                    return Err(SettingsError::Missing {
                        strategy: strategy.into(),
                        name: setting.name.clone(),
                        description: setting.description.clone(),
                    });
                }
                continue;
            };
            let value = setting
                .accept(value)
                .ok_or_else(|| SettingsError::Invalid {
                    strategy: strategy.into(),
                    name: setting.name.clone(),
                    value: value.to_string(),
                    expected: setting.expected(),
                })?;
            resolved.insert(setting.name.clone(), value);
        }
        Ok(resolved)
    }

    /// The setting of this name.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    fn hint(&self, name: &str) -> String {
        let names: Vec<&str> = self.settings.iter().map(|s| s.name.as_str()).collect();
        match super::nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => "it takes no settings".into(),
            None => format!("it takes {}", names.join(", ")),
        }
    }
}

impl Setting {
    /// The value, if it is allowed; a whole number written as `3.0` becomes an integer.
    fn accept(&self, value: &Value) -> Option<Value> {
        let integral = || {
            let number = value.as_f64().filter(|n| n.fract() == 0.0)?;
            (number.abs() < 9e15).then(|| Value::from(number as i64))
        };
        let value = self.types.iter().find_map(|kind| match kind {
            SettingType::Boolean if value.is_boolean() => Some(value.clone()),
            SettingType::Integer if value.is_i64() || value.is_u64() => Some(value.clone()),
            SettingType::Integer => integral(),
            SettingType::Number if value.is_number() => Some(value.clone()),
            SettingType::String if value.is_string() => Some(value.clone()),
            SettingType::Prompt if is_prompt(value) => Some(value.clone()),
            _ => None,
        })?;
        if let Some(number) = value.as_f64() {
            let below = self.minimum.is_some_and(|minimum| number < minimum);
            let above = self.maximum.is_some_and(|maximum| number > maximum);
            if below || above || !number.is_finite() {
                return None;
            }
        }
        let choice = |choice: &Value| {
            *choice == value || choice.as_f64() == value.as_f64() && value.is_number()
        };
        (self.choices.is_empty() || self.choices.iter().any(choice)).then_some(value)
    }

    /// The values it takes, in words.
    pub fn expected(&self) -> String {
        if !self.choices.is_empty() {
            let choices: Vec<String> = self.choices.iter().map(Value::to_string).collect();
            return format!("one of {}", choices.join(", "));
        }
        let types: Vec<&str> = self.types.iter().map(|kind| kind.words()).collect();
        let range = match (self.minimum, self.maximum) {
            (Some(minimum), Some(maximum)) => format!(" from {minimum} to {maximum}"),
            (Some(minimum), None) => format!(" from {minimum}"),
            (None, Some(maximum)) => format!(" up to {maximum}"),
            (None, None) => String::new(),
        };
        let numeric =
            |kind: &SettingType| matches!(kind, SettingType::Integer | SettingType::Number);
        let ranged = types.iter().zip(&self.types).map(|(words, kind)| {
            if numeric(kind) {
                format!("{words}{range}")
            } else {
                words.to_string()
            }
        });
        ranged.collect::<Vec<_>>().join(" or ")
    }
}

impl SettingType {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "string" => Self::String,
            _ => return None,
        })
    }

    /// The type in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Boolean => "true or false",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::String => "a text",
            Self::Prompt => "a special token's name, a text, a token id or a list of ids",
        }
    }
}

/// Whether a value may be a prompt; whether a tokenizer has its tokens is another question.
fn is_prompt(value: &Value) -> bool {
    let is_id = |value: &Value| value.as_u64().is_some_and(|id| u32::try_from(id).is_ok());
    match value {
        Value::Array(ids) => !ids.is_empty() && ids.iter().all(is_id),
        one => one.is_string() || is_id(one),
    }
}

fn parse(json: &str) -> Result<Schema, String> {
    let schema: Map<String, Value> =
        serde_json::from_str(json).map_err(|error| format!("it is no JSON object: {error}"))?;
    let known = [
        "$schema",
        "$id",
        "title",
        "description",
        "type",
        "properties",
        "required",
        "additionalProperties",
    ];
    known_only(&schema, &known, "")?;
    if schema.get("type").is_some_and(|kind| kind != "object") {
        return Err("its type must be \"object\"".into());
    }
    if schema
        .get("additionalProperties")
        .is_some_and(|v| v != &Value::Bool(false))
    {
        return Err("additionalProperties can only be false".into());
    }
    let required: Vec<&str> = match schema.get("required") {
        None => Vec::new(),
        Some(Value::Array(names)) if names.iter().all(Value::is_string) => {
            names.iter().filter_map(Value::as_str).collect()
        }
        Some(_) => return Err("required must be an array of names".into()),
    };
    let none = Map::new();
    let properties = match schema.get("properties") {
        None => &none,
        Some(properties) => properties
            .as_object()
            .ok_or("properties must be an object")?,
    };
    if let Some(name) = required
        .iter()
        .find(|name| !properties.contains_key(**name))
    {
        return Err(format!(
            "it requires `{name}`, which is not among its properties"
        ));
    }
    let mut settings = Vec::new();
    for (name, property) in properties {
        let property = property
            .as_object()
            .ok_or_else(|| format!("property `{name}` must be an object"))?;
        let required = required.contains(&name.as_str());
        settings.push(setting(name, property, required)?);
    }
    Ok(Schema { settings })
}

fn setting(name: &str, property: &Map<String, Value>, required: bool) -> Result<Setting, String> {
    let known = [
        "type",
        "format",
        "enum",
        "minimum",
        "maximum",
        "default",
        "description",
        "title",
        "examples",
    ];
    known_only(property, &known, &format!(" in property `{name}`"))?;
    let is_prompt = match property.get("format") {
        None => false,
        Some(format) if format == "prompt" => true,
        Some(other) => {
            return Err(format!(
                "format {other} of property `{name}` is not supported; \"prompt\" is"
            ));
        }
    };
    let types = match property.get("type") {
        _ if is_prompt => Some(vec![SettingType::Prompt]),
        Some(Value::String(kind)) => SettingType::parse(kind).map(|kind| vec![kind]),
        Some(Value::Array(kinds)) if !kinds.is_empty() => kinds
            .iter()
            .map(|kind| kind.as_str().and_then(SettingType::parse))
            .collect(),
        _ => None,
    };
    let types = types.ok_or_else(|| {
        format!(
            "property `{name}` needs a type: boolean, integer, number, string, or an array of these"
        )
    })?;
    let number = |key: &str| match property.get(key) {
        None => Ok(None),
        Some(value) => value
            .as_f64()
            .map(Some)
            .ok_or_else(|| format!("{key} of property `{name}` must be a number")),
    };
    let choices = match property.get("enum") {
        None => Vec::new(),
        Some(Value::Array(choices)) if !choices.is_empty() => choices.clone(),
        Some(_) => {
            return Err(format!(
                "enum of property `{name}` must be a non-empty array"
            ));
        }
    };
    let mut setting = Setting {
        name: name.into(),
        types,
        description: property
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .into(),
        default: None,
        required,
        choices,
        minimum: number("minimum")?,
        maximum: number("maximum")?,
    };
    if let Some(default) = property.get("default") {
        let default = setting.accept(default).ok_or_else(|| {
            let expected = setting.expected();
            format!("default {default} of property `{name}` is not allowed by itself; it takes {expected}")
        })?;
        setting.default = Some(default);
        setting.required = false;
    }
    Ok(setting)
}

fn known_only(object: &Map<String, Value>, known: &[&str], place: &str) -> Result<(), String> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(format!(
            "keyword `{key}`{place} is not supported; those that are: {}",
            known.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type": "object", "required": ["path"], "properties": {
        "batches": {"type": "integer", "minimum": 1, "maximum": 64, "default": 16},
        "mode": {"type": "string", "enum": ["fast", "slow"], "default": "fast"},
        "prompt": {"type": ["integer", "string"], "minimum": 0, "default": ""},
        "begin": {"type": ["string", "integer", "array"], "format": "prompt"},
        "path": {"type": "string", "description": "where it is"}}}"#;

    fn resolve(given: &str) -> Result<Map<String, Value>, SettingsError> {
        let schema = Schema::parse(SCHEMA).expect("schema");
        schema.resolve("s", &serde_json::from_str(given).expect("settings"))
    }

    /// Else a strategy would see settings its author did not foresee, or lose the defaults.
    #[test]
    fn defaults_are_filled_in_and_values_kept() {
        let resolved = resolve(r#"{"path": "x", "batches": 4.0, "prompt": 7}"#).expect("valid");
        let expected = r#"{"batches":4,"mode":"fast","path":"x","prompt":7}"#;
        assert_eq!(Value::from(resolved).to_string(), expected);
        for begin in ["\"a text\"", "[4,5]", "4"] {
            let resolved = resolve(&format!("{{\"path\": \"x\", \"begin\": {begin}}}"));
            assert_eq!(resolved.expect("valid")["begin"].to_string(), begin);
        }
    }

    /// Else a typo would silently run another experiment.
    #[test]
    fn a_wrong_setting_names_what_would_do() {
        let error = |given: &str| resolve(given).expect_err(given).to_string();
        assert!(error(r#"{"path": "", "batch": 3}"#).contains("did you mean `batches`?"));
        assert!(error("{}").contains("needs the setting `path`: where it is"));
        assert!(error(r#"{"path": "", "batches": 0}"#).contains("a whole number from 1 to 64"));
        assert!(error(r#"{"path": "", "batches": 1.5}"#).contains("1.5 is not allowed"));
        assert!(error(r#"{"path": "", "mode": "quick"}"#).contains(r#"one of "fast", "slow""#));
        assert!(
            error(r#"{"path": "", "prompt": true}"#)
                .contains("it takes a whole number from 0 or a text")
        );
        for begin in ["[]", "[-1]", "true", "0.5", "[[1]]", "4294967296"] {
            let words = error(&format!("{{\"path\": \"x\", \"begin\": {begin}}}"));
            assert!(words.contains("a list of ids"), "{words}");
        }
    }

    /// Else an author would believe a rule is enforced that is not.
    #[test]
    fn a_schema_outside_the_subset_is_refused() {
        let error = |json: &str| Schema::parse(json).expect_err(json).to_string();
        assert!(error("[]").contains("no JSON object"));
        assert!(
            error(r#"{"properties": {"a": {"type": "string", "pattern": "x"}}}"#)
                .contains("keyword `pattern` in property `a`")
        );
        assert!(
            error(r#"{"properties": {"a": {"type": "integer", "default": "x"}}}"#)
                .contains("default \"x\" of property `a`")
        );
        assert!(error(r#"{"required": ["a"]}"#).contains("requires `a`"));
        assert!(
            error(r#"{"properties": {"a": {"type": "string", "format": "date"}}}"#)
                .contains("format \"date\" of property `a`")
        );
    }
}

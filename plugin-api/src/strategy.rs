//! The trait that a strategy implements, its error, capabilities and settings.

use serde_json::{Map, Value};

use crate::{Batch, Error, Host, Observation, Phase, Step, abi};

/// A replay strategy. [`export_strategy!`](crate::export_strategy) makes a plugin of it.
///
/// Equal settings, state and random stream must give equal batches: take randomness from [`Host`]
/// only, and never the order of a hash map. All calls come one at a time.
pub trait Strategy: Sized + Send + 'static {
    /// Name used in arms, e.g. `self-generated`: lower-case letters, digits and `-`.
    const NAME: &'static str;
    /// One line on what it replays.
    const SUMMARY: &'static str;
    /// JSON Schema of its settings; see [`Settings`] for the keywords that may be used.
    const SETTINGS: &'static str = r#"{"type": "object", "properties": {}}"#;
    /// Capabilities it needs of the lab or promises.
    const CAPABILITIES: Capabilities = Capabilities::NONE;
    /// Version of what [`Strategy::save`] writes; raise it when that changes.
    const STATE_VERSION: u32 = 1;

    /// Makes an instance for one arm.
    fn create(settings: &Settings, host: &mut Host) -> Result<Self, Error>;

    /// Announces a phase: drop what belongs to the previous one, such as buffers.
    fn phase_started(&mut self, phase: &Phase, host: &mut Host) -> Result<(), Error> {
        let _ = (phase, host);
        Ok(())
    }

    /// The replay batch of a step; `None`: nothing is replayed this step.
    fn next_batch(&mut self, step: &Step, host: &mut Host) -> Result<Option<Batch>, Error>;

    /// Reports the losses and gradient norm of the last step.
    fn observe(&mut self, observation: &Observation, host: &mut Host) -> Result<(), Error> {
        let _ = (observation, host);
        Ok(())
    }

    /// Saves all that later batches depend on, except settings, phase and random stream, which the lab
    /// keeps. See [`crate::StateWriter`].
    fn save(&self) -> Result<Vec<u8>, Error>;

    /// Restores what [`Strategy::save`] wrote, into a fresh instance. `version` is the
    /// [`Strategy::STATE_VERSION`] it was written with; `phase` is the current phase, for which
    /// [`Strategy::phase_started`] is not called again.
    fn load(
        &mut self,
        version: u32,
        state: &[u8],
        phase: Option<&Phase>,
        host: &mut Host,
    ) -> Result<(), Error>;
}

/// A set of capabilities that a strategy needs of the lab or promises. A run whose lab lacks one does not
/// start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// No capability.
    pub const NONE: Self = Self(0);
    /// Draws true old sequences.
    pub const NEEDS_OLD_DATA: Self = Self(abi::NEEDS_OLD_DATA);
    /// Generates sequences.
    pub const NEEDS_GENERATION: Self = Self(abi::NEEDS_GENERATION);
    /// Encodes, decodes or asks for special tokens.
    pub const NEEDS_TOKENIZER: Self = Self(abi::NEEDS_TOKENIZER);
    /// Scores sequences.
    pub const NEEDS_SCORES: Self = Self(abi::NEEDS_SCORES);
    /// Keeps snapshots of a model.
    pub const NEEDS_SNAPSHOTS: Self = Self(abi::NEEDS_SNAPSHOTS);
    /// Scores after a virtual step.
    pub const NEEDS_VIRTUAL_STEP: Self = Self(abi::NEEDS_VIRTUAL_STEP);
    /// Supplies its own teacher log-probabilities.
    pub const SUPPLIES_TEACHER: Self = Self(abi::SUPPLIES_TEACHER);
    /// Promises that batches depend neither on the student nor on [`Strategy::observe`].
    pub const INDEPENDENT_OF_STUDENT: Self = Self(abi::INDEPENDENT_OF_STUDENT);

    /// The union of two sets.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits that cross the boundary.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// Settings of an instance: valid by the schema, defaults filled in.
///
/// A schema is one object with `properties`; each property has a `type` (`boolean`, `integer`,
/// `number`, `string`, or an array of these), and may have `enum`, `minimum`, `maximum`, `default`
/// and `description`. A property with `"format": "prompt"` says what generated rows begin with: its user writes a special
/// token's name, a text, a token id or a list of ids, or nothing (`""`) for what texts of the model begin with (BOS, or
/// what separates documents where there is none); the strategy is given token ids ([`Settings::tokens`]). What is no
/// prompt for the model is refused before the run. Beside `properties` there may be `required` and `additionalProperties: false`
/// (which holds in any case).
#[derive(Clone, Debug, Default)]
pub struct Settings(Map<String, Value>);

impl Settings {
    /// Parses a JSON object.
    pub fn parse(json: &str) -> Result<Self, Error> {
        match serde_json::from_str(json) {
            Ok(map) => Ok(Self(map)),
            Err(error) => Err(Error::Failed(format!(
                "settings are not a JSON object: {error}"
            ))),
        }
    }

    /// The JSON value of a setting.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The value of an integer setting ≥ 0.
    pub fn integer(&self, name: &str) -> Result<u64, Error> {
        self.typed(name, "a whole number from 0", Value::as_u64)
    }

    /// The value of a number setting.
    pub fn number(&self, name: &str) -> Result<f64, Error> {
        self.typed(name, "a number", Value::as_f64)
    }

    /// The value of a boolean setting.
    pub fn boolean(&self, name: &str) -> Result<bool, Error> {
        self.typed(name, "true or false", Value::as_bool)
    }

    /// The value of a string setting.
    pub fn text(&self, name: &str) -> Result<&str, Error> {
        self.typed(name, "a text", Value::as_str)
    }

    /// The token ids of a setting in the format `prompt`.
    pub fn tokens(&self, name: &str) -> Result<Vec<u32>, Error> {
        let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = |value: &Value| value.as_array()?.iter().map(id).collect();
        self.typed(name, "a list of token ids, of format `prompt`", ids)
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, Error> {
        let value = self.0.get(name);
        value.and_then(read).ok_or_else(|| {
            let value = value.map_or("nothing".into(), Value::to_string);
            Error::Failed(format!(
                "setting `{name}` must be {wanted}, it is {value}; state its type and default in the schema"
            ))
        })
    }
}

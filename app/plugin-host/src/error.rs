//! Errors of loading, configuring and calling plugins.

use std::path::PathBuf;

use forgetlab_plugin_api::abi;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a file is not a usable strategy.
#[derive(Clone, Debug, PartialEq, Error, Serialize, Deserialize)]
pub enum LoadError {
    /// The file or folder cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The file is not a shared library for this system.
    #[error("is not a shared library for this system: {0}")]
    NotALibrary(String),
    /// The file is shorter than its headers say.
    #[error(
        "is truncated: its headers describe {expected} bytes, the file has {actual}; copy or build it again"
    )]
    Truncated {
        /// Bytes its headers describe.
        expected: u64,
        /// Bytes in the file.
        actual: u64,
    },
    /// The system's loader refused the library.
    #[error("cannot be loaded: {0}")]
    Refused(String),
    /// The library does not export the entry point of strategies.
    #[error(
        "is a shared library but no strategy plugin: it does not export `{}`",
        abi::SYMBOL
    )]
    NotAPlugin,
    /// The descriptor is invalid.
    #[error("is no strategy plugin: {0}")]
    BadDescriptor(String),
    /// The library was built for another version of the ABI.
    #[error(
        "was built for plugin ABI {plugin}, this lab speaks {host}; build it against the lab's plugin-api, or use a lab of its version"
    )]
    AbiMismatch {
        /// Version of the plugin, `major.minor`.
        plugin: String,
        /// Versions the lab accepts.
        host: String,
    },
    /// The settings schema is outside the documented subset of JSON Schema.
    #[error("has a bad settings schema: {0}")]
    BadSchema(String),
    /// Another library earlier in the search path has the same name.
    #[error("is hidden by {path}, which also provides `{name}` and comes first in the search path", path = path.display())]
    Hidden {
        /// Name of the strategy.
        name: String,
        /// The library that is used.
        path: PathBuf,
    },
    /// The name is that of a strategy beside the program.
    #[error("is not used: `{name}` comes with this program ({path}); give it another name", path = path.display())]
    NameTaken {
        /// Name of the strategy.
        name: String,
        /// The library that is used.
        path: PathBuf,
    },
    /// Loading it ended the process that looked at it.
    #[error(
        "ends the process that loads it ({0}); build it again for this system, or take it away"
    )]
    Crashed(String),
    /// Loading it did not come to an end.
    #[error("does not come to an end when it is loaded ({0} s); build it again, or take it away")]
    Hung(u64),
    /// There was no process to look at it in.
    #[error("could not be looked at: {0}")]
    NotLookedAt(String),
    /// Others than this user could have put code there.
    #[error("is not loaded: {0}")]
    Untrusted(String),
    /// It is not what it was when it was looked at.
    #[error("has changed since it was looked at, or describes itself differently each time")]
    Changed,
}

impl LoadError {
    /// Whether a user should hear of it who does not use the library: it harms, or somebody else put it there.
    pub fn is_alarming(&self) -> bool {
        matches!(self, Self::Crashed(_) | Self::Hung(_) | Self::Untrusted(_))
    }
}

/// Why settings of a strategy are invalid.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SettingsError {
    /// The strategy has no setting of this name.
    #[error("strategy `{strategy}` has no setting `{name}`; {hint}")]
    Unknown {
        /// Strategy.
        strategy: String,
        /// Name given.
        name: String,
        /// A similar name, or the names there are.
        hint: String,
    },
    /// A required setting is missing.
    #[error("strategy `{strategy}` needs the setting `{name}`: {description}")]
    Missing {
        /// Strategy.
        strategy: String,
        /// Name of the setting.
        name: String,
        /// Its description in the schema.
        description: String,
    },
    /// The schema does not allow the value.
    #[error("strategy `{strategy}`, setting `{name}`: {value} is not allowed; it takes {expected}")]
    Invalid {
        /// Strategy.
        strategy: String,
        /// Name of the setting.
        name: String,
        /// Value given.
        value: String,
        /// The values it takes, in words.
        expected: String,
    },
    /// A prompt that is none for this model.
    #[error("strategy `{strategy}`, setting `{name}`: {source}")]
    Prompt {
        /// Strategy.
        strategy: String,
        /// Name of the setting.
        name: String,
        /// What is wrong.
        #[source]
        source: PromptError,
    },
}

/// Why a prompt has no tokens.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum PromptError {
    /// Empty, which stands for BOS, where there is none.
    #[error(
        "the tokenizer has no BOS token, and none that is known to separate documents; set a special token's name, \
         a text, or token ids"
    )]
    NoBos,
    /// Written like the name of a special token, but none.
    #[error("`{0}` looks like a special token, but the tokenizer has none of this name")]
    NoToken(String),
    /// A text without tokens.
    #[error("{0:?} has no tokens")]
    Empty(String),
    /// A list or number that holds no token ids.
    #[error("{0} is no token id, nor a list of them")]
    NoId(String),
    /// The tokenizer's own words.
    #[error("{0}")]
    Failed(String),
}

/// Failure of a strategy. It ends the strategy's arm; the others go on.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum StrategyError {
    /// The strategy needs a capability that this run does not offer.
    #[error("strategy `{strategy}` needs {missing}, which this run does not offer")]
    MissingCapability {
        /// Strategy.
        strategy: String,
        /// What is missing, in words.
        missing: String,
    },
    /// The strategy reported a failure.
    #[error("strategy `{strategy}` failed in {call}: {message}")]
    Failed {
        /// Strategy.
        strategy: String,
        /// Callback.
        call: &'static str,
        /// The strategy's message.
        message: String,
    },
    /// The strategy broke the plugin contract.
    #[error("strategy `{strategy}` misbehaved in {call}: {what}")]
    Misbehaved {
        /// Strategy.
        strategy: String,
        /// Callback.
        call: &'static str,
        /// What was wrong with its answer.
        what: String,
    },
    /// The run is being stopped and the strategy gave up its call; not a fault of the strategy.
    #[error("strategy `{strategy}` was interrupted in {call}")]
    Cancelled {
        /// Strategy.
        strategy: String,
        /// Callback.
        call: &'static str,
    },
    /// The saved state is damaged or belongs to another strategy.
    #[error("strategy `{strategy}` cannot go on from its saved state: {what}")]
    BadState {
        /// Strategy.
        strategy: String,
        /// What is wrong with it.
        what: String,
    },
}

//! What can go wrong with a plugin.

use std::path::PathBuf;

use thiserror::Error;

/// Why a file is not a usable strategy.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// It is not a shared library of this system.
    #[error("is not a shared library for this system: {0}")]
    NotALibrary(String),
    /// It ends before its own tables say.
    #[error(
        "is truncated: its headers describe {expected} bytes, the file has {actual}; copy or build it again"
    )]
    Truncated {
        /// Bytes its headers describe.
        expected: u64,
        /// Bytes there are.
        actual: u64,
    },
    /// The system's loader refused it.
    #[error("cannot be loaded: {0}")]
    Refused(String),
    /// It exports no strategy.
    #[error("is a shared library but no strategy plugin: it does not export `{0}`")]
    NotAPlugin(&'static str),
    /// Its descriptor is not one.
    #[error("is no strategy plugin: {0}")]
    BadDescriptor(String),
    /// It was built for another version of the contract.
    #[error(
        "was built for plugin ABI {plugin}, this lab speaks {host}; build it against the lab's plugin-api, or use a lab of its version"
    )]
    AbiMismatch {
        /// Version of the plugin, `major.minor`.
        plugin: String,
        /// Versions the lab accepts.
        host: String,
    },
    /// Its settings schema is outside the documented subset.
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
}

/// Why settings were refused.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SettingsError {
    /// No such setting.
    #[error("strategy `{strategy}` has no setting `{name}`; {hint}")]
    Unknown {
        /// Strategy.
        strategy: String,
        /// Name given.
        name: String,
        /// Near miss, or the names there are.
        hint: String,
    },
    /// A setting that must be given is missing.
    #[error("strategy `{strategy}` needs the setting `{name}`: {description}")]
    Missing {
        /// Strategy.
        strategy: String,
        /// Name of the setting.
        name: String,
        /// What the schema says of it.
        description: String,
    },
    /// A value the schema does not allow.
    #[error("strategy `{strategy}`, setting `{name}`: {value} is not allowed; it takes {expected}")]
    Invalid {
        /// Strategy.
        strategy: String,
        /// Name of the setting.
        name: String,
        /// Value given.
        value: String,
        /// What would do.
        expected: String,
    },
}

/// Why a strategy cannot go on; it ends its arm, the others go on.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum StrategyError {
    /// It needs what this run does not offer.
    #[error("strategy `{strategy}` needs {missing}, which this run does not offer")]
    MissingCapability {
        /// Strategy.
        strategy: String,
        /// What is missing, in words.
        missing: String,
    },
    /// It reported a failure.
    #[error("strategy `{strategy}` failed in {call}: {message}")]
    Failed {
        /// Strategy.
        strategy: String,
        /// Callback.
        call: &'static str,
        /// What it said.
        message: String,
    },
    /// It broke the contract.
    #[error("strategy `{strategy}` misbehaved in {call}: {what}")]
    Misbehaved {
        /// Strategy.
        strategy: String,
        /// Callback.
        call: &'static str,
        /// What was wrong with its answer.
        what: String,
    },
    /// The run is being stopped and the strategy gave up its call; no fault of its own.
    #[error("strategy `{strategy}` was interrupted in {call}")]
    Cancelled {
        /// Strategy.
        strategy: String,
        /// Callback.
        call: &'static str,
    },
    /// A saved state is not one of this strategy.
    #[error("strategy `{strategy}` cannot go on from its saved state: {what}")]
    BadState {
        /// Strategy.
        strategy: String,
        /// What is wrong with it.
        what: String,
    },
}

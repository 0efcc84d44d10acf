//! A strategy library: what it says of itself, and its functions once they are needed.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use serde_json::{Map, Value};

use super::{
    Capabilities, Helper, LoadError, Schema, SettingType, SettingsError,
    library::{self, Calls, Description, Library},
    look::look_at,
    trust::Trust,
};

/// A strategy library that passed the handshake. Its code is in this process only once an arm was made of it.
#[derive(Debug)]
pub struct Plugin {
    /// Name used in arms.
    pub name: String,
    /// Version the library states.
    pub version: String,
    /// One line on what it replays.
    pub summary: String,
    /// Settings it takes.
    pub schema: Schema,
    /// The same as the JSON Schema in its descriptor.
    pub schema_json: String,
    /// Capabilities it declares.
    pub capabilities: Capabilities,
    /// The library file.
    pub path: PathBuf,
    /// BLAKE3 of the file, hexadecimal.
    pub hash: String,
    /// The beginning of what it printed when it was looked at; empty: nothing.
    pub printed: String,
    description: Description,
    /// The file, wherever this process may be by the time it is loaded.
    file: PathBuf,
    calls: OnceLock<Result<Calls, LoadError>>,
}

impl Plugin {
    /// Looks at one library in a process of its own.
    ///
    /// # Errors
    /// Where it is no strategy, harms the process that loads it, or could have been put there by others.
    pub fn look(path: &Path, helper: &Helper) -> Result<Arc<Self>, LoadError> {
        let trust = Trust::from_env();
        if let Some(folder) = std::path::absolute(path)
            .ok()
            .as_deref()
            .and_then(Path::parent)
        {
            trust.check(folder)?;
        }
        trust.check(path)?;
        Self::look_trusted(path, helper)
    }

    /// The same of a file that is known to be trusted.
    pub(super) fn look_trusted(path: &Path, helper: &Helper) -> Result<Arc<Self>, LoadError> {
        let (description, printed) = look_at(path, helper)?;
        Ok(Arc::new(Self::new(path, description, printed)?))
    }

    /// Loads one library into this process and checks its descriptor.
    pub fn load(path: &Path) -> Result<Arc<Self>, LoadError> {
        Ok(Arc::new(Self::of(path, library::load(path)?)?))
    }

    /// A library that is loaded.
    pub(super) fn of(path: &Path, library: Library) -> Result<Self, LoadError> {
        let plugin = Self::new(path, library.description, String::new())?;
        Ok(Self {
            calls: Ok(library.calls).into(),
            ..plugin
        })
    }

    fn new(path: &Path, description: Description, printed: String) -> Result<Self, LoadError> {
        Ok(Self {
            schema: description.check()?,
            name: description.name.clone(),
            version: description.version.clone(),
            summary: description.summary.clone(),
            schema_json: description.schema_json.clone(),
            capabilities: Capabilities::from_bits(description.capabilities),
            path: path.to_owned(),
            hash: description.hash.clone(),
            printed,
            description,
            file: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            calls: OnceLock::new(),
        })
    }

    /// The functions of the library, which is loaded for the first who asks.
    pub(super) fn calls(&self) -> Result<Calls, LoadError> {
        let load = || {
            let Library { description, calls } = library::load(&self.file)?;
            let same = description == self.description;
            same.then_some(calls).ok_or(LoadError::Changed)
        };
        self.calls.get_or_init(load).clone()
    }

    /// Whether the library was loaded, or could not be.
    pub(super) fn was_asked_for(&self) -> bool {
        self.calls.get().is_some()
    }

    /// Checks settings against the schema and fills in defaults.
    pub fn resolve_settings(
        &self,
        given: &Map<String, Value>,
    ) -> Result<Map<String, Value>, SettingsError> {
        self.schema.resolve(&self.name, given)
    }

    /// Token ids of the settings that say what generated rows begin with, by their names: as an instance is given them.
    /// `bos` is what texts of the model begin with; `encode` turns a text into tokens and adds none.
    ///
    /// # Errors
    /// [`SettingsError::Prompt`] names the first that the model has no tokens for.
    pub fn prompts(
        &self,
        settings: &Map<String, Value>,
        bos: Option<u32>,
        encode: &mut dyn FnMut(&str) -> Result<Vec<u32>, String>,
    ) -> Result<Vec<(String, Vec<u32>)>, SettingsError> {
        self.schema.prompts(&self.name, settings, bos, encode)
    }

    /// Whether it has such settings.
    pub(super) fn has_prompts(&self) -> bool {
        let mut settings = self.schema.settings.iter();
        settings.any(|setting| setting.types.contains(&SettingType::Prompt))
    }
}

//! The search path of strategy libraries, and the registry of those found on it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    Capabilities, LoadError, Schema, SettingsError,
    library::{self, Calls, Library},
};

/// Environment variable that lists further folders to search, separated as in `PATH`.
pub const SEARCH_VARIABLE: &str = "FORGETLAB_PLUGINS";

/// A strategy library that passed the handshake.
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
    pub(super) calls: Calls,
}

impl Plugin {
    /// Loads one library and checks its descriptor.
    pub fn load(path: &Path) -> Result<Arc<Self>, LoadError> {
        Ok(Self::new(path, library::load(path)?))
    }

    pub(super) fn new(path: &Path, library: Library) -> Arc<Self> {
        Arc::new(Self {
            name: library.name,
            version: library.version,
            summary: library.summary,
            schema: library.schema,
            schema_json: library.schema_json,
            capabilities: library.capabilities,
            path: path.to_owned(),
            hash: library.hash,
            calls: library.calls,
        })
    }

    /// Checks settings against the schema and fills in defaults.
    pub fn resolve_settings(
        &self,
        given: &Map<String, Value>,
    ) -> Result<Map<String, Value>, SettingsError> {
        self.schema.resolve(&self.name, given)
    }
}

/// A folder of the search path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchDir {
    /// The folder; it need not exist.
    pub path: PathBuf,
    /// Why it is searched.
    pub origin: Origin,
}

/// Why a folder is on the search path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Given with `--plugin-dir`; it must exist.
    Flag,
    /// Listed in [`SEARCH_VARIABLE`]; it must exist.
    Environment,
    /// The folder of the binary. It is not for plugins alone, so only files named
    /// `libforgetlab_strategy_*` count.
    Binary,
    /// The folder in the user's home.
    User,
}

/// Folders in the order they are searched: `extra` (from `--plugin-dir`), those of
/// [`SEARCH_VARIABLE`], the folder of the running binary, the user's own.
pub fn search_path(extra: &[PathBuf]) -> Vec<SearchDir> {
    let mut dirs: Vec<SearchDir> = Vec::new();
    let mut add = |path: PathBuf, origin| {
        if !path.as_os_str().is_empty() && dirs.iter().all(|dir| dir.path != path) {
            dirs.push(SearchDir { path, origin });
        }
    };
    for path in extra {
        add(path.clone(), Origin::Flag);
    }
    if let Some(paths) = std::env::var_os(SEARCH_VARIABLE) {
        for path in std::env::split_paths(&paths) {
            add(path, Origin::Environment);
        }
    }
    let binary = std::env::current_exe().and_then(|path| path.canonicalize());
    if let Some(dir) = binary.ok().as_deref().and_then(Path::parent) {
        add(dir.to_owned(), Origin::Binary);
    }
    if let Some(home) = std::env::var_os("HOME") {
        add(
            Path::new(&home).join(".local/share/forgetlab/strategies"),
            Origin::User,
        );
    }
    dirs
}

/// A file or folder that could not be used, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// The file or folder.
    pub path: PathBuf,
    /// The reason.
    pub reason: LoadError,
}

/// The strategies found on a search path.
#[derive(Debug, Default)]
pub struct Registry {
    plugins: Vec<Arc<Plugin>>,
    rejected: Vec<Rejected>,
    searched: Vec<PathBuf>,
}

/// Error for a strategy name that the registry does not have.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("there is no strategy `{name}`; {hint}")]
pub struct UnknownStrategy {
    /// The unknown name.
    pub name: String,
    /// What to do: a similar name, the file that was refused, or the names there are.
    pub hint: String,
}

impl Registry {
    /// Loads every library of the folders. A bad file is listed as rejected; the others are loaded.
    pub fn discover(dirs: &[SearchDir]) -> Self {
        let mut registry = Self::default();
        for dir in dirs {
            registry.searched.push(dir.path.clone());
            for path in registry.libraries(dir) {
                registry.add(path);
            }
        }
        registry.plugins.sort_by(|a, b| a.name.cmp(&b.name));
        registry
    }

    /// Library files of a folder, sorted by name.
    fn libraries(&mut self, dir: &SearchDir) -> Vec<PathBuf> {
        let entries = match std::fs::read_dir(&dir.path) {
            Ok(entries) => entries,
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    && matches!(dir.origin, Origin::Binary | Origin::User) =>
            {
                return Vec::new();
            }
            Err(error) => {
                let reason = LoadError::Unreadable(error.to_string());
                let path = dir.path.clone();
                self.rejected.push(Rejected { path, reason });
                return Vec::new();
            }
        };
        let prefix = format!("{}forgetlab_strategy_", std::env::consts::DLL_PREFIX);
        let mut paths: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.ends_with(std::env::consts::DLL_SUFFIX)
                    && (dir.origin != Origin::Binary || name.starts_with(&prefix))
                    && !path.is_dir()
            })
            .collect();
        paths.sort();
        paths
    }

    fn add(&mut self, path: PathBuf) {
        let reason = match Plugin::load(&path) {
            Err(reason) => reason,
            Ok(plugin) => match self.plugins.iter().find(|other| other.name == plugin.name) {
                None => return self.plugins.push(plugin),
                // The same file found twice is not worth reporting.
                Some(other) if other.hash == plugin.hash => return,
                Some(other) => LoadError::Hidden {
                    name: plugin.name.clone(),
                    path: other.path.clone(),
                },
            },
        };
        self.rejected.push(Rejected { path, reason });
    }

    /// The strategies, sorted by name.
    pub fn plugins(&self) -> &[Arc<Plugin>] {
        &self.plugins
    }

    /// Files and folders that could not be used.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// The searched folders, in order.
    pub fn searched(&self) -> &[PathBuf] {
        &self.searched
    }

    /// The strategy of this name.
    pub fn get(&self, name: &str) -> Result<&Arc<Plugin>, UnknownStrategy> {
        let plugin = self.plugins.iter().find(|plugin| plugin.name == name);
        plugin.ok_or_else(|| UnknownStrategy {
            name: name.into(),
            hint: self.hint(name),
        })
    }

    fn hint(&self, name: &str) -> String {
        // A library that was refused is the likeliest reason, if its file is named after it.
        let stem = name.replace('-', "_");
        let refused = self.rejected.iter().find(|rejected| {
            let file = rejected.path.file_stem().unwrap_or_default();
            file.to_string_lossy().replace('-', "_").ends_with(&stem)
        });
        if let Some(Rejected { path, reason }) = refused {
            return format!("{} {reason}", path.display());
        }
        let names: Vec<&str> = self.plugins.iter().map(|p| p.name.as_str()).collect();
        if let Some(near) = super::nearest(name, names.iter().copied()) {
            return format!("did you mean `{near}`?");
        }
        if !names.is_empty() {
            return format!(
                "there are {}; `--plugin-dir DIR` adds a folder",
                names.join(", ")
            );
        }
        let searched: Vec<String> = self
            .searched
            .iter()
            .map(|p| p.display().to_string())
            .collect();
        format!(
            "no strategy was found in {}; build the workspace or name a folder with `--plugin-dir DIR`",
            searched.join(", ")
        )
    }
}

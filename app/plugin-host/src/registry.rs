//! The search path of strategy libraries, and the registry of those found on it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use thiserror::Error;

use super::{Helper, LoadError, Plugin, trust::Trust};

/// Environment variable that lists further folders to search, separated as in `PATH`.
pub const SEARCH_VARIABLE: &str = "FORGETLAB_PLUGINS";

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
    /// `libforgetlab_strategy_*` count. They keep their names wherever it comes in the search path, so that
    /// figures of a built-in strategy are its own.
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
    if let Some(dir) = std::env::var_os("HOME").and_then(|home| of_home(Path::new(&home))) {
        add(dir, Origin::User);
    }
    dirs
}

/// The folder of strategies in a home. One that is empty or relative is none: it would lead to wherever the
/// program is started.
fn of_home(home: &Path) -> Option<PathBuf> {
    let dir = ".local/share/forgetlab/strategies";
    home.is_absolute().then(|| home.join(dir))
}

/// A file or folder that could not be used, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// The file or folder.
    pub path: PathBuf,
    /// The reason.
    pub reason: LoadError,
}

/// Processes that look at libraries at the same time.
const AT_ONCE: usize = 5;

/// Looks at libraries, some at a time; a result each, in their order.
fn look_at_all(paths: &[PathBuf], helper: &Helper) -> Vec<Result<Arc<Plugin>, LoadError>> {
    let (next, found) = (AtomicUsize::new(0), vec![OnceLock::new(); paths.len()]);
    let look = || {
        while let at = next.fetch_add(1, Ordering::Relaxed)
            && let (Some(path), Some(place)) = (paths.get(at), found.get(at))
        {
            let _ = place.set(Plugin::look_trusted(path, helper));
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(paths.len()) {
            let _ = thread::Builder::new().spawn_scoped(scope, look);
        }
    });
    // Where there are too few descriptors, threads or processes for several at once, there may be enough for one.
    let alone = |path: &PathBuf| Plugin::look_trusted(path, helper);
    let found = paths.iter().zip(found);
    found
        .map(|(path, place)| match place.into_inner() {
            None | Some(Err(LoadError::NotLookedAt(_))) => alone(path),
            Some(found) => found,
        })
        .collect()
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
    /// Looks at every library of the folders, each in a process of its own: none is loaded into this one. What
    /// cannot be used is listed as rejected, and costs nothing else.
    pub fn discover(dirs: &[SearchDir], helper: &Helper) -> Self {
        let mut registry = Self::default();
        let trust = Trust::from_env();
        let (mut own, mut paths) = (Vec::new(), Vec::new());
        for dir in dirs {
            registry.searched.push(dir.path.clone());
            let libraries = registry.trusted_libraries(dir, &trust);
            match dir.origin {
                Origin::Binary => own = libraries,
                _ => paths.extend(libraries),
            }
        }
        paths.splice(0..0, own.iter().cloned());
        for (path, found) in paths.iter().zip(look_at_all(&paths, helper)) {
            registry.add(path, found, &own);
        }
        registry.plugins.sort_by(|a, b| a.name.cmp(&b.name));
        registry
    }

    /// Library files of a folder that nobody else could have put there, sorted by name.
    fn trusted_libraries(&mut self, dir: &SearchDir, trust: &Trust) -> Vec<PathBuf> {
        let libraries = self.libraries(dir);
        let mut trusted = |path: &Path| match trust.check(path) {
            Ok(()) => true,
            Err(reason) => {
                let path = path.to_owned();
                self.rejected.push(Rejected { path, reason });
                false
            }
        };
        // A folder without libraries is nobody's concern.
        if libraries.is_empty() || !trusted(&dir.path) {
            return Vec::new();
        }
        libraries.into_iter().filter(|path| trusted(path)).collect()
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

    /// Adds what was found at a path, unless it has the name of one before it, which may be of the program's `own`.
    fn add(&mut self, path: &Path, found: Result<Arc<Plugin>, LoadError>, own: &[PathBuf]) {
        let reason = match found {
            Err(reason) => reason,
            Ok(plugin) => match self.plugins.iter().find(|other| other.name == plugin.name) {
                None => return self.plugins.push(plugin),
                // The same file found twice is not worth reporting.
                Some(other) if other.hash == plugin.hash => return,
                Some(other) => {
                    let (name, path) = (plugin.name.clone(), other.path.clone());
                    match own.contains(&path) {
                        true => LoadError::NameTaken { name, path },
                        false => LoadError::Hidden { name, path },
                    }
                }
            },
        };
        let path = path.to_owned();
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
        // One that could not even be looked at may be it, whatever its file's name.
        let unseen = self
            .rejected
            .iter()
            .find(|rejected| rejected.reason.is_alarming());
        if let Some(Rejected { path, reason }) = unseen {
            return format!(
                "{} {reason}; there are {}",
                path.display(),
                names.join(", ")
            );
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a program started in a stranger's folder would run the stranger's code.
    #[test]
    fn a_home_that_is_no_whole_path_names_no_folder() {
        for home in ["", ".", "home", "./me"] {
            assert_eq!(of_home(Path::new(home)), None, "{home:?}");
        }
        let dir = "/home/me/.local/share/forgetlab/strategies";
        assert_eq!(of_home(Path::new("/home/me")), Some(dir.into()));
    }
}

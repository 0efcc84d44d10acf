//! The removal of a whole run: killed at any moment, it leaves the run whole or gone, never half of one.

use std::fs;
use std::path::{Path, PathBuf};

use super::file::{DELETING, is_deleting, random_hex, sync_folder};
use super::prune::remove_all;
use super::{RunDir, RunError, RunLock, lock};

/// Removes a run with everything in its folder; the bytes that were freed. A run that is live stays, and so does a
/// folder that is no run beyond doubt.
///
/// # Errors
/// Where it stays, or the disk fails.
pub fn delete(dir: &RunDir) -> Result<u64, RunError> {
    if dir.path().is_symlink() || !dir.is_certain() {
        return Err(RunError::Malformed {
            path: dir.path().to_owned(),
            problem: "it is no run of its own, and stays".into(),
        });
    }
    let _command = dir.command()?;
    let lock = dir.lock()?;
    let bytes = dir.size();
    dir.remove(&lock)?;
    Ok(bytes)
}

impl RunDir {
    /// Removes the folder with everything in it, and what earlier removals that were killed left beside it.
    ///
    /// # Errors
    /// Where the disk fails; then the run is whole or no run any more.
    pub fn remove(&self, _lock: &RunLock) -> Result<(), RunError> {
        let path = fs::canonicalize(self.path()).map_err(RunError::io("find", self.path()))?;
        let beside = path.parent().unwrap_or(&path);
        finish_others(beside);
        let aside = format!("{DELETING}{}-{}", self.name(), random_hex(8));
        let aside = beside.join(aside);
        fs::rename(&path, &aside).map_err(RunError::io("remove", &path))?;
        sync_folder(beside)?;
        finish(&aside)
    }
}

/// Removes a folder under its last name. The lock, which tells others that somebody is at it, goes last.
fn finish(aside: &Path) -> Result<(), RunError> {
    let entries = fs::read_dir(aside).map_err(RunError::io("read", aside))?;
    for entry in entries {
        let entry = entry.map_err(RunError::io("read", aside))?;
        if entry.file_name() != lock::FILE {
            remove_all(&entry.path())?;
        }
    }
    fs::remove_dir_all(aside).map_err(RunError::io("remove", aside))
}

/// Goes on with removals that were killed. What cannot be removed only takes room, and stays.
fn finish_others(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let left = folders
        .map(|entry| entry.path())
        .filter(|path| is_deleting(path));
    for path in left.filter(|path| is_ours(path) && lock::holder(path).is_none()) {
        let _ = finish(&path);
    }
}

/// Whether a removal left it: it has the lock, or nothing at all.
fn is_ours(path: &PathBuf) -> bool {
    let is_empty = || fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    path.join(lock::FILE).is_file() || is_empty()
}

#[cfg(test)]
mod tests {
    use super::super::{OutFolder, Results};
    use super::*;
    use crate::experiment::{Overrides, resolve};

    fn run(path: &Path) -> RunDir {
        let OutFolder::Fresh(run) = RunDir::out(path).unwrap() else {
            panic!()
        };
        let config = resolve("toy-continual", &Overrides::default()).unwrap();
        run.write_config(&config).unwrap();
        fs::write(run.join("summary.csv"), [0; 1000]).unwrap();
        run
    }

    /// Half a run that is listed as one would be compared as one.
    #[test]
    fn a_removal_that_was_killed_leaves_no_run_and_is_finished_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let results = Results::new(folder.path().to_owned());
        let runs = results.runs();
        let (one, two) = (run(&runs.join("one")), run(&runs.join("two")));
        drop(one.lock().unwrap());
        // As a kill leaves it just behind the rename.
        let left = runs.join(".deleting-one-0123456789abcdef");
        fs::rename(one.path(), &left).unwrap();
        let names = || -> Vec<String> {
            let runs = results.run_dirs().unwrap().into_iter();
            runs.map(|(name, _)| name).collect()
        };
        assert_eq!(names(), ["two"]);
        assert!(results.find(".deleting").is_err() && RunDir::open(&left).is_err());
        // Somebody's own.
        let foreign = runs.join(".deleting-mine");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("thesis.tex"), "").unwrap();

        let lock = two.lock().unwrap();
        assert!(matches!(delete(&two), Err(RunError::Busy { .. })));
        drop(lock);
        assert!(left.exists() && two.path().exists());
        assert!((1000..100_000).contains(&delete(&two).unwrap()));
        assert!(!two.path().exists() && !left.exists() && foreign.exists());
        assert!(names().is_empty());
    }

    /// A name that is a link, or a folder with another program's `config.toml`, is no run to remove.
    #[test]
    fn nothing_but_a_run_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let one = run(&folder.path().join("one"));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(one.path(), &link).unwrap();
        let other = folder.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("config.toml"), "[server]\nport = 80\n").unwrap();
        for path in [&link, &other] {
            let error = delete(&RunDir::open(path).unwrap()).unwrap_err();
            assert!(error.to_string().contains("stays"), "{error}");
        }
        assert!(one.path().exists() && other.join("config.toml").exists());
    }
}

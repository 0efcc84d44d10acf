//! Atomic writing of files.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::RunError;

/// Prefix of files and folders that are being written; what has it after a crash can be deleted.
pub(super) const TEMPORARY: &str = ".tmp-";
/// Prefix of the folder of a run that is being removed; what has it after a crash can be deleted.
pub(super) const DELETING: &str = ".deleting-";

/// Replaces `path` by what `fill` writes, atomically: temporary name, write, fsync, rename, fsync
/// of the folder. When anything fails (a full disk, an error of `fill`) the old file is unchanged
/// and the temporary one is removed.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), RunError> {
    let folder = folder_of(path);
    let temporary = temporary_beside(path);
    let result = (|| {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)
            .map_err(RunError::io("create", &temporary))?;
        // Tells it from what a killed process left; not every file system can.
        let _ = file.try_lock();
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        fill(&mut writer).map_err(RunError::io("write", path))?;
        let file = writer
            .into_inner()
            .map_err(|e| RunError::io("write", path)(e.into_error()))?;
        file.sync_all().map_err(RunError::io("write", path))?;
        fs::rename(&temporary, path).map_err(RunError::io("replace", path))?;
        sync_folder(&folder)
    })();
    if result.is_err() {
        // Best effort: the temporary name is never read, and the next write takes it over.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Whether a folder is what is left of a run that is being removed.
pub(super) fn is_deleting(path: &Path) -> bool {
    let name = path.file_name();
    name.is_some_and(|name| name.as_encoded_bytes().starts_with(DELETING.as_bytes()))
}

/// Opens a file to read it; `None` where there is none. What is no file (a folder, a pipe, a device) is refused, since
/// reading it may never end.
pub(super) fn open_regular(path: &Path) -> Result<Option<File>, RunError> {
    match fs::metadata(path) {
        Ok(data) if data.is_file() => {}
        Ok(data) => {
            let kind = match data.is_dir() {
                true => "it is a folder",
                false => "it is not a file",
            };
            return Err(RunError::io("read", path)(io::Error::other(kind)));
        }
        // A link into nowhere is not nothing.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
            return Ok(None);
        }
        Err(error) => return Err(RunError::io("read", path)(error)),
    }
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RunError::io("read", path)(error)),
    }
}

/// Reads a file that is to be small; `None` where there is none.
///
/// # Errors
/// Where it cannot be read, is no file, or has more bytes than `most`.
pub(super) fn read_small(path: &Path, most: u64) -> Result<Option<Vec<u8>>, RunError> {
    let Some(file) = open_regular(path)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(RunError::io("read", path))?;
    if bytes.len() as u64 > most {
        return Err(RunError::Malformed {
            path: path.to_owned(),
            problem: format!("is longer than {most} bytes, so none of forgetlab's"),
        });
    }
    Ok(Some(bytes))
}

/// Makes renames and new names in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<(), RunError> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(RunError::io("sync", folder))
}

/// The folder of forgetlab's shortcuts in the user's cache; `None` where the user has none.
pub fn user_cache() -> Option<PathBuf> {
    let set = |name: &str| {
        let folder = env::var_os(name).map(PathBuf::from);
        folder.filter(|folder| folder.is_absolute())
    };
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("forgetlab"))
}

/// Creates a folder and its parents.
pub(crate) fn create_folder(path: &Path) -> Result<(), RunError> {
    fs::create_dir_all(path).map_err(RunError::io("create", path))
}

/// Removes a file, if it is there.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), RunError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RunError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes from a folder what was being written when a process was killed. What another one is writing now is locked.
pub(super) fn remove_leftovers(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        let leftover = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(TEMPORARY.as_bytes());
        let kind = entry
            .file_type()
            .ok()
            .filter(|kind| leftover && !kind.is_symlink());
        // It only takes room: what cannot be removed stays.
        let _ = match kind {
            Some(kind) if kind.is_dir() && is_unused(&path) => fs::remove_dir_all(&path),
            Some(kind) if kind.is_file() && is_unused(&path) => fs::remove_file(&path),
            _ => Ok(()),
        };
    }
}

/// Notes that a file of a cache was of use now, by its time. It may lie where nothing can be changed.
pub fn mark_used(path: &Path) {
    let opened = OpenOptions::new().append(true).open(path);
    let _ = opened.and_then(|file| file.set_modified(SystemTime::now()));
}

/// Whether nobody is writing a temporary file or folder any more.
pub(super) fn is_unused(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// Random hex digits, 16 at most, for names that must not collide.
pub(super) fn random_hex(digits: usize) -> String {
    use std::hash::{BuildHasher, RandomState};
    // RandomState is seeded by the operating system.
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))[..digits.min(16)].to_owned()
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(TEMPORARY);
    name.push(format!("{}-", std::process::id()));
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A user would lose the last good CSV (or checkpoint) to a disk that fills while a new one
    /// is being written.
    #[test]
    fn a_full_disk_leaves_the_old_file_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.csv");
        write_atomically(&path, |w| w.write_all(b"old")).unwrap();
        let error = write_atomically(&path, |w| {
            w.write_all(&vec![0; 3 << 20])?;
            Err(io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert!(error.is_disk_full());
        let text = error.to_string();
        assert!(
            text.contains("metrics.csv") && text.contains("free some space"),
            "{text}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["metrics.csv"]);
    }

    /// Every kill would leave a file for good, in the cache as large as a model.
    #[test]
    fn what_killed_processes_left_is_removed_and_what_is_written_now_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.csv");
        fs::write(dir.path().join(".tmp-1-metrics.csv"), "half").unwrap();
        fs::create_dir_all(dir.path().join(".tmp-0a1b/deep")).unwrap();
        write_atomically(&path, |w| {
            w.write_all(b"new")?;
            remove_leftovers(dir.path());
            assert_eq!(names(dir.path()).len(), 1, "its own");
            Ok(())
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["metrics.csv"]);
    }

    /// The message for an unwritable folder must name it.
    #[test]
    fn a_missing_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone/metrics.csv");
        let error = write_atomically(&path, |w| w.write_all(b"x")).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }
}

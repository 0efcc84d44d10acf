//! Atomic writing of files.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::RunError;

/// Prefix of files and folders that are being written; what has it after a crash can be deleted.
pub(super) const TEMPORARY: &str = ".tmp-";

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

/// Makes renames and new names in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<(), RunError> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(RunError::io("sync", folder))
}

/// Creates a folder and its parents.
pub(super) fn create_folder(path: &Path) -> Result<(), RunError> {
    fs::create_dir_all(path).map_err(RunError::io("create", path))
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

    /// The message for an unwritable folder must name it.
    #[test]
    fn a_missing_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone/metrics.csv");
        let error = write_atomically(&path, |w| w.write_all(b"x")).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }
}

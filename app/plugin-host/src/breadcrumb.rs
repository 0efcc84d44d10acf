//! A small file that names the current plugin call, to identify the culprit after a crash.
//!
//! One record of fixed length, overwritten in place before each call and blanked after it. It is not
//! synced: it must outlive the process, not the machine. All instances of a run share one open file.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// Bytes of the record, newline included.
const LEN: usize = 512;
/// Bytes kept of an arm's slug: no slug is longer, and the hint to skip the arm must repeat it in full.
const ARM: usize = 160;
/// Bytes kept of a plugin's name.
const PLUGIN: usize = 64;

/// The plugin call a process was in when it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breadcrumb {
    /// Name of the strategy.
    pub plugin: String,
    /// Arm it served.
    pub arm: String,
    /// Callback, e.g. `next_batch`, with the host service it was in, if any.
    pub call: String,
    /// Process id.
    pub pid: u32,
}

/// Reads a breadcrumb; `None` where the process was in no plugin (or never had one).
pub fn read(path: &Path) -> Option<Breadcrumb> {
    // A pipe in its place would keep whoever reads it.
    let found = std::fs::metadata(path).ok().filter(Metadata::is_file);
    let record = found.and_then(|_| std::fs::read(path).ok())?;
    serde_json::from_slice(&record).ok()
}

/// The file of a run's breadcrumbs, for instances that take turns.
#[derive(Clone, Debug)]
pub struct Breadcrumbs(Arc<File>);

impl Breadcrumbs {
    /// Opens the file, which need not exist, and makes room for the record.
    ///
    /// # Errors
    /// Where it cannot be written, or is no regular file: to open a pipe would wait for somebody who reads it.
    pub fn open(path: &Path) -> io::Result<Self> {
        if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::other("it is no regular file; remove it"));
        }
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        let crumbs = Self(Arc::new(file));
        crumbs.write(Vec::new())?;
        Ok(crumbs)
    }

    /// Overwrites the record with a text, which it is longer than.
    fn write(&self, mut record: Vec<u8>) -> io::Result<()> {
        record.resize(LEN - 1, b' ');
        record.push(b'\n');
        #[cfg(unix)]
        let written = std::os::unix::fs::FileExt::write_all_at(&*self.0, &record, 0);
        #[cfg(windows)]
        let written = std::os::windows::fs::FileExt::seek_write(&*self.0, &record, 0).map(drop);
        written
    }
}

/// Writer of an instance's breadcrumbs.
#[derive(Debug)]
pub(super) struct Trail {
    crumbs: Option<Breadcrumbs>,
    plugin: String,
    arm: String,
}

impl Trail {
    /// The trail of a plugin that serves an arm; without a file nothing is written.
    pub(super) fn new(crumbs: Option<Breadcrumbs>, plugin: &str, arm: &str) -> Self {
        let short = |text: &str, len| text[..text.floor_char_boundary(len)].to_owned();
        Self {
            crumbs,
            plugin: short(plugin, PLUGIN),
            arm: short(arm, ARM),
        }
    }

    /// Records the call about to be made.
    pub(super) fn leave(&self, call: &str) {
        let crumb = Breadcrumb {
            plugin: self.plugin.clone(),
            arm: self.arm.clone(),
            call: call.into(),
            pid: std::process::id(),
        };
        if let Ok(record) = serde_json::to_vec(&crumb) {
            self.write(record);
        }
    }

    /// Records that no call is in progress.
    pub(super) fn clear(&self) {
        self.write(Vec::new());
    }

    /// Errors are ignored: there was room for the record when the file was opened, and a call that is not noted is
    /// no reason to end a run.
    fn write(&self, record: Vec<u8>) {
        if let Some(crumbs) = &self.crumbs {
            let _ = crumbs.write(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else nobody could tell which plugin took a run down, or an innocent one would be blamed.
    #[test]
    fn names_the_call_under_way_and_nothing_after_it() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("plugin-call");
        assert_eq!(read(&path), None);
        let long = "arm-".repeat(400);
        let crumbs = Breadcrumbs::open(&path).expect("open");
        assert_eq!(read(&path), None);
        let trail = Trail::new(Some(crumbs), "self-generated", &long);
        trail.leave("next_batch > generate");
        let crumb = read(&path).expect("crumb");
        assert_eq!(crumb.plugin, "self-generated");
        assert_eq!(crumb.call, "next_batch > generate");
        assert_eq!(crumb.pid, std::process::id());
        trail.leave("save");
        assert_eq!(read(&path).expect("crumb").call, "save");
        trail.clear();
        assert_eq!(read(&path), None);
    }

    /// Else a run of a thousand arms would meet the usual limit on open files, and its strategies be blamed for it.
    #[test]
    #[cfg(target_os = "linux")]
    fn instances_share_one_open_file() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("plugin-call");
        let crumbs = Breadcrumbs::open(&path).expect("open");
        let trails: Vec<Trail> = (0..100)
            .map(|i| Trail::new(Some(crumbs.clone()), "p", &format!("arm {i}")))
            .collect();
        let descriptors = std::fs::read_dir("/proc/self/fd").expect("descriptors");
        let ours = descriptors
            .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .filter(|target| *target == path);
        assert_eq!(ours.count(), 1);
        trails[1].leave("next_batch");
        assert_eq!(read(&path).expect("crumb").arm, "arm 1");
        trails[1].clear();
        trails[7].leave("save");
        assert_eq!(read(&path).expect("crumb").arm, "arm 7");
    }

    /// Else a pipe of that name would hang every command that looks at the run, and its resume.
    #[test]
    #[cfg(unix)]
    fn what_is_no_regular_file_is_neither_read_nor_waited_for() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("plugin-call");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo").success());
        assert_eq!(read(&path), None);
        let error = Breadcrumbs::open(&path).expect_err("no file").to_string();
        assert!(error.contains("no regular file"), "{error}");
    }

    /// Else the hint to go on without the arm would name none.
    #[test]
    fn a_long_arm_is_named_in_full() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("plugin-call");
        let arm = "a".repeat(ARM);
        let crumbs = Breadcrumbs::open(&path).expect("open");
        let trail = Trail::new(Some(crumbs), &"é".repeat(400), &arm);
        trail.leave("phase_started > keep_snapshot");
        assert_eq!(read(&path).expect("crumb").arm, arm);
    }
}

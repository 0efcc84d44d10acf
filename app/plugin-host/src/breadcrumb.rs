//! A small file that names the current plugin call, to identify the culprit after a crash.
//!
//! One record of fixed length, overwritten in place before each call and blanked after it. It is not
//! synced: it must outlive the process, not the machine.

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
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
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Writer of an instance's breadcrumbs.
#[derive(Debug)]
pub(super) struct Trail {
    file: Option<File>,
    plugin: String,
    arm: String,
}

impl Trail {
    /// Opens the file, which need not exist; without a path nothing is written.
    pub(super) fn open(path: Option<&Path>, plugin: &str, arm: &str) -> io::Result<Self> {
        let file = path
            .map(|path| {
                let mut options = OpenOptions::new();
                options.create(true).truncate(false).write(true).open(path)
            })
            .transpose()?;
        let short = |text: &str, len| text[..text.floor_char_boundary(len)].to_owned();
        Ok(Self {
            file,
            plugin: short(plugin, PLUGIN),
            arm: short(arm, ARM),
        })
    }

    /// Records the call about to be made.
    pub(super) fn leave(&self, call: &str) {
        let crumb = Breadcrumb {
            plugin: self.plugin.clone(),
            arm: self.arm.clone(),
            call: call.into(),
            pid: std::process::id(),
        };
        if let Ok(mut record) = serde_json::to_vec(&crumb) {
            record.resize(LEN - 1, b' ');
            self.write(record);
        }
    }

    /// Records that no call is in progress.
    pub(super) fn clear(&self) {
        self.write(vec![b' '; LEN - 1]);
    }

    /// Overwrites the record. Errors are ignored: they are no reason to end a run.
    fn write(&self, mut record: Vec<u8>) {
        record.push(b'\n');
        let Some(file) = &self.file else { return };
        #[cfg(unix)]
        let written = std::os::unix::fs::FileExt::write_all_at(file, &record, 0);
        #[cfg(windows)]
        let written = std::os::windows::fs::FileExt::seek_write(file, &record, 0);
        drop(written);
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
        let trail = Trail::open(Some(&path), "self-generated", &long).expect("open");
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
    /// Else the hint to go on without the arm would name none.
    #[test]
    fn a_long_arm_is_named_in_full() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("plugin-call");
        let arm = "a".repeat(ARM);
        let trail = Trail::open(Some(&path), &"é".repeat(400), &arm).expect("open");
        trail.leave("phase_started > keep_snapshot");
        assert_eq!(read(&path).expect("crumb").arm, arm);
    }
}

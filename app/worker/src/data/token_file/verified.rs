//! Which content was looked at: so that a file of gigabytes is hashed once, and opened at once from then on.
//!
//! It is only a shortcut, in the user's cache: trusted where the file is still the one that was hashed (device, inode,
//! length, both times), and written where it can be.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use forgetlab_study::run::write_atomically;
use serde::{Deserialize, Serialize};

/// A file as the system knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    /// Unlike the time before it, nobody sets this one.
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(data: &Metadata) -> Self {
        Self {
            device: data.dev(),
            inode: data.ino(),
            length: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }
}

/// A token file whose content was looked at.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Verified {
    pub(super) identity: Identity,
    /// Every token is below this.
    pub(super) vocab_size: u64,
    /// Hash of the content.
    pub(super) blake3: String,
}

impl Verified {
    /// What is remembered of a token file.
    pub(super) fn read(cache: &Path, tokens: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(place(cache, tokens)?).ok()?).ok()
    }

    /// Remembers it. Where that cannot be done the file is read again the next time.
    pub(super) fn write(&self, cache: &Path, tokens: &Path) {
        let Some(path) = place(cache, tokens) else {
            return;
        };
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        if let (Ok(()), Ok(json)) = (folder, serde_json::to_vec(self)) {
            let _ = write_atomically(&path, |out| out.write_all(&json));
        }
    }
}

fn place(cache: &Path, tokens: &Path) -> Option<PathBuf> {
    let tokens = fs::canonicalize(tokens).ok()?;
    let name = blake3::hash(tokens.as_os_str().as_encoded_bytes()).to_hex();
    Some(cache.join(format!("tokens/{}.json", &name[..32])))
}

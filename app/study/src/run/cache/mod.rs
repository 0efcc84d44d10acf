//! Cache of trained phases, shared between runs and keyed by a content hash; what lies in it, and making room.

mod entries;

use std::fs::{self, File};
use std::path::PathBuf;

use serde_json::Value;

use super::RunError;
use super::checkpoint::{Checkpoint, Content, NamedTensor, read_checkpoint, write_checkpoint};
use super::file::{TEMPORARY, create_folder, mark_used, random_hex, remove_leftovers, sync_folder};

pub use entries::{CacheEntry, CacheKind};

/// Checkpoints under `results/cache/<hash>/`.
#[derive(Clone, Debug)]
pub struct PhaseCache {
    folder: PathBuf,
}

/// Result of looking up a content hash.
#[derive(Debug)]
pub enum Cached {
    /// The phase was trained before.
    Hit(Box<Checkpoint>),
    /// There is no entry.
    Miss,
    /// The entry cannot be used, for this reason: warn, and train again.
    Corrupt(String),
}

impl PhaseCache {
    /// The cache in `folder`, which the first [`PhaseCache::put`] creates.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Looks up a content hash.
    pub fn get(&self, hash: &str) -> Cached {
        let path = self.entry(hash).join("checkpoint.json");
        if !path.exists() {
            return Cached::Miss;
        }
        match read_checkpoint(&path) {
            Ok(checkpoint) => {
                mark_used(&path);
                Cached::Hit(Box::new(checkpoint))
            }
            Err(error) => Cached::Corrupt(format!("cache entry ignored: {error}")),
        }
    }

    /// Whether there is an entry, which may turn out to be corrupt.
    pub fn has(&self, hash: &str) -> bool {
        self.entry(hash).join("checkpoint.json").exists()
    }

    /// Stores the result of a phase, atomically. A valid entry of another process is kept; a corrupt one
    /// is replaced.
    pub fn put(
        &self,
        hash: &str,
        step: u64,
        phase: usize,
        tensors: &[NamedTensor],
        state: Value,
    ) -> Result<(), RunError> {
        let entry = self.entry(hash);
        let temporary = self.folder.join(format!("{TEMPORARY}{}", random_hex(8)));
        remove_leftovers(&self.folder);
        create_folder(&temporary)?;
        let busy = File::open(&temporary).map_err(RunError::io("open", &temporary))?;
        let _ = busy.try_lock();
        let content = Content {
            step,
            phase,
            tensors,
            state,
            events: None,
        };
        let result = write_checkpoint(&temporary.join("checkpoint.json"), content).and_then(|_| {
            if entry.exists() && !matches!(self.get(hash), Cached::Hit(_)) {
                fs::remove_dir_all(&entry).map_err(RunError::io("remove", &entry))?;
            }
            match fs::rename(&temporary, &entry) {
                Err(_) if matches!(self.get(hash), Cached::Hit(_)) => Ok(()),
                other => other.map_err(RunError::io("create", &entry)),
            }
        });
        if temporary.exists() {
            // Best effort: nobody reads a temporary name.
            let _ = fs::remove_dir_all(&temporary);
        }
        result.and_then(|()| sync_folder(&self.folder))
    }

    fn entry(&self, hash: &str) -> PathBuf {
        self.folder.join(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &PhaseCache, value: f32) {
        let values = [value];
        let tensors = [NamedTensor::f32("w", &[1], &values)];
        cache.put("abc", 150, 0, &tensors, Value::Null).unwrap();
    }

    fn value(cached: Cached) -> f32 {
        let Cached::Hit(checkpoint) = cached else {
            panic!("{cached:?}")
        };
        checkpoint.f32("w").unwrap().1[0]
    }

    /// A spoilt cache must cost time, never correctness.
    #[test]
    fn a_corrupt_entry_is_ignored_and_then_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let cache = PhaseCache::new(dir.path().join("cache"));
        assert!(matches!(cache.get("abc"), Cached::Miss));
        put(&cache, 1.0);
        assert_eq!(value(cache.get("abc")), 1.0);
        // Two runs that trained the same phase at once: the first to publish wins.
        put(&cache, 2.0);
        assert_eq!(value(cache.get("abc")), 1.0);
        fs::write(dir.path().join("cache/abc/checkpoint.safetensors"), "torn").unwrap();
        assert!(matches!(cache.get("abc"), Cached::Corrupt(_)));
        put(&cache, 3.0);
        assert_eq!(value(cache.get("abc")), 3.0);
        assert_eq!(fs::read_dir(dir.path().join("cache")).unwrap().count(), 1);
    }
}

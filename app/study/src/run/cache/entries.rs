//! What lies in the cache, whether it can still be used, and its removal.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::super::RunError;
use super::super::checkpoint::inspect_checkpoint;
use super::super::file::{TEMPORARY, is_unused, random_hex, read_small};
use super::super::prune::{remove_all, size};
use super::PhaseCache;

/// Folder of texts that were tokenized.
const TOKENS: &str = "tokens";
/// What tells of a first phase.
const CHECKPOINT: &str = "checkpoint.json";
/// A text gets its description just after its tokens: without one it may still be written for so long.
const STILL_WRITTEN: Duration = Duration::from_secs(60);
/// Bytes of a description, at most.
const LONGEST: u64 = 16 << 20;

/// Something in the cache.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheEntry {
    /// Its name without endings: a content hash.
    pub hash: String,
    /// The files or folders it consists of.
    pub paths: Vec<PathBuf>,
    /// Bytes of them all.
    pub bytes: u64,
    /// When it was written, or used last.
    pub used: SystemTime,
    /// What it is, as far as it tells.
    pub kind: CacheKind,
    /// Why it cannot be used, if it cannot.
    pub damage: Option<String>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq)]
pub enum CacheKind {
    /// A first phase that was trained.
    FirstPhase {
        /// The dataset it was trained on.
        dataset: Option<String>,
        /// Steps.
        steps: Option<u64>,
        /// Parameters of the model.
        parameters: Option<u64>,
    },
    /// A text as tokens.
    Tokens {
        /// Number of tokens.
        tokens: Option<u64>,
        /// The tokenizer, as it was named.
        tokenizer: Option<String>,
        /// The files that were tokenized.
        sources: Vec<PathBuf>,
    },
    /// What a process that was killed had begun to write.
    Leftover,
}

impl PhaseCache {
    /// Everything in the cache but what is being written now, the oldest first.
    ///
    /// # Errors
    /// Where a folder cannot be read.
    pub fn entries(&self) -> Result<Vec<CacheEntry>, RunError> {
        let tokens = self.folder.join(TOKENS);
        let mut entries = Vec::new();
        for path in children(&self.folder)? {
            if path != tokens {
                entries.extend(leftover(&path).unwrap_or_else(|| first_phase(&path)));
            }
        }
        for path in children(&tokens)? {
            entries.extend(leftover(&path).unwrap_or_else(|| tokenized(&path)));
        }
        entries.sort_by(|a, b| (a.used, &a.hash).cmp(&(b.used, &b.hash)));
        Ok(entries)
    }
}

impl CacheEntry {
    /// Whether nothing is lost where it goes: nobody can use it.
    pub fn is_useless(&self) -> bool {
        self.damage.is_some() || self.kind == CacheKind::Leftover
    }

    /// Time since it was written or used last.
    pub fn age(&self) -> Duration {
        SystemTime::now()
            .duration_since(self.used)
            .unwrap_or_default()
    }

    /// Removes it. What is being written, or was used meanwhile, stays.
    ///
    /// # Errors
    /// Where it stays, or cannot be removed.
    pub fn remove(&self) -> Result<(), RunError> {
        let Some(first) = self.paths.first() else {
            return Ok(());
        };
        let changed = self.paths.iter().any(|path| used(path) > Some(self.used));
        if changed || self.kind == CacheKind::Leftover && !is_unused(first) {
            return Err(RunError::Malformed {
                path: first.clone(),
                problem: "it was used meanwhile, and stays".into(),
            });
        }
        for path in &self.paths {
            // Under a temporary name first: a process that looks for it finds it whole, or not at all.
            let aside = path.with_file_name(format!("{TEMPORARY}{}", random_hex(8)));
            fs::rename(path, &aside).map_err(RunError::io("remove", path))?;
            remove_all(&aside)?;
        }
        Ok(())
    }
}

/// What is in a folder, links apart; nothing where there is none.
fn children(folder: &Path) -> Result<Vec<PathBuf>, RunError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(RunError::io("read", folder))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(RunError::io("read", folder))?.path();
        if !path.is_symlink() {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// When a file or folder was changed last; a use is noted at the files.
fn used(path: &Path) -> Option<SystemTime> {
    let changed = |path: &Path| fs::symlink_metadata(path).ok()?.modified().ok();
    changed(path).max(changed(&path.join(CHECKPOINT)))
}

/// An entry of these files, the main one first.
fn entry(hash: String, paths: Vec<PathBuf>, kind: CacheKind, damage: Option<String>) -> CacheEntry {
    CacheEntry {
        bytes: paths.iter().map(|path| size(path)).sum(),
        used: paths
            .iter()
            .filter_map(|path| used(path))
            .max()
            .unwrap_or(SystemTime::UNIX_EPOCH),
        hash,
        paths,
        kind,
        damage,
    }
}

/// A temporary name: `None` where it is none, nothing where somebody is writing it now.
fn leftover(path: &Path) -> Option<Option<CacheEntry>> {
    let name = file_name(path);
    name.starts_with(TEMPORARY).then(|| {
        is_unused(path).then(|| entry(name, vec![path.to_owned()], CacheKind::Leftover, None))
    })
}

/// The folder of a first phase; what else lies in the cache is nobody's business.
fn first_phase(path: &Path) -> Option<CacheEntry> {
    let hash = file_name(path);
    let is_hash = hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit());
    if !is_hash || !path.is_dir() {
        return None;
    }
    let (kind, damage) = match inspect_checkpoint(&path.join(CHECKPOINT)) {
        Ok((info, parameters)) => {
            let kind = CacheKind::FirstPhase {
                dataset: trained_on(&info.state),
                steps: Some(info.step),
                parameters: Some(parameters).filter(|&parameters| parameters > 0),
            };
            (kind, None)
        }
        Err(error) => {
            let kind = CacheKind::FirstPhase {
                dataset: None,
                steps: None,
                parameters: None,
            };
            (kind, Some(error.to_string()))
        }
    };
    Some(entry(hash, vec![path.to_owned()], kind, damage))
}

/// The dataset that was new at the last evaluation.
fn trained_on(state: &Value) -> Option<String> {
    let last = state.get("evaluations")?.as_array()?.last()?;
    let mut scores = last.get("scores")?.as_array()?.iter();
    let new = scores.find(|score| score.get("role").and_then(Value::as_str) == Some("new"))?;
    Some(new.get("dataset")?.as_str()?.to_owned())
}

/// A file of tokens with its description, which may be all that is left.
fn tokenized(path: &Path) -> Option<CacheEntry> {
    let name = file_name(path);
    let beside = path.with_file_name(format!("{name}.json"));
    let (hash, paths) = match (name.strip_suffix(".bin"), name.strip_suffix(".bin.json")) {
        // The description first: without it nobody takes the tokens for whole.
        (Some(hash), _) if beside.exists() => (hash, vec![beside, path.to_owned()]),
        (Some(hash), _) => (hash, vec![path.to_owned()]),
        (_, Some(hash)) if !path.with_extension("").exists() => (hash, vec![path.to_owned()]),
        _ => return None,
    };
    let (kind, damage) = described(path, &paths);
    let entry = entry(hash.to_owned(), paths, kind, damage);
    let half = entry.paths.len() == 1;
    (!half || entry.age() > STILL_WRITTEN).then_some(entry)
}

/// What the description of tokens says, held against them.
fn described(tokens: &Path, paths: &[PathBuf]) -> (CacheKind, Option<String>) {
    let nothing = CacheKind::Tokens {
        tokens: None,
        tokenizer: None,
        sources: Vec::new(),
    };
    let [json, _] = paths else {
        return (
            nothing,
            Some("the tokens or their description are gone".into()),
        );
    };
    let read = read_small(json, LONGEST).ok().flatten();
    let said: Value = match read.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        Some(said) => said,
        None => return (nothing, Some("its description cannot be read".into())),
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let sources = said.get("sources").and_then(Value::as_array);
    let sources = sources.into_iter().flatten();
    let count = said.get("tokens").and_then(Value::as_u64);
    let width = match said.get("dtype").and_then(Value::as_str) {
        Some("u16") => Some(2),
        Some("u32") => Some(4),
        _ => None,
    };
    let fits = count
        .zip(width)
        .map(|(count, width)| count * width == size(tokens));
    let kind = CacheKind::Tokens {
        tokens: count,
        tokenizer: said.get("tokenizer").and_then(text),
        sources: sources
            .filter_map(|source| Some(PathBuf::from(source.get("path")?.as_str()?)))
            .collect(),
    };
    let damage = (fits == Some(false)).then(|| "it has another length than it should".to_owned());
    (kind, damage)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::NamedTensor;
    use super::*;

    const HASH: &str = "0a1b2c3d0a1b2c3d0a1b2c3d0a1b2c3d0a1b2c3d0a1b2c3d0a1b2c3d0a1b2c3d";

    fn cache() -> (tempfile::TempDir, PhaseCache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = PhaseCache::new(dir.path().join("cache"));
        let values = [1.0; 6];
        let tensors = [
            NamedTensor::f32("student.w", &[2, 3], &values),
            NamedTensor::f32("m.w", &[2, 3], &values),
        ];
        let state = json!({ "evaluations": [{ "scores": [
            { "dataset": "es", "role": "future" }, { "dataset": "en", "role": "new" },
        ] }] });
        cache.put(HASH, 150, 0, &tensors, state).unwrap();
        (dir, cache)
    }

    fn tokens(cache: &PhaseCache) -> PathBuf {
        let folder = cache.folder.join(TOKENS);
        fs::create_dir(&folder).unwrap();
        let path = folder.join("77aa.bin");
        fs::write(&path, [0; 8]).unwrap();
        let said = json!({ "tokens": 4, "dtype": "u16", "tokenizer": "small.json",
            "sources": [{ "path": "a/en.txt", "blake3": "" }] });
        fs::write(folder.join("77aa.bin.json"), said.to_string()).unwrap();
        path
    }

    /// Else nobody could tell what takes the room.
    #[test]
    fn entries_say_what_they_are() {
        let (_dir, cache) = cache();
        tokens(&cache);
        let entries = cache.entries().unwrap();
        let [phase, text] = &entries[..] else {
            panic!("{entries:?}")
        };
        assert_eq!(
            phase.kind,
            CacheKind::FirstPhase {
                dataset: Some("en".into()),
                steps: Some(150),
                parameters: Some(6),
            }
        );
        assert_eq!(
            text.kind,
            CacheKind::Tokens {
                tokens: Some(4),
                tokenizer: Some("small.json".into()),
                sources: vec!["a/en.txt".into()],
            }
        );
        assert!(
            entries
                .iter()
                .all(|entry| !entry.is_useless() && entry.bytes > 0)
        );
        for entry in entries {
            entry.remove().unwrap();
        }
        assert_eq!(cache.entries().unwrap(), []);
        let left = fs::read_dir(&cache.folder).unwrap().count();
        assert_eq!(left, 1, "the folder of tokens");
        assert_eq!(PhaseCache::new("nowhere".into()).entries().unwrap(), []);
    }

    /// Else a damaged entry would take its room for good, and foreign files would go.
    #[test]
    fn damage_is_told_and_what_is_foreign_is_not() {
        let (_dir, cache) = cache();
        let path = tokens(&cache);
        fs::write(path, [0; 6]).unwrap();
        fs::write(cache.folder.join("notes.txt"), "mine").unwrap();
        fs::create_dir(cache.folder.join("mine")).unwrap();
        let torn = cache.folder.join(HASH).join("checkpoint.safetensors");
        let mut bytes = fs::read(&torn).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&torn, bytes).unwrap();
        let entries = cache.entries().unwrap();
        assert_eq!(entries.len(), 2);
        assert!(entries.iter().all(|entry| entry.damage.is_some()));
        fs::remove_file(cache.folder.join(HASH).join("checkpoint.json")).unwrap();
        let mut entries = cache.entries().unwrap().into_iter();
        assert!(entries.all(|entry| entry.is_useless()));
    }

    /// Else a worker would lose what it is just writing.
    #[test]
    fn what_is_being_written_is_left_alone() {
        let (_dir, cache) = cache();
        let temporary = cache.folder.join(".tmp-0123");
        fs::create_dir(&temporary).unwrap();
        let busy = fs::File::open(&temporary).unwrap();
        busy.try_lock().unwrap();
        assert_eq!(cache.entries().unwrap().len(), 1);
        drop(busy);
        let entries = cache.entries().unwrap();
        let left = entries.iter().find(|e| e.kind == CacheKind::Leftover);
        let left = left.unwrap();
        assert!(left.is_useless());
        let busy = fs::File::open(&temporary).unwrap();
        busy.try_lock().unwrap();
        assert!(left.remove().is_err());
        drop(busy);
        left.remove().unwrap();
        assert!(!temporary.exists());
        // Used between the list and the answer.
        let phase = cache.entries().unwrap().remove(0);
        let later = SystemTime::now() + Duration::from_secs(5);
        let json = cache.folder.join(HASH).join(CHECKPOINT);
        let json = fs::File::options().append(true).open(json).unwrap();
        json.set_modified(later).unwrap();
        assert!(phase.remove().is_err());
    }
}

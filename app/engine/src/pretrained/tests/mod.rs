//! Pretrained models as their users have them: right ones, and every kind of wrong one.

mod damaged;
mod evil_hub;
mod export;
mod families;
mod folder;
mod gguf;
mod hub;
mod states;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::model::{Layout, ModelConfig, Params};

use super::model::CONFIG;
use super::{DownloadProgress, Hub, Pretrained, PretrainedError, Source, open};

/// A checkpoint of the fixtures: `tied` or `untied`.
fn fixture(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(format!("llama-tiny-{kind}"))
}

/// A checkpoint of the fixtures of families.
fn family(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/families")
        .join(name)
}

/// A hub without network and without a cache.
fn no_hub() -> Hub {
    Hub {
        endpoint: "http://127.0.0.1:9".into(),
        cache: "/nonexistent".into(),
        token: None,
        offline: true,
    }
}

/// Opens a folder or a file.
fn open_path(path: &Path) -> Result<Pretrained, PretrainedError> {
    open(path.to_str().expect("UTF-8"), &no_hub(), &())
}

/// A copy of a fixture, which tests may change.
fn copy(kind: &str) -> TempDir {
    copy_of(&fixture(kind))
}

/// A copy of a checkpoint, which tests may change.
fn copy_of(checkpoint: &Path) -> TempDir {
    let folder = tempfile::tempdir().expect("folder");
    for file in [CONFIG, "model.safetensors"] {
        fs::copy(checkpoint.join(file), folder.path().join(file)).expect("copy");
    }
    folder
}

/// Sets keys of a folder's `config.json`; null removes a key.
fn set(folder: &Path, keys: &[(&str, Value)]) {
    let path = folder.join(CONFIG);
    let text = fs::read_to_string(&path).expect("config");
    let mut config: serde_json::Map<String, Value> = serde_json::from_str(&text).expect("JSON");
    for (key, value) in keys {
        match value {
            Value::Null => drop(config.remove(*key)),
            value => drop(config.insert((*key).into(), value.clone())),
        }
    }
    fs::write(path, serde_json::to_string(&config).expect("JSON")).expect("write");
}

/// Requires an error whose message contains all of these texts.
#[track_caller]
fn refused<T>(result: Result<T, PretrainedError>, says: &[&str]) {
    let Err(error) = result else {
        panic!("accepted; should say {says:?}")
    };
    let text = error.to_string();
    for part in says {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

//! Checkpoints: tensors in a safetensors file, everything else in a JSON file beside it.
//!
//! The JSON file holds the hash of the safetensors file and a checksum of its own, and is renamed into place last, so
//! a checkpoint exists exactly when its JSON does and is whole exactly when both agree.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event_log::{Chain, sealed};
use super::file::{TEMPORARY, open_regular, read_small, remove_if_there};
use super::{Mark, RunError, write_atomically};

/// Version of the checkpoint format. From version 2 on the JSON carries a checksum.
const FORMAT: u32 = 2;
/// The first version that this program reads.
const OLDEST: u32 = 1;
/// A JSON file with more bytes is none of ours.
const LONGEST_JSON: u64 = 1 << 30;

/// A tensor to be saved, with borrowed values.
#[derive(Clone, Debug)]
pub struct NamedTensor<'a> {
    /// Name, unique within the checkpoint.
    pub name: String,
    /// Shape; its product is the number of values.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub data: TensorData<'a>,
}

/// Values of a [`NamedTensor`].
#[derive(Clone, Copy, Debug)]
pub enum TensorData<'a> {
    /// Weights, moments, losses.
    F32(&'a [f32]),
    /// Token ids.
    U32(&'a [u32]),
    /// Opaque bytes, e.g. the state of a plugin.
    U8(&'a [u8]),
}

impl<'a> NamedTensor<'a> {
    /// A tensor of f32 values.
    pub fn f32(name: impl Into<String>, shape: &[usize], data: &'a [f32]) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
            data: TensorData::F32(data),
        }
    }

    /// A tensor of u32 values.
    pub fn u32(name: impl Into<String>, shape: &[usize], data: &'a [u32]) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
            data: TensorData::U32(data),
        }
    }

    /// A tensor of opaque bytes.
    pub fn bytes(name: impl Into<String>, data: &'a [u8]) -> Self {
        Self {
            name: name.into(),
            shape: vec![data.len()],
            data: TensorData::U8(data),
        }
    }
}

impl<'a> TensorData<'a> {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::U32(_) => Dtype::U32,
            Self::U8(_) => Dtype::U8,
        }
    }

    fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::U32(values) => bytemuck::cast_slice(values),
            Self::U8(values) => values,
        }
    }
}

/// Contents of a checkpoint's JSON file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// Version of the format.
    pub format: u32,
    /// Steps of the arm.
    pub step: u64,
    /// Phase the arm was in, from 0.
    pub phase: usize,
    /// blake3 of the safetensors file, in hex.
    pub blake3: String,
    /// Length of the safetensors file; older versions do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How far the run's events went when it was written, where it goes on from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Mark>,
    /// State of the trainer beside the tensors (finite numbers only: JSON has no NaN).
    pub state: Value,
}

/// A checkpoint read back, its hash verified.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Path of its JSON file.
    pub path: PathBuf,
    /// Contents of the JSON file.
    pub info: CheckpointInfo,
    bytes: Vec<u8>,
}

impl Checkpoint {
    /// Shape and values of an f32 tensor.
    pub fn f32(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), RunError> {
        self.read(name, Dtype::F32, |data| {
            words(data).map(f32::from_le_bytes).collect()
        })
    }

    /// Shape and values of a u32 tensor.
    pub fn u32(&self, name: &str) -> Result<(Vec<usize>, Vec<u32>), RunError> {
        self.read(name, Dtype::U32, |data| {
            words(data).map(u32::from_le_bytes).collect()
        })
    }

    /// Values of a tensor of opaque bytes.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, RunError> {
        Ok(self.read(name, Dtype::U8, <[u8]>::to_vec)?.1)
    }

    /// The trainer's state from the JSON, deserialized.
    pub fn state<T: serde::de::DeserializeOwned>(&self) -> Result<T, RunError> {
        T::deserialize(&self.info.state).map_err(|error| self.bad(format!("state: {error}")))
    }

    fn read<T>(
        &self,
        name: &str,
        dtype: Dtype,
        values: impl FnOnce(&[u8]) -> Vec<T>,
    ) -> Result<(Vec<usize>, Vec<T>), RunError> {
        let tensors = self.tensors()?;
        let tensor = tensors
            .tensor(name)
            .map_err(|_| self.bad(format!("has no tensor `{name}`")))?;
        if tensor.dtype() != dtype {
            return Err(self.bad(format!(
                "tensor `{name}` holds {:?}, expected {dtype:?}",
                tensor.dtype()
            )));
        }
        Ok((tensor.shape().to_vec(), values(tensor.data())))
    }

    fn tensors(&self) -> Result<SafeTensors<'_>, RunError> {
        SafeTensors::deserialize(&self.bytes).map_err(|error| self.bad(error.to_string()))
    }

    fn bad(&self, problem: String) -> RunError {
        RunError::BadCheckpoint {
            path: self.path.clone(),
            problem,
        }
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> + '_ {
    bytes.as_chunks::<4>().0.iter().copied()
}

/// Result of [`CheckpointStore::latest_valid`].
#[derive(Debug)]
pub struct Latest {
    /// The newest whole checkpoint, if there is one.
    pub checkpoint: Option<Checkpoint>,
    /// Newer checkpoints that could not be used, each with the reason, to be shown as warnings.
    pub problems: Vec<String>,
}

/// Folders of a run that lead to an arm's checkpoints: `arms/SLUG/checkpoints`.
const BELOW_RUN: usize = 3;

/// The checkpoints of one arm.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    folder: PathBuf,
}

impl CheckpointStore {
    /// Checkpoints in `folder`, which the first save creates.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it is that of this arm.
    pub(super) fn is_of(&self, slug: &str) -> bool {
        let arm = self.folder.parent().and_then(Path::file_name);
        arm.is_some_and(|name| name == slug)
    }

    /// Writes a checkpoint durably, streaming the tensors to disk, and returns the path of its JSON file.
    pub fn save(
        &self,
        step: u64,
        phase: usize,
        tensors: &[NamedTensor],
        state: Value,
        events: Option<Mark>,
    ) -> Result<PathBuf, RunError> {
        self.create()?;
        let content = Content {
            step,
            phase,
            tensors,
            state,
            events,
        };
        write_checkpoint(&self.step_path(step), content)
    }

    /// Creates the folder inside the run's, which is there or is gone for good.
    fn create(&self) -> Result<(), RunError> {
        let within: Vec<&Path> = self.folder.ancestors().take(BELOW_RUN).collect();
        for folder in within.into_iter().rev() {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(RunError::io("create", folder)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The newest whole checkpoint; torn and corrupt ones are reported and set aside.
    ///
    /// # Errors
    /// A file that exists but cannot be read now: the checkpoint may be whole, so that no older one is
    /// used in its place.
    pub fn latest_valid(&self) -> Result<Latest, RunError> {
        let mut problems = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            match read_checkpoint(&self.step_path(step)) {
                Ok(checkpoint) => {
                    return Ok(Latest {
                        checkpoint: Some(checkpoint),
                        problems,
                    });
                }
                Err(error) if error.is_unreadable() => return Err(error),
                Err(error) => {
                    problems.push(format!("{error}; using the one before it"));
                    self.set_aside(step)?;
                }
            }
        }
        Ok(Latest {
            checkpoint: None,
            problems,
        })
    }

    /// Steps that have a checkpoint, whole or not, ascending.
    pub fn steps(&self) -> Result<Vec<u64>, RunError> {
        let mut steps: Vec<u64> = file_names(&self.folder)?
            .iter()
            .filter_map(|name| {
                name.strip_prefix("step-")?
                    .strip_suffix(".json")?
                    .parse()
                    .ok()
            })
            .collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Where the events stood at each checkpoint whose JSON is whole and tells, with its step, ascending.
    pub fn marks(&self) -> Result<Vec<(u64, Option<Mark>)>, RunError> {
        let mut marks = Vec::new();
        for step in self.steps()? {
            // What is wrong with it is told where it is to be used.
            if let Ok(info) = read_info(&self.step_path(step)) {
                marks.push((step, info.events));
            }
        }
        Ok(marks)
    }

    /// Removes all but the last `keep` checkpoints, and files left behind by crashes.
    pub fn prune(&self, keep: usize) -> Result<(), RunError> {
        let steps = self.steps()?;
        for step in &steps[..steps.len().saturating_sub(keep)] {
            self.remove(*step)?;
        }
        for name in file_names(&self.folder)? {
            let orphan = name
                .strip_prefix("step-")
                .and_then(|n| n.strip_suffix(".safetensors")?.parse().ok())
                .is_some_and(|step: u64| !steps.contains(&step));
            if name.starts_with(TEMPORARY) || orphan {
                remove_if_there(&self.folder.join(name))?;
            }
        }
        Ok(())
    }

    /// Renames a checkpoint that cannot be used, so that it is ignored but not lost.
    pub fn set_aside(&self, step: u64) -> Result<(), RunError> {
        let json = self.step_path(step);
        for path in [json.with_extension("safetensors"), json] {
            let mut aside = path.clone().into_os_string();
            aside.push(".unusable");
            match fs::rename(&path, aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(RunError::io("rename", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Saves the reference model of a phase; written once per phase.
    pub fn save_reference(
        &self,
        phase: usize,
        step: u64,
        tensors: &[NamedTensor],
    ) -> Result<PathBuf, RunError> {
        self.create()?;
        let content = Content {
            step,
            phase,
            tensors,
            state: Value::Null,
            events: None,
        };
        write_checkpoint(&self.reference_path(phase), content)
    }

    /// The reference model of a phase, if one was saved.
    pub fn reference(&self, phase: usize) -> Result<Option<Checkpoint>, RunError> {
        let path = self.reference_path(phase);
        if path.exists() {
            read_checkpoint(&path).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Removes the reference model of a finished phase.
    pub fn remove_reference(&self, phase: usize) -> Result<(), RunError> {
        remove_pair(&self.reference_path(phase))
    }

    fn remove(&self, step: u64) -> Result<(), RunError> {
        remove_pair(&self.step_path(step))
    }

    fn step_path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:010}.json"))
    }

    fn reference_path(&self, phase: usize) -> PathBuf {
        self.folder.join(format!("reference-phase-{phase:02}.json"))
    }
}

/// What is written into a checkpoint.
pub(super) struct Content<'a> {
    pub step: u64,
    pub phase: usize,
    pub tensors: &'a [NamedTensor<'a>],
    pub state: Value,
    pub events: Option<Mark>,
}

/// Writes `json` and the safetensors file beside it.
pub(super) fn write_checkpoint(json: &Path, content: Content) -> Result<PathBuf, RunError> {
    let Content {
        step,
        phase,
        tensors,
        state,
        events,
    } = content;
    let bad = |problem| RunError::BadCheckpoint {
        path: json.to_owned(),
        problem,
    };
    // Largest alignment first, so that every tensor is aligned in the file.
    let mut order: Vec<&NamedTensor> = tensors.iter().collect();
    order.sort_by_key(|t| (matches!(t.data, TensorData::U8(_)), &t.name));
    let mut end = 0;
    let mut infos = Vec::with_capacity(order.len());
    for tensor in &order {
        let start = end;
        end += tensor.data.as_bytes().len();
        infos.push((
            tensor.name.clone(),
            TensorInfo {
                dtype: tensor.data.dtype(),
                shape: tensor.shape.clone(),
                data_offsets: (start, end),
            },
        ));
    }
    let metadata = Metadata::new(None, infos).map_err(|error| bad(error.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| bad(error.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut hasher = blake3::Hasher::new();
    write_atomically(&json.with_extension("safetensors"), |writer| {
        let mut put = |bytes: &[u8]| {
            hasher.update(bytes);
            writer.write_all(bytes)
        };
        put(&(header.len() as u64).to_le_bytes())?;
        put(&header)?;
        order
            .iter()
            .try_for_each(|tensor| put(tensor.data.as_bytes()))
    })?;
    let blake3 = hasher.finalize().to_hex().to_string();
    let info = CheckpointInfo {
        format: FORMAT,
        step,
        phase,
        blake3,
        bytes: Some((8 + header.len() + end) as u64),
        events,
        state,
    };
    let mut text = serde_json::to_vec(&info).map_err(|error| bad(error.to_string()))?;
    Chain::default().seal(&mut text);
    write_atomically(json, |writer| writer.write_all(&text))?;
    Ok(json.to_owned())
}

/// Reads a checkpoint's JSON and verifies it.
fn read_info(json: &Path) -> Result<CheckpointInfo, RunError> {
    let bad = |problem: String| RunError::BadCheckpoint {
        path: json.to_owned(),
        problem,
    };
    let text = read_small(json, LONGEST_JSON)?;
    let Some(text) = text else {
        let gone = io::ErrorKind::NotFound.into();
        return Err(RunError::io("read", json)(gone));
    };
    let found = sealed(&text);
    if found.is_some_and(|(content, found)| Chain::default().after(content) != found) {
        return Err(bad(
            "its JSON was changed (its checksum does not fit)".into()
        ));
    }
    let info: CheckpointInfo = serde_json::from_slice(&text)
        .map_err(|error| bad(format!("its JSON is torn or corrupt ({error})")))?;
    if !(OLDEST..=FORMAT).contains(&info.format) {
        return Err(bad(format!(
            "is of format {}, this program reads {OLDEST} to {FORMAT}",
            info.format
        )));
    }
    if info.format > OLDEST && found.is_none() {
        return Err(bad("its JSON was changed (it has no checksum)".into()));
    }
    Ok(info)
}

/// Reads `json` and the safetensors file beside it, and verifies them.
pub(super) fn read_checkpoint(json: &Path) -> Result<Checkpoint, RunError> {
    let bad = |problem: String| RunError::BadCheckpoint {
        path: json.to_owned(),
        problem,
    };
    let info = read_info(json)?;
    let path = json.with_extension("safetensors");
    let Some(mut file) = open_regular(&path)? else {
        return Err(bad("its safetensors file is gone".to_owned()));
    };
    let length = file.metadata().map_err(RunError::io("read", &path))?.len();
    if info.bytes.is_some_and(|bytes| bytes != length) {
        return Err(bad(format!(
            "its safetensors file is torn or corrupt ({length} bytes, expected {})",
            info.bytes.unwrap_or_default()
        )));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(RunError::io("read", &path))?;
    let hash = blake3::hash(&bytes).to_hex();
    if hash.as_str() != info.blake3 {
        return Err(bad(format!(
            "its safetensors file is torn or corrupt ({} bytes, blake3 {}…, expected {}…)",
            bytes.len(),
            &hash[..8],
            info.blake3.get(..8).unwrap_or(&info.blake3)
        )));
    }
    Ok(Checkpoint {
        path: json.to_owned(),
        info,
        bytes,
    })
}

/// Verifies a checkpoint without having its tensors in memory; what its JSON says, and the parameters of its student.
///
/// # Errors
/// Where it cannot be read, or is torn or corrupt.
pub(super) fn inspect_checkpoint(json: &Path) -> Result<(CheckpointInfo, u64), RunError> {
    let info = read_info(json)?;
    let path = json.with_extension("safetensors");
    let bad = |problem: &str| RunError::BadCheckpoint {
        path: json.to_owned(),
        problem: problem.to_owned(),
    };
    let Some(mut file) = open_regular(&path)? else {
        return Err(bad("its safetensors file is gone"));
    };
    let mut hasher = blake3::Hasher::new();
    hasher
        .update_reader(&mut file)
        .map_err(RunError::io("read", &path))?;
    if hasher.finalize().to_hex().as_str() != info.blake3 {
        return Err(bad("its safetensors file is torn or corrupt"));
    }
    Ok((info, parameters(&path).unwrap_or(0)))
}

/// Parameters of the student in a safetensors file, by its header.
fn parameters(path: &Path) -> Option<u64> {
    let mut file = open_regular(path).ok()??;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_JSON {
        return None;
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).ok()?;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&header).ok()?;
    let students = header
        .iter()
        .filter(|(name, _)| name.starts_with("student."));
    let sizes = students.map(|(_, tensor)| {
        let shape = tensor.get("shape").and_then(Value::as_array);
        let sides = shape.into_iter().flatten().filter_map(Value::as_u64);
        sides.product::<u64>()
    });
    Some(sizes.sum())
}

/// Removes both files, the JSON first: without it there is no checkpoint, whatever happens next.
fn remove_pair(json: &Path) -> Result<(), RunError> {
    remove_if_there(json)?;
    remove_if_there(&json.with_extension("safetensors"))
}

fn file_names(folder: &Path) -> Result<Vec<String>, RunError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RunError::io("read", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(RunError::io("read", folder))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn store(dir: &Path) -> CheckpointStore {
        CheckpointStore::new(dir.join("checkpoints"))
    }

    fn save(store: &CheckpointStore, step: u64, value: f32) -> PathBuf {
        let weights = [value, -0.0, f32::MIN_POSITIVE, f32::NAN];
        let tensors = [
            NamedTensor::bytes("plugin", &[1, 2, 3]),
            NamedTensor::f32("w", &[2, 2], &weights),
            NamedTensor::u32("ids", &[1, 2], &[7, u32::MAX]),
        ];
        store
            .save(step, 1, &tensors, json!({ "loss": 0.1 }), None)
            .unwrap()
    }

    /// A resumed run must start from exactly the bits that were saved.
    #[test]
    fn everything_comes_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        assert!(store.latest_valid().unwrap().checkpoint.is_none());
        save(&store, 20, 1.5);
        let checkpoint = store.latest_valid().unwrap().checkpoint.unwrap();
        assert_eq!((checkpoint.info.step, checkpoint.info.phase), (20, 1));
        let (shape, values) = checkpoint.f32("w").unwrap();
        assert_eq!(shape, [2, 2]);
        assert_eq!(
            values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
            [1.5, -0.0, f32::MIN_POSITIVE, f32::NAN].map(f32::to_bits)
        );
        assert_eq!(checkpoint.u32("ids").unwrap().1, [7, u32::MAX]);
        assert_eq!(checkpoint.bytes("plugin").unwrap(), [1, 2, 3]);
        assert_eq!(checkpoint.info.state, json!({ "loss": 0.1 }));
        let error = checkpoint.f32("v").unwrap_err().to_string();
        assert!(error.contains("no tensor `v`"), "{error}");
    }

    /// One bad sector would otherwise cost the whole run, or worse, go unnoticed.
    #[test]
    fn a_corrupt_checkpoint_is_named_and_the_one_before_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        save(&store, 10, 1.0);
        let torn_json = save(&store, 30, 3.0);
        let corrupt = save(&store, 20, 2.0).with_extension("safetensors");
        let mut bytes = fs::read(&corrupt).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&corrupt, bytes).unwrap();
        let text = fs::read(&torn_json).unwrap();
        fs::write(&torn_json, &text[..text.len() / 2]).unwrap();
        let gone = save(&store, 40, 4.0);
        fs::remove_file(gone.with_extension("safetensors")).unwrap();

        let latest = store.latest_valid().unwrap();
        assert_eq!(latest.checkpoint.unwrap().info.step, 10);
        let problems = latest.problems.join("\n");
        assert!(problems.contains("step-0000000040.json: its safetensors file is gone"));
        assert!(
            problems.contains("step-0000000030.json: its JSON is torn"),
            "{problems}"
        );
        assert!(problems.contains("step-0000000020.json: its safetensors file is torn"));
    }

    /// A digit of what a phase started with would be a wrong figure of every run that takes it from the cache.
    #[test]
    fn no_bit_of_the_json_changes_unnoticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let json = save(&store, 10, 1.0);
        let text = fs::read(&json).unwrap();
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            fs::write(&json, changed).unwrap();
            assert!(read_checkpoint(&json).is_err(), "byte {at}");
        }
        // One of an older version has no checksum, and neither length nor mark.
        let Value::Object(mut old) = serde_json::from_slice(&text).unwrap() else {
            panic!()
        };
        old.insert("format".into(), json!(1));
        for new in ["c", "bytes"] {
            assert!(old.remove(new).is_some());
        }
        fs::write(&json, Value::Object(old).to_string()).unwrap();
        let checkpoint = read_checkpoint(&json).unwrap();
        assert_eq!(checkpoint.bytes("plugin").unwrap(), [1, 2, 3]);
        assert_eq!(store.marks().unwrap(), [(10, None)]);
    }

    /// A run whose folder was moved away would be continued in an empty one.
    #[test]
    fn the_folder_of_the_run_is_not_created_again() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let store = CheckpointStore::new(run.join("arms/none/checkpoints"));
        let tensors = [NamedTensor::f32("w", &[1], &[1.0])];
        assert!(store.save(1, 0, &tensors, Value::Null, None).is_err());
        assert!(!run.exists());
        fs::create_dir(&run).unwrap();
        store.save(1, 0, &tensors, Value::Null, None).unwrap();
    }

    /// A long run would fill the disk, or lose the checkpoint a phase depends on.
    #[test]
    fn pruning_keeps_the_last_two_and_the_references() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        for step in [10, 20, 30, 40] {
            save(&store, step, 1.0);
        }
        store
            .save_reference(2, 30, &[NamedTensor::f32("w", &[1], &[9.0])])
            .unwrap();
        fs::write(store.folder().join(".tmp-1-step-0000000050.json"), "x").unwrap();
        fs::write(store.folder().join("step-0000000050.safetensors"), "x").unwrap();
        store.prune(2).unwrap();
        assert_eq!(store.steps().unwrap(), [30, 40]);
        assert_eq!(file_names(store.folder()).unwrap().len(), 6);
        assert_eq!(
            store.reference(2).unwrap().unwrap().f32("w").unwrap().1,
            [9.0]
        );
        assert!(store.reference(1).unwrap().is_none());
        // What is set aside makes room for the checkpoints that follow, and is not lost.
        store.set_aside(40).unwrap();
        save(&store, 35, 1.0);
        store.prune(2).unwrap();
        assert_eq!(store.steps().unwrap(), [30, 35]);
        assert_eq!(file_names(store.folder()).unwrap().len(), 8);
    }

    /// A disk that fills in the middle of a checkpoint must cost that checkpoint only.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_costs_the_new_checkpoint_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        save(&store, 10, 1.0);
        for part in ["safetensors", "json"] {
            let name = format!(".tmp-{}-step-0000000020.{part}", std::process::id());
            std::os::unix::fs::symlink("/dev/full", store.folder().join(name)).unwrap();
            let tensors = [NamedTensor::f32("w", &[1], &[2.0])];
            let error = store.save(20, 0, &tensors, Value::Null, None).unwrap_err();
            assert!(error.is_disk_full(), "{error}");
            let latest = store.latest_valid().unwrap();
            assert_eq!(latest.checkpoint.unwrap().info.step, 10);
            assert!(latest.problems.is_empty());
            store.prune(2).unwrap();
            assert_eq!(file_names(store.folder()).unwrap().len(), 2);
        }
    }

    /// A shape that does not fit its data must fail when saved, not when the run is resumed.
    #[test]
    fn a_wrong_shape_is_refused_when_saving() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let tensors = [NamedTensor::f32("w", &[3], &[1.0])];
        assert!(store.save(1, 0, &tensors, Value::Null, None).is_err());
        assert!(store.latest_valid().unwrap().checkpoint.is_none());
    }
}

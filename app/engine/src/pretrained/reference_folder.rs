//! A folder of the paper's reference implementation: `weights.npz`, as numpy's `savez` writes it, and `config.yaml`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use candle_core::npy::NpzTensors;
use candle_core::{DType, Tensor};
use zip::ZipArchive;

use crate::model::{Layout, ModelConfig, Params};

use super::error::{Mismatch, PretrainedError};
use super::reference_layout::{from_reference_layout, reference_tensors};

/// The file of weights.
const WEIGHTS: &str = "weights.npz";
/// The file of settings, of which the model's sizes are read.
const CONFIG: &str = "config.yaml";
/// The most bytes of that file.
const MOST_CONFIG: u64 = 1 << 20;
/// The most of any size; larger ones are mistakes, and would take all memory.
const MOST: usize = 1 << 24;

/// A model of the paper's reference implementation on disk: what its `config.yaml` says.
#[derive(Clone, Debug)]
pub struct ReferenceFolder {
    folder: PathBuf,
    /// Sizes of the small model.
    pub config: ModelConfig,
    /// Tokens of the rows it was trained on, T.
    pub seq_len: usize,
}

impl ReferenceFolder {
    /// Whether a folder holds weights in the reference implementation's format.
    pub fn is_one(folder: &Path) -> bool {
        folder.join(WEIGHTS).is_file()
    }

    /// Reads what a folder says of its model.
    ///
    /// # Errors
    /// A `config.yaml` that is missing, or names no model of whole heads.
    pub fn open(folder: &Path) -> Result<Self, PretrainedError> {
        let path = folder.join(CONFIG);
        let read = |path: &Path| match fs::metadata(path)?.len() {
            0..MOST_CONFIG => fs::read_to_string(path),
            _ => Err(io::Error::other("it is too long for a file of settings")),
        };
        let text = read(&path).map_err(|source| PretrainedError::Read {
            path: path.clone(),
            source,
        })?;
        let bad = |key: &str, why: String| PretrainedError::Setting {
            path: path.clone(),
            key: format!("model.{key}"),
            why,
        };
        let settings = model_settings(&text);
        let size = |key: &str| {
            let found = settings.get(key);
            let found = found.ok_or_else(|| bad(key, "is missing".into()))?;
            let size = found.parse().ok();
            let size = size.filter(|size| (1..=MOST).contains(size));
            size.ok_or_else(|| bad(key, format!("is `{found}`, not a size from 1 to {MOST}")))
        };
        let [d, l, h, t, v] = [size("D")?, size("L")?, size("H")?, size("T")?, size("V")?];
        if d % h != 0 || h % 2 != 0 {
            let why = format!("is {h}: heads are of even size and fill the width, D = {d}");
            return Err(bad("H", why));
        }
        Ok(Self {
            folder: folder.into(),
            config: ModelConfig::mini(d, l, h, v),
            seq_len: t,
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The files that decide what the model computes.
    pub fn files(&self) -> [PathBuf; 2] {
        [self.folder.join(CONFIG), self.weights()]
    }

    fn weights(&self) -> PathBuf {
        self.folder.join(WEIGHTS)
    }

    /// Compares names and shapes of all tensors with those of the model; the file, and how it stores them.
    fn checked(&self) -> Result<(NpzTensors, BTreeMap<String, usize>), PretrainedError> {
        let broken = |error| self.broken(None, error);
        let npz = NpzTensors::new(self.weights()).map_err(broken)?;
        let expected = reference_tensors(&self.config);
        let mut mismatch = Mismatch::default();
        let mut dtypes = BTreeMap::new();
        for (name, shape) in &expected {
            if !npz.names().iter().any(|there| there == name) {
                mismatch.missing.push((*name).into());
                continue;
            }
            let found = npz.get_shape_and_dtype(name);
            let (found, dtype) = found.map_err(|error| self.broken(Some(name), error))?;
            if found.dims() != shape {
                let shapes = ((*name).into(), found.dims().to_vec(), shape.clone());
                mismatch.shapes.push(shapes);
            }
            if !matches!(dtype, DType::F16 | DType::F32 | DType::F64) {
                let why = format!(
                    "tensor `{name}` holds {}, no floating point",
                    dtype.as_str()
                );
                return Err(self.format(why));
            }
            *dtypes.entry(dtype.as_str().into()).or_default() += 1;
        }
        let known = |name: &str| expected.iter().any(|(expected, _)| *expected == name);
        let mut unexpected: Vec<String> = npz.names().into_iter().cloned().collect();
        unexpected.retain(|name| !known(name));
        unexpected.sort();
        mismatch.unexpected = unexpected;
        mismatch.check(&self.weights())?;
        Ok((npz, dtypes))
    }

    /// Bytes of the weights, and the number of tensors in each number format.
    ///
    /// # Errors
    /// Weights that are damaged, or not those of the model.
    pub fn storage(&self) -> Result<(u64, BTreeMap<String, usize>), PretrainedError> {
        let (_, dtypes) = self.checked()?;
        let found = fs::metadata(self.weights());
        let bytes = found.map_err(|source| PretrainedError::Read {
            path: self.weights(),
            source,
        })?;
        Ok((bytes.len(), dtypes))
    }

    /// Reads the weights. Names and shapes of all tensors are checked before any is read.
    ///
    /// # Errors
    /// [`PretrainedError`] names the tensor that is missing, of another shape, in Fortran order or damaged.
    pub fn load(&self) -> Result<Params, PretrainedError> {
        let (npz, _) = self.checked()?;
        let mut tensors = BTreeMap::new();
        for (name, _) in reference_tensors(&self.config) {
            let elements = |tensor: Tensor| {
                let tensor = tensor.to_dtype(DType::F32)?;
                tensor.flatten_all()?.to_vec1::<f32>()
            };
            let tensor = npz.get(name).and_then(|tensor| match tensor {
                Some(tensor) => elements(tensor).map(Some),
                None => Ok(None),
            });
            let tensor = tensor.map_err(|error| self.broken(Some(name), error))?;
            tensors.insert(name, tensor.unwrap_or_default());
        }
        self.check_sums()?;
        let layout = Layout::new(self.config);
        let params = from_reference_layout(&layout, |name| tensors.get(name).map(Vec::as_slice));
        params.map_err(|error| self.format(error.to_string()))
    }

    /// Reads every tensor to its end, where its checksum is compared: who reads numbers alone never comes to it.
    fn check_sums(&self) -> Result<(), PretrainedError> {
        let path = self.weights();
        let file = File::open(&path).map_err(|source| PretrainedError::Read { path, source })?;
        let all = || -> Result<(), Box<dyn std::error::Error>> {
            let mut zip = ZipArchive::new(BufReader::new(file))?;
            for index in 0..zip.len() {
                io::copy(&mut zip.by_index(index)?, &mut io::sink())?;
            }
            Ok(())
        };
        all().map_err(|error| self.format(format!("{error}; fetch it again")))
    }

    fn format(&self, why: String) -> PretrainedError {
        PretrainedError::Format {
            path: self.weights(),
            expected: "a whole file of weights of the paper's reference implementation",
            why,
        }
    }

    /// An error of the reader in words of ours.
    fn broken(&self, tensor: Option<&str>, error: candle_core::Error) -> PretrainedError {
        let said = error.to_string();
        // The rest is where in the library it happened.
        let said = said.lines().next().unwrap_or_default();
        let advice = if said.contains("fortran") {
            "; write it again with `numpy.ascontiguousarray`"
        } else if said.to_lowercase().contains("compression") {
            "; write it again with `numpy.savez`, which does not compress"
        } else {
            ""
        };
        let tensor = tensor.map_or(String::new(), |name| format!("tensor `{name}`: "));
        self.format(format!("{tensor}{said}{advice}"))
    }
}

/// The settings in the block `model:` of a YAML file as OmegaConf writes it: a key and a value a line.
fn model_settings(yaml: &str) -> BTreeMap<&str, &str> {
    let mut lines = yaml.lines().skip_while(|line| line.trim_end() != "model:");
    lines.next();
    lines
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.strip_prefix("  ")?.split_once(':'))
        .map(|(key, value)| (key, value.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Hub, open, to_reference_layout};
    use super::*;
    use crate::random::Stream;

    const YAML: &str = "run:\n  seed: 0\ndata:\n  path: c4_en.bin\nmodel:\n  D: 8\n  L: 2\n  H: 4\n  T: 16\n  V: 11\n  \
                        load_path: null\nload_cfg:\n  model:\n    D: 999\n";

    fn params() -> Params {
        let layout = Layout::new(ModelConfig::mini(8, 2, 4, 11));
        Params::init(&layout, &Stream::new(3, "test"))
    }

    /// Writes a folder, its tensors changed; its path.
    fn folder(change: impl Fn(&str, Tensor) -> Option<Tensor>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CONFIG), YAML).unwrap();
        let params = params();
        let elements = to_reference_layout(&params.layout, &params.data);
        let shapes = reference_tensors(&params.layout.config);
        let tensors: Vec<(&str, Tensor)> = shapes
            .into_iter()
            .filter_map(|(name, shape)| {
                let tensor =
                    Tensor::from_vec(elements[name].clone(), shape, &candle_core::Device::Cpu);
                Some((name, change(name, tensor.unwrap())?))
            })
            .collect();
        Tensor::write_npz(&tensors, dir.path().join(WEIGHTS)).unwrap();
        dir
    }

    fn same(_: &str, tensor: Tensor) -> Option<Tensor> {
        Some(tensor)
    }

    fn loaded(folder: &Path) -> Result<Params, PretrainedError> {
        let name = folder.to_str().unwrap();
        open(name, &Hub::from_env(), &())?.load(&())
    }

    /// The paper's models would otherwise have to be trained again.
    #[test]
    fn a_model_of_the_reference_implementation_loads() {
        for dtype in [DType::F32, DType::F64] {
            let dir = folder(|_, tensor| tensor.to_dtype(dtype).ok());
            assert!(loaded(dir.path()).unwrap().data == params().data);
        }
        let dir = folder(same);
        let model = ReferenceFolder::open(dir.path()).unwrap();
        assert_eq!((model.config, model.seq_len), (params().layout.config, 16));
        let (_, dtypes) = model.storage().unwrap();
        assert_eq!(dtypes, BTreeMap::from([("f32".to_owned(), 6)]));
    }

    /// Weights in another order compute nonsense without a word.
    #[test]
    fn tensors_of_wrong_names_shapes_and_order_are_refused_by_name() {
        let refused = |dir: &tempfile::TempDir| loaded(dir.path()).unwrap_err().to_string();
        let missing = folder(|name, tensor| (name != "up").then_some(tensor));
        assert!(
            refused(&missing).contains("1 missing (up)"),
            "{}",
            refused(&missing)
        );
        let turned = folder(|name, tensor| match name {
            "embed_out" => tensor.t().unwrap().contiguous().ok(),
            _ => Some(tensor),
        });
        let said = "1 of another shape (embed_out [8, 11] for [11, 8])";
        assert!(refused(&turned).contains(said), "{}", refused(&turned));
        let integers = folder(|_, tensor| tensor.to_dtype(DType::I64).ok());
        assert!(refused(&integers).contains("holds i64, no floating point"));
        // Fortran order, as numpy marks it; then a file that was cut off.
        let dir = folder(same);
        let path = dir.path().join(WEIGHTS);
        let mut bytes = fs::read(&path).unwrap();
        let whole = bytes.clone();
        let mark = b"'fortran_order': False";
        let all: Vec<usize> = (0..bytes.len() - mark.len())
            .filter(|at| bytes[*at..].starts_with(mark))
            .collect();
        let last = *all.last().unwrap();
        bytes[last..last + mark.len()].copy_from_slice(b"'fortran_order': True ");
        fs::write(&path, bytes).unwrap();
        let error = refused(&dir);
        for said in ["tensor `down`: ", "fortran order", "ascontiguousarray"] {
            assert!(error.contains(said), "{said} is not in {error}");
        }
        for len in [0, 10, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(
                refused(&dir).contains("weights.npz is not a whole file"),
                "{len}"
            );
        }
        let at = whole.len() / 2;
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&path, flipped).unwrap();
        assert!(loaded(dir.path()).is_err(), "a bit that changed");
    }

    /// A size that is missing or absurd must be told, not guessed, and not take all memory.
    #[test]
    fn settings_that_are_no_model_are_named() {
        let dir = folder(same);
        for (from, to, said) in [
            ("  D: 8", "  D: 9", "`model.H` is 4: heads are of even size"),
            ("  V: 11", "  V: 99999999999", "`model.V` is `99999999999`"),
            ("  V: 11\n", "", "`model.V` is missing"),
            ("  L: 2", "  L: two", "`model.L` is `two`"),
            (
                "  L: 2",
                "  L: 3",
                "of another shape (qkv [2, 3, 2, 8, 4] for [3, 3, 2, 8, 4]",
            ),
            ("model:\n  D", "mode:\n  D", "`model.D` is missing"),
        ] {
            fs::write(dir.path().join(CONFIG), YAML.replacen(from, to, 1)).unwrap();
            let error = loaded(dir.path()).unwrap_err().to_string();
            assert!(error.contains(said), "{said} is not in {error}");
        }
        fs::remove_file(dir.path().join(CONFIG)).unwrap();
        assert!(
            loaded(dir.path())
                .unwrap_err()
                .to_string()
                .contains("config.yaml")
        );
    }
}

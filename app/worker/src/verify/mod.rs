//! Parity of this machine's numbers with fixtures computed by independent implementations.

mod llama;
mod mini;
#[cfg(feature = "second-opinion")]
mod second_opinion;

use forgetlab_engine::ops::Precision;
use forgetlab_engine::pretrained::LayoutError;
use forgetlab_engine::{AdamWConfig, EngineError};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

pub use llama::verify_llama;
pub use mini::verify_mini;
#[cfg(feature = "second-opinion")]
pub use second_opinion::{Opinion, OpinionError, second_opinion};

/// Largest error of one tensor (or scalar) of a fixture.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Name in the fixture, e.g. `grad.kl_pre.qkv`.
    pub name: String,
    /// Largest error, in the unit of `tolerance`.
    pub error: f64,
    /// Largest error that passes.
    pub tolerance: f64,
    /// What errors are measured against, in words.
    pub unit: &'static str,
    /// Index of the largest error, row-major.
    pub worst: usize,
    /// Numbers left out: their gradient is so small that Adam's first steps carry only its sign.
    pub excepted: usize,
}

impl Check {
    /// Whether the tensor is within tolerance. A NaN is not.
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// A fixture that cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// Not a safetensors file, or a truncated one.
    #[error("not a whole safetensors file: {0}")]
    File(#[from] safetensors::SafeTensorError),
    /// No `meta` key in the header, or not what is expected there.
    #[error("the header's `meta` entry: {0}")]
    Meta(String),
    /// `parity.json` is not what is expected there.
    #[error("parity.json: {0}")]
    Settings(String),
    /// A tensor is missing or of another type.
    #[error("tensor `{0}` is missing or not of the expected type")]
    Tensor(String),
    /// Weights do not fit the sizes in `meta`.
    #[error("weights `{0}.*`: {1}")]
    Weights(&'static str, LayoutError),
    /// Token ids outside the vocabulary, or sizes that do not fit.
    #[error("{0}")]
    Data(String),
    /// The device cannot be used, or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Largest errors that pass.
#[derive(Clone, Copy)]
struct Tolerance {
    /// As a share of the expected tensor's largest entry.
    relative: f64,
    /// Of updated weights.
    absolute: f64,
}

impl Tolerance {
    /// The fixture is f32; bf16 keeps 8 of its 24 bits.
    fn of(precision: Precision) -> Self {
        let (relative, absolute) = match precision {
            Precision::F32 => (1e-4, 1e-4),
            Precision::Bf16 => (8e-2, 1e-2),
        };
        Self { relative, absolute }
    }
}

/// AdamW's settings, as fixtures name them.
#[derive(Deserialize)]
struct FixtureAdamW {
    b1: f64,
    b2: f64,
    eps: f64,
    weight_decay: f64,
}

impl FixtureAdamW {
    fn config(&self) -> AdamWConfig {
        AdamWConfig {
            beta1: self.b1,
            beta2: self.b2,
            eps: self.eps,
            weight_decay: self.weight_decay,
        }
    }
}

/// Updated weights whose first gradient is smaller (but not zero) are not compared.
const TINY_GRADIENT: f32 = 1e-6;

/// Reads tensors of a fixture.
struct Fixture<'a> {
    file: SafeTensors<'a>,
}

impl Fixture<'_> {
    fn f32(&self, name: &str) -> Option<Vec<f32>> {
        let tensor = self.file.tensor(name).ok()?;
        (tensor.dtype() == Dtype::F32).then(|| {
            let (numbers, _) = tensor.data().as_chunks::<4>();
            numbers.iter().map(|b| f32::from_le_bytes(*b)).collect()
        })
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>, ParityError> {
        match self.file.tensor(name) {
            Ok(tensor) => Ok(tensor.shape().to_vec()),
            Err(_) => Err(ParityError::Tensor(name.into())),
        }
    }

    fn expected(&self, name: &str) -> Result<Vec<f32>, ParityError> {
        self.f32(name)
            .ok_or_else(|| ParityError::Tensor(name.into()))
    }

    /// Token ids `[B, T]`, all below `vocab_size`.
    fn tokens(
        &self,
        name: &str,
        seq_len: usize,
        vocab_size: usize,
    ) -> Result<Vec<u32>, ParityError> {
        let missing = || ParityError::Tensor(name.into());
        let tensor = self.file.tensor(name).map_err(|_| missing())?;
        if tensor.dtype() != Dtype::I64 || tensor.shape().last() != Some(&seq_len) {
            return Err(missing());
        }
        let (numbers, _) = tensor.data().as_chunks::<8>();
        if numbers.is_empty() {
            return Err(missing());
        }
        numbers
            .iter()
            .map(|b| i64::from_le_bytes(*b))
            .map(|id| match u32::try_from(id) {
                Ok(id) if (id as usize) < vocab_size => Ok(id),
                _ => Err(ParityError::Data(format!(
                    "`{name}` holds token {id}, the vocabulary {vocab_size} tokens"
                ))),
            })
            .collect()
    }
}

/// Steps of training: as many as the fixture holds losses for.
fn steps(steps: usize, losses: &[f64]) -> Result<u64, ParityError> {
    match steps <= losses.len() {
        true => Ok(steps as u64),
        false => Err(ParityError::Data(format!(
            "`steps` is {steps}, but `total_loss_each_step` holds {} losses",
            losses.len()
        ))),
    }
}

fn same_len(name: &str, found: &[f32], expected: &[f32]) -> Result<(), ParityError> {
    if found.len() == expected.len() {
        return Ok(());
    }
    Err(ParityError::Data(format!(
        "`{name}` holds {} numbers, the sizes in `meta` ask for {}",
        expected.len(),
        found.len()
    )))
}

/// Largest of the errors `(index, error)`; a NaN is larger than any.
fn worst(errors: impl Iterator<Item = (usize, f64)>) -> (usize, f64) {
    errors.fold((0, 0.0), |best, next| {
        if next.1.is_nan() || next.1 > best.1 {
            next
        } else {
            best
        }
    })
}

impl Tolerance {
    fn relative(self, name: &str, found: &[f32], expected: &[f32]) -> Result<Check, ParityError> {
        same_len(name, found, expected)?;
        let largest = expected
            .iter()
            .fold(f64::MIN_POSITIVE, |a, b| a.max(f64::from(b.abs())));
        let errors = found
            .iter()
            .zip(expected)
            .map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs() / largest);
        let (worst, error) = worst(errors.enumerate());
        Ok(Check {
            name: name.into(),
            error,
            tolerance: self.relative,
            unit: "of the largest entry",
            worst,
            excepted: 0,
        })
    }

    fn scalar(self, name: String, found: f64, expected: f64) -> Check {
        let error = (found - expected).abs() / expected.abs().max(f64::MIN_POSITIVE);
        Check {
            name,
            error,
            tolerance: self.relative,
            unit: "of the value",
            worst: 0,
            excepted: 0,
        }
    }

    fn absolute(
        self,
        name: &str,
        found: &[f32],
        expected: &[f32],
        first_gradient: &[f32],
    ) -> Result<Check, ParityError> {
        same_len(name, found, expected)?;
        same_len(name, found, first_gradient)?;
        let compared =
            |i: &usize| first_gradient[*i] == 0.0 || first_gradient[*i].abs() >= TINY_GRADIENT;
        let errors = (0..found.len()).filter(compared);
        let errors = errors.map(|i| (i, (f64::from(found[i]) - f64::from(expected[i])).abs()));
        let (worst, error) = worst(errors);
        let excepted = found.len() - (0..found.len()).filter(compared).count();
        Ok(Check {
            name: name.into(),
            error,
            tolerance: self.absolute,
            unit: "absolute",
            worst,
            excepted,
        })
    }
}

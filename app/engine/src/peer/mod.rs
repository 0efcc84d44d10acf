//! Another implementation of a checkpoint's family, candle-transformers' own, to compare logits with. It reads
//! `config.json` and safetensors by itself.

mod families;
mod settings;

use candle_core::{Device, Tensor};

use crate::model::Params;
use crate::pretrained::{Family, Pretrained, PretrainedError};

/// Why candle-transformers says nothing of a model.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The paper's small model, which is of no family.
    #[error("{name} is of no family that candle-transformers implements")]
    NoFamily {
        /// Name of the model.
        name: String,
    },
    /// A part of the model that candle's implementation of its family has not.
    #[error("candle-transformers' {family} has no {part}, so it has no opinion on {name}")]
    Part {
        /// Name of the model.
        name: String,
        /// Name of the family.
        family: &'static str,
        /// The part, in words.
        part: String,
    },
    /// A description that candle does not read.
    #[error("candle-transformers does not read this config.json: {0}")]
    Config(#[from] serde_json::Error),
    /// Candle failed.
    #[error("candle-transformers: {0}")]
    Candle(#[from] candle_core::Error),
    /// The model cannot be read.
    #[error(transparent)]
    Pretrained(#[from] PretrainedError),
}

/// A checkpoint as candle-transformers computes it, in f32.
pub struct Peer {
    /// The family whose implementation it is.
    pub family: Family,
    /// Tokens of a row, at most.
    pub length: usize,
    /// What it leaves out, and what was made of that, in words.
    pub notes: Vec<String>,
    device: Device,
    forward: families::Forward,
}

impl Peer {
    /// Reads a checkpoint again, for rows of at most `length` tokens on `cpu`, `cuda` or `cuda:N`; `params` are its weights
    /// where candle does not read their files.
    ///
    /// # Errors
    /// [`PeerError`] where candle has no such family or part, or cannot read the files.
    pub fn new(
        model: &Pretrained,
        params: &Params,
        device: &str,
        length: usize,
    ) -> Result<Self, PeerError> {
        let family = model.family.ok_or_else(|| PeerError::NoFamily {
            name: model.name.clone(),
        })?;
        let device = match device.strip_prefix("cuda") {
            None => Device::Cpu,
            Some(number) => Device::new_cuda(number.trim_start_matches(':').parse().unwrap_or(0))?,
        };
        let settings = settings::of(model, family, length)?;
        let (length, mut notes) = (settings.length, settings.notes);
        let mut weights = families::weights(model, params)?;
        notes.extend(weights.fold(model, family, &settings.json)?);
        Ok(Self {
            forward: families::forward(family, settings.json, weights, &device)?,
            family,
            length,
            notes,
            device,
        })
    }

    /// Logits `[B, V]` after the last of the tokens `[B, T]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn last_logits(&mut self, tokens: &[u32], rows: usize) -> Result<Vec<f32>, PeerError> {
        let tokens = Tensor::new(tokens, &self.device)?.reshape((rows, ()))?;
        Ok((self.forward)(&tokens)?.flatten_all()?.to_vec1()?)
    }
}

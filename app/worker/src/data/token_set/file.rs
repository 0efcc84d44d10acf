//! A set of rows on disk: one safetensors file, whose header tells how it was made.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use forgetlab_study::experiment::TokenSetSettings;
use forgetlab_study::run::{RunError, write_atomically};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::{Counts, Provenance, Rows, TokenSet, TokenSetError};

/// Version of the layout.
const FORMAT: u32 = 1;

/// The header's `meta`.
#[derive(Serialize, Deserialize)]
struct Meta {
    format: u32,
    settings: TokenSetSettings,
    counts: Counts,
    provenance: Provenance,
}

impl TokenSet {
    /// Writes the set: `train.` and `held_out.` with `tokens` u32 `[N]`, `mask` u8 `[N]` and
    /// `row_ends` u64 `[R]`, and how they were made under `meta`.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), RunError> {
        let malformed = |problem: String| RunError::Malformed {
            path: path.into(),
            problem,
        };
        let meta = serde_json::to_string(&Meta {
            format: FORMAT,
            settings: self.settings.clone(),
            counts: self.counts,
            provenance: self.provenance.clone(),
        })
        .map_err(|e| malformed(e.to_string()))?;
        let masks = [&self.train, &self.held_out].map(|rows| bytes_of(&rows.mask));
        let mut tensors = Vec::new();
        for ((name, rows), mask) in self.sides().into_iter().zip(&masks) {
            let all = [
                (
                    "tokens",
                    Dtype::U32,
                    rows.tokens.len(),
                    bytemuck::cast_slice(&rows.tokens),
                ),
                ("mask", Dtype::U8, mask.len(), mask.as_slice()),
                (
                    "row_ends",
                    Dtype::U64,
                    rows.ends.len(),
                    bytemuck::cast_slice(&rows.ends),
                ),
            ];
            for (part, dtype, len, bytes) in all {
                let view = TensorView::new(dtype, vec![len], bytes);
                let view = view.map_err(|e| malformed(e.to_string()))?;
                tensors.push((format!("{name}.{part}"), view));
            }
        }
        let header = HashMap::from([("meta".to_owned(), meta)]);
        let bytes =
            safetensors::serialize(tensors, Some(header)).map_err(|e| malformed(e.to_string()))?;
        write_atomically(path, |out| out.write_all(&bytes))
    }

    /// Reads a set that [`TokenSet::save`] wrote.
    ///
    /// # Errors
    /// [`TokenSetError::Malformed`] tells what is wrong with the file.
    pub fn load(path: &Path) -> Result<Self, TokenSetError> {
        let malformed = |problem: String| TokenSetError::Malformed {
            path: path.into(),
            problem,
        };
        let bytes = fs::read(path).map_err(|source| {
            TokenSetError::Source(crate::data::SourceError::Io {
                path: path.into(),
                source,
            })
        })?;
        let none = "no set of rows as `forgetlab data prepare` writes it";
        let file =
            SafeTensors::deserialize(&bytes).map_err(|e| malformed(format!("{none}: {e}")))?;
        let (_, header) =
            SafeTensors::read_metadata(&bytes).map_err(|e| malformed(e.to_string()))?;
        let meta = header.metadata().as_ref().and_then(|m| m.get("meta"));
        let meta = meta.ok_or_else(|| malformed(none.into()))?;
        let meta: Meta =
            serde_json::from_str(meta).map_err(|e| malformed(format!("{none}: {e}")))?;
        if meta.format != FORMAT {
            return Err(malformed(format!(
                "layout {}, this program reads {FORMAT}; prepare the data anew",
                meta.format
            )));
        }
        let vocab_size = meta.provenance.vocab_size;
        let rows = |name: &str| {
            side(&file, name, meta.settings.seq_len, vocab_size)
                .map_err(|problem| malformed(format!("{name}: {problem}")))
        };
        Ok(Self {
            train: rows("train")?,
            held_out: rows("held_out")?,
            settings: meta.settings,
            counts: meta.counts,
            provenance: meta.provenance,
        })
    }

    fn sides(&self) -> [(&'static str, &Rows); 2] {
        [("train", &self.train), ("held_out", &self.held_out)]
    }
}

fn bytes_of(mask: &[bool]) -> Vec<u8> {
    mask.iter().map(|&target| u8::from(target)).collect()
}

/// Little-endian numbers of N bytes each.
fn words<T, const N: usize>(bytes: &[u8], of: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|word| of(*word)).collect()
}

/// The rows of one side, checked.
fn side(file: &SafeTensors, name: &str, seq_len: usize, vocab_size: usize) -> Result<Rows, String> {
    let tensor = |part: &str, dtype: Dtype| {
        let view = file
            .tensor(&format!("{name}.{part}"))
            .map_err(|e| e.to_string())?;
        match view.dtype() == dtype && view.shape().len() == 1 {
            true => Ok(view.data()),
            false => Err(format!("{part} is {:?} {:?}", view.dtype(), view.shape())),
        }
    };
    let rows = Rows {
        tokens: words(tensor("tokens", Dtype::U32)?, u32::from_le_bytes),
        mask: tensor("mask", Dtype::U8)?
            .iter()
            .map(|&target| target != 0)
            .collect(),
        ends: words(tensor("row_ends", Dtype::U64)?, u64::from_le_bytes),
    };
    let mut start = 0;
    for (row, &end) in rows.ends.iter().enumerate() {
        if end <= start || end - start > seq_len as u64 {
            return Err(format!(
                "row {row} goes from {start} to {end}, seq_len is {seq_len}"
            ));
        }
        start = end;
    }
    if start != rows.tokens.len() as u64 || rows.mask.len() != rows.tokens.len() {
        return Err(format!(
            "rows end at {start}, with {} tokens and a mask of {}",
            rows.tokens.len(),
            rows.mask.len()
        ));
    }
    match rows.tokens.iter().find(|&&id| id as usize >= vocab_size) {
        Some(id) => Err(format!("token {id} is not below {vocab_size}")),
        None => Ok(rows),
    }
}

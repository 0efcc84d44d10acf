//! What a model scored on every single held-out row or question, and the line that keeps it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

/// Scores of the single rows (or questions) of a dataset at one evaluation, always in the same order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Of each row, how many of its answers are right: 0 or 1 where a row has one, else up to its weight.
    pub right: Vec<u32>,
    /// Weight of each row in the dataset's means, its number of targets; empty where all weigh 1.
    pub weights: Vec<u32>,
    /// Next-token loss of each row, nats per token; empty for questions.
    pub ntp: Vec<f32>,
}

/// A line of `outcomes.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutcomesLine {
    /// Arm, an index as in events.
    pub arm: usize,
    /// Steps of the arm.
    pub step: u64,
    /// Dataset.
    pub dataset: String,
    /// Rows.
    rows: usize,
    /// A bit a row, or 32 bits a row where rows have weights.
    right: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    weights: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    ntp: String,
}

impl Outcomes {
    /// Accuracy of each row, 0 to 1.
    pub fn accuracies(&self) -> Vec<f64> {
        let right = self.right.iter().map(|&right| f64::from(right));
        match self.weights.is_empty() {
            true => right.collect(),
            false => right
                .zip(&self.weights)
                .map(|(right, &weight)| right / f64::from(weight.max(1)))
                .collect(),
        }
    }

    /// Weight of each row, where they differ.
    pub fn weights(&self) -> Option<Vec<f64>> {
        let weights = || {
            self.weights
                .iter()
                .map(|&weight| f64::from(weight))
                .collect()
        };
        (!self.weights.is_empty()).then(weights)
    }

    /// The line of the file.
    pub fn line(&self, arm: usize, step: u64, dataset: &str) -> OutcomesLine {
        let words = |words: &[u32]| encode(words.iter().flat_map(|word| word.to_le_bytes()));
        let bits = self.right.chunks(8).map(|eight| {
            eight
                .iter()
                .enumerate()
                .fold(0, |byte, (i, &right)| byte | u8::from(right != 0) << i)
        });
        OutcomesLine {
            arm,
            step,
            dataset: dataset.to_owned(),
            rows: self.right.len(),
            right: match self.weights.is_empty() {
                true => encode(bits),
                false => words(&self.right),
            },
            weights: words(&self.weights),
            ntp: encode(self.ntp.iter().flat_map(|ntp| ntp.to_le_bytes())),
        }
    }
}

impl OutcomesLine {
    /// The outcomes of the line; `None` where its parts do not fit together.
    pub fn outcomes(&self) -> Option<Outcomes> {
        let words = |text: &str| -> Option<Vec<[u8; 4]>> {
            let bytes = BASE64_STANDARD.decode(text).ok()?;
            let (words, rest) = bytes.as_chunks::<4>();
            rest.is_empty().then(|| words.to_vec())
        };
        let numbers = |text| Some(words(text)?.into_iter().map(u32::from_le_bytes).collect());
        let weights: Vec<u32> = numbers(&self.weights)?;
        let right = match weights.is_empty() {
            true => {
                let bytes = BASE64_STANDARD.decode(&self.right).ok()?;
                let bit = |row: usize| Some(u32::from(bytes.get(row / 8)? >> (row % 8) & 1));
                (0..self.rows).map(bit).collect::<Option<_>>()?
            }
            false => numbers(&self.right)?,
        };
        let ntp: Vec<f32> = words(&self.ntp)?
            .into_iter()
            .map(f32::from_le_bytes)
            .collect();
        let fits = |len: usize| len == 0 || len == self.rows;
        let whole = right.len() == self.rows && fits(weights.len()) && fits(ntp.len());
        whole.then_some(Outcomes {
            right,
            weights,
            ntp,
        })
    }
}

fn encode(bytes: impl Iterator<Item = u8>) -> String {
    BASE64_STANDARD.encode(bytes.collect::<Vec<u8>>())
}

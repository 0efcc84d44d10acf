//! Rows of tokens, and a replay batch made of them.

use crate::Error;

/// Rows of tokens, padded to one length. This crate's functions make fields that agree in shape; the lab
/// checks every batch it gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequences {
    /// Padded length T.
    pub seq_len: usize,
    /// Token ids `[rows, T]`.
    pub tokens: Vec<u32>,
    /// True length of each row.
    pub lengths: Vec<u32>,
    /// Loss weights on targets `[rows, T]`: `[r, t]` belongs to predicting token `t` of row `r`.
    /// `None`: 1 for every token but the first.
    pub weights: Option<Vec<f32>>,
    /// Old task of each row by index, where known; not part of a batch.
    pub tasks: Option<Vec<usize>>,
}

/// Two lists as one, where both are there.
fn joined<T: Clone>(first: Option<Vec<T>>, second: Option<&[T]>) -> Option<Vec<T>> {
    let (mut all, second) = first.zip(second)?;
    all.extend_from_slice(second);
    Some(all)
}

impl Sequences {
    /// Makes sequences of rows of different lengths, padded with `pad`.
    pub fn from_rows<R: AsRef<[u32]>>(rows: &[R], pad: u32) -> Self {
        let seq_len = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
        let mut sequences = Self {
            seq_len,
            ..Self::default()
        };
        for row in rows {
            let row = row.as_ref();
            let padding = std::iter::repeat_n(pad, seq_len - row.len());
            sequences.tokens.extend_from_slice(row);
            sequences.tokens.extend(padding);
            sequences.lengths.push(row.len() as u32);
        }
        sequences
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// Tokens of a row, without padding.
    pub fn row(&self, row: usize) -> &[u32] {
        &self.tokens[row * self.seq_len..][..self.lengths[row] as usize]
    }

    /// These rows and then others, padded to the same length; what only one of both has is left out.
    pub(crate) fn followed_by(mut self, others: &Self) -> Self {
        debug_assert_eq!(self.seq_len, others.seq_len);
        self.tokens.extend_from_slice(&others.tokens);
        self.lengths.extend_from_slice(&others.lengths);
        self.weights = joined(self.weights, others.weights.as_deref());
        self.tasks = joined(self.tasks, others.tasks.as_deref());
        self
    }

    /// A copy of some rows, in the order given.
    pub fn select(&self, rows: impl IntoIterator<Item = usize>) -> Self {
        let mut selected = Self {
            seq_len: self.seq_len,
            weights: self.weights.as_ref().map(|_| Vec::new()),
            tasks: self.tasks.as_ref().map(|_| Vec::new()),
            ..Self::default()
        };
        for row in rows {
            let span = row * self.seq_len..(row + 1) * self.seq_len;
            selected
                .tokens
                .extend_from_slice(&self.tokens[span.clone()]);
            selected.lengths.push(self.lengths[row]);
            if let (Some(to), Some(from)) = (&mut selected.weights, &self.weights) {
                to.extend_from_slice(&from[span]);
            }
            if let (Some(to), Some(from)) = (&mut selected.tasks, &self.tasks) {
                to.push(from[row]);
            }
        }
        selected
    }
}

/// The replay batch of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Rows, at most [`crate::Phase::max_rows`].
    pub sequences: Sequences,
    /// Objective of each row; `None` for the arm's.
    pub row_objectives: Option<Vec<RowObjective>>,
    /// Teacher of the KL rows.
    pub teacher: Teacher,
    /// Coefficient of this step; `None` for the arm's. Without effect in a `replace` arm.
    pub coeff: Option<f64>,
}

impl From<Sequences> for Batch {
    fn from(sequences: Sequences) -> Self {
        Self {
            sequences,
            ..Self::default()
        }
    }
}

impl Batch {
    /// Checks that all arrays agree in shape; the error names the first that does not.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let rows = self.sequences.rows();
        let cells = rows * self.sequences.seq_len;
        let shape = |name: &str, len: usize, expected: usize| {
            if len == expected {
                return Ok(());
            }
            Err(Error::Failed(format!(
                "a batch of {rows} rows of {} tokens has {len} {name}, not {expected}",
                self.sequences.seq_len
            )))
        };
        shape("tokens", self.sequences.tokens.len(), cells)?;
        if let Some(weights) = &self.sequences.weights {
            shape("weights", weights.len(), cells)?;
        }
        if let Some(objectives) = &self.row_objectives {
            shape("row objectives", objectives.len(), rows)?;
        }
        if let Teacher::Supplied { k, ids, log_probs } = &self.teacher {
            shape("teacher ids", ids.len(), cells * k)?;
            shape("teacher log-probabilities", log_probs.len(), cells * k)?;
        }
        Ok(())
    }
}

/// Objective of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowObjective {
    /// The arm's.
    #[default]
    Default,
    /// KL(teacher || student).
    Kl,
    /// Next-token prediction.
    Ntp,
}

/// Teacher of the KL rows of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Teacher {
    /// The frozen copy of the student at the start of the phase.
    #[default]
    Reference,
    /// A snapshot kept by [`crate::Host::keep_snapshot`].
    Snapshot(u64),
    /// The k most likely tokens of each target with their log-probabilities, `[rows, T, k]`.
    Supplied {
        /// Number of entries per target.
        k: usize,
        /// Token ids.
        ids: Vec<u32>,
        /// Log-probabilities, nats.
        log_probs: Vec<f32>,
    },
}

//! Reading and writing saved state, and a replay buffer for strategies to use.

use crate::{Error, Generate, Host, Sequences, Step};

/// Writes a state field by field; [`StateReader`] reads it back in the same order.
#[derive(Debug, Default)]
pub struct StateWriter(Vec<u8>);

impl StateWriter {
    /// Appends an integer.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends a float, bit for bit.
    pub fn f64(&mut self, value: f64) -> &mut Self {
        self.u64(value.to_bits())
    }

    /// Appends bytes, with their number.
    pub fn bytes(&mut self, values: &[u8]) -> &mut Self {
        self.u64(values.len() as u64);
        self.0.extend_from_slice(values);
        self
    }

    /// Appends integers, e.g. token ids, with their number.
    pub fn u32s(&mut self, values: &[u32]) -> &mut Self {
        self.u64(values.len() as u64);
        self.0.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self
    }

    /// Appends floats, bit for bit, with their number.
    pub fn f32s(&mut self, values: &[f32]) -> &mut Self {
        self.u64(values.len() as u64);
        self.0.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self
    }

    /// Takes the state written so far.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Reads what [`StateWriter`] wrote.
#[derive(Debug)]
pub struct StateReader<'a>(&'a [u8]);

impl<'a> StateReader<'a> {
    /// A reader at the beginning of a state.
    pub fn new(state: &'a [u8]) -> Self {
        Self(state)
    }

    /// Reads an integer.
    pub fn u64(&mut self) -> Result<u64, Error> {
        let mut value = [0; 8];
        value.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(value))
    }

    /// Reads a float, bit for bit.
    pub fn f64(&mut self) -> Result<f64, Error> {
        Ok(f64::from_bits(self.u64()?))
    }

    /// Reads bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let len = self.u64()?;
        self.take(len)
    }

    /// Reads integers.
    pub fn u32s(&mut self) -> Result<Vec<u32>, Error> {
        let bytes = self.u64()?.saturating_mul(4);
        let words = self.take(bytes)?.chunks_exact(4);
        Ok(words
            .map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]))
            .collect())
    }

    /// Reads floats, bit for bit.
    pub fn f32s(&mut self) -> Result<Vec<f32>, Error> {
        Ok(self.u32s()?.into_iter().map(f32::from_bits).collect())
    }

    /// Checks that the whole state was read.
    pub fn finish(self) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(format!("the saved state has {} bytes too many", self.0.len()).into())
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Error> {
        let split = usize::try_from(len)
            .ok()
            .and_then(|len| self.0.split_at_checked(len));
        let (front, rest) = split.ok_or_else(|| {
            Error::Failed(format!(
                "the saved state ends too early: {len} bytes wanted, {} left",
                self.0.len()
            ))
        })?;
        self.0 = rest;
        Ok(front)
    }
}

/// A buffer of replay rows, filled in bulk and taken from in order, one batch at a time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplayBuffer {
    sequences: Sequences,
    used: usize,
}

impl ReplayBuffer {
    /// Version of what [`ReplayBuffer::save`] writes.
    pub const STATE_VERSION: u32 = 1;

    /// Number of rows left.
    pub fn len(&self) -> usize {
        self.sequences.rows() - self.used
    }

    /// Whether no row is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the rows that are left.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Replaces the rows that are left by `sequences`.
    pub fn refill(&mut self, sequences: Sequences) {
        *self = Self { sequences, used: 0 };
    }

    /// Takes the next rows, fewer if fewer are left.
    pub fn take(&mut self, rows: usize) -> Sequences {
        let from = self.used;
        self.used += rows.min(self.len());
        self.sequences.select(from..self.used)
    }

    /// Takes the next batch of free samples of the reference. A buffer that has too few is filled for
    /// `batches` steps (up to the end of the phase), with one sample for each of the prompts that
    /// `prompts` returns for a number of rows.
    pub fn next_samples(
        &mut self,
        step: &Step,
        host: &mut Host,
        batches: u64,
        prompts: impl FnOnce(usize) -> Vec<Vec<u32>>,
    ) -> Result<Sequences, Error> {
        let mut taken = self.take(step.rows);
        // The rows of a batch may differ from step to step.
        if taken.rows() < step.rows {
            let prompts = prompts(step.rows_ahead(batches));
            self.refill(host.generate(&Generate::new(prompts, step.phase.seq_len))?);
            let rest = self.take(step.rows - taken.rows());
            taken = match taken.rows() {
                0 => rest,
                _ => taken.followed_by(&rest),
            };
        }
        Ok(taken)
    }

    /// Saves the rows that are left.
    pub fn save(&self) -> Vec<u8> {
        let left = self.sequences.select(self.used..self.sequences.rows());
        let mut state = StateWriter::default();
        state
            .u64(left.seq_len as u64)
            .u32s(&left.tokens)
            .u32s(&left.lengths)
            .u64(left.weights.is_some() as u64)
            .f32s(left.weights.as_deref().unwrap_or_default());
        state.finish()
    }

    /// Restores what [`ReplayBuffer::save`] wrote.
    pub fn load(version: u32, state: &[u8]) -> Result<Self, Error> {
        if version != Self::STATE_VERSION {
            return Err(format!(
                "the saved state has version {version}, this plugin reads {}",
                Self::STATE_VERSION
            )
            .into());
        }
        let mut state = StateReader::new(state);
        let seq_len = state.u64()? as usize;
        let tokens = state.u32s()?;
        let lengths = state.u32s()?;
        let weighted = state.u64()? != 0;
        let weights = Some(state.f32s()?).filter(|_| weighted);
        state.finish()?;
        let cells = lengths.len().checked_mul(seq_len);
        if cells != Some(tokens.len()) || weights.as_ref().is_some_and(|w| w.len() != tokens.len())
        {
            return Err(
                "the saved buffer's tokens, lengths and weights do not fit together".into(),
            );
        }
        let sequences = Sequences {
            seq_len,
            tokens,
            lengths,
            weights,
            tasks: None,
        };
        Ok(Self { sequences, used: 0 })
    }
}

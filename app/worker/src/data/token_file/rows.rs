//! Batches of a token file, in the order that the paper's reference implementation has them.
//!
//! A row is T tokens of the file at a multiple of T, wherever documents end, and its first token is overwritten with
//! the dataset's marker. All rows are shuffled once by the seed of the split: the first ones are held out, the rest is
//! trained on in that order, in whole batches; the rows that are left over never come. From the second epoch on the
//! rows of the training batches are shuffled anew, every epoch in an order of its own.
//!
//! Every order is computed where it is asked ([`Permutation`]), so that a batch depends on its number and the seeds
//! alone: no order is held in memory, and a resumed run goes on at once and exactly.

use std::sync::Arc;

use forgetlab_engine::Stream;

use super::permutation::Permutation;
use super::{TokenFile, TokenFileError};
use crate::data::Batch;

/// How batches are made of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowSettings {
    /// Tokens of a row, T.
    pub seq_len: usize,
    /// Rows of a batch, B.
    pub batch_size: usize,
    /// Rows that are held out.
    pub held_out: u64,
    /// Token that overwrites the first of every row; `None` leaves the file's.
    pub marker: Option<u32>,
    /// Decides which rows are held out, and the order of the first epoch.
    pub split_seed: u64,
    /// Decides the order of the epochs after the first.
    pub seed: u64,
}

/// Training batches and held-out batches of one token file.
#[derive(Clone, Debug)]
pub struct TokenRows {
    file: Arc<TokenFile>,
    settings: RowSettings,
    /// The order of the split, over all rows.
    split: Permutation,
    /// Orders of the epochs after the first, by their number.
    epochs: Stream,
    /// Training batches of an epoch.
    train_batches: u64,
}

impl TokenRows {
    /// Splits the rows of a file.
    ///
    /// # Errors
    /// [`TokenFileError::TooFew`] where there is no whole batch to train on; a senseless setting.
    pub fn new(file: Arc<TokenFile>, settings: &RowSettings) -> Result<Self, TokenFileError> {
        check(&file, settings)?;
        let &RowSettings {
            seq_len,
            batch_size,
            held_out,
            ..
        } = settings;
        let batch = batch_size as u64;
        let rows = file.tokens() / seq_len as u64;
        let shape = format!("a batch is {batch_size} rows of {seq_len} tokens");
        let problem = match rows.saturating_sub(held_out) {
            _ if rows < batch => format!(
                "{} tokens are fewer than a batch: {shape}; choose fewer, or take more text",
                file.tokens()
            ),
            trained if trained < batch => format!(
                "{held_out} of its {rows} rows are held out, and no whole batch is left to train on: {shape}; hold \
                 out less, or take more text"
            ),
            trained => {
                let split = Stream::new(settings.split_seed, "token file: split");
                return Ok(Self {
                    split: Permutation::new(&mut split.at(0), rows),
                    epochs: Stream::new(settings.seed, "token file: epochs"),
                    train_batches: trained / batch,
                    settings: *settings,
                    file,
                });
            }
        };
        Err(TokenFileError::TooFew {
            path: file.path().into(),
            problem,
        })
    }

    /// Training batch number `batch`, counted from 0 over all epochs.
    ///
    /// # Errors
    /// A file that was cut off; a token outside its vocabulary.
    pub fn batch(&self, batch: u64) -> Result<Batch, TokenFileError> {
        self.begin_of(batch, self.settings.batch_size)
    }

    /// The first `rows` rows of training batch number `batch`, for mixing into other batches.
    ///
    /// # Errors
    /// As [`TokenRows::batch`].
    ///
    /// # Panics
    /// Where a batch has fewer rows.
    pub fn begin_of(&self, batch: u64, rows: usize) -> Result<Batch, TokenFileError> {
        let size = self.settings.batch_size;
        assert!(rows <= size, "a batch has {size} rows");
        let first = batch % self.train_batches * size as u64;
        let places = first..first + rows as u64;
        match batch / self.train_batches {
            0 => self.read(places.map(|place| self.train_row(place))),
            epoch => {
                let order = Permutation::new(&mut self.epochs.at(epoch), self.train_rows());
                self.read(places.map(|place| self.train_row(order.at(place))))
            }
        }
    }

    /// Training rows by their numbers in the first epoch.
    ///
    /// # Errors
    /// As [`TokenRows::batch`].
    pub fn training_rows(&self, numbers: &[u64]) -> Result<Batch, TokenFileError> {
        self.read(numbers.iter().map(|&number| self.train_row(number)))
    }

    /// The first held-out rows, `most` of them where there are as many.
    ///
    /// # Errors
    /// As [`TokenRows::batch`].
    pub fn held_out(&self, most: usize) -> Result<Batch, TokenFileError> {
        let rows = self.settings.held_out.min(most as u64);
        self.read((0..rows).map(|place| self.split.at(place)))
    }

    /// Rows that are trained on in an epoch.
    fn train_rows(&self) -> u64 {
        self.train_batches * self.settings.batch_size as u64
    }

    /// The row of the file at a place of the first epoch.
    fn train_row(&self, place: u64) -> u64 {
        self.split.at(self.settings.held_out + place)
    }

    /// Rows of the file, by their numbers.
    fn read(&self, rows: impl Iterator<Item = u64>) -> Result<Batch, TokenFileError> {
        let RowSettings {
            seq_len, marker, ..
        } = self.settings;
        let mut batch = Batch {
            seq_len,
            ..Batch::default()
        };
        let mut bytes = Vec::new();
        for row in rows {
            let first = batch.tokens.len();
            let start = row * seq_len as u64;
            self.file
                .read_into(start, seq_len, &mut bytes, &mut batch.tokens)?;
            if let Some(marker) = marker {
                batch.tokens[first] = marker;
            }
            batch.mask.resize(batch.tokens.len(), true);
            // Nothing stands before it.
            batch.mask[first] = false;
            batch.lens.push(seq_len);
        }
        Ok(batch)
    }
}

fn check(file: &TokenFile, settings: &RowSettings) -> Result<(), TokenFileError> {
    let bad = |name, value: String, what| Err(TokenFileError::Setting { name, value, what });
    let &RowSettings {
        seq_len,
        batch_size,
        marker,
        ..
    } = settings;
    if seq_len < 2 {
        let what = "a row needs a token and another to predict from it";
        return bad("seq_len", seq_len.to_string(), what);
    }
    if batch_size == 0 {
        return bad("batch_size", "0".into(), "a batch has at least one row");
    }
    match marker {
        Some(id) if id as usize >= file.vocab_size() => bad(
            "marker",
            id.to_string(),
            "it is a token of the file's vocabulary",
        ),
        _ => Ok(()),
    }
}

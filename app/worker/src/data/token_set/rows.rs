//! Rows of tokens with their targets, in order or drawn at random.

use forgetlab_engine::Stream;

/// Rows of tokens, each with a mask of its targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub(super) tokens: Vec<u32>,
    /// Whether a token is a target, one for every token.
    pub(super) mask: Vec<bool>,
    /// End of each row in `tokens` and `mask`.
    pub(super) ends: Vec<u64>,
}

impl Rows {
    /// Appends a row. Its first token is never a target: nothing stands before it.
    ///
    /// # Panics
    /// Where the mask has another length than the row.
    pub fn push(&mut self, tokens: &[u32], mask: &[bool]) {
        assert_eq!(tokens.len(), mask.len(), "one mask entry a token");
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.mask.extend_from_slice(mask);
        if let Some(first) = self.mask.get_mut(start) {
            *first = false;
        }
        self.ends.push(self.tokens.len() as u64);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Tokens and mask of row number `index`.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn row(&self, index: usize) -> (&[u32], &[bool]) {
        let start = index
            .checked_sub(1)
            .map_or(0, |before| self.ends[before] as usize);
        let range = start..self.ends[index] as usize;
        (&self.tokens[range.clone()], &self.mask[range])
    }

    /// Tokens and masks of all rows, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u32], &[bool])> {
        (0..self.len()).map(|index| self.row(index))
    }

    /// Tokens of all rows together.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Targets of all rows together.
    pub fn targets(&self) -> usize {
        self.mask.iter().filter(|&&target| target).count()
    }

    /// All rows, padded on the right to the longest of them.
    pub fn all(&self, pad: u32) -> Batch {
        let indices: Vec<usize> = (0..self.len()).collect();
        self.batch(&indices, pad)
    }

    /// The rows of these numbers, padded on the right to the longest of them. Padding is no target.
    pub fn batch(&self, indices: &[usize], pad: u32) -> Batch {
        let rows = || indices.iter().map(|&index| self.row(index));
        let seq_len = rows().map(|(tokens, _)| tokens.len()).max().unwrap_or(0);
        let mut batch = Batch {
            seq_len,
            tokens: Vec::with_capacity(indices.len() * seq_len),
            mask: Vec::with_capacity(indices.len() * seq_len),
            lens: Vec::with_capacity(indices.len()),
        };
        for (i, (tokens, mask)) in rows().enumerate() {
            batch.tokens.extend_from_slice(tokens);
            batch.tokens.resize((i + 1) * seq_len, pad);
            batch.mask.extend_from_slice(mask);
            batch.mask.resize((i + 1) * seq_len, false);
            batch.lens.push(tokens.len());
        }
        batch
    }
}

/// Rows padded to one length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Tokens of a row, padding included, T.
    pub seq_len: usize,
    /// Token ids `[B, T]`.
    pub tokens: Vec<u32>,
    /// `[B, T]`, whether a token is a target.
    pub mask: Vec<bool>,
    /// `[B]`, tokens of each row before its padding.
    pub lens: Vec<usize>,
}

impl Batch {
    /// Number of rows, B.
    pub fn rows(&self) -> usize {
        self.lens.len()
    }

    /// Tokens of its rows, padding left out.
    pub fn own_tokens(&self) -> usize {
        self.lens.iter().sum()
    }

    /// Targets of its rows.
    pub fn targets(&self) -> usize {
        self.mask.iter().filter(|&&target| target).count()
    }

    /// Puts the rows of another batch, of rows as long, in the place of the first ones.
    pub fn begin_with(&mut self, first: &Self) {
        debug_assert_eq!(self.seq_len, first.seq_len);
        self.lens[..first.rows()].copy_from_slice(&first.lens);
        self.tokens[..first.tokens.len()].copy_from_slice(&first.tokens);
        self.mask[..first.mask.len()].copy_from_slice(&first.mask);
    }

    /// Keeps the first rows.
    pub fn truncate(&mut self, rows: usize) {
        self.lens.truncate(rows);
        self.tokens.truncate(rows * self.seq_len);
        self.mask.truncate(rows * self.seq_len);
    }
}

/// An endless random order of rows in which every row comes once before any comes again.
///
/// Every epoch is shuffled by its own sequence of a named stream, so where training stands is told
/// by the number of rows drawn so far, and any place is reached at once.
#[derive(Clone, Debug)]
pub struct Shuffle {
    stream: Stream,
    rows: u64,
    epoch: u64,
    order: Vec<u32>,
}

impl Shuffle {
    /// The order of `rows` rows for a seed and a purpose.
    ///
    /// # Panics
    /// With no rows, or more than 2³².
    pub fn new(seed: u64, purpose: &str, rows: usize) -> Self {
        Self::of(Stream::new(seed, purpose), rows)
    }

    /// The order of `rows` rows that a stream decides.
    ///
    /// # Panics
    /// With no rows, or more than 2³².
    pub fn of(stream: Stream, rows: usize) -> Self {
        assert!(rows > 0, "nothing to draw from");
        assert!(u32::try_from(rows).is_ok(), "at most 2³² rows");
        let mut shuffle = Self {
            stream,
            rows: rows as u64,
            epoch: 0,
            order: Vec::new(),
        };
        shuffle.turn_to(0);
        shuffle
    }

    /// Number of the row that is drawn after `position` others.
    pub fn at(&mut self, position: u64) -> usize {
        let epoch = position / self.rows;
        if epoch != self.epoch {
            self.turn_to(epoch);
        }
        self.order[(position % self.rows) as usize] as usize
    }

    /// Numbers of `count` rows from `position` on.
    pub fn draw(&mut self, position: u64, count: usize) -> Vec<usize> {
        (position..position + count as u64)
            .map(|p| self.at(p))
            .collect()
    }

    /// Fisher and Yates' shuffle.
    fn turn_to(&mut self, epoch: u64) {
        let mut random = self.stream.at(epoch);
        self.epoch = epoch;
        self.order.clear();
        self.order.extend(0..self.rows as u32);
        for i in (1..self.order.len()).rev() {
            self.order.swap(i, random.below(i as u64 + 1) as usize);
        }
    }
}

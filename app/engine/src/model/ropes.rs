//! Tables of rotations for the blocks of a model.

use crate::ops::rope::RopeTable;

use super::ModelConfig;

/// The tables of a model: most have one, some another for blocks with a window.
pub(crate) struct Ropes {
    all: RopeTable,
    windowed: Option<RopeTable>,
}

impl Ropes {
    /// The tables for positions `0..seq_len`.
    pub fn new(seq_len: usize, config: &ModelConfig) -> Self {
        let table = |rope| RopeTable::new(seq_len, config.head_dim, rope);
        let window = config.parts.window.as_ref();
        Self {
            all: table(&config.rope),
            windowed: window.and_then(|w| w.rope.as_ref()).map(table),
        }
    }

    /// Number of positions in the tables.
    pub fn seq_len(&self) -> usize {
        self.all.seq_len()
    }

    /// The table of block `l`; `None` where it does not rotate.
    pub fn of(&self, config: &ModelConfig, l: usize) -> Option<&RopeTable> {
        match &self.windowed {
            _ if config.parts.unrotated.contains(l) => None,
            Some(table) if config.window(l).is_some() => Some(table),
            _ => Some(&self.all),
        }
    }
}

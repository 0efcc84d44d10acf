//! Weights of a model: one flat buffer, with named tensors in it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::random::Stream;

use super::{Mlp, ModelConfig, Vector};

/// One tensor of a [`Layout`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name: `embed_in`, `embed_out`, `final_norm`; `blocks.{l}.` with `qkv`, `out`, `up` (`gate_up`), `down`, or
    /// the name of a [`Vector`].
    pub name: String,
    /// Shape: `[V, D]` for embeddings, `[out, in]` for linear layers, `[1, len]` for vectors.
    pub shape: [usize; 2],
    /// Range in the flat buffer.
    pub range: Range<usize>,
}

impl Entry {
    /// Whether it is a vector: gains of a norm, or biases.
    pub fn is_vector(&self) -> bool {
        self.is_gains() || self.name.ends_with("_bias")
    }

    /// Whether it holds the weights of a norm.
    pub fn is_gains(&self) -> bool {
        self.name.ends_with("_norm")
    }
}

/// Weights of a tensor that one thread initialises at a time; even.
const INIT_PART: usize = 1 << 18;

/// A linear layer of a block, in the order of [`Layout::block`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockLinear {
    Qkv,
    Out,
    /// `up`, or `gate_up`.
    Up,
    Down,
}

impl BlockLinear {
    /// Linear layers of a block.
    pub(crate) const COUNT: usize = 4;

    /// Number of the layer in block `l` among the linear layers of all blocks.
    pub(crate) fn number(self, l: usize) -> usize {
        Self::COUNT * l + self as usize
    }
}

/// Places of a model's tensors in the flat buffer of its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// The model's sizes and parts.
    pub config: ModelConfig,
    /// Tensors in order: embeddings, then each block's `qkv [(N + 2 K) H, D]`, `out [D, N H]`,
    /// `up [F, D]` (SwiGLU, GeGLU: `gate_up [2 F, D]`, gate first) and `down [D, F]`, then its
    /// [vectors](ModelConfig::vectors); `final_norm` is the last.
    pub entries: Vec<Entry>,
    /// Number of elements of all tensors.
    pub len: usize,
}

impl Layout {
    /// The layout of a model of these sizes and parts.
    pub fn new(config: ModelConfig) -> Arc<Self> {
        let (d, f, v) = (config.d_model, config.d_ff, config.vocab_size);
        let mut layout = Self {
            config,
            entries: Vec::new(),
            len: 0,
        };
        let mut add = |name: String, shape: [usize; 2]| {
            let range = layout.len..layout.len + shape[0] * shape[1];
            layout.len = range.end;
            layout.entries.push(Entry { name, shape, range });
        };
        add("embed_in".into(), [v, d]);
        if !config.tied_embeddings {
            add("embed_out".into(), [v, d]);
        }
        for l in 0..config.n_layers {
            add(format!("blocks.{l}.qkv"), [config.qkv_width(), d]);
            add(format!("blocks.{l}.out"), [d, config.q_width()]);
            match config.mlp {
                Mlp::Gelu => add(format!("blocks.{l}.up"), [f, d]),
                Mlp::SwiGlu | Mlp::GeGlu => add(format!("blocks.{l}.gate_up"), [2 * f, d]),
            }
            add(format!("blocks.{l}.down"), [d, f]);
            for (vector, len) in config.vectors() {
                add(format!("blocks.{l}.{}", vector.name()), [1, len]);
            }
        }
        if config.norm_gains {
            add("final_norm".into(), [1, d]);
        }
        Arc::new(layout)
    }

    /// Range of `embed_in`.
    pub fn embed_in(&self) -> Range<usize> {
        self.entries[0].range.clone()
    }

    /// Range of `embed_out`; of `embed_in` where the two are tied.
    pub fn embed_out(&self) -> Range<usize> {
        self.entries[self.embed_out_entry()].range.clone()
    }

    /// Ranges of block `l`'s `qkv`, `out`, `up` (or `gate_up`), `down`.
    pub fn block(&self, l: usize) -> [Range<usize>; 4] {
        std::array::from_fn(|i| self.entries[self.first_of_block(l) + i].range.clone())
    }

    /// Range of a vector of block `l`, if the model has it.
    pub fn vector(&self, l: usize, vector: Vector) -> Option<Range<usize>> {
        Some(self.entries[self.vector_entry(l, vector)?].range.clone())
    }

    /// Index in the entries of a vector of block `l`, if the model has it.
    pub(crate) fn vector_entry(&self, l: usize, vector: Vector) -> Option<usize> {
        let place = self.config.vectors().position(|(v, _)| v == vector)?;
        Some(self.first_of_block(l) + BlockLinear::COUNT + place)
    }

    /// Range of the final norm's gains, if norms have gains.
    pub fn final_gains(&self) -> Option<Range<usize>> {
        let range = || self.entries[self.entries.len() - 1].range.clone();
        self.config.norm_gains.then(range)
    }

    /// The linear layers: the output embedding, then each block's four.
    pub fn linears(&self) -> impl Iterator<Item = &Entry> {
        let block = |l| &self.entries[self.first_of_block(l)..][..BlockLinear::COUNT];
        let embed_out = &self.entries[self.embed_out_entry()];
        std::iter::once(embed_out).chain((0..self.config.n_layers).flat_map(block))
    }

    /// Index of the output embedding in the entries; of the input embedding where the two are tied.
    pub(crate) fn embed_out_entry(&self) -> usize {
        self.first_of_block(0) - 1
    }

    /// Index of block `l`'s first tensor in the entries; with `l` = L, of the tensor after the blocks.
    pub(crate) fn first_of_block(&self, l: usize) -> usize {
        let embeddings = if self.config.tied_embeddings { 1 } else { 2 };
        let per_block = BlockLinear::COUNT + self.config.vectors().count();
        embeddings + per_block * l
    }
}

/// Weights of a model, or its gradients or moments, which have the same layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Places of the tensors.
    pub layout: Arc<Layout>,
    /// Elements of all tensors, one tensor after another.
    pub data: Vec<f32>,
}

impl Params {
    /// All elements zero.
    pub fn zeros(layout: &Arc<Layout>) -> Self {
        Self {
            layout: layout.clone(),
            data: vec![0.0; layout.len],
        }
    }

    /// The paper's random initialisation: normal with standard deviation `D^-½`, or `F^-½` for down projections;
    /// gains are 1, biases 0.
    pub fn init(layout: &Arc<Layout>, stream: &Stream) -> Self {
        let mut params = Self::zeros(layout);
        let mut parts = Vec::new();
        let mut rest = &mut params.data[..];
        for (i, entry) in layout.entries.iter().enumerate() {
            let (data, after) = rest.split_at_mut(entry.range.len());
            rest = after;
            if entry.is_gains() {
                data.fill(1.0 - layout.config.parts.gain_offset);
                continue;
            }
            if entry.is_vector() {
                continue;
            }
            let std = (entry.shape[1] as f64).powf(-0.5) as f32;
            let begins = (0..).step_by(INIT_PART);
            parts.extend(
                data.chunks_mut(INIT_PART)
                    .zip(begins)
                    .map(|(part, begin)| (stream.at(i as u64).after_normals(begin), std, part)),
            );
        }
        let workers = match parts.len() {
            // Not worth a thread.
            parts if parts < 2 * layout.entries.len() => 1,
            parts => std::thread::available_parallelism().map_or(1, |cores| parts.min(cores.get())),
        };
        let parts = Mutex::new(parts);
        let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let fill = || {
            while let Some((mut normals, std, part)) = next() {
                part.iter_mut().for_each(|x| *x = std * normals.normal());
            }
        };
        std::thread::scope(|scope| {
            (1..workers).for_each(|_| drop(scope.spawn(fill)));
            fill();
        });
        params
    }

    /// Name, shape and elements of every tensor.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, [usize; 2], &[f32])> {
        self.layout
            .entries
            .iter()
            .map(|e| (e.name.as_str(), e.shape, &self.data[e.range.clone()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights must not depend on how many threads drew them.
    #[test]
    fn tensors_are_drawn_in_parts_as_they_are_in_one() {
        let config = ModelConfig::mini(64, 1, 16, 19_999);
        let layout = Layout::new(config);
        let stream = Stream::new(3, "test");
        let params = Params::init(&layout, &stream);
        let mut parts = 0;
        for (i, (name, [_, inputs], data)) in params.tensors().enumerate() {
            let std = (inputs as f64).powf(-0.5) as f32;
            let mut normals = stream.at(i as u64);
            assert!(data.iter().all(|&x| x == std * normals.normal()), "{name}");
            parts += data.len().div_ceil(INIT_PART);
        }
        assert!(parts >= 2 * layout.entries.len(), "by one thread alone");
    }
}

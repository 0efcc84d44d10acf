//! Weights of a model: one flat buffer, named views.

use std::ops::Range;
use std::sync::Arc;

use crate::train::Stream;

/// Sizes of the small transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelConfig {
    /// Width D of the residual stream.
    pub d_model: usize,
    /// Blocks L.
    pub n_layers: usize,
    /// Head size H (even, divides D).
    pub head_dim: usize,
    /// Vocabulary V.
    pub vocab_size: usize,
}

impl ModelConfig {
    /// Base of the rotary frequencies.
    pub const ROPE_BASE: f64 = 10_000.0;

    /// Heads N = D / H.
    pub fn n_heads(&self) -> usize {
        self.d_model / self.head_dim
    }

    /// Width of the MLP, F = 4 D.
    pub fn d_ff(&self) -> usize {
        4 * self.d_model
    }
}

/// One tensor of a [`Layout`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `embed_in`, `embed_out`, `blocks.{l}.qkv`, `.out`, `.up`, `.down`.
    pub name: String,
    /// `[V, D]` for embeddings, `[out, in]` for linear layers.
    pub shape: [usize; 2],
    /// Its place in the flat buffer.
    pub range: Range<usize>,
}

/// Where each tensor stands in the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Sizes it was made from.
    pub config: ModelConfig,
    /// Tensors in order: embeddings, then each block's `qkv`, `out`, `up`, `down`.
    pub entries: Vec<Entry>,
    /// Numbers in all.
    pub len: usize,
}

impl Layout {
    /// The layout of a model of these sizes.
    pub fn new(config: ModelConfig) -> Arc<Self> {
        let (d, f, v) = (config.d_model, config.d_ff(), config.vocab_size);
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
        add("embed_out".into(), [v, d]);
        for l in 0..config.n_layers {
            add(format!("blocks.{l}.qkv"), [3 * d, d]);
            add(format!("blocks.{l}.out"), [d, d]);
            add(format!("blocks.{l}.up"), [f, d]);
            add(format!("blocks.{l}.down"), [d, f]);
        }
        Arc::new(layout)
    }

    /// Place of `embed_in`.
    pub fn embed_in(&self) -> Range<usize> {
        self.entries[0].range.clone()
    }

    /// Place of `embed_out`.
    pub fn embed_out(&self) -> Range<usize> {
        self.entries[1].range.clone()
    }

    /// Places of block `l`'s `qkv`, `out`, `up`, `down`.
    pub fn block(&self, l: usize) -> [Range<usize>; 4] {
        std::array::from_fn(|i| self.entries[2 + 4 * l + i].range.clone())
    }
}

/// Weights (or anything shaped like them: gradients, moments).
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Where each tensor stands.
    pub layout: Arc<Layout>,
    /// All tensors one after another.
    pub data: Vec<f32>,
}

impl Params {
    /// All zeros.
    pub fn zeros(layout: &Arc<Layout>) -> Self {
        Self {
            layout: layout.clone(),
            data: vec![0.0; layout.len],
        }
    }

    /// The paper's initialisation: normal with deviation `D^-½`, `F^-½` for the down projections.
    pub fn init(layout: &Arc<Layout>, stream: &Stream) -> Self {
        let mut params = Self::zeros(layout);
        for (i, entry) in layout.entries.iter().enumerate() {
            let std = (entry.shape[1] as f64).powf(-0.5) as f32;
            let mut normals = stream.at(i as u64);
            for x in &mut params.data[entry.range.clone()] {
                *x = std * normals.normal();
            }
        }
        params
    }

    /// Names, shapes and numbers of every tensor.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, [usize; 2], &[f32])> {
        self.layout
            .entries
            .iter()
            .map(|e| (e.name.as_str(), e.shape, &self.data[e.range.clone()]))
    }
}

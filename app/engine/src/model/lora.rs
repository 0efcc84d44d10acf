//! Low-rank adapters (LoRA, arXiv 2106.09685): `W + s·B·A` in place of each linear layer's `W` in the
//! blocks, with `s = alpha / rank`; embeddings, gains and the output embedding have none.
//!
//! Only A and B are trained; W never changes and may be shared. Forwards multiply with the merged weights,
//! which are computed when they are packed, once a step. The backward never computes the gradient of a W:
//! from the rows `x` of a layer's input and the gradient `dy` of its output, `dA = (dy·sB)ᵀ·x` and
//! `dB = s·dyᵀ·(x·Aᵀ)` take `2 r (in + out)` multiplications a row where `dyᵀ·x` takes `in · out`, and
//! each thread accumulates gradients of adapters alone. The cost: merged weights in bf16 lose the part of an
//! adapter's product that is below their last bit, as the rounded weights of full training do.
//!
//! Where our layers fuse several of Hugging Face's (q, k, v; gate, up), each part has adapters of its own,
//! with names as in peft. The A of all P parts are stacked as `[P r, in]`, and their B are the blocks of a
//! block-diagonal `[out, P r]`: a fused layer is then one layer of rank `P r`.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::ops::Precision;
use crate::ops::matmul::{Out, Panels, Sizes, product, product_transposed};
use crate::random::Stream;

use super::{BlockLinear, Layout, Mlp, Params};

/// Rank and scale of adapters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank r of `B·A`, at least 1.
    pub rank: usize,
    /// Numerator of the scale: `B·A` is multiplied by `alpha / rank`.
    pub alpha: f64,
}

impl LoraConfig {
    /// The scale `s = alpha / rank`.
    pub fn scale(&self) -> f32 {
        (self.alpha / self.rank as f64) as f32
    }
}

/// Places of the adapters in their flat buffer, and of their gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraLayout {
    /// Rank and scale.
    pub config: LoraConfig,
    /// Number of elements of all adapters.
    pub len: usize,
    /// Each block's `qkv`, `out`, `up` (or `gate_up`), `down`.
    pub(crate) linears: Vec<AdaptedLinear>,
    /// Number of elements of a thread's gradient.
    gradient_len: usize,
}

/// Places of a linear layer and its adapters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AdaptedLinear {
    /// Number of the block.
    block: usize,
    /// Range of W in the model's flat buffer.
    weights: Range<usize>,
    /// Shape `[out, in]` of W.
    shape: [usize; 2],
    /// The layers of Hugging Face's that this one fuses.
    parts: &'static [Part],
    /// Rows of W of each part.
    rows: Vec<Range<usize>>,
    /// P r.
    rank: usize,
    /// Range of A `[P r, in]` in the adapters' flat buffer.
    a: Range<usize>,
    /// Range of B `[out, r]` in the adapters' flat buffer.
    b: Range<usize>,
    /// Range of the gradient of A in a thread's buffer.
    d_a: Range<usize>,
    /// Range of the gradient of the block-diagonal B `[out, P r]` in a thread's buffer.
    d_b: Range<usize>,
}

/// Names of one of Hugging Face's linear layers.
#[derive(Debug, PartialEq)]
struct Part {
    /// The lab's name.
    name: &'static str,
    /// Hugging Face's name.
    hugging_face: &'static str,
}

const Q: Part = part("q", "self_attn.q_proj");
const K: Part = part("k", "self_attn.k_proj");
const V: Part = part("v", "self_attn.v_proj");
const OUT: Part = part("out", "self_attn.o_proj");
const GATE: Part = part("gate", "mlp.gate_proj");
const UP: Part = part("up", "mlp.up_proj");
const DOWN: Part = part("down", "mlp.down_proj");

const fn part(name: &'static str, hugging_face: &'static str) -> Part {
    Part { name, hugging_face }
}

impl LoraLayout {
    /// The layout of adapters of this rank for a model.
    ///
    /// # Panics
    /// If the rank is 0.
    pub fn new(config: LoraConfig, model: &Layout) -> Arc<Self> {
        assert!(config.rank > 0, "adapters have a rank of 1 at least");
        let c = &model.config;
        let kv = c.n_kv_heads * c.head_dim;
        let (q, f, d) = (c.q_width(), c.d_ff, c.d_model);
        // Parts of each linear layer of a block, and the height of each part.
        let up: (&[Part], &[usize]) = match c.mlp {
            Mlp::Gelu => (&[UP], &[f]),
            Mlp::SwiGlu | Mlp::GeGlu => (&[GATE, UP], &[f, f]),
        };
        let linears: [(&'static [Part], &[usize]); BlockLinear::COUNT] = [
            (&[Q, K, V], &[q, kv, kv]),
            (&[OUT], &[d]),
            up,
            (&[DOWN], &[d]),
        ];
        let mut layout = Self {
            config,
            len: 0,
            linears: Vec::new(),
            gradient_len: 0,
        };
        // The first is the output embedding.
        for (i, entry) in model.linears().skip(1).enumerate() {
            let (parts, heights) = linears[i % BlockLinear::COUNT];
            let [out, width] = entry.shape;
            let rank = parts.len() * config.rank;
            let rows = heights.iter().scan(0, |end, height| {
                *end += height;
                Some(*end - height..*end)
            });
            let a = layout.len..layout.len + rank * width;
            let b = a.end..a.end + out * config.rank;
            let d_a = layout.gradient_len..layout.gradient_len + a.len();
            let d_b = d_a.end..d_a.end + out * rank;
            (layout.len, layout.gradient_len) = (b.end, d_b.end);
            layout.linears.push(AdaptedLinear {
                block: i / BlockLinear::COUNT,
                weights: entry.range.clone(),
                shape: entry.shape,
                parts,
                rows: rows.collect(),
                rank,
                a,
                b,
                d_a,
                d_b,
            });
        }
        Arc::new(layout)
    }

    /// Number of elements of a thread's gradient: those of every A and every block-diagonal B, zeros included.
    pub fn gradient_len(&self) -> usize {
        self.gradient_len
    }

    /// Number of floats that the adapters take when they are packed for a backward.
    pub fn packed_len(&self) -> usize {
        let lens = self.linears.iter().map(|linear| {
            let [out, width] = linear.shape;
            Panels::len(width, linear.rank) + Panels::len(out, linear.rank)
        });
        lens.sum()
    }

    /// Elements of every A, and of the block-diagonal B with it.
    #[cfg(gpu)]
    pub(crate) fn adapters(&self) -> impl Iterator<Item = [usize; 2]> {
        let linears = self.linears.iter();
        linears
            .map(|linear| linear.shape.map(|width| width * linear.rank))
            .map(|[b, a]| [a, b])
    }

    /// Elements of every W.
    #[cfg(gpu)]
    pub(crate) fn weights(&self) -> impl Iterator<Item = usize> {
        self.linears.iter().map(|linear| linear.weights.len())
    }

    /// A `[P r, in]` and the block-diagonal B `[out, P r]`, times `scale`, of linear layer `i` of the blocks, from
    /// a flat buffer; each with its shape.
    #[cfg(gpu)]
    pub(crate) fn tensors(
        &self,
        i: usize,
        data: &[f32],
        scale: f32,
    ) -> [(Vec<f32>, [usize; 2]); 2] {
        let linear = &self.linears[i];
        let [out, width] = linear.shape;
        let b = linear.block_diagonal(data, self.config.rank, scale);
        let a = data[linear.a.clone()].to_vec();
        [(a, [linear.rank, width]), (b, [out, linear.rank])]
    }

    /// Sums gradients of every A and every block-diagonal B, [`Self::gradient_len`] elements each, to gradients of
    /// the adapters; those of B are multiplied by `scale`.
    pub(crate) fn gather(self: &Arc<Self>, gradients: &[&[f32]], scale: f32) -> Lora {
        let mut sum = Lora::zeros(self);
        let mut add = |to: Range<usize>, from: usize, scale: f32| {
            for gradient in gradients {
                for (sum, g) in sum.data[to.clone()].iter_mut().zip(&gradient[from..]) {
                    *sum += scale * g;
                }
            }
        };
        for linear in &self.linears {
            add(linear.a.clone(), linear.d_a.start, 1.0);
            for (to, from) in linear.blocks(self.config.rank) {
                add(to, linear.d_b.start + from, scale);
            }
        }
        sum
    }
}

impl AdaptedLinear {
    /// Each row of B: its range in the flat buffer, and the index of its first element in the block-diagonal B.
    fn blocks(&self, rank: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
        let rows = self.rows.iter().enumerate();
        rows.flat_map(move |(part, rows)| {
            rows.clone().map(move |row| {
                let first = self.b.start + row * rank;
                (first..first + rank, row * self.rank + part * rank)
            })
        })
    }

    /// The block-diagonal B `[out, P r]` from a flat buffer, times `scale`.
    fn block_diagonal(&self, data: &[f32], rank: usize, scale: f32) -> Vec<f32> {
        let mut dense = vec![0.0; self.shape[0] * self.rank];
        for (from, to) in self.blocks(rank) {
            for (to, from) in dense[to..].iter_mut().zip(&data[from]) {
                *to = scale * from;
            }
        }
        dense
    }
}

/// Adapters of a model, or their gradients or moments, which have the same layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Places of the adapters.
    pub layout: Arc<LoraLayout>,
    /// Elements of all adapters, one adapter after another.
    pub data: Vec<f32>,
}

impl Lora {
    /// All elements zero.
    pub fn zeros(layout: &Arc<LoraLayout>) -> Self {
        Self {
            layout: layout.clone(),
            data: vec![0.0; layout.len],
        }
    }

    /// peft's initialisation, which does not change the model: A uniform in `[-in^-½, in^-½)`, B zero.
    pub fn init(layout: &Arc<LoraLayout>, stream: &Stream) -> Self {
        let mut lora = Self::zeros(layout);
        for (i, linear) in layout.linears.iter().enumerate() {
            let bound = (linear.shape[1] as f64).powf(-0.5) as f32;
            let mut random = stream.at(i as u64);
            for x in &mut lora.data[linear.a.clone()] {
                *x = bound * 2.0f32.mul_add(random.uniform(), -1.0);
            }
        }
        lora
    }

    /// Name (such as `blocks.{l}.q.lora_a`), shape and elements of every A `[r, in]` and B `[out, r]`.
    pub fn tensors(&self) -> impl Iterator<Item = (String, [usize; 2], &[f32])> {
        self.named(|l, part, ab| format!("blocks.{l}.{}.lora_{ab}", part.name))
    }

    /// [`Self::tensors`] under the names of peft's `adapter_model.safetensors`, for a model with Llama's linear layers.
    pub fn peft_tensors(&self) -> impl Iterator<Item = (String, [usize; 2], &[f32])> {
        self.named(|l, part, ab| {
            let (name, ab) = (part.hugging_face, ab.to_ascii_uppercase());
            format!("base_model.model.model.layers.{l}.{name}.lora_{ab}.weight")
        })
    }

    /// Name, shape and range in the flat buffer of every tensor, in the order of [`Self::tensors`].
    pub fn places(&self) -> impl Iterator<Item = (String, [usize; 2], Range<usize>)> {
        let start = self.data.as_ptr() as usize;
        self.tensors().map(move |(name, shape, numbers)| {
            let first = (numbers.as_ptr() as usize - start) / size_of::<f32>();
            (name, shape, first..first + numbers.len())
        })
    }

    /// Every tensor, under the name made of its block, its part and `a` or `b`.
    fn named(
        &self,
        name: impl Fn(usize, &Part, char) -> String,
    ) -> impl Iterator<Item = (String, [usize; 2], &[f32])> {
        let mut tensors = Vec::new();
        let rank = self.layout.config.rank;
        for linear in &self.layout.linears {
            let width = linear.shape[1];
            let each_a = self.data[linear.a.clone()].chunks_exact(rank * width);
            let parts = linear.parts.iter().zip(&linear.rows);
            for ((part, rows), a) in parts.zip(each_a) {
                let b = &self.data[linear.b.clone()][rows.start * rank..rows.end * rank];
                tensors.push((name(linear.block, part, 'a'), [rank, width], a));
                tensors.push((name(linear.block, part, 'b'), [rows.len(), rank], b));
            }
        }
        tensors.into_iter()
    }

    /// `W + s·B·A` of linear layer `i` of the blocks, from its `w [out, in]`.
    pub(crate) fn merge_linear(&self, i: usize, w: &[f32]) -> Vec<f32> {
        let (linear, config) = (&self.layout.linears[i], &self.layout.config);
        let (rank, width) = (config.rank, linear.shape[1]);
        let mut merged = w.to_vec();
        let scaled_b: Vec<f32> = self.data[linear.b.clone()]
            .iter()
            .map(|x| config.scale() * x)
            .collect();
        let each_a = self.data[linear.a.clone()].chunks_exact(rank * width);
        let mut panels = Panels::new(Precision::F32);
        for (rows, a) in linear.rows.iter().zip(each_a) {
            panels.pack(a, rank, width);
            let merged = &mut merged[rows.start * width..rows.end * width];
            let b = &scaled_b[rows.start * rank..rows.end * rank];
            product(merged, b, &panels, Out::Add);
        }
        merged
    }

    /// The weights of a model merged with these adapters: `base` with `s·B·A` added.
    pub fn merge(&self, base: &Params) -> Params {
        let mut merged = base.clone();
        for (i, linear) in self.layout.linears.iter().enumerate() {
            let w = &mut merged.data[linear.weights.clone()];
            let sum = self.merge_linear(i, w);
            w.copy_from_slice(&sum);
        }
        merged
    }
}

/// Adapters packed for the products of a backward, once a step.
pub(crate) struct PackedLora {
    layout: Arc<LoraLayout>,
    precision: Precision,
    /// `Aᵀ [in, P r]` and the block-diagonal `s·B [out, P r]` of each linear layer.
    linears: Vec<[Panels; 2]>,
}

impl PackedLora {
    /// Packs adapters. Runs on the rayon pool it is called in.
    pub fn new(lora: &Lora, precision: Precision) -> Self {
        let config = &lora.layout.config;
        let linears = lora.layout.linears.par_iter().map(|linear| {
            let [out, width] = linear.shape;
            let [mut a, mut b] = [0; 2].map(|_| Panels::new(precision));
            a.pack_transposed(&lora.data[linear.a.clone()], linear.rank, width);
            let dense = linear.block_diagonal(&lora.data, config.rank, config.scale());
            b.pack(&dense, out, linear.rank);
            [a, b]
        });
        Self {
            layout: lora.layout.clone(),
            precision,
            linears: linears.collect(),
        }
    }

    /// Adds to a thread's gradient that of the adapters of linear layer `i` of the blocks, from the layer's input
    /// `x [M, in]` and the gradient `dy [M, out]` of its output.
    pub fn backward(&self, grads: &mut [f32], i: usize, dy: &[f32], x: &[f32]) {
        let (linear, [a, b]) = (&self.layout.linears[i], &self.linears[i]);
        let ([out, width], rank) = (linear.shape, linear.rank);
        let m = x.len() / width;
        let mut low = vec![0.0; m * rank];
        product(&mut low, dy, b, Out::Set);
        let d_a = &mut grads[linear.d_a.clone()];
        let sizes = Sizes {
            m: rank,
            n: width,
            k: m,
        };
        product_transposed(d_a, &low, x, sizes, Out::Add, self.precision);
        product(&mut low, x, a, Out::Set);
        let d_b = &mut grads[linear.d_b.clone()];
        let sizes = Sizes {
            m: out,
            n: rank,
            k: m,
        };
        product_transposed(d_b, dy, &low, sizes, Out::Add, self.precision);
    }
}

/// A model: its weights, and adapters on top of them if it has any.
#[derive(Clone, Copy)]
pub struct ModelRef<'a> {
    /// The weights below the adapters.
    pub params: &'a Params,
    /// The adapters.
    pub lora: Option<&'a Lora>,
}

impl<'a> From<&'a Params> for ModelRef<'a> {
    fn from(params: &'a Params) -> Self {
        Self { params, lora: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelConfig;

    const LLAMA: ModelConfig = ModelConfig {
        n_kv_heads: 1,
        d_ff: 7,
        mlp: Mlp::SwiGlu,
        qk_norm: false,
        norm_gains: true,
        ..ModelConfig::mini(8, 2, 4, 11)
    };
    const SIZE: LoraConfig = LoraConfig {
        rank: 2,
        alpha: 6.0,
    };

    /// Else a checkpoint or an export would lack adapters, or mix them up.
    #[test]
    fn tensors_are_named_as_peft_names_them_and_hold_every_number() {
        let layout = LoraLayout::new(SIZE, &Layout::new(LLAMA));
        let mut lora = Lora::zeros(&layout);
        for (i, x) in lora.data.iter_mut().enumerate() {
            *x = i as f32;
        }
        let shapes: Vec<_> = lora.peft_tensors().map(|(name, s, _)| (name, s)).collect();
        assert_eq!(shapes.len(), 2 * 7 * 2);
        for (name, shape) in [
            ("layers.0.self_attn.q_proj.lora_A.weight", [2, 8]),
            ("layers.1.self_attn.q_proj.lora_B.weight", [8, 2]),
            ("layers.1.self_attn.v_proj.lora_B.weight", [4, 2]),
            ("layers.0.self_attn.o_proj.lora_A.weight", [2, 8]),
            ("layers.1.mlp.gate_proj.lora_B.weight", [7, 2]),
            ("layers.1.mlp.down_proj.lora_A.weight", [2, 7]),
        ] {
            let name = format!("base_model.model.model.{name}");
            assert!(shapes.contains(&(name.clone(), shape)), "{name}");
        }
        let mut elements: Vec<f32> = lora.tensors().flat_map(|(.., x)| x.to_vec()).collect();
        elements.sort_by(f32::total_cmp);
        assert_eq!(elements, lora.data);
        for ((name, shape, numbers), (same, _, range)) in lora.tensors().zip(lora.places()) {
            assert_eq!((&name, numbers), (&same, &lora.data[range]));
            assert_eq!(shape[0] * shape[1], numbers.len());
        }
    }

    /// By hand: each part's rows have their own A and B, and the rest of the model none.
    #[test]
    fn merging_adds_each_parts_product_to_its_rows() {
        let model = Layout::new(LLAMA);
        let base = Params::init(&model, &Stream::new(1, "base"));
        let mut lora = Lora::init(&LoraLayout::new(SIZE, &model), &Stream::new(2, "lora"));
        let mut random = Stream::new(3, "lora").at(0);
        lora.data.iter_mut().for_each(|x| *x += random.normal());
        let mut expected = base.clone();
        let tensors: Vec<_> = lora.tensors().collect();
        let place = |l: usize, i: usize, row: usize| model.block(l)[i].start + row * 8;
        for l in 0..2 {
            // The down projection's rows are 7 wide, all others 8.
            let starts = [
                ("q", place(l, 0, 0)),
                ("k", place(l, 0, 8)),
                ("v", place(l, 0, 12)),
                ("out", place(l, 1, 0)),
                ("gate", place(l, 2, 0)),
                ("up", place(l, 2, 7)),
                ("down", model.block(l)[3].start),
            ];
            for (name, start) in starts {
                let tensor = |ab| {
                    let name = format!("blocks.{l}.{name}.lora_{ab}");
                    tensors.iter().find(|(n, ..)| *n == name).expect("tensor")
                };
                let ((_, [rank, width], a), (_, [rows, _], b)) = (tensor('a'), tensor('b'));
                for row in 0..*rows {
                    for column in 0..*width {
                        let terms = (0..*rank).map(|r| b[row * rank + r] * a[r * width + column]);
                        expected.data[start + row * width + column] += 3.0 * terms.sum::<f32>();
                    }
                }
            }
        }
        let merged = lora.merge(&base);
        let pairs = merged.data.iter().zip(&expected.data);
        let worst = pairs.fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(worst < 1e-4, "{worst:e}");
    }

    /// As peft begins: A within its bound and not all alike, B zero; another seed, other adapters.
    #[test]
    fn fresh_adapters_are_uniform_and_add_nothing() {
        let model = Layout::new(ModelConfig::mini(64, 1, 16, 5));
        let layout = LoraLayout::new(SIZE, &model);
        let lora = Lora::init(&layout, &Stream::new(1, "lora"));
        assert_eq!(lora, Lora::init(&layout, &Stream::new(1, "lora")));
        assert_ne!(lora, Lora::init(&layout, &Stream::new(2, "lora")));
        for (name, [_, width], numbers) in lora.tensors() {
            let largest = numbers.iter().fold(0f32, |a, x| a.max(x.abs()));
            if name.ends_with("lora_b") {
                assert_eq!(largest, 0.0, "{name}");
                continue;
            }
            let bound = (width as f32).powf(-0.5);
            assert!(
                largest <= bound && largest > 0.9 * bound,
                "{name}: {largest}"
            );
            let squares: f32 = numbers.iter().map(|x| x * x).sum();
            let variance = squares / numbers.len() as f32;
            assert!((3.0 * variance / bound / bound - 1.0).abs() < 0.3, "{name}");
        }
        let base = Params::init(&model, &Stream::new(3, "base"));
        assert_eq!(lora.merge(&base), base);
    }
}

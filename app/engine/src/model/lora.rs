//! Low-rank adapters (LoRA, arXiv 2106.09685): `W + s·B·A` in place of each linear layer's `W` in the
//! blocks, with `s = alpha / rank`; embeddings, gains and the output embedding have none.
//!
//! Only A and B are trained; W stays as it is, and whoever else reads it may share it. Forwards multiply
//! with the merged weights, made as they are packed, once a step. The backward never makes the gradient
//! of a W: with rows `x` and gradients `dy` of a layer's output, `dA = (dy·sB)ᵀ·x` and
//! `dB = s·dyᵀ·(x·Aᵀ)` take `2 r (in + out)` multiplications a row where `dyᵀ·x` takes `in · out`, and
//! lanes keep gradients of adapters alone. (What that costs: merged weights in bf16 drop an adapter's
//! part that is below their last bit, as full training's rounded weights do.)
//!
//! Where our layers fuse several of Hugging Face's (q, k, v; gate, up), each has adapters of its own, so
//! that they can be named as peft names them. Their A stand one below another, `[P r, in]`, and their B
//! are the blocks of a block-diagonal `[out, P r]`: a fused layer is then one layer of rank `P r`.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::ops::Precision;
use crate::ops::matmul::{Out, Panels, product, product_transposed};
use crate::random::Stream;

use super::{Layout, Mlp, Params};

/// Size of the adapters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank r of `B·A`, from 1.
    pub rank: usize,
    /// `B·A` is multiplied by `alpha / rank`.
    pub alpha: f64,
}

impl LoraConfig {
    /// `s = alpha / rank`.
    pub fn scale(&self) -> f32 {
        (self.alpha / self.rank as f64) as f32
    }
}

/// Where each adapter stands in the flat buffer of a [`Lora`].
#[derive(Clone, Debug, PartialEq)]
pub struct LoraLayout {
    /// Size it was made for.
    pub config: LoraConfig,
    /// Numbers in all.
    pub len: usize,
    /// Each block's `qkv`, `out`, `up` (or `gate_up`), `down`.
    pub(crate) linears: Vec<AdaptedLinear>,
    /// Numbers of a lane's gradient.
    gradient_len: usize,
}

/// A linear layer with its adapters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AdaptedLinear {
    layer: usize,
    /// W, `[out, in]`, in the model's flat buffer.
    weights: Range<usize>,
    pub shape: [usize; 2],
    /// Hugging Face's layers that make it up, and their rows of W.
    parts: &'static [Part],
    rows: Vec<Range<usize>>,
    /// P r.
    pub rank: usize,
    /// A `[P r, in]` and B `[out, r]` in the adapters' flat buffer.
    a: Range<usize>,
    b: Range<usize>,
    /// Gradients of A and of the block-diagonal B `[out, P r]` in a lane's buffer.
    d_a: Range<usize>,
    d_b: Range<usize>,
}

/// A layer's name here, and in Hugging Face's checkpoints.
#[derive(Debug, PartialEq)]
struct Part(&'static str, &'static str);

const QKV: [Part; 3] = [
    Part("q", "self_attn.q_proj"),
    Part("k", "self_attn.k_proj"),
    Part("v", "self_attn.v_proj"),
];
const OUT: [Part; 1] = [Part("out", "self_attn.o_proj")];
const GATE_UP: [Part; 2] = [Part("gate", "mlp.gate_proj"), Part("up", "mlp.up_proj")];
const UP: [Part; 1] = [Part("up", "mlp.up_proj")];
const DOWN: [Part; 1] = [Part("down", "mlp.down_proj")];

impl LoraLayout {
    /// The layout of adapters of this size for a model.
    ///
    /// # Panics
    /// If the rank is 0.
    pub fn new(config: LoraConfig, model: &Layout) -> Arc<Self> {
        assert!(config.rank > 0, "adapters have a rank of 1 at least");
        let c = &model.config;
        let kv = c.n_kv_heads * c.head_dim;
        let (q, f, d) = (c.q_width(), c.d_ff, c.d_model);
        let up: (&[Part], &[usize]) = match c.mlp {
            Mlp::Gelu => (&UP, &[f]),
            Mlp::SwiGlu => (&GATE_UP, &[f, f]),
        };
        let linears: [(&'static [Part], &[usize]); 4] =
            [(&QKV, &[q, kv, kv]), (&OUT, &[d]), up, (&DOWN, &[d])];
        let mut layout = Self {
            config,
            len: 0,
            linears: Vec::new(),
            gradient_len: 0,
        };
        // The first is the output embedding.
        for (i, entry) in model.linears().skip(1).enumerate() {
            let (parts, heights) = linears[i % 4];
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
                layer: i / 4,
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

    /// Numbers of a lane's gradient: those of A, and of B as blocks among zeros.
    pub fn gradient_len(&self) -> usize {
        self.gradient_len
    }

    /// Numbers that the adapters take, packed for a backward.
    pub fn packed_len(&self) -> usize {
        let linears = self.linears.iter();
        let each = linears.map(|linear| {
            let [out, width] = linear.shape;
            Panels::len(width, linear.rank) + Panels::len(out, linear.rank)
        });
        each.sum()
    }

    /// A `[P r, in]` and, times `scale`, the block-diagonal B `[out, P r]` of linear layer `i`, from a flat
    /// buffer.
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

    /// The sum of what `lanes` hold of the gradients of A and of the block-diagonal B, these times `scale`.
    pub(crate) fn gather(self: &Arc<Self>, lanes: &[&[f32]], scale: f32) -> Lora {
        let mut sum = Lora::zeros(self);
        let mut add = |to: Range<usize>, from: usize, scale: f32| {
            for lane in lanes {
                for (sum, g) in sum.data[to.clone()].iter_mut().zip(&lane[from..]) {
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
    /// Each row of B: where it stands in the flat buffer, and where in the block-diagonal B.
    fn blocks(&self, rank: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
        let rows = self.rows.iter().enumerate();
        rows.flat_map(move |(part, rows)| {
            rows.clone().map(move |row| {
                let first = self.b.start + row * rank;
                (first..first + rank, row * self.rank + part * rank)
            })
        })
    }

    /// B of a flat buffer as the blocks of `[out, P r]`, times `scale`; zeros elsewhere.
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

/// Adapters of a model (or anything shaped like them: gradients, moments).
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Where each adapter stands.
    pub layout: Arc<LoraLayout>,
    /// All adapters one after another.
    pub data: Vec<f32>,
}

impl Lora {
    /// All zeros.
    pub fn zeros(layout: &Arc<LoraLayout>) -> Self {
        Self {
            layout: layout.clone(),
            data: vec![0.0; layout.len],
        }
    }

    /// Adapters that change nothing yet: A uniform up to `in^-½` either way, as peft has it, B zero.
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

    /// Names (`blocks.{l}.q.lora_a`), shapes and numbers of every A `[r, in]` and B `[out, r]`.
    pub fn tensors(&self) -> impl Iterator<Item = (String, [usize; 2], &[f32])> {
        self.named(|l, Part(name, _), ab| format!("blocks.{l}.{name}.lora_{ab}"))
    }

    /// The same under the names of peft's `adapter_model.safetensors`, for a model of the Llama family.
    pub fn peft_tensors(&self) -> impl Iterator<Item = (String, [usize; 2], &[f32])> {
        self.named(|l, Part(_, name), ab| {
            let ab = ab.to_ascii_uppercase();
            format!("base_model.model.model.layers.{l}.{name}.lora_{ab}.weight")
        })
    }

    /// Places of all tensors in the flat buffer, in the order of [`Self::tensors`].
    pub fn places(&self) -> impl Iterator<Item = (String, [usize; 2], Range<usize>)> {
        let start = self.data.as_ptr() as usize;
        self.tensors().map(move |(name, shape, numbers)| {
            let first = (numbers.as_ptr() as usize - start) / size_of::<f32>();
            (name, shape, first..first + numbers.len())
        })
    }

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
                tensors.push((name(linear.layer, part, 'a'), [rank, width], a));
                tensors.push((name(linear.layer, part, 'b'), [rows.len(), rank], b));
            }
        }
        tensors.into_iter()
    }

    /// `W + s·B·A` of linear layer `i` of the blocks, from its `w [out, in]`.
    pub(crate) fn merge_linear(&self, i: usize, w: &[f32]) -> Vec<f32> {
        let (linear, config) = (&self.layout.linears[i], &self.layout.config);
        let (rank, width) = (config.rank, linear.shape[1]);
        let mut merged = w.to_vec();
        let b = self.data[linear.b.clone()].iter();
        let b: Vec<f32> = b.map(|x| config.scale() * x).collect();
        let each_a = self.data[linear.a.clone()].chunks_exact(rank * width);
        let mut panels = Panels::new(Precision::F32);
        for (rows, a) in linear.rows.iter().zip(each_a) {
            panels.pack(a, rank, width);
            let merged = &mut merged[rows.start * width..rows.end * width];
            product(
                merged,
                &b[rows.start * rank..rows.end * rank],
                &panels,
                Out::Add,
            );
        }
        merged
    }

    /// The weights of a model with these adapters, `base` with `s·B·A` added.
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

/// Adapters as a backward's products read them: packed once a step.
pub(crate) struct PackedLora {
    layout: Arc<LoraLayout>,
    precision: Precision,
    /// Of each linear layer, `Aᵀ [in, P r]` and `s·B [out, P r]`, block-diagonal.
    linears: Vec<[Panels; 2]>,
}

impl PackedLora {
    /// Packs adapters. Call it inside the pool that shall do the work.
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

    /// Adds to a lane's gradient that of linear layer `i`'s adapters, from its input `x [M, in]` and the
    /// gradient `dy [M, out]` of its output.
    pub fn backward(&self, grads: &mut [f32], i: usize, dy: &[f32], x: &[f32]) {
        let (linear, [a, b]) = (&self.layout.linears[i], &self.linears[i]);
        let ([out, width], rank) = (linear.shape, linear.rank);
        let m = x.len() / width;
        let mut low = vec![0.0; m * rank];
        product(&mut low, dy, b, Out::Set);
        let d_a = &mut grads[linear.d_a.clone()];
        product_transposed(d_a, &low, x, (m, rank, width), Out::Add, self.precision);
        product(&mut low, x, a, Out::Set);
        let d_b = &mut grads[linear.d_b.clone()];
        product_transposed(d_b, dy, &low, (m, out, rank), Out::Add, self.precision);
    }
}

/// Weights to read: those of a model, and the adapters on top of them, if it has any.
#[derive(Clone, Copy)]
pub struct ModelRef<'a> {
    /// The model's own weights.
    pub params: &'a Params,
    /// What its linear layers have added.
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
        let mut all: Vec<f32> = lora.tensors().flat_map(|(.., x)| x.to_vec()).collect();
        all.sort_by(f32::total_cmp);
        assert_eq!(all, lora.data);
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

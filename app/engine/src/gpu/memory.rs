//! Limits of the memory that work on a GPU takes, and predictions of it.
//!
//! Limits are fixed, so that results do not depend on how much memory happens to be free. A
//! prediction follows the tensors of `model.rs`, `heads.rs`, `attention.rs` and `head.rs` from where they are allocated to
//! where they are dropped; tensors that live for one kernel only are counted where they take the most.

use candle_core::DType;

use crate::batch::Batching;
use crate::demand::{Demand, Memory};
use crate::model::{Layout, LoraLayout, Mlp, ModelConfig, Norms, QkGains};
use crate::ops::Precision;

use super::ops::GAIN_ROWS;
use super::tensor::dtype;

/// Most bytes of the activations of a micro-batch whose size is not set.
const ACTIVATION_BYTES: usize = 8 << 30;
/// Most logits of a chunk of positions (512 MiB): each chunk reads the output embedding and its gradient, which
/// for few positions would take most of the time.
pub const CHUNK_LOGITS: usize = 1 << 27;
/// Most attention scores that exist at a time (256 MiB), unless one position of every row has more.
pub const MAX_SCORES: usize = 1 << 26;
/// Fewest positions of a chunk of attention: narrower products of matrices are slow.
const SHORTEST_CHUNK: usize = 128;
/// Fewest scores of a chunk of attention.
const LEAST_SCORES: usize = 1 << 24;
/// Bytes allowed for cuBLAS's workspace, our kernels and the unused memory of the allocator; not measured.
const CUDA: usize = 1 << 30;

/// Widths of a model's tensors, and bytes of their elements.
pub(super) struct Widths {
    d: usize,
    f: usize,
    /// Input of the MLP's activation.
    up: usize,
    q: usize,
    qkv: usize,
    heads: usize,
    /// `1/rms` of queries and keys.
    qk_norm: usize,
    /// Queries and keys whose norms have gains.
    gained: usize,
    /// Norms before the halves of a block, and after them.
    before: usize,
    after: usize,
    layers: usize,
    vocab: usize,
    /// Bytes of a rounded element.
    rounded: usize,
    /// Bytes of the rounded copy of an f32 element: 0 where they are the same.
    copy: usize,
}

impl Widths {
    /// The widths of a model whose rounded tensors have this format.
    pub(super) fn new(config: &ModelConfig, dtype: DType) -> Self {
        let rounded = dtype.size_in_bytes();
        Self {
            d: config.d_model,
            f: config.d_ff,
            up: match config.mlp {
                Mlp::Gelu => config.d_ff,
                Mlp::SwiGlu | Mlp::GeGlu => 2 * config.d_ff,
            },
            q: config.q_width(),
            qkv: config.qkv_width(),
            heads: config.n_heads,
            qk_norm: config.qk_norms(),
            gained: match config.parts.qk_gains {
                QkGains::None => 0,
                QkGains::Head | QkGains::Projection => config.q_width() + config.kv_width(),
            },
            before: if config.parts.norms == Norms::After {
                0
            } else {
                2
            },
            after: if config.parts.norms == Norms::Before {
                0
            } else {
                2
            },
            layers: config.n_layers,
            vocab: config.vocab_size,
            rounded,
            copy: if rounded == 4 { 0 } else { rounded },
        }
    }

    /// Bytes that a block keeps of a position for its backward.
    fn block(&self) -> usize {
        // What queries, keys and values were made of is kept where their norms have gains.
        let fused = if self.gained > 0 { self.qkv } else { 0 };
        self.rounded * ((2 + self.after) * self.d + self.qkv + fused + self.q + self.up)
            + 4 * (self.before + self.after + self.qk_norm + self.heads)
    }

    /// Bytes of what a half of a block makes of `m` positions before its norm, if it has one after it.
    fn output(&self, m: usize) -> usize {
        if self.after > 0 { 4 * m * self.d } else { 0 }
    }

    /// Bytes that all blocks keep of `m` positions.
    pub(super) fn kept(&self, m: usize, recompute: bool) -> usize {
        let per_block = if recompute { 4 * self.d } else { self.block() };
        m * self.layers * per_block
    }

    /// Most bytes that a block's forward over `rows` of `t` positions takes at a time, beside those it keeps.
    fn forward(&self, rows: usize, t: usize) -> usize {
        let attention = rows * t * 4 * (self.d + self.qkv)
            + self.scores(rows, t) * (4 + self.rounded)
            + rows * t * 12 * self.q;
        let mlp = rows * t * (12 * self.d + self.rounded * (self.d + self.f));
        attention.max(mlp) + self.output(rows * t)
    }

    /// Most bytes that a block's backward takes at a time, including another forward if blocks are recomputed.
    fn backward(&self, rows: usize, t: usize, recompute: bool) -> usize {
        let m = rows * t;
        let gradient = m * (4 + self.copy) * self.d;
        let mlp = m * (4 * self.f + self.rounded * (self.up + self.f));
        let attention = m * (self.rounded * (self.q + self.qkv) + 4 * (self.q + self.qkv))
            + self.scores(rows, t) * (8 + 2 * self.rounded)
            + 4 * m.div_ceil(GAIN_ROWS) * self.gained;
        // The block's activations, which recomputation allocates here.
        let block = if recompute { m * self.block() } else { 0 };
        let forward = if recompute { self.forward(rows, t) } else { 0 };
        gradient + (block + forward).max(block + mlp.max(attention) + self.output(m))
    }

    /// Bytes of the final hidden states of `m` positions, their gradients, and a chunk of logits.
    fn head(&self, m: usize, reference: bool, training: bool) -> usize {
        let reference = usize::from(reference);
        let hidden = m * self.rounded * self.d * (3 + reference);
        let gradients = usize::from(training) * m * 4 * self.d;
        let chunk = (CHUNK_LOGITS / self.vocab).clamp(1, m.max(1));
        // In training the gradient takes their place.
        let logit = if training { self.rounded } else { 4 } * (1 + reference);
        hidden + gradients + chunk * self.vocab * logit
    }

    /// Number of attention scores that exist at a time.
    fn scores(&self, rows: usize, t: usize) -> usize {
        let position = rows * self.heads * t;
        (position * attention_chunk(t, position).min(t)).min(MAX_SCORES.max(position))
    }
}

/// Positions of a row of `seq_len` whose scores are computed together, of which each has `scores`.
///
/// In four chunks, each with the keys that it sees, attention computes 5/8 of all scores; but each has its own launches,
/// which take longer than what they save where scores are few.
pub fn attention_chunk(seq_len: usize, scores: usize) -> usize {
    let quarter = seq_len.div_ceil(4).next_multiple_of(32);
    let worth_it = (LEAST_SCORES / scores.max(1)).next_multiple_of(32);
    quarter.max(worth_it).max(SHORTEST_CHUNK)
}

/// Number of rows of a micro-batch: as set, or as many as the limit allows, but at least one.
pub fn micro_batch(
    config: &ModelConfig,
    dtype: DType,
    batching: Batching,
    seq_len: usize,
) -> usize {
    let Batching {
        micro_batch,
        recompute,
        ..
    } = batching;
    if micro_batch > 0 {
        return micro_batch;
    }
    let w = Widths::new(config, dtype);
    // A row among some takes less than one alone.
    let row = w.kept(seq_len, recompute) + w.backward(16, seq_len, recompute) / 16;
    (ACTIVATION_BYTES / row.max(1)).max(1)
}

/// Number of micro-batches that `rows` are divided into.
pub fn micro_batches(demand: &Demand, precision: Precision, rows: usize) -> usize {
    let (config, dtype) = (&demand.model, dtype(precision));
    rows.div_ceil(micro_batch(config, dtype, demand.batching, demand.seq_len))
}

/// Bytes that a generated row of `length` takes: keys and values, its first `prompt` positions in one pass, and
/// the logits of its next token.
pub fn generated_row(config: &ModelConfig, dtype: DType, length: usize, prompt: usize) -> usize {
    let w = Widths::new(config, dtype);
    let cache = w.rounded * length * w.layers * 2 * config.n_kv_heads * config.head_dim;
    cache + prompt * (w.block() + 12 * w.d + 8 * w.qkv) + w.output(prompt) + 4 * w.vocab
}

/// Most rows that are generated together, each of which takes that many bytes.
pub fn generated_together(batching: Batching, row: usize) -> usize {
    (batching.generation_bytes / row).max(1)
}

/// Predicts the memory of a GPU that some work takes, by purpose.
pub fn predict(demand: &Demand, precision: Precision) -> Memory {
    let (config, dtype, t) = (&demand.model, dtype(precision), demand.seq_len);
    let (layout, w) = (Layout::new(*config), Widths::new(config, dtype));
    let (n, recompute) = (demand.learners * layout.len, demand.batching.recompute);
    let references = demand.references() * layout.len;
    let lora = demand.lora.map(|lora| LoraLayout::new(lora, &layout).len);
    let trained = lora.unwrap_or(layout.len);
    let training = !demand.batches.is_empty();
    let micro = |rows: usize| rows.div_ceil(micro_batches(demand, precision, rows).max(1));
    let mut items = vec![
        ("weights", n * (4 + w.copy)),
        ("references", references * w.rounded),
    ];
    // Stages that follow one another; the one that takes the most memory counts.
    let mut stages = Vec::new();
    if training {
        items.push(("moments of the optimizer", demand.learners * trained * 8));
        items.push(("gradients", trained * 4));
        let largest = layout.entries.iter().map(|entry| entry.range.len()).max();
        let update = largest.unwrap_or(0) * (12 + w.copy);
        stages.push(vec![("update of the largest tensor", update)]);
        let rows = micro(demand.batches.iter().copied().max().unwrap_or(0));
        let head = w.head(rows * t, demand.reference, true);
        stages.push(vec![
            ("activations", w.kept(rows * t, recompute)),
            (
                "a block or the head",
                w.backward(rows, t, recompute).max(head),
            ),
        ]);
    }
    let rows = micro(demand.scored);
    let scoring = rows * t * w.block() + w.forward(rows, t);
    let head = w.head(rows * t, demand.reference, false);
    stages.push(vec![("evaluation", scoring.max(head))]);
    let row = generated_row(config, dtype, t, t);
    let together = demand
        .generated
        .min(generated_together(demand.batching, row));
    let scores = w.scores(together, t) * (4 + w.rounded);
    stages.push(vec![("generation", together * row + scores)]);
    let largest = stages
        .into_iter()
        .max_by_key(|stage| stage.iter().map(|(_, bytes)| bytes).sum::<usize>());
    items.extend(largest.unwrap_or_default());
    items.push(("CUDA itself", CUDA));
    items.retain(|(_, bytes)| *bytes > 0);
    let bytes = items.into_iter().map(|(purpose, n)| (purpose, n as f64));
    Memory(bytes.collect())
}

#[cfg(test)]
mod tests {
    use crate::demand::human_bytes;

    use super::*;

    const LLAMA_1B: ModelConfig = ModelConfig::LLAMA_1B;

    fn demand() -> Demand {
        Demand {
            model: LLAMA_1B,
            threads: 1,
            gpu: Some(Precision::Bf16),
            batching: Batching::default(),
            seq_len: 512,
            learners: 1,
            shared_references: None,
            lora: None,
            batches: vec![128, 32],
            scored: 256,
            reference: true,
            generated: 1024,
            buffers: 1,
            held_out: 256 * 512,
            program: 0.0,
        }
    }

    /// The paper's finetuning of a 1B model must fit a GPU of 80 GB, with room to spare.
    ///
    /// P = 1 235 814 400 weights: V D = 262 668 288 of the one embedding; in each of 16 blocks 3072 D of
    /// `qkv`, 2048 D of `out`, 16 384 D of `gate_up`, 8192 D of `down`, 2 D of gains; D of the last gain.
    /// - weights: 4 P of master + 2 P rounded = 7.41e9
    /// - reference: 2 P = 2.47e9
    /// - moments: 8 P = 9.89e9
    /// - gradients: 4 P = 4.94e9
    ///
    /// A position keeps in each block, rounded, two norms' outputs 2 D, qkv 3072, attention's output 2048, and gate
    /// and up 16 384; and in f32 two 1/rms and 32 log-sum-exps: 51 336 bytes. In 16 blocks that is 821 376 bytes,
    /// 421e6 a row of 512. What passes through a block's backward for one row is the gradient (4 + 2) D · 512 = 6.3e6
    /// and the MLP's (4 · 8192 + 2 (16 384 + 8192)) · 512 = 42e6; attention's scores of 128 positions at a time take
    /// 32 · 512 · 128 · 12 bytes = 25e6, with 6 (2048 + 3072) · 512 = 16e6 of its gradients. So 8 GiB hold 18 rows a
    /// micro-batch.
    ///
    /// 128 rows are 8 micro-batches of 16:
    /// - activations: 16 · 421e6 = 6.73e9
    /// - a block's backward: 16 · (6.3e6 + 42e6) = 0.77e9; the head takes less: 8192 positions' hidden states 4 · 2 D
    ///   and gradients 4 D = 0.20e9, and 1046 positions' logits of 2 + 2 bytes = 0.54e9
    /// - 1.07e9 of allowance for CUDA
    ///
    /// 33.3e9 bytes = 31.0 GiB in all; the update of the embedding (14 bytes a weight: 3.7e9) and
    /// generation (at most 4 GiB and its scores) come when activations are gone, and take less.
    #[test]
    fn a_1b_llama_trains_on_80_gb() {
        assert_eq!(Layout::new(LLAMA_1B).len, 1_235_814_400);
        let memory = predict(&demand(), Precision::Bf16);
        let bytes_of = |name: &str| memory.0.iter().find(|(purpose, _)| *purpose == name);
        let expected = [
            ("weights", 7.41e9),
            ("references", 2.47e9),
            ("moments of the optimizer", 9.89e9),
            ("gradients", 4.94e9),
            ("activations", 6.73e9),
            ("a block or the head", 0.77e9),
            ("CUDA itself", 1.07e9),
        ];
        assert_eq!(memory.0.len(), expected.len(), "{memory}");
        for (purpose, bytes) in expected {
            let predicted = bytes_of(purpose).unwrap().1;
            assert!(
                (predicted - bytes).abs() < 0.005 * bytes.max(1e9),
                "{purpose} {predicted}"
            );
        }
        assert_eq!(human_bytes(memory.total()), "31.0 GiB", "{memory}");

        // Arms share the reference. The preset trains two at a time; on a card of 80 GB, of which 92 % less 1 GiB are
        // planned with, three have room and four have not.
        let arms = |learners| Demand {
            learners,
            shared_references: Some(1),
            ..demand()
        };
        let card = 0.92 * 84.5e9 - 1.07e9;
        assert!(arms(4).memory().total() > card);
        assert!(arms(3).memory().total() <= card);
        let both = arms(2).memory().total();
        assert!((both - 50.6e9).abs() < 0.1e9, "{both}");
    }

    /// What is set to save memory must save it.
    #[test]
    fn smaller_micro_batches_and_recomputation_take_less() {
        let with = |micro_batch, recompute| {
            let batching = Batching {
                micro_batch,
                recompute,
                ..Batching::default()
            };
            let demand = Demand {
                batching,
                ..demand()
            };
            demand.memory().total()
        };
        assert!(with(12, false) < with(16, false));
        assert!(with(16, true) < with(16, false));
        // Rows by themselves are chosen to stay near the limit, so there are more of them.
        let rows = |recompute| {
            let batching = Batching {
                recompute,
                ..Batching::default()
            };
            micro_batch(&LLAMA_1B, DType::BF16, batching, 512)
        };
        assert_eq!([rows(false), rows(true)], [18, 60]);
    }
}

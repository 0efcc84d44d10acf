//! Limits of the memory that work on a GPU takes, and predictions of it.
//!
//! Limits are fixed, so that results do not depend on how much memory happens to be free. A
//! prediction follows the tensors of `engine.rs`, `model.rs`, `half.rs`, `heads.rs`, `attention.rs`, `head.rs`,
//! `sampler.rs` and `adamw.rs` from where they are allocated to where they are dropped, and takes the moment at which
//! they are the most bytes. `tests/cuda` holds it against all that is allocated.

use std::ops::Range;
use std::sync::Arc;

use candle_core::DType;

use crate::batch::Batching;
use crate::demand::{Demand, Memory, PromptLen};
use crate::model::{BlockLinear, Layout, LoraLayout, Mlp, ModelConfig, Norms, QkGains};
use crate::ops::Precision;

use super::ops::{GAIN_ROWS, STRETCH};
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

/// Bytes to whose multiples CUDA rounds what is allocated.
const ALLOCATED: usize = 512;
/// Tensors of a block at a time, which are rounded so.
const OF_A_BLOCK: usize = 16;
/// Bytes of a position's ids: its token, its row in the head, its place and target.
const IDS: usize = 16;
/// Bytes of a position's two weights in the loss.
const LOSS_WEIGHTS: usize = 8;
/// Bytes of a position's losses.
const LOSSES: usize = 12;

/// Widths of a model's tensors, and bytes of their elements.
pub(super) struct Widths {
    d: usize,
    f: usize,
    /// Input of the MLP's activation.
    up: usize,
    q: usize,
    kv: usize,
    qkv: usize,
    heads: usize,
    head_dim: usize,
    /// What is copied where heads and positions change places: queries, or nothing if keys have one head.
    swapped: usize,
    /// `1/rms` of queries and keys.
    qk_norm: usize,
    /// What queries, keys and values are made of, which is kept where their norms have gains; and that of them which
    /// has gains.
    fused: usize,
    gained: usize,
    /// Norms before the halves of a block, and after them.
    before: usize,
    after: usize,
    /// `d` if the norms before them have gains, whose outputs are tensors of their own.
    gains: usize,
    /// Tables of cosines and sines.
    tables: usize,
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
        let (rounded, parts) = (dtype.size_in_bytes(), &config.parts);
        let if_so = |so: bool, n: usize| if so { n } else { 0 };
        let has_gains = parts.qk_gains != QkGains::None;
        Self {
            d: config.d_model,
            f: config.d_ff,
            up: match config.mlp {
                Mlp::Gelu => config.d_ff,
                Mlp::SwiGlu | Mlp::GeGlu => 2 * config.d_ff,
            },
            q: config.q_width(),
            kv: config.kv_width(),
            qkv: config.qkv_width(),
            heads: config.n_heads,
            head_dim: config.head_dim,
            swapped: if_so(config.n_kv_heads > 1, config.q_width()),
            qk_norm: config.qk_norms(),
            fused: if_so(has_gains, config.qkv_width()),
            gained: if_so(has_gains, config.q_width() + config.kv_width()),
            before: if_so(parts.norms != Norms::After, 2),
            after: if_so(parts.norms != Norms::Before, 2),
            gains: if_so(config.norm_gains, config.d_model),
            tables: 1 + usize::from(parts.window.is_some_and(|window| window.rope.is_some())),
            layers: config.n_layers,
            vocab: config.vocab_size,
            rounded,
            copy: if rounded == 4 { 0 } else { rounded },
        }
    }

    /// Bytes that a block keeps of a position for its backward.
    fn block(&self) -> usize {
        self.rounded * ((2 + self.after) * self.d + self.qkv + self.fused + self.q + self.up)
            + 4 * (self.before + self.after + self.qk_norm + self.heads)
    }

    /// Bytes that all blocks keep of `m` positions.
    pub(super) fn kept(&self, m: usize, recompute: bool) -> usize {
        let per_block = if recompute { 4 * self.d } else { self.block() };
        m * self.layers * per_block
    }

    /// Bytes that a block of `m` positions keeps once it is computed again, in the place of its input.
    fn again(&self, m: usize) -> usize {
        (m * self.block()).saturating_sub(m * 4 * self.d)
    }

    /// Bytes of the tables of cosines and sines, of what a micro-batch of `m` positions is told, and of what rounding
    /// adds to the tensors of the blocks.
    fn told(&self, m: usize, t: usize) -> usize {
        let rounding = OF_A_BLOCK * ALLOCATED * (self.layers + 1);
        self.tables * 4 * t * self.head_dim + m * (IDS + LOSS_WEIGHTS) + rounding
    }

    /// Bytes of the residual stream of `m` positions and the most that a block takes beside it, which keeps nothing.
    fn forward(&self, m: usize, scores: usize) -> usize {
        let r = self.rounded;
        let split = r * (self.qkv + self.fused) + 4 * (self.qk_norm + self.heads);
        let product = m * (r * self.qkv + (r * self.d).max(split - r * self.fused));
        let attention = m * (split + r * self.q) + (scores * (4 + r)).max(m * r * self.swapped);
        let outputs = 2 * self.d * self.after;
        let mlp = m * (r * (self.up + self.d.max(self.f)) + outputs);
        4 * m * self.d + product.max(attention).max(mlp)
    }

    /// Bytes of the sums of which the gradient of a norm's gains is made.
    fn gain_sums(&self, m: usize) -> usize {
        4 * m.div_ceil(GAIN_ROWS) * self.gains
    }

    /// Most bytes that the backward of a block takes beside what it kept: the gradient of the residual stream, and
    /// what is made of it.
    fn backward(&self, rows: usize, t: usize) -> usize {
        let (m, r) = (rows * t, self.rounded);
        // From the gradient of a half's first linear layer to that of its input.
        let input = match self.before {
            0 => m * self.copy * self.d,
            _ => m * (4 * self.d + r * self.gains + self.copy * self.d) + self.gain_sums(m),
        };
        let output = m * r * self.d * self.after / 2;
        let mlp = output + m * r * (2 * self.f + self.up);
        let heads = m * (r * (2 * self.q + self.swapped) + 8 * self.kv);
        let scores = self.scores(rows, t) * (8 + 2 * r);
        let split = m * r * self.qkv + 4 * m.div_ceil(GAIN_ROWS) * self.gained;
        let attention = output + heads + scores.max(split);
        let most = mlp.max(attention).max(m * r * self.up + input);
        m * (4 + self.copy) * self.d + most.max(m * r * self.qkv + input)
    }

    /// Most bytes of the final hidden states of `m` positions, their gradients, and a chunk of logits.
    fn head(&self, m: usize, reference: bool, training: bool) -> usize {
        let (r, models) = (self.rounded, 1 + usize::from(reference));
        let chunk = (CHUNK_LOGITS / self.vocab).clamp(1, m.max(1));
        if !training {
            return models * (m * r * self.d + chunk * self.vocab * 4);
        }
        // Of the norm's output without its gains, and of the gradient of the hidden states.
        let kept = m * (r * self.gains + 4 + 4 * self.d);
        // The gradient of logits takes their place.
        let losses = models * (m * r * self.d + chunk * self.vocab * r);
        let norm = m * (4 + self.copy) * self.d + self.gain_sums(m);
        kept + losses.max(norm + (m * r * self.d).saturating_sub(m * r * self.gains))
    }

    /// Most bytes that `rows` of `length` take while they are generated from prompts of `prompt` tokens, without the
    /// scores of these.
    fn generated(&self, rows: usize, length: usize, prompt: usize) -> usize {
        let cache = self.rounded * length * self.layers * 2 * self.kv;
        // Tokens and random numbers; the final hidden states of a position, and of the next.
        let always = cache + 8 * length + 2 * self.rounded * self.d;
        let prompts = self.forward(prompt, 0) + 4 * prompt;
        let position = self.forward(1, self.heads * length);
        rows * (always + prompts.max(position).max(4 * self.vocab))
    }

    /// Most attention scores that exist at a time.
    fn scores(&self, rows: usize, t: usize) -> usize {
        let position = rows * self.heads * t;
        let most = (MAX_SCORES / position.max(1)).max(1);
        let chunk = most.min(attention_chunk(t, position));
        let ends = (0..t)
            .step_by(chunk)
            .map(|first| (first, t.min(first + chunk)));
        let scores = ends.map(|(first, end)| rows * self.heads * (end - first) * end);
        scores.max().unwrap_or(0)
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
    let again = if recompute { w.again(seq_len) } else { 0 };
    let row = w.kept(seq_len, recompute) + again + w.backward(16, seq_len) / 16;
    (ACTIVATION_BYTES / row.max(1)).max(1)
}

/// Number of micro-batches that `rows` are divided into.
pub fn micro_batches(demand: &Demand, precision: Precision, rows: usize) -> usize {
    let (config, dtype) = (&demand.model, dtype(precision));
    rows.div_ceil(micro_batch(config, dtype, demand.batching, demand.seq_len))
}

/// Most bytes that a row of `length` takes while it is generated: keys and values, and its first `prompt` positions in
/// one pass, or the logits of its next token.
pub fn generated_row(config: &ModelConfig, dtype: DType, length: usize, prompt: usize) -> usize {
    Widths::new(config, dtype).generated(1, length, prompt)
}

/// Most rows that are generated together, each of which takes `row` bytes.
fn most_together(batching: Batching, row: usize) -> usize {
    (batching.generation_bytes / row.max(1)).max(1)
}

/// Number of rows of each chunk of `rows` that are generated, each of which takes `row` bytes: as few chunks as the limit
/// allows, of about the same size, since a stump takes nearly as long as a full one.
pub fn generated_together(batching: Batching, rows: usize, row: usize) -> usize {
    let chunks = rows.div_ceil(most_together(batching, row));
    rows.div_ceil(chunks.max(1)).max(1)
}

/// Predicts the memory of a GPU that some work takes, by purpose.
pub fn predict(demand: &Demand, precision: Precision) -> Memory {
    let work = Work::new(demand, precision);
    let mut items = work.held();
    // Stages that follow one another; the one that takes the most memory counts.
    let stages = work.stages().into_iter();
    let bytes = |stage: &Vec<Item>| stage.iter().map(|(_, bytes)| bytes).sum::<usize>();
    items.extend(stages.max_by_key(bytes).unwrap_or_default());
    items.push(("CUDA itself", CUDA));
    items.retain(|(_, bytes)| *bytes > 0);
    let bytes = items.into_iter().map(|(purpose, n)| (purpose, n as f64));
    Memory(bytes.collect())
}

/// A purpose and its bytes.
type Item = (&'static str, usize);

/// Bytes of tensors of so many elements of so many bytes.
fn stored(tensors: impl IntoIterator<Item = usize>, element: usize) -> usize {
    let bytes = tensors.into_iter().map(|len| len * element);
    bytes.map(|bytes| bytes.next_multiple_of(ALLOCATED)).sum()
}

/// Some work, with the sizes of its tensors.
struct Work<'a> {
    demand: &'a Demand,
    precision: Precision,
    widths: Widths,
    layout: Arc<Layout>,
    lora: Option<Arc<LoraLayout>>,
}

impl<'a> Work<'a> {
    fn new(demand: &'a Demand, precision: Precision) -> Self {
        let layout = Layout::new(demand.model);
        Self {
            demand,
            precision,
            widths: Widths::new(&demand.model, dtype(precision)),
            lora: demand.lora.map(|lora| LoraLayout::new(lora, &layout)),
            layout,
        }
    }

    /// Elements of the model's tensors of these entries.
    fn tensors(&self, entries: Range<usize>) -> impl Iterator<Item = usize> {
        self.layout.entries[entries]
            .iter()
            .map(|entry| entry.range.len())
    }

    /// Elements of each trained tensor.
    fn trained(&self) -> Vec<usize> {
        match &self.lora {
            Some(lora) => lora.adapters().flatten().collect(),
            None => self.tensors(0..self.layout.entries.len()).collect(),
        }
    }

    /// What is in memory throughout.
    fn held(&self) -> Vec<Item> {
        let (demand, w) = (self.demand, &self.widths);
        let all = |element| stored(self.tensors(0..self.layout.entries.len()), element);
        let mut items = vec![
            ("weights", demand.learners * (all(4) + all(w.copy))),
            ("references", demand.references() * all(w.rounded)),
        ];
        if let Some(lora) = &self.lora {
            let adapters = |element| stored(lora.adapters().flatten(), element);
            let masks = lora.adapters().take(BlockLinear::COUNT).map(|[_, b]| b);
            // In f32 merged weights are tensors of their own, too.
            let merged = if w.copy == 0 {
                stored(lora.weights(), 4)
            } else {
                0
            };
            let each = adapters(4) + adapters(w.copy) + stored(masks, 4) + merged;
            items.push(("adapters", demand.learners * each));
        }
        if !demand.batches.is_empty() {
            let moments = 2 * demand.learners * stored(self.trained(), 4);
            items.push(("moments of the optimizer", moments));
        }
        items
    }

    /// The stages of the work, each with what is in memory then.
    fn stages(&self) -> Vec<Vec<Item>> {
        let gradients = match self.demand.batches.is_empty() {
            true => 0,
            // They stay until the next step.
            false => stored(self.trained(), 4),
        };
        let mut stages = self.training(gradients);
        for item in [self.evaluation(), self.generation()] {
            stages.push(vec![("gradients", gradients), item]);
        }
        stages
    }

    /// Rows of a micro-batch of a batch of `rows` of `t` tokens.
    fn micro(&self, rows: usize, t: usize) -> usize {
        let (demand, dtype) = (self.demand, dtype(self.precision));
        let most = micro_batch(&demand.model, dtype, demand.batching, t);
        rows.div_ceil(rows.div_ceil(most).max(1))
    }

    fn training(&self, gradients: usize) -> Vec<Vec<Item>> {
        if self.demand.batches.is_empty() {
            return Vec::new();
        }
        let batches = self.demand.batches.iter().enumerate();
        let stages = batches.flat_map(|(i, &rows)| self.batch(i, rows, gradients));
        let replaced = self.demand.replaced;
        let apart = (replaced > 0).then(|| self.batch(1, replaced, gradients));
        let stages = stages.chain(apart.into_iter().flatten());
        let update = self.widths.told(0, self.demand.seq_len) + self.update();
        let update = ("update of a tensor", update);
        stages
            .chain([vec![("gradients", gradients), update]])
            .collect()
    }

    /// The stages of the forward and backward of the `i`th batch of a step.
    fn batch(&self, i: usize, batch: usize, gradients: usize) -> Vec<Vec<Item>> {
        let (demand, w, layout) = (self.demand, &self.widths, &self.layout);
        let (t, recompute) = (demand.seq_len, demand.batching.recompute);
        let rows = self.micro(batch, t);
        let m = rows * t;
        let (head, mut block) = (w.head(m, demand.kl.contains(&i), true), w.backward(rows, t));
        if let Some(lora) = &self.lora {
            block += 2 * m * w.rounded * lora.config.rank;
        }
        if recompute {
            block += w.again(m);
        }
        let told = w.told(m, t) + batch * t * LOSSES;
        let at_work = |gradients, kept| {
            vec![
                ("gradients", gradients),
                ("activations", kept + told),
                ("a block or the head", block.max(head)),
            ]
        };
        let kept = w.kept(m, recompute);
        if i > 0 || rows < batch || self.lora.is_some() {
            return vec![at_work(gradients, kept)];
        }
        // Activations go as gradients come: the most are at the last block, or at the first.
        let (first, second) = (layout.first_of_block(0), layout.first_of_block(1));
        let of_last = stored(self.tensors(first - 1..second), 4);
        let of_one = kept / w.layers.max(1);
        vec![at_work(of_last, kept), at_work(gradients, of_one)]
    }

    /// Old and new elements of the largest tensor, and the squares of all gradients.
    fn update(&self) -> usize {
        let (w, trained) = (&self.widths, self.trained());
        let largest = trained.iter().max().copied().unwrap_or(0) * (12 + w.copy);
        let squares = trained
            .iter()
            .map(|len| len.div_ceil(STRETCH))
            .sum::<usize>()
            * 4;
        let merged = self.lora.iter().flat_map(|lora| lora.weights()).max();
        (largest + squares).max(merged.unwrap_or(0) * (4 + w.copy))
    }

    fn evaluation(&self) -> Item {
        let (demand, t) = (self.demand, self.demand.seq_len);
        let rows = self.micro(demand.scored, t);
        let held_out = self.scoring([rows, t], rows * t, demand.reference);
        let losses = demand.scored * t * LOSSES;
        let asked = demand.asked;
        let rows = [self.micro(asked.rows, asked.seq_len), asked.seq_len];
        let answers = self.scoring(rows, asked.candidates, false);
        ("evaluation", (held_out + losses).max(answers))
    }

    /// Most bytes of a forward that keeps nothing, and of the losses of `scored` positions.
    fn scoring(&self, [rows, t]: [usize; 2], scored: usize, reference: bool) -> usize {
        let (w, m) = (&self.widths, rows * t);
        let of_reference = usize::from(reference) * scored * w.rounded * w.d;
        let forward = w.forward(m, w.scores(rows, t)) + of_reference;
        let told = w.told(m.max(scored), t) + scored * LOSSES;
        told + forward.max(w.head(scored, reference, false))
    }

    fn generation(&self) -> Item {
        let (demand, w, t) = (self.demand, &self.widths, self.demand.seq_len);
        let all = demand.generated;
        let taken = |rows: usize, prompt: usize| {
            let scores = w.scores(rows, prompt) * (4 + w.rounded);
            w.generated(rows, t, prompt) + scores
        };
        let row = |prompt| w.generated(1, t, prompt);
        let bytes = match demand.prompt {
            _ if all == 0 => 0,
            PromptLen::Of(prompt) => taken(
                generated_together(demand.batching, all, row(prompt)),
                prompt,
            ),
            // The shorter the prompts, the more rows together.
            PromptLen::UpTo(longest) => {
                let most = |prompt| all.min(most_together(demand.batching, row(prompt)));
                let each = (1..=longest.max(1)).map(|prompt| taken(most(prompt), prompt));
                each.max().unwrap_or(0)
            }
        };
        ("generation", 2 * w.told(0, t) + bytes)
    }
}

#[cfg(test)]
mod tests {
    use crate::demand::{Asked, human_bytes};

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
            replaced: 0,
            kl: vec![1],
            scored: 256,
            asked: Asked::default(),
            reference: true,
            generated: 1024,
            prompt: PromptLen::UpTo(512),
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
    /// and the MLP's 2 (16 384 + 2 · 8192) · 512 = 34e6; of attention, the scores of 128 positions at a time take
    /// 32 · 512 · 128 · 12 bytes = 25e6, with (2 · 3 · 2048 + 4 · 2 · 512) · 512 = 8e6 of its gradients. So 8 GiB hold
    /// 18 rows a micro-batch.
    ///
    /// 128 rows are 8 micro-batches of 16:
    /// - activations: 16 · 421e6 = 6.73e9
    /// - a block's backward: 16 · (6.3e6 + 34e6) = 0.64e9; the head takes more: 8192 positions' hidden states of two
    ///   models and the norm's output 3 · 2 D and gradients 4 D = 0.17e9, and 1046 positions' logits of 2 + 2 bytes
    ///   = 0.54e9
    /// - 1.07e9 of allowance for CUDA
    ///
    /// 33.2e9 bytes = 30.9 GiB in all; the update of the embedding (14 bytes a weight: 3.7e9) and
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
            ("a block or the head", 0.704e9),
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
        assert_eq!(human_bytes(memory.total()), "30.9 GiB", "{memory}");

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
        assert_eq!([rows(false), rows(true)], [18, 66]);
    }
}

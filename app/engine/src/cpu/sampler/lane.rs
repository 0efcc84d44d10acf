//! A lane: one thread's share of a generation.

use std::ops::Range;

use crate::model::{
    Added, Layer, Mlp, ModelConfig, Norms, PackedModel, QkGains, QkKept, Ropes, embed, final_norm,
};
use crate::ops::matmul::Out;
use crate::ops::rope::Positions;
use crate::ops::{attention, scale};
use crate::random::Random;
use crate::sampling::Request;

/// The capacity of a cache is a multiple of this, as [`attention::decode`] requires.
pub(super) const CACHE_STEP: usize = 16;
/// Most positions of prompts, of all rows together, that one pass of the model takes.
const PASS: usize = 256;

/// Caches and buffers of one lane.
pub(super) struct Lane {
    config: ModelConfig,
    ropes: Ropes,
    /// One for each block.
    caches: Vec<Cache>,
    residual: Vec<f32>,
    normed: Vec<f32>,
    scaled: Vec<f32>,
    inv_rms: Vec<f32>,
    qkv: Vec<f32>,
    qk_inv_rms: Vec<f32>,
    qk_normed: Vec<f32>,
    attended: Vec<f32>,
    activated: Vec<f32>,
    gate_up: Vec<f32>,
    /// What a half of a block adds to the residual stream, and the same normalised.
    output: Vec<f32>,
    post_normed: Vec<f32>,
    logits: Vec<f32>,
    probabilities: Vec<f32>,
    /// Input tokens of a pass, `[P, B]` for P positions.
    current: Vec<u32>,
}

/// Keys and values of a block at the positions so far, with capacity for C positions.
#[derive(Clone, Default)]
struct Cache {
    /// `[B, K, C / 16, H, 16]`.
    keys: Vec<f32>,
    /// `[B, K, C, H]`.
    values: Vec<f32>,
}

/// Rows that a lane generates together.
pub(super) struct Chunk<'a> {
    /// Number of the first row in the request.
    pub first: usize,
    /// Generated tokens `[B, length]`.
    pub tokens: &'a mut [u32],
    /// Length of each generated row.
    pub lengths: &'a mut [u32],
}

/// Number of floats of a position in each of a lane's buffers from `residual` to `post_normed`.
pub(super) fn widths(c: &ModelConfig) -> [usize; 12] {
    let (d, f) = (c.d_model, c.d_ff);
    let scaled = if c.norm_gains { d } else { 0 };
    let gate_up = match c.mlp {
        Mlp::Gelu => 0,
        Mlp::SwiGlu | Mlp::GeGlu => 2 * f,
    };
    let (qkv, attended) = (c.qkv_width(), c.q_width());
    let qk_inv_rms = c.qk_norms();
    let qk_normed = match c.parts.qk_gains {
        QkGains::None => 0,
        QkGains::Head | QkGains::Projection => attended + c.kv_width(),
    };
    let post_normed = match c.parts.norms {
        Norms::Before => 0,
        Norms::After | Norms::Around => d,
    };
    let output = match c.parts.residual_scale {
        1.0 => post_normed,
        _ => d,
    };
    [
        d,
        d,
        scaled,
        1,
        qkv,
        qk_inv_rms,
        qk_normed,
        attended,
        f,
        gate_up,
        output,
        post_normed,
    ]
}

impl Lane {
    /// A lane with empty buffers.
    pub fn new(config: ModelConfig) -> Self {
        Self {
            config,
            ropes: Ropes::new(0, &config),
            caches: vec![Cache::default(); config.n_layers],
            residual: Vec::new(),
            normed: Vec::new(),
            scaled: Vec::new(),
            inv_rms: Vec::new(),
            qkv: Vec::new(),
            qk_inv_rms: Vec::new(),
            qk_normed: Vec::new(),
            attended: Vec::new(),
            activated: Vec::new(),
            gate_up: Vec::new(),
            output: Vec::new(),
            post_normed: Vec::new(),
            logits: Vec::new(),
            probabilities: Vec::new(),
            current: Vec::new(),
        }
    }

    /// Grows the buffers to `rows` of `length` tokens, `positions` of each in a pass; returns the capacity of the
    /// caches.
    fn reserve(&mut self, rows: usize, length: usize, positions: usize) -> usize {
        let c = self.config;
        if self.ropes.seq_len() < length {
            self.ropes = Ropes::new(length, &c);
        }
        let capacity = length.next_multiple_of(CACHE_STEP);
        let cache = rows * c.n_kv_heads * c.head_dim * capacity;
        for Cache { keys, values } in &mut self.caches {
            keys.resize(keys.len().max(cache), 0.0);
            values.resize(values.len().max(cache), 0.0);
        }
        let buffers = [
            &mut self.residual,
            &mut self.normed,
            &mut self.scaled,
            &mut self.inv_rms,
            &mut self.qkv,
            &mut self.qk_inv_rms,
            &mut self.qk_normed,
            &mut self.attended,
            &mut self.activated,
            &mut self.gate_up,
            &mut self.output,
            &mut self.post_normed,
        ];
        for (buffer, width) in buffers.into_iter().zip(widths(&c)) {
            buffer.resize(buffer.len().max(rows * positions * width), 0.0);
        }
        let logits = rows * c.vocab_size;
        self.logits.resize(self.logits.len().max(logits), 0.0);
        capacity
    }

    /// Generates a chunk of the request's rows.
    pub fn generate(&mut self, model: PackedModel, request: &Request, chunk: Chunk) {
        let Chunk {
            first,
            tokens,
            lengths,
        } = chunk;
        let (rows, length) = (lengths.len(), request.length);
        let prompts = &request.prompts[first..][..rows];
        // Positions that are in all prompts can be computed together.
        let shared = prompts.iter().map(Vec::len).min().unwrap_or(0);
        let pass = (PASS / rows).clamp(1, shared.max(1));
        let capacity = self.reserve(rows, length, pass);
        let mut randoms: Vec<Random> = (0..rows as u64)
            .map(|row| request.stream.at(request.first_row + first as u64 + row))
            .collect();
        for (row, prompt) in tokens.chunks_exact_mut(length).zip(prompts) {
            row[..prompt.len()].copy_from_slice(prompt);
        }
        let mut running = rows;
        let mut next = 0;
        while next < length - 1 && running > 0 {
            let end = shared.min(next + pass).clamp(next + 1, length - 1);
            let positions = next..end;
            next = end;
            self.current.clear();
            for t in positions.clone() {
                let column = tokens.chunks_exact(length).map(|row| row[t]);
                self.current.extend(column);
            }
            let choosing = prompts.iter().any(|prompt| prompt.len() <= next);
            self.step(model, rows, positions, capacity, choosing);
            if !choosing {
                continue;
            }
            let v = self.config.vocab_size;
            let rows = self.logits[..rows * v]
                .chunks_exact_mut(v)
                .zip(tokens.chunks_exact_mut(length))
                .zip(&mut *lengths);
            for (i, ((logits, row), len)) in rows.enumerate() {
                if prompts[i].len() > next || (*len as usize) < length {
                    continue;
                }
                let random = &mut randoms[i];
                let token = request
                    .sampling
                    .choose(logits, random, &mut self.probabilities);
                row[next] = token;
                if request.sampling.stop_tokens.contains(&token) {
                    *len = next as u32 + 1;
                    running -= 1;
                }
            }
        }
    }

    /// Runs some positions of every row, whose tokens are in `current`: extends the caches and, if `logits` are
    /// wanted, computes those of the last position. The bits of a position do not depend on the other positions
    /// and rows of the pass.
    fn step(
        &mut self,
        model: PackedModel,
        rows: usize,
        positions: Range<usize>,
        capacity: usize,
        logits: bool,
    ) {
        let PackedModel { params, packed } = model;
        let c = self.config;
        let (d, m) = (c.d_model, rows * positions.len());
        let (qkv_width, q_width) = (c.qkv_width(), c.q_width());
        let cache = rows * c.n_kv_heads * c.head_dim * capacity;
        let h = &mut self.residual[..m * d];
        let normed = &mut self.normed[..m * d];
        let inv_rms = &mut self.inv_rms[..m];
        let qkv = &mut self.qkv[..m * qkv_width];
        let attended = &mut self.attended[..m * q_width];
        let activated = &mut self.activated[..m * c.d_ff];
        embed(params, &self.current, h);
        for (l, Cache { keys, values }) in self.caches.iter_mut().enumerate() {
            let layer = Layer::new(model, l);
            let (keys, values) = (&mut keys[..cache], &mut values[..cache]);
            let scaled = &mut self.scaled[..];
            let x = layer.attention.input(h, normed, inv_rms, scaled, d);
            layer.project(qkv, x);
            let columns = qkv
                .chunks_exact_mut(rows * qkv_width)
                .zip(attended.chunks_exact_mut(rows * q_width));
            for (t, (qkv, attended)) in positions.clone().zip(columns) {
                let kept = QkKept {
                    normed: &mut self.qk_normed,
                    inv_rms: &mut self.qk_inv_rms,
                };
                layer.rotate(qkv, kept, &self.ropes, Positions::All(t));
                let shape = layer.shape(rows, t + 1);
                let p = &mut self.probabilities;
                attention::decode(qkv, keys, values, attended, shape, capacity, p);
            }
            let mut added = Added {
                output: &mut self.output,
                normed: &mut self.post_normed,
                inv_rms,
                scaled,
            };
            layer.attention.add(h, attended, &mut added);
            let (inv_rms, scaled) = (&mut *added.inv_rms, &mut *added.scaled);
            let x = layer.mlp.input(h, normed, inv_rms, scaled, d);
            layer.activate(x, activated, &mut self.gate_up, false);
            layer.mlp.add(h, activated, &mut added);
        }
        if logits {
            let (h, normed) = (&h[(m - rows) * d..], &mut normed[..rows * d]);
            let x = final_norm(model).forward(h, normed, inv_rms, &mut self.scaled, d);
            let logits = &mut self.logits[..rows * c.vocab_size];
            packed.embed_out.forward(logits, x, Out::Set);
            if c.parts.logits_scale != 1.0 {
                scale::scale(logits, c.parts.logits_scale);
            }
        }
    }
}

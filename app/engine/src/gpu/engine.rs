//! Losses and gradients of batches, in micro-batches that fit into the device's memory.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{Device, Result, Tensor};

use crate::batch::{Batching, LossBatch, LossReport, Query};
use crate::micro::{BatchSize, in_order};
use crate::model::{self, Keep, Layout, Lora};
use crate::ops::head::PositionLoss;

use super::adamw::AdamW;
use super::head::{self, Backward, Projection};
use super::heads::Heads;
use super::matmul::matmul_nt;
use super::model::{Hidden, Rows, backward, forward};
use super::ops::NO_ROW;
use super::params::Params;
use super::tensor::{download, upload_ids};
use super::{lora, memory};

/// Lengths that rows are trimmed to are multiples of it: 16 bytes of bf16, which tensor cores take.
const ROW_MULTIPLE: usize = 8;

/// Losses, gradients and updates on a GPU, for models of one layout.
pub struct Engine {
    layout: Arc<Layout>,
    device: Device,
    pub(super) batching: Batching,
    pub(super) chunk_logits: usize,
    heads: Option<Heads>,
    /// Gradients of the last [`Self::forward_backward`]: one for each entry of the layout, or two for each linear
    /// layer with adapters; `None` where no position had a weight.
    gradients: Vec<Option<Tensor>>,
}

/// Rows that are processed together, and their positions that pass through the head.
///
/// The rows end where the longest of them has its last position to score, or soon after, where products of matrices
/// are fast: causal attention never looks further.
struct Trimmed {
    /// Token ids `[M]`.
    tokens: Vec<u32>,
    seq_len: usize,
    /// Positions to score, counted from the first of the micro-batch.
    scored: Vec<u32>,
    /// The same positions in the batch.
    positions: Vec<usize>,
    /// Target token of each position to score.
    targets: Vec<u32>,
}

/// A micro-batch's numbers on the device.
struct Uploaded {
    /// Token ids `[M]`.
    tokens: Tensor,
    /// Positions to score, and their target tokens, `[P]` each.
    scored: Tensor,
    targets: Tensor,
    /// For each position, which of those to score it is, or [`NO_ROW`], `[M]`.
    row_of: Tensor,
}

/// Losses of some positions of a batch.
struct Scored {
    /// Positions in the batch.
    positions: Vec<usize>,
    /// Losses `[P, 3]`, as of [`head::run`].
    losses: Tensor,
}

impl Engine {
    /// An engine on a device.
    pub fn new(layout: &Arc<Layout>, device: &Device) -> Self {
        Self {
            layout: layout.clone(),
            device: device.clone(),
            batching: Batching::default(),
            chunk_logits: memory::CHUNK_LOGITS,
            heads: None,
            gradients: Vec::new(),
        }
    }

    /// Sets how batches are divided from now on.
    pub fn set_batching(&mut self, batching: Batching) {
        self.batching = batching;
    }

    /// Computes losses and the gradient of their weighted sum with respect to `student`, or to its adapters if
    /// it has any; the gradient stays on the device.
    ///
    /// Only positions with a weight pass through the head. `reference` is needed where a batch has KL
    /// weights.
    ///
    /// # Errors
    /// When the device fails, most likely for want of memory.
    pub fn forward_backward(
        &mut self,
        student: &Params,
        reference: Option<&Params>,
        batches: &[LossBatch],
    ) -> Result<LossReport> {
        let mut report = LossReport::default();
        // Frees the memory of the last gradients first.
        self.gradients.clear();
        let tensors = match &student.adapters {
            Some(adapters) => adapters.master.len(),
            None => self.layout.entries.len(),
        };
        let mut grads: Vec<Option<Tensor>> = vec![None; tensors];
        for batch in batches {
            let start = Instant::now();
            let reference = reference.filter(|_| batch.has_kl());
            let counts = |i: usize| batch.ntp_weights[i] != 0.0 || batch.kl_weights[i] != 0.0;
            let mut scored = Vec::new();
            for micro in self.next_token(student, batch.tokens, batch.seq_len, counts) {
                scored.push(self.train(student, reference, &micro, batch, &mut grads)?);
            }
            let losses = collect(scored, batch.tokens.len())?;
            let (total, rows) = batch.weigh(&losses);
            report.total += total;
            report.rows.push(rows);
            // The losses are on the host, so that all kernels launched before have ended.
            report.seconds.push(start.elapsed().as_secs_f64());
        }
        let missing = grads.iter().position(Option::is_none);
        if let Some(i) = missing
            && grads.iter().any(Option::is_some)
        {
            let name = match &student.adapters {
                Some(_) => format!("adapter {i}"),
                None => self.layout.entries[i].name.clone(),
            };
            candle_core::bail!("the backward left `{name}` without a gradient");
        }
        if let Some(adapters) = &student.adapters {
            adapters.mask(&mut grads)?;
        }
        self.gradients = grads;
        Ok(report)
    }

    /// Updates `student` with the gradient of the last [`Self::forward_backward`]; returns its norm.
    ///
    /// # Errors
    /// When the device fails, or there is no gradient.
    pub fn update(&self, student: &mut Params, optimizer: &mut AdamW, lr: f64) -> Result<f64> {
        optimizer.update(student, self.gradient()?, lr)
    }

    /// Copies the gradient of the last [`Self::forward_backward`] of a model without adapters to the host.
    ///
    /// # Errors
    /// When the device fails, or there is no gradient.
    pub fn gradients(&self) -> Result<model::Params> {
        let mut gradients = model::Params::zeros(&self.layout);
        for (entry, grad) in self.layout.entries.iter().zip(self.gradient()?) {
            if let Some(grad) = grad {
                gradients.data[entry.range.clone()].copy_from_slice(&download(grad)?);
            }
        }
        Ok(gradients)
    }

    /// Copies the gradient of the last [`Self::forward_backward`] of a `student` with adapters to the host.
    ///
    /// # Errors
    /// When the device fails, or there is no such gradient.
    pub fn adapter_gradients(&self, student: &Params) -> Result<Lora> {
        let Some(layout) = student.lora() else {
            candle_core::bail!("these weights have no adapters");
        };
        lora::gather(layout, self.gradient()?.iter().flatten())
    }

    /// The gradients of the last [`Self::forward_backward`], on the device.
    pub(super) fn gradient(&self) -> Result<&[Option<Tensor>]> {
        if self.gradients.is_empty() {
            candle_core::bail!("no gradient was computed yet");
        }
        Ok(&self.gradients)
    }

    /// Computes losses `[B, T]` of positions of `tokens [B, T]` without gradients: of those that are `wanted`, or
    /// of all. The losses of the others, and of each row's last position, are zero.
    ///
    /// # Errors
    /// When the device fails, most likely for want of memory.
    pub fn evaluate(
        &mut self,
        student: &Params,
        reference: Option<&Params>,
        tokens: &[u32],
        seq_len: usize,
        wanted: Option<&[bool]>,
    ) -> Result<Vec<PositionLoss>> {
        let mut scored = Vec::new();
        let counts = |i: usize| wanted.is_none_or(|wanted| wanted[i]);
        for micro in self.next_token(student, tokens, seq_len, counts) {
            scored.push(self.score(student, reference, &micro)?);
        }
        collect(scored, tokens.len())
    }

    /// Log-probabilities of each query's candidates for the token that follows its position in
    /// `tokens [B, T]`; no other position passes through the head.
    ///
    /// # Errors
    /// When the device fails, most likely for want of memory.
    pub fn log_probs(
        &mut self,
        student: &Params,
        tokens: &[u32],
        seq_len: usize,
        queries: &[Query],
    ) -> Result<Vec<Vec<f32>>> {
        let size = BatchSize {
            tokens: tokens.len(),
            seq_len,
        };
        let mut answered = Vec::new();
        for part in size.cut(0, self.micro_batches(student, size)) {
            let rows: Vec<usize> = part.rows().collect();
            let asked: Vec<&Query> = part.queries(queries).collect();
            let scored = asked.iter().flat_map(|query| {
                let candidates = query.candidates.iter();
                candidates.map(|&candidate| (query.position, candidate))
            });
            let Some(micro) = Trimmed::new(tokens, &rows, seq_len, scored) else {
                continue;
            };
            let losses = download(&self.score(student, None, &micro)?.losses)?;
            let mut log_probs = losses.iter().step_by(3).map(|ntp| -ntp);
            let lens = asked.iter().map(|query| query.candidates.len());
            let answers = lens.map(|len| log_probs.by_ref().take(len).collect());
            let answers: Vec<Vec<f32>> = answers.collect();
            answered.push((part, answers));
        }
        Ok(in_order(queries, answered))
    }

    /// All logits `[B, T, V]` of `tokens [B, T]`. For checks: training never holds them all.
    ///
    /// # Errors
    /// When the device fails, most likely for want of memory.
    pub fn logits(&mut self, student: &Params, tokens: &[u32], seq_len: usize) -> Result<Vec<f32>> {
        let heads = &self.heads(seq_len)?;
        let tokens = upload_ids(tokens, &self.device)?;
        let rows = Rows { seq_len, heads };
        let acts = forward(student, &tokens, rows, Keep::Nothing, None)?;
        download(&matmul_nt(&acts.hidden, student.embed_out())?)
    }

    /// Losses of a micro-batch; adds its gradient to `grads`.
    fn train(
        &mut self,
        student: &Params,
        reference: Option<&Params>,
        micro: &Trimmed,
        batch: &LossBatch,
        grads: &mut [Option<Tensor>],
    ) -> Result<Scored> {
        let (device, heads) = (self.device.clone(), self.heads(micro.seq_len)?);
        let rows = Rows {
            seq_len: micro.seq_len,
            heads: &heads,
        };
        let on_device = micro.upload(&device)?;
        let hidden_of = |params: &Params, keep: Keep| {
            let scored = Some(&on_device.scored);
            forward(params, &on_device.tokens, rows, keep, scored)
        };
        let reference_hidden = match reference {
            Some(params) => Some(hidden_of(params, Keep::Nothing)?.hidden),
            None => None,
        };
        let acts = hidden_of(student, self.batching.keep())?;
        let positions = head::Positions {
            student: projection(student, &acts.hidden),
            reference: reference
                .zip(reference_hidden.as_ref())
                .map(|(reference, hidden)| projection(reference, hidden)),
            targets: &on_device.targets,
        };
        let of_scored =
            |weights: &[f32]| -> Vec<f32> { micro.positions.iter().map(|&i| weights[i]).collect() };
        let weights = [of_scored(batch.ntp_weights), of_scored(batch.kl_weights)].concat();
        let weights = Tensor::from_vec(weights, (2, micro.scored.len()), &device)?;
        let head_backward = Backward {
            ntp_weights: &weights.get(0)?,
            kl_weights: &weights.get(1)?,
            d_embed: match student.adapters {
                Some(_) => None,
                None => Some(&mut grads[self.layout.embed_out_entry()]),
            },
        };
        let (losses, d_hidden) = head::run(&positions, Some(head_backward), self.chunk_logits)?;
        if let Some(d_hidden) = d_hidden {
            let hidden = Hidden {
                d_hidden,
                row_of: &on_device.row_of,
            };
            backward(student, &micro.tokens, rows, acts, hidden, grads)?;
        }
        Ok(Scored {
            positions: micro.positions.clone(),
            losses,
        })
    }

    /// Losses of a micro-batch without gradients.
    fn score(
        &mut self,
        student: &Params,
        reference: Option<&Params>,
        micro: &Trimmed,
    ) -> Result<Scored> {
        let heads = self.heads(micro.seq_len)?;
        let on_device = micro.upload(&self.device)?;
        let rows = Rows {
            seq_len: micro.seq_len,
            heads: &heads,
        };
        let hidden_of = |params: &Params| {
            let scored = Some(&on_device.scored);
            let acts = forward(params, &on_device.tokens, rows, Keep::Nothing, scored)?;
            Ok::<_, candle_core::Error>(acts.hidden)
        };
        let reference_hidden = reference.map(hidden_of).transpose()?;
        let hidden = hidden_of(student)?;
        let positions = head::Positions {
            student: projection(student, &hidden),
            reference: reference
                .zip(reference_hidden.as_ref())
                .map(|(reference, hidden)| projection(reference, hidden)),
            targets: &on_device.targets,
        };
        let (losses, _) = head::run(&positions, None, self.chunk_logits)?;
        Ok(Scored {
            positions: micro.positions.clone(),
            losses,
        })
    }

    /// Attention at positions up to `seq_len`; made again when rows are longer than all before.
    fn heads(&mut self, seq_len: usize) -> Result<Heads> {
        if let Some(heads) = self
            .heads
            .as_ref()
            .filter(|heads| heads.seq_len() >= seq_len)
        {
            return Ok(heads.clone());
        }
        let heads = Heads::new(self.layout.config, seq_len, &self.device)?;
        Ok(self.heads.insert(heads).clone())
    }

    /// Micro-batches whose positions are scored against the next token where `counts` says so; rows without a scored
    /// position are left out, and the others come by length, so that those of a micro-batch end together.
    fn next_token(
        &self,
        student: &Params,
        tokens: &[u32],
        seq_len: usize,
        counts: impl Fn(usize) -> bool,
    ) -> Vec<Trimmed> {
        // The last position of a row has no next token.
        let counts = &counts;
        let scored = |row: usize| {
            let positions = row * seq_len..(row + 1) * seq_len - 1;
            positions.filter(move |&i| counts(i))
        };
        let rows = 0..tokens.len() / seq_len.max(1);
        let with_last =
            rows.filter_map(|row| Some((scored(row).next_back()? - row * seq_len, row)));
        let mut rows: Vec<(usize, usize)> = with_last.collect();
        rows.sort_by_key(|&(last, _)| Reverse(last));
        let rows: Vec<usize> = rows.into_iter().map(|(_, row)| row).collect();
        let size = BatchSize {
            tokens: rows.len() * seq_len,
            seq_len,
        };
        let parts = size.cut(0, self.micro_batches(student, size));
        let micros = parts.filter_map(|part| {
            let rows = &rows[part.rows()];
            let scored = rows.iter().flat_map(|&row| scored(row));
            let with_target = scored.map(|i| (i, tokens[i + 1]));
            Trimmed::new(tokens, rows, seq_len, with_target)
        });
        micros.collect()
    }

    /// Number of micro-batches that rows are divided into.
    fn micro_batches(&self, student: &Params, size: BatchSize) -> usize {
        let config = &self.layout.config;
        let most = memory::micro_batch(config, student.dtype(), self.batching, size.seq_len);
        size.rows().div_ceil(most)
    }
}

/// A model's vocabulary projection of final hidden states.
fn projection<'a>(params: &'a Params, hidden: &'a Tensor) -> Projection<'a> {
    Projection {
        hidden,
        embed: params.embed_out(),
    }
}

impl Trimmed {
    /// Rows of `seq_len` of a batch's `tokens`, by number, and positions of the batch in them to score, each with its
    /// target; `None` without any.
    fn new(
        tokens: &[u32],
        rows: &[usize],
        seq_len: usize,
        scored: impl Iterator<Item = (usize, u32)>,
    ) -> Option<Self> {
        let (positions, targets): (Vec<usize>, Vec<u32>) = scored.unzip();
        let longest = positions.iter().map(|i| i % seq_len + 1).max()?;
        let longest = longest.next_multiple_of(ROW_MULTIPLE).min(seq_len);
        let places: HashMap<usize, usize> = rows.iter().copied().zip(0..).collect();
        let within = |i: &usize| (places[&(i / seq_len)] * longest + i % seq_len) as u32;
        let trimmed = rows.iter().map(|row| &tokens[row * seq_len..][..longest]);
        Some(Self {
            tokens: trimmed.flatten().copied().collect(),
            seq_len: longest,
            scored: positions.iter().map(within).collect(),
            positions,
            targets,
        })
    }

    /// Copies it to a device, at once.
    fn upload(&self, device: &Device) -> Result<Uploaded> {
        let (m, p) = (self.tokens.len(), self.scored.len());
        let mut row_of = vec![NO_ROW; m];
        for (row, &i) in (0..).zip(&self.scored) {
            row_of[i as usize] = row;
        }
        let all = [&self.tokens[..], &row_of, &self.scored, &self.targets].concat();
        let all = upload_ids(&all, device)?;
        Ok(Uploaded {
            tokens: all.narrow(0, 0, m)?,
            row_of: all.narrow(0, m, m)?,
            scored: all.narrow(0, 2 * m, p)?,
            targets: all.narrow(0, 2 * m + p, p)?,
        })
    }
}

/// Copies the losses of micro-batches to the host, to their positions in a batch of `len` positions; the losses
/// of others are zero.
fn collect(micro_batches: Vec<Scored>, len: usize) -> Result<Vec<PositionLoss>> {
    let mut collected = vec![PositionLoss::default(); len];
    for Scored { positions, losses } in micro_batches {
        let losses = download(&losses)?;
        let (losses, _) = losses.as_chunks::<3>();
        for (position, &[ntp, kl, correct]) in positions.into_iter().zip(losses) {
            let correct = correct == 1.0;
            collected[position] = PositionLoss { ntp, kl, correct };
        }
    }
    Ok(collected)
}

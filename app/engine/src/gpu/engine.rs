//! Losses and gradients of batches, in micro-batches that fit into the device's memory.

use std::sync::Arc;
use std::time::Instant;

use candle_core::{Device, Result, Tensor};

use crate::batch::{Batching, LossBatch, LossReport, Query};
use crate::micro::{Cut, Micro, TokenRows};
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
            let (tokens, seq_len) = (batch.tokens, batch.seq_len);
            let rows = TokenRows { tokens, seq_len };
            let mut scored = Vec::new();
            for micro in rows.next_token(self.cut(student, seq_len), batch.counts()) {
                let losses = self.train(student, reference, &micro, batch, &mut grads)?;
                scored.push((micro, losses));
            }
            let losses = collect(scored, tokens.len())?;
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
        let rows = TokenRows { tokens, seq_len };
        for micro in rows.next_token(self.cut(student, seq_len), counts) {
            let losses = self.score(student, reference, &micro)?;
            scored.push((micro, losses));
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
        let mut log_probs = vec![Vec::new(); queries.len()];
        let rows = TokenRows { tokens, seq_len };
        for asked in rows.asked(self.cut(student, seq_len), queries) {
            let candidates = |&query: &usize| &queries[query].candidates[..];
            // Each position once for each of its candidates.
            let scored = asked.queries.iter().zip(&asked.micro.scored);
            let scored = scored.flat_map(|(query, &at)| candidates(query).iter().map(move |_| at));
            let micro = Micro {
                scored: scored.collect(),
                targets: asked.queries.iter().flat_map(candidates).copied().collect(),
                ..asked.micro
            };
            if micro.targets.is_empty() {
                continue;
            }
            let losses = download(&self.score(student, None, &micro)?)?;
            let mut answers = losses.iter().step_by(3).map(|ntp| -ntp);
            for query in &asked.queries {
                let answers = answers.by_ref().take(candidates(query).len());
                log_probs[*query] = answers.collect();
            }
        }
        Ok(log_probs)
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

    /// Losses `[P, 3]` of a micro-batch's scored positions, as of [`head::run`]; adds its gradient to `grads`.
    fn train(
        &mut self,
        student: &Params,
        reference: Option<&Params>,
        micro: &Micro,
        batch: &LossBatch,
        grads: &mut [Option<Tensor>],
    ) -> Result<Tensor> {
        let (device, heads) = (self.device.clone(), self.heads(micro.seq_len)?);
        let rows = Rows {
            seq_len: micro.seq_len,
            heads: &heads,
        };
        let on_device = Uploaded::new(micro, &device)?;
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
        let weights = [micro.of(batch.ntp_weights), micro.of(batch.kl_weights)].concat();
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
        drop(reference_hidden);
        if let Some(d_hidden) = d_hidden {
            let hidden = Hidden {
                d_hidden,
                row_of: &on_device.row_of,
            };
            backward(student, &micro.tokens, rows, acts, hidden, grads)?;
        }
        Ok(losses)
    }

    /// Losses `[P, 3]` of a micro-batch's scored positions, as of [`head::run`], without gradients.
    fn score(
        &mut self,
        student: &Params,
        reference: Option<&Params>,
        micro: &Micro,
    ) -> Result<Tensor> {
        let heads = self.heads(micro.seq_len)?;
        let on_device = Uploaded::new(micro, &self.device)?;
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
        Ok(losses)
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

    /// How rows of this length are divided into micro-batches.
    fn cut(&self, student: &Params, seq_len: usize) -> Cut<impl Fn(usize) -> usize + use<>> {
        let config = &self.layout.config;
        let most = memory::micro_batch(config, student.dtype(), self.batching, seq_len);
        Cut {
            count: move |rows: usize| rows.div_ceil(most),
            multiple: ROW_MULTIPLE,
        }
    }
}

/// A model's vocabulary projection of final hidden states.
fn projection<'a>(params: &'a Params, hidden: &'a Tensor) -> Projection<'a> {
    Projection {
        hidden,
        embed: params.embed_out(),
    }
}

impl Uploaded {
    /// Copies a micro-batch to a device, at once.
    fn new(micro: &Micro, device: &Device) -> Result<Self> {
        let (m, p) = (micro.tokens.len(), micro.scored.len());
        let mut row_of = vec![NO_ROW; m];
        for (row, &i) in (0..).zip(&micro.scored) {
            row_of[i as usize] = row;
        }
        let all = [&micro.tokens[..], &row_of, &micro.scored, &micro.targets].concat();
        let all = upload_ids(&all, device)?;
        Ok(Self {
            tokens: all.narrow(0, 0, m)?,
            row_of: all.narrow(0, m, m)?,
            scored: all.narrow(0, 2 * m, p)?,
            targets: all.narrow(0, 2 * m + p, p)?,
        })
    }
}

/// Copies the losses of micro-batches to the host, to their positions in a batch of `len` positions; the losses
/// of others are zero.
fn collect(micro_batches: Vec<(Micro, Tensor)>, len: usize) -> Result<Vec<PositionLoss>> {
    let mut collected = vec![PositionLoss::default(); len];
    for (micro, losses) in micro_batches {
        let losses = download(&losses)?;
        let (losses, _) = losses.as_chunks::<3>();
        let losses = losses.iter().map(|&[ntp, kl, correct]| PositionLoss {
            ntp,
            kl,
            correct: correct == 1.0,
        });
        micro.put(losses, &mut collected);
    }
    Ok(collected)
}

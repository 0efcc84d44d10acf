//! Losses and gradients of a batch, in micro-batches that fit the device.

use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};

use crate::batch::{Batching, LossBatch, LossReport};
use crate::model::{self, Layout, Lora};
use crate::ops::head::PositionLoss;

use super::head::{self, Backward};
use super::heads::Heads;
use super::matmul::matmul_nt;
use super::model::{Keep, backward, forward};
use super::ops::upload_ids;
use super::params::embed_out;
use super::{AdamW, Params, download, lora, memory};

/// Counterpart of [`crate::cpu::Engine`] for models of one layout.
pub struct Engine {
    layout: Arc<Layout>,
    device: Device,
    pub(super) batching: Batching,
    pub(super) chunk_logits: usize,
    heads: Option<Heads>,
    /// Of the last [`Self::forward_backward`], one an entry of the layout, or two a linear layer with
    /// adapters; none where nothing had a weight.
    gradients: Vec<Option<Tensor>>,
}

/// Rows that are worked on together, and their positions that pass through the head.
struct Micro<'a> {
    /// `[M]`.
    tokens: &'a [u32],
    /// Position of the first among all the rows'.
    first: usize,
    seq_len: usize,
    /// Positions to score, from the micro-batch's first, and their targets.
    scored: Vec<u32>,
    targets: Vec<u32>,
}

/// Losses `[P, 3]` of some positions of a batch.
type Scored = (Vec<usize>, Tensor);

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

    /// Chooses how batches are worked through from now on.
    pub fn set_batching(&mut self, batching: Batching) {
        self.batching = batching;
    }

    /// Computes losses and, on the device, the gradient of their weighted sum with respect to `student`, or
    /// to its adapters where it has some.
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
        // The last ones' memory first.
        self.gradients.clear();
        let tensors = match &student.adapters {
            Some(adapters) => adapters.master.len(),
            None => self.layout.entries.len(),
        };
        let mut grads: Vec<Option<Tensor>> = vec![None; tensors];
        for batch in batches {
            let start = Instant::now();
            let reference = reference.filter(|_| batch.kl_weights.iter().any(|&w| w != 0.0));
            let counts = |i: usize| batch.ntp_weights[i] != 0.0 || batch.kl_weights[i] != 0.0;
            let mut losses = Vec::new();
            for micro in self.next_token(student, batch.tokens, batch.seq_len, counts) {
                losses.push(self.train(student, reference, &micro, batch, &mut grads)?);
            }
            let losses = collect(losses, batch.tokens.len())?;
            let (total, rows) = batch.weigh(&losses);
            report.total += total;
            report.rows.push(rows);
            // Losses have been waited for, and with them all that was launched before.
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
            adapters.finish(&mut grads)?;
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

    /// The gradient of the last [`Self::forward_backward`], on the host.
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

    /// The gradient of the adapters of `student`, on the host.
    ///
    /// # Errors
    /// When the device fails, or there is no such gradient.
    pub fn adapter_gradients(&self, student: &Params) -> Result<Lora> {
        let Some(layout) = student.lora() else {
            candle_core::bail!("these weights have no adapters");
        };
        let gradient = self.gradient()?.iter().flatten();
        lora::gather(layout, gradient)
    }

    pub(super) fn gradient(&self) -> Result<&[Option<Tensor>]> {
        match self.gradients.is_empty() {
            true => candle_core::bail!("no gradient was computed yet"),
            false => Ok(&self.gradients),
        }
    }

    /// Scores positions of `tokens [B, T]` without gradients, `[B, T]`: all, or those that are `wanted`. Others
    /// are zero, and so are last positions.
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
        let mut losses = Vec::new();
        let counts = |i: usize| wanted.is_none_or(|wanted| wanted[i]);
        for micro in self.next_token(student, tokens, seq_len, counts) {
            losses.push(self.score(student, reference, &micro)?);
        }
        collect(losses, tokens.len())
    }

    /// Log-probabilities of candidates for the token behind a position of `tokens [B, T]`, for each query:
    /// position `b T + t` and candidates.
    ///
    /// Only these positions pass through the head.
    ///
    /// # Errors
    /// When the device fails, most likely for want of memory.
    pub fn log_probs(
        &mut self,
        student: &Params,
        tokens: &[u32],
        seq_len: usize,
        queries: &[(usize, &[u32])],
    ) -> Result<Vec<Vec<f32>>> {
        let mut found = vec![Vec::new(); queries.len()];
        for (first, len) in self.micro_batches(student, tokens.len(), seq_len) {
            let mut micro = Micro {
                tokens: &tokens[first..first + len],
                first,
                seq_len,
                scored: Vec::new(),
                targets: Vec::new(),
            };
            let within = |(at, _): &(usize, &[u32])| (first..first + len).contains(at);
            for (at, candidates) in queries.iter().filter(|query| within(query)) {
                micro
                    .scored
                    .extend(candidates.iter().map(|_| (at - first) as u32));
                micro.targets.extend_from_slice(candidates);
            }
            if micro.scored.is_empty() {
                continue;
            }
            let losses = download(&self.score(student, None, &micro)?.1)?;
            let mut log_probs = losses.iter().step_by(3).map(|ntp| -ntp);
            let pairs = queries.iter().zip(&mut found);
            for ((_, candidates), found) in pairs.filter(|(query, _)| within(query)) {
                found.extend(log_probs.by_ref().take(candidates.len()));
            }
        }
        Ok(found)
    }

    /// Logits of every position of `tokens [B, T]`, whole: `[B, T, V]`. For checks, not for training.
    ///
    /// # Errors
    /// When the device fails, most likely for want of memory.
    pub fn logits(&mut self, student: &Params, tokens: &[u32], seq_len: usize) -> Result<Vec<f32>> {
        let heads = self.heads(seq_len)?;
        let tokens = upload_ids(tokens, &self.device)?;
        let acts = forward(student, &tokens, seq_len, &heads, Keep::Nothing)?;
        download(&matmul_nt(&acts.hidden, student.embed_out())?)
    }

    /// Losses of a micro-batch; adds its gradient to what stands there.
    fn train(
        &mut self,
        student: &Params,
        reference: Option<&Params>,
        micro: &Micro,
        batch: &LossBatch,
        grads: &mut [Option<Tensor>],
    ) -> Result<Scored> {
        let (device, heads) = (self.device.clone(), self.heads(micro.seq_len)?);
        let tokens = upload_ids(micro.tokens, &device)?;
        let scored = upload_ids(&micro.scored, &device)?;
        let targets = upload_ids(&micro.targets, &device)?;
        let forward = |params, keep| forward(params, &tokens, micro.seq_len, &heads, keep);
        let reference = match reference {
            Some(params) => {
                let hidden = forward(params, Keep::Nothing)?.hidden;
                Some((hidden.index_select(&scored, 0)?, params.embed_out()))
            }
            None => None,
        };
        let acts = forward(
            student,
            match self.batching.recompute {
                true => Keep::Inputs,
                false => Keep::Blocks,
            },
        )?;
        let positions = head::Positions {
            student: (&acts.hidden.index_select(&scored, 0)?, student.embed_out()),
            reference: reference.as_ref().map(|(hidden, embed)| (hidden, *embed)),
            targets: &targets,
        };
        let at = micro.positions();
        let weights = |all: &[f32]| {
            let weights: Vec<f32> = at.iter().map(|&i| all[i]).collect();
            Tensor::from_vec(weights, at.len(), &device)
        };
        let backward_of_head = Backward {
            ntp_weights: &weights(batch.ntp_weights)?,
            kl_weights: &weights(batch.kl_weights)?,
            d_embed: match student.adapters {
                Some(_) => None,
                None => Some(&mut grads[embed_out(&self.layout)]),
            },
        };
        let (losses, d_scored) = head::run(&positions, Some(backward_of_head), self.chunk_logits)?;
        if let Some(d_scored) = d_scored {
            // Row by row its gradient; zero, which stands behind them all, where nothing was scored.
            let mut rows = vec![at.len() as u32; micro.tokens.len()];
            for (row, &i) in (0..).zip(&micro.scored) {
                rows[i as usize] = row;
            }
            let zero = Tensor::zeros((1, d_scored.dim(1)?), DType::F32, &device)?;
            let d_scored = Tensor::cat(&[d_scored, zero], 0)?;
            let d_hidden = d_scored.index_select(&upload_ids(&rows, &device)?, 0)?;
            let (tokens, seq_len) = (micro.tokens, micro.seq_len);
            backward(student, tokens, seq_len, &heads, acts, &d_hidden, grads)?;
        }
        Ok((at, losses))
    }

    /// Losses of a micro-batch without gradients.
    fn score(
        &mut self,
        student: &Params,
        reference: Option<&Params>,
        micro: &Micro,
    ) -> Result<Scored> {
        let heads = self.heads(micro.seq_len)?;
        let tokens = upload_ids(micro.tokens, &self.device)?;
        let scored = upload_ids(&micro.scored, &self.device)?;
        let hidden = |params: &Params| {
            let acts = forward(params, &tokens, micro.seq_len, &heads, Keep::Nothing)?;
            acts.hidden.index_select(&scored, 0)
        };
        let of_reference = reference.map(hidden).transpose()?;
        let positions = head::Positions {
            student: (&hidden(student)?, student.embed_out()),
            reference: of_reference.as_ref().zip(reference.map(Params::embed_out)),
            targets: &upload_ids(&micro.targets, &self.device)?,
        };
        let (losses, _) = head::run(&positions, None, self.chunk_logits)?;
        Ok((micro.positions(), losses))
    }

    /// Heads that know positions up to `seq_len`.
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

    /// Micro-batches of rows whose positions are scored against the next token where `counts` says so;
    /// without those where nothing is scored.
    fn next_token<'a>(
        &self,
        student: &Params,
        tokens: &'a [u32],
        seq_len: usize,
        counts: impl Fn(usize) -> bool,
    ) -> Vec<Micro<'a>> {
        let micros = self.micro_batches(student, tokens.len(), seq_len);
        let micros = micros.into_iter().map(|(first, len)| {
            let has_next = |i: &usize| !(i + 1).is_multiple_of(seq_len);
            let scored = (first..first + len).filter(has_next).filter(|&i| counts(i));
            let (scored, targets) = scored.map(|i| ((i - first) as u32, tokens[i + 1])).unzip();
            Micro {
                tokens: &tokens[first..first + len],
                first,
                seq_len,
                scored,
                targets,
            }
        });
        micros.filter(|micro| !micro.scored.is_empty()).collect()
    }

    /// Cuts `positions` of rows of `seq_len` into (first, number) of positions, as even as can be.
    fn micro_batches(
        &self,
        student: &Params,
        positions: usize,
        seq_len: usize,
    ) -> Vec<(usize, usize)> {
        let rows = positions / seq_len.max(1);
        let config = &self.layout.config;
        let most = memory::micro_batch(config, student.dtype(), self.batching, seq_len);
        let count = rows.div_ceil(most);
        let at = |i: usize| i * rows / count * seq_len;
        (0..count).map(|i| (at(i), at(i + 1) - at(i))).collect()
    }
}

impl Micro<'_> {
    /// Scored positions among all the rows'.
    fn positions(&self) -> Vec<usize> {
        let scored = self.scored.iter();
        scored.map(|&i| self.first + i as usize).collect()
    }
}

/// Brings the losses of micro-batches to the host, to their places among `len` positions; others are
/// zero.
fn collect(scored: Vec<Scored>, len: usize) -> Result<Vec<PositionLoss>> {
    let mut all = vec![PositionLoss::default(); len];
    for (at, losses) in scored {
        let losses = download(&losses)?;
        let (losses, _) = losses.as_chunks::<3>();
        for (at, &[ntp, kl, correct]) in at.into_iter().zip(losses) {
            let correct = correct == 1.0;
            all[at] = PositionLoss { ntp, kl, correct };
        }
    }
    Ok(all)
}

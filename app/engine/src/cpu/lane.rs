//! A lane: one thread's share of a batch, with buffers and a gradient of its own.

use std::borrow::Cow;

use crate::batch::{LossBatch, Query, RowLoss};
use crate::micro::Micro;
use crate::model::{Activations, Keep, ModelConfig, PackedModel, backward, forward};
use crate::ops::head::{self, PositionLoss, Projection};
use crate::ops::matmul::Out;

/// Buffers and gradient of one lane.
pub(super) struct Lane {
    acts: Activations,
    /// Final hidden states of the reference `[M, D]`.
    reference: Vec<f32>,
    head: head::Scratch,
    /// The token after each position `[M]`; 0 after the last of a row.
    targets: Vec<u32>,
    losses: Vec<PositionLoss>,
    /// Gradient in the layout of the weights; with adapters, of the adapters' block-diagonal form.
    pub grads: Vec<f32>,
}

impl Lane {
    /// A lane with empty buffers.
    pub fn new(config: ModelConfig) -> Self {
        Self {
            acts: Activations::new(config),
            reference: Vec::new(),
            head: head::Scratch::default(),
            targets: Vec::new(),
            losses: Vec::new(),
            grads: Vec::new(),
        }
    }

    /// Begins a gradient of `len` zeros.
    pub fn clear_gradients(&mut self, len: usize) {
        self.grads.resize(len, 0.0);
        self.grads.fill(0.0);
    }

    /// Forward and backward of one micro-batch; returns its part of the weighted sum, and its rows' losses.
    pub fn train(
        &mut self,
        student: PackedModel,
        reference: Option<PackedModel>,
        batch: LossBatch,
        keep: Keep,
    ) -> (f64, Vec<RowLoss>) {
        let (tokens, seq_len) = (batch.tokens, batch.seq_len);
        let PackedModel { params, packed } = student;
        let (m, d) = (tokens.len(), params.layout.config.d_model);
        let scored = Selection::new(batch.has_weight(), m / seq_len);
        let reference = reference.filter(|_| batch.has_kl());
        self.prepare(reference, tokens, seq_len);
        let acts = &mut self.acts;
        forward(student, tokens, seq_len, keep, acts);
        let (hidden, d_hidden) = acts.hidden_and_gradient(m);
        let hidden = scored.select(hidden, d);
        let reference_hidden = reference.map(|_| scored.select(&self.reference[..m * d], d));
        let head_backward = head::Backward {
            ntp_weights: &scored.select(batch.ntp_weights, 1),
            kl_weights: &scored.select(batch.kl_weights, 1),
            d_hidden: &mut d_hidden[..hidden.len()],
            d_embed: if packed.trains_adapters() {
                None
            } else {
                Some(&mut self.grads[params.layout.embed_out()])
            },
        };
        let positions = head::Positions {
            student: projection(student, &hidden),
            reference: reference
                .zip(reference_hidden.as_deref())
                .map(|(reference, hidden)| projection(reference, hidden)),
            targets: &scored.select(&self.targets, 1),
        };
        let losses = &mut self.losses;
        head::run(&positions, Some(head_backward), losses, &mut self.head);
        drop(hidden);
        scored.put_back(d_hidden, d);
        scored.put_back(losses, 1);
        backward(student, tokens, seq_len, acts, &mut self.grads);
        clear_last_positions(losses, seq_len);
        batch.weigh(losses)
    }

    /// Losses of the positions that are wanted, or of all; zeros elsewhere.
    pub fn evaluate(
        &mut self,
        student: PackedModel,
        reference: Option<PackedModel>,
        tokens: &[u32],
        seq_len: usize,
        wanted: Option<&[bool]>,
    ) -> &[PositionLoss] {
        let (m, d) = (tokens.len(), student.params.layout.config.d_model);
        let scored = wanted.map_or(Selection::All, |wanted| {
            Selection::new(wanted.iter().copied(), m / seq_len)
        });
        self.prepare(reference, tokens, seq_len);
        forward(student, tokens, seq_len, Keep::Nothing, &mut self.acts);
        let hidden = scored.select(self.acts.hidden(m), d);
        let reference_hidden = reference.map(|_| scored.select(&self.reference[..m * d], d));
        let positions = head::Positions {
            student: projection(student, &hidden),
            reference: reference
                .zip(reference_hidden.as_deref())
                .map(|(reference, hidden)| projection(reference, hidden)),
            targets: &scored.select(&self.targets, 1),
        };
        let losses = &mut self.losses;
        head::run(&positions, None, losses, &mut self.head);
        scored.put_back(losses, 1);
        clear_last_positions(losses, seq_len);
        for (loss, wanted) in losses.iter_mut().zip(wanted.into_iter().flatten()) {
            if !wanted {
                *loss = PositionLoss::default();
            }
        }
        losses
    }

    /// Answers to queries, whose positions are all in a micro-batch, of the `tokens` there.
    pub fn log_probs(
        &mut self,
        model: PackedModel,
        micro: &Micro,
        tokens: &[u32],
        queries: &[&Query],
    ) -> Vec<Vec<f32>> {
        if queries.is_empty() {
            return Vec::new();
        }
        let d = model.params.layout.config.d_model;
        forward(model, tokens, micro.seq_len, Keep::Nothing, &mut self.acts);
        let first = micro.positions.start;
        let positions = queries.iter().map(|query| query.position - first);
        let asked = Selection::Some(positions.collect());
        let hidden = asked.select(self.acts.hidden(tokens.len()), d);
        let candidates: Vec<&[u32]> = queries.iter().map(|q| &q.candidates[..]).collect();
        let embed = &model.packed.embed_out;
        head::log_probs(&hidden, embed, &candidates, &mut self.head)
    }

    /// Logits of every position.
    pub fn logits(&mut self, model: PackedModel, tokens: &[u32], seq_len: usize) -> Vec<f32> {
        forward(model, tokens, seq_len, Keep::Nothing, &mut self.acts);
        let mut logits = vec![0.0; tokens.len() * model.params.layout.config.vocab_size];
        let hidden = self.acts.hidden(tokens.len());
        let embed = &model.packed.embed_out;
        embed.forward(&mut logits, hidden, Out::Set);
        logits
    }

    /// Sets the targets, clears the losses, and computes the reference's final hidden states.
    fn prepare(&mut self, reference: Option<PackedModel>, tokens: &[u32], seq_len: usize) {
        self.targets.clear();
        for row in tokens.chunks_exact(seq_len) {
            self.targets.extend_from_slice(&row[1..]);
            self.targets.push(0);
        }
        self.losses.clear();
        self.losses.resize(tokens.len(), PositionLoss::default());
        if let Some(reference) = reference {
            forward(reference, tokens, seq_len, Keep::Nothing, &mut self.acts);
            self.acts.swap_hidden(&mut self.reference);
        }
    }
}

/// A model's vocabulary projection of final hidden states.
fn projection<'a>(model: PackedModel<'a>, hidden: &'a [f32]) -> Projection<'a> {
    Projection {
        hidden,
        embed: &model.packed.embed_out,
    }
}

/// Zeroes the losses of each row's last position, which has no target.
fn clear_last_positions(losses: &mut [PositionLoss], seq_len: usize) {
    for row in losses.chunks_exact_mut(seq_len) {
        row[seq_len - 1] = PositionLoss::default();
    }
}

/// Positions that pass through the head.
enum Selection {
    All,
    Some(Vec<usize>),
}

impl Selection {
    /// The wanted positions; all, if no more than `rows` are not wanted: leaving out only each row's last
    /// position is not worth a copy.
    fn new(wanted: impl Iterator<Item = bool> + Clone, rows: usize) -> Self {
        if wanted.clone().filter(|wanted| !wanted).count() <= rows {
            return Self::All;
        }
        let numbered = wanted.enumerate().filter(|(_, wanted)| *wanted);
        Self::Some(numbered.map(|(i, _)| i).collect())
    }

    /// The rows of `x [M, width]` at the selected positions.
    fn select<'a, T: Copy>(&self, x: &'a [T], width: usize) -> Cow<'a, [T]> {
        let Self::Some(positions) = self else {
            return Cow::Borrowed(x);
        };
        let rows = positions.iter().map(|&i| &x[i * width..][..width]);
        Cow::Owned(rows.flatten().copied().collect())
    }

    /// Moves the first rows of `x [M, width]` to the selected positions; the other rows become zero.
    fn put_back<T: Copy + Default>(&self, x: &mut [T], width: usize) {
        let Self::Some(positions) = self else { return };
        let mut end = x.len();
        // From the last row on: rows only move back, so that none is overwritten before it has moved.
        for (row, position) in positions.iter().enumerate().rev() {
            let to = position * width;
            x.copy_within(row * width..(row + 1) * width, to);
            x[to + width..end].fill(T::default());
            end = to;
        }
        x[..end].fill(T::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a loss would be counted at another position than its own.
    #[test]
    fn what_is_selected_goes_back_to_where_it_was() {
        for bits in [0b0000_0000u8, 0b1000_0001, 0b0111_0110, 0b1111_1110, 255] {
            let wanted: Vec<bool> = (0..8).map(|i| bits >> i & 1 == 1).collect();
            let selection = Selection::new(wanted.iter().copied(), 0);
            let x: Vec<u32> = (1..=16).collect();
            let mut y = selection.select(&x, 2).into_owned();
            assert_eq!(y.len(), 2 * wanted.iter().filter(|&&w| w).count());
            y.resize(16, 77);
            selection.put_back(&mut y, 2);
            for (i, (x, y)) in x.iter().zip(y).enumerate() {
                assert_eq!(y, if wanted[i / 2] { *x } else { 0 }, "{wanted:?}");
            }
        }
    }
}

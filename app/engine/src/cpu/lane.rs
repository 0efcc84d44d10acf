//! A lane: one thread's share of a batch, with buffers and a gradient of its own.

use std::borrow::Cow;

use crate::batch::LossBatch;
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
            grads: Vec::new(),
        }
    }

    /// Begins a gradient of `len` zeros.
    pub fn clear_gradients(&mut self, len: usize) {
        self.grads.resize(len, 0.0);
        self.grads.fill(0.0);
    }

    /// Forward and backward of one micro-batch of a batch; the losses of its scored positions.
    pub fn train(
        &mut self,
        student: PackedModel,
        reference: Option<PackedModel>,
        micro: &Micro,
        batch: &LossBatch,
        keep: Keep,
    ) -> Vec<PositionLoss> {
        let (tokens, seq_len) = (&micro.tokens[..], micro.seq_len);
        let PackedModel { params, packed } = student;
        let (m, d) = (tokens.len(), params.layout.config.d_model);
        let kl_weights = micro.of(batch.kl_weights);
        let reference = reference.filter(|_| kl_weights.iter().any(|&weight| weight != 0.0));
        self.run_reference(reference, micro);
        let scored = Selection::new(micro);
        let acts = &mut self.acts;
        forward(student, tokens, seq_len, keep, acts);
        let (hidden, d_hidden) = acts.hidden_and_gradient(m);
        let hidden = scored.select(hidden, d);
        let reference_hidden = reference.map(|_| scored.select(&self.reference[..m * d], d));
        let head_backward = head::Backward {
            ntp_weights: &micro.of(batch.ntp_weights),
            kl_weights: &kl_weights,
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
            targets: &micro.targets,
        };
        let mut losses = vec![PositionLoss::default(); micro.targets.len()];
        head::run(&positions, Some(head_backward), &mut losses, &mut self.head);
        drop(hidden);
        scored.put_back(d_hidden, d);
        backward(student, tokens, seq_len, acts, &mut self.grads);
        losses
    }

    /// Losses of a micro-batch's scored positions.
    pub fn evaluate(
        &mut self,
        student: PackedModel,
        reference: Option<PackedModel>,
        micro: &Micro,
    ) -> Vec<PositionLoss> {
        let (m, d) = (micro.tokens.len(), student.params.layout.config.d_model);
        self.run_reference(reference, micro);
        let scored = Selection::new(micro);
        let (tokens, seq_len) = (&micro.tokens, micro.seq_len);
        forward(student, tokens, seq_len, Keep::Nothing, &mut self.acts);
        let hidden = scored.select(self.acts.hidden(m), d);
        let reference_hidden = reference.map(|_| scored.select(&self.reference[..m * d], d));
        let positions = head::Positions {
            student: projection(student, &hidden),
            reference: reference
                .zip(reference_hidden.as_deref())
                .map(|(reference, hidden)| projection(reference, hidden)),
            targets: &micro.targets,
        };
        let mut losses = vec![PositionLoss::default(); micro.targets.len()];
        head::run(&positions, None, &mut losses, &mut self.head);
        losses
    }

    /// Answers to queries, each with the candidates for the token after a micro-batch's scored position.
    pub fn log_probs(
        &mut self,
        model: PackedModel,
        micro: &Micro,
        candidates: &[&[u32]],
    ) -> Vec<Vec<f32>> {
        let (m, d) = (micro.tokens.len(), model.params.layout.config.d_model);
        let (tokens, seq_len) = (&micro.tokens, micro.seq_len);
        forward(model, tokens, seq_len, Keep::Nothing, &mut self.acts);
        let hidden = Selection::Some(&micro.scored).select(self.acts.hidden(m), d);
        let embed = &model.packed.embed_out;
        head::log_probs(&hidden, embed, candidates, &mut self.head)
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

    /// Computes the reference's final hidden states, if there is one.
    fn run_reference(&mut self, reference: Option<PackedModel>, micro: &Micro) {
        if let Some(reference) = reference {
            let (tokens, seq_len) = (&micro.tokens, micro.seq_len);
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

/// Positions that pass through the head.
enum Selection<'a> {
    All,
    Some(&'a [u32]),
}

impl<'a> Selection<'a> {
    /// The scored positions of a micro-batch.
    fn new(micro: &'a Micro) -> Self {
        match micro.scored.len() == micro.tokens.len() {
            true => Self::All,
            false => Self::Some(&micro.scored),
        }
    }

    /// The rows of `x [M, width]` at the selected positions.
    fn select<'x, T: Copy>(&self, x: &'x [T], width: usize) -> Cow<'x, [T]> {
        let Self::Some(positions) = self else {
            return Cow::Borrowed(x);
        };
        let rows = positions.iter().map(|&i| &x[i as usize * width..][..width]);
        Cow::Owned(rows.flatten().copied().collect())
    }

    /// Moves the first rows of `x [M, width]` to the selected positions; the other rows become zero.
    fn put_back<T: Copy + Default>(&self, x: &mut [T], width: usize) {
        let Self::Some(positions) = self else { return };
        let mut end = x.len();
        // From the last row on: rows only move back, so that none is overwritten before it has moved.
        for (row, position) in positions.iter().enumerate().rev() {
            let to = *position as usize * width;
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
            let is_wanted = |i: &u32| bits >> i & 1 == 1;
            let wanted: Vec<u32> = (0..8).filter(is_wanted).collect();
            let selection = Selection::Some(&wanted);
            let x: Vec<u32> = (1..=16).collect();
            let mut y = selection.select(&x, 2).into_owned();
            assert_eq!(y.len(), 2 * wanted.len());
            y.resize(16, 77);
            selection.put_back(&mut y, 2);
            for (i, (x, y)) in x.iter().zip(y).enumerate() {
                let is_wanted = is_wanted(&(i as u32 / 2));
                assert_eq!(y, if is_wanted { *x } else { 0 }, "{wanted:?}");
            }
        }
    }
}

//! One thread's part of a batch, with buffers and a gradient of its own.

use std::borrow::Cow;
use std::ops::Range;

use crate::batch::{LossBatch, Query, RowLoss};
use crate::model::{Activations, Keep, ModelConfig, ModelRef, Packed, Params, backward, forward};
use crate::ops::head::{self, PositionLoss};
use crate::ops::matmul::Out;

/// Working memory of one thread.
pub(super) struct Lane {
    acts: Activations,
    /// Final hidden states of the reference `[M, D]`.
    reference: Vec<f32>,
    head: head::Scratch,
    targets: Vec<u32>,
    losses: Vec<PositionLoss>,
    /// In the layout of the model, or of what its adapters have lanes add up.
    pub grads: Vec<f32>,
}

/// A model as the lanes read it.
#[derive(Clone, Copy)]
pub(super) struct Model<'a> {
    params: &'a Params,
    packed: &'a Packed,
}

impl<'a> Model<'a> {
    /// Packs the weights; call it inside the pool.
    pub fn pack(model: ModelRef<'a>, packed: &'a mut Packed, backward: bool) -> Self {
        packed.pack(model, backward);
        Self {
            params: model.params,
            packed,
        }
    }

    /// A forward that is for no backward.
    fn infer(self, tokens: &[u32], seq_len: usize, acts: &mut Activations) {
        let Self { params, packed } = self;
        forward(params, packed, tokens, seq_len, Keep::Nothing, acts);
    }
}

impl Lane {
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

    /// Begins a gradient of `len` numbers.
    pub fn clear_gradients(&mut self, len: usize) {
        self.grads.resize(len, 0.0);
        self.grads.fill(0.0);
    }

    /// Forward and backward of one micro-batch: its part of the total, and its rows' losses.
    pub fn train(
        &mut self,
        student: Model,
        reference: Option<Model>,
        batch: LossBatch,
        keep: Keep,
    ) -> (f64, Vec<RowLoss>) {
        let (tokens, seq_len) = (batch.tokens, batch.seq_len);
        let Model { params, packed } = student;
        let (m, d) = (tokens.len(), params.layout.config.d_model);
        let picked = Picked::new(batch.weighs(), m / seq_len);
        let reference = reference.filter(|_| batch.kl_weights.iter().any(|&w| w != 0.0));
        self.prepare(reference, tokens, seq_len);
        let acts = &mut self.acts;
        forward(params, packed, tokens, seq_len, keep, acts);
        let (hidden, d_hidden) = acts.hidden_and_gradient(m);
        let hidden = picked.of(hidden, d);
        let of_reference =
            reference.map(|r| (picked.of(&self.reference[..m * d], d), &r.packed.embed_out));
        let grads = head::Backward {
            ntp_weights: &picked.of(batch.ntp_weights, 1),
            kl_weights: &picked.of(batch.kl_weights, 1),
            d_hidden: &mut d_hidden[..hidden.len()],
            d_embed: match packed.trains_adapters() {
                true => None,
                false => Some(&mut self.grads[params.layout.embed_out()]),
            },
        };
        let positions = head::Positions {
            hidden: &hidden,
            reference: of_reference
                .as_ref()
                .map(|(hidden, embed)| (&hidden[..], *embed)),
            targets: &picked.of(&self.targets, 1),
        };
        let embed = &packed.embed_out;
        let losses = &mut self.losses;
        head::run(&positions, embed, Some(grads), losses, &mut self.head);
        drop(hidden);
        picked.put_back(d_hidden, d);
        picked.put_back(losses, 1);
        backward(params, packed, tokens, seq_len, acts, &mut self.grads);
        clear_last_positions(losses, seq_len);
        batch.weigh(losses)
    }

    /// Losses of the positions that are wanted; zeros elsewhere.
    pub fn evaluate(
        &mut self,
        student: Model,
        reference: Option<Model>,
        tokens: &[u32],
        seq_len: usize,
        wanted: Option<&[bool]>,
    ) -> &[PositionLoss] {
        let (m, d) = (tokens.len(), student.params.layout.config.d_model);
        let picked = wanted.map_or(Picked::All, |wanted| {
            Picked::new(wanted.iter().copied(), m / seq_len)
        });
        self.prepare(reference, tokens, seq_len);
        student.infer(tokens, seq_len, &mut self.acts);
        let hidden = picked.of(self.acts.hidden(m), d);
        let of_reference =
            reference.map(|r| (picked.of(&self.reference[..m * d], d), &r.packed.embed_out));
        let positions = head::Positions {
            hidden: &hidden,
            reference: of_reference
                .as_ref()
                .map(|(hidden, embed)| (&hidden[..], *embed)),
            targets: &picked.of(&self.targets, 1),
        };
        let embed = &student.packed.embed_out;
        let losses = &mut self.losses;
        head::run(&positions, embed, None, losses, &mut self.head);
        picked.put_back(losses, 1);
        clear_last_positions(losses, seq_len);
        for (loss, wanted) in losses.iter_mut().zip(wanted.into_iter().flatten()) {
            if !wanted {
                *loss = PositionLoss::default();
            }
        }
        losses
    }

    /// What each query asks for; their positions are those of the whole batch, `range` is the lane's.
    pub fn log_probs(
        &mut self,
        model: Model,
        tokens: &[u32],
        range: Range<usize>,
        seq_len: usize,
        queries: &[&Query],
    ) -> Vec<Vec<f32>> {
        if queries.is_empty() {
            return Vec::new();
        }
        let d = model.params.layout.config.d_model;
        model.infer(&tokens[range.clone()], seq_len, &mut self.acts);
        let positions = queries.iter().map(|query| query.position - range.start);
        let hidden = Picked::Some(positions.collect());
        let hidden = hidden.of(self.acts.hidden(range.len()), d);
        let candidates: Vec<&[u32]> = queries.iter().map(|q| &q.candidates[..]).collect();
        let embed = &model.packed.embed_out;
        head::log_probs(&hidden, embed, &candidates, &mut self.head)
    }

    /// Logits of every position.
    pub fn logits(&mut self, model: Model, tokens: &[u32], seq_len: usize) -> Vec<f32> {
        model.infer(tokens, seq_len, &mut self.acts);
        let mut logits = vec![0.0; tokens.len() * model.params.layout.config.vocab_size];
        let hidden = self.acts.hidden(tokens.len());
        let embed = &model.packed.embed_out;
        embed.forward(&mut logits, hidden, Out::Set);
        logits
    }

    /// Sets the targets (the next token; 0 where there is none), makes room for the losses, and has the
    /// reference's hidden states computed.
    fn prepare(&mut self, reference: Option<Model>, tokens: &[u32], seq_len: usize) {
        self.targets.clear();
        for row in tokens.chunks_exact(seq_len) {
            self.targets.extend_from_slice(&row[1..]);
            self.targets.push(0);
        }
        self.losses.clear();
        self.losses.resize(tokens.len(), PositionLoss::default());
        if let Some(reference) = reference {
            reference.infer(tokens, seq_len, &mut self.acts);
            self.acts.swap_hidden(&mut self.reference);
        }
    }
}

fn clear_last_positions(losses: &mut [PositionLoss], seq_len: usize) {
    for row in losses.chunks_exact_mut(seq_len) {
        row[seq_len - 1] = PositionLoss::default();
    }
}

/// The positions that pass through the head.
enum Picked {
    All,
    Some(Vec<usize>),
}

impl Picked {
    /// Those that are wanted, where leaving the others out is worth a copy: each of the `rows` has a last
    /// position, without a target.
    fn new(wanted: impl Iterator<Item = bool> + Clone, rows: usize) -> Self {
        if wanted.clone().filter(|wanted| !wanted).count() <= rows {
            return Self::All;
        }
        let numbered = wanted.enumerate().filter(|(_, wanted)| *wanted);
        Self::Some(numbered.map(|(i, _)| i).collect())
    }

    /// Theirs of `x [M, width]`, one after another.
    fn of<'a, T: Copy>(&self, x: &'a [T], width: usize) -> Cow<'a, [T]> {
        let Self::Some(positions) = self else {
            return Cow::Borrowed(x);
        };
        let rows = positions.iter().map(|&i| &x[i * width..][..width]);
        Cow::Owned(rows.flatten().copied().collect())
    }

    /// Takes the first rows of `x [M, width]` to their positions; the others become zero.
    fn put_back<T: Copy + Default>(&self, x: &mut [T], width: usize) {
        let Self::Some(positions) = self else { return };
        let mut end = x.len();
        // From the last on: a row never moves ahead, so that none is overwritten that has yet to move.
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
    fn what_is_picked_goes_back_to_where_it_was() {
        for wanted in [0b0000_0000u8, 0b1000_0001, 0b0111_0110, 0b1111_1110, 255] {
            let wanted: Vec<bool> = (0..8).map(|i| wanted >> i & 1 == 1).collect();
            let picked = Picked::new(wanted.iter().copied(), 0);
            let x: Vec<u32> = (1..=16).collect();
            let mut y = picked.of(&x, 2).into_owned();
            assert_eq!(y.len(), 2 * wanted.iter().filter(|&&w| w).count());
            y.resize(16, 77);
            picked.put_back(&mut y, 2);
            for (i, (x, y)) in x.iter().zip(y).enumerate() {
                assert_eq!(y, if wanted[i / 2] { *x } else { 0 }, "{wanted:?}");
            }
        }
    }
}

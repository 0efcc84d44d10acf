//! Predictions of the memory that work on the CPU takes, with functions that stand beside the code that
//! allocates it.

use crate::demand::{Demand, Memory};
use crate::model::{Activations, Keep, Layout, LoraLayout, Packed};
use crate::ops::head;

use super::micro::count;
use super::{Engine, Sampler};

/// Predicts the memory that some work takes, by purpose.
pub fn predict(demand: &Demand) -> Memory {
    let (model, t) = (&demand.model, demand.seq_len);
    let layout = Layout::new(*model);
    let weights = layout.len;
    let lora = demand.lora.map(|lora| LoraLayout::new(lora, &layout));
    // A student and its reference share the weights below the adapters.
    let (students, trained, gradients, adapters) = match &lora {
        Some(lora) => (lora.len, lora.len, lora.gradient_len(), lora.packed_len()),
        None => (weights, weights, weights, 0),
    };
    let training = !demand.batches.is_empty();
    let lanes = |rows: &[usize]| {
        let micros: usize = rows.iter().map(|&rows| micro_batches(demand, rows)).sum();
        Engine::lanes(demand.threads).min(micros)
    };
    let positions = |rows: &usize| rows.div_ceil(micro_batches(demand, *rows).max(1)) * t;
    // Positions of the largest micro-batch.
    let m = demand
        .batches
        .iter()
        .chain([&demand.scored])
        .map(positions)
        .max()
        .unwrap_or(0);
    let busy = lanes(&demand.batches).max(lanes(&[demand.scored]));
    let keep = if training {
        demand.batching.keep()
    } else {
        Keep::Nothing
    };
    let hidden = usize::from(demand.reference) * m * model.d_model;
    let logits = [model.vocab_size, model.d_model];
    let rows: usize = demand.batches.iter().sum();
    let samples = demand.generated * t;

    let lens = [
        (
            "weights and references",
            demand.learners * students + demand.references() * weights,
        ),
        (
            "moments of the optimizer",
            2 * demand.learners * trained * usize::from(training),
        ),
        ("gradients", lanes(&demand.batches) * gradients),
        (
            "activations",
            busy * (Activations::len(model, m, t, keep) + hidden),
        ),
        (
            "chunks of logits",
            busy * head::Scratch::len(logits, m, demand.reference, training),
        ),
        (
            "packed weights",
            (Packed::len(&layout, training) + adapters) * usize::from(busy > 0)
                + Packed::len(&layout, false) * usize::from(demand.reference)
                + Packed::len(&layout, false) * usize::from(demand.generated > 0),
        ),
        (
            "cache and buffers of generation",
            Sampler::len(model, demand.threads, demand.generated, t),
        ),
        // Tokens and two weights of each position; samples while they are copied, and their prompts.
        (
            "batches and samples",
            3 * rows * t + (demand.buffers + 2) * samples + 16 * demand.generated,
        ),
        // Three fields of each position's losses, twice.
        (
            "held-out rows and their losses",
            demand.held_out + 6 * demand.scored * t,
        ),
    ];
    let mut items: Vec<_> = lens
        .map(|(purpose, len)| (purpose, 4.0 * len as f64))
        .into();
    items.retain(|(_, bytes)| *bytes > 0.0);
    items.push(("the program itself", demand.program));
    Memory(items)
}

/// Number of micro-batches that `rows` are divided into.
pub fn micro_batches(demand: &Demand, rows: usize) -> usize {
    let lanes = Engine::lanes(demand.threads);
    let layout = Layout::new(demand.model);
    count(demand.batching, &layout, rows, demand.seq_len, lanes)
}

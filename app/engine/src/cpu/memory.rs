//! What work on the CPU takes of the machine's memory, by the functions beside the code that takes it.

use crate::cpu::micro::count;
use crate::cpu::{Engine, Sampler};
use crate::demand::{Demand, Memory};
use crate::model::{Activations, Keep, Layout, LoraLayout, Packed};
use crate::ops::head;

/// Adds up what a piece of work takes.
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
    let m = demand.batches.iter().chain([&demand.scored]).map(positions);
    let m = m.max().unwrap_or(0);
    let busy = lanes(&demand.batches).max(lanes(&[demand.scored]));
    let keep = match training {
        true => demand.batching.keep(),
        false => Keep::Nothing,
    };
    let hidden = usize::from(demand.reference) * m * model.d_model;
    let logits = [model.vocab_size, model.d_model];
    let rows: usize = demand.batches.iter().sum();
    let samples = demand.generated * t;

    let numbers = [
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
        // Tokens and two weights a position; prompts and copies of samples on their way.
        (
            "batches and samples",
            3 * rows * t + (demand.buffers + 2) * samples + 16 * demand.generated,
        ),
        // Three numbers a position, twice.
        (
            "held-out rows and their losses",
            demand.held_out + 6 * demand.scored * t,
        ),
    ];
    let mut items: Vec<_> = numbers.map(|(what, n)| (what, 4.0 * n as f64)).into();
    items.retain(|(_, bytes)| *bytes > 0.0);
    items.push(("the program itself", demand.program));
    Memory(items)
}

/// Number of micro-batches that `rows` of a piece of work are cut into.
pub fn micro_batches(demand: &Demand, rows: usize) -> usize {
    let lanes = Engine::lanes(demand.threads);
    let layout = Layout::new(demand.model);
    count(demand.batching, &layout, rows, demand.seq_len, lanes)
}

//! What a training step asks of a GPU, launch by launch: nothing is computed, all is counted.

use std::collections::BTreeMap;

use super::{Asked, lab};

/// By name, with totals of what has no name.
type Counts = BTreeMap<String, u64>;

/// What a bench of training asked for, and in how many steps: each is of one micro-batch in the shapes here, and has
/// one gradient of the embedding.
fn bench(config: &str, seconds: &str) -> (u64, Counts) {
    let mut lab = lab();
    lab.set("STAND_IN_COUNT_ONLY", "1");
    let args = [
        "bench",
        "--config",
        config,
        "--work",
        "train",
        "--device",
        "cuda",
        "--dtype",
        "bf16",
        "--json",
        "--seconds",
        seconds,
    ];
    lab.forgetlab(&args).exits(0);
    let asked = Asked::of(&lab);
    let mut counts = asked.by_name("kernels");
    let candle = asked.by_name("candle").into_iter();
    counts.extend(candle.map(|(name, n)| (format!("candle's {name}"), n)));
    for (name, pointer) in [
        ("products", "/products/calls"),
        ("uploads", "/to_card/calls"),
        ("downloads", "/from_card/calls"),
        ("allocations", "/allocations/calls"),
        ("memory sets", "/sets/calls"),
    ] {
        counts.insert(name.into(), asked.sum(pointer));
    }
    assert_eq!(asked.sum("/failures"), 0);
    (counts["embed_backward"], counts)
}

/// What one step asks for: a line for each name, with a number. What comes before the first step is in both benches.
fn step(config: &str) -> String {
    let ((few, a), (many, b)) = (bench(config, "0.01"), bench(config, "0.3"));
    assert!(few < many, "{few} and {many} steps");
    let mut lines = String::new();
    for (name, n) in b {
        let more = n - a.get(&name).copied().unwrap_or(0);
        assert_eq!(more % (many - few), 0, "{name} differs from step to step");
        if more > 0 {
            lines += &format!("{} {name}\n", more / (many - few));
        }
    }
    lines
}

/// Demands what was written down. Fewer are to be written down, too; more need a reason.
#[track_caller]
fn asks(config: &str, today: &str) {
    let asked = step(config);
    let written: Vec<&str> = today.split_whitespace().collect();
    let found: Vec<&str> = asked.split_whitespace().collect();
    assert!(written == found, "a step of {config} asks for\n{asked}");
}

/// Else a kernel of candle's, an upload or an allocation would creep into the loop, and cost what nobody sees: a small
/// model trains as fast as its launches go.
#[test]
fn a_step_of_the_toy_model_asks_no_more_than_it_did() {
    asks(
        "toy",
        "
        10 adamw
        172 allocations
        4 candle's badd_f32
        1 candle's cast_bf16_f32
        8 candle's cast_f32_bf16
        12 candle's copy2d_f32
        2 candle's is_u32_bf16
        1 candle's is_u32_f32
        4 candle's ucopy_f32
        2 downloads
        1 embed_backward
        2 gelu_backward
        2 gelu_forward
        2 memory sets
        5 norm_backward
        5 norm_forward
        41 products
        2 qkv_backward
        2 qkv_forward
        1 score
        2 softmax_backward
        2 softmax_forward
        16 uploads
        ",
    );
}

/// The same of a Llama: of SmolLM2-135M's sizes, in 30 layers.
#[test]
fn a_step_of_a_llama_asks_no_more_than_it_did() {
    asks(
        "llama-135m",
        "
        182 adamw
        2651 allocations
        60 candle's badd_f32
        1 candle's cast_bf16_f32
        120 candle's cast_f32_bf16
        61 candle's const_set_f32
        184 candle's copy2d_f32
        2 candle's is_u32_bf16
        1 candle's is_u32_f32
        60 candle's ucopy_f32
        2 downloads
        1 embed_backward
        61 gain_backward
        121 gain_forward
        1 memory sets
        61 norm_backward
        61 norm_forward
        634 products
        30 qkv_backward
        30 qkv_forward
        1 score
        30 softmax_backward
        30 softmax_forward
        30 swiglu_backward
        30 swiglu_forward
        72 uploads
        ",
    );
}

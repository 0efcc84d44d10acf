//! What a training step asks of a GPU, launch by launch: nothing is computed, all is counted.

use std::collections::BTreeMap;

use super::{Asked, lab};

/// By name, with totals of what has no name.
type Counts = BTreeMap<String, u64>;

/// What a bench asked for, and in how many steps, each of which asks `once` for what has that name.
fn bench([config, work, once]: [&str; 3], seconds: &str) -> (u64, Counts) {
    let mut lab = lab();
    lab.set("STAND_IN_COUNT_ONLY", "1");
    let args = [
        "bench",
        "--config",
        config,
        "--work",
        work,
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
    (counts[once], counts)
}

/// What one step asks for: a line for each name, with a number. What comes before the first step is in both benches.
fn step(what: [&str; 3]) -> String {
    let ((few, a), (many, b)) = (bench(what, "0.01"), bench(what, "0.3"));
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
fn asks(what: [&str; 3], today: &str) {
    let asked = step(what);
    let written: Vec<&str> = today.split_whitespace().collect();
    let found: Vec<&str> = asked.split_whitespace().collect();
    assert!(written == found, "a step of {what:?} asks for\n{asked}");
}

/// Else nobody could hold what is predicted of a GPU's memory against what is taken.
#[test]
fn a_bench_tells_what_it_took_of_the_card_and_what_was_predicted() {
    let lab = lab();
    let args = [
        "bench",
        "--device",
        "cuda",
        "--dtype",
        "bf16",
        "--json",
        "--seconds",
        "0.01",
    ];
    let done = lab.forgetlab(&args).exits(0);
    for line in done.out.lines() {
        let found: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let bytes = |key: &str| found[key].as_f64().expect("a number of bytes");
        // Two models and two moments in f32 at least; here nothing is kept for later.
        assert!(bytes("gpu_bytes") > 4e6, "{line}");
        assert!(bytes("gpu_bytes") < bytes("predicted_bytes"), "{line}");
    }
    assert_eq!(done.out.lines().count(), 3);
}

/// Else a kernel of candle's, an upload or an allocation would creep into the loop, and cost what nobody sees: a small
/// model trains as fast as its launches go.
#[test]
fn a_step_of_the_toy_model_asks_no_more_than_it_did() {
    asks(
        ["toy", "train", "embed_forward"],
        "
        10 adamw
        130 allocations
        2 downloads
        2 embed_backward
        1 embed_forward
        2 gelu_backward
        2 gelu_forward
        1 memory sets
        5 norm_backward
        5 norm_forward
        41 products
        2 qkv_backward
        2 qkv_forward
        1 score
        2 softmax_backward
        2 softmax_forward
        4 swap_rows
        4 uploads
        ",
    );
}

/// The same of a Llama: of SmolLM2-135M's sizes, in 30 layers.
#[test]
fn a_step_of_a_llama_asks_no_more_than_it_did() {
    asks(
        ["llama-135m", "train", "embed_forward"],
        "
        182 adamw
        2094 allocations
        2 downloads
        1 embed_backward
        1 embed_forward
        30 glu_backward
        30 glu_forward
        61 norm_backward
        61 norm_forward
        573 products
        30 qkv_backward
        30 qkv_forward
        1 score
        30 softmax_backward
        30 softmax_forward
        61 sum_rows
        60 swap_rows
        3 uploads
        ",
    );
}

/// The same of a generation, which is of many positions, and asks for its tokens at the end alone.
#[test]
fn a_generation_of_the_toy_model_asks_no_more_than_it_did() {
    asks(
        ["toy", "generate", "downloads"],
        "
        399 allocations
        13 choose
        1 downloads
        13 embed_forward
        26 gelu_forward
        4 memory sets
        65 norm_forward
        169 products
        26 qkv_forward
        26 softmax_forward
        5 uploads
        ",
    );
}

//! What a user does first on a GPU.

use std::path::PathBuf;

use forgetlab_tests::{Figures, Lab, Table, root};

use super::{Asked, FAMILIES, lab};

/// A small run on the GPU.
pub const SMOKE: &[&str] = &["--device", "cuda", "--no-cache", "--out", "run"];

/// Demands that the card did all the work that there was, and found nothing wrong.
#[track_caller]
fn was_used(lab: &Lab, kernels: &[&str]) {
    let asked = Asked::of(lab);
    let launched = asked.by_name("kernels");
    for &kernel in kernels {
        assert!(
            launched.contains_key(kernel),
            "{kernel} is not in {launched:?}"
        );
    }
    assert!(asked.sum("/products/calls") > 0);
    assert_eq!(asked.sum("/failures"), 0);
}

/// Else the first command on a new machine would tell nothing.
#[test]
fn doctor_describes_the_gpu() {
    let mut lab = lab();
    lab.set("STAND_IN_MEMORY", "85899345920");
    lab.forgetlab(&["doctor"]).exits(0).says(&[
        "ok  CUDA      Stand-in for a GPU, 80.0 GiB free of 80.0 GiB",
        "for CUDA 13.0, cuBLAS 13.0.0",
    ]);
}

/// Else nobody could trust a GPU's numbers: built in, and Llamas with tied and untied embeddings.
#[test]
fn verify_passes_in_both_formats() {
    let fixture = |name: &str| root().join("tests/fixtures").join(name);
    let fixtures: [Option<PathBuf>; 3] = [
        None,
        Some(fixture("llama-tiny-tied")),
        Some(fixture("llama-tiny-untied")),
    ];
    for fixture in fixtures {
        let lab = lab();
        let mut args = vec!["verify", "--device", "cuda"];
        if let Some(fixture) = &fixture {
            args.extend(["--fixture", fixture.to_str().expect("UTF-8")]);
        }
        lab.forgetlab(&args)
            .exits(0)
            .says(&["f32 on cuda", "bf16 on cuda", "checks passed"]);
        was_used(
            &lab,
            &["score", "softmax_backward", "embed_backward", "adamw"],
        );
    }
}

/// Else a model of a family near Llama would be another one on a GPU.
#[test]
fn verify_passes_for_families_in_both_formats() {
    for family in FAMILIES {
        let (lab, folder) = (lab(), root().join("tests/fixtures/families").join(family));
        let fixture = folder.to_str().expect("UTF-8");
        lab.forgetlab(&["verify", "--device", "cuda", "--fixture", fixture])
            .exits(0)
            .says(&["f32 on cuda", "bf16 on cuda", "checks passed"]);
        was_used(&lab, &["score", "softmax_backward", "embed_backward"]);
    }
}

/// Else the main experiment would end before it began, and its figures differ from one day to the next.
#[test]
fn the_toy_experiment_runs_twice_with_equal_figures() {
    let (first, second) = (lab(), lab());
    for lab in [&first, &second] {
        lab.smoke(SMOKE).exits(0).says(&["finished", "metrics.csv"]);
        was_used(
            lab,
            &["gelu_backward", "softmax_backward", "choose", "adamw"],
        );
    }
    let [a, b] = [&first, &second].map(|lab| Figures::of(&lab.path("run")));
    a.must_equal(&b, "the same run twice");
}

/// Else who has less memory for what is generated would get another experiment.
#[test]
fn what_is_generated_in_smaller_chunks_is_the_same() {
    let (whole, cut) = (lab(), lab());
    whole.smoke(SMOKE).exits(0);
    let set = ["--set", "training.generation_bytes=10000"];
    cut.smoke(&[SMOKE, &set].concat()).exits(0);
    let [more, few] = [&cut, &whole].map(|lab| Asked::of(lab).by_name("kernels")["choose"]);
    assert!(more > 3 * few, "{more} and {few} choices");
    let config = |lab: &Lab| std::fs::read_to_string(lab.path("run/config.toml")).expect("a file");
    assert!(config(&whole).contains("\ngeneration_bytes = 4294967296\n"));
    assert!(config(&cut).contains("\ngeneration_bytes = 10000\n"));
    let [a, b] = [&whole, &cut].map(|lab| Figures::of(&lab.path("run")));
    a.must_equal(&b, "generated a few rows at a time");
}

/// Else nobody could tell a year later why the same GPU gave other bits.
#[test]
fn the_environment_names_what_cuda_was() {
    let lab = lab();
    lab.smoke(SMOKE).exits(0);
    let text = std::fs::read_to_string(lab.path("run/environment.json")).expect("a file");
    let environment: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(environment["cuda"], "13.0");
    assert_eq!(environment["cublas"], "13.0.0");
}

/// Else GPU and CPU would disagree, and one of them be wrong: in f32, both do the same arithmetic.
#[test]
fn in_f32_the_gpu_learns_what_the_cpu_learns() {
    let (gpu, cpu) = (lab(), Lab::new());
    let f32 = ["--set", "precision=f32", "--no-cache", "--out", "run"];
    gpu.smoke(&[&f32[..], &["--device", "cuda"]].concat())
        .exits(0);
    cpu.smoke(&f32).exits(0);
    let [gpu, cpu] = [&gpu, &cpu].map(|lab| Table::read(&lab.path("run/metrics.csv")).rows);
    assert_eq!(gpu.len(), cpu.len());
    for (a, b) in gpu.iter().zip(&cpu) {
        for exact in [
            "arm",
            "step",
            "dataset",
            "tokens_trained",
            "tokens_generated",
        ] {
            assert_eq!(a[exact], b[exact]);
        }
        let [a_ntp, b_ntp] = [a, b].map(|row| row["ntp"].parse::<f64>().expect("a number"));
        assert!((a_ntp - b_ntp).abs() < 1e-3, "{a:?}\n{b:?}");
    }
}

/// Else a pretrained model, with its norms' gains and SwiGLU, would be the first thing that nobody had tried.
#[test]
fn a_pretrained_model_is_finetuned() {
    let lab = lab();
    let args = ["run", "instruct", "--preset", "smoke", "--threads", "1"];
    lab.forgetlab(&[&args[..], SMOKE].concat())
        .exits(0)
        .says(&["verilog", "finished"]);
    was_used(&lab, &["sum_rows", "glu_backward", "choose", "adamw"]);
}

//! `forgetlab verify` must tell right numerics from wrong ones.

use std::fs;
use std::path::{Path, PathBuf};

use forgetlab_tests::{Lab, root};
use safetensors::SafeTensors;

fn fixture() -> PathBuf {
    root().join("tests/fixtures/mini-parity.safetensors")
}

/// Where a tensor's bytes are in the file.
fn range(bytes: &[u8], name: &str) -> std::ops::Range<usize> {
    let (header, metadata) = SafeTensors::read_metadata(bytes).expect("header");
    let (start, end) = metadata.info(name).expect("tensor").data_offsets;
    8 + header + start..8 + header + end
}

fn values(bytes: &[u8], name: &str) -> Vec<f32> {
    let chunks = bytes[range(bytes, name)].as_chunks::<4>().0;
    chunks.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

/// Index and size of the largest entry.
fn largest(values: &[f32]) -> (usize, f32) {
    let sizes = values.iter().map(|v| v.abs()).enumerate();
    sizes.max_by(|a, b| a.1.total_cmp(&b.1)).expect("not empty")
}

/// Else nobody could trust a new machine, nor a build of one's own.
#[test]
fn the_fixture_passes_alone_in_a_folder_and_built_in() {
    let lab = Lab::new();
    let file = fixture();
    fs::create_dir(lab.path("fixtures")).expect("folder");
    fs::copy(&file, lab.path("fixtures/mini.safetensors")).expect("copy");
    let file = file.to_str().expect("UTF-8");
    for args in [&["--fixture", file][..], &["--fixture", "fixtures"], &[]] {
        lab.forgetlab(&[&["verify"], args].concat())
            .exits(0)
            .says(&["gradients", "checks passed", "tolerance"]);
    }
}

/// Else a wrong gradient would pass for a right one.
#[test]
fn one_number_off_by_ten_tolerances_fails_and_is_named() {
    let lab = Lab::new();
    let whole = fs::read(fixture()).expect("fixture");
    for name in [
        "grad.kl_pre.qkv",
        "grad.ntp_pre.embed_in",
        "grad.kl_dwn.down",
        "logits.theta",
        "logits.pi",
        "after.qkv",
        "after.embed_out",
    ] {
        let mut bytes = whole.clone();
        let (at, by) = match name.strip_prefix("after.") {
            // An entry with a gradient: others carry only its sign.
            Some(tensor) => {
                let gradient = values(&whole, &format!("grad.kl_pre.{tensor}"));
                (largest(&gradient).0, 1e-3)
            }
            None => {
                let values = values(&whole, name);
                ((values.len() / 3), 1e-3 * largest(&values).1)
            }
        };
        let start = range(&whole, name).start + 4 * at;
        let changed = values(&whole, name)[at] + by;
        bytes[start..start + 4].copy_from_slice(&changed.to_le_bytes());
        fs::write(lab.path("changed.safetensors"), bytes).expect("write");
        let done = lab
            .forgetlab(&["verify", "--fixture", "changed.safetensors"])
            .exits(1)
            .says(&["FAILED", &format!("checks failed: {name}\n")]);
        assert!(done.out.contains(&format!("at entry {at}")), "{done}");
    }
}

/// Else a broken download would look like broken numerics.
#[test]
fn a_file_that_is_no_whole_fixture_is_told_so() {
    let lab = Lab::new();
    let whole = fs::read(fixture()).expect("fixture");
    for len in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(lab.path("cut.safetensors"), &whole[..len]).expect("write");
        lab.forgetlab(&["verify", "--fixture", "cut.safetensors"])
            .exits(1)
            .says(&[
                "cut.safetensors cannot be checked",
                "not a whole safetensors file",
            ]);
    }
    lab.forgetlab(&["verify", "--fixture", "nowhere"])
        .exits(1)
        .says(&["cannot read nowhere"]);
    fs::create_dir(lab.path("empty")).expect("folder");
    lab.forgetlab(&["verify", "--fixture", "empty"])
        .exits(1)
        .says(&["holds no .safetensors fixture"]);
}

/// Else nobody could tell whether a machine computes Llamas, and families near them, right.
#[test]
fn llama_fixtures_pass_and_another_coefficient_is_found() {
    let lab = Lab::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    for name in ["llama-tiny-tied", "llama-tiny-untied"] {
        let folder = fixtures.join(name);
        lab.forgetlab(&["verify", "--fixture", &folder.display().to_string()])
            .exits(0)
            .says(&["f32 on cpu", "bf16 on cpu", "gradients", "checks passed"]);
    }
    for family in [
        "gemma3", "granite", "mistral", "olmo2", "qwen2", "qwen3", "smollm3",
    ] {
        let folder = fixtures.join("families").join(family);
        lab.forgetlab(&["verify", "--fixture", &folder.display().to_string()])
            .exits(0)
            .says(&["f32 on cpu", "bf16 on cpu", "gradients", "checks passed"]);
    }
    let copy = lab.path("changed");
    fs::create_dir(&copy).expect("folder");
    for file in ["config.json", "model.safetensors", "parity.safetensors"] {
        fs::copy(fixtures.join("llama-tiny-tied").join(file), copy.join(file)).expect("copy");
    }
    let settings = fs::read_to_string(fixtures.join("llama-tiny-tied/parity.json"));
    let settings = settings
        .expect("settings")
        .replace("\"coeff\": 1.0", "\"coeff\": 1.01");
    fs::write(copy.join("parity.json"), settings).expect("write");
    lab.forgetlab(&["verify", "--fixture", "changed"])
        .exits(1)
        .says(&["FAILED"]);
    fs::remove_file(copy.join("parity.safetensors")).expect("remove");
    lab.forgetlab(&["verify", "--fixture", "changed"])
        .exits(1)
        .says(&["cannot read changed/parity.safetensors"]);
}

/// Else a checkpoint that another implementation computes otherwise would be finetuned for nothing.
#[test]
fn a_model_is_compared_with_another_implementation_of_its_family() {
    let lab = Lab::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    for (folder, says) in [
        ("llama-tiny-tied", "candle-transformers' llama"),
        ("families/qwen3", "candle-transformers' qwen3"),
        ("families/gemma3", "candle-transformers' gemma3_text"),
        ("families/granite", "factors multiplied into the weights"),
    ] {
        let folder = fixtures.join(folder).display().to_string();
        lab.forgetlab(&["verify", &folder]).exits(0).says(&[
            says,
            "2 rows of 64 tokens",
            "logits  ok",
            "tolerance",
        ]);
    }
    lab.forgetlab(&["verify", "builtin:tiny-llama"])
        .exits(0)
        .says(&["as they were read here", "logits  ok"]);

    let copy = lab.path("broken");
    fs::create_dir(&copy).expect("folder");
    let from = fixtures.join("families/qwen2");
    fs::copy(from.join("config.json"), copy.join("config.json")).expect("copy");
    let mut bytes = fs::read(from.join("model.safetensors")).expect("weights");
    let start = range(&bytes, "model.norm.weight").start;
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(copy.join("model.safetensors"), bytes).expect("write");
    lab.forgetlab(&["verify", "broken"])
        .exits(1)
        .says(&["logits  FAILED", "NaN"]);

    lab.forgetlab(&["verify", "nowhere"])
        .exits(1)
        .says(&["nowhere"]);
    lab.forgetlab(&["verify", "broken", "--fixture", "broken"])
        .exits(2)
        .says(&["cannot be used with"]);
}

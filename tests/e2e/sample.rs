//! `forgetlab sample`.

use std::path::Path;

use forgetlab_tests::Lab;

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    folder.join(name).display().to_string()
}

/// A model that cannot be sampled must say why, not print nonsense.
#[test]
fn what_cannot_be_sampled_is_told_so() {
    let lab = Lab::new();
    let llama = fixture("llama-tiny-tied");
    lab.forgetlab(&["sample", &llama])
        .exits(1)
        .says(&["holds no tokenizer"]);
    lab.forgetlab(&["sample", "nowhere.gguf"])
        .exits(1)
        .says(&["nowhere.gguf"]);
    lab.forgetlab(&["sample", &llama, "--temperature", "hot"])
        .exits(2)
        .says(&["from 0 to 100"]);
    lab.forgetlab(&["sample", &llama, "--chat", "a", "--prompt", "b"])
        .exits(2)
        .says(&["cannot be used with"]);
}

/// The samples are what replay is judged by: the right model, prompted as asked, the same each time.
#[test]
fn a_real_model_answers_and_writes_from_a_bare_token() {
    let Ok(model) = std::env::var("FORGETLAB_SMOLLM2") else {
        eprintln!("skipped: FORGETLAB_SMOLLM2 names no .gguf of SmolLM2-135M-Instruct");
        return;
    };
    let lab = Lab::new();
    let question = "Name the capital of France.";
    let answer = ["--chat", question, "--temperature", "0", "--rows", "1"];
    lab.forgetlab(&[&["sample", &model], &answer[..]].concat())
        .exits(0)
        .says(&[
            "▸The capital of France is Paris.<|im_end|>",
            "1 text, 8 tokens",
        ]);
    let bare = ["--rows", "2", "--length", "12", "--json"];
    let write = |more: &[&str]| lab.forgetlab(&[&["sample", &model], &bare[..], more].concat());
    let first = write(&["--seed", "4"])
        .exits(0)
        .says(&["\"prompt\":\"<|im_start|>\"", "\"duplicate_rows\":0"]);
    assert_eq!(first.out, write(&["--seed", "4"]).out, "the same seed");
    assert_ne!(first.out, write(&["--seed", "5"]).out, "another seed");
    write(&["--token", "<|endoftext|>"])
        .exits(0)
        .says(&["\"prompt\":\"<|endoftext|>\""]);
    write(&["--begin", "<|endoftext|>", "--begin", ""])
        .exits(0)
        .says(&[
            "\"prompt\":\"<|endoftext|>\"",
            "\"prompt\":\"<|im_start|>\"",
            "\"chat\":",
        ]);
    write(&["--token", "<|none|>"])
        .exits(1)
        .says(&["has no token `<|none|>`"]);
}

//! `forgetlab data` with real files: what is shown and written, and what bad input is told.

use std::fs;

use forgetlab_tests::{Lab, root};
use forgetlab_worker::data::TokenSet;

/// The small tokenizer, with Llama 3.2's chat template.
fn tokenizer() -> String {
    root().join("tests/fixtures/chat").display().to_string()
}

const CHATS: &str = r#"{"prompt":"Write a counter.","completion":"module counter;\nendmodule"}
{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":" Hello "},{"role":"user","content":"Bye"},{"role":"assistant","content":"Bye"}]}
"#;

/// Training on the wrong tokens looks like training; the preview is where it is seen.
#[test]
fn preview_marks_what_the_assistant_wrote() {
    let lab = Lab::new();
    fs::write(lab.path("chat.jsonl"), CHATS).expect("write");
    let done = lab.forgetlab(&["data", "preview", "chat.jsonl", "--tokenizer", &tokenizer()]);
    let done = done
        .exits(0)
        .says(&["row 1 of 2", "row 2 of 2", "documents  2"]);
    let unmarked = done.out.replace(['[', ']'], "");
    for text in [
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\\n",
        "Hello<|eot_id|>",
    ] {
        assert!(unmarked.contains(text), "{text} in {done}");
    }
    assert!(
        done.out.contains("[<|eot_id|>]"),
        "the end of a turn is learned: {done}"
    );
    assert!(
        !done.out.contains("[<|start_header_id|>]"),
        "headers are not: {done}"
    );
    assert!(!done.out.contains('\u{1b}'), "no colour in a pipe: {done}");
    let one = [
        "data",
        "preview",
        "chat.jsonl",
        "--rows",
        "1",
        "--date",
        "2026-02-03",
        "--tokenizer",
    ];
    let done = lab
        .forgetlab(&[&one[..], &[&tokenizer()]].concat())
        .exits(0);
    assert!(
        done.out.contains("03 Feb 2026") && !done.out.contains("row 2 of 2"),
        "{done}"
    );
}

/// A set that differs from what was counted would make every later figure wrong.
#[test]
fn prepare_writes_what_it_counts() {
    let lab = Lab::new();
    let text: Vec<String> = (0..200)
        .map(|i| format!("document number {}\n", i % 150))
        .collect();
    fs::write(lab.path("en.txt"), text.join("\n")).expect("write");
    fs::write(lab.path("chat.jsonl"), CHATS).expect("write");
    let args = [
        "data",
        "prepare",
        "en.txt",
        "chat.jsonl",
        "--seq-len",
        "80",
        "--out",
        "set.safetensors",
        "--tokenizer",
    ];
    let done = lab
        .forgetlab(&[&args[..], &[&tokenizer()]].concat())
        .exits(0);
    let set = TokenSet::load(&lab.path("set.safetensors")).expect("load");
    assert_eq!((set.counts.documents, set.counts.duplicates), (202, 50));
    assert_eq!(set.provenance.sources.len(), 2);
    done.says(&[
        "documents  202",
        "50 say what an earlier one says",
        &format!("{} dropped", set.counts.dropped),
        &format!(
            "train      {} rows, {} tokens",
            set.train.len(),
            set.train.tokens()
        ),
        &format!("held out   {} rows", set.held_out.len()),
        "wrote      set.safetensors",
    ]);
    assert!(
        set.counts.dropped >= 1,
        "the second conversation is longer than 80 tokens"
    );
    let first = fs::read(lab.path("set.safetensors")).expect("read");
    lab.forgetlab(&[&args[..], &[&tokenizer()]].concat())
        .exits(0);
    assert!(
        fs::read(lab.path("set.safetensors")).expect("read") == first,
        "the same file again"
    );
}

/// Questions must be seen as the model is asked them.
#[test]
fn questions_are_shown_as_they_are_asked() {
    let lab = Lab::new();
    let question = r#"{"question":"Which is a fruit?","choices":["stone","apple"],"answer":"B"}"#;
    fs::write(lab.path("q.jsonl"), question).expect("write");
    let args = ["data", "preview", "q.jsonl", "--questions", "--tokenizer"];
    lab.forgetlab(&[&args[..], &[&tokenizer()]].concat())
        .exits(0)
        .says(&["A) stone\\n", "ANSWER:", "[A][B]", "q.jsonl, line 1: apple"]);
}

/// A folder with the small tokenizer and a configuration of one's own.
fn other_tokenizer(lab: &Lab, name: &str, config: &str) {
    fs::create_dir(lab.path(name)).expect("folder");
    let from = root().join("tests/fixtures/chat/tokenizer.json");
    fs::copy(from, lab.path(name).join("tokenizer.json")).expect("copy");
    fs::write(lab.path(name).join("tokenizer_config.json"), config).expect("write");
}

/// What cannot be trained on must be told before a night of training: one message, exit code 1.
#[test]
fn bad_input_is_named_and_exits_with_1() {
    let lab = Lab::new();
    for (name, text) in [
        ("chat.jsonl", CHATS),
        ("en.txt", "some text\n"),
        ("empty.jsonl", "\n"),
        ("empty.txt", ""),
        (
            "user.jsonl",
            "{\"text\":\"a\"}\n{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}\n",
        ),
        ("torn.jsonl", "{\"text\":\"a\"}\n{\"text\":\n"),
        (
            "q.jsonl",
            "{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":0}\n{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":2}\n",
        ),
    ] {
        fs::write(lab.path(name), text).expect("write");
    }
    other_tokenizer(&lab, "no-bos", r#"{"eos_token":"<|eot_id|>"}"#);
    let raises = r#"{"bos_token":"<|begin_of_text|>","eos_token":"<|eot_id|>","chat_template":"{{ raise_exception('Only pirates!') }}"}"#;
    other_tokenizer(&lab, "raises", raises);
    fs::create_dir(lab.path("nothing")).expect("folder");
    fs::write(lab.path("torn.gguf"), b"GGUF\x03\0\0\0").expect("write");
    let small = tokenizer();
    for (args, tokenizer, texts) in bad_commands(&small) {
        let args = [&["data"], args, &["--tokenizer", tokenizer]].concat();
        let done = lab.forgetlab(&args).exits(1).says(texts);
        assert_eq!(done.out, "", "{done}");
        assert_eq!(done.err.matches("error:").count(), 1, "{done}");
    }
}

/// What follows `data`, the tokenizer, and what must be said.
type Bad<'a> = (&'a [&'a str], &'a str, &'a [&'a str]);

#[allow(clippy::too_many_lines, reason = "a table of checks")]
fn bad_commands(small: &str) -> Vec<Bad<'_>> {
    vec![
        (
            &["preview", "empty.jsonl"],
            small,
            &["empty.jsonl is empty", "documents"],
        ),
        (&["preview", "empty.txt"], small, &["empty.txt is empty"]),
        (
            &["preview", "user.jsonl"],
            small,
            &["user.jsonl, line 2", "no assistant turn"],
        ),
        (
            &["preview", "torn.jsonl"],
            small,
            &["torn.jsonl, line 2", "JSON"],
        ),
        (
            &["preview", "gone.jsonl"],
            small,
            &["gone.jsonl", "No such file"],
        ),
        (
            &["preview", "--questions", "q.jsonl"],
            small,
            &["q.jsonl, line 2", "`answer` is 2", "2 choices", "0 to 1"],
        ),
        (
            &["preview", "--questions", "empty.jsonl"],
            small,
            &["empty.jsonl is empty", "questions"],
        ),
        (
            &["preview", "en.txt"],
            "no-bos",
            &["no-bos has no BOS token", "`bos`"],
        ),
        (
            &["preview", "chat.jsonl"],
            "no-bos",
            &["no-bos has no chat template"],
        ),
        (
            &["preview", "chat.jsonl"],
            "raises",
            &["chat.jsonl, line 1", "refuses", "Only pirates!"],
        ),
        (
            &["preview", "en.txt"],
            "nothing",
            &["nothing holds no tokenizer", "tokenizer.json"],
        ),
        (
            &["preview", "en.txt"],
            "torn.gguf",
            &["torn.gguf", "not a GGUF"],
        ),
        (
            &["preview", "chat.jsonl", "--text", "body"],
            small,
            &["line 1", "no field `body`", "`prompt`"],
        ),
        (
            &["preview", "en.txt", "--bos", "<s>"],
            small,
            &["no token `<s>`", "<|eot_id|>"],
        ),
        (
            &["prepare", "en.txt", "--out", "set.safetensors"],
            small,
            &["nothing to evaluate on", "held_out"],
        ),
        (
            &["prepare", "en.txt", "--out", "x", "--seq-len", "1"],
            small,
            &["seq_len = 1"],
        ),
        (
            &[
                "prepare",
                "en.txt",
                "--held-out",
                "0",
                "--out",
                "gone/set.safetensors",
            ],
            small,
            &["gone", "No such file"],
        ),
    ]
}

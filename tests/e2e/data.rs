//! `forgetlab data` with real files: what is shown and written, and what bad input is told.

use std::fs;
use std::process::Command;

use forgetlab_tests::{Lab, root};
use forgetlab_worker::data::TokenSet;

/// The small tokenizer, with Llama 3.2's chat template.
fn tokenizer() -> String {
    root().join("tests/fixtures/chat").display().to_string()
}

const CHATS: &str = r#"{"prompt":"Write a counter.","completion":"module counter;\nendmodule"}
{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":" Hello "},{"role":"user","content":"Bye"},{"role":"assistant","content":"Bye"}]}
"#;

/// Tools that reach the model in the run and not in the preview, or in neither, make another task of the data.
#[test]
fn preview_shows_tools_and_calls_and_refuses_what_has_no_place() {
    let lab = Lab::new();
    let call = r#"{"type":"function","function":{"name":"f","arguments":{"z":1,"a":"x"}}}"#;
    let tools = r#"[{"type":"function","function":{"name":"f","description":"does it"}}]"#;
    let turns = format!(
        r#"[{{"role":"user","content":"Do it."}},{{"role":"assistant","content":null,"tool_calls":[{call}]}}]"#
    );
    let record = |more: &str| format!(r#"{{"messages":{turns},"tools":{tools}{more}}}"#);
    fs::write(lab.path("tools.jsonl"), record("")).expect("write");
    fs::write(lab.path("odd.jsonl"), record(",\"rationale\":\"it is so\"")).expect("write");
    let tokenizer = tokenizer();
    let args = ["data", "preview", "--tokenizer", &tokenizer];
    let shown = |file: &str, more: &[&str]| lab.forgetlab(&[&args[..], &[file], more].concat());
    let done = shown("tools.jsonl", &[]).exits(0);
    let plain = done.out.replace(['[', ']', '\n'], "");
    assert!(plain.contains("does it"), "{done}");
    let text = "{\"name\": \"f\", \"parameters\": {\"z\": 1, \"a\": \"x\"}}<|eot_id|>";
    assert!(plain.contains(text), "{text} in {done}");
    let learned = done.out.replace("][", "").replace('\n', "");
    assert!(
        learned.contains(&format!("[{text}]")),
        "{text} learned in {done}"
    );
    shown("odd.jsonl", &[]).exits(1).says(&[
        "line 1",
        "`rationale` is not used",
        "--ignore rationale",
    ]);
    shown("odd.jsonl", &["--ignore", "rationale"]).exits(0);
}

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

/// Else what the model is judged on could not be looked at before the training.
#[test]
fn preview_shows_what_would_be_held_out() {
    let lab = Lab::new();
    let text: Vec<String> = (0..200).map(|i| format!("document number {i}\n")).collect();
    fs::write(lab.path("en.txt"), text.join("\n")).expect("write");
    let tokenizer = tokenizer();
    let data = |args: &[&str]| {
        let more = ["en.txt", "--windows", "--tokenizer", &tokenizer];
        lab.forgetlab(&[&["data"], args, &more[..]].concat())
    };
    // What is said on each row: its text, unmarked.
    let rows = |done: &forgetlab_tests::Done| -> Vec<String> {
        let plain = done.out.replace(['[', ']'], "");
        let lines = plain
            .lines()
            .filter(|line| line.contains("document number"));
        lines.map(str::to_owned).collect()
    };
    let all = data(&["preview", "--rows", "500"])
        .exits(0)
        .says(&["row 1 of 200", "0 held out"]);
    for share in ["0.05", "0.3"] {
        let args = ["preview", "--rows", "500", "--held-out", share];
        let held_out = data(&args).exits(0).says(&["held-out row 1 of "]);
        let out = ["prepare", "--held-out", share, "--out", "set.safetensors"];
        data(&out).exits(0);
        let set = TokenSet::load(&lab.path("set.safetensors")).expect("load");
        let (shown, all) = (rows(&held_out), rows(&all));
        assert_eq!(shown.len(), set.held_out.len(), "{held_out}");
        assert!(shown.len() < all.len() && shown.iter().all(|row| all.contains(row)));
        let counts = format!("{} held out", set.counts.held_out);
        held_out.says(&[&counts]);
    }
    data(&["preview", "--held-out", "much"])
        .exits(2)
        .says(&["--held-out"]);
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

/// A folder of the built-in model, with what is changed of its tokenizer's files.
fn model(lab: &Lab, name: &str) {
    let export = ["model", "export", "builtin:tiny-llama", "--to", name];
    lab.forgetlab(&export).exits(0);
}

fn change(lab: &Lab, file: &str, change: impl FnOnce(&mut serde_json::Value)) {
    let text = fs::read_to_string(lab.path(file)).expect("read");
    let mut value = serde_json::from_str(&text).expect("JSON");
    change(&mut value);
    fs::write(lab.path(file), value.to_string()).expect("write");
}

/// A preview that begins otherwise than the questions of a run shows another test than the one that is scored.
#[test]
fn plain_questions_begin_as_in_a_run() {
    let lab = Lab::new();
    model(&lab, "m");
    let question = r#"{"question":"Which is two?","choices":["one","two"],"answer":1}"#;
    fs::write(lab.path("q.jsonl"), question).expect("write");
    let args = [
        "data",
        "preview",
        "q.jsonl",
        "--questions",
        "--style",
        "plain",
        "--tokenizer",
        "m",
    ];
    let shown = || lab.forgetlab(&args).exits(0).out.replace(['[', ']'], "");
    let bos = "<|im_start|>";
    for adds in [false, true] {
        change(&lab, "m/tokenizer_config.json", |config| {
            config["add_bos_token"] = adds.into();
        });
        let begins = if adds { bos } else { "" };
        let request = format!("--- request 2\n{begins}Question: Which is two?\\n\nAnswer: two\n");
        let out = shown();
        assert!(out.contains(&request), "{request} in {out}");
    }
    // The model has a template, so without a style it is asked in a chat.
    lab.forgetlab(&[&args[..4], &args[6..]].concat())
        .exits(0)
        .says(&["ANSWER:", "user"]);
    let style = [
        "data",
        "preview",
        "q.jsonl",
        "--style",
        "plain",
        "--tokenizer",
        "m",
    ];
    lab.forgetlab(&style).exits(2).says(&["--questions"]);
}

/// Tokens that were added to a tokenizer and not to its model would end a run in the middle of its first step.
#[test]
fn tokens_that_the_model_has_not_are_refused_before_training() {
    let lab = Lab::new();
    model(&lab, "m");
    change(&lab, "m/tokenizer.json", |tokenizer| {
        let added = tokenizer["added_tokens"]
            .as_array_mut()
            .expect("added tokens");
        let mut token = added[0].clone();
        token["id"] = 512.into();
        token["content"] = "<|new|>".into();
        added.push(token);
    });
    let line = |text: &str| format!("{{\"text\":\"{text}\"}}\n");
    let old: String = (0..40)
        .map(|i| line(&format!("an old text, number {i}")))
        .collect();
    fs::write(lab.path("old.jsonl"), &old).expect("write");
    fs::write(lab.path("new.jsonl"), old + &line("a <|new|> text")).expect("write");
    let said = [
        "new.jsonl, line 41: token 512 (`<|new|>`) is beyond the model's vocabulary of 512 tokens",
        "has 513",
    ];
    let run = |file: &str, out: &str| {
        let files = format!("data.datasets.english.files=[\"{file}\"]");
        let args = [
            "run",
            "instruct",
            "--preset",
            "smoke",
            "--threads",
            "1",
            "--arms",
            "none",
        ];
        let more = ["--set", "model.pretrained=m", "--set", &files, "--out", out];
        lab.forgetlab(&[&args[..], &more].concat())
    };
    let done = run("new.jsonl", "run").exits(1).says(&said);
    assert!(
        !done.err.contains("panicked") && !lab.path("run").exists(),
        "{done}"
    );
    for command in [&["preview"][..], &["prepare", "--out", "set.safetensors"]] {
        let args = [&["data"], command, &["new.jsonl", "--tokenizer", "m"]].concat();
        lab.forgetlab(&args).exits(1).says(&said);
    }
    let inspect = ["model", "inspect", "m"];
    lab.forgetlab(&inspect)
        .exits(0)
        .says(&["tokenizer", "token 512 (`<|new|>`) is beyond"]);
    run("old.jsonl", "run").exits(0);
}

/// Texts without a word are left out, which must be seen where the data is looked at and where it is trained on.
#[test]
fn empty_texts_are_left_out_and_told() {
    let lab = Lab::new();
    let text: String = (0..40)
        .map(|i| format!("\"a text of number {i}\"\n"))
        .collect();
    fs::write(lab.path("x.csv"), format!("text\n\"\"\n{text}\" \"\n")).expect("write");
    let tokenizer = ["x.csv", "--tokenizer", "builtin:tiny-llama"];
    let counts = ["documents  42: ", "empty      2 left out"];
    lab.forgetlab(&[&["data", "preview"], &tokenizer[..]].concat())
        .exits(0)
        .says(&counts);
    lab.forgetlab(&[&["data", "prepare", "--out", "set"], &tokenizer[..]].concat())
        .exits(0)
        .says(&counts);
    let args = [
        "run",
        "instruct",
        "--preset",
        "smoke",
        "--threads",
        "1",
        "--arms",
        "none",
    ];
    let files = "data.datasets.english.files=[\"x.csv\"]";
    lab.forgetlab(&[&args[..], &["--set", files, "--out", "run"]].concat())
        .exits(0);
    let told = "dataset `english`: of 42 documents 2 left out because they say nothing";
    let events = fs::read_to_string(lab.path("run/events.jsonl")).expect("events");
    assert!(events.contains(told), "{events}");
}

/// A pipe in the place of a file would keep a run for ever, before it has said a word.
#[test]
fn a_pipe_is_no_data() {
    let lab = Lab::new();
    let made = Command::new("mkfifo").arg(lab.path("x.jsonl")).status();
    assert!(made.expect("mkfifo").success());
    let says = [
        "x.jsonl: it is a named pipe",
        "write its content to a file first",
    ];
    let tokenizer = ["--tokenizer", "builtin:tiny-llama"];
    for command in [&["preview"][..], &["preview", "--questions"]] {
        let args = [&["data"], command, &["x.jsonl"], &tokenizer[..]].concat();
        lab.forgetlab(&args).exits(1).says(&says);
    }
    let files = "data.datasets.english.files=[\"x.jsonl\"]";
    lab.forgetlab(&["run", "instruct", "--preset", "smoke", "--set", files])
        .exits(1)
        .says(&says);
}

/// A damaged file is the file's fault, not a bug of the program; its reader panics at this one.
#[test]
fn a_damaged_parquet_file_is_told_by_its_name() {
    let lab = Lab::new();
    let mut bytes = fs::read(root().join("tests/fixtures/parquet/chat.parquet")).expect("read");
    // Where a column begins, as a negative number.
    bytes[396] = 0xff;
    fs::write(lab.path("x.parquet"), bytes).expect("write");
    let args = [
        "data",
        "preview",
        "x.parquet",
        "--tokenizer",
        "builtin:tiny-llama",
    ];
    let done = lab.forgetlab(&args).exits(1);
    let done = done.says(&["x.parquet", "it is damaged: column start"]);
    assert!(!done.err.contains("panicked"), "{done}");
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

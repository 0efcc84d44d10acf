//! `forgetlab data train-tokenizer`, `tokenize` and `inspect` with real files, signals and bad input.

use std::fs;

use forgetlab_tests::{Lab, wait_for};
use forgetlab_worker::data::TokenFile;
use rustix::process::Signal;

/// A lab with a text and a tokenizer of it.
fn lab() -> Lab {
    let lab = Lab::new();
    let text = "the kettle sings\nits song\n\n¿qué tal?\n\n".repeat(50);
    fs::write(lab.path("en.txt"), text).expect("write");
    let train = [
        "data",
        "train-tokenizer",
        "en.txt",
        "--vocab",
        "280",
        "--out",
        "t.json",
    ];
    lab.forgetlab(&train).exits(0).says(&[
        "vocabulary 280 tokens",
        "2 markers, then EOS",
        "100 documents",
        "wrote      t.json",
    ]);
    lab
}

const TOKENIZE: &[&str] = &[
    "data",
    "tokenize",
    "--tokenizer",
    "t.json",
    "--out",
    "en.tokens",
];

fn tokenize(lab: &Lab, more: &[&str]) -> forgetlab_tests::Done {
    lab.forgetlab(&[TOKENIZE, more].concat())
}

/// The way from a text to a file that can be trained on, as the page has it.
#[test]
fn a_text_becomes_a_token_file_that_tells_what_it_is() {
    let lab = lab();
    let done = tokenize(
        &lab,
        &["en.txt", "--licence", "CC0 \u{1b}[2J", "--threads", "3"],
    )
    .exits(0);
    done.says(&[
        "documents  100;",
        "a byte of text",
        "source     en.txt, blake3",
        "en.tokens.json",
    ]);
    let file = TokenFile::open(&lab.path("en.tokens")).expect("open");
    let sidecar = file.sidecar().expect("a sidecar");
    assert_eq!((sidecar.documents, sidecar.about.vocab_size), (100, 280));
    assert_eq!(sidecar.about.reserved.markers, [0, 1]);
    let first = fs::read(lab.path("en.tokens")).expect("read");
    let inspect = ["data", "inspect", "en.tokens", "--rows", "1"];
    let done = lab.forgetlab(&inspect).exits(0);
    let done = done.says(&[
        "documents  100",
        "reserved   markers 0, 1; EOS 2",
        "as its sidecar says",
        "vocabulary 280 tokens, of which",
        "nats a token",
        "the kettle sings",
        "<|endoftext|>",
        "licence    CC0",
    ]);
    assert!(!done.out.contains('\u{1b}'), "{done}");
    // Again, and with all of it twice.
    tokenize(
        &lab,
        &["en.txt", "en.txt", "--drop-duplicates", "--threads", "1"],
    )
    .exits(0)
    .says(&["documents  2;", "198 which say what an earlier one says"]);
    tokenize(&lab, &["en.txt", "--licence", "CC0 \u{1b}[2J"]).exits(0);
    assert!(fs::read(lab.path("en.tokens")).expect("read") == first);
    // Text that spells out a marker.
    fs::write(lab.path("odd.txt"), "the <|data1|> kettle").expect("write");
    tokenize(&lab, &["odd.txt"])
        .exits(0)
        .says(&["note: the texts spell out", "1 times"]);
}

/// The paper's own files have no sidecar.
#[test]
fn a_flat_file_is_inspected_with_its_vocabulary() {
    let lab = Lab::new();
    let bytes: Vec<u8> = (0..500_u16).flat_map(u16::to_le_bytes).collect();
    fs::write(lab.path("c4_en.bin"), bytes).expect("write");
    let inspect =
        |more: &[&str]| lab.forgetlab(&[&["data", "inspect", "c4_en.bin"], more].concat());
    inspect(&[])
        .exits(1)
        .says(&["no c4_en.bin.json beside it", "size of its vocabulary"]);
    inspect(&["--vocab", "4096"]).exits(0).says(&[
        "sidecar    none",
        "of which 500 occur",
        "[0, 1, 2",
    ]);
    inspect(&["--vocab", "400"])
        .exits(1)
        .says(&["token number 400 is 400"]);
    inspect(&["--vocab", "70000"])
        .exits(1)
        .says(&["16-bit tokens"]);
}

/// What is wrong must be told where it stands, and cost nothing that was there.
#[test]
fn bad_input_is_named_and_leaves_all_as_it_was() {
    let lab = lab();
    tokenize(&lab, &["en.txt"]).exits(0);
    let before = fs::read(lab.path("en.tokens")).expect("read");
    fs::write(lab.path("bad.jsonl"), "{\"text\":\"a\"}\n{\"text\":3}\n").expect("write");
    fs::write(lab.path("binary.txt"), b"a\0b").expect("write");
    fs::write(lab.path("none.txt"), "\n").expect("write");
    fs::write(lab.path("x.bin"), "text").expect("write");
    for (sources, said) in [
        (
            &["en.txt", "bad.jsonl"][..],
            "bad.jsonl, line 2: `text` is not a text",
        ),
        (&["binary.txt"], "line 1 holds a byte 0"),
        (&["none.txt"], "none.txt is empty"),
        (&["gone.txt"], "cannot read gone.txt"),
        (&["x.bin"], "not a kind of file that is read"),
        (&["en.txt", "--eos", "</s>"], "no token `</s>`"),
    ] {
        tokenize(&lab, sources).exits(1).says(&[said]);
    }
    lab.forgetlab(&[
        "data",
        "tokenize",
        "en.txt",
        "--tokenizer",
        "t.json",
        "--out",
        "en.txt",
    ])
    .exits(1)
    .says(&["both read and to be written"]);
    lab.forgetlab(&[
        "data",
        "train-tokenizer",
        "en.txt",
        "--vocab",
        "100",
        "--out",
        "x.json",
    ])
    .exits(1)
    .says(&["vocab = 100 (at least 259)"]);
    assert!(!lab.path("x.json").exists());
    assert!(fs::read(lab.path("en.tokens")).expect("read") == before);
    // Damaged: half a token, another content, another sidecar.
    let inspect = || lab.forgetlab(&["data", "inspect", "en.tokens"]).exits(1);
    let write = |bytes: &[u8]| fs::write(lab.path("en.tokens"), bytes).expect("write");
    write(&before[..before.len() - 1]);
    inspect().says(&["no whole number of tokens of 2 bytes"]);
    write(&before[..before.len() - 2]);
    inspect().says(&["en.tokens.json: it says", "tokenize the sources again"]);
    let mut other = before.clone();
    other[10] ^= 1;
    write(&other);
    inspect().says(&["its content is not what its sidecar says"]);
    write(&before);
    fs::write(lab.path("en.tokens.json"), "{}").expect("write");
    inspect().says(&["not what `forgetlab data tokenize` writes"]);
}

/// Ctrl-C in the middle of an hour's work must not leave a file that looks whole.
#[test]
fn ctrl_c_leaves_nothing_half_written() {
    let lab = lab();
    tokenize(&lab, &["en.txt"]).exits(0);
    let before = fs::read(lab.path("en.tokens")).expect("read");
    let text = "the kettle sings its song, and the song is long\n\n".repeat(1_000_000);
    fs::write(lab.path("long.txt"), text).expect("write");
    let names = || {
        let entries = fs::read_dir(lab.path("")).expect("list");
        let names = entries.map(|e| e.expect("entry").file_name().into_string().expect("UTF-8"));
        names.collect::<Vec<_>>()
    };
    let is_writing = || names().iter().any(|name| name.starts_with(".tmp-"));
    let start = || {
        let live = lab.start(&[TOKENIZE, &["long.txt", "--threads", "1"]].concat());
        wait_for("the file to be begun", is_writing);
        live
    };
    let mut live = start();
    live.signal(Signal::INT);
    live.end()
        .exits(130)
        .says(&["interrupted by SIGINT: en.tokens was not written"]);
    assert!(!is_writing(), "{:?}", names());
    // Killed, it leaves its temporary file, and the whole one as it was.
    start().kill();
    assert!(fs::read(lab.path("en.tokens")).expect("read") == before);
    lab.forgetlab(&["data", "inspect", "en.tokens"]).exits(0);
}

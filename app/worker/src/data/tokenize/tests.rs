//! Sources to token files, and what goes wrong on the way.

use std::fs;
use std::io::Write;

use tempfile::TempDir;

use super::*;
use crate::data::{TokenFile, TrainTokenizer, sidecar_path, train_tokenizer};

/// A folder with a small tokenizer of two markers.
fn lab() -> (TempDir, Tokenizer) {
    let dir = tempfile::tempdir().unwrap();
    let text =
        "the kettle sings the song of the kettle\n\nthe song is long, ¿qué tal?\n\n".repeat(20);
    fs::write(dir.path().join("train.txt"), text).unwrap();
    let settings = TrainTokenizer {
        sources: vec![dir.path().join("train.txt")],
        vocab_size: 300,
        markers: 2,
        threads: 2,
        ..TrainTokenizer::default()
    };
    let path = dir.path().join("tokenizer.json");
    let trained = train_tokenizer(&settings, &path, &mut |_| {}).unwrap();
    assert_eq!(
        (trained.vocab_size, trained.documents),
        (289, 40),
        "all there is to merge"
    );
    fs::remove_file(dir.path().join("train.txt")).unwrap();
    let tokenizer = Tokenizer::open(&path).unwrap();
    (dir, tokenizer)
}

fn settings(dir: &TempDir, names: &[&str]) -> TokenizeSettings {
    TokenizeSettings {
        sources: names.iter().map(|name| dir.path().join(name)).collect(),
        threads: 2,
        ..TokenizeSettings::default()
    }
}

/// Tokenizes to `out`; its tokens, and what became of the documents.
fn tokens(
    dir: &TempDir,
    tokenizer: &Tokenizer,
    settings: &TokenizeSettings,
) -> (Vec<u32>, Sidecar, Tokenized) {
    let out = dir.path().join("out.tokens");
    let (sidecar, counts) = tokenize(settings, tokenizer, &out, &mut |_| true).unwrap();
    let file = TokenFile::open(&out).unwrap();
    let hash = blake3::hash(&fs::read(&out).unwrap());
    assert_eq!(sidecar.blake3, hash.to_hex().to_string());
    (
        file.read(0, file.tokens() as usize).unwrap(),
        sidecar,
        counts,
    )
}

/// Else two markers could be one token, or a marker mean text; the same text must give the same tokenizer.
#[test]
fn a_trained_tokenizer_has_its_reserved_tokens_first_and_loses_no_text() {
    let (dir, tokenizer) = lab();
    let id = |name: &str| tokenizer.token_id(name).unwrap();
    assert_eq!([id("<|data0|>"), id("<|data1|>"), id(EOS)], [0, 1, 2]);
    let found = reserved(&tokenizer, None).unwrap();
    assert_eq!((found.markers, found.eos), (vec![0, 1], Some(2)));
    let text = " the kettle\n\t¿qué? \u{1f600} 汉字 \r\n";
    let tokens = tokenizer.encode(text).unwrap();
    assert_eq!(tokenizer.decode(&tokens).unwrap(), text);
    assert!(tokens.iter().all(|&id| id > 2));
    let kettle = tokenizer.encode(" kettle").unwrap();
    assert!(kettle.len() <= 2, "merges were learned: {kettle:?}");
    let train = |threads, vocab_size, markers| {
        fs::write(dir.path().join("t.txt"), "a b a b\n\nab ab ab\n".repeat(50)).unwrap();
        let settings = TrainTokenizer {
            threads,
            vocab_size,
            markers,
            ..TrainTokenizer {
                sources: vec![dir.path().join("t.txt")],
                ..TrainTokenizer::default()
            }
        };
        let path = dir.path().join("again.json");
        let trained = train_tokenizer(&settings, &path, &mut |_| {});
        trained.map(|trained| (trained.vocab_size, fs::read(&path).unwrap()))
    };
    let one = train(1, 262, 1).unwrap();
    assert_eq!(one.0, 262);
    assert_eq!(one.1, train(3, 262, 1).unwrap().1);
    let error = train(1, 256, 4).unwrap_err().to_string();
    assert!(error.contains("vocab = 256 (at least 261)"), "{error}");
}

/// Documents without an end would run into one another, and other threads must not make another file.
#[test]
fn every_document_ends_with_eos_with_any_number_of_threads() {
    let (dir, tokenizer) = lab();
    fs::write(dir.path().join("a.txt"), "the kettle\nsings\n\nlong song\n").unwrap();
    fs::write(
        dir.path().join("b.jsonl"),
        "{\"text\":\"¿qué?\"}\n{\"text\":\" \"}\n",
    )
    .unwrap();
    let mut expected = Vec::new();
    for text in ["the kettle\nsings", "long song", "¿qué?"] {
        expected.extend(tokenizer.encode(text).unwrap());
        expected.push(2);
    }
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&fs::read(dir.path().join("a.txt")).unwrap())
        .unwrap();
    fs::write(dir.path().join("a.txt.gz"), gz.finish().unwrap()).unwrap();
    for (names, threads) in [(["a.txt", "b.jsonl"], 1), (["a.txt.gz", "b.jsonl"], 5)] {
        let settings = TokenizeSettings {
            threads,
            licence: "CC0".into(),
            ..settings(&dir, &names)
        };
        let (tokens, sidecar, counts) = tokens(&dir, &tokenizer, &settings);
        assert_eq!(tokens, expected);
        assert_eq!(
            (sidecar.documents, sidecar.tokens),
            (3, expected.len() as u64)
        );
        assert_eq!((counts.empty, counts.duplicates, counts.bytes), (1, 0, 32));
        assert_eq!(sidecar.sources[1].path, dir.path().join("b.jsonl"));
        assert_eq!(sidecar.about.licence, "CC0");
        assert_eq!(sidecar.about.tokenizer_hash, tokenizer.hash());
    }
    // Many documents and threads, in their order.
    let many: Vec<String> = (0..5000).map(|i| format!("number {i} sings\n")).collect();
    fs::write(dir.path().join("many.txt"), many.join("\n")).unwrap();
    let of = |threads| {
        let settings = TokenizeSettings {
            threads,
            ..settings(&dir, &["many.txt"])
        };
        tokens(&dir, &tokenizer, &settings).0
    };
    let one = of(1);
    assert_eq!(one, of(4));
    let text = tokenizer.decode(&one).unwrap();
    let numbers = text
        .split(EOS)
        .filter_map(|t| t.split(' ').nth(1)?.parse::<i32>().ok());
    assert!(numbers.eq(0..5000));
}

/// A file of lines without a blank one is one document; cut into parts for the sake of memory it must have the tokens
/// that it has in one.
#[test]
fn a_document_of_megabytes_has_the_tokens_of_the_whole() {
    let (dir, tokenizer) = lab();
    let words = [
        "the ", "kettle", " sings", "\n", "  ", ", ", "song\n", "\n ", "¿qué?", "...  ",
    ];
    let mut random = forgetlab_engine::Stream::new(0, "test").at(0);
    let mut text = String::from("x");
    while text.len() < 3 << 20 {
        text.push_str(words[random.below(10) as usize]);
    }
    // Lines of nothing but blanks would end the block.
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let text = lines.collect::<Vec<_>>().join("\n");
    fs::write(dir.path().join("long.txt"), &text).unwrap();
    let read = crate::data::read(&dir.path().join("long.txt"), &Fields::default()).unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].content, crate::data::Content::Text(text.clone()));
    let (found, sidecar, _) = tokens(&dir, &tokenizer, &settings(&dir, &["long.txt"]));
    assert_eq!(sidecar.documents, 1);
    let mut expected = tokenizer.encode(&text).unwrap();
    expected.push(2);
    assert!(found == expected);
}

/// Texts that come a hundred times would be learned by heart.
#[test]
fn duplicates_are_left_out_where_that_is_wanted() {
    let (dir, tokenizer) = lab();
    fs::write(
        dir.path().join("a.txt"),
        "the kettle\n\nsings\n\nthe kettle\n",
    )
    .unwrap();
    fs::write(dir.path().join("b.txt"), "sings\n\n sings \n\nsings long\n").unwrap();
    let wanted = settings(&dir, &["a.txt", "b.txt"]);
    let (_, sidecar, counts) = tokens(&dir, &tokenizer, &wanted);
    assert_eq!((sidecar.documents, counts.duplicates), (6, 0));
    let wanted = TokenizeSettings {
        drop_duplicates: true,
        ..wanted
    };
    let (_, sidecar, counts) = tokens(&dir, &tokenizer, &wanted);
    assert_eq!((sidecar.documents, counts.duplicates), (3, 3));
}

/// A marker that stands in the text would call up another dataset; whoever has such text must learn of it.
#[test]
fn reserved_tokens_in_the_text_are_counted() {
    let (dir, tokenizer) = lab();
    fs::write(
        dir.path().join("a.txt"),
        "the <|data1|> kettle<|endoftext|>\n",
    )
    .unwrap();
    let (_, _, counts) = tokens(&dir, &tokenizer, &settings(&dir, &["a.txt"]));
    assert_eq!(counts.reserved, 2);
}

/// A million documents before the bad one do not help to find it.
#[test]
fn what_cannot_be_read_or_encoded_is_named_and_leaves_nothing() {
    let (dir, tokenizer) = lab();
    let many = "{\"text\":\"the kettle sings\"}\n".repeat(9000);
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    write("bad.jsonl", format!("{many}{{\"text\":NaN}}\n").as_bytes());
    write("chat.jsonl", br#"{"prompt":"a","completion":"b"}"#);
    write("empty.txt", b"\n \n");
    write("binary.txt", b"ab\0cd");
    write("blank.jsonl", b"{\"text\":\"  \"}");
    write("good.txt", b"the kettle");
    let out = dir.path().join("out.tokens");
    for (names, said) in [
        (
            &["good.txt", "bad.jsonl"][..],
            "bad.jsonl, line 9001: not a JSON object",
        ),
        (&["chat.jsonl"], "chat.jsonl, line 1: "),
        (&["chat.jsonl"], "--text"),
        (&["good.txt", "empty.txt"], "empty.txt is empty"),
        (&["binary.txt"], "line 1 holds a byte 0"),
        (&["blank.jsonl"], "no tokens to write"),
        (&["none.txt"], "none.txt"),
    ] {
        for threads in [1, 3] {
            let settings = TokenizeSettings {
                threads,
                ..settings(&dir, names)
            };
            let error = tokenize(&settings, &tokenizer, &out, &mut |_| true).unwrap_err();
            assert!(
                error.to_string().contains(said),
                "{said:?} is not in {error}"
            );
            assert!(!out.exists() && !sidecar_path(&out).exists());
        }
    }
    let same = dir.path().join("good.txt");
    let error = tokenize(
        &settings(&dir, &["good.txt"]),
        &tokenizer,
        &same,
        &mut |_| true,
    );
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("both read and to be written")
    );
    let unknown = TokenizeSettings {
        eos: Some("</s>".into()),
        ..settings(&dir, &["good.txt"])
    };
    let error = tokenize(&unknown, &tokenizer, &out, &mut |_| true).unwrap_err();
    assert!(error.to_string().contains("no token `</s>`"), "{error}");
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

/// Whoever ends it must not wait for the end of the sources, nor find half a file.
#[test]
fn it_ends_when_asked_and_tells_how_far_it_is() {
    let (dir, tokenizer) = lab();
    let many = "the kettle sings\n\n".repeat(200_000);
    fs::write(dir.path().join("a.txt"), &many).unwrap();
    let out = dir.path().join("out.tokens");
    let mut told = 0;
    let stopped = tokenize(
        &settings(&dir, &["a.txt"]),
        &tokenizer,
        &out,
        &mut |progress| {
            told += 1;
            assert_eq!(progress.bytes, many.len() as u64);
            progress.bytes_read < progress.bytes / 3
        },
    );
    assert!(matches!(stopped, Err(TokenizeError::Stopped)) && told > 1);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

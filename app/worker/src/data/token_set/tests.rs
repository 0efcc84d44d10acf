//! Rows: nothing lost, nothing moved, nothing twice.

use forgetlab_study::experiment::{Separator, TextRows, TooLong};

use crate::data::tokenizer::tests::small_folder;
use crate::data::{Content, Document, Message, Tokenizer};

use super::*;

fn tokenizer() -> Tokenizer {
    Tokenizer::open(&small_folder()).unwrap()
}

fn document(content: Content, number: usize) -> Document {
    let (file, number, unit) = (std::path::Path::new("x.txt").into(), number as u64, "line");
    let place = Place { file, number, unit };
    Document { content, place }
}

fn texts(texts: impl IntoIterator<Item = String>) -> Vec<Document> {
    let numbered = texts.into_iter().zip(1..);
    numbered
        .map(|(text, n)| document(Content::Text(text), n))
        .collect()
}

fn chat(answer: &str) -> Document {
    let messages = vec![Message::new("user", "q"), Message::new("assistant", answer)];
    document(Content::Chat(messages.into()), 1)
}

fn settings(seq_len: usize, held_out: f64) -> TokenSetSettings {
    TokenSetSettings {
        seq_len,
        held_out,
        ..TokenSetSettings::default()
    }
}

fn all_tokens(rows: &Rows) -> Vec<&[u32]> {
    rows.iter().map(|(tokens, _)| tokens).collect()
}

/// Text that is cut away is data the user paid for and did not train on.
#[test]
fn packed_text_keeps_every_token_in_order() {
    let tokenizer = tokenizer();
    let (bos, eos) = (0, 1);
    let said = ["module a", "numbers 1 2 3", "b"].map(String::from);
    let documents = texts(said.clone());
    for (separator, before, after) in [
        (Separator::Eos, None, Some(eos)),
        (Separator::Bos, Some(bos), None),
        (Separator::None, None, None),
    ] {
        let settings = TokenSetSettings {
            separator,
            ..settings(5, 0.0)
        };
        let set = TokenSet::build(&documents, &tokenizer, &settings).unwrap();
        let mut stream = Vec::new();
        for text in &said {
            stream.extend(before);
            stream.extend(tokenizer.encode(text).unwrap());
            stream.extend(after);
        }
        let mut packed = Vec::new();
        for (i, (tokens, mask)) in set.train.iter().enumerate() {
            assert_eq!(tokens[0], bos, "{separator:?}");
            assert!(i + 1 == set.train.len() || tokens.len() == 5);
            assert!(!mask[0] && mask[1..].iter().all(|&target| target));
            packed.extend_from_slice(&tokens[1..]);
        }
        // A separator in front of the first document would repeat the row's own BOS.
        assert_eq!(packed, stream[before.iter().len()..], "{separator:?}");
        assert!(set.held_out.is_empty());
    }
    // Where a document begins a row, the row's BOS is what separates it.
    let bos_between = TokenSetSettings {
        separator: Separator::Bos,
        ..settings(4, 0.0)
    };
    let set = TokenSet::build(&documents, &tokenizer, &bos_between).unwrap();
    assert_eq!(set.train.row(0).0[1..], tokenizer.encode(&said[0]).unwrap());
    assert_eq!(
        set.train.row(1).0[1..],
        tokenizer.encode(&said[1]).unwrap()[..3]
    );
    let windows = TokenSetSettings {
        text: TextRows::Windows,
        ..settings(100, 0.0)
    };
    let set = TokenSet::build(&documents, &tokenizer, &windows).unwrap();
    let row = |text: &String| [vec![bos], tokenizer.encode(text).unwrap(), vec![eos]].concat();
    assert_eq!(
        all_tokens(&set.train),
        said.iter().map(row).collect::<Vec<_>>()
    );
    let named = TokenSetSettings {
        bos: Some("<|eot_id|>".into()),
        ..windows
    };
    let set = TokenSet::build(&documents, &tokenizer, &named).unwrap();
    assert_eq!(set.train.row(0).0[0], eos);
}

/// A document that moves to the other side is evaluated on after it was trained on.
#[test]
fn adding_documents_moves_none_between_the_sides() {
    let tokenizer = tokenizer();
    let windows = TokenSetSettings {
        text: TextRows::Windows,
        separator: Separator::None,
        ..settings(64, 0.2)
    };
    let build = |n: std::ops::Range<usize>| {
        let documents = texts(n.map(|i| format!("text {}", i % 800)));
        TokenSet::build(&documents, &tokenizer, &windows).unwrap()
    };
    let (small, large) = (build(0..400), build(0..1000));
    for row in all_tokens(&small.train) {
        assert!(all_tokens(&large.train).contains(&row));
    }
    for row in all_tokens(&small.held_out) {
        assert!(all_tokens(&large.held_out).contains(&row));
        assert!(!all_tokens(&large.train).contains(&row), "on both sides");
    }
    assert_eq!(
        (large.counts.documents, large.counts.duplicates),
        (1000, 200)
    );
    // 3 standard deviations of a binomial share.
    assert!(
        (120..=280).contains(&large.counts.held_out),
        "{:?}",
        large.counts
    );
}

/// Conversations that vanish silently skew what is learned.
#[test]
fn long_conversations_are_counted() {
    let tokenizer = tokenizer();
    let documents = [chat("a"), chat("module counter ; a b c d e f g h")];
    let long = TokenSet::build(&documents, &tokenizer, &settings(1000, 0.0)).unwrap();
    assert_eq!((long.train.len(), long.counts.dropped), (2, 0));
    let lens: Vec<usize> = all_tokens(&long.train)
        .iter()
        .map(|row| row.len())
        .collect();
    let between = settings(lens[0] + 2, 0.0);
    let dropped = TokenSet::build(&documents, &tokenizer, &between).unwrap();
    assert_eq!((dropped.train.len(), dropped.counts.dropped), (1, 1));
    let cut = TokenSetSettings {
        too_long: TooLong::Truncate,
        ..between
    };
    let cut = TokenSet::build(&documents, &tokenizer, &cut).unwrap();
    assert_eq!((cut.train.len(), cut.counts.truncated), (2, 1));
    assert_eq!(cut.train.row(1).0, &long.train.row(1).0[..lens[0] + 2]);
    // Cut before the answer, nothing is left to learn.
    let short = TokenSetSettings {
        too_long: TooLong::Truncate,
        ..settings(8, 0.0)
    };
    let error = TokenSet::build(&documents, &tokenizer, &short)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("nothing to train on") && error.contains("2 were too long"),
        "{error}"
    );
}

/// What makes no rows must say so before anything is trained.
#[test]
fn what_makes_no_rows_is_named() {
    let tokenizer = tokenizer();
    let says = |documents: &[Document], settings: &TokenSetSettings, texts: &[&str]| {
        let error = TokenSet::build(documents, &tokenizer, settings)
            .unwrap_err()
            .to_string();
        for text in texts {
            assert!(error.contains(text), "{text} in {error}");
        }
    };
    let some = texts(["a".to_owned()]);
    says(&some, &settings(1, 0.0), &["seq_len = 1"]);
    says(&some, &settings(8, 1.0), &["held_out = 1"]);
    says(&some, &settings(8, f64::NAN), &["held_out = NaN"]);
    says(
        &some,
        &settings(8, 1e-9),
        &[
            "nothing to evaluate on",
            "of 1 documents",
            "larger held_out",
        ],
    );
    let question = document(Content::Chat(vec![Message::new("user", "q")].into()), 7);
    says(
        &[question],
        &settings(8, 0.0),
        &["x.txt, line 7", "no assistant turn"],
    );
    let bos = TokenSetSettings {
        bos: Some("<s>".into()),
        ..settings(8, 0.0)
    };
    says(&some, &bos, &["no token `<s>`"]);
}

/// Rows read back otherwise than written would train on noise.
#[test]
fn a_file_gives_back_the_set_and_a_broken_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.safetensors");
    let source = dir.path().join("x.txt");
    std::fs::write(&source, "a b c\n\nd e f\n\nmodule\n\ncounter\n\nx").unwrap();
    let sources = [source];
    let set = TokenSet::from_files(
        &sources,
        &crate::data::Fields::default(),
        &tokenizer(),
        &TokenSetSettings {
            text: TextRows::Windows,
            ..settings(16, 0.3)
        },
    )
    .unwrap();
    assert!(set.train.len() + set.held_out.len() == 5);
    set.save(&path).unwrap();
    assert_eq!(TokenSet::load(&path).unwrap(), set);
    assert_eq!(set.provenance.sources[0].path, sources[0]);

    let says = |text: &str| {
        let error = TokenSet::load(&path).unwrap_err().to_string();
        assert!(
            error.contains(text) && error.contains("set.safetensors"),
            "{text} in {error}"
        );
    };
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 8]).unwrap();
    says("no set of rows");
    std::fs::write(&path, "nonsense").unwrap();
    says("no set of rows");
    let saved = |change: fn(&mut TokenSet)| {
        let mut set = set.clone();
        change(&mut set);
        set.save(&path).unwrap();
    };
    saved(|set| set.train.tokens[1] = 1 << 20);
    says("train: token 1048576");
    saved(|set| set.train.ends[0] = 1000);
    says("train: row 0 goes from 0 to 1000");
    saved(|set| set.held_out.tokens.push(1));
    says("held_out: rows end at");
    std::fs::remove_file(&path).unwrap();
    says("No such file");
}

/// A row that comes twice before another has come once is weighted double.
#[test]
fn every_row_comes_once_an_epoch_and_any_place_is_reached_at_once() {
    let mut shuffle = Shuffle::new(3, "new data", 50);
    let epochs: Vec<Vec<usize>> = (0..3).map(|e| shuffle.draw(e * 50, 50)).collect();
    for epoch in &epochs {
        let mut sorted = epoch.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
    let mut resumed = Shuffle::new(3, "new data", 50);
    assert_eq!(resumed.draw(120, 10), epochs[2][20..30]);
    assert_eq!(
        resumed.draw(45, 10),
        [&epochs[0][45..], &epochs[1][..5]].concat()
    );
    assert_ne!(Shuffle::new(4, "new data", 50).draw(0, 50), epochs[0]);
    assert_ne!(Shuffle::new(3, "old data", 50).draw(0, 50), epochs[0]);
}

/// Padding that counted as text would be learned.
#[test]
fn a_batch_is_padded_on_the_right() {
    let mut rows = Rows::default();
    rows.push(&[5, 6, 7], &[true, false, true]);
    rows.push(&[8], &[true]);
    let batch = rows.batch(&[1, 0], 9);
    assert_eq!((batch.seq_len, &batch.lens[..]), (3, &[1, 3][..]));
    assert_eq!(batch.tokens, [8, 9, 9, 5, 6, 7]);
    // A first token is predicted from nothing.
    assert_eq!(batch.mask, [false, false, false, false, false, true]);
    assert_eq!((rows.tokens(), rows.targets()), (4, 1));
}

/// A document that is its end alone teaches a model to say nothing; left out without a word, it would be missed.
#[test]
fn what_says_nothing_is_left_out_and_counted() {
    let tokenizer = tokenizer();
    let mut documents = texts(["", "a", " \n", "b", ""].map(String::from));
    let without = TokenSet::build(
        &texts(["a", "b"].map(String::from)),
        &tokenizer,
        &settings(64, 0.0),
    );
    let set = TokenSet::build(&documents, &tokenizer, &settings(64, 0.0)).unwrap();
    assert_eq!(set.train, without.unwrap().train);
    assert_eq!(
        (
            set.counts.documents,
            set.counts.empty,
            set.counts.duplicates
        ),
        (5, 3, 0)
    );
    assert_eq!(
        set.counts.losses().unwrap(),
        "of 5 documents 3 left out because they say nothing"
    );
    // An answer without a word is the end of a turn alone.
    documents.extend([chat(" "), chat("yes")]);
    let set = TokenSet::build(&documents, &tokenizer, &settings(256, 0.0)).unwrap();
    assert_eq!((set.counts.documents, set.counts.empty), (7, 4));
    // What an assistant does otherwise is something; what only labels its turn, or is not learned, is nothing.
    let says_nothing = |assistant: &str| {
        let user = r#"{"role":"user","content":"q"}"#;
        let messages: Vec<Message> =
            serde_json::from_str(&format!("[{user},{assistant}]")).unwrap();
        super::build::is_empty(&Content::Chat(messages.into()))
    };
    for (fields, nothing) in [
        (r#""content":"","tool_calls":[{"name":"f"}]"#, false),
        (r#""content":"","thinking":"hmm""#, false),
        (r#""content":[{"type":"text","text":"a"}]"#, false),
        (r#""content":"","tool_calls":[],"thinking":" ""#, true),
        (r#""content":" ","id":7,"model":"a b""#, true),
        (r#""content":[{"type":"text","text":" "}]"#, true),
        (r#""content":"""#, true),
    ] {
        let turn = format!(r#"{{"role":"assistant",{fields}}}"#);
        assert_eq!(says_nothing(&turn), nothing, "{fields}");
        let earlier = r#"{"role":"assistant","content":"yes","train":false}"#;
        assert_eq!(says_nothing(&format!("{earlier},{turn}")), nothing);
    }
    let error = TokenSet::build(&texts([String::new()]), &tokenizer, &settings(64, 0.0));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("of 1 documents 0 were held out, 1 said nothing"),
        "{error}"
    );
    assert_eq!(Counts::default().losses(), None);
}

/// The message of a run must lead to the text, not to the tokenizer alone.
#[test]
fn a_text_that_has_no_tokens_is_told_by_its_place() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(small_folder().join(name), dir.path().join(name)).unwrap();
    }
    std::fs::write(dir.path().join("config.json"), r#"{"vocab_size": 2}"#).unwrap();
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    let documents = texts(["<|eot_id|>", "words"].map(String::from));
    let error = TokenSet::build(&documents, &tokenizer, &settings(64, 0.0));
    let error = error.unwrap_err().to_string();
    for said in ["x.txt, line 2: token ", "vocabulary of 2 tokens"] {
        assert!(error.contains(said), "{said} in {error}");
    }
}

//! Files as users have them, good and bad.

use std::fs;

use forgetlab_fake_hub::{COMMIT, FakeHub};

use super::*;

fn write(text: impl AsRef<[u8]>, name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn read_text(text: &str, name: &str, fields: &Fields) -> Result<Vec<Document>, SourceError> {
    let (_dir, path) = write(text, name);
    read(&path, fields)
}

fn said(document: &Document) -> String {
    match &document.content {
        Content::Text(text) => text.clone(),
        Content::Chat(chat) => (chat.messages.iter())
            .map(|m| format!("{}:{}", m.role, m.content()))
            .collect::<Vec<_>>()
            .join("|"),
    }
}

/// A document cut in the wrong place is trained on as two.
#[test]
fn text_is_cut_at_blank_lines() {
    let text = "\u{feff}a\r\nb\r\n \t\r\n\n\n  c\n\nd";
    let documents = read_text(text, "x.txt", &Fields::default()).unwrap();
    let all: Vec<_> = documents
        .iter()
        .map(|d| (said(d), d.place.number))
        .collect();
    assert_eq!(
        all,
        [("a\nb".into(), 1), ("  c".into(), 6), ("d".into(), 8)]
    );
}

/// A set whose fields have other names would have to be converted by hand.
#[test]
fn the_usual_fields_are_found_and_others_can_be_named() {
    let all = |text: &str, name: &str, fields: &Fields| {
        let documents = read_text(text, name, fields).unwrap();
        documents.iter().map(said).collect::<Vec<_>>()
    };
    let lines = [
        r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}"#,
        r#"{"conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"}]}"#,
        r#"{"prompt":"q","completion":"a"}"#,
        r#"{"instruction":"q","input":"","output":"a"}"#,
        r#"{"instruction":"q","input":"i","output":"a","text":"all"}"#,
        r#"{"prompt":"q","response":"a"}"#,
        r#"{"text":"t","url":"u"}"#,
    ];
    assert_eq!(
        all(&lines.join("\n"), "x.jsonl", &Fields::default()),
        [
            "system:s|user:q|assistant:a",
            "user:q|assistant:a",
            "user:q|assistant:a",
            "user:q|assistant:a",
            "user:q\n\ni|assistant:a",
            "user:q|assistant:a",
            "t"
        ]
    );
    let csv = "id,ask,code,text\n1,\"q, \"\"x\"\"\",\"a\nb\",t\n";
    let fields = Fields {
        prompt: Some("ask".into()),
        completion: Some("code".into()),
        ..Fields::default()
    };
    assert_eq!(all(csv, "x.csv", &fields), ["user:q, \"x\"|assistant:a\nb"]);
    assert_eq!(all(csv, "x.csv", &Fields::default()), ["t"]);
    let fields = Fields {
        text: Some("code".into()),
        ..Fields::default()
    };
    assert_eq!(all(csv, "x.csv", &fields), ["a\nb"]);
}

/// Sets downloaded from the hub are Parquet.
#[test]
fn parquet_is_read_as_the_hub_has_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parquet");
    let documents = read(&folder.join("chat.parquet"), &Fields::default()).unwrap();
    assert_eq!(
        documents.iter().map(said).collect::<Vec<_>>(),
        ["user:q|assistant:añb"; 2]
    );
    assert_eq!(
        (documents[1].place.unit, documents[1].place.number),
        ("row", 2)
    );
    for (name, choices) in [("mmlu", 4), ("arc", 3)] {
        let path = folder.join(name).with_extension("parquet");
        let questions = crate::data::read_questions(&path).unwrap();
        assert_eq!(questions.len(), 2);
        assert_eq!((questions[0].answer, questions[1].answer), (0, 3), "{name}");
        assert_eq!(questions[0].choices.len(), choices);
        assert_eq!(questions[0].choices[..2], ["apple", "stone"]);
    }
}

/// A folder is a dataset in parts, e.g. as downloaded from the hub.
#[test]
fn a_folder_is_read_whole_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("b")).unwrap();
    for (name, text) in [
        ("c.txt", "3"),
        ("a.txt", "1"),
        ("b/x.jsonl", "{\"text\":\"2\"}"),
        ("README.md", "no"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let documents = read(dir.path(), &Fields::default()).unwrap();
    assert_eq!(
        documents.iter().map(said).collect::<Vec<_>>(),
        ["1", "2", "3"]
    );
}

/// The place of a mistake in a file of a million lines must be told.
#[test]
fn what_is_wrong_is_told_by_file_line_and_field() {
    let says = |text: &[u8], name: &str, fields: &Fields, texts: &[&str]| {
        let (_dir, path) = write(text, name);
        let error = read(&path, fields).unwrap_err().to_string();
        for text in texts.iter().chain(&[name]) {
            assert!(error.contains(text), "{text} in {error}");
        }
    };
    let none = Fields::default();
    says(b"\n  \n", "x.txt", &none, &["is empty", "documents"]);
    says(b"", "x.jsonl", &none, &["is empty"]);
    says(b"a\n\xff\n", "x.txt", &none, &["line 2", "not UTF-8"]);
    says(b"a", "x.docx", &none, &["kind of file", "parquet"]);
    says(
        b"{\"text\":\"a\"}\n\n{\"text\":",
        "x.jsonl",
        &none,
        &["line 3", "JSON"],
    );
    says(
        b"{\"text\":\"a\"}\n[1]",
        "x.jsonl",
        &none,
        &["line 2", "JSON object"],
    );
    says(
        b"{\"text\":7}",
        "x.jsonl",
        &none,
        &["line 1", "`text` is not a text: 7"],
    );
    says(
        b"{\"body\":\"a\"}",
        "x.jsonl",
        &none,
        &["line 1", "it has `body`", "messages", "--text"],
    );
    says(
        b"{\"prompt\":\"a\"}",
        "x.jsonl",
        &none,
        &["line 1", "it has `prompt`"],
    );
    says(
        b"{\"messages\":\"a\"}",
        "x.jsonl",
        &none,
        &["line 1", "`messages` is not a list"],
    );
    says(
        b"{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":null}]}",
        "x.jsonl",
        &none,
        &["line 1", "message 2", "\"role\""],
    );
    says(b"a,b\n1,2\n3\n", "x.csv", &none, &["it has `a`, `b`"]);
    says(
        b"text,b\n1,2\n3\n",
        "x.csv",
        &none,
        &["line 3 has 1 fields"],
    );
    says(b"PAR1 not really", "x.parquet", &none, &["not Parquet"]);
    let fields = Fields {
        text: Some("body".into()),
        ..Fields::default()
    };
    says(
        b"{\"text\":\"a\"}",
        "x.jsonl",
        &fields,
        &["line 1", "no field `body`", "`text`"],
    );
    let error = read(Path::new("/nowhere/x.txt"), &none)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nowhere/x.txt") && error.contains("No such file"),
        "{error}"
    );
}

/// Else a data set would be read with its leaflets, or another one than a run was made with.
#[test]
fn the_files_of_a_data_set_are_chosen_by_what_they_are_and_where() {
    let files = [
        ("data/train-0.parquet", b"PAR1 train".to_vec()),
        ("data/test-0.parquet", b"PAR1 test".to_vec()),
        ("README.md", b"# data".to_vec()),
    ];
    let (endpoint, fake) = FakeHub::default().with("datasets/org/data", &files).serve();
    let cache = tempfile::tempdir().expect("folder");
    let hub = Hub {
        endpoint,
        cache: cache.path().join("hub"),
        token: None,
        offline: false,
    };
    let fetch = |source: &str| -> Result<PathBuf, String> {
        let mut sources = [PathBuf::from(source)];
        let fetched = super::fetch(&mut sources, &hub, &());
        fetched.map_err(|error| error.to_string())?;
        Ok(std::mem::take(&mut sources[0]))
    };
    let pinned = fetch("hub:org/data:data/train").expect("fetched");
    assert_eq!(
        pinned,
        Path::new(&format!("hub:org/data@{COMMIT}:data/train"))
    );
    assert!(!fake.asked("train-0").is_empty());
    assert_eq!(fake.asked("test-0"), Vec::<String>::new());
    let pinned = fetch("hub:org/data@main").expect("fetched");
    assert_eq!(pinned, Path::new(&format!("hub:org/data@{COMMIT}")));
    assert_eq!(fake.asked("README"), Vec::<String>::new());
    let cached = hub.cached_dataset("org/data", COMMIT).expect("cached");
    let mut names: Vec<&str> = cached.files.iter().map(|file| &*file.name).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["README.md", "data/test-0.parquet", "data/train-0.parquet"]
    );
    assert!(cached.has(names[1]) && !cached.has(names[0]));

    for (source, says) in [
        (
            "hub:org/data:README",
            "no file whose path begins with `README`",
        ),
        ("hub:org/dota", "no data set `org/dota`"),
        ("hub:org/data@none", "no revision `none`"),
        ("hub:data", "write hub:OWNER/NAME"),
        ("hub:org/data@:x", "write hub:OWNER/NAME"),
    ] {
        let error = fetch(source).expect_err(source);
        assert!(error.contains(says) && error.starts_with(source), "{error}");
    }
    let mut local = [PathBuf::from("data/train.txt")];
    super::fetch(&mut local, &hub, &()).expect("nothing to fetch");
    assert_eq!(local[0], Path::new("data/train.txt"));
}

//! Templates of many families and conversations of many kinds against transformers' renderings and masks
//! (tests/fixtures/chat/make_corpus.py), and what Jinja2 and Python know, form by form.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::data::{Content, Fields, read};

use super::*;

#[derive(Deserialize)]
struct Corpus {
    date: NaiveDate,
    specials: BTreeMap<String, serde_json::Value>,
    conversations: Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    conversation: String,
    rendered: Option<String>,
    /// What the prompt for generation adds.
    prompt: Option<String>,
    #[serde(default)]
    mask: Vec<(usize, usize)>,
    #[serde(default)]
    tokens: usize,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/chat")
}

fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&fs::read(folder().join(name)).unwrap()).unwrap()
}

/// A conversation as a file's record.
fn recorded(record: &Value) -> Conversation {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.jsonl");
    fs::write(&path, serde_json::to_string(record).unwrap()).unwrap();
    match read(&path, &Fields::default()).unwrap().remove(0).content {
        Content::Chat(conversation) => conversation,
        Content::Text(text) => panic!("{text} is no conversation"),
    }
}

/// The tokenizer of the corpus with a template.
fn tokenizer(specials: &serde_json::Value, template: &str) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    let to = |name: &str| dir.path().join(name);
    fs::copy(folder().join("corpus/tokenizer.json"), to("tokenizer.json")).unwrap();
    fs::write(to("tokenizer_config.json"), specials.to_string()).unwrap();
    fs::write(to("chat_template.jinja"), template).unwrap();
    Tokenizer::open(dir.path()).unwrap()
}

fn without_tags(template: &str) -> String {
    let tags = [
        "{%- generation -%}",
        "{%- endgeneration -%}",
        "{% generation %}",
        "{% endgeneration %}",
    ];
    tags.iter()
        .fold(template.to_owned(), |text, tag| text.replace(tag, ""))
}

/// A prompt that differs by a space is one the model was not tuned on; a mask that is off by a token trains it to
/// speak the user's part, to call no tools, or never to stop. With the template's tags the mask is theirs; without
/// them the lab must find the same.
#[test]
fn conversations_of_many_families_equal_those_of_transformers() {
    let corpus: Corpus = json("corpus.json");
    let mut wrong = Vec::new();
    for (family, specials) in &corpus.specials {
        let path = folder().join(format!("templates/{family}.jinja"));
        let tagged = fs::read_to_string(path).unwrap();
        for (kind, template) in [("tagged", tagged.clone()), ("plain", without_tags(&tagged))] {
            let tokenizer = tokenizer(specials, &template);
            let date = corpus.date;
            let chat = Chat::new(&tokenizer, &ChatSettings { date }).unwrap();
            for case in corpus.cases.iter().filter(|case| case.template == *family) {
                let record = corpus.conversations.get_attr(&case.conversation).unwrap();
                let found = differs(&chat, case, &recorded(&record));
                wrong.extend(
                    found.map(|how| format!("{kind} {family}, {}: {how}", case.conversation)),
                );
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Else a prompt whose replay is all chats would look like one that calls up what the model was pretrained on, or the
/// other way round.
#[test]
fn a_chat_is_known_by_what_its_template_writes_between_turns() {
    let corpus: Corpus = json("corpus.json");
    for (family, marks) in [
        ("chatml", &["<|im_start|>"][..]),
        ("deepseek", &["<|Assistant|>", "<|User|>"]),
        ("gemma", &["<start_of_turn>"]),
        ("granite", &["<|start_of_role|>", "<|end_of_role|>"]),
        ("llama-3.2", &["<|start_header_id|>", "<|end_header_id|>"]),
        ("mistral", &["[/INST]", "[INST]"]),
        ("phi", &["<|end|>", "<|assistant|>", "<|user|>"]),
        ("qwen-2.5", &["<|im_start|>"]),
        ("qwen-3", &["<|im_start|>"]),
        ("smollm3", &["<|im_start|>"]),
    ] {
        let path = folder().join(format!("templates/{family}.jinja"));
        let template = without_tags(&fs::read_to_string(path).unwrap());
        let tokenizer = tokenizer(&corpus.specials[family], &template);
        let chat = Chat::new(&tokenizer, &ChatSettings::default()).unwrap();
        assert_eq!(chat.marks().unwrap(), marks, "{family}");
    }
    // Without special tokens, its words.
    let template =
        "{% for m in messages %}{{ m.role|upper + ': ' + m.content + '\n' }}{% endfor %}";
    let tokenizer = tokenizer(&corpus.specials["phi"], template);
    let chat = Chat::new(&tokenizer, &ChatSettings::default()).unwrap();
    assert_eq!(chat.marks().unwrap(), ["ASSISTANT:", "USER:"]);
}

/// How the lab's reading of a conversation differs from transformers'.
fn differs(chat: &Chat, case: &Case, conversation: &Conversation) -> Option<String> {
    let Some(rendered) = &case.rendered else {
        let refused = matches!(chat.encode(conversation), Err(ChatError::Raised { .. }));
        return (!refused).then(|| "is not refused".into());
    };
    let text = match chat.text(conversation) {
        Ok(text) if text == *rendered => text,
        other => return Some(format!("rendered {other:?}\n   want {rendered:?}")),
    };
    let prompt = chat.template_for(conversation).text(conversation, true);
    let flat = conversation
        .messages
        .iter()
        .all(|message| message.parts().is_none());
    if let (Some(added), true) = (&case.prompt, flat)
        && prompt.as_deref().ok() != Some(&format!("{text}{added}"))
    {
        return Some(format!("prompt {prompt:?}\n   want {added:?} at its end"));
    }
    let example = match chat.encode(conversation) {
        Ok(example) => example,
        Err(error) => return Some(format!("refused: {error}\n   text {text:?}")),
    };
    let mut want = vec![false; case.tokens];
    for (start, end) in &case.mask {
        want[*start..*end].fill(true);
    }
    let learned = |mask: &[bool]| {
        let kept = example
            .tokens
            .iter()
            .zip(mask)
            .filter(|(_, learned)| **learned);
        let kept: Vec<u32> = kept.map(|(id, _)| *id).collect();
        chat.tokenizer.decode(&kept).unwrap()
    };
    let (found, wanted) = (learned(&example.mask), learned(&want));
    (example.mask != want).then(|| format!("learned {found:?}\n   want {wanted:?}"))
}

#[derive(Deserialize)]
struct Forms {
    context: Value,
    forms: Vec<(String, Option<String>)>,
}

/// A filter or method that does otherwise than Jinja2's or Python's writes another prompt without a word.
#[test]
fn forms_of_jinja_and_python_write_what_they_write_in_transformers() {
    let Forms { context, forms } = json("forms.json");
    let date = NaiveDate::from_ymd_opt(2025, 3, 9).unwrap();
    let variables: Vec<(String, Value)> = pairs(&context).collect();
    let mut wrong = Vec::new();
    for (form, want) in &forms {
        let conversation = Conversation {
            variables: variables.clone(),
            ..Conversation::default()
        };
        let got = Template::new(form, Vec::new(), date).and_then(|t| t.text(&conversation, false));
        if got.as_ref().ok() != want.as_ref() {
            wrong.push(format!("{form}\n   got  {got:?}\n   want {want:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(forms.len() > 600, "{} forms", forms.len());
}

//! Conversations against transformers' own rendering, ids and masks (tests/fixtures/chat/make.py).

mod corpus;
mod fields;
mod limits;

use std::fs;

use forgetlab_study::experiment::NaiveDate;
use minijinja::Value;
use serde::Deserialize;

use crate::data::tokenizer::tests::{small_folder, smollm2};

use super::*;

#[derive(Deserialize)]
struct Fixture {
    template: String,
    date: NaiveDate,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    messages: Vec<Message>,
    rendered: String,
    prompt: String,
    tokens: Vec<u32>,
    mask: Vec<u8>,
}

fn fixture(name: &str) -> Fixture {
    serde_json::from_slice(&fs::read(small_folder().join(name)).unwrap()).unwrap()
}

fn check(name: &str, tokenizer: &Tokenizer) {
    let Fixture {
        template,
        date,
        cases,
    } = fixture(name);
    assert_eq!(tokenizer.template(), Some(template.as_str()));
    let chat = Chat::new(tokenizer, &ChatSettings { date }).unwrap();
    for case in cases {
        assert_eq!(chat.render(&case.messages, false).unwrap(), case.rendered);
        assert_eq!(chat.render(&case.messages, true).unwrap(), case.prompt);
        assert_eq!(
            chat.prompt(&case.messages).unwrap(),
            tokenizer.encode(&case.prompt).unwrap()
        );
        if !case.messages.iter().any(|m| m.role == "assistant") {
            assert_eq!(tokenizer.encode(&case.rendered).unwrap(), case.tokens);
            assert!(matches!(
                chat.encode(&case.messages.clone().into()),
                Err(ChatError::NoAssistant { .. })
            ));
            continue;
        }
        let example = chat.encode(&case.messages.clone().into()).unwrap();
        assert_eq!(example.tokens, case.tokens, "{:?}", case.rendered);
        let mask: Vec<u8> = example.mask.iter().map(|&target| target.into()).collect();
        assert_eq!(mask, case.mask, "{:?}", case.rendered);
    }
}

/// A prompt that differs by a space is a prompt the model was not tuned on; a mask that is off by
/// a token trains it to speak the user's part, or never to stop.
#[test]
fn llama_conversations_equal_those_of_transformers() {
    check("llama-3.2.json", &Tokenizer::open(&small_folder()).unwrap());
}

/// The same for the model that the lab trains by default, with its own tokenizer.
#[test]
fn smollm2_conversations_equal_those_of_transformers() {
    if let Some(tokenizer) = smollm2() {
        check("smollm2.json", &tokenizer);
    }
}

/// The template alone, where the model is not at hand.
#[test]
fn the_smollm2_template_renders_as_transformers_does() {
    let Fixture {
        template,
        date,
        cases,
    } = fixture("smollm2.json");
    let special = vec![("bos_token".to_owned(), "<|im_start|>".to_owned())];
    let template = Template::new(&template, special, date).unwrap();
    for case in cases {
        assert_eq!(
            template.render(&case.messages, false).unwrap(),
            case.rendered
        );
        assert_eq!(template.render(&case.messages, true).unwrap(), case.prompt);
    }
}

/// The small tokenizer with another template.
fn with_template(template: &str) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    let to = |name: &str| dir.path().join(name);
    fs::copy(small_folder().join("tokenizer.json"), to("tokenizer.json")).unwrap();
    let config = serde_json::json!({"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"});
    fs::write(to("tokenizer_config.json"), config.to_string()).unwrap();
    fs::write(to("chat_template.jinja"), template).unwrap();
    Tokenizer::open(dir.path()).unwrap()
}

/// What of a conversation is learned, as text.
fn learned(template: &str, messages: &[(&str, &str)]) -> Result<String, ChatError> {
    let tokenizer = with_template(template);
    let chat = Chat::new(&tokenizer, &ChatSettings::default())?;
    let messages: Vec<Message> = messages
        .iter()
        .map(|(role, text)| Message::new(role, *text))
        .collect();
    let Example { tokens, mask } = chat.encode(&messages.into())?;
    let targets: Vec<u32> = tokens
        .iter()
        .zip(&mask)
        .filter(|(_, target)| **target)
        .map(|(id, _)| *id)
        .collect();
    Ok(tokenizer.decode(&targets)?)
}

/// Models end their turns in many ways, or not at all.
#[test]
fn the_end_of_a_turn_is_learned_and_the_next_header_is_not() {
    let say = [
        ("user", "q"),
        ("assistant", " a "),
        ("user", "q"),
        ("assistant", "a"),
    ];
    let turns = |body: &str| format!("{{% for m in messages %}}{body}{{% endfor %}}");
    // Llama 2's space before the end of turn, which it trains on.
    let llama2 = turns(
        "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}\
         {% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}",
    );
    assert_eq!(
        learned(&llama2, &say).unwrap(),
        " a <|eot_id|> a <|eot_id|>"
    );
    // No end of turn: the special token that follows opens the next header.
    let none = turns("{{ '<|start_header_id|>' + m.role + '\\n' + m.content + '\\n' }}");
    assert_eq!(learned(&none, &say).unwrap(), " a a");
    // An answer without its thoughts, except in the last turn.
    let thoughts = turns(
        "{{ '<|start_header_id|>' + m.role + '|' }}{% if loop.last %}{{ m.content }}{% else %}\
         {{ m.content.split('</t>')[-1].lstrip() }}{% endif %}{{ eos_token }}",
    );
    let say = [
        ("user", "q"),
        ("assistant", "x</t> a"),
        ("user", "q"),
        ("assistant", "x</t> a"),
    ];
    assert_eq!(
        learned(&thoughts, &say).unwrap(),
        "a<|eot_id|>x</t> a<|eot_id|>"
    );
}

/// What cannot be encoded must be told, not learned wrongly.
#[test]
fn what_cannot_be_encoded_is_named() {
    let says = |template: &str, messages: &[(&str, &str)], texts: &[&str]| {
        let error = learned(template, messages).unwrap_err().to_string();
        for text in texts {
            assert!(error.contains(text), "{text} in {error}");
        }
    };
    let plain = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let say = [("user", "q"), ("assistant", "a")];
    says(plain, &say[..1], &["no assistant turn"]);
    says(
        "{% if messages[0].role != 'system' %}{{ raise_exception('Say who you are!') }}{% endif %}",
        &say,
        &["refuses this conversation: Say who you are!"],
    );
    says(
        "{{ messages[0].content }}",
        &say,
        &["message 2", "in one piece"],
    );
    says(
        "{% for m in messages %}",
        &say,
        &["chat template fails", "chat_template:1"],
    );
    says(
        "{{ nothing.at_all }}",
        &say,
        &["chat template fails", "undefined"],
    );
    says(
        "{{ strftime_now('%Q!') }}",
        &say,
        &["%Q!", "no date format"],
    );

    let dir = tempfile::tempdir().unwrap();
    fs::copy(
        small_folder().join("tokenizer.json"),
        dir.path().join("tokenizer.json"),
    )
    .unwrap();
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    let error = Chat::new(&tokenizer, &ChatSettings::default())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("no chat template"), "{error}");
}

/// What Jinja2 and Python write, by transformers 4.57.1 and jinja2 3.1.6.
#[test]
fn templates_write_as_python_does() {
    let render = |source: &str| {
        let date = NaiveDate::from_ymd_opt(2025, 3, 9).unwrap();
        let template = Template::new(source, Vec::new(), date).unwrap();
        let n = serde_json::json!([1, 2.5, null, true, {}]);
        let message =
            Message::new("user", "é \"q\" <&>").with("n", Value::from(minijinja::value::Serde(n)));
        template.render(&[message], false).unwrap()
    };
    assert_eq!(
        render("{{ messages[0] | tojson }}"),
        r#"{"role": "user", "content": "é \"q\" <&>", "n": [1, 2.5, null, true, {}]}"#
    );
    assert_eq!(
        render("{{ {'a': [1, {'b': 2}], 'c': []} | tojson(indent=2) }}"),
        "{\n  \"a\": [\n    1,\n    {\n      \"b\": 2\n    }\n  ],\n  \"c\": []\n}"
    );
    assert_eq!(
        render("{{ tools }} {{ documents is none }} {{ true }} {{ bos_token }}|"),
        "None True True |"
    );
    assert_eq!(render("{{ messages[0].content }}"), "é \"q\" <&>");
    assert_eq!(
        render("{{ strftime_now('%d %b %Y, %A %-d %B %H:%M') }}"),
        "09 Mar 2025, Sunday 9 March 00:00"
    );
    assert_eq!(
        render("{{ 'a,b'.split(',')[-1] }}{{ ' x '.strip() }}{{ 'ab'.startswith('a') }}"),
        "bxTrue"
    );
    assert_eq!(
        render("  {% if true %}\n  x\n  {% endif %}\ny\n\n"),
        "  x\ny\n"
    );
    assert_eq!(
        render("{%- generation -%}\n x {% endgeneration %}\n|"),
        "x |"
    );
    assert_eq!(
        render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"),
        "01"
    );
    assert_eq!(
        render(
            "{% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ messages[0] is mapping }}"
        ),
        "2True"
    );
}

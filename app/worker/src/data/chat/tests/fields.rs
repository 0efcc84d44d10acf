//! What a record has beside its texts: used, or refused by name.

use super::*;

const PLAIN: &str = "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '\\n' + m.content + eos_token }}\
                     {% endfor %}";

fn object(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

fn message(json: &str) -> Message {
    Message::try_from(object(json)).unwrap()
}

/// What of a conversation is learned, as text.
fn learned(template: &str, conversation: &Conversation) -> Result<String, String> {
    let tokenizer = with_template(template);
    let chat = Chat::new(&tokenizer, &ChatSettings::default()).unwrap();
    let Example { tokens, mask } = chat
        .encode(conversation)
        .map_err(|error| error.to_string())?;
    let kept = tokens.iter().zip(&mask).filter(|(_, learned)| **learned);
    let kept: Vec<u32> = kept.map(|(id, _)| *id).collect();
    Ok(tokenizer.decode(&kept).unwrap())
}

fn asked(more: Vec<Message>) -> Conversation {
    let mut messages = vec![Message::new("user", "q")];
    messages.extend(more);
    messages.into()
}

/// A user who adds tools to the data believes that the model sees them.
#[test]
fn what_a_template_does_not_read_is_refused_by_name() {
    let answer = || vec![Message::new("assistant", "a")];
    let list = || Some(object(r#"[{"name": "f"}]"#));
    let with = |change: fn(&mut Conversation, Option<Value>)| {
        let mut conversation = asked(answer());
        change(&mut conversation, list());
        conversation
    };
    let call = r#"{"role":"assistant","content":"a","tool_calls":[{"function":{"name":"f"}}]}"#;
    let thought = r#"{"role":"assistant","content":"a","reasoning":"since it is so"}"#;
    let odd = r#"{"role":"assistant","content":"a","rationale":"since it is so"}"#;
    for (conversation, says) in [
        (with(|c, list| c.tools = list), "`tools` is not used"),
        (
            with(|c, list| c.documents = list),
            "`documents` is not used",
        ),
        (
            with(|c, list| c.variables = vec![("mode".into(), list.unwrap())]),
            "`mode` of `chat_template_kwargs`",
        ),
        (
            asked(vec![message(call)]),
            "message 2: `tool_calls` is not used",
        ),
        (
            asked(vec![message(thought)]),
            "message 2: `reasoning` is not used",
        ),
        (
            asked(vec![message(odd)]),
            "message 2: `rationale` is not used",
        ),
    ] {
        let error = learned(PLAIN, &conversation).unwrap_err();
        assert!(error.contains(says), "{says} in {error}");
    }
    // Labels, and what a template that writes whole messages shows.
    let labels =
        r#"{"role":"assistant","content":"a","name":"b c","id":7,"tool_calls":[],"refusal":null}"#;
    assert_eq!(
        learned(PLAIN, &asked(vec![message(labels)])).unwrap(),
        "a<|eot_id|>"
    );
    let whole = "{% for m in messages %}{{ m | tojson }}{% endfor %}{{ messages[-1].content }}";
    assert!(
        !learned(whole, &asked(vec![message(odd)]))
            .unwrap_err()
            .contains("not used")
    );
}

/// Most data sets with parts are for models whose templates read texts, and the other way round.
#[test]
fn parts_are_given_to_templates_that_read_them_and_joined_for_others() {
    let parts = r#"{"role":"assistant","content":[{"type":"text","text":"a "},{"type":"text","text":"b"}]}"#;
    let conversation = asked(vec![message(parts)]);
    assert_eq!(learned(PLAIN, &conversation).unwrap(), "a b<|eot_id|>");
    let reads = "{% for m in messages %}{{ '<|start_header_id|>' }}{% if m.content is string %}{{ m.content }}\
                 {% else %}{% for part in m.content %}{{ '(' + part.text + ')' }}{% endfor %}{% endif %}\
                 {{ eos_token }}{% endfor %}";
    assert_eq!(learned(reads, &conversation).unwrap(), "(a )(b)<|eot_id|>");
    let prints =
        "{% for m in messages %}{{ '<|start_header_id|>' ~ m.content ~ eos_token }}{% endfor %}";
    assert_eq!(learned(prints, &conversation).unwrap(), "a b<|eot_id|>");
    let image =
        r#"{"role":"assistant","content":[{"type":"image","url":"x"},{"type":"text","text":"b"}]}"#;
    let error = learned(PLAIN, &asked(vec![message(image)])).unwrap_err();
    assert!(
        error.contains("message 2: a part of type `image`"),
        "{error}"
    );
}

/// The record's word on what is learned goes before the template's.
#[test]
fn turns_that_the_record_leaves_out_are_not_learned() {
    let turns = |weights: [u8; 2]| {
        let turn = |(text, weight)| {
            message(&format!(
                r#"{{"role":"assistant","content":"{text}","weight":{weight}}}"#
            ))
        };
        asked(["a", "b"].into_iter().zip(weights).map(turn).collect())
    };
    let tagged = "{% for m in messages %}{{ '<|start_header_id|>' + m.role }}{% if m.role == 'assistant' %}\
                  {% generation %}{{ m.content + eos_token }}{% endgeneration %}{% endif %}{% endfor %}";
    for template in [PLAIN, tagged] {
        assert_eq!(
            learned(template, &turns([1, 1])).unwrap(),
            "a<|eot_id|>b<|eot_id|>"
        );
        assert_eq!(learned(template, &turns([0, 1])).unwrap(), "b<|eot_id|>");
        let error = learned(template, &turns([0, 0])).unwrap_err();
        assert!(
            error.contains("nothing of this conversation is learned"),
            "{error}"
        );
    }
}

/// A template whose tags enclose the last answer alone says that it alone is learned.
#[test]
fn what_generation_tags_enclose_is_learned_and_nothing_else() {
    let last = "{% for m in messages %}\r\n{{- '<|start_header_id|>' + m.role + '|' }}\r\n\
                {%- if loop.last %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}\
                {% endif %}{{ eos_token }}{% endfor %}";
    let say = |roles: &[&str]| -> Conversation {
        let turns = roles.iter().zip(["q", "a", "r", "b"]);
        turns
            .map(|(role, text)| Message::new(role, text))
            .collect::<Vec<_>>()
            .into()
    };
    let four = say(&["user", "assistant", "user", "assistant"]);
    assert_eq!(learned(last, &four).unwrap(), "b");
    let tokenizer = with_template(last);
    let chat = Chat::new(&tokenizer, &ChatSettings::default()).unwrap();
    assert!(!chat.text(&four).unwrap().contains('\r'));
    let none =
        "{{ messages[0].content }}{% if false %}{% generation %}{% endgeneration %}{% endif %}";
    let error = learned(none, &four).unwrap_err();
    assert!(error.contains("tags enclose nothing"), "{error}");
    let changed = "{% set x %}{% generation %} a {% endgeneration %}{% endset %}{{ x | replace(' ', '') | trim }}\
                   {{ x | length }}";
    let error = learned(changed, &four).unwrap_err();
    assert!(
        error.contains("changes what its {% generation %} tags enclose"),
        "{error}"
    );
}

/// A model with two templates was tuned on the other one where there are tools.
#[test]
fn conversations_with_tools_have_the_template_for_tools_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let to = |name: &str| dir.path().join(name);
    fs::copy(small_folder().join("tokenizer.json"), to("tokenizer.json")).unwrap();
    let config = serde_json::json!({
        "eos_token": "<|eot_id|>",
        "unk_token": {"content": "<|begin_of_text|>"},
        "chat_template": [
            {"name": "default", "template": "{{ messages[-1].content }}{{ unk_token }}"},
            {"name": "tool_use", "template": "{{ tools | tojson }}{{ messages[-1].content }}"},
        ],
    });
    fs::write(to("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    let chat = Chat::new(&tokenizer, &ChatSettings::default()).unwrap();
    let mut conversation = asked(vec![Message::new("assistant", "a")]);
    assert_eq!(chat.text(&conversation).unwrap(), "a<|begin_of_text|>");
    conversation.tools = Some(object(r#"[{"name": "f"}]"#));
    assert_eq!(chat.text(&conversation).unwrap(), r#"[{"name": "f"}]a"#);
}

//! Records of many data sets: what is used, how, and what is refused by name.

use std::fs;

use crate::data::{Document, Fields, read};

use super::*;

fn read_line(record: &str, fields: &Fields) -> Result<Conversation, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.jsonl");
    fs::write(&path, record).unwrap();
    let documents: Result<Vec<Document>, _> = read(&path, fields);
    match documents
        .map_err(|error| error.to_string())?
        .remove(0)
        .content
    {
        Content::Chat(conversation) => Ok(conversation),
        Content::Text(text) => Err(format!("a text: {text}")),
    }
}

/// Roles and contents, with a star at what is not learned.
fn said(record: &str) -> Result<String, String> {
    let conversation = read_line(record, &Fields::default())?;
    let turns = conversation.messages.iter().map(|message| {
        let star = if message.role == "assistant" && !message.learned() {
            "*"
        } else {
            ""
        };
        format!("{}{star}:{}", message.role, message.content())
    });
    Ok(turns.collect::<Vec<_>>().join("|"))
}

/// A system prompt, a context or earlier turns that are dropped make another task of the same answers.
#[test]
fn what_data_sets_put_beside_their_turns_is_used() {
    for (record, want) in [
        (
            r#"{"instruction":"q","input":"","output":"a","system":"s"}"#,
            "system:s|user:q|assistant:a",
        ),
        (
            r#"{"id":"niv.1","system_prompt":"s","question":"q","response":"a"}"#,
            "system:s|user:q|assistant:a",
        ),
        (
            r#"{"system":"s","conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"}]}"#,
            "system:s|user:q|assistant:a",
        ),
        (
            r#"{"system":"","conversations":[{"from":"human","value":"q"},{"from":"chatgpt","value":"a"}]}"#,
            "user:q|assistant:a",
        ),
        (
            r#"{"system":"s","messages":[{"role":"system","content":"s"},{"role":"user","content":"q"}]}"#,
            "system:s|user:q",
        ),
        (
            r#"{"instruction":"q","context":"c","response":"a","category":"closed_qa"}"#,
            "user:q\n\nc|assistant:a",
        ),
        (
            r#"{"instruction":"q2","input":"i","output":"a2","history":[["q1","a1"]]}"#,
            "user:q1|assistant:a1|user:q2\n\ni|assistant:a2",
        ),
        (
            r#"{"prompt":[{"role":"user","content":"q"}],"completion":[{"role":"assistant","content":"a"}]}"#,
            "user:q|assistant:a",
        ),
        (
            r#"{"prompt":[{"role":"user","content":"q"},{"role":"assistant","content":"x"},{"role":"user","content":"r"}],"completion":"a"}"#,
            "user:q|assistant*:x|user:r|assistant:a",
        ),
        (
            r#"{"prompt":"q","completion":[{"role":"assistant","content":"a"}]}"#,
            "user:q|assistant:a",
        ),
        (
            r#"{"conversations":[{"from":"human","value":"q","weight":0},{"from":"gpt","value":"a","weight":0},{"from":"human","value":"r"},{"from":"gpt","value":"b","weight":1}]}"#,
            "user:q|assistant*:a|user:r|assistant:b",
        ),
        (
            r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a","train":false},{"role":"assistant","content":"b"}]}"#,
            "user:q|assistant*:a|assistant:b",
        ),
        (
            r#"{"conversations":[{"from":"human","value":"q"},{"from":"function_call","value":"{\"name\":\"f\",\"arguments\":{}}"},{"from":"observation","value":"1"},{"from":"gpt","value":"a"}]}"#,
            "user:q|assistant:|tool:1|assistant:a",
        ),
    ] {
        assert_eq!(said(record).as_deref(), Ok(want), "{record}");
    }
}

/// The order of a call's keys is what the model learns to write.
#[test]
fn calls_and_tools_keep_their_order() {
    let record = r#"{"tools":"[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\"}}]","conversations":[
        {"from":"human","value":"q"},{"from":"function_call","value":"{\"name\":\"f\",\"arguments\":{\"z\":1,\"a\":2}}"}]}"#;
    let conversation = read_line(&record.replace('\n', ""), &Fields::default()).unwrap();
    let json = |value: &Value| serde_json::to_string(value).unwrap();
    assert_eq!(
        json(conversation.messages[1].get("tool_calls").unwrap()),
        r#"[{"type":"function","function":{"name":"f","arguments":{"z":1,"a":2}}}]"#
    );
    assert_eq!(
        json(&conversation.tools.unwrap()),
        r#"[{"type":"function","function":{"name":"f","description":"d"}}]"#
    );
}

/// Whatever the kind of file: a list over several lines and a table of columns have an order, too.
#[test]
fn turns_of_every_kind_of_file_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("x.json");
    let messages = r#"[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]"#;
    fs::write(
        &list,
        format!("[\n  {{\n  \"messages\": {messages}\n  }}\n]\n"),
    )
    .unwrap();
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    for path in [list, fixtures.join("parquet/chat.parquet")] {
        for document in read(&path, &Fields::default()).unwrap() {
            let Content::Chat(conversation) = document.content else {
                panic!("{} holds no conversation", path.display());
            };
            assert!(!conversation.messages.is_empty());
            for turn in conversation.messages {
                // Made with the role first, as both files have it.
                assert_eq!(turn, Message::new(&turn.role, turn.content()));
            }
        }
    }
}

/// A field that is dropped without a word is data the user believes the model saw.
#[test]
fn what_has_no_place_is_refused_by_name() {
    let turns = r#""messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]"#;
    for (fields, says) in [
        (r#""functions":[{"name":"f"}]"#, "`functions` is not used"),
        (r#""context":"It rains.""#, "`context` is not used"),
        (
            r#""rationale":"Since it rains.""#,
            "`rationale` is not used",
        ),
        (
            r#""rejected":[{"role":"assistant","content":"not this one"}]"#,
            "`rejected` is not used",
        ),
        (r#""tools":"[1]""#, "`tools` is not a list of objects"),
        (
            r#""tools":{"name":"f"}"#,
            "`tools` is not a list of objects",
        ),
        (r#""system":["s"]"#, "`system` is not a text"),
    ] {
        let error = said(&format!("{{{turns},{fields}}}")).unwrap_err();
        assert!(
            error.contains(says) && error.contains("line 1"),
            "{says} in {error}"
        );
    }
    for (record, says) in [
        (
            r#"{"system":"t","messages":[{"role":"system","content":"s"},{"role":"user","content":"q"}]}"#,
            "another thing",
        ),
        (
            r#"{"instruction":"q","output":"a","history":"q1"}"#,
            "`history` is not a list of pairs",
        ),
        (
            r#"{"question":"q","context":"It rains.","answer":"a"}"#,
            "`context` is not used",
        ),
        (
            r#"{"conversations":[{"from":"alien","value":"q"}]}"#,
            "`from` is `alien`",
        ),
        (
            r#"{"conversations":[{"from":"function_call","value":"f()"}]}"#,
            "no call of a tool in JSON",
        ),
        (
            r#"{"messages":[{"role":"assistant","content":"a","weight":0.5}]}"#,
            "`weight` is 0.5",
        ),
        (
            r#"{"messages":[{"role":"user","content":"q","weight":1}]}"#,
            "only the assistant's",
        ),
        (
            r#"{"messages":[{"role":"user"}]}"#,
            "missing field `content`",
        ),
        (
            r#"{"messages":[{"role":"user","content":{"text":"q"}}]}"#,
            "neither a text nor a list of parts",
        ),
        (r#"{"messages":["q"]}"#, "is not an object"),
    ] {
        let error = said(record).unwrap_err();
        assert!(error.contains(says), "{says} in {error}");
    }
}

/// Every data set on the hub has columns beside its turns; those that only label it must not stand in the way.
#[test]
fn labels_and_what_is_said_already_are_left_out() {
    let turns = r#""messages":[{"role":"user","content":"What is it?"},{"role":"assistant","content":"A counter."}]"#;
    for fields in [
        r#""id":7,"source":"a place","score":0.5,"prompt_id":"a b","ok":true,"empty":"","nothing":null,"list":[]"#,
        r#""category":"closed qa","difficulty":"easy","created_date":"1 May","tokens":[1,2],"meta":{"by":"x y z"}"#,
        r#""prompt":"What is it?","text":"Q: What is it? A: A counter.""#,
        r#""tools":[],"documents":null,"input":"","history":[]"#,
    ] {
        assert_eq!(
            said(&format!("{{{turns},{fields}}}")).as_deref(),
            Ok("user:What is it?|assistant:A counter."),
            "{fields}"
        );
    }
    let alpaca = r#"{"instruction":"Name one.","input":"of two","output":"It.",
        "text":"Below is a task.\n### Instruction:\nName one.\n### Input:\nof two\n### Response:\nIt."}"#;
    let alpaca = said(&alpaca.replace('\n', ""));
    assert_eq!(
        alpaca.as_deref(),
        Ok("user:Name one.\n\nof two|assistant:It.")
    );
    let fields = Fields {
        ignore: vec!["rationale".into(), "context".into()],
        ..Fields::default()
    };
    let more = format!("{{{turns},\"rationale\":\"since it counts\",\"context\":\"It rains.\"}}");
    assert!(read_line(&more, &Fields::default()).is_err());
    assert!(read_line(&more, &fields).is_ok());
}

use super::*;

fn read(name: &str, text: &str) -> Result<Vec<Question>, SourceError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    read_questions(&path)
}

/// A set in another layout would be scored against the wrong answers.
#[test]
fn every_layout_tells_the_right_answer() {
    let lines = [
        r#"{"question":"q","choices":["a","b","c"],"answer":2}"#,
        r#"{"question":"q","choices":["a","b","c"],"answer":"C"}"#,
        r#"{"id":"x","question":"q","choices":["a","b","c"],"gold":2,"prompt":"p"}"#,
        // MMLU, ARC with letters and with digits, CommonsenseQA.
        r#"{"question":"q","subject":"s","choices":["a","b","c"],"answer":2}"#,
        r#"{"id":"x","question":"q","choices":{"text":["a","b","c"],"label":["A","B","C"]},"answerKey":"C"}"#,
        r#"{"id":"x","question":"q","choices":{"text":["a","b","c"],"label":["1","2","3"]},"answerKey":"3"}"#,
        r#"{"id":"x","question":"q","question_concept":"k","choices":{"label":["A","B","C"],"text":["a","b","c"]},"answerKey":"C"}"#,
    ];
    let questions = read("q.jsonl", &lines.join("\n")).unwrap();
    assert_eq!(questions.len(), lines.len());
    for q in questions {
        assert_eq!(q.answer, 2, "{}", q.place);
        assert_eq!(q.choices, ["a", "b", "c"]);
    }
    let csv =
        "question,choices,answer\nq,\"[\"\"a\"\",\"\"b\"\"]\",1\nq,\"[\"\"a\"\",\"\"b\"\"]\",A\n";
    let answers: Vec<usize> = read("q.csv", csv)
        .unwrap()
        .iter()
        .map(|q| q.answer)
        .collect();
    assert_eq!(answers, [1, 0]);
}

/// A wrong index that went through would be counted as never answered.
#[test]
fn a_wrong_answer_is_told_by_file_and_line() {
    let good = r#"{"question":"q","choices":["a","b"],"answer":1}"#;
    for (bad, texts) in [
        (
            r#"{"question":"q","choices":["a","b"],"answer":2}"#,
            &["line 2", "`answer` is 2", "0 to 1 or A, B"][..],
        ),
        (
            r#"{"question":"q","choices":["a","b"],"answer":-1}"#,
            &["`answer` is -1"],
        ),
        (
            r#"{"question":"q","choices":["a","b"],"answer":"C"}"#,
            &["is \"C\""],
        ),
        (
            r#"{"question":"q","choices":{"text":["a","b"],"label":["1","2"]},"answerKey":"0"}"#,
            &["`answerKey` is \"0\"", "1, 2"],
        ),
        (
            r#"{"question":"q","choices":{"text":["a","b"],"label":["A","B"]},"answerKey":""}"#,
            &["`answerKey` is \"\""],
        ),
        (
            r#"{"question":"q","choices":["a"],"answer":0}"#,
            &["1 entries"],
        ),
        (
            r#"{"question":"q","choices":["a"," "],"answer":0}"#,
            &["entry 1 is empty"],
        ),
        (
            r#"{"question":"q","choices":["a","b"]}"#,
            &["no field `answer`"],
        ),
        (r#"{"question":"q","answer":0}"#, &["no field `choices`"]),
        ("{", &["line 2", "JSON"]),
    ] {
        let error = read("q.jsonl", &format!("{good}\n{bad}\n"))
            .unwrap_err()
            .to_string();
        for text in texts.iter().chain(&["q.jsonl, line 2"]) {
            assert!(error.contains(text), "{text} in {error}");
        }
    }
    let error = read("q.jsonl", "\n").unwrap_err().to_string();
    assert!(error.contains("is empty"), "{error}");
}

/// The question of one record.
fn one(record: &str) -> Result<Question, String> {
    let questions = read("q.jsonl", record).map_err(|error| error.to_string());
    questions.map(|mut questions| questions.remove(0))
}

/// Each set has its own names and its own way to say what is right; a set that had to be converted by hand would be
/// converted wrongly by somebody.
#[test]
#[allow(clippy::too_many_lines, reason = "a table of checks")]
fn the_sets_of_the_hub_are_read_as_they_lie_there() {
    let asked = || Form::Asked { passage: None };
    let sets = [
        // MMLU-Pro.
        (
            r#"{"question_id":1,"question":"q","options":["a","b","c"],"answer":"C","answer_index":2,"cot_content":"","category":"law","src":"x"}"#,
            ("q", &["a", "b", "c"][..], 2, asked()),
        ),
        (
            r#"{"id":"1","question_stem":"The sun is","choices":{"text":["cold","hot"],"label":["A","B"]},"answerKey":"B"}"#,
            ("The sun is", &["cold", "hot"], 1, Form::Continued),
        ),
        (
            r#"{"goal":"Dry a cup.","sol1":"Use a towel.","sol2":"Use a fork.","label":0}"#,
            ("Dry a cup.", &["Use a towel.", "Use a fork."], 0, asked()),
        ),
        (
            r#"{"sentence":"The cup is in the box, as _ is large.","option1":"the cup","option2":"the box","answer":"2"}"#,
            (
                "The cup is in the box, as _ is large.",
                &["the cup", "the box"],
                1,
                Form::Filled,
            ),
        ),
        (
            r#"{"sentence":"Ann thanked Eve, as _ had helped.","option1":"Ann","option2":"Eve","answer":2}"#,
            (
                "Ann thanked Eve, as _ had helped.",
                &["Ann", "Eve"],
                1,
                Form::Filled,
            ),
        ),
        (
            r#"{"question":"is tea hot","passage":"Tea is hot.","answer":true}"#,
            (
                "is tea hot?",
                &["no", "yes"],
                1,
                Form::Asked {
                    passage: Some("Tea is hot.".into()),
                },
            ),
        ),
        (
            r#"{"question":"is ice hot?","passage":"Ice is cold.","idx":3,"label":0}"#,
            (
                "is ice hot?",
                &["no", "yes"],
                0,
                Form::Asked {
                    passage: Some("Ice is cold.".into()),
                },
            ),
        ),
        // Without the activity the context stands for itself.
        (
            r#"{"ctx":"A man lifts a cup. He","endings":["drinks.","[x] flies  off."],"label":"1","source_id":"s"}"#,
            (
                "A man lifts a cup. He",
                &["drinks.", " flies off."],
                1,
                Form::Continued,
            ),
        ),
        // As lm-evaluation-harness 0.4 words a record of wikiHow.
        (
            r#"{"ind":4,"activity_label":"Home","ctx_a":"[header] How to tidy [title] Begin early.  Now","ctx_b":"you CAN rest","ctx":"x","endings":["Sweep. [substeps] Slowly","Wait [a\nb]"],"split":"val","label":0}"#,
            (
                "Home: How to tidy. Begin early. Now You can rest",
                &["Sweep. Slowly", "Wait [a\nb]"],
                0,
                Form::Continued,
            ),
        ),
        // Texts by their labels, objects of both, and labels that a table tool made numbers.
        (
            r#"{"question":"q","options":{"A":"a","B":"b"},"answer":"B"}"#,
            ("q", &["a", "b"], 1, asked()),
        ),
        (
            r#"{"question":"q","choices":[{"label":"A","text":"a"},{"label":"B","text":"b"}],"answerKey":"B"}"#,
            ("q", &["a", "b"], 1, asked()),
        ),
        (
            r#"{"question":"q","choices":{"text":["a","b",3,"d"],"label":[1,2,3,4]},"answerKey":3}"#,
            ("q", &["a", "b", "3", "d"], 2, asked()),
        ),
    ];
    for (record, (text, choices, answer, form)) in sets {
        let question = one(record).unwrap_or_else(|error| panic!("{record}: {error}"));
        assert_eq!(question.question, text);
        assert_eq!(question.choices, choices, "{record}");
        assert_eq!((question.answer, question.form), (answer, form), "{record}");
    }
}

/// Of TruthfulQA the first choice is always the right one: who always says A must not seem to know everything.
#[test]
fn choices_that_always_begin_with_the_right_one_are_put_in_another_order() {
    let record = |i: usize| {
        let list = format!(r#"["right {i}","wrong","also wrong","very wrong"],"labels":[1,0,0,0]"#);
        format!(r#"{{"question":"q{i}","mc1_targets":{{"choices":{list}}},"mc2_targets":{{}}}}"#)
    };
    let text: Vec<String> = (0..40).map(record).collect();
    let questions = read("q.jsonl", &text.join("\n")).unwrap();
    let mut places = [0; 4];
    for (i, question) in questions.iter().enumerate() {
        assert_eq!(question.choices[question.answer], format!("right {i}"));
        places[question.answer] += 1;
    }
    assert!(
        places.iter().all(|&count| (3..=18).contains(&count)),
        "{places:?}"
    );
    // The same every time.
    assert_eq!(
        read("q.jsonl", &text.join("\n"))
            .unwrap()
            .iter()
            .map(|q| q.answer)
            .collect::<Vec<_>>(),
        questions.iter().map(|q| q.answer).collect::<Vec<_>>()
    );
    let bad = r#"{"question":"q","mc1_targets":{"choices":["a","b"],"labels":[1,1]}}"#;
    assert!(one(bad).unwrap_err().contains("2 right choices"));
}

/// An answer of a table tool's number, in brackets, or in words is the same answer.
#[test]
fn an_answer_may_be_written_in_several_ways() {
    let four = r#""question":"q","choices":["ant","bee","cat","3"]"#;
    for (answer, right) in [
        (r#""answer":"(C)""#, 2),
        (r#""answer":"C.""#, 2),
        (r#""answer":" C ""#, 2),
        (r#""answer":"cat""#, 2),
        (r#""answer":2.0"#, 2),
        (r#""answer":3"#, 3),
        (r#""answer":"D","answer_index":3"#, 3),
        (r#""answer_index":1"#, 1),
    ] {
        let question = one(&format!("{{{four},{answer}}}"));
        assert_eq!(question.map(|q| q.answer), Ok(right), "{answer}");
    }
    let labelled = |labels: &str, answer: &str| {
        let choices = format!(r#"{{"text":["w","x","y","z"],"label":{labels}}}"#);
        one(&format!(
            r#"{{"question":"q","choices":{choices},{answer}}}"#
        ))
        .map(|q| q.answer)
    };
    for labels in [r#"["1","2","3","4"]"#, "[1,2,3,4]"] {
        assert_eq!(labelled(labels, r#""answerKey":3"#), Ok(2));
        assert_eq!(labelled(labels, r#""answerKey":"3""#), Ok(2));
        assert_eq!(labelled(labels, r#""answerKey":"y""#), Ok(2));
    }
    assert_eq!(labelled(r#"["A","B","C","D"]"#, r#""answerKey":3"#), Ok(3));
    assert_eq!(labelled(r#"["0","1","2","3"]"#, r#""answer":3"#), Ok(3));
}

/// A guess between two readings would score every model against the wrong answers, in silence.
#[test]
fn an_answer_that_could_be_two_choices_is_refused() {
    for (record, said) in [
        (
            r#"{"question":"q","choices":{"text":["w","x","y"],"label":["1","2","3"]},"answer":2}"#,
            &["the choice labelled 2", "choice 2, counted from 0"][..],
        ),
        (
            r#"{"question":"q","choices":["G","C","A"],"answer":"C"}"#,
            &["the choice labelled C", "the choice that says C"],
        ),
        (
            r#"{"question":"q","choices":["1","2","3"],"answer":"2"}"#,
            &["choice 2, counted from 0", "the choice that says 2"],
        ),
        (
            r#"{"question":"q","options":["a","b"],"answer":"A","answer_index":1}"#,
            &["`answer_index` says choice 1"],
        ),
        (
            r#"{"question":"q","options":["a","b"],"choices":["a","b"],"answer":"A"}"#,
            &["both `choices` and `options`"],
        ),
        (
            r#"{"question":"q","choices":{"text":["w","x"],"label":["A","A"]},"answerKey":"A"}"#,
            &["two labels that are equal"],
        ),
        (
            r#"{"question":"q","choices":{"text":["w","x"],"label":["1","2"]},"answerKey":0}"#,
            &["`answerKey` is 0", "write 1, 2"],
        ),
        (
            r#"{"ctx":"c","endings":["a","b"],"label":""}"#,
            &["`label` is \"\"", "take their validation set"],
        ),
        (
            r#"{"goal":"g","sol1":"a","sol2":"b","label":-1}"#,
            &["`label` is -1", "validation set"],
        ),
        (
            r#"{"sentence":"no blank","option1":"a","option2":"b","answer":"1"}"#,
            &["`sentence` needs a blank"],
        ),
        (
            r#"{"sentence":"It is _","option1":"a","option2":"b","answer":"1"}"#,
            &["words after it"],
        ),
        (
            r#"{"question":"q","passage":"p","answer":"perhaps"}"#,
            &["`answer` is \"perhaps\"", "true or false"],
        ),
        (
            r#"{"question":"q","choices":[0.1,0.2],"answer":0}"#,
            &["`choices` is not a list of texts"],
        ),
        (
            r#"{"question":"q","choices":["same","same","c"],"answer":"same"}"#,
            &["none of the 3 choices"],
        ),
    ] {
        let error = one(record).unwrap_err();
        for said in said {
            assert!(error.contains(said), "{said} in {error}");
        }
    }
    // With its index, MMLU-Pro's answer is one.
    let index = r#"{"question":"q","options":["G","C","A"],"answer":"C","answer_index":2}"#;
    assert_eq!(one(index).unwrap().answer, 2);
    // Lists in CSV are JSON; what numpy prints is none.
    let csv = "question,choices,answer\nq,['a' 'b'],0\n";
    let error = read("q.csv", csv).unwrap_err().to_string();
    assert!(
        error.contains("line 2") && error.contains("in CSV it is written as JSON"),
        "{error}"
    );
    let csv = "ctx,endings,label\nc,\"[\"\"a\"\",\"\"b\"\"]\",1\n";
    assert_eq!(read("q.csv", csv).unwrap()[0].answer, 1);
    let csv = "question,choices,answerKey\nq,\"{\"\"text\"\":[\"\"a\"\",\"\"b\"\"],\"\"label\"\":[\"\"1\"\",\"\"2\"\"]}\",2\n";
    assert_eq!(read("q.csv", csv).unwrap()[0].answer, 1);
}

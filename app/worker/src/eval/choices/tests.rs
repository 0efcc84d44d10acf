//! A model whose probabilities are known, and figures worked out by lm-evaluation-harness's formulas.

use std::path::Path;

use crate::data::Place;

use super::*;

fn tokenizer() -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/chat");
    Tokenizer::open(&folder).unwrap()
}

fn question(text: &str, choices: &[&str], answer: usize) -> Question {
    Question {
        question: text.into(),
        choices: choices.iter().map(|c| (*c).to_owned()).collect(),
        answer,
        form: Form::Asked { passage: None },
        place: Place {
            file: Path::new("q.jsonl").into(),
            number: 1,
            unit: "line",
        },
    }
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-12, "{a} is not {b}");
}

/// Every published figure is made this way; ours must compare.
#[test]
fn plain_questions_are_scored_as_lm_evaluation_harness_does() {
    let tokenizer = tokenizer();
    let questions = [
        question("q1", &["no", "yes indeed"], 1),
        question("q2", &["a", "bb", "ccc"], 0),
        question("q3", &["ñññ", "x"], 0),
        question("q4", &["same", "same"], 0),
    ];
    let task = ChoiceTask::plain(&questions, &tokenizer, Some(0)).unwrap();
    assert_eq!(task.requests().len(), 9);
    // The context, then the choice after a space, which alone is scored.
    let ChoiceRequest { tokens, wanted } = &task.requests()[1];
    let Wanted::Span(span) = wanted else {
        panic!("{wanted:?}")
    };
    assert_eq!(tokens[0], 0);
    assert_eq!(
        tokenizer.decode(&tokens[1..span.start]).unwrap(),
        "Question: q1\nAnswer:"
    );
    assert_eq!(
        tokenizer.decode(&tokens[span.clone()]).unwrap(),
        " yes indeed"
    );
    assert_eq!(span.end, tokens.len());
    let unmarked = ChoiceTask::plain(&questions, &tokenizer, None).unwrap();
    assert_eq!(unmarked.requests()[1].tokens, tokens[1..]);

    // Sums of log-probabilities. acc: argmax; acc_norm: argmax of sum / len(choice) in characters.
    // q1: −2 > −5 wrong, −1 < −0.5 right; q2: right, but −1 < −2/3; q3: −3 < −2.5 wrong,
    // −1 > −2.5 right (ñ is one character); q4: equal, the first counts, right in both.
    let sums = [-2.0, -5.0, -1.0, -1.5, -2.0, -3.0, -2.5, -4.0, -4.0];
    let answers: Vec<Vec<f64>> = sums.iter().map(|&p| vec![p]).collect();
    let answered = task.score(&answers).unwrap();
    let scores = answered.scores;
    assert_eq!(scores.questions, 4);
    assert_eq!(answered.right, [true, false, true, true]);
    close(scores.accuracy.mean, 0.5);
    // mean_stderr([0, 1, 0, 1]) and mean_stderr([1, 0, 1, 1]).
    close(scores.accuracy.stderr.unwrap(), 0.288_675_134_594_812_9);
    let normalised = scores.accuracy_normalised.unwrap();
    close(normalised.mean, 0.75);
    close(normalised.stderr.unwrap(), 0.25);
    close(scores.chance, (0.5 + 1.0 / 3.0 + 0.5 + 0.5) / 4.0);
    let one = ChoiceTask::plain(&questions[..1], &tokenizer, None).unwrap();
    let one = one
        .score(&[vec![-1.0], vec![f64::NEG_INFINITY]])
        .unwrap()
        .scores;
    assert_eq!((one.accuracy.mean, one.accuracy.stderr), (0.0, None));
}

/// HellaSwag, OpenBookQA, WinoGrande and BoolQ are published in forms of their own; in another one no figure compares.
#[test]
fn every_form_scores_what_lm_evaluation_harness_scores() {
    let tokenizer = tokenizer();
    let passage = Some("Tea is a drink.".to_owned());
    for (form, text, contexts, scored) in [
        (
            Form::Continued,
            "The man",
            ["The man", "The man"],
            [" one", " another"],
        ),
        (
            Form::Asked { passage },
            "is it?",
            ["Tea is a drink.\nQuestion: is it?\nAnswer:"; 2],
            [" one", " another"],
        ),
        (
            Form::Filled,
            "Of both _ is large, _ I say.",
            ["Of both one", "Of both another"],
            [" is large, _ I say."; 2],
        ),
        (Form::Filled, "_ ends", ["one", "another"], [" ends"; 2]),
        (
            Form::Continued,
            "Then ",
            ["Then"; 2],
            ["  one", "  another"],
        ),
    ] {
        let questions = [Question {
            form,
            ..question(text, &["one", "another"], 1)
        }];
        let task = ChoiceTask::plain(&questions, &tokenizer, None).unwrap();
        for (request, (context, scored)) in task.requests().iter().zip(contexts.iter().zip(scored))
        {
            let Wanted::Span(span) = &request.wanted else {
                panic!("{:?}", request.wanted)
            };
            let text = |tokens: &[u32]| tokenizer.decode(tokens).unwrap();
            assert_eq!(&text(&request.tokens[..span.start]), context);
            assert_eq!(text(&request.tokens[span.clone()]), scored);
        }
    }
    // What follows the blank is equally long for both, so its length decides nothing.
    let blank = Question {
        form: Form::Filled,
        ..question("Of both _ is large.", &["a", "a very long one"], 0)
    };
    let task = ChoiceTask::plain(&[blank], &tokenizer, None).unwrap();
    let scores = task.score(&[vec![-3.0], vec![-4.0]]).unwrap().scores;
    close(scores.accuracy.mean, 1.0);
    close(scores.accuracy_normalised.unwrap().mean, 1.0);
}

/// The passage of a question is what it is about, in a chat as well.
#[test]
fn a_chat_question_stands_below_its_passage() {
    let passage = Some("Tea is a drink.".to_owned());
    let question = Question {
        form: Form::Asked { passage },
        ..question("is it?", &["no", "yes"], 1)
    };
    assert!(chat_prompt(&question).ends_with("A,B.\n\nTea is a drink.\n\nis it?\n\nA) no\nB) yes"));
}

/// A prompt in other words would measure something else than the paper.
#[test]
fn chat_questions_ask_for_a_letter_after_the_prompt() {
    let tokenizer = tokenizer();
    let chat = Chat::new(&tokenizer, &ChatSettings::default()).unwrap();
    let questions = [
        question("What is it?", &["this", "that", "both"], 2),
        question("And now?", &["up", "down"], 0),
    ];
    let task = ChoiceTask::chat(&questions, &tokenizer, &chat).unwrap();
    let asked = "Answer the following multiple choice question. The entire content of your \
        response should be of the following format: 'ANSWER: $LETTER' (without quotes) where \
        LETTER is one of A,B,C.\n\nWhat is it?\n\nA) this\nB) that\nC) both";
    let prompt = chat.render(&[Message::new("user", asked)], true).unwrap();
    // The letters of this tokenizer are one token each.
    assert_eq!(task.requests().len(), 2);
    let ChoiceRequest { tokens, wanted } = &task.requests()[0];
    let Wanted::Next(candidates) = wanted else {
        panic!("{wanted:?}")
    };
    for (letter, &candidate) in ["A", "B", "C"].iter().zip(candidates) {
        let text = tokenizer
            .decode(&[&tokens[..], &[candidate]].concat())
            .unwrap();
        assert_eq!(text, format!("{prompt}ANSWER: {letter}"));
    }
    // A fake model that likes the last letter best.
    let answers: Vec<Vec<f64>> = task
        .requests()
        .iter()
        .map(|r| match &r.wanted {
            Wanted::Next(candidates) => (0..candidates.len()).map(|i| i as f64 - 9.0).collect(),
            Wanted::Span(_) => unreachable!(),
        })
        .collect();
    let answered = task.score(&answers).unwrap();
    let scores = answered.scores;
    close(scores.accuracy.mean, 0.5);
    close(scores.accuracy.stderr.unwrap(), 0.5);
    assert_eq!(scores.accuracy_normalised, None);
}

/// A tokenizer that writes a letter in two tokens, or one with the space before it for some
/// letters, must be scored by the whole answer.
#[test]
fn answers_that_differ_in_more_than_a_last_token_are_scored_whole() {
    let rows = |rows: &[&[u32]]| last_differs(&rows.iter().map(|r| r.to_vec()).collect::<Vec<_>>());
    assert_eq!(
        rows(&[&[1, 2, 3], &[1, 2, 4]]),
        Some((vec![1, 2], vec![3, 4]))
    );
    assert_eq!(rows(&[&[1, 2, 3], &[1, 2, 3, 4]]), None);
    assert_eq!(rows(&[&[1, 2, 3], &[1, 5, 4]]), None);
    assert_eq!(rows(&[&[1, 2, 3], &[1, 2, 3]]), None);
    assert_eq!(rows(&[&[3], &[4]]), None);

    // 26 choices, the letters spelt so that `Z` alone is two tokens.
    let dir = tempfile::tempdir().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/chat");
    let json = std::fs::read_to_string(folder.join("tokenizer.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let added = serde_json::json!({
        "id": 420, "content": " A", "special": false, "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false,
    });
    json["added_tokens"].as_array_mut().unwrap().push(added);
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    std::fs::copy(
        folder.join("tokenizer_config.json"),
        dir.path().join("tokenizer_config.json"),
    )
    .unwrap();
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    let chat = Chat::new(&tokenizer, &ChatSettings::default()).unwrap();
    let task = ChoiceTask::chat(&[question("q", &["x", "y"], 1)], &tokenizer, &chat).unwrap();
    for (request, answer) in task.requests().iter().zip(["ANSWER: A", "ANSWER: B"]) {
        let Wanted::Span(span) = &request.wanted else {
            panic!("{:?}", request.wanted)
        };
        assert_eq!(
            tokenizer.decode(&request.tokens[span.clone()]).unwrap(),
            answer
        );
        assert_eq!(span.end, request.tokens.len());
    }
    let scores = task.score(&[vec![-1.0], vec![-0.5]]).unwrap().scores;
    close(scores.accuracy.mean, 1.0);
}

/// An answer that is missing, or no number, must not become an accuracy.
#[test]
fn unusable_answers_are_refused() {
    let tokenizer = tokenizer();
    let task = ChoiceTask::plain(&[question("q", &["x", "y"], 0)], &tokenizer, None).unwrap();
    for answers in [
        vec![vec![-1.0]],
        vec![vec![-1.0], vec![]],
        vec![vec![f64::NAN], vec![-1.0]],
    ] {
        let error = task.score(&answers).unwrap_err().to_string();
        assert!(error.contains("of 2 was answered with"), "{error}");
    }
}

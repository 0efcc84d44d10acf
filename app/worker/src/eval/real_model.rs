//! A real instruct model, from its file to its words, against PyTorch.

use std::path::Path;

use forgetlab_engine::pretrained::{self, Hub};
use forgetlab_engine::{Engine, Hardware, Request, Sampling, Stream, Weights};
use forgetlab_study::experiment::ChatSettings;
use serde_json::Value;

use crate::data::{Chat, Message, Tokenizer};

/// Model and tokenizer of the SmolLM2 GGUF that `FORGETLAB_SMOLLM2` names, if it does.
fn smollm2() -> Option<(Engine, Weights, Tokenizer)> {
    let Ok(path) = std::env::var("FORGETLAB_SMOLLM2") else {
        eprintln!("skipped: FORGETLAB_SMOLLM2 names no .gguf of SmolLM2-135M-Instruct");
        return None;
    };
    let model = pretrained::open(&path, &Hub::from_env(), &()).unwrap();
    let engine = Engine::new(model.config, &Hardware::cpu(2)).unwrap();
    let weights = engine.weights(model.load(&()).unwrap()).unwrap();
    Some((engine, weights, Tokenizer::open(Path::new(&path)).unwrap()))
}

fn fixture() -> Value {
    let file = "../../tests/fixtures/smollm2-135m-instruct-q4_1.json";
    let text = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
    serde_json::from_slice(&text.unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Else every figure about a real model would be about another one.
#[test]
fn a_real_model_gives_the_losses_and_the_answer_of_pytorch() {
    let Some((mut engine, weights, tokenizer)) = smollm2() else {
        return;
    };
    let fixture = fixture();
    for name in ["english", "verilog", "spanish"] {
        let case = &fixture[name];
        let mut tokens = vec![tokenizer.bos().unwrap()];
        tokens.extend(tokenizer.encode(case["text"].as_str().unwrap()).unwrap());
        assert_eq!(tokens, ids(&case["token_ids"]), "{name}");
        let t = tokens.len();
        let losses = engine.evaluate(&weights, None, &tokens, t).unwrap();
        let expected = case["nll"].as_array().unwrap();
        assert_eq!(expected.len(), t - 1);
        for (i, (loss, nll)) in losses.iter().zip(expected).enumerate() {
            let nll = nll.as_f64().unwrap();
            let error = (f64::from(loss.ntp) - nll).abs();
            assert!(error < 2e-3, "{name}, token {}: {} {nll}", i + 1, loss.ntp);
        }
        let logits = engine.logits(&weights, &tokens, t).unwrap();
        let v = engine.layout().config.vocab_size;
        let last = &logits[(t - 1) * v..];
        let best = ids(&case["last_top5_ids"]);
        let expected = case["last_top5_logits"].as_array().unwrap();
        for (&id, expected) in best.iter().zip(expected) {
            let (found, expected) = (f64::from(last[id as usize]), expected.as_f64().unwrap());
            assert!(
                (found - expected).abs() < 2e-3,
                "{name}: {found} {expected}"
            );
        }
        let above = last.iter().filter(|&&x| x > last[best[4] as usize]).count();
        assert_eq!(above, 4, "{name}: the same five lead");
    }

    let case = &fixture["chat"];
    let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
    let chat = Chat::new(&tokenizer, &ChatSettings::default()).unwrap();
    let prompt = chat.prompt(&messages).unwrap();
    assert_eq!(prompt, ids(&case["token_ids"]));
    let answer = ids(&case["greedy_ids"]);
    let sampling = Sampling {
        stop_tokens: tokenizer.stop_tokens().to_vec(),
        ..Sampling::greedy()
    };
    let request = Request {
        prompts: std::slice::from_ref(&prompt),
        length: prompt.len() + 20,
        sampling: &sampling,
        stream: &Stream::new(0, "answer"),
        first_row: 0,
    };
    let found = engine.generate(&weights, request).unwrap();
    let written = &found.tokens[prompt.len()..found.lengths[0] as usize];
    assert_eq!(written, answer);
    assert_eq!(
        tokenizer.decode(written).unwrap(),
        case["greedy_text"].as_str().unwrap()
    );
}

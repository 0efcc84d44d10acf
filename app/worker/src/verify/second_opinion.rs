//! A second opinion on a checkpoint: its logits here against those of candle-transformers' own implementation of its
//! family, which reads the same files by itself.

use forgetlab_engine::model::Params;
use forgetlab_engine::ops::Precision;
use forgetlab_engine::peer::{Peer, PeerError};
use forgetlab_engine::pretrained::{DownloadProgress, Family, Pretrained, PretrainedError};
use forgetlab_engine::{Engine, EngineError, Hardware, Stream};

use super::{Check, ParityError, Tolerance};

/// Rows that are compared.
const ROWS: usize = 2;
/// Tokens of a row, at most.
const LENGTH: usize = 64;

/// What candle-transformers says of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Opinion {
    /// The family that both sides computed.
    pub family: Family,
    /// Rows, and tokens of each.
    pub shape: [usize; 2],
    /// Largest difference of logits.
    pub check: Check,
    /// Mean difference, in the same unit.
    pub mean: f64,
    /// What was not compared, or how it was, in words.
    pub notes: Vec<String>,
}

/// Why there is no second opinion.
#[derive(Debug, thiserror::Error)]
pub enum OpinionError {
    /// Candle-transformers has nothing to say.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The model cannot be read.
    #[error(transparent)]
    Pretrained(#[from] PretrainedError),
    /// The device failed, or does not compute such a model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Logits of another number than there should be.
    #[error(transparent)]
    Shape(#[from] ParityError),
}

/// Compares the logits of a model in f32 with candle-transformers', on random rows, after 1, 2, 4, … tokens.
///
/// # Errors
/// [`OpinionError`] where candle has no such family or part, the weights cannot be read, or a device fails.
pub fn second_opinion(
    model: &Pretrained,
    hardware: &Hardware,
    progress: &dyn DownloadProgress,
) -> Result<Opinion, OpinionError> {
    let params = model.load(progress)?;
    compare(model, params, hardware)
}

/// The same with weights that were read.
fn compare(
    model: &Pretrained,
    params: Params,
    hardware: &Hardware,
) -> Result<Opinion, OpinionError> {
    let longest = LENGTH.min(model.max_positions.unwrap_or(LENGTH));
    let mut theirs = Peer::new(model, &params, &hardware.device, longest)?;
    let (length, config) = (theirs.length, model.config);
    let mut random = Stream::new(0, "second opinion").at(0);
    let tokens = (0..ROWS * length).map(|_| random.below(config.vocab_size as u64) as u32);
    let tokens: Vec<u32> = tokens.collect();
    let hardware = Hardware {
        precision: Precision::F32,
        ..hardware.clone()
    };
    let mut engine = Engine::new(config, &hardware)?;
    let weights = engine.weights(params)?;
    let ours = engine.logits(&weights, &tokens, length)?;
    drop(weights);

    let (mut found, mut expected) = (Vec::new(), Vec::new());
    let v = config.vocab_size;
    let lengths = std::iter::successors(Some(1), |t| Some(2 * t)).take_while(|t| *t < length);
    for t in lengths.chain([length]) {
        let begin = tokens.chunks_exact(length).flat_map(|row| &row[..t]);
        let begin: Vec<u32> = begin.copied().collect();
        expected.extend(theirs.last_logits(&begin, ROWS)?);
        for row in 0..ROWS {
            found.extend_from_slice(&ours[(row * length + t - 1) * v..][..v]);
        }
    }
    let tolerance = Tolerance::of(Precision::F32);
    let check = tolerance.relative("logits", &found, &expected)?;
    let largest = expected
        .iter()
        .fold(f32::MIN_POSITIVE, |a, b| a.max(b.abs()));
    let differences = found.iter().zip(&expected);
    let sum: f64 = differences.map(|(a, b)| f64::from((a - b).abs())).sum();
    Ok(Opinion {
        family: theirs.family,
        shape: [ROWS, length],
        check,
        mean: sum / found.len() as f64 / f64::from(largest),
        notes: theirs.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use forgetlab_engine::model::Parts;
    use forgetlab_engine::pretrained::{Hub, open};

    fn fixture(name: &str) -> Pretrained {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let hub = Hub {
            endpoint: "http://127.0.0.1:9".into(),
            cache: "/nonexistent".into(),
            token: None,
            offline: true,
        };
        open(folder.join(name).to_str().unwrap(), &hub, &()).unwrap()
    }

    const ALL: [&str; 10] = [
        "llama-tiny-tied",
        "llama-tiny-untied",
        "families/mistral",
        "families/mistral_window",
        "families/qwen2",
        "families/qwen3",
        "families/smollm3",
        "families/granite",
        "families/olmo2",
        "families/gemma3",
    ];

    /// Else a checkpoint would be another model here than in candle: a bias left out, positions turned in another way, a
    /// window of another length.
    #[test]
    fn every_family_agrees_with_candle_transformers() {
        for name in ALL {
            let model = fixture(name);
            for threads in [1, 3] {
                let opinion = second_opinion(&model, &Hardware::cpu(threads), &()).unwrap();
                assert!(opinion.check.passed(), "{name}: {opinion:?}");
                assert!(opinion.mean <= opinion.check.error, "{name}: {opinion:?}");
                assert_eq!(opinion.shape, [ROWS, LENGTH], "{name}: {:?}", opinion.notes);
            }
        }
    }

    /// Else a wrong model would be taken for a right one.
    #[test]
    fn another_weight_or_setting_fails() {
        for name in ALL {
            let model = fixture(name);
            let hardware = Hardware::cpu(2);
            let mut params = model.load(&()).unwrap();
            let gains = params.layout.final_gains().unwrap();
            params.data[gains.start] += 0.5;
            let opinion = compare(&model, params, &hardware).unwrap();
            assert!(!opinion.check.passed(), "{name}: {opinion:?}");
        }
        type Change = fn(&mut Pretrained);
        let changes: [(&str, Change); 6] = [
            ("llama-tiny-tied", |m| m.config.rope.scaling = None),
            ("families/qwen2", |m| m.config.rope.base *= 2.0),
            ("families/granite", |m| m.config.parts.residual_scale *= 1.1),
            ("families/granite", |m| {
                m.config.parts.attention_scale = None
            }),
            ("families/gemma3", |m| {
                m.config.parts.window.as_mut().unwrap().len += 1
            }),
            ("families/smollm3", |m| {
                m.config.parts.unrotated = Parts::LLAMA.unrotated
            }),
        ];
        for (name, change) in changes {
            let mut model = fixture(name);
            change(&mut model);
            let opinion = second_opinion(&model, &Hardware::cpu(2), &()).unwrap();
            assert!(!opinion.check.passed(), "{name}: {opinion:?}");
        }
    }
}

//! Parity of a Llama, or of a model of a family near it, with PyTorch's.

use forgetlab_engine::model::{ModelConfig, Params};
use forgetlab_engine::ops::Precision;
use forgetlab_engine::pretrained::{from_hugging_face, to_hugging_face};
use forgetlab_engine::{
    AdamW, Engine, EngineError, LossBatch, LossReport, Request, Sampling, Stream, Weights,
};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::{Check, Fixture, FixtureAdamW, ParityError, Tolerance, steps};

/// What `parity.json` holds.
#[derive(Deserialize)]
struct Settings {
    ntp: f64,
    kl_replay: f64,
    coeff: f64,
    optimizer: Optimizer,
    steps: usize,
    total_loss_each_step: Vec<f64>,
    greedy_from_bos: Vec<u32>,
}

#[derive(Deserialize)]
struct Optimizer {
    lr: f64,
    schedule: String,
    #[serde(flatten)]
    adamw: FixtureAdamW,
}

/// Checks logits, losses, gradients, updated weights and greedy text of a model of a
/// [family](forgetlab_engine::pretrained::Family) against a fixture.
///
/// `bytes` are those of `parity.safetensors`, `settings` the text of `parity.json`; the checkpoint beside
/// them, already read, is the `reference`. The loss is `NTP(tokens) + coeff · KL(replay_tokens)`, each a
/// mean over its targets, of `tokens` those that `loss_mask` names. Tolerances are those of
/// [`super::verify_mini`].
///
/// # Errors
/// [`ParityError`] when the files cannot be read as such a fixture, or the device fails.
///
/// # Panics
/// If the reference is of no [family](forgetlab_engine::pretrained::Family).
pub fn verify_llama(
    bytes: &[u8],
    settings: &str,
    reference: Params,
    engine: impl FnOnce(ModelConfig) -> Result<Engine, EngineError>,
) -> Result<Vec<Check>, ParityError> {
    let settings: Settings =
        serde_json::from_str(settings).map_err(|e| ParityError::Settings(e.to_string()))?;
    if settings.optimizer.schedule != "constant" {
        let schedule = &settings.optimizer.schedule;
        return Err(ParityError::Settings(format!(
            "unknown schedule `{schedule}`"
        )));
    }
    let fixture = Fixture {
        file: SafeTensors::deserialize(bytes)?,
    };
    let layout = reference.layout.clone();
    let mut engine = engine(layout.config)?;
    let tolerance = Tolerance::of(engine.precision());
    let theta = from_hugging_face(&layout, |name, _| {
        fixture.expected(&format!("theta.{name}"))
    })?;
    let student = engine.weights(theta)?;
    let reference = engine.weights(reference)?;
    let objective = Objective::new(&fixture, &settings, layout.config.vocab_size)?;
    let mut checks = Vec::new();

    for (name, weights) in [("logits.theta", &student), ("logits.pi", &reference)] {
        let found = engine.logits(weights, &objective.tokens, objective.seq_len)?;
        checks.push(tolerance.relative(name, &found, &fixture.expected(name)?)?);
    }
    let (report, [ntp, kl]) = objective.run(&mut engine, &student, &reference)?;
    let total = settings.ntp + settings.coeff * settings.kl_replay;
    for (name, found, expected) in [
        ("ntp", ntp, settings.ntp),
        ("kl_replay", kl, settings.kl_replay),
        ("total", report.total, total),
    ] {
        checks.push(tolerance.scalar(name.into(), found, expected));
    }
    for (tensor, _, found) in to_hugging_face(&engine.gradients()?) {
        let name = format!("grad.{tensor}");
        checks.push(tolerance.relative(&name, &found, &fixture.expected(&name)?)?);
    }

    let config = settings.optimizer.adamw.config();
    let mut optimizer = engine.optimizer(AdamW::new(config, layout.len))?;
    let mut trained = student;
    for step in 0..steps(settings.steps, &settings.total_loss_each_step)? as usize {
        let (report, _) = objective.run(&mut engine, &trained, &reference)?;
        if let Some(&expected) = settings.total_loss_each_step.get(step) {
            let name = format!("total_loss_each_step[{step}]");
            checks.push(tolerance.scalar(name, report.total, expected));
        }
        engine.update(&mut trained, &mut optimizer, settings.optimizer.lr)?;
    }
    for (tensor, _, found) in to_hugging_face(trained.download()?.as_ref()) {
        let name = format!("after.{tensor}");
        let first_gradient = fixture.expected(&format!("grad.{tensor}"))?;
        let expected = fixture.expected(&name)?;
        checks.push(tolerance.absolute(&name, &found, &expected, &first_gradient)?);
    }
    // Where inputs are rounded, another of two tokens that are nearly as likely may win.
    if engine.precision() == Precision::F32 {
        checks.push(greedy(&mut engine, &reference, &settings.greedy_from_bos)?);
    }
    Ok(checks)
}

/// Tokens of the greedy continuation of the first one that differ.
fn greedy(engine: &mut Engine, weights: &Weights, expected: &[u32]) -> Result<Check, ParityError> {
    let bos = expected.first().ok_or_else(|| {
        ParityError::Settings("`greedy_from_bos` holds no token to begin with".into())
    })?;
    if *bos as usize >= engine.layout().config.vocab_size {
        let problem = format!("`greedy_from_bos` begins with {bos}, which no token is");
        return Err(ParityError::Settings(problem));
    }
    let request = Request {
        prompts: &[vec![*bos]],
        length: expected.len(),
        sampling: &Sampling::greedy(),
        stream: &Stream::new(0, "greedy"),
        first_row: 0,
    };
    let found = engine.generate(weights, request)?.tokens;
    let differs = |i: &usize| found[*i] != expected[*i];
    let mut wrong = (0..expected.len()).filter(differs);
    Ok(Check {
        name: "greedy_from_bos".into(),
        worst: wrong.clone().next().unwrap_or(0),
        error: wrong.by_ref().count() as f64,
        tolerance: 0.0,
        unit: "tokens",
        excepted: 0,
    })
}

/// `NTP(tokens) + coeff · KL(replay_tokens)`.
struct Objective {
    tokens: Vec<u32>,
    replay: Vec<u32>,
    seq_len: usize,
    /// Weights of the targets of both.
    weights: [Vec<f32>; 2],
    coeff: f64,
}

impl Objective {
    fn new(fixture: &Fixture, settings: &Settings, vocab: usize) -> Result<Self, ParityError> {
        let missing = || ParityError::Tensor("loss_mask".into());
        let mask = fixture.file.tensor("loss_mask").map_err(|_| missing())?;
        let &[rows, seq_len] = mask.shape() else {
            return Err(missing());
        };
        let tokens = fixture.tokens("tokens", seq_len, vocab)?;
        let replay = fixture.tokens("replay_tokens", seq_len, vocab)?;
        if mask.dtype() != Dtype::U8 || seq_len == 0 || tokens.len() != rows * seq_len {
            return Err(missing());
        }
        // A token's mask says whether it is a target, so it counts one position before.
        let mean = |of_token: &dyn Fn(usize) -> bool, len: usize, coeff: f64| -> Vec<f32> {
            let has_target = |i: &usize| i % seq_len + 1 != seq_len && of_token(i + 1);
            let count = (0..len).filter(has_target).count().max(1);
            let weight = (coeff / count as f64) as f32;
            let weigh = |i: usize| if has_target(&i) { weight } else { 0.0 };
            (0..len).map(weigh).collect()
        };
        let masked = |i: usize| mask.data()[i] != 0;
        Ok(Self {
            weights: [
                mean(&masked, tokens.len(), 1.0),
                mean(&|_| true, replay.len(), settings.coeff),
            ],
            tokens,
            replay,
            seq_len,
            coeff: settings.coeff,
        })
    }

    /// Losses and gradients at `student`: the report, and the means of NTP and KL.
    fn run(
        &self,
        engine: &mut Engine,
        student: &Weights,
        reference: &Weights,
    ) -> Result<(LossReport, [f64; 2]), EngineError> {
        let [ntp, kl] = &self.weights;
        let zeros = vec![0.0; ntp.len().max(kl.len())];
        let batch = |tokens, ntp_weights, kl_weights| LossBatch {
            tokens,
            seq_len: self.seq_len,
            ntp_weights,
            kl_weights,
        };
        let batches = [
            batch(&self.tokens[..], &ntp[..], &zeros[..ntp.len()]),
            batch(&self.replay, &zeros[..kl.len()], kl),
        ];
        let report = engine.forward_backward(student, Some(reference), &batches)?;
        let targets = |weights: &[f32]| weights.iter().filter(|w| **w != 0.0).count().max(1) as f64;
        let sum = |f: fn(&forgetlab_engine::RowLoss) -> f64, batch: usize| -> f64 {
            report.rows[batch].iter().map(f).sum()
        };
        let losses = [
            sum(|row| row.ntp, 0) / targets(ntp),
            match self.coeff {
                // Without weights there is no KL to take.
                0.0 => 0.0,
                _ => sum(|row| row.kl, 1) / targets(kl),
            },
        ];
        Ok((report, losses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[cfg(debug_assertions)]
    use forgetlab_engine::gpu;
    use forgetlab_engine::model::Layout;
    use forgetlab_engine::ops::rope::{Rope, RopeScaling};
    use forgetlab_engine::pretrained::{Hub, open};
    use forgetlab_engine::{Batching, Hardware};

    /// `parity.safetensors`, `parity.json`, and the checkpoint.
    type Files = (&'static [u8], &'static str, Params);

    macro_rules! file {
        ($include:ident, $folder:literal, $name:literal) => {
            $include!(concat!("../../../../tests/fixtures/", $folder, "/", $name))
        };
    }

    fn files() -> [Files; 2] {
        let config = |tied_embeddings, rope| ModelConfig {
            tied_embeddings,
            rope,
            ..ModelConfig::llama(64, 3, [4, 2, 16], 160, 320)
        };
        let plain = Rope {
            base: 10_000.0,
            scaling: None,
        };
        let scaled = Rope {
            base: 500_000.0,
            scaling: Some(RopeScaling {
                factor: 32.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_positions: 64.0,
            }),
        };
        let model = |bytes: &[u8], config| {
            let file = SafeTensors::deserialize(bytes).unwrap();
            let fixture = Fixture { file };
            let layout = Layout::new(config);
            from_hugging_face(&layout, |name, _| fixture.expected(name)).unwrap()
        };
        [
            (
                file!(include_bytes, "llama-tiny-tied", "parity.safetensors"),
                file!(include_str, "llama-tiny-tied", "parity.json"),
                model(
                    file!(include_bytes, "llama-tiny-tied", "model.safetensors"),
                    config(true, scaled),
                ),
            ),
            (
                file!(include_bytes, "llama-tiny-untied", "parity.safetensors"),
                file!(include_str, "llama-tiny-untied", "parity.json"),
                model(
                    file!(include_bytes, "llama-tiny-untied", "model.safetensors"),
                    config(false, plain),
                ),
            ),
        ]
    }

    fn on_cpu(threads: usize) -> impl FnOnce(ModelConfig) -> Result<Engine, EngineError> {
        move |config| Engine::new(config, &Hardware::cpu(threads))
    }

    /// A checkpoint of the Llama family must be the model here that it is in PyTorch, and learn as there.
    #[test]
    fn llamas_agree_with_pytorch() {
        for (bytes, settings, reference) in files() {
            let tensors = to_hugging_face(&reference).count();
            for threads in [1, 3] {
                let checks = verify_llama(bytes, settings, reference.clone(), on_cpu(threads));
                let checks = checks.unwrap();
                assert_eq!(checks.len(), 2 + 3 + tensors + 4 + tensors + 1);
                for check in checks {
                    assert!(check.passed(), "{check:?}");
                }
            }
        }
    }

    /// A folder of `tests/fixtures/families`: its files, and the checkpoint as it is opened.
    fn family(name: &str) -> (Vec<u8>, String, Params) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures/families")
            .join(name);
        let hub = Hub {
            endpoint: "http://127.0.0.1:9".into(),
            cache: "/nonexistent".into(),
            token: None,
            offline: true,
        };
        let model = open(folder.to_str().unwrap(), &hub, &()).unwrap();
        (
            std::fs::read(folder.join("parity.safetensors")).unwrap(),
            std::fs::read_to_string(folder.join("parity.json")).unwrap(),
            model.load(&()).unwrap(),
        )
    }

    const FAMILIES: [&str; 8] = [
        "mistral",
        "mistral_window",
        "qwen2",
        "qwen3",
        "smollm3",
        "granite",
        "olmo2",
        "gemma3",
    ];

    /// A checkpoint of each family must be the model here that it is in transformers, and learn as there: every
    /// bias, norm, factor, window and base counts.
    #[test]
    fn families_agree_with_transformers() {
        for name in FAMILIES {
            let (bytes, settings, reference) = family(name);
            let tensors = to_hugging_face(&reference).count();
            for threads in [1, 3] {
                let checks = verify_llama(&bytes, &settings, reference.clone(), on_cpu(threads));
                let checks = checks.unwrap();
                assert_eq!(checks.len(), 2 + 3 + tensors + 4 + tensors + 1);
                for check in checks {
                    assert!(check.passed(), "{name}: {check:?}");
                }
            }
        }
    }

    /// Else a checkpoint would be another model on a GPU, or learn another thing there: on kernels that run as C.
    #[cfg(debug_assertions)]
    #[test]
    fn families_agree_with_transformers_on_a_gpu() {
        forgetlab_gpu_stand_in::install();
        for name in FAMILIES {
            let (bytes, settings, reference) = family(name);
            let tensors = to_hugging_face(&reference).count();
            for (precision, recompute) in [
                (Precision::F32, false),
                (Precision::F32, true),
                (Precision::Bf16, false),
            ] {
                let engine = |config| {
                    let (layout, device) = (Layout::new(config), gpu::Device::Cpu);
                    let mut engine = Engine::on(&layout, precision, device);
                    engine.set_batching(Batching {
                        micro_batch: 0,
                        recompute,
                        ..Batching::default()
                    });
                    Ok(engine)
                };
                let checks = verify_llama(&bytes, &settings, reference.clone(), engine).unwrap();
                let greedy = usize::from(precision == Precision::F32);
                assert_eq!(checks.len(), 2 + 3 + tensors + 4 + tensors + greedy);
                for check in checks {
                    assert!(check.passed(), "{name}, {precision:?}: {check:?}");
                }
            }
        }
    }

    /// Less memory must not mean another model: the second forward of a block is the first.
    #[test]
    fn families_learn_the_same_when_blocks_are_computed_again() {
        for name in FAMILIES {
            let (bytes, settings, reference) = family(name);
            let checks = |recompute| {
                let engine = |config| {
                    let mut engine = Engine::new(config, &Hardware::cpu(2))?;
                    engine.set_batching(Batching {
                        micro_batch: 1,
                        recompute,
                        ..Batching::default()
                    });
                    Ok(engine)
                };
                verify_llama(&bytes, &settings, reference.clone(), engine).unwrap()
            };
            assert_eq!(checks(true), checks(false), "{name}");
        }
    }

    /// Else a wrong model would be taken for a right one.
    #[test]
    fn another_checkpoint_or_position_fails() {
        for (bytes, settings, reference) in files() {
            let failed = |reference: Params| -> Vec<String> {
                let checks = verify_llama(bytes, settings, reference, on_cpu(1)).unwrap();
                let failed = checks.into_iter().filter(|check| !check.passed());
                failed.map(|check| check.name).collect()
            };
            let mut other = reference.clone();
            let gains = other.layout.final_gains().unwrap();
            other.data[gains.start] *= 1.5;
            let names = failed(other);
            assert!(names.contains(&"logits.pi".into()), "{names:?}");
            assert!(names.contains(&"kl_replay".into()), "{names:?}");
            assert!(!names.contains(&"logits.theta".into()), "{names:?}");
            let mut config = reference.layout.config;
            config.rope.base *= 2.0;
            let turned = Params {
                layout: Layout::new(config),
                ..reference
            };
            let names = failed(turned);
            assert!(names.contains(&"logits.theta".into()), "{names:?}");
        }
    }
}

//! Parity of the small model with the paper's reference implementation.

use std::collections::BTreeMap;
use std::sync::Arc;

use forgetlab_engine::model::{Layout, ModelConfig, Params};
use forgetlab_engine::ops::head::PositionLoss;
use forgetlab_engine::pretrained::{from_reference_layout, to_reference_layout};
use forgetlab_engine::{AdamW, Engine, EngineError, LossBatch, LossReport, Weights};
use safetensors::SafeTensors;
use serde::Deserialize;

use super::{Check, Fixture, FixtureAdamW, ParityError, Tolerance, steps};

#[derive(Deserialize)]
struct Meta {
    model: MetaModel,
    coeff: f64,
    optimizer: MetaOptimizer,
    steps: usize,
    total_loss_each_step: Vec<f64>,
    #[serde(flatten)]
    losses: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct MetaModel {
    d_model: usize,
    n_layers: usize,
    head_dim: usize,
    seq_len: usize,
    vocab: usize,
}

#[derive(Deserialize)]
struct MetaOptimizer {
    peak_lr: f64,
    schedule: String,
    #[serde(flatten)]
    adamw: FixtureAdamW,
}

#[derive(Deserialize)]
struct MetaLoss {
    total: f64,
    ntp: f64,
    replay: f64,
}

impl MetaModel {
    fn config(&self, fixture: &Fixture) -> Result<ModelConfig, ParityError> {
        let (d, h) = (self.d_model, self.head_dim);
        if h == 0
            || !h.is_multiple_of(2)
            || d == 0
            || !d.is_multiple_of(h)
            || self.n_layers == 0
            || self.vocab == 0
            || self.seq_len < 2
        {
            return Err(ParityError::Meta("impossible sizes in `model`".into()));
        }
        // Nothing is made of sizes that the file's own tensors do not have.
        let qkv = vec![self.n_layers, 3, d / h, d, h];
        for (name, shape) in [("theta.embed_in", vec![self.vocab, d]), ("theta.qkv", qkv)] {
            let found = fixture.shape(name)?;
            if found != shape {
                return Err(ParityError::Meta(format!(
                    "the sizes in `model` ask for a `{name}` of {shape:?}; it is of {found:?}"
                )));
            }
        }
        Ok(ModelConfig::mini(
            self.d_model,
            self.n_layers,
            self.head_dim,
            self.vocab,
        ))
    }
}

impl MetaOptimizer {
    /// Steps of the linear warm-up, the only schedule the fixtures use.
    fn warmup(&self) -> Result<u64, ParityError> {
        let steps = self
            .schedule
            .strip_prefix("linear warm-up from 0 over ")
            .and_then(|rest| rest.strip_suffix(" steps, then constant"));
        steps
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| ParityError::Meta(format!("unknown schedule `{}`", self.schedule)))
    }
}

/// Weights in the layout of the reference implementation.
fn weights(
    fixture: &Fixture,
    prefix: &'static str,
    layout: &Arc<Layout>,
) -> Result<Params, ParityError> {
    let tensors: BTreeMap<String, Vec<f32>> = fixture
        .file
        .names()
        .into_iter()
        .filter_map(|name| {
            let short = name.strip_prefix(prefix)?.strip_prefix('.')?;
            Some((short.to_owned(), fixture.f32(name)?))
        })
        .collect();
    from_reference_layout(layout, |name| tensors.get(name).map(Vec::as_slice))
        .map_err(|e| ParityError::Weights(prefix, e))
}

/// Checks logits, losses, gradients and updated weights of the small model against a fixture.
///
/// The file holds its sizes and settings as JSON under `meta` in the safetensors header; see the
/// fixture in `tests/fixtures/` for its tensors. `engine` makes what is to be checked. In f32,
/// gradients, logits and losses pass within 1e-4 of the tensor's largest entry, updated weights within
/// 1e-4; in bf16 within 8e-2 and 1e-2.
///
/// # Errors
/// [`ParityError`] when the file cannot be read as such a fixture, or the device fails.
pub fn verify_mini(
    bytes: &[u8],
    engine: impl FnOnce(ModelConfig) -> Result<Engine, EngineError>,
) -> Result<Vec<Check>, ParityError> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let meta = header.metadata().as_ref().and_then(|m| m.get("meta"));
    let meta = meta.ok_or_else(|| ParityError::Meta("missing".into()))?;
    let meta: Meta = serde_json::from_str(meta).map_err(|e| ParityError::Meta(e.to_string()))?;
    let fixture = Fixture {
        file: SafeTensors::deserialize(bytes)?,
    };
    let (t, v) = (meta.model.seq_len, meta.model.vocab);
    let mut engine = engine(meta.model.config(&fixture)?)?;
    let layout = engine.layout().clone();
    let tolerance = Tolerance::of(engine.precision());
    let student = engine.weights(weights(&fixture, "theta", &layout)?)?;
    let reference = engine.weights(weights(&fixture, "pi", &layout)?)?;
    let tokens = fixture.tokens("tokens", t, v)?;
    let replay = fixture.tokens("replay_tokens", t, v)?;
    let mut checks = Vec::new();

    for (name, weights) in [("logits.theta", &student), ("logits.pi", &reference)] {
        let found = engine.logits(weights, &tokens, t)?;
        checks.push(tolerance.relative(name, &found, &fixture.expected(name)?)?);
    }
    let losses = engine.evaluate(&student, None, &tokens, t)?;
    let ntp: Vec<f32> = losses.iter().map(|l: &PositionLoss| l.ntp).collect();
    checks.push(tolerance.relative("ntp.per_token", &ntp, &fixture.expected("ntp.per_token")?)?);

    for name in ["kl_pre", "ntp_pre", "kl_dwn"] {
        let value = meta.losses.get(name);
        let value = value.ok_or_else(|| ParityError::Meta(format!("no `{name}`")))?;
        let expected = MetaLoss::deserialize(value)
            .map_err(|error| ParityError::Meta(format!("`{name}`: {error}")))?;
        let objective = Objective::new(name, &tokens, &replay, t, meta.coeff)?;
        let (report, [ntp, replay_loss]) = objective.run(&mut engine, &student, &reference)?;
        for (part, found, expected) in [
            ("total", report.total, expected.total),
            ("ntp", ntp, expected.ntp),
            ("replay", replay_loss, expected.replay),
        ] {
            checks.push(tolerance.scalar(format!("{name}.{part}"), found, expected));
        }
        for (tensor, found) in to_reference_layout(&layout, &engine.gradients()?.data) {
            let name = format!("grad.{name}.{tensor}");
            checks.push(tolerance.relative(&name, &found, &fixture.expected(&name)?)?);
        }
    }

    let objective = Objective::new("kl_pre", &tokens, &replay, t, meta.coeff)?;
    let o = &meta.optimizer;
    let warmup = o.warmup()?;
    let mut optimizer = engine.optimizer(AdamW::new(o.adamw.config(), layout.len))?;
    let mut trained = student.clone();
    let steps = steps(meta.steps, &meta.total_loss_each_step)?;
    let schedule = forgetlab_study::experiment::Schedule::Constant;
    for step in 0..steps {
        let (report, _) = objective.run(&mut engine, &trained, &reference)?;
        if let Some(expected) = meta.total_loss_each_step.get(step as usize) {
            checks.push(tolerance.scalar(
                format!("total_loss_each_step[{step}]"),
                report.total,
                *expected,
            ));
        }
        let lr = crate::train::settings::learning_rate(o.peak_lr, step, warmup, steps, schedule);
        engine.update(&mut trained, &mut optimizer, lr)?;
    }
    for (tensor, found) in to_reference_layout(&layout, &trained.download()?.data) {
        let name = format!("after.{tensor}");
        let first_gradient = fixture.expected(&format!("grad.kl_pre.{tensor}"))?;
        let expected = fixture.expected(&name)?;
        checks.push(tolerance.absolute(&name, &found, &expected, &first_gradient)?);
    }
    Ok(checks)
}

/// `NTP(tokens) + coeff · replay_loss`, as the fixture names it.
struct Objective<'a> {
    weights: [Vec<f32>; 3],
    /// Batch and kind (0 NTP, 1 KL) of the replay loss.
    replay: (usize, usize),
    tokens: [&'a [u32]; 2],
    seq_len: usize,
}

impl<'a> Objective<'a> {
    fn new(
        name: &str,
        tokens: &'a [u32],
        replay: &'a [u32],
        seq_len: usize,
        coeff: f64,
    ) -> Result<Self, ParityError> {
        let replay_of = match name {
            "kl_pre" => (1, 1),
            "ntp_pre" => (1, 0),
            "kl_dwn" => (0, 1),
            other => return Err(ParityError::Meta(format!("unknown objective `{other}`"))),
        };
        // Mean over B·T, last position zero; `[none, NTP of new, coeff · replay]`.
        let weights = |len: usize, scale: f64| -> Vec<f32> {
            let w = (scale / len as f64) as f32;
            (0..len)
                .map(|i| if i % seq_len + 1 == seq_len { 0.0 } else { w })
                .collect()
        };
        let replay_len = if replay_of.0 == 1 {
            replay.len()
        } else {
            tokens.len()
        };
        Ok(Self {
            weights: [
                vec![0.0; tokens.len().max(replay.len())],
                weights(tokens.len(), 1.0),
                weights(replay_len, coeff),
            ],
            replay: replay_of,
            tokens: [tokens, replay],
            seq_len,
        })
    }

    /// Losses and gradients at `student`: the report, and NTP and replay loss in the paper's reduction.
    fn run(
        &self,
        engine: &mut Engine,
        student: &Weights,
        reference: &Weights,
    ) -> Result<(LossReport, [f64; 2]), EngineError> {
        let [zeros, ntp, replay] = &self.weights;
        let mut batches = Vec::new();
        for (i, tokens) in self.tokens.iter().enumerate() {
            if i == 1 && self.replay.0 == 0 {
                continue;
            }
            let zeros = &zeros[..tokens.len()];
            let pick = |kind: usize| -> &[f32] {
                if self.replay == (i, kind) {
                    replay
                } else if (i, kind) == (0, 0) {
                    ntp
                } else {
                    zeros
                }
            };
            batches.push(LossBatch {
                tokens,
                seq_len: self.seq_len,
                ntp_weights: pick(0),
                kl_weights: pick(1),
            });
        }
        let report = engine.forward_backward(student, Some(reference), &batches)?;
        let mean = |batch: usize, kl: bool| {
            let rows = &report.rows[batch];
            let sum: f64 = rows.iter().map(|r| if kl { r.kl } else { r.ntp }).sum();
            sum / (rows.len() * self.seq_len) as f64
        };
        let losses = [mean(0, false), mean(self.replay.0, self.replay.1 == 1)];
        Ok((report, losses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forgetlab_engine::Hardware;

    const FIXTURE: &[u8] = include_bytes!("../../../../tests/fixtures/mini-parity.safetensors");

    fn on_cpu(threads: usize) -> impl FnOnce(ModelConfig) -> Result<Engine, EngineError> {
        move |config| Engine::new(config, &Hardware::cpu(threads))
    }

    #[test]
    fn engine_agrees_with_the_independent_implementation() {
        for threads in [1, 2, 3] {
            let checks = verify_mini(FIXTURE, on_cpu(threads)).unwrap();
            assert_eq!(checks.len(), 3 + 3 * 9 + 6 + 6);
            for check in checks {
                assert!(check.passed(), "{check:?}");
            }
        }
    }

    /// One number wrong by ten tolerances is found, and its tensor named.
    #[test]
    fn a_changed_number_fails_and_names_its_tensor() {
        let file = SafeTensors::deserialize(FIXTURE).unwrap();
        for (name, relative) in [
            ("grad.ntp_pre.up", true),
            ("logits.pi", true),
            ("after.qkv", false),
            ("after.embed_in", false),
        ] {
            let tensor = file.tensor(name).unwrap();
            let fixture = Fixture {
                file: SafeTensors::deserialize(FIXTURE).unwrap(),
            };
            let numbers = fixture.f32(name).unwrap();
            let largest = numbers.iter().fold(0f32, |a, b| a.max(b.abs()));
            let gradient = fixture.f32(&name.replace("after", "grad.kl_pre")).unwrap();
            let index = (0..numbers.len())
                .rev()
                .find(|&i| gradient[i].abs() > 1e-5)
                .unwrap();
            let delta = if relative { 1e-3 * largest } else { 1e-3 };
            let mut bytes = FIXTURE.to_vec();
            let at = tensor.data().as_ptr() as usize - FIXTURE.as_ptr() as usize + 4 * index;
            bytes[at..at + 4].copy_from_slice(&(numbers[index] + delta).to_le_bytes());
            let failed: Vec<_> = verify_mini(&bytes, on_cpu(2))
                .unwrap()
                .into_iter()
                .filter(|c| !c.passed())
                .collect();
            assert_eq!(failed.len(), 1, "{name}: {failed:?}");
            assert_eq!(failed[0].name, name);
            assert_eq!(failed[0].worst, index);
        }
    }

    /// The fixture with other settings in its header.
    fn with_meta(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
        let len = u64::from_le_bytes(FIXTURE[..8].try_into().unwrap()) as usize;
        let (header, data) = FIXTURE[8..].split_at(len);
        let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
        let meta = &mut header["__metadata__"]["meta"];
        let mut value = serde_json::from_str(meta.as_str().unwrap()).unwrap();
        change(&mut value);
        *meta = value.to_string().into();
        let mut header = header.to_string();
        header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
        let len = header.len() as u64;
        [&len.to_le_bytes(), header.as_bytes(), data].concat()
    }

    /// Else somebody's fixture would take all memory, or all night.
    #[test]
    fn sizes_and_steps_that_the_file_does_not_have_are_refused() {
        let huge: serde_json::Value = (1_u64 << 63).into();
        let verify = |bytes: Vec<u8>| verify_mini(&bytes, on_cpu(1)).unwrap_err().to_string();
        for key in ["n_layers", "vocab", "d_model", "head_dim", "seq_len"] {
            for value in [huge.clone(), 0.into()] {
                let error = verify(with_meta(|meta| meta["model"][key] = value));
                assert!(!error.is_empty(), "{key}");
            }
        }
        let error = verify(with_meta(|meta| meta["model"]["n_layers"] = huge.clone()));
        assert!(error.contains("theta.qkv"), "{error}");
        let error = verify(with_meta(|meta| meta["steps"] = huge));
        assert!(error.contains("`steps` is 9223372036854775808"), "{error}");
        assert!(verify_mini(&with_meta(|_| {}), on_cpu(1)).is_ok());
    }

    #[test]
    fn a_truncated_fixture_is_an_error() {
        assert!(matches!(
            verify_mini(&FIXTURE[..FIXTURE.len() / 2], on_cpu(1)),
            Err(ParityError::File(_))
        ));
        assert!(matches!(
            verify_mini(b"not a fixture at all", on_cpu(1)),
            Err(ParityError::File(_))
        ));
    }
}

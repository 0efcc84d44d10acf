//! Whole models on the engine's threads: gradients against differences of the loss, and the same bits.

use std::sync::Arc;

use crate::adamw::{AdamW, AdamWConfig};
use crate::batch::{LossBatch, LossReport, Query};
use crate::model::{
    Blocks, Layout, Lora, LoraConfig, LoraLayout, Mlp, ModelConfig, ModelRef, Norms, Params, Parts,
    QkGains, Window,
};
use crate::ops::Precision;
use crate::ops::head::PositionLoss;
use crate::ops::rope::{Rope, RopeScaling};
use crate::ops::simd::InstructionSet;
use crate::ops::tests::UNIT;
use crate::random::Stream;

use super::Engine;

const MINI: ModelConfig = ModelConfig::mini(8, 2, 4, 11);

/// The Llama family's parts, in sizes that are not multiples of registers or tiles.
const LLAMA: ModelConfig = ModelConfig {
    rope: Rope {
        base: 500.0,
        scaling: Some(RopeScaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 16.0,
        }),
    },
    ..ModelConfig::llama(7, 2, [6, 2, 4], 13, 11)
};

/// Parts of both: each is chosen by itself.
const MIXED: ModelConfig = ModelConfig {
    qk_norm: true,
    tied_embeddings: false,
    mlp: Mlp::Gelu,
    ..LLAMA
};

/// Each way of a part that is unlike Llama: gains stored less 1 and norms around, of each head; a window shorter than
/// most rows in one block, no rotation in the other.
pub(super) const AROUND: ModelConfig = ModelConfig {
    mlp: Mlp::GeGlu,
    parts: Parts {
        qkv_bias: true,
        qk_gains: QkGains::Head,
        norms: Norms::Around,
        gain_offset: 1.0,
        attention_scale: Some(0.4),
        embedding_scale: 2.5,
        residual_scale: 0.6,
        logits_scale: 0.7,
        unrotated: Blocks::from_bits(0b10),
        window: Some(Window {
            blocks: Blocks::from_bits(0b01),
            len: 5,
            rope: Some(Rope {
                base: 20.0,
                scaling: None,
            }),
        }),
    },
    ..LLAMA
};

/// Norms after, and of all queries and all keys together.
pub(super) const AFTER: ModelConfig = ModelConfig {
    parts: Parts {
        qk_gains: QkGains::Projection,
        norms: Norms::After,
        ..Parts::LLAMA
    },
    ..LLAMA
};

const CONFIGS: [ModelConfig; 5] = [MINI, LLAMA, MIXED, AROUND, AFTER];

/// Token no batch holds.
const ABSENT: u32 = 10;

struct Batch {
    tokens: Vec<u32>,
    seq_len: usize,
    ntp_weights: Vec<f32>,
    kl_weights: Vec<f32>,
}

impl Batch {
    /// `rows` random rows; weights so that each of the two losses is `ntp`, `kl` times its mean over targets.
    fn new(rows: usize, seq_len: usize, ntp: f32, kl: f32) -> Self {
        let mut random = Stream::new(1, "tokens").at((rows * 1000 + seq_len) as u64);
        let tokens = (0..rows * seq_len).map(|_| random.below(u64::from(ABSENT)) as u32);
        let targets = (rows * (seq_len - 1)).max(1) as f32;
        let weights = |total: f32| -> Vec<f32> {
            let last = |i: usize| i % seq_len + 1 == seq_len;
            let weight = |i| if last(i) { 0.0 } else { total / targets };
            (0..rows * seq_len).map(weight).collect()
        };
        Self {
            tokens: tokens.collect(),
            seq_len,
            ntp_weights: weights(ntp),
            kl_weights: weights(kl),
        }
    }

    /// The same without weights on the first part of each row, as prompts have none.
    fn masked(rows: usize, seq_len: usize, ntp: f32, kl: f32) -> Self {
        let mut batch = Self::new(rows, seq_len, ntp, kl);
        for weights in [&mut batch.ntp_weights, &mut batch.kl_weights] {
            for (row, weights) in weights.chunks_mut(seq_len).enumerate() {
                weights[..(seq_len / 2 + row) % seq_len].fill(0.0);
            }
        }
        batch
    }

    fn loss(&self) -> LossBatch<'_> {
        LossBatch {
            tokens: &self.tokens,
            seq_len: self.seq_len,
            ntp_weights: &self.ntp_weights,
            kl_weights: &self.kl_weights,
        }
    }
}

/// Every kind of model with every instruction set of the CPU.
fn cases() -> Vec<(Models, InstructionSet)> {
    let levels = InstructionSet::available();
    CONFIGS
        .into_iter()
        .map(Models::new)
        .flat_map(|models| levels.iter().map(move |&level| (models.clone(), level)))
        .collect()
}

/// A student and a reference of one layout.
#[derive(Clone)]
struct Models {
    layout: Arc<Layout>,
    student: Params,
    reference: Params,
}

impl Models {
    fn new(config: ModelConfig) -> Self {
        let layout = Layout::new(config);
        let init = |purpose| {
            let mut params = Params::init(&layout, &Stream::new(5, purpose));
            // Gains of one, and no biases, would hide where they belong.
            let mut random = Stream::new(6, purpose).at(0);
            let vectors = layout.entries.iter().filter(|e| e.is_vector());
            for x in vectors.flat_map(|e| e.range.clone()) {
                params.data[x] += 0.3 * random.normal();
            }
            params
        };
        let (student, reference) = (init("student"), init("reference"));
        Self {
            layout,
            student,
            reference,
        }
    }

    /// An engine whose threads use an instruction set.
    fn engine(&self, threads: usize, level: InstructionSet) -> Engine {
        let engine = Engine::new(&self.layout, threads, Precision::F32).unwrap();
        engine
            .pool()
            .broadcast(|_| InstructionSet::force(Some(level)));
        engine
    }

    fn run(&self, engine: &mut Engine, student: &Params, batches: &[Batch]) -> LossReport {
        let batches: Vec<_> = batches.iter().map(Batch::loss).collect();
        engine.forward_backward(student, Some(&self.reference), &batches)
    }
}

/// The chain rule through the whole model: a tensor whose gradient is a little wrong learns a
/// little wrong, and no loss curve would tell.
///
/// Differences of an f32 loss: at a step of 0.02 the fourth-order formula leaves about 1e-6 of the small
/// model's curvature, and rounding of the mean over targets, about `8 UNIT` of the loss, leaves
/// `8 · UNIT · 2.4 · coeff / 0.02 = 6e-5 · coeff`; the largest entries are near 0.1 to 1.
#[test]
fn gradients_of_every_tensor_are_differences_of_the_loss() {
    // NTP of new rows and KL of replayed rows, of other lengths; then each alone, then both on one row.
    let studies = [
        vec![Batch::new(3, 7, 1.0, 0.0), Batch::new(2, 12, 0.0, 1.0)],
        vec![Batch::new(2, 9, 1.0, 0.0)],
        vec![Batch::new(1, 29, 0.0, 1.0), Batch::new(5, 2, 0.0, 0.5)],
        vec![Batch::new(1, 5, 0.7, 1.5), Batch::new(4, 1, 0.0, 0.0)],
        vec![
            Batch::masked(3, 7, 2.0, 0.0),
            Batch::masked(2, 12, 0.5, 1.0),
        ],
    ];
    for (models, level) in cases() {
        // Grouped queries and gains bend the loss more.
        let step = if models.layout.config == MINI {
            0.02
        } else {
            0.005
        };
        let mut engine = models.engine(1, level);
        for (study, batches) in studies.iter().enumerate() {
            models.run(&mut engine, &models.student, batches);
            let gradients = engine.gradients();
            let mut moved = models.student.clone();
            let mut loss_at = |i: usize, x: f32| {
                let old = std::mem::replace(&mut moved.data[i], x);
                let total = models.run(&mut engine, &moved, batches).total;
                moved.data[i] = old;
                // What was really moved, after rounding.
                (total, f64::from(x))
            };
            let mut pick = Stream::new(2, "entries").at(study as u64);
            for (name, shape, gradient) in gradients.tensors() {
                let entry = models
                    .layout
                    .entries
                    .iter()
                    .find(|e| e.name == name)
                    .unwrap();
                let largest = gradient.iter().fold(0f32, |a, g| a.max(g.abs()));
                assert!(largest > 1e-3, "{name}: no gradient to speak of");
                for _ in 0..6 {
                    let i = pick.below(gradient.len() as u64) as usize;
                    let at = models.student.data[entry.range.start + i];
                    let mut slope = |step: f32| {
                        let (up, x1) = loss_at(entry.range.start + i, at + step);
                        let (down, x0) = loss_at(entry.range.start + i, at - step);
                        (up - down) / (x1 - x0)
                    };
                    let difference = (4.0 * slope(step) - slope(2.0 * step)) / 3.0;
                    let error = (f64::from(gradient[i]) - difference).abs();
                    assert!(
                        error < 2e-6 / f64::from(step) + 1e-3 * f64::from(largest),
                        "study {study}, {name} ({}, {}), {level:?}: gradient {}, differences say {difference}",
                        i / shape[1],
                        i % shape[1],
                        gradient[i]
                    );
                }
            }
            let config = models.layout.config;
            let row = ABSENT as usize * config.d_model;
            let absent = &gradients.data[models.layout.embed_in()][row..];
            assert!(
                // Tied, it learns not to be written.
                config.tied_embeddings || absent.iter().all(|&g| g == 0.0),
                "a token that is not there learnt"
            );
        }
    }
}

/// Adapters stand on every kind of block: else they would learn a little wrong beside its norms, biases and factors.
#[test]
fn gradients_of_adapters_are_differences_of_the_loss() {
    const STEP: f32 = 1e-3;
    let config = LoraConfig {
        rank: 2,
        alpha: 3.0,
    };
    let batches = [Batch::new(3, 7, 1.0, 0.0), Batch::new(2, 12, 0.0, 1.0)];
    let losses: Vec<_> = batches.iter().map(Batch::loss).collect();
    for model in CONFIGS {
        let models = Models::new(model);
        let layout = LoraLayout::new(config, &models.layout);
        let mut lora = Lora::init(&layout, &Stream::new(7, "lora"));
        let mut random = Stream::new(8, "lora").at(0);
        lora.data
            .iter_mut()
            .for_each(|x| *x += 0.3 * random.normal());
        let mut engine = models.engine(1, InstructionSet::detect());
        let mut run = |lora: &Lora| {
            let student = ModelRef {
                params: &models.student,
                lora: Some(lora),
            };
            let report = engine.forward_backward(student, Some(&models.reference), &losses);
            (report.total, engine.adapter_gradients(&layout))
        };
        let (_, gradient) = run(&lora);
        for (i, (name, _, range)) in lora.places().enumerate() {
            let mut random = Stream::new(9, "direction").at(i as u64);
            let direction: Vec<f32> = range.clone().map(|_| random.normal()).collect();
            let mut shifted = |by: f32| {
                let mut lora = lora.clone();
                let numbers = lora.data[range.clone()].iter_mut();
                numbers.zip(&direction).for_each(|(x, d)| *x += by * d);
                run(&lora).0
            };
            let expected = (shifted(STEP) - shifted(-STEP)) / f64::from(2.0 * STEP);
            let along: f64 = gradient.data[range]
                .iter()
                .zip(&direction)
                .map(|(g, d)| f64::from(*g) * f64::from(*d))
                .sum();
            let error = (along - expected).abs() / expected.abs().max(0.1);
            assert!(error < 1e-2, "{name}: {along} {expected}");
        }
    }
}

/// What a step minimises is what an evaluation shows: a term left out of both the loss and its
/// gradient would pass every difference.
#[test]
fn training_losses_are_those_of_evaluation() {
    let study = [
        Batch::new(3, 7, 0.7, 1.5),
        Batch::new(2, 12, 1.0, 0.0),
        Batch::new(5, 29, 0.0, 1.0),
        Batch::masked(4, 9, 0.7, 1.0),
    ];
    for (models, level) in cases() {
        let mut engine = models.engine(2, level);
        let report = models.run(&mut engine, &models.student, &study);
        let mut total = 0.0;
        for (i, batch) in study.iter().enumerate() {
            let reference = Some(&models.reference);
            let losses = engine.evaluate(
                &models.student,
                reference,
                &batch.tokens,
                batch.seq_len,
                None,
            );
            let weights = batch.ntp_weights.iter().zip(&batch.kl_weights);
            for (loss, (&ntp, &kl)) in losses.iter().zip(weights) {
                assert!(
                    loss.kl > 0.0 || ntp + kl == 0.0,
                    "{loss:?}: no KL to speak of"
                );
                total += f64::from(ntp) * f64::from(loss.ntp) + f64::from(kl) * f64::from(loss.kl);
            }
            let loss = batch.loss();
            let has_weight: Vec<bool> = (0..losses.len()).map(loss.counts()).collect();
            let rows = losses
                .chunks(batch.seq_len)
                .zip(has_weight.chunks(batch.seq_len));
            for (row, (losses, has_weight)) in report.rows[i].iter().zip(rows) {
                let sum = |f: fn(&PositionLoss) -> f32| -> f64 {
                    let weighted = losses.iter().zip(has_weight).filter(|(_, has)| **has);
                    weighted.map(|(loss, _)| f64::from(f(loss))).sum()
                };
                let case = format!("batch {i}, {level:?}: {row:?}");
                assert!((row.ntp - sum(|l| l.ntp)).abs() < 1e-5 * row.ntp, "{case}");
                // A batch without KL weights has no KL taken.
                let kl = if i == 1 { 0.0 } else { sum(|l| l.kl) };
                assert!((row.kl - kl).abs() <= 1e-5 * kl, "{case}");
            }
        }
        assert!(
            (report.total - total).abs() < 1e-6 * total,
            "{level:?}: {} {total}",
            report.total
        );
    }
}

/// Results of some updates.
#[derive(Debug, PartialEq)]
struct Trained {
    reports: Vec<LossReport>,
    /// Gradient of the last step.
    gradient: Params,
    student: Params,
    /// Norms of all gradients.
    norms: Vec<f64>,
}

/// Trains for three updates.
fn train(models: &Models, threads: usize, level: InstructionSet) -> Trained {
    let mut engine = models.engine(threads, level);
    let config = AdamWConfig {
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
    };
    let mut optimizer = AdamW::new(config, models.layout.len);
    // Five micro-batches and two: lanes with a share of each, and some with none.
    let batches = [Batch::new(19, 57, 1.0, 0.0), Batch::new(9, 29, 0.2, 1.0)];
    let mut student = models.student.clone();
    let (mut reports, mut norms) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut report = models.run(&mut engine, &student, &batches);
        report.seconds.clear();
        reports.push(report);
        norms.push(engine.update(&mut student, &mut optimizer, 1e-2));
    }
    Trained {
        reports,
        gradient: engine.gradients(),
        student,
        norms,
    }
}

/// A run resumed on one core must go on as it went on two; a repeated run must repeat its figures.
#[test]
fn one_and_two_threads_give_the_same_bits_three_agree_to_rounding() {
    for (models, level) in cases() {
        let two = train(&models, 2, level);
        assert_eq!(
            two,
            train(&models, 2, level),
            "two threads, twice, {level:?}"
        );
        assert_eq!(
            two,
            train(&models, 1, level),
            "one thread against two, {level:?}"
        );
        let three = train(&models, 3, level);
        assert_eq!(
            three,
            train(&models, 3, level),
            "three threads, twice, {level:?}"
        );
        for (a, b) in two.reports.iter().zip(&three.reports) {
            // Adam divides by the gradient's size: where that is all rounding, so is its step.
            assert!(
                (a.total - b.total).abs() < 1e-5 * a.total,
                "{} {}",
                a.total,
                b.total
            );
            for (a, b) in a.rows.iter().flatten().zip(b.rows.iter().flatten()) {
                assert!((a.ntp - b.ntp).abs() <= 1e-5 * a.ntp, "{a:?} {b:?}");
                assert!((a.kl - b.kl).abs() <= 1e-4 * a.kl, "{a:?} {b:?}");
            }
        }
    }
}

/// Before any update three threads differ from two in the order of a few sums alone.
#[test]
fn gradients_of_three_threads_are_those_of_two_but_for_the_order_of_sums() {
    let batches = [Batch::new(19, 57, 1.0, 0.0), Batch::new(9, 29, 0.2, 1.0)];
    for (models, level) in cases() {
        let [(two, g2), (three, g3)] = [2, 3].map(|threads| {
            let mut engine = models.engine(threads, level);
            let report = models.run(&mut engine, &models.student, &batches);
            (report, engine.gradients())
        });
        assert_eq!(two.rows, three.rows, "{level:?}");
        for ((name, _, a), (_, _, b)) in g2.tensors().zip(g3.tensors()) {
            let largest = a.iter().fold(0f32, |x, y| x.max(y.abs()));
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                let error = f64::from((a - b).abs());
                // Some 1300 rounded terms, in another order.
                let tolerance = 1300f64.sqrt() * UNIT * f64::from(largest);
                assert!(
                    error <= tolerance,
                    "{name} entry {i}, {level:?}: {a} against {b}"
                );
            }
        }
    }
}

/// Rows have the same weight however they are divided into batches: accumulation changes nothing.
#[test]
fn rows_in_two_batches_give_the_loss_and_gradient_of_one() {
    let whole = Batch::new(9, 15, 1.0, 0.5);
    let cut = 4 * 15;
    let part = |range: std::ops::Range<usize>| Batch {
        tokens: whole.tokens[range.clone()].to_vec(),
        seq_len: 15,
        ntp_weights: whole.ntp_weights[range.clone()].to_vec(),
        kl_weights: whole.kl_weights[range].to_vec(),
    };
    let parts = [part(0..cut), part(cut..9 * 15)];
    for (models, level) in cases() {
        let mut engine = models.engine(2, level);
        let one = models.run(&mut engine, &models.student, std::slice::from_ref(&whole));
        let g1 = engine.gradients();
        let two = models.run(&mut engine, &models.student, &parts);
        let g2 = engine.gradients();
        assert!((one.total - two.total).abs() < 1e-12, "{level:?}");
        assert_eq!(one.rows.concat(), two.rows.concat(), "{level:?}");
        let largest = g1.data.iter().fold(0f32, |x, y| x.max(y.abs()));
        for (a, b) in g1.data.iter().zip(&g2.data) {
            assert!((a - b).abs() < 1e-5 * largest, "{level:?}: {a} against {b}");
        }
    }
}

/// Multiple choice and masked evaluation must score positions as a whole evaluation does: leaving positions out
/// of the head may not change the others.
#[test]
fn positions_scored_alone_score_as_among_all() {
    for (models, level) in cases() {
        let mut engine = models.engine(2, level);
        let Batch {
            tokens, seq_len, ..
        } = Batch::new(5, 13, 1.0, 0.0);
        let all = engine.evaluate(
            &models.student,
            Some(&models.reference),
            &tokens,
            seq_len,
            None,
        );
        for every in [1, 3, 64, 1000] {
            let wanted: Vec<bool> = (0..tokens.len()).map(|i| i % every == every - 1).collect();
            let reference = Some(&models.reference);
            let some = engine.evaluate(&models.student, reference, &tokens, seq_len, Some(&wanted));
            for (i, (some, all)) in some.iter().zip(&all).enumerate() {
                let expected = if wanted[i] {
                    *all
                } else {
                    PositionLoss::default()
                };
                assert_eq!(*some, expected, "position {i}, {level:?}");
            }
        }
        let queries: Vec<Query> = [31, 3, 64, 4, 31]
            .into_iter()
            .map(|position| Query {
                position,
                candidates: vec![tokens[(position + 1) % tokens.len()], ABSENT, 0],
            })
            .collect();
        let answers = engine.log_probs(&models.student, &tokens, seq_len, &queries);
        let logits = engine.logits(&models.student, &tokens, seq_len);
        let v = models.layout.config.vocab_size;
        assert_eq!(answers.len(), queries.len());
        for (query, log_probs) in queries.iter().zip(answers) {
            let logits = &logits[query.position * v..][..v];
            let sum: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
            for (token, log_prob) in query.candidates.iter().zip(log_probs) {
                let expected = f64::from(logits[*token as usize]) - sum.ln();
                let error = (f64::from(log_prob) - expected).abs();
                assert!(error < 1e-5, "{query:?}, {level:?}: {log_prob} {expected}");
            }
            if (query.position + 1) % seq_len != 0 {
                let ntp = all[query.position].ntp;
                let alone = engine.log_probs(
                    &models.student,
                    &tokens,
                    seq_len,
                    std::slice::from_ref(query),
                );
                assert!((alone[0][0] + ntp).abs() < 1e-5, "{alone:?} {ntp}");
            }
        }
    }
}

//! The whole model on the engine's threads: gradients by differences of its own loss, and bits.

use std::sync::Arc;

use crate::adamw::{AdamW, AdamWConfig};
use crate::batch::{LossBatch, LossReport, Query};
use crate::cpu::Engine;
use crate::ops::Precision;
use crate::ops::head::PositionLoss;
use crate::ops::rope::{Rope, RopeScaling};
use crate::ops::simd::InstructionSet;
use crate::ops::tests::UNIT;
use crate::random::Stream;

use super::{Layout, Mlp, ModelConfig, Params};

const MINI: ModelConfig = ModelConfig::mini(8, 2, 4, 11);

/// The Llama family's parts, in sizes that are multiples of nothing.
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

/// A part here, a part there: each is chosen by itself.
const BETWEEN: ModelConfig = ModelConfig {
    qk_norm: true,
    tied_embeddings: false,
    mlp: Mlp::Gelu,
    ..LLAMA
};

const CONFIGS: [ModelConfig; 3] = [MINI, LLAMA, BETWEEN];

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

/// Every kind of model at every level of the CPU.
fn cases() -> Vec<(Lab, InstructionSet)> {
    let labs = CONFIGS.into_iter().map(Lab::new);
    labs.flat_map(|lab| {
        InstructionSet::available()
            .into_iter()
            .map(move |level| (lab.clone(), level))
    })
    .collect()
}

#[derive(Clone)]
struct Lab {
    layout: Arc<Layout>,
    student: Params,
    reference: Params,
}

impl Lab {
    fn new(config: ModelConfig) -> Self {
        let layout = Layout::new(config);
        let init = |purpose| {
            let mut params = Params::init(&layout, &Stream::new(5, purpose));
            // Gains of one would hide where they belong.
            let mut random = Stream::new(6, purpose).at(0);
            let gains = layout.entries.iter().filter(|e| e.name.ends_with("_norm"));
            for x in gains.flat_map(|e| e.range.clone()) {
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

    /// An engine whose threads, and the calling one, are held to a level.
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
    for (lab, level) in cases() {
        // Grouped queries and gains bend the loss more.
        let step = if lab.layout.config == MINI {
            0.02
        } else {
            0.005
        };
        let mut engine = lab.engine(1, level);
        for (study, batches) in studies.iter().enumerate() {
            lab.run(&mut engine, &lab.student, batches);
            let gradients = engine.gradients();
            let mut moved = lab.student.clone();
            let mut loss_at = |i: usize, x: f32| {
                let old = std::mem::replace(&mut moved.data[i], x);
                let total = lab.run(&mut engine, &moved, batches).total;
                moved.data[i] = old;
                // What was really moved, after rounding.
                (total, f64::from(x))
            };
            let mut pick = Stream::new(2, "entries").at(study as u64);
            for (name, shape, found) in gradients.tensors() {
                let entry = lab.layout.entries.iter().find(|e| e.name == name).unwrap();
                let largest = found.iter().fold(0f32, |a, g| a.max(g.abs()));
                assert!(largest > 1e-3, "{name}: no gradient to speak of");
                for _ in 0..6 {
                    let i = pick.below(found.len() as u64) as usize;
                    let at = lab.student.data[entry.range.start + i];
                    let mut slope = |step: f32| {
                        let (up, x1) = loss_at(entry.range.start + i, at + step);
                        let (down, x0) = loss_at(entry.range.start + i, at - step);
                        (up - down) / (x1 - x0)
                    };
                    let difference = (4.0 * slope(step) - slope(2.0 * step)) / 3.0;
                    let error = (f64::from(found[i]) - difference).abs();
                    assert!(
                        error < 2e-6 / f64::from(step) + 1e-3 * f64::from(largest),
                        "study {study}, {name} ({}, {}), {level:?}: gradient {}, differences say {difference}",
                        i / shape[1],
                        i % shape[1],
                        found[i]
                    );
                }
            }
            let config = lab.layout.config;
            let row = ABSENT as usize * config.d_model;
            let absent = &gradients.data[lab.layout.embed_in()][row..];
            assert!(
                // Tied, it learns not to be written.
                config.tied_embeddings || absent.iter().all(|&g| g == 0.0),
                "a token that is not there learnt"
            );
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
    for (lab, level) in cases() {
        let mut engine = lab.engine(2, level);
        let report = lab.run(&mut engine, &lab.student, &study);
        let mut total = 0.0;
        for (i, batch) in study.iter().enumerate() {
            let reference = Some(&lab.reference);
            let losses =
                engine.evaluate(&lab.student, reference, &batch.tokens, batch.seq_len, None);
            let weights = batch.ntp_weights.iter().zip(&batch.kl_weights);
            for (loss, (&ntp, &kl)) in losses.iter().zip(weights) {
                assert!(
                    loss.kl > 0.0 || ntp + kl == 0.0,
                    "{loss:?}: no KL to speak of"
                );
                total += f64::from(ntp) * f64::from(loss.ntp) + f64::from(kl) * f64::from(loss.kl);
            }
            let counts: Vec<bool> = batch.loss().weighs().collect();
            let rows = losses
                .chunks(batch.seq_len)
                .zip(counts.chunks(batch.seq_len));
            for (row, (losses, counts)) in report.rows[i].iter().zip(rows) {
                let sum = |f: fn(&PositionLoss) -> f32| -> f64 {
                    let counted = losses.iter().zip(counts).filter(|(_, counts)| **counts);
                    counted.map(|(l, _)| f64::from(f(l))).sum()
                };
                let what = format!("batch {i}, {level:?}: {row:?}");
                assert!((row.ntp - sum(|l| l.ntp)).abs() < 1e-5 * row.ntp, "{what}");
                // A batch without KL weights has no KL taken.
                let kl = if i == 1 { 0.0 } else { sum(|l| l.kl) };
                assert!((row.kl - kl).abs() <= 1e-5 * kl, "{what}");
            }
        }
        assert!(
            (report.total - total).abs() < 1e-6 * total,
            "{level:?}: {} {total}",
            report.total
        );
    }
}

/// Losses, gradient and weights after three updates.
fn train(
    lab: &Lab,
    threads: usize,
    level: InstructionSet,
) -> (Vec<LossReport>, Params, Params, Vec<f64>) {
    let mut engine = lab.engine(threads, level);
    let config = AdamWConfig {
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
    };
    let mut optimizer = AdamW::new(config, lab.layout.len);
    // Five micro-batches and two: lanes with a share of each, and some with none.
    let batches = [Batch::new(19, 57, 1.0, 0.0), Batch::new(9, 29, 0.2, 1.0)];
    let mut student = lab.student.clone();
    let (mut reports, mut norms) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut report = lab.run(&mut engine, &student, &batches);
        report.seconds.clear();
        reports.push(report);
        norms.push(engine.update(&mut student, &mut optimizer, 1e-2));
    }
    (reports, engine.gradients(), student, norms)
}

/// A run resumed on one core must go on as it went on two; a repeated run must repeat its figures.
#[test]
fn one_and_two_threads_give_the_same_bits_three_agree_to_rounding() {
    for (lab, level) in cases() {
        let two = train(&lab, 2, level);
        assert_eq!(two, train(&lab, 2, level), "two threads, twice, {level:?}");
        assert_eq!(
            two,
            train(&lab, 1, level),
            "one thread against two, {level:?}"
        );
        let three = train(&lab, 3, level);
        assert_eq!(
            three,
            train(&lab, 3, level),
            "three threads, twice, {level:?}"
        );
        for (a, b) in two.0.iter().zip(&three.0) {
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
    for (lab, level) in cases() {
        let [(two, g2), (three, g3)] = [2, 3].map(|threads| {
            let mut engine = lab.engine(threads, level);
            let report = lab.run(&mut engine, &lab.student, &batches);
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

/// A batch's rows, however they are cut into batches, weigh the same: accumulation changes nothing.
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
    for (lab, level) in cases() {
        let mut engine = lab.engine(2, level);
        let one = lab.run(&mut engine, &lab.student, std::slice::from_ref(&whole));
        let g1 = engine.gradients();
        let two = lab.run(&mut engine, &lab.student, &parts);
        let g2 = engine.gradients();
        assert!((one.total - two.total).abs() < 1e-12, "{level:?}");
        assert_eq!(one.rows.concat(), two.rows.concat(), "{level:?}");
        let largest = g1.data.iter().fold(0f32, |x, y| x.max(y.abs()));
        for (a, b) in g1.data.iter().zip(&g2.data) {
            assert!((a - b).abs() < 1e-5 * largest, "{level:?}: {a} against {b}");
        }
    }
}

/// Multiple choice and masked evaluation must score as the whole does: what is left out of the head
/// may not change what is not.
#[test]
fn positions_scored_alone_score_as_among_all() {
    for (lab, level) in cases() {
        let mut engine = lab.engine(2, level);
        let Batch {
            tokens, seq_len, ..
        } = Batch::new(5, 13, 1.0, 0.0);
        let all = engine.evaluate(&lab.student, Some(&lab.reference), &tokens, seq_len, None);
        for every in [1, 3, 64, 1000] {
            let wanted: Vec<bool> = (0..tokens.len()).map(|i| i % every == every - 1).collect();
            let reference = Some(&lab.reference);
            let some = engine.evaluate(&lab.student, reference, &tokens, seq_len, Some(&wanted));
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
        let found = engine.log_probs(&lab.student, &tokens, seq_len, &queries);
        let logits = engine.logits(&lab.student, &tokens, seq_len);
        let v = lab.layout.config.vocab_size;
        assert_eq!(found.len(), queries.len());
        for (query, found) in queries.iter().zip(found) {
            let logits = &logits[query.position * v..][..v];
            let sum: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
            for (token, found) in query.candidates.iter().zip(found) {
                let expected = f64::from(logits[*token as usize]) - sum.ln();
                let error = (f64::from(found) - expected).abs();
                assert!(error < 1e-5, "{query:?}, {level:?}: {found} {expected}");
            }
            if (query.position + 1) % seq_len != 0 {
                let ntp = all[query.position].ntp;
                let first =
                    engine.log_probs(&lab.student, &tokens, seq_len, std::slice::from_ref(query));
                assert!((first[0][0] + ntp).abs() < 1e-5, "{first:?} {ntp}");
            }
        }
    }
}

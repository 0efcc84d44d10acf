//! The vocabulary projection with cross entropy and KL.

use crate::ops::Precision;
use crate::ops::head::{self, Backward, PositionLoss, Positions, Scratch};
use crate::ops::linear::Linear;
use crate::ops::simd::LANES;

use super::{Differences, check_values, dot, each_level, exact, normals};

/// `log softmax` of a position's logits.
fn log_probs(hidden: &[f64], embed: &[f64]) -> Vec<f64> {
    let logits: Vec<f64> = embed.chunks(hidden.len()).map(|e| dot(hidden, e)).collect();
    let lse = logits.iter().map(|z| z.exp()).sum::<f64>().ln();
    logits.into_iter().map(|z| z - lse).collect()
}

/// Cross entropy and KL(reference || student) of each position.
fn losses(
    hidden: &[f64],
    embed: &[f64],
    targets: &[u32],
    reference: Option<&[Vec<f64>]>,
) -> Vec<(f64, f64)> {
    let d = hidden.len() / targets.len();
    let score = |(m, hidden): (usize, &[f64])| {
        let log_q = log_probs(hidden, embed);
        let kl = |log_p: &[f64]| -> f64 {
            log_p
                .iter()
                .zip(&log_q)
                .map(|(p, q)| p.exp() * (p - q))
                .sum()
        };
        (
            -log_q[targets[m] as usize],
            reference.map_or(0.0, |log_p| kl(&log_p[m])),
        )
    };
    hidden.chunks(d).enumerate().map(score).collect()
}

struct Case {
    /// M, V, D.
    sizes: [usize; 3],
    /// Which losses have weights.
    ntp: bool,
    kl: bool,
}

impl Case {
    fn run(&self, scratch: &mut Scratch) {
        let [m, v, d] = self.sizes;
        let hidden = normals("hidden", m * d);
        let embed: Vec<f32> = normals("embed", v * d);
        // A reference not far away, as in training.
        let moved = |x: &[f32], by: &str| -> Vec<f32> {
            x.iter()
                .zip(normals(by, x.len()))
                .map(|(x, y)| x + 0.3 * y)
                .collect()
        };
        let reference = self
            .kl
            .then(|| (moved(&hidden, "hidden π"), moved(&embed, "embed π")));
        let targets: Vec<u32> = (0..m).map(|i| ((i * 7 + v - 1) % v) as u32).collect();
        let weights = |on: bool, purpose: &str| -> Vec<f32> {
            let unit = |x: f32| if on { 0.2 + x.abs() } else { 0.0 };
            let mut weights: Vec<f32> = normals(purpose, m).into_iter().map(unit).collect();
            // A position without any weight, as the last of each sequence.
            if m > 2 {
                weights[m / 2] = 0.0;
            }
            weights
        };
        let (ntp_weights, kl_weights) = (weights(self.ntp, "ntp"), weights(self.kl, "kl"));

        let log_p: Option<Vec<Vec<f64>>> = reference.as_ref().map(|(hidden, embed)| {
            let embed = exact(embed);
            exact(hidden)
                .chunks(d)
                .map(|hidden| log_probs(hidden, &embed))
                .collect()
        });
        let (hidden64, embed64) = (exact(&hidden), exact(&embed));
        let expected = losses(&hidden64, &embed64, &targets, log_p.as_deref());
        let total = |hidden: &[f64], embed: &[f64]| -> f64 {
            let losses = losses(hidden, embed, &targets, log_p.as_deref());
            let weights = ntp_weights.iter().zip(&kl_weights);
            let terms = losses.iter().zip(weights);
            terms
                .map(|(l, (&a, &b))| f64::from(a) * l.0 + f64::from(b) * l.1)
                .sum()
        };
        let by_hidden = Differences::new(&hidden, |hidden| total(hidden, &embed64));
        let by_embed = Differences::new(&embed, |embed| total(&hidden64, embed));
        let before = normals("before", v * d);
        // A lane of the sum over the vocabulary adds up a sixteenth of it.
        let terms = d + v.div_ceil(LANES);

        each_level(|level| {
            let on = (self.ntp, self.kl);
            let what = format!(
                "head M, V, D = {:?}, (NTP, KL) = {on:?}, {level:?}",
                self.sizes
            );
            let mut student = Linear::new(Precision::F32);
            student.pack(&embed, [v, d], true);
            let reference = reference.as_ref().map(|(hidden, embed)| {
                let mut packed = Linear::new(Precision::F32);
                packed.pack(embed, [v, d], false);
                (hidden, packed)
            });
            let positions = Positions {
                hidden: &hidden,
                reference: reference
                    .as_ref()
                    .map(|(hidden, embed)| (&hidden[..], embed)),
                targets: &targets,
            };
            let mut found = vec![PositionLoss::default(); m];
            let (mut d_hidden, mut d_embed) = (vec![f32::NAN; m * d], vec![0.0; v * d]);
            let backward = Backward {
                ntp_weights: &ntp_weights,
                kl_weights: &kl_weights,
                d_hidden: &mut d_hidden,
                d_embed: Some(&mut d_embed),
            };
            head::run(&positions, &student, Some(backward), &mut found, scratch);
            let part = |f: fn(&PositionLoss) -> f32| found.iter().map(f).collect::<Vec<_>>();
            let (ntp, kl): (Vec<f64>, Vec<f64>) = expected.iter().copied().unzip();
            check_values(&format!("{what}: NTP"), &part(|l| l.ntp), &ntp, terms);
            check_values(&format!("{what}: KL"), &part(|l| l.kl), &kl, terms);
            by_hidden.check(&format!("{what}: hidden states"), &d_hidden, terms);
            by_embed.check(&format!("{what}: output embedding"), &d_embed, terms + m);
            // Micro-batches add up, and scoring alone gives the same losses.
            let mut sum = before.clone();
            let backward = Backward {
                ntp_weights: &ntp_weights,
                kl_weights: &kl_weights,
                d_hidden: &mut d_hidden,
                d_embed: Some(&mut sum),
            };
            head::run(&positions, &student, Some(backward), &mut found, scratch);
            let both = before.iter().zip(&d_embed).map(|(a, b)| f64::from(a + b));
            check_values(
                &format!("{what}: added"),
                &sum,
                &both.collect::<Vec<_>>(),
                1,
            );
            let mut scored = vec![PositionLoss::default(); m];
            head::run(&positions, &student, None, &mut scored, scratch);
            assert_eq!(scored, found, "{what}: without a backward");
        });
    }
}

/// The losses on every chart, and the gradients of both objectives, alone and together.
#[test]
fn losses_and_gradients_follow_their_formulas() {
    let mut scratch = Scratch::default();
    let sizes = [
        [1, 3, 2],
        [1, 19, 6],
        [15, 19, 17],
        [29, 33, 16],
        [17, 3, 34],
        [57, 33, 6],
    ];
    for sizes in sizes {
        for (ntp, kl) in [(true, false), (false, true), (true, true)] {
            Case { sizes, ntp, kl }.run(&mut scratch);
        }
    }
}

/// A real vocabulary is scored in chunks of positions: here 3, 3 and 1, and then one position each.
#[test]
fn chunks_of_a_large_vocabulary_are_all_scored() {
    let mut scratch = Scratch::default();
    for sizes in [[7, 70_001, 2], [2, 262_145, 1]] {
        Case {
            sizes,
            ntp: true,
            kl: true,
        }
        .run(&mut scratch);
    }
}

/// Accuracy counts what greedy decoding would write: among equal logits the lowest id.
#[test]
fn the_lowest_of_equal_tokens_counts_as_correct() {
    let (v, d) = (49, 5);
    let hidden = normals("hidden", d);
    for (low, high) in [(0, 1), (0, 48), (7, 40), (31, 32), (47, 48)] {
        let mut embed: Vec<f32> = normals("embed", v * d).iter().map(|x| 0.1 * x).collect();
        for token in [low, high] {
            embed[token * d..][..d].copy_from_slice(&hidden);
        }
        each_level(|level| {
            let mut packed = Linear::new(Precision::F32);
            packed.pack(&embed, [v, d], false);
            let correct = |target: usize| {
                let targets = [target as u32];
                let positions = Positions {
                    hidden: &hidden,
                    reference: None,
                    targets: &targets,
                };
                let mut losses = [PositionLoss::default()];
                head::run(
                    &positions,
                    &packed,
                    None,
                    &mut losses,
                    &mut Scratch::default(),
                );
                losses[0].correct
            };
            for target in 0..v {
                let what = format!("token {target} of equal {low} and {high}, {level:?}");
                assert_eq!(correct(target), target == low, "{what}");
            }
        });
    }
}

/// Logits far apart neither overflow nor lose the loss: a diverging arm is told by its figures.
#[test]
fn large_logits_keep_finite_losses() {
    let (v, d) = (19, 1);
    let mut embed = vec![0.0f32; v];
    embed[3] = 1.0;
    each_level(|level| {
        let mut packed = Linear::new(Precision::F32);
        packed.pack(&embed, [v, d], true);
        for scale in [1e2, 1e4, 1e6] {
            let hidden = [scale, scale];
            let positions = Positions {
                hidden: &hidden,
                reference: None,
                targets: &[3, 4],
            };
            let mut losses = [PositionLoss::default(); 2];
            let (mut d_hidden, mut d_embed) = ([0.0; 2], vec![0.0; v]);
            let backward = Backward {
                ntp_weights: &[1.0, 1.0],
                kl_weights: &[0.0, 0.0],
                d_hidden: &mut d_hidden,
                d_embed: Some(&mut d_embed),
            };
            head::run(
                &positions,
                &packed,
                Some(backward),
                &mut losses,
                &mut Scratch::default(),
            );
            let what = format!("logit {scale}, {level:?}: {losses:?}, {d_hidden:?}");
            assert!(losses[0].ntp.abs() < 1e-6, "{what}");
            assert!((losses[1].ntp - scale).abs() <= 1e-6 * scale, "{what}");
            assert!(
                d_hidden[0].abs() < 1e-6 && (d_hidden[1] - 1.0).abs() < 1e-6,
                "{what}"
            );
        }
    });
}

//! The vocabulary projection with cross entropy and KL.

use crate::ops::Precision;
use crate::ops::head::{self, Backward, PositionLoss, Positions, Projection, Scratch};
use crate::ops::linear::Linear;
use crate::ops::simd::LANES;

use super::{Differences, check_values, dot, each_level, exact, normals};

/// `log softmax` of a position's logits.
fn log_probs(hidden: &[f64], embed: &[f64]) -> Vec<f64> {
    let logits: Vec<f64> = embed.chunks(hidden.len()).map(|e| dot(hidden, e)).collect();
    let lse = logits.iter().map(|z| z.exp()).sum::<f64>().ln();
    logits.into_iter().map(|z| z - lse).collect()
}

/// Cross entropy and KL(reference || student) of a position.
struct Loss {
    ntp: f64,
    kl: f64,
}

/// Sizes of a head, and which losses have weights.
struct Case {
    /// M, V, D.
    sizes: [usize; 3],
    ntp: bool,
    kl: bool,
}

/// A student, a reference if there are weights of KL, targets and weights.
struct Inputs {
    hidden: Vec<f32>,
    embed: Vec<f32>,
    reference: Option<Reference>,
    targets: Vec<u32>,
    ntp_weights: Vec<f32>,
    kl_weights: Vec<f32>,
}

struct Reference {
    hidden: Vec<f32>,
    embed: Vec<f32>,
    /// Log-probabilities of every position.
    log_probs: Vec<Vec<f64>>,
}

impl Reference {
    /// A reference that is close to a student, as in training.
    fn near(hidden: &[f32], embed: &[f32], d: usize) -> Self {
        let moved = |x: &[f32], purpose: &str| -> Vec<f32> {
            let by = normals(purpose, x.len());
            x.iter().zip(by).map(|(x, y)| x + 0.3 * y).collect()
        };
        let (hidden, embed) = (moved(hidden, "hidden π"), moved(embed, "embed π"));
        let embed64 = exact(&embed);
        let log_probs = exact(&hidden)
            .chunks(d)
            .map(|hidden| log_probs(hidden, &embed64))
            .collect();
        Self {
            hidden,
            embed,
            log_probs,
        }
    }
}

impl Inputs {
    fn new(case: &Case) -> Self {
        let [m, v, d] = case.sizes;
        let (hidden, embed) = (normals("hidden", m * d), normals("embed", v * d));
        let weights = |on: bool, purpose: &str| -> Vec<f32> {
            let unit = |x: f32| if on { 0.2 + x.abs() } else { 0.0 };
            let mut weights: Vec<f32> = normals(purpose, m).into_iter().map(unit).collect();
            // A position without any weight, as the last of each sequence.
            if m > 2 {
                weights[m / 2] = 0.0;
            }
            weights
        };
        Self {
            reference: case.kl.then(|| Reference::near(&hidden, &embed, d)),
            hidden,
            embed,
            targets: (0..m).map(|i| ((i * 7 + v - 1) % v) as u32).collect(),
            ntp_weights: weights(case.ntp, "ntp"),
            kl_weights: weights(case.kl, "kl"),
        }
    }

    /// The losses of every position for other hidden states and another embedding of the student.
    fn losses(&self, hidden: &[f64], embed: &[f64]) -> Vec<Loss> {
        let d = hidden.len() / self.targets.len();
        let loss = |(m, hidden): (usize, &[f64])| {
            let log_q = log_probs(hidden, embed);
            let kl = self.reference.as_ref().map_or(0.0, |reference| {
                let log_p = &reference.log_probs[m];
                let terms = log_p.iter().zip(&log_q).map(|(p, q)| p.exp() * (p - q));
                terms.sum()
            });
            Loss {
                ntp: -log_q[self.targets[m] as usize],
                kl,
            }
        };
        hidden.chunks(d).enumerate().map(loss).collect()
    }

    /// The weighted sum of [`Self::losses`].
    fn total(&self, hidden: &[f64], embed: &[f64]) -> f64 {
        let losses = self.losses(hidden, embed);
        let weights = self.ntp_weights.iter().zip(&self.kl_weights);
        losses
            .iter()
            .zip(weights)
            .map(|(loss, (&ntp, &kl))| f64::from(ntp) * loss.ntp + f64::from(kl) * loss.kl)
            .sum()
    }
}

/// An embedding `[V, D]`, packed for its backward too if one follows.
fn packed(embed: &[f32], shape: [usize; 2], backward: bool) -> Linear {
    let mut linear = Linear::new(Precision::F32);
    linear.pack(embed, shape, backward);
    linear
}

impl Case {
    /// Compares losses and gradients with the formulas, at every instruction set.
    fn run(&self, scratch: &mut Scratch) {
        let [m, v, d] = self.sizes;
        let inputs = Inputs::new(self);
        let (hidden64, embed64) = (exact(&inputs.hidden), exact(&inputs.embed));
        let (ntp, kl): (Vec<f64>, Vec<f64>) = inputs
            .losses(&hidden64, &embed64)
            .into_iter()
            .map(|loss| (loss.ntp, loss.kl))
            .unzip();
        let by_hidden = Differences::new(&inputs.hidden, |x| inputs.total(x, &embed64));
        let by_embed = Differences::new(&inputs.embed, |x| inputs.total(&hidden64, x));
        let before = normals("before", v * d);
        // A lane of the sum over the vocabulary adds up a sixteenth of it.
        let terms = d + v.div_ceil(LANES);

        each_level(|level| {
            let on = (self.ntp, self.kl);
            let sizes = self.sizes;
            let case = format!("head M, V, D = {sizes:?}, (NTP, KL) = {on:?}, {level:?}");
            let student = packed(&inputs.embed, [v, d], true);
            let reference = inputs.reference.as_ref();
            let reference_embed = reference.map(|r| packed(&r.embed, [v, d], false));
            let positions = Positions {
                student: Projection {
                    hidden: &inputs.hidden,
                    embed: &student,
                },
                reference: reference
                    .zip(reference_embed.as_ref())
                    .map(|(reference, embed)| Projection {
                        hidden: &reference.hidden,
                        embed,
                    }),
                targets: &inputs.targets,
            };
            let mut backward = |d_hidden: &mut [f32], d_embed: &mut [f32]| {
                let backward = Backward {
                    ntp_weights: &inputs.ntp_weights,
                    kl_weights: &inputs.kl_weights,
                    d_hidden,
                    d_embed: Some(d_embed),
                };
                let mut losses = vec![PositionLoss::default(); m];
                head::run(&positions, Some(backward), &mut losses, scratch);
                losses
            };
            let (mut d_hidden, mut d_embed) = (vec![f32::NAN; m * d], vec![0.0; v * d]);
            let losses = backward(&mut d_hidden, &mut d_embed);
            let part = |f: fn(&PositionLoss) -> f32| losses.iter().map(f).collect::<Vec<_>>();
            check_values(&format!("{case}: NTP"), &part(|l| l.ntp), &ntp, terms);
            check_values(&format!("{case}: KL"), &part(|l| l.kl), &kl, terms);
            by_hidden.check(&format!("{case}: hidden states"), &d_hidden, terms);
            by_embed.check(&format!("{case}: output embedding"), &d_embed, terms + m);
            // Micro-batches add up, and scoring alone gives the same losses.
            let mut sum = before.clone();
            assert_eq!(backward(&mut d_hidden, &mut sum), losses, "{case}: again");
            let pairs = before.iter().zip(&d_embed);
            let both: Vec<f64> = pairs.map(|(a, b)| f64::from(a + b)).collect();
            check_values(&format!("{case}: added"), &sum, &both, 1);
            let mut scored = vec![PositionLoss::default(); m];
            head::run(&positions, None, &mut scored, scratch);
            assert_eq!(scored, losses, "{case}: without a backward");
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
            let embed = packed(&embed, [v, d], false);
            let correct = |target: usize| {
                let targets = [target as u32];
                let positions = Positions {
                    student: Projection {
                        hidden: &hidden,
                        embed: &embed,
                    },
                    reference: None,
                    targets: &targets,
                };
                let mut losses = [PositionLoss::default()];
                head::run(&positions, None, &mut losses, &mut Scratch::default());
                losses[0].correct
            };
            for target in 0..v {
                let case = format!("token {target} of equal {low} and {high}, {level:?}");
                assert_eq!(correct(target), target == low, "{case}");
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
        let embed = packed(&embed, [v, d], true);
        for scale in [1e2, 1e4, 1e6] {
            let hidden = [scale, scale];
            let positions = Positions {
                student: Projection {
                    hidden: &hidden,
                    embed: &embed,
                },
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
            let scratch = &mut Scratch::default();
            head::run(&positions, Some(backward), &mut losses, scratch);
            let case = format!("logit {scale}, {level:?}: {losses:?}, {d_hidden:?}");
            assert!(losses[0].ntp.abs() < 1e-6, "{case}");
            assert!((losses[1].ntp - scale).abs() <= 1e-6 * scale, "{case}");
            assert!(
                d_hidden[0].abs() < 1e-6 && (d_hidden[1] - 1.0).abs() < 1e-6,
                "{case}"
            );
        }
    });
}

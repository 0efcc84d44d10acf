//! Every op against its formula in f64: values, and gradients by central differences.
//!
//! The formulas are written independently of the kernels, one number after another. Each test runs with
//! every instruction set of the CPU: an older machine runs kernels that a newer one never would.

mod attention;
mod elementwise;
mod head;
mod linear;

use std::ops::Range;

use crate::random::Stream;

use super::simd::InstructionSet;

/// Largest relative rounding error of one f32 operation.
pub(crate) const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// Factor by which an op may amplify rounding errors. A sum of `n` rounded terms errs by about `√n · UNIT` of
/// their size; exponentials of scores, divisions by norms and cancellation multiply that by a small factor.
const CONDITION: f64 = 32.0;

/// Step of the differences, relative to the root mean square of an input: in f64 the formula's curvature then
/// causes errors of about 1e-9 and its rounding of about 1e-11, both far below f32.
const STEP: f64 = 3e-5;

/// Blocks of an input whose derivatives are taken; the entries of a block move together, by pseudorandom signs.
const BLOCKS: usize = 64;
/// Length of a long input, whose differences are expensive.
const LONG: usize = 1 << 16;
/// Blocks of a long input: a block that fails is halved until the entry is found.
const BLOCKS_OF_LONG: usize = 6;

/// Runs `body` once with each instruction set of this CPU.
pub(crate) fn each_level(mut body: impl FnMut(InstructionSet)) {
    struct Release;
    impl Drop for Release {
        fn drop(&mut self) {
            InstructionSet::force(None);
        }
    }
    let _release = Release;
    for level in InstructionSet::available() {
        InstructionSet::force(Some(level));
        assert_eq!(InstructionSet::detect(), level);
        body(level);
    }
}

/// Standard normal numbers, the same for the same `purpose`.
pub(crate) fn normals(purpose: &str, len: usize) -> Vec<f32> {
    let mut random = Stream::new(0, purpose).at(len as u64);
    (0..len).map(|_| random.normal()).collect()
}

pub(crate) fn exact(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

/// Compares values, each a sum of about `terms` terms as large as the values themselves.
#[track_caller]
pub(crate) fn check_values(case: &str, values: &[f32], expected: &[f64], terms: usize) {
    assert_eq!(values.len(), expected.len(), "{case}");
    let rms = norm(expected.iter().copied()) / (expected.len() as f64).sqrt();
    for (i, (&value, &expected)) in values.iter().zip(expected).enumerate() {
        let tolerance = CONDITION * UNIT * (terms as f64).sqrt() * (expected.abs() + rms);
        let error = (f64::from(value) - expected).abs();
        assert!(
            error <= tolerance,
            "{case}: entry {i} is {value}, the formula says {expected} (± {tolerance:.1e})"
        );
    }
}

/// Central differences of a formula at one input.
pub(crate) struct Differences<F> {
    at: Vec<f64>,
    step: f64,
    loss: F,
    /// Rounding of one difference.
    noise: f64,
    blocks: Vec<(Range<usize>, f64)>,
}

impl<F: Fn(&[f64]) -> f64> Differences<F> {
    /// Differentiates `loss` at `at`, entry by entry, or block by block where `at` is long.
    pub fn new(at: &[f32], loss: F) -> Self {
        let at = exact(at);
        let step = STEP * norm(at.iter().copied()) / (at.len() as f64).sqrt();
        let noise = 8.0 * f64::EPSILON * (1.0 + loss(&at).abs()) / step;
        let mut differences = Self {
            at,
            step,
            loss,
            noise,
            blocks: Vec::new(),
        };
        let len = differences.at.len();
        let count = len.min(if len < LONG { BLOCKS } else { BLOCKS_OF_LONG });
        differences.blocks = (0..count)
            .map(|i| i * len / count..(i + 1) * len / count)
            .map(|range| (range.clone(), differences.along(range)))
            .collect();
        differences
    }

    /// The sign with which entry `i` is moved.
    fn sign(i: usize) -> f64 {
        let hash = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if hash >> 63 == 0 { 1.0 } else { -1.0 }
    }

    /// `Σ sign(i) ∂loss/∂x_i` over a range.
    fn along(&self, range: Range<usize>) -> f64 {
        let step = self.step / (range.len() as f64).sqrt();
        let moved = |step: f64| {
            let mut x = self.at.clone();
            for i in range.clone() {
                x[i] += step * Self::sign(i);
            }
            (self.loss)(&x)
        };
        (moved(step) - moved(-step)) / (2.0 * step)
    }

    /// Compares a gradient, whose entries sum about `terms` terms, with the differences.
    #[track_caller]
    pub fn check(&self, case: &str, gradient: &[f32], terms: usize) {
        assert_eq!(gradient.len(), self.at.len(), "{case}");
        for (range, expected) in &self.blocks {
            if let Err(excess) = self.compare(gradient, range.clone(), *expected, terms) {
                let (range, excess) = self.narrow(gradient, range.clone(), excess, terms);
                let which = match range.len() {
                    1 => format!("entry {}", range.start),
                    _ => format!("entries {range:?}, moved by their signs"),
                };
                panic!("{case}: gradient of {which} {excess}");
            }
        }
    }

    /// Compares the gradient along a range with its difference; the error says how they differ.
    fn compare(
        &self,
        gradient: &[f32],
        range: Range<usize>,
        expected: f64,
        terms: usize,
    ) -> Result<(), String> {
        let exact = exact(&gradient[range.clone()]);
        let along: f64 = exact
            .iter()
            .zip(range)
            .map(|(g, i)| g * Self::sign(i))
            .sum();
        let rms = norm(gradient.iter().map(|&g| f64::from(g))) / (gradient.len() as f64).sqrt();
        let count = (exact.len() as f64).sqrt();
        // Errors of a block's entries are independent: their sum grows with the root of their number.
        let size = norm(exact.into_iter()) + count * rms;
        let tolerance = CONDITION * UNIT * (terms as f64).sqrt() * size + count * self.noise;
        if (along - expected).abs() <= tolerance {
            return Ok(());
        }
        Err(format!(
            "is {along}, differences say {expected} (± {tolerance:.1e})"
        ))
    }

    /// The part of a block that differs, a single entry if possible.
    fn narrow(
        &self,
        gradient: &[f32],
        range: Range<usize>,
        excess: String,
        terms: usize,
    ) -> (Range<usize>, String) {
        let middle = range.start + range.len() / 2;
        for half in [range.start..middle, middle..range.end] {
            if half.is_empty() || half.len() == range.len() {
                continue;
            }
            let expected = self.along(half.clone());
            if let Err(excess) = self.compare(gradient, half.clone(), expected, terms) {
                return self.narrow(gradient, half, excess, terms);
            }
        }
        (range, excess)
    }
}

/// The comparison itself must find one wrong entry among many, and name it.
#[test]
fn one_wrong_entry_is_found_and_named() {
    let x = normals("x", 1000);
    let differences = Differences::new(&x, |x| x.iter().map(|x| x * x * x).sum());
    let mut gradient: Vec<f32> = x.iter().map(|x| 3.0 * x * x).collect();
    differences.check("cubes", &gradient, 1);
    gradient[617] *= 1.01;
    let panic = std::panic::catch_unwind(|| differences.check("cubes", &gradient, 1)).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(
        message.contains("cubes: gradient of entry 617 "),
        "{message}"
    );
}

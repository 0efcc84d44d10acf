//! Linear layers: the packed matrix products.

use crate::ops::Precision;
use crate::ops::linear::Linear;
use crate::ops::matmul::Out;

use super::{UNIT, each_level, exact, normals};

/// `Σ_l a(i, l) b(j, l)` for all `i, j`, and the most that f32 may err, however it orders the sum:
/// `(K + 2) · UNIT · Σ |a b|` (Higham, Accuracy and Stability, 3.1), two more for what it is added to.
fn products(
    [m, n, k]: [usize; 3],
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
    before: Option<&[f32]>,
) -> Vec<(f64, f64)> {
    let mut all = Vec::with_capacity(m * n);
    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
        let (mut sum, mut size) = (0.0, 0.0);
        for l in 0..k {
            let term = a(i, l) * b(j, l);
            sum += term;
            size += term.abs();
        }
        let before = before.map_or(0.0, |x| f64::from(x[i * n + j]));
        let bound = (k + 4) as f64 * UNIT * (size + before.abs());
        all.push((sum + before, bound));
    }
    all
}

#[track_caller]
fn check(what: &str, found: &[f32], columns: usize, expected: &[(f64, f64)]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (&found, &(expected, bound))) in found.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(found) - expected).abs() <= bound,
            "{what}: entry ({}, {}) is {found}, the formula says {expected} (± {bound:.1e})",
            i / columns,
            i % columns
        );
    }
}

/// M, N, K: rows around the tiles of 14, 6 and 2 and past the 280 that share a panel, columns around
/// the panel's 32, sums past the 256 that stay in registers.
const SIZES: [[usize; 3]; 17] = [
    [1, 1, 1],
    [1, 33, 2],
    [2, 31, 17],
    [3, 65, 16],
    [7, 1, 300],
    [13, 33, 33],
    [14, 32, 256],
    [15, 31, 257],
    [29, 65, 7],
    [29, 1, 513],
    [27, 33, 300],
    [5, 300, 40],
    [281, 33, 5],
    [300, 20, 31],
    [513, 3, 9],
    [57, 65, 513],
    [15, 1070, 260],
];

/// All weights but the embeddings are trained through these three products: a lost edge row or
/// column is a weight that never learns.
///
/// A product is linear in each factor, so that its difference quotient is the product with the
/// other factor, exactly, whatever the step: that is what the gradients are compared with.
#[test]
fn linear_layers_follow_their_formula() {
    // One layer for all, as in a run: nothing of the size before may be seen.
    let mut linear = Linear::new(Precision::F32);
    for sizes @ [m, n, k] in SIZES {
        let (x, w, dy) = (
            normals("x", m * k),
            normals("w", n * k),
            normals("dy", m * n),
        );
        let (y0, dw0) = (normals("y0", m * n), normals("dw0", n * k));
        let (x64, w64, dy64) = (exact(&x), exact(&w), exact(&dy));
        let x_at = |i: usize, l: usize| x64[i * k + l];
        let w_at = |j: usize, l: usize| w64[j * k + l];
        let forward = products([m, n, k], x_at, w_at, None);
        let added = products([m, n, k], x_at, w_at, Some(&y0));
        let input = products([m, k, n], |i, l| dy64[i * n + l], |j, l| w_at(l, j), None);
        let weights = products(
            [n, k, m],
            |i, l| dy64[l * n + i],
            |j, l| x_at(l, j),
            Some(&dw0),
        );
        each_level(|level| {
            let what = format!("linear M, N, K = {sizes:?}, {level:?}");
            linear.pack(&w, [n, k], true);
            assert_eq!(linear.shape(), [n, k]);
            let mut y = vec![f32::NAN; m * n];
            linear.forward(&mut y, &x, Out::Set);
            check(&format!("{what}: output"), &y, n, &forward);
            let mut y = y0.clone();
            linear.forward(&mut y, &x, Out::Add);
            check(&format!("{what}: output added"), &y, n, &added);
            let mut dx = vec![f32::NAN; m * k];
            linear.backward(&mut dx, &dy);
            check(&format!("{what}: gradient of the input"), &dx, k, &input);
            let mut dw = dw0.clone();
            linear.backward_weights(&mut dw, &dy, &x);
            check(
                &format!("{what}: gradient of the weights"),
                &dw,
                k,
                &weights,
            );
        });
    }
}

/// The same row gives the same bits in any batch: otherwise a row's loss would hang on its neighbours.
#[test]
fn a_rows_bits_do_not_depend_on_the_rows_beside_it() {
    let [m, n, k] = [29, 33, 300];
    let (x, w) = (normals("x", m * k), normals("w", n * k));
    let mut linear = Linear::new(Precision::F32);
    each_level(|level| {
        linear.pack(&w, [n, k], false);
        let mut all = vec![0.0; m * n];
        linear.forward(&mut all, &x, Out::Set);
        for first in 0..m {
            let mut one = vec![0.0; n];
            linear.forward(&mut one, &x[first * k..][..k], Out::Set);
            assert_eq!(one, all[first * n..][..n], "row {first}, {level:?}");
        }
    });
}

//! Linear layers: the packed matrix products.

use crate::ops::Precision;
use crate::ops::linear::Linear;
use crate::ops::matmul::Out;

use super::{UNIT, each_level, exact, normals};

/// An exact value, and the largest error of its f32 computation.
struct Bounded {
    value: f64,
    bound: f64,
}

/// `Σ_l a(i, l) b(j, l)` for all `i, j`. In any order of the sum, f32 errs by at most
/// `(K + 2) · UNIT · Σ |a b|` (Higham, Accuracy and Stability, 3.1), plus 2 for what the sum is added to.
fn products(
    [m, n, k]: [usize; 3],
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
    before: Option<&[f32]>,
) -> Vec<Bounded> {
    let mut products = Vec::with_capacity(m * n);
    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
        let (mut sum, mut size) = (0.0, 0.0);
        for l in 0..k {
            let term = a(i, l) * b(j, l);
            sum += term;
            size += term.abs();
        }
        let before = before.map_or(0.0, |x| f64::from(x[i * n + j]));
        let bound = (k + 4) as f64 * UNIT * (size + before.abs());
        products.push(Bounded {
            value: sum + before,
            bound,
        });
    }
    products
}

#[track_caller]
fn check(case: &str, values: &[f32], columns: usize, expected: &[Bounded]) {
    assert_eq!(values.len(), expected.len(), "{case}");
    for (i, (&found, &Bounded { value, bound })) in values.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(found) - value).abs() <= bound,
            "{case}: entry ({}, {}) is {found}, the formula says {value} (± {bound:.1e})",
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
            let case = format!("linear M, N, K = {sizes:?}, {level:?}");
            linear.pack(&w, [n, k], true);
            assert_eq!(linear.shape(), [n, k]);
            let mut y = vec![f32::NAN; m * n];
            linear.forward(&mut y, &x, Out::Set);
            check(&format!("{case}: output"), &y, n, &forward);
            let mut y = y0.clone();
            linear.forward(&mut y, &x, Out::Add);
            check(&format!("{case}: output added"), &y, n, &added);
            let mut dx = vec![f32::NAN; m * k];
            linear.backward(&mut dx, &dy);
            check(&format!("{case}: gradient of the input"), &dx, k, &input);
            let mut dw = dw0.clone();
            linear.backward_weights(&mut dw, &dy, &x);
            check(
                &format!("{case}: gradient of the weights"),
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
        let mut together = vec![0.0; m * n];
        linear.forward(&mut together, &x, Out::Set);
        for row in 0..m {
            let mut alone = vec![0.0; n];
            linear.forward(&mut alone, &x[row * k..][..k], Out::Set);
            assert_eq!(alone, together[row * n..][..n], "row {row}, {level:?}");
        }
    });
}

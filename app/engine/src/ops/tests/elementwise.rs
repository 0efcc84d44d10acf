//! RMSNorm with and without gains, rotary positions with and without QK-norm, GELU, SwiGLU.

use crate::ops::glu::{self, Gate};
use crate::ops::norm::Norm;
use crate::ops::rope::{Heads, Positions, Rope, RopeTable};
use crate::ops::{gelu, norm, rope};

use super::{Differences, check_values, dot, each_level, exact, normals};

fn normalised(x: &[f64], eps: f64) -> Vec<f64> {
    let mean = dot(x, x) / x.len() as f64;
    x.iter().map(|x| x / (mean + eps).sqrt()).collect()
}

/// Every block normalises its input: with a wrong gradient here no model trains as the paper says.
#[test]
fn rms_norm_follows_its_formula() {
    // Rows as small as 1e-3 feel the epsilon.
    for (m, d, size, eps) in [
        (1, 2, 1.0, 1e-6),
        (1, 17, 1.0, 1e-6),
        (3, 16, 1e-3, 1e-6),
        (3, 16, 1e-3, 1e-5),
        (5, 33, 30.0, 1e-5),
        (29, 64, 1.0, 1e-6),
    ] {
        let x: Vec<f32> = normals("x", m * d).iter().map(|x| x * size).collect();
        let dy = normals("dy", m * d);
        let before = normals("before", m * d);
        let formula = |x: &[f64]| {
            let rows = x.chunks(d).flat_map(|x| normalised(x, eps));
            rows.collect::<Vec<_>>()
        };
        let (values, upstream) = (formula(&exact(&x)), exact(&dy));
        let differences = Differences::new(&x, |x| dot(&formula(x), &upstream));
        each_level(|level| {
            let case = format!("RMSNorm {m}×{d} of size {size}, {level:?}");
            let (mut y, mut inv_rms) = (vec![f32::NAN; m * d], vec![f32::NAN; m]);
            norm::forward(&x, &mut y, &mut inv_rms, d, eps as f32);
            check_values(&case, &y, &values, d);
            let mut dx = vec![0.0; m * d];
            norm::backward_add(&mut dx, &dy, &y, &inv_rms, d);
            differences.check(&case, &dx, d);
            // The residual stream's own gradient is kept.
            let mut sum = before.clone();
            norm::backward_add(&mut sum, &dy, &y, &inv_rms, d);
            let expected: Vec<f64> = before
                .iter()
                .zip(&dx)
                .map(|(a, b)| f64::from(a + b))
                .collect();
            check_values(&case, &sum, &expected, 1);
        });
    }
}

/// Gains learn like weights: what they are multiplied by must be what the next layer saw without them.
#[test]
fn gains_follow_their_formula() {
    for (m, d) in [(1, 2), (5, 17), (29, 64)] {
        let (y, gains, d_out) = (
            normals("y", m * d),
            normals("gains", d),
            normals("d_out", m * d),
        );
        let formula = |y: &[f64], gains: &[f64]| -> Vec<f64> {
            let column = y.iter().enumerate();
            column.map(|(i, y)| y * gains[i % d]).collect()
        };
        let (y64, gains64, upstream) = (exact(&y), exact(&gains), exact(&d_out));
        let by_y = Differences::new(&y, |y| dot(&formula(y, &gains64), &upstream));
        let by_gains = Differences::new(&gains, |gains| dot(&formula(&y64, gains), &upstream));
        let norm = Norm {
            eps: 1e-5,
            gains: Some(&gains),
        };
        each_level(|level| {
            let case = format!("gains {m}×{d}, {level:?}");
            let mut scaled = vec![f32::NAN; m * d + 3];
            check_values(
                &case,
                norm.output(&y, &mut scaled),
                &formula(&y64, &gains64),
                1,
            );
            let (mut dy, mut d_gains) = (d_out.clone(), vec![0.0; d]);
            norm.backward(&mut dy, &y, Some(&mut d_gains));
            by_y.check(&case, &dy, 1);
            by_gains.check(&case, &d_gains, m);
            let first = d_gains.clone();
            norm.backward(&mut d_out.clone(), &y, Some(&mut d_gains));
            let twice: Vec<f64> = first.iter().map(|g| 2.0 * f64::from(*g)).collect();
            check_values(&format!("{case}, added up"), &d_gains, &twice, m);
        });
    }
}

/// QK-norm where there is an epsilon for it, then the rotation by `position · base^(-2i/H)`; values are
/// left alone.
fn rotated(
    qkv: &[f64],
    heads: Heads,
    h: usize,
    eps: Option<f64>,
    position: impl Fn(usize) -> usize,
) -> Vec<f64> {
    let mut out = qkv.to_vec();
    for (m, row) in out.chunks_mut(heads.all * h).enumerate() {
        for x in row.chunks_mut(h).take(heads.turned) {
            let y = eps.map_or(x.to_vec(), |eps| normalised(x, eps));
            for i in 0..h / 2 {
                let angle = position(m) as f64 * 10_000f64.powf(-2.0 * i as f64 / h as f64);
                let (sin, cos) = angle.sin_cos();
                x[i] = y[i] * cos - y[i + h / 2] * sin;
                x[i + h / 2] = y[i] * sin + y[i + h / 2] * cos;
            }
        }
    }
    out
}

/// A model whose positions are turned wrongly, or whose gradient is not turned back, loses its sense of order.
#[test]
fn rotary_positions_with_and_without_qk_norm_follow_their_formula() {
    for (rows, t, n_heads, n_kv_heads, h) in [
        (1, 1, 1, 1, 2),
        (2, 15, 3, 3, 4),
        (2, 15, 6, 2, 4),
        (1, 17, 2, 2, 6),
        (2, 29, 1, 1, 16),
        (1, 57, 2, 1, 34),
    ] {
        let heads = Heads {
            turned: n_heads + n_kv_heads,
            all: n_heads + 2 * n_kv_heads,
        };
        let len = rows * t * heads.all * h;
        let (x, dy) = (normals("qkv", len), normals("dy", len));
        let upstream = exact(&dy);
        let sequence = |m| m % t;
        let eps = Some(1e-5);
        let values = rotated(&exact(&x), heads, h, eps, sequence);
        let differences =
            Differences::new(&x, |x| dot(&rotated(x, heads, h, eps, sequence), &upstream));
        let alone = rotated(&exact(&x), heads, h, eps, |_| t);
        let plain = rotated(&exact(&x), heads, h, None, sequence);
        let plain_differences = Differences::new(&x, |x| {
            dot(&rotated(x, heads, h, None, sequence), &upstream)
        });
        let table = RopeTable::new(
            t + 1,
            h,
            &Rope {
                base: 10_000.0,
                scaling: None,
            },
        );
        each_level(|level| {
            let case = format!("RoPE {rows}×{t}, {heads:?} of {h}, {level:?}");
            let mut y = x.clone();
            rope::rotate(&mut y, &table, heads, Positions::Sequence(t), false);
            check_values(&case, &y, &plain, 2);
            let mut dx = dy.clone();
            rope::rotate(&mut dx, &table, heads, Positions::Sequence(t), true);
            plain_differences.check(&case, &dx, 2);
            let case = format!("{case}, after QK-norm");
            let mut inv_rms = vec![f32::NAN; rows * t * heads.turned];
            let mut y = x.clone();
            rope::forward(
                &mut y,
                &mut inv_rms,
                &table,
                heads,
                1e-5,
                Positions::Sequence(t),
            );
            check_values(&case, &y, &values, h);
            let mut dx = dy.clone();
            rope::backward(&mut dx, &y, &inv_rms, &table, heads, t);
            differences.check(&case, &dx, h);
            let mut y = x.clone();
            rope::forward(&mut y, &mut inv_rms, &table, heads, 1e-5, Positions::All(t));
            check_values(&format!("{case}, at one position"), &y, &alone, h);
        });
    }
}

fn gelu_of(x: f64) -> f64 {
    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
    0.5 * x * (1.0 + u.tanh())
}

/// The paper's activation, not a cousin of it; training and generation must agree on it.
#[test]
fn gelu_follows_its_formula() {
    let line = (-400..=400).map(|i| i as f32 * 0.02);
    let far = [-1e4, -30.0, -12.5, 0.0, 12.5, 30.0, 1e4];
    for x in [vec![0.3], line.collect(), normals("x", 17), far.to_vec()] {
        let values: Vec<f64> = x.iter().map(|&x| gelu_of(f64::from(x))).collect();
        let dy = normals("dy", x.len());
        each_level(|level| {
            let case = format!("GELU of {} numbers, {level:?}", x.len());
            let (mut y, mut slope, mut inferred) = (x.clone(), vec![f32::NAN; x.len()], x.clone());
            gelu::forward(&mut y, &mut slope);
            gelu::inference(&mut inferred);
            assert_eq!(y, inferred, "{case}: with and without the derivative");
            let mut dx = dy.clone();
            gelu::backward(&mut dx, &slope);
            for i in 0..x.len() {
                // One number at a time: the far ones would drown the rest.
                let case = format!("{case}, at {}", x[i]);
                let error = (f64::from(y[i]) - values[i]).abs();
                assert!(error <= 1e-6 * values[i].abs().max(0.1), "{case}: {}", y[i]);
                let x = f64::from(x[i]);
                let step = 1e-4;
                let difference = (gelu_of(x + step) - gelu_of(x - step)) / (2.0 * step);
                let error = (f64::from(dx[i]) - f64::from(dy[i]) * difference).abs();
                let tolerance = 2e-6 * f64::from(dy[i].abs());
                assert!(
                    error <= tolerance,
                    "{case}: gradient {} against {difference}",
                    dx[i]
                );
            }
        });
    }
}

/// The MLPs of Llama and of Gemma: their two halves in their places, and the same in training as in generation.
#[test]
fn gated_units_follow_their_formulas() {
    for gate in [Gate::Silu, Gate::Gelu] {
        let activation = |x: f64| match gate {
            Gate::Silu => x / (1.0 + (-x).exp()),
            Gate::Gelu => gelu_of(x),
        };
        let formula = |x: &[f64], f: usize| -> Vec<f64> {
            let row = |row: &[f64]| -> Vec<f64> {
                (0..f).map(|i| activation(row[i]) * row[f + i]).collect()
            };
            x.chunks(2 * f).flat_map(row).collect()
        };
        for (m, f, size) in [(1, 1, 1.0), (3, 17, 1.0), (2, 33, 20.0), (7, 160, 3.0)] {
            let x: Vec<f32> = normals("x", m * 2 * f).iter().map(|x| size * x).collect();
            let dy = normals("dy", m * f);
            let (values, upstream) = (formula(&exact(&x), f), exact(&dy));
            let differences = Differences::new(&x, |x| dot(&formula(x, f), &upstream));
            each_level(|level| {
                let case = format!("{gate:?} {m}×{f} of size {size}, {level:?}");
                let (mut slopes, mut y) = (x.clone(), vec![f32::NAN; m * f]);
                glu::forward(&mut slopes, &mut y, f, gate);
                check_values(&case, &y, &values, 1);
                let mut inferred = vec![f32::NAN; m * f];
                glu::inference(&x, &mut inferred, f, gate);
                assert_eq!(y, inferred, "{case}: with and without the derivatives");
                glu::backward(&mut slopes, &dy, f);
                differences.check(&case, &slopes, 1);
            });
        }
    }
    // Far from zero a gate is open or shut.
    let (mut slopes, mut y) = (vec![-1e4, 1e4, 2.0, 3.0], vec![f32::NAN; 2]);
    glu::forward(&mut slopes, &mut y, 2, Gate::Silu);
    assert_eq!((y[0].abs() < 1e-30, y[1]), (true, 3e4));
    assert!(slopes.iter().all(|x| x.is_finite()), "{slopes:?}");
}

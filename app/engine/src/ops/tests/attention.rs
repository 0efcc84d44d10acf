//! Causal attention: whole sequences with gradients, and one position at a time from a cache.

use crate::ops::attention::{self, Scratch, Shape};

use super::{Differences, check_values, dot, each_level, exact, normals};

/// Output `[M, N H]` and log-sum-exp `[M, N]` of `qkv [M, (N + 2 K) H]`.
fn attended(qkv: &[f64], shape: Shape) -> (Vec<f64>, Vec<f64>) {
    let Shape {
        rows,
        seq_len,
        n_heads,
        n_kv_heads,
        head_dim: h,
        scale,
        window,
    } = shape;
    let width = (n_heads + 2 * n_kv_heads) * h;
    let (mut out, mut lse) = (Vec::new(), Vec::new());
    for (b, t) in (0..rows).flat_map(|b| (0..seq_len).map(move |t| (b, t))) {
        let from = (t + 1).saturating_sub(window);
        for n in 0..n_heads {
            let kv = n / (n_heads / n_kv_heads);
            let first = [n, n_heads + kv, n_heads + n_kv_heads + kv];
            let part =
                |t: usize, part: usize| &qkv[(b * seq_len + t) * width + first[part] * h..][..h];
            let scores: Vec<f64> = (from..=t)
                .map(|s| dot(part(t, 0), part(s, 1)) * f64::from(scale))
                .collect();
            let sum: f64 = scores.iter().map(|s| s.exp()).sum();
            lse.push(sum.ln());
            for i in 0..h {
                let weighted = scores
                    .iter()
                    .enumerate()
                    .map(|(s, x)| x.exp() * part(from + s, 2)[i]);
                out.push(weighted.sum::<f64>() / sum);
            }
        }
    }
    (out, lse)
}

/// Sequences, positions, heads of queries and of keys, head size: around the tile of 28 queries and the 16 lanes of a register.
const SHAPES: [[usize; 5]; 14] = [
    [1, 1, 1, 1, 2],
    [3, 1, 2, 2, 16],
    [2, 2, 1, 1, 4],
    [1, 15, 2, 2, 4],
    [2, 17, 3, 3, 6],
    [2, 17, 6, 3, 6],
    [1, 28, 1, 1, 16],
    [1, 29, 2, 2, 2],
    [2, 29, 1, 1, 34],
    [1, 29, 6, 2, 34],
    [1, 32, 2, 2, 6],
    [1, 57, 1, 1, 16],
    [2, 33, 3, 1, 16],
    [1, 57, 2, 2, 34],
];

fn shape([rows, seq_len, n_heads, n_kv_heads, head_dim]: [usize; 5]) -> Shape {
    Shape {
        rows,
        seq_len,
        n_heads,
        n_kv_heads,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        window: usize::MAX,
    }
}

/// Every shape as Llama has it; and within windows shorter and longer than a register, scaled otherwise.
fn shapes() -> impl Iterator<Item = Shape> {
    let windows = [1, 5, 16, 23];
    SHAPES.into_iter().map(shape).flat_map(move |plain| {
        let shorter = windows.into_iter().filter(move |&w| w < plain.seq_len);
        let within = shorter.map(move |window| Shape {
            window,
            scale: 0.3,
            ..plain
        });
        std::iter::once(plain).chain(within)
    })
}

/// Width of a row of queries, keys and values.
fn width(shape: Shape) -> usize {
    (shape.n_heads + 2 * shape.n_kv_heads) * shape.head_dim
}

/// A token that attends to the wrong past, or to the future, spoils every loss the lab reports.
#[test]
fn attention_follows_its_formula() {
    // One scratch for all shapes, as in a run: what a longer sequence left must not be seen.
    let mut scratch = Scratch::default();
    for shape in shapes() {
        let (m, d) = (shape.rows * shape.seq_len, shape.n_heads * shape.head_dim);
        // Twice the normal: scores that prefer some tokens clearly.
        let qkv: Vec<f32> = normals("qkv", m * width(shape))
            .iter()
            .map(|x| 2.0 * x)
            .collect();
        let d_out = normals("d_out", m * d);
        let upstream = exact(&d_out);
        let (values, lse_values) = attended(&exact(&qkv), shape);
        let differences = Differences::new(&qkv, |qkv| dot(&attended(qkv, shape).0, &upstream));
        let terms = shape.seq_len + shape.head_dim;
        each_level(|level| {
            let case = format!("attention {shape:?}, {level:?}");
            let (mut out, mut lse) = (vec![f32::NAN; m * d], vec![f32::NAN; m * shape.n_heads]);
            attention::forward(&qkv, &mut out, &mut lse, shape, &mut scratch);
            check_values(&case, &out, &values, terms);
            check_values(&format!("{case}, log-sum-exp"), &lse, &lse_values, terms);
            let mut dqkv = vec![f32::NAN; qkv.len()];
            attention::backward(&mut dqkv, &d_out, &qkv, &out, &lse, shape, &mut scratch);
            differences.check(&case, &dqkv, terms);
        });
    }
}

/// An arm whose numbers ran away must not spoil the arms that use the same buffers after it.
#[test]
fn buffers_left_full_of_nan_change_nothing() {
    let (long, short) = (shape([1, 57, 1, 1, 34]), shape([1, 17, 1, 1, 6]));
    let run = |scratch: &mut Scratch, shape: Shape, qkv: &[f32]| {
        let m = shape.seq_len;
        let (mut out, mut lse) = (vec![0.0; m * shape.head_dim], vec![0.0; m]);
        attention::forward(qkv, &mut out, &mut lse, shape, scratch);
        let mut dqkv = vec![0.0; qkv.len()];
        attention::backward(&mut dqkv, &out, qkv, &out, &lse, shape, scratch);
        (out, lse, dqkv)
    };
    let qkv = normals("qkv", 17 * 3 * 6);
    each_level(|level| {
        let mut spoilt = Scratch::default();
        run(&mut spoilt, long, &vec![f32::NAN; 57 * 3 * 34]);
        let fresh = run(&mut Scratch::default(), short, &qkv);
        assert_eq!(run(&mut spoilt, short, &qkv), fresh, "{level:?}");
    });
}

/// Replayed text is generated token by token: the cache must give what the whole sequence gives.
#[test]
fn one_position_at_a_time_gives_the_same() {
    let mut p = Vec::new();
    for shape in shapes() {
        let Shape {
            rows,
            seq_len,
            n_heads,
            n_kv_heads,
            head_dim: h,
            ..
        } = shape;
        let (d, width) = (n_heads * h, width(shape));
        let qkv = normals("qkv", rows * seq_len * width);
        let (values, _) = attended(&exact(&qkv), shape);
        let (capacity, whole) = (seq_len.next_multiple_of(16), shape);
        each_level(|level| {
            let cache = vec![0.0; rows * n_kv_heads * h * capacity];
            let (mut keys, mut values_cache) = (cache.clone(), cache);
            for t in 0..seq_len {
                let at = |x: &[f32]| -> Vec<f32> {
                    let rows = x.chunks(seq_len * width);
                    rows.flat_map(|row| row[t * width..][..width].to_vec())
                        .collect()
                };
                let mut out = vec![f32::NAN; rows * d];
                let (new, cache) = (at(&qkv), (&mut keys, &mut values_cache));
                let shape = Shape {
                    seq_len: t + 1,
                    ..shape
                };
                attention::decode(&new, cache.0, cache.1, &mut out, shape, capacity, &mut p);
                let rows = values.chunks(seq_len * d);
                let expected: Vec<f64> = rows.flat_map(|row| row[t * d..][..d].to_vec()).collect();
                let case = format!("decoding {whole:?}, position {t}, {level:?}");
                check_values(&case, &out, &expected, seq_len + h);
            }
        });
    }
}

//! Every backward against finite differences of its forward, at awkward sizes.

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor};

use crate::model::{Mlp, ModelConfig};
use crate::sampling::Sampling;

use super::super::head::{self, Backward, Projection};
use super::super::heads::{Heads, Qkv};
use super::super::matmul::{Operand, add_matmul_tn, matmul_nn, matmul_nt};
use super::super::ops;
use super::super::ops::{Norm, Normed, Passing, Residual};
use super::super::sampler::{Chooser, UNCHOSEN};
use super::{devices, download, error, normals};

const F32: DType = DType::F32;
/// Central differences of f32 functions with this step are good to about a part in a thousand.
const STEP: f32 = 1e-2;
const TOLERANCE: f64 = 2e-3;

/// Normal tensors of some shapes.
fn inputs(shapes: &[&[usize]], device: &Device) -> Vec<Tensor> {
    let tensor = |(i, shape): (usize, &&[usize])| {
        let data = normals(&format!("input {i}"), shape.iter().product());
        Tensor::from_vec(data, *shape, device).unwrap()
    };
    shapes.iter().enumerate().map(tensor).collect()
}

/// Checks `gradients` of `Σ weights · f(inputs)`, where the weights are normal.
fn check(
    case: &str,
    inputs: &[Tensor],
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
    gradients: impl Fn(&Tensor) -> Result<Vec<Tensor>>,
) {
    let y = f(inputs).unwrap();
    let weights = normals("output weights", y.elem_count());
    let sum = |inputs: &[Tensor]| -> f64 {
        let y = download(&f(inputs).unwrap());
        let terms = y.iter().zip(&weights);
        terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let dy = Tensor::from_slice(&weights, y.shape(), y.device()).unwrap();
    for (i, gradient) in gradients(&dy).unwrap().iter().enumerate() {
        let data = download(&inputs[i]);
        let shifted = |at: usize, by: f32| {
            let mut data = data.clone();
            data[at] += by;
            let mut inputs = inputs.to_vec();
            inputs[i] = Tensor::from_vec(data, inputs[i].shape(), y.device()).unwrap();
            sum(&inputs)
        };
        let slope = |at| (shifted(at, STEP) - shifted(at, -STEP)) / f64::from(2.0 * STEP);
        let expected: Vec<f32> = (0..data.len()).map(|at| slope(at) as f32).collect();
        assert_eq!(gradient.dims(), inputs[i].dims(), "{case}, input {i}");
        let error = error(&download(gradient), &expected, 0.1);
        assert!(error < TOLERANCE, "{case}, input {i}: {error:e}");
    }
}

const EPS: f32 = 1e-5;

fn norm(x: &Tensor, gain: Option<&Tensor>) -> Result<(Tensor, Normed)> {
    let norm = Norm {
        x,
        rows: None,
        gain,
        eps: EPS,
        dtype: F32,
    };
    let (y, normed) = norm.run(true)?;
    assert_eq!(download(&norm.run(false)?.0), download(&y));
    Ok((y, normed.unwrap()))
}

/// The gradient of a norm's input, added to `dh`, and of its gain, added to `d_gain`; and the output again.
fn norm_backward(
    normed: &Normed,
    dh: &Tensor,
    dy: &Tensor,
    gain: Option<&Tensor>,
    d_gain: &mut Option<Tensor>,
) -> Result<(Tensor, Tensor)> {
    let residual = Residual {
        dh: dh.copy()?,
        rounded: dh.clone(),
    };
    let passing = Passing {
        dy,
        gain,
        d_gain: gain.map(|_| d_gain),
    };
    let (residual, again) = normed.backward(residual, passing)?;
    assert_eq!(download(&residual.dh), download(&residual.rounded));
    Ok((residual.dh, again))
}

#[test]
fn norm_backward_is_its_derivative_and_adds() {
    for (name, device) in devices() {
        for [m, d] in [[1, 1], [1, 7], [5, 33], [70, 3], [2, 300], [9, 64]] {
            let x = inputs(&[&[m, d], &[1, d]], &device);
            let case = format!("norm [{m}, {d}] on {name}");
            let zeros = x[0].zeros_like().unwrap();
            for gain in [None, Some(&x[1])] {
                let (y, normed) = norm(&x[0], gain).unwrap();
                let given = if gain.is_some() { &x[..] } else { &x[..1] };
                check(
                    &format!("{case}, with gain: {}", gain.is_some()),
                    given,
                    |x| Ok(norm(&x[0], x.get(1))?.0),
                    |dy| {
                        let mut d_gain = None;
                        let (dx, again) = norm_backward(&normed, &zeros, dy, gain, &mut d_gain)?;
                        assert_eq!(download(&again), download(&y));
                        Ok([dx].into_iter().chain(d_gain).collect())
                    },
                );
                let mut sum = None;
                let mut run = |dh: &Tensor| {
                    let (dx, _) = norm_backward(&normed, dh, &y, gain, &mut sum).unwrap();
                    (dx, sum.as_ref().map_or_else(Vec::new, download))
                };
                let (alone, once) = run(&zeros);
                let (added, twice) = run(&x[0]);
                // In one kernel a compiler may add the last product without rounding it first, by half a unit of its last
                // place; both sums are rounded by as much of theirs.
                let half = f64::from(f32::EPSILON) / 2.0;
                let [alone, added, x] = [&alone, &added, &x[0]].map(download);
                for ((alone, added), x) in alone.into_iter().zip(added).zip(x) {
                    let (alone, added, sum) = (f64::from(alone), f64::from(added), alone + x);
                    let sum = f64::from(sum);
                    let most = half * (alone.abs() + added.abs().max(sum.abs()) * 2.0);
                    assert!((added - sum).abs() <= most, "{case}: {added} and {sum}");
                }
                let expected: Vec<f32> = once.iter().map(|x| 2.0 * x).collect();
                assert_eq!(twice, expected);
            }
        }
    }
}

/// Only positions that count pass through the last norm: the others must get a gradient of 0, not another's.
#[test]
fn a_norm_of_chosen_rows_passes_its_gradient_to_them_alone() {
    for (_, device) in devices() {
        let (m, d) = (7, 10);
        let x = inputs(&[&[m, d], &[1, d], &[3, d]], &device);
        let chosen = Tensor::new(&[5u32, 0, 2], &device).unwrap();
        let row_of = [1, ops::NO_ROW, 2, ops::NO_ROW, ops::NO_ROW, 0, ops::NO_ROW];
        let row_of = Tensor::new(&row_of, &device).unwrap();
        let run = |x: &Tensor, rows: Option<&Tensor>| {
            let norm = Norm {
                x,
                rows,
                gain: None,
                eps: EPS,
                dtype: F32,
            };
            norm.run(true).unwrap()
        };
        let (some, normed) = run(&x[0], Some(&chosen));
        let rows = x[0].index_select(&chosen, 0).unwrap();
        let (expected, alone) = run(&rows, None);
        assert_eq!(download(&some), download(&expected));
        let passing = |d_gain| Passing {
            dy: &x[2],
            gain: Some(&x[1]),
            d_gain: Some(d_gain),
        };
        let (mut gain, mut expected_gain) = (None, None);
        let passed = normed.unwrap().backward_to_all(&row_of, passing(&mut gain));
        let zeros = rows.zeros_like().unwrap();
        let residual = Residual {
            dh: zeros.clone(),
            rounded: zeros,
        };
        let (expected, _) = alone
            .unwrap()
            .backward(residual, passing(&mut expected_gain))
            .unwrap();
        let all = x[0].zeros_like().unwrap();
        let expected = all.index_add(&chosen, &expected.dh, 0).unwrap();
        let passed = passed.unwrap();
        assert_eq!(download(&passed.dh), download(&expected));
        assert_eq!(download(&passed.rounded), download(&expected));
        let error = error(
            &download(&gain.unwrap()),
            &download(&expected_gain.unwrap()),
            1e-6,
        );
        assert!(error < 1e-6);
    }
}

/// `[B, N, K, T, H]` of awkward shapes: one of everything, as many heads of keys as of queries, fewer.
const HEADS: [[usize; 5]; 5] = [
    [1, 1, 1, 1, 2],
    [3, 2, 2, 5, 6],
    [2, 1, 1, 17, 8],
    [2, 6, 2, 4, 4],
    [1, 4, 1, 9, 4],
];

fn heads(shape: [usize; 5], qk_norm: bool, device: &Device) -> Heads {
    let [_, n_heads, n_kv_heads, seq_len, head_dim] = shape;
    let config = ModelConfig {
        n_heads,
        n_kv_heads,
        qk_norm,
        ..ModelConfig::mini(n_heads * head_dim, 1, head_dim, 1)
    };
    Heads::new(config, seq_len, device).unwrap()
}

fn flat(x: &[Tensor]) -> Result<Tensor> {
    let flat = x.iter().map(Tensor::flatten_all);
    Tensor::cat(&flat.collect::<Result<Vec<_>>>()?, 0)
}

/// Values pass through untouched; queries and keys turn, from whatever position on.
#[test]
fn split_backward_is_its_derivative() {
    for (name, device) in devices() {
        for (shape, qk_norm) in HEADS.into_iter().flat_map(|s| [(s, true), (s, false)]) {
            let [b, n, k, t, h] = shape;
            let heads = heads(shape, qk_norm, &device);
            let x = inputs(&[&[b * t, (n + 2 * k) * h]], &device);
            let split = |x: &Tensor| heads.split(x, t, 0);
            let qkv = split(&x[0]).unwrap();
            assert_eq!(qkv.q.dims(), [b, k, t * n / k, h]);
            check(
                &format!("{shape:?}, norm {qk_norm}, on {name}"),
                &x,
                |x| {
                    let qkv = split(&x[0])?;
                    flat(&[qkv.q, qkv.k, qkv.v])
                },
                |dy| {
                    let (q, k) = (qkv.q.elem_count(), qkv.k.elem_count());
                    let d = [
                        dy.narrow(0, 0, q)?.reshape(qkv.q.shape())?,
                        dy.narrow(0, q, k)?.reshape(qkv.k.shape())?,
                        dy.narrow(0, q + k, k)?.reshape(qkv.v.shape())?,
                    ];
                    Ok(vec![heads.split_backward(&d, &qkv)?])
                },
            );
            // Position t alone is row t of the whole.
            let last = x[0].narrow(0, t - 1, 1).unwrap();
            let alone = heads.split(&last, 1, t - 1).unwrap();
            let first = qkv.q.narrow(0, 0, 1).unwrap();
            let row = first.narrow(2, (t - 1) * n / k, n / k).unwrap();
            assert_eq!(download(&alone.q), download(&row));
        }
    }
}

/// Also in chunks of one position and of some, which only bound the memory.
#[test]
fn attention_backward_is_its_derivative_whatever_the_chunks() {
    for (name, device) in devices() {
        for shape in HEADS {
            let [b, n, k, t, h] = shape;
            let [queries, keys] = [[b, k, t * n / k, h], [b, k, t, h]];
            let x = inputs(&[&queries, &keys, &keys], &device);
            let mut whole = None;
            for chunk in [t, 2, 1] {
                let mut heads = heads(shape, false, &device);
                heads.max_scores = b * n * t * chunk;
                let (out, lse) = heads.attention(&x[0], &x[1], &x[2], 0).unwrap();
                let qkv = Qkv {
                    q: x[0].clone(),
                    k: x[1].clone(),
                    v: x[2].clone(),
                    inv_rms: lse.clone(),
                };
                check(
                    &format!("attention {shape:?}, chunks of {chunk} on {name}"),
                    &x,
                    |x| Ok(heads.attention(&x[0], &x[1], &x[2], 0)?.0),
                    |d| Ok(heads.attention_backward(d, &qkv, &lse)?.to_vec()),
                );
                let out = download(&out);
                let whole = whole.get_or_insert_with(|| out.clone());
                assert!(error(&out, whole, 1e-6) < 1e-6);
            }
        }
    }
}

/// Rows longer than a chunk are attended chunk by chunk, each with the keys that it sees: as if every score were there.
#[test]
fn long_rows_are_attended_as_by_the_definition() {
    const SHAPE: [usize; 5] = [2, 2, 1, 150, 6];
    let [b, n, _, t, h] = SHAPE;
    for (name, device) in devices() {
        let mut heads = heads(SHAPE, false, &device);
        heads.max_scores = b * n * t * 64;
        let [queries, keys] = [[b, 1, t * n, h], [b, 1, t, h]];
        let x = inputs(&[&queries, &keys, &keys, &queries], &device);
        let (out, lse) = heads.attention(&x[0], &x[1], &x[2], 0).unwrap();
        let qkv = Qkv {
            q: x[0].clone(),
            k: x[1].clone(),
            v: x[2].clone(),
            inv_rms: lse.clone(),
        };
        let [dq, dk, dv] = heads.attention_backward(&x[3], &qkv, &lse).unwrap();
        let found = [out, dq, dk, dv].map(|x| download(&x));
        let mut expected = found.clone().map(|x| vec![0f32; x.len()]);
        let [q, k, v, d_out] = [0, 1, 2, 3].map(|i| download(&x[i]));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let scale = 1.0 / (h as f32).sqrt();
        for row in 0..b * t * n {
            let (first, at) = (row / (t * n) * t, row * h);
            let seen = row % (t * n) / n + 1;
            let key = |s: usize| (first + s) * h..(first + s + 1) * h;
            let (q, d_out) = (&q[at..at + h], &d_out[at..at + h]);
            let scores = (0..seen).map(|s| (scale * dot(q, &k[key(s)])).exp());
            let scores: Vec<f32> = scores.collect();
            let total: f32 = scores.iter().sum();
            let p: Vec<f32> = scores.iter().map(|x| x / total).collect();
            let delta: f32 = (0..seen).map(|s| p[s] * dot(d_out, &v[key(s)])).sum();
            for s in 0..seen {
                let d_score = p[s] * (dot(d_out, &v[key(s)]) - delta) * scale;
                for i in 0..h {
                    let at_key = key(s).start + i;
                    expected[0][at + i] += p[s] * v[at_key];
                    expected[1][at + i] += d_score * k[at_key];
                    expected[2][at_key] += d_score * q[i];
                    expected[3][at_key] += p[s] * d_out[i];
                }
            }
        }
        for (what, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let error = error(found, expected, 1e-6);
            assert!(error < 1e-5, "{what} on {name}: {error:e}");
        }
    }
}

/// A group's queries must meet their own keys: as if the keys were there once for each query.
#[test]
fn grouped_queries_attend_as_with_keys_of_their_own() {
    for (_, device) in devices() {
        let grouped = heads([2, 6, 2, 4, 4], false, &device);
        let repeated = heads([2, 6, 6, 4, 4], false, &device);
        let x = inputs(&[&[8, 6 * 4], &[8, 2 * 4], &[8, 2 * 4]], &device);
        let repeat = |x: &Tensor| {
            let x = x.reshape((8, 2, 1, 4)).unwrap();
            x.broadcast_as((8, 2, 3, 4))
                .unwrap()
                .reshape((8, 24))
                .unwrap()
        };
        let attend = |heads: &Heads, k: &Tensor, v: &Tensor| {
            let fused = Tensor::cat(&[&x[0], k, v], 1).unwrap();
            let qkv = heads.split(&fused, 4, 0).unwrap();
            let (out, _) = heads.attention(&qkv.q, &qkv.k, &qkv.v, 0).unwrap();
            let merged = heads.merge(&out).unwrap();
            let split = heads.split_heads(&merged, 4).unwrap();
            assert_eq!(download(&split), download(&out));
            download(&merged)
        };
        let merged = attend(&grouped, &x[1], &x[2]);
        let expected = attend(&repeated, &repeat(&x[1]), &repeat(&x[2]));
        assert!(error(&merged, &expected, 1e-6) < 1e-6);
    }
}

#[test]
fn mlp_backward_is_its_derivative_and_far_values_stay_finite() {
    for (name, device) in devices() {
        for (kind, width) in [(Mlp::Gelu, 11), (Mlp::SwiGlu, 22)] {
            let x = inputs(&[&[3, width]], &device);
            let y = ops::mlp(kind, &x[0]).unwrap();
            check(
                &format!("{kind:?} on {name}"),
                &x,
                |x| ops::mlp(kind, &x[0]),
                |dy| {
                    let (dx, again) = ops::mlp_backward(kind, dy, &x[0])?;
                    assert!(error(&download(&again), &download(&y), 1e-6) < 1e-6);
                    Ok(vec![dx])
                },
            );
        }
        let values = [-1e4f32, -120.0, 60.0, 1e4];
        let far = Tensor::new(&[values], &device).unwrap();
        let ones = far.ones_like().unwrap();
        let (slope, y) = ops::mlp_backward(Mlp::Gelu, &ones, &far).unwrap();
        assert_eq!(download(&y), [0.0, 0.0, 60.0, 1e4]);
        assert_eq!(download(&slope), [0.0, 0.0, 1.0, 1.0]);
        let both = Tensor::cat(&[&far, &ones], 1).unwrap();
        let (slope, y) = ops::mlp_backward(Mlp::SwiGlu, &ones, &both).unwrap();
        assert_eq!(download(&y), [0.0, 0.0, 60.0, 1e4]);
        assert_eq!(download(&slope), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 60.0, 1e4]);
    }
}

/// Rounding is candle's own, ties and non-numbers included.
#[test]
fn bf16_is_rounded_to_nearest_even() {
    for (_, device) in devices() {
        let mut x = normals("to round", 1000);
        x.extend([
            0.0,
            -0.0,
            1.0 + 1.0 / 256.0,
            1.0 + 3.0 / 256.0,
            f32::NAN,
            f32::INFINITY,
        ]);
        let bits = |x: Tensor| -> Vec<u32> {
            let x = download(&x.to_dtype(F32).unwrap());
            // A GPU has another NaN than we: neither is wrong.
            let bits = |x: &f32| if x.is_nan() { f32::NAN } else { *x }.to_bits();
            x.iter().map(bits).collect()
        };
        // Four at a time, and one at a time from an odd number on.
        for x in [&x[..], &x[1..]] {
            let x = Tensor::from_slice(x, x.len(), &device).unwrap();
            let rounded = ops::round(&x, DType::BF16).unwrap();
            assert_eq!(bits(rounded), bits(x.to_dtype(DType::BF16).unwrap()));
        }
    }
}

#[test]
fn embedding_gradient_adds_up_the_rows_of_each_token() {
    for (_, device) in devices() {
        // Token 5 has more rows than a block sums, token 2 as many.
        let mut tokens = vec![3u32, 0, 3, 6, 3];
        tokens.extend(std::iter::repeat_n([5, 5, 5, 2], 64).flatten());
        let dh = &inputs(&[&[tokens.len(), 9]], &device)[0];
        let mut grad = None;
        ops::embed_backward(&mut grad, 7, &tokens, dh).unwrap();
        let ids = Tensor::new(&tokens[..], &device).unwrap();
        let zeros = Tensor::zeros((7, 9), F32, &device).unwrap();
        let expected = download(&zeros.index_add(&ids, dh, 0).unwrap());
        assert!(error(&download(grad.as_ref().unwrap()), &expected, 1e-6) < 1e-6);
        ops::embed_backward(&mut grad, 7, &tokens, dh).unwrap();
        let twice: Vec<f32> = expected.iter().map(|x| 2.0 * x).collect();
        assert!(error(&download(&grad.unwrap()), &twice, 1e-6) < 1e-6);
    }
}

/// Chooses a token for each row of `logits [B, V]` where there is none.
fn choose_into(
    tokens: &[u32],
    sampling: &Sampling,
    logits: &Tensor,
    uniforms: Option<&Tensor>,
) -> Vec<u32> {
    let uniforms = uniforms.map(|x| x.reshape((1, x.elem_count())).unwrap());
    let tokens = Tensor::new(tokens, logits.device()).unwrap();
    let chooser = Chooser::with(sampling, uniforms);
    chooser.choose(logits, 0, &tokens).unwrap();
    tokens.to_vec1().unwrap()
}

fn choose(sampling: &Sampling, logits: &Tensor, uniforms: Option<&Tensor>) -> Vec<u32> {
    let none = vec![UNCHOSEN; logits.dim(0).unwrap()];
    choose_into(&none, sampling, logits, uniforms)
}

/// A prompt must stay what it is.
#[test]
fn what_is_chosen_already_is_kept() {
    for (_, device) in devices() {
        let logits = Tensor::new(&[[0f32, 1.0], [0.0, 1.0]], &device).unwrap();
        let tokens = choose_into(&[0, UNCHOSEN], &Sampling::greedy(), &logits, None);
        assert_eq!(tokens, [0, 1]);
    }
}

/// Top-k and top-p must leave out what the CPU's sampler leaves out, also where logits are equal.
#[test]
fn truncated_distributions_are_the_cpu_samplers() {
    for (name, device) in devices() {
        for (v, levels) in [(5, 0.0), (300, 0.0), (301, 0.5), (70, 1e9)] {
            let numbers = normals("logits to truncate", v);
            let level = |x: &f32| {
                if levels == 0.0 {
                    *x
                } else {
                    (x / levels).round()
                }
            };
            let numbers: Vec<f32> = numbers.iter().map(level).collect();
            let us: Vec<f32> = (0..200).map(|i| (i as f32 + 0.5) / 200.0).collect();
            let logits = Tensor::from_vec(numbers.repeat(us.len()), (us.len(), v), &device);
            let (logits, uniforms) = (logits.unwrap(), Tensor::new(&us[..], &device).unwrap());
            for (top_k, top_p, temperature) in [
                (Some(1), None, 1.0),
                (Some(3), None, 0.7),
                (Some(40), Some(0.8), 1.0),
                (None, Some(0.3), 2.0),
                (None, Some(1e-9), 1.0),
                (None, Some(0.999), 1.0),
                (Some(1000), Some(1.0), 1.0),
            ] {
                let sampling = Sampling {
                    top_k,
                    top_p,
                    temperature,
                    ..Sampling::default()
                };
                let chosen = choose(&sampling, &logits, Some(&uniforms));
                // The tokens that are left, by their definition: all sorted, the lowest id first among equals.
                let mut order: Vec<usize> = (0..v).collect();
                order.sort_by(|&a, &b| numbers[b].total_cmp(&numbers[a]));
                order.truncate(top_k.map_or(v, |k| k as usize));
                let weight =
                    |i: usize| f64::from((numbers[i] - numbers[order[0]]) / temperature).exp();
                let all: f64 = order.iter().map(|&i| weight(i)).sum();
                let mut sum = 0.0;
                let reached = order.iter().position(|&i| {
                    sum += weight(i);
                    sum >= f64::from(top_p.unwrap_or(1.0)) * all * (1.0 - 1e-6)
                });
                let mut left = order[..=reached.unwrap()].to_vec();
                left.sort_unstable();
                let total: f64 = left.iter().map(|&i| weight(i)).sum();
                for (u, &token) in us.iter().zip(&chosen) {
                    let below: f64 = left
                        .iter()
                        .filter(|&&i| i < token as usize)
                        .map(|&i| weight(i))
                        .sum();
                    let (u, own) = (f64::from(*u) * total, weight(token as usize));
                    let case = format!("{name}: {token} of {v} at {u} with {sampling:?}");
                    assert!(left.contains(&(token as usize)), "{case}");
                    let margin = 1e-5 * total;
                    assert!(below - margin <= u && u <= below + own + margin, "{case}");
                }
            }
        }
    }
}

/// A token of no probability, such as one left out, must never be drawn, whatever the number drawn.
#[test]
fn drawing_inverts_the_distribution_to_its_very_ends() {
    for (_, device) in devices() {
        for v in [3, 128, 129, 1000] {
            let mut weights = vec![0f32; v];
            for (i, token) in [1, v / 2, v - 2].into_iter().enumerate() {
                weights[token] += (i + 1) as f32;
            }
            let total: f32 = weights.iter().sum();
            let inner = (0..1000).map(|i| (i as f32 + 0.5) / 1000.0);
            let us: Vec<f32> = inner.chain([0.0, 0.999_999_94]).collect();
            let row: Vec<f32> = weights.iter().map(|w| w.ln()).collect();
            let logits = Tensor::from_vec(row.repeat(us.len()), (us.len(), v), &device);
            let uniforms = Tensor::from_slice(&us, us.len(), &device).unwrap();
            let drawn = choose(&Sampling::default(), &logits.unwrap(), Some(&uniforms));
            for (u, token) in us.iter().zip(drawn) {
                let mut left = u * total;
                let expected = weights.iter().position(|w| {
                    left -= w;
                    left < 0.0
                });
                assert_eq!(Some(token as usize), expected, "{v} tokens at {u}");
            }
        }
    }
}

/// Else where rounding leaves nothing of a draw, what lies behind the row would be a token, of no vocabulary.
#[test]
fn a_draw_that_rounding_leaves_nothing_of_stays_in_the_vocabulary() {
    for (_, device) in devices() {
        // The last threads of a block have one token, and none.
        for (v, rows) in [(5, 20_000), (301, 2000)] {
            let logits = inputs(&[&[rows, v]], &device).remove(0);
            let uniforms = Tensor::full(0.999_999_94f32, rows, &device).unwrap();
            let drawn = choose(&Sampling::default(), &logits, Some(&uniforms));
            assert!(
                drawn.iter().all(|token| (*token as usize) < v),
                "{v} tokens"
            );
        }
    }
}

#[test]
fn the_first_of_the_most_likely_is_chosen() {
    for (_, device) in devices() {
        let low = f32::NEG_INFINITY;
        for (logits, expected) in [
            (vec![1.0, 3.0, 2.0, 3.0, 0.0], 1),
            (vec![3.0, 3.0, 3.0], 0),
            (vec![low, low, 0.0, low, 0.0, 0.0, low, 0.0, 0.0], 2),
            (vec![f32::NAN; 3], 0),
        ] {
            let row = Tensor::new(vec![logits], &device).unwrap();
            assert_eq!(choose(&Sampling::greedy(), &row, None), [expected]);
        }
    }
}

#[test]
fn linear_layers_have_their_gradients() {
    for (name, device) in devices() {
        let x = inputs(&[&[5, 3], &[7, 3]], &device);
        check(
            &format!("linear layer on {name}"),
            &x,
            |x| matmul_nt(&x[0], &x[1]),
            |dy| {
                let mut dw = None;
                add_matmul_tn(&mut dw, dy, &x[0])?;
                Ok(vec![matmul_nn(dy, &x[1])?, dw.unwrap()])
            },
        );
    }
}

/// The products that cuBLAS computes from its operands by its documentation, `c = op(b)ᵀ·op(a)ᵀ` in column-major
/// order, are the right ones. A GPU's products depend on it.
#[test]
fn cublas_is_told_of_the_right_matrices() {
    let tensor = |shape: &[usize]| inputs(&[shape], &Device::Cpu).remove(0);
    let seen = tensor(&[2, 3, 7, 4]).narrow(2, 0, 5).unwrap();
    let first = tensor(&[2, 3, 7, 4]).narrow(2, 0, 1).unwrap();
    for (a, b) in [
        (tensor(&[5, 3]), tensor(&[3, 4])),
        (tensor(&[5, 3]), tensor(&[4, 3]).t().unwrap()),
        (tensor(&[3, 5]).t().unwrap(), tensor(&[3, 4])),
        (tensor(&[8, 3]).narrow(0, 2, 5).unwrap(), tensor(&[3, 1])),
        (tensor(&[1, 3]), tensor(&[1, 3]).t().unwrap()),
        (
            tensor(&[2, 3, 5, 5]).t().unwrap(),
            seen.contiguous().unwrap(),
        ),
        (tensor(&[2, 3, 1, 4]), seen.t().unwrap()),
        (tensor(&[2, 3, 1, 5]), seen.clone()),
        (tensor(&[2, 3, 1, 4]), first.t().unwrap()),
        (tensor(&[2, 3, 1, 1]), first.clone()),
    ] {
        let dims = a.dims().to_vec();
        let (m, k) = (dims[dims.len() - 2], dims[dims.len() - 1]);
        let n = b.dims()[dims.len() - 1];
        let numbers = |x: &Tensor| -> Vec<f32> {
            let (storage, layout) = x.storage_and_layout();
            let Storage::Cpu(CpuStorage::F32(data)) = &*storage else {
                panic!("a tensor of f32 on the CPU");
            };
            data[layout.start_offset()..].to_vec()
        };
        let (a_numbers, b_numbers) = (numbers(&a), numbers(&b));
        let a_operand = Operand::new(a.layout()).unwrap();
        let b_operand = Operand::new(b.layout()).unwrap();
        // Row i and column j of op(x), by columns.
        let at = |operand: &Operand, batch: usize, i: usize, j: usize| {
            let (row, column) = if operand.transposed { (j, i) } else { (i, j) };
            batch * operand.distance + row + column * operand.leading
        };
        let matmul = a.contiguous().unwrap().matmul(&b.contiguous().unwrap());
        let expected = download(&matmul.unwrap());
        let product: Vec<f32> = (0..expected.len())
            .map(|c| {
                // Element (j, i) of the n × m result by columns.
                let (batch, i, j) = (c / (m * n), c / n % m, c % n);
                let terms = (0..k).map(|l| {
                    let a = a_numbers[at(&a_operand, batch, l, i)];
                    b_numbers[at(&b_operand, batch, j, l)] * a
                });
                terms.sum()
            })
            .collect();
        assert!(error(&product, &expected, 1e-6) < 1e-5, "{a:?} {b:?}");
    }
    let uneven = tensor(&[3, 2, 5, 4]).transpose(0, 1).unwrap();
    assert!(Operand::new(uneven.layout()).is_err());
    let strided = tensor(&[5, 8]).narrow(1, 0, 4).unwrap();
    assert!(Operand::new(strided.layout()).is_err());
}

/// Chunks of one position, of some with a stump at the end, and all at once must give the same.
#[test]
fn head_gradients_are_derivatives_whatever_the_chunks() {
    for (name, device) in devices() {
        for (m, v, d) in [(1, 1, 2), (1, 5, 3), (7, 19, 4)] {
            let x = inputs(&[&[m, d], &[v, d], &[m, d], &[v, d]], &device);
            let ids: Vec<u32> = (0..m).map(|i| (i * 7 % v) as u32).collect();
            let targets = &Tensor::from_vec(ids, m, &device).unwrap();
            for chunk_logits in [1, 3 * v, 1 << 20] {
                let run = |x: &[Tensor], backward: Option<Backward>| {
                    let projection = |i: usize| Projection {
                        hidden: &x[i],
                        embed: &x[i + 1],
                    };
                    let positions = head::Positions {
                        student: projection(0),
                        reference: Some(projection(2)),
                        targets,
                    };
                    head::run(&positions, backward, chunk_logits)
                };
                check(
                    &format!("head {m} × {v}, chunks of {chunk_logits} on {name}"),
                    &x,
                    |x| run(x, None)?.0.narrow(1, 0, 2),
                    |weights| {
                        let ntp = weights.narrow(1, 0, 1)?.flatten_all()?;
                        let kl = weights.narrow(1, 1, 1)?.flatten_all()?;
                        let mut d_embed = None;
                        let backward = Backward {
                            ntp_weights: &ntp,
                            kl_weights: &kl,
                            d_embed: Some(&mut d_embed),
                        };
                        let d_hidden = run(&x, Some(backward))?.1;
                        Ok(vec![d_hidden.unwrap(), d_embed.unwrap()])
                    },
                );
            }
        }
    }
}

/// Accuracy counts a row as answered only where greedy decoding would have written it.
#[test]
fn a_target_is_correct_if_it_is_the_first_of_the_largest() {
    for (_, device) in devices() {
        let nan = f32::NAN;
        let logits = [[1f32, 3., 3.], [3., 3., 1.], [nan, nan, nan], [0., 0., 0.]];
        // With the identity as embedding, hidden states are logits.
        let hidden = Tensor::new(&logits, &device).unwrap();
        let embed = Tensor::eye(3, F32, &device).unwrap();
        let targets = Tensor::new(&[1u32, 1, 0, 0], &device).unwrap();
        let positions = head::Positions {
            student: Projection {
                hidden: &hidden,
                embed: &embed,
            },
            reference: None,
            targets: &targets,
        };
        let (losses, _) = head::run(&positions, None, 1 << 20).unwrap();
        let correct = download(&losses.narrow(1, 2, 1).unwrap());
        assert_eq!(correct, [1.0, 0.0, 0.0, 1.0]);
    }
}

/// A GPU takes so many products in several calls; the last one must not be of the first one's matrices.
#[test]
fn more_products_than_one_call_takes_are_all_there() {
    for (_, device) in devices() {
        let many = 70_001;
        let numbers: Vec<f32> = (0..many).map(|i| (i % 251) as f32).collect();
        let a = Tensor::from_slice(&numbers, (many, 1, 1), &device).unwrap();
        let expected: Vec<f32> = numbers.iter().map(|x| x * x).collect();
        assert_eq!(download(&matmul_nn(&a, &a).unwrap()), expected);
    }
}

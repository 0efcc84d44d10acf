//! Attention, with what is done to queries, keys and values before it: by definition, and against finite differences.

use candle_core::{Device, Result, Tensor};

use crate::model::{Blocks, ModelConfig, Parts, QkGains, Window};
use crate::ops::qk_norm::{self, QkNorm};
use crate::ops::rope::{self, Positions, RopeTable};

use super::super::heads::{BlockHeads, Heads, Part, Qkv, QkvWeights};
use super::super::ops::{Summed, add_rows};
use super::ops::{EPS, check, inputs};
use super::{devices, download, error};

/// `[B, N, K, T, H]` of awkward shapes: one of everything, as many heads of keys as of queries, fewer.
const HEADS: [[usize; 5]; 5] = [
    [1, 1, 1, 1, 2],
    [3, 2, 2, 5, 6],
    [2, 1, 1, 17, 8],
    [2, 6, 2, 4, 4],
    [1, 4, 1, 9, 4],
];

fn heads(shape: [usize; 5], qk_norm: bool, device: &Device) -> Heads {
    heads_with(shape, qk_norm, Parts::LLAMA, device)
}

fn heads_with(shape: [usize; 5], qk_norm: bool, parts: Parts, device: &Device) -> Heads {
    let [_, n_heads, n_kv_heads, seq_len, head_dim] = shape;
    let config = ModelConfig {
        n_heads,
        n_kv_heads,
        qk_norm,
        norm_eps: EPS,
        parts,
        ..ModelConfig::mini(n_heads * head_dim, 1, head_dim, 1)
    };
    Heads::new(config, seq_len, device).unwrap()
}

/// The first block's, without weights of its own.
fn bare(heads: &Heads) -> BlockHeads<'_> {
    heads.of(0, QkvWeights::default())
}

/// The parts of a model whose first block attends to so many positions.
fn within(window: Option<usize>) -> Parts {
    let window = window.map(|len| Window {
        blocks: Blocks::from_bits(1),
        len,
        rope: None,
    });
    Parts {
        window,
        ..Parts::LLAMA
    }
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
            let model = heads(shape, qk_norm, &device);
            let heads = bare(&model);
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
                    Ok(vec![heads.split_backward(&d, &qkv, true)?.0])
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

/// Queries, keys and values of `qkv [B T, (N + 2 K) H]` as the CPU makes them: of heads that lie as they do there.
fn as_on_the_cpu(
    shape: [usize; 5],
    config: &ModelConfig,
    [qkv, bias, q, k]: [&[f32]; 4],
) -> Vec<f32> {
    let [b, n, kv, t, h] = shape;
    let width = (n + 2 * kv) * h;
    let mut rows: Vec<f32> = qkv.to_vec();
    for row in rows.chunks_exact_mut(width) {
        row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
    }
    let gains = |stored: &[f32]| -> Vec<f32> {
        let offset = config.parts.gain_offset;
        stored.iter().map(|x| offset + x).collect()
    };
    let (mut normed, mut inv_rms) = (vec![0.0; rows.len()], vec![0.0; rows.len()]);
    let norm = QkNorm {
        q: &gains(q),
        k: &gains(k),
        widths: [n * h, kv * h, width],
        eps: config.norm_eps,
    };
    qk_norm::forward(
        &mut rows,
        &mut normed[..b * t * (n + kv) * h],
        &mut inv_rms,
        norm,
    );
    if !config.parts.unrotated.contains(0) {
        let table = RopeTable::new(t, h, &config.rope);
        let positions = Positions::Sequence(t);
        rope::rotate(&mut rows, &table, config.heads(), positions, false);
    }
    let (mut of_q, mut of_k, mut of_v) = (Vec::new(), Vec::new(), Vec::new());
    for (row, group) in (0..b).flat_map(|row| (0..kv).map(move |group| (row, group))) {
        for t in row * t..(row + 1) * t {
            let head = |head: usize| &rows[t * width + head * h..][..h];
            let members = group * n / kv..(group + 1) * n / kv;
            members.for_each(|member| of_q.extend(head(member)));
            of_k.extend(head(n + group));
            of_v.extend(head(n + kv + group));
        }
    }
    [of_q, of_k, of_v].concat()
}

/// Else a family's biases, or its gains of queries and keys, would be left out, or be trained to another goal.
#[test]
fn biases_and_gains_of_queries_and_keys_have_their_gradients() {
    for ((name, device), shape) in devices()
        .into_iter()
        .flat_map(|device| HEADS.map(|shape| (device.clone(), shape)))
    {
        for (qk_gains, rotated) in [
            (QkGains::Head, true),
            (QkGains::Head, false),
            (QkGains::Projection, true),
            (QkGains::Projection, false),
        ] {
            let [b, n, k, t, h] = shape;
            let [q_gains, k_gains] = match qk_gains {
                QkGains::Projection => [n * h, k * h],
                _ => [h, h],
            };
            let parts = Parts {
                qkv_bias: true,
                qk_gains,
                gain_offset: 1.0,
                unrotated: Blocks::from_bits(u64::from(!rotated)),
                ..Parts::LLAMA
            };
            let model = heads_with(shape, false, parts, &device);
            let width = (n + 2 * k) * h;
            let shapes: [&[usize]; 4] =
                [&[b * t, width], &[1, width], &[1, q_gains], &[1, k_gains]];
            let x = inputs(&shapes, &device);
            fn of<'a>(heads: &'a Heads, x: &'a [Tensor]) -> BlockHeads<'a> {
                let weights = QkvWeights {
                    bias: Some(&x[1]),
                    q_gain: Some(&x[2]),
                    k_gain: Some(&x[3]),
                };
                heads.of(0, weights)
            }
            let heads = of(&model, &x);
            let qkv = heads.split(&x[0], t, 0).unwrap();
            let case = format!("{shape:?}, {qk_gains:?}, rotated {rotated}, on {name}");
            let split = |x: &[Tensor]| {
                let qkv = of(&model, x).split(&x[0], t, 0)?;
                flat(&[qkv.q, qkv.k, qkv.v])
            };
            check(&case, &x, split, |dy| {
                let (q, k) = (qkv.q.elem_count(), qkv.k.elem_count());
                let d = [
                    dy.narrow(0, 0, q)?.reshape(qkv.q.shape())?,
                    dy.narrow(0, q, k)?.reshape(qkv.k.shape())?,
                    dy.narrow(0, q + k, k)?.reshape(qkv.v.shape())?,
                ];
                let (d_qkv, sums) = heads.split_backward(&d, &qkv, true)?;
                let (alone, none) = heads.split_backward(&d, &qkv, false)?;
                assert!(none.is_none(), "{case}");
                assert_eq!(download(&alone), download(&d_qkv), "{case}");
                let (sums, mut sum) = (sums.unwrap(), [None, None, None]);
                add_rows(&mut sum[0], Summed::all(&d_qkv)?)?;
                heads.add_gains(&mut sum[1], &sums, Part::Queries)?;
                heads.add_gains(&mut sum[2], &sums, Part::Keys)?;
                Ok([d_qkv]
                    .into_iter()
                    .chain(sum.into_iter().flatten())
                    .collect())
            });
            let numbers = [0, 1, 2, 3].map(|i| download(&x[i]));
            let expected = as_on_the_cpu(shape, heads.config, numbers.each_ref().map(|x| &x[..]));
            let error = error(&download(&split(&x).unwrap()), &expected, 1e-6);
            assert!(error < 1e-5, "{case}: {error:e}");
        }
    }
}

/// Also in chunks of one position and of some, which only bound the memory, and within windows.
#[test]
fn attention_backward_is_its_derivative_whatever_the_chunks() {
    for (name, device) in devices() {
        let windows = [None, Some(1), Some(3), Some(16)];
        for (shape, window) in HEADS.into_iter().flat_map(|s| windows.map(|w| (s, w))) {
            let [b, n, k, t, h] = shape;
            let [queries, keys] = [[b, k, t * n / k, h], [b, k, t, h]];
            let x = inputs(&[&queries, &keys, &keys], &device);
            let mut whole = None;
            for chunk in [t, 2, 1] {
                let mut model = heads_with(shape, false, within(window), &device);
                model.max_scores = b * n * t * chunk;
                let heads = bare(&model);
                let (out, lse) = heads.attention(&x[0], &x[1], &x[2], 0).unwrap();
                let qkv = Qkv {
                    q: x[0].clone(),
                    k: x[1].clone(),
                    v: x[2].clone(),
                    inv_rms: lse.clone(),
                    fused: None,
                };
                check(
                    &format!("attention {shape:?} within {window:?}, chunks of {chunk} on {name}"),
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
    let windows = [None, Some(1), Some(29), Some(64), Some(149)];
    for ((name, device), window) in devices()
        .into_iter()
        .flat_map(|device| windows.map(|window| (device.clone(), window)))
    {
        let scale = 0.3;
        let parts = Parts {
            attention_scale: Some(scale),
            ..within(window)
        };
        let mut model = heads_with(SHAPE, false, parts, &device);
        model.max_scores = b * n * t * 64;
        let heads = bare(&model);
        let [queries, keys] = [[b, 1, t * n, h], [b, 1, t, h]];
        let x = inputs(&[&queries, &keys, &keys, &queries], &device);
        let (out, lse) = heads.attention(&x[0], &x[1], &x[2], 0).unwrap();
        let qkv = Qkv {
            q: x[0].clone(),
            k: x[1].clone(),
            v: x[2].clone(),
            inv_rms: lse.clone(),
            fused: None,
        };
        let [dq, dk, dv] = heads.attention_backward(&x[3], &qkv, &lse).unwrap();
        let found = [out, dq, dk, dv].map(|x| download(&x));
        let mut expected = found.clone().map(|x| vec![0f32; x.len()]);
        let [q, k, v, d_out] = [0, 1, 2, 3].map(|i| download(&x[i]));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        for row in 0..b * t * n {
            let (first, at) = (row / (t * n) * t, row * h);
            let seen = row % (t * n) / n + 1;
            let unseen = seen.saturating_sub(window.unwrap_or(seen));
            let key = |s: usize| (first + s) * h..(first + s + 1) * h;
            let (q, d_out) = (&q[at..at + h], &d_out[at..at + h]);
            let scores = (0..seen).map(|s| match s < unseen {
                true => 0.0,
                false => (scale * dot(q, &k[key(s)])).exp(),
            });
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
            assert!(
                error < 1e-5,
                "{what} within {window:?} on {name}: {error:e}"
            );
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
            let heads = bare(heads);
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

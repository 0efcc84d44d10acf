//! Every backward against finite differences of its forward, at awkward sizes.

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor};

use crate::model::Mlp;
use crate::sampling::Sampling;

use super::super::head::{self, Backward, Projection};
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
pub(super) fn inputs(shapes: &[&[usize]], device: &Device) -> Vec<Tensor> {
    let tensor = |(i, shape): (usize, &&[usize])| {
        let data = normals(&format!("input {i}"), shape.iter().product());
        Tensor::from_vec(data, *shape, device).unwrap()
    };
    shapes.iter().enumerate().map(tensor).collect()
}

/// Checks `gradients` of `Σ weights · f(inputs)`, where the weights are normal.
pub(super) fn check(
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

pub(super) const EPS: f32 = 1e-5;

/// A norm without gains.
const PLAIN: Norm<'static> = Norm {
    gain: None,
    offset: 0.0,
    scale: 1.0,
    eps: EPS,
    dtype: F32,
};

fn norm(x: &Tensor, gain: Option<&Tensor>) -> Result<(Tensor, Normed)> {
    let norm = Norm { gain, ..PLAIN };
    let (y, normed) = norm.run(x, None, true)?;
    assert_eq!(download(&norm.run(x, None, false)?.0), download(&y));
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
        norm: Norm { gain, ..PLAIN },
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
            let (y, normed) = PLAIN.run(x, rows, true).unwrap();
            (y, normed.unwrap())
        };
        let (some, normed) = run(&x[0], Some(&chosen));
        let rows = x[0].index_select(&chosen, 0).unwrap();
        let (expected, alone) = run(&rows, None);
        assert_eq!(download(&some), download(&expected));
        let passing = |d_gain| Passing {
            dy: &x[2],
            norm: Norm {
                gain: Some(&x[1]),
                ..PLAIN
            },
            d_gain: Some(d_gain),
        };
        let (mut gain, mut expected_gain) = (None, None);
        let passed = normed.backward_to_all(&row_of, passing(&mut gain));
        let zeros = rows.zeros_like().unwrap();
        let residual = Residual {
            dh: zeros.clone(),
            rounded: zeros,
        };
        let (expected, _) = alone
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

/// Else what a half of a block adds would be another thing where it is normalised, scaled, or its gains stored less 1.
#[test]
fn a_norm_adds_its_output_and_passes_the_gradient_of_the_sum() {
    for (name, device) in devices() {
        for [m, d] in [[1, 1], [1, 7], [5, 33], [70, 3], [2, 300], [9, 64]] {
            let x = inputs(&[&[m, d], &[1, d], &[m, d]], &device);
            let (given, h) = (&x[..2], &x[2]);
            for (with_gain, offset, scale) in
                [(false, 1.0, 0.4), (true, 0.0, 1.0), (true, 1.0, 0.4)]
            {
                let given = if with_gain { given } else { &given[..1] };
                fn of(x: &[Tensor], offset: f32, scale: f32) -> Norm<'_> {
                    Norm {
                        gain: x.get(1),
                        offset,
                        scale,
                        ..PLAIN
                    }
                }
                let add = |x: &[Tensor]| {
                    let sum = h.copy()?;
                    of(x, offset, scale).add(&sum, &x[0], false)?;
                    Ok(sum)
                };
                let case = format!("[{m}, {d}] + {offset}, × {scale} on {name}");
                let normed = of(given, offset, scale).add(&h.copy().unwrap(), &x[0], true);
                let normed = normed.unwrap().unwrap();
                check(&case, given, add, |dy| {
                    let mut d_gain = None;
                    let passing = Passing {
                        dy,
                        norm: of(given, offset, scale),
                        d_gain: with_gain.then_some(&mut d_gain),
                    };
                    let dx = normed.backward_alone(passing)?;
                    Ok([dx].into_iter().chain(d_gain).collect())
                });
                let [numbers, gains, sum] = [0, 1, 2].map(|i| download(&x[i]));
                let mut expected = sum;
                for (row, numbers) in expected.chunks_exact_mut(d).zip(numbers.chunks_exact(d)) {
                    let squares: f32 = numbers.iter().map(|x| x * x).sum();
                    let rms = (squares / d as f32 + EPS).sqrt();
                    for i in 0..d {
                        let gain = if with_gain { offset + gains[i] } else { 1.0 };
                        row[i] += scale * gain * numbers[i] / rms;
                    }
                }
                let error = error(&download(&add(given).unwrap()), &expected, 1e-6);
                assert!(error < 1e-6, "{case}: {error:e}");
            }
        }
    }
}

#[test]
fn mlp_backward_is_its_derivative_and_far_values_stay_finite() {
    for (name, device) in devices() {
        for (kind, width) in [(Mlp::Gelu, 11), (Mlp::SwiGlu, 22), (Mlp::GeGlu, 22)] {
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
        for kind in [Mlp::SwiGlu, Mlp::GeGlu] {
            let (slope, y) = ops::mlp_backward(kind, &ones, &both).unwrap();
            assert_eq!(download(&y), [0.0, 0.0, 60.0, 1e4]);
            assert_eq!(download(&slope), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 60.0, 1e4]);
        }
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
        ops::embed_backward(&mut grad, 7, &tokens, dh, 1.0).unwrap();
        let ids = Tensor::new(&tokens[..], &device).unwrap();
        let zeros = Tensor::zeros((7, 9), F32, &device).unwrap();
        let expected = download(&zeros.index_add(&ids, dh, 0).unwrap());
        assert!(error(&download(grad.as_ref().unwrap()), &expected, 1e-6) < 1e-6);
        ops::embed_backward(&mut grad, 7, &tokens, dh, 3.0).unwrap();
        let four_times: Vec<f32> = expected.iter().map(|x| 4.0 * x).collect();
        assert!(error(&download(&grad.unwrap()), &four_times, 1e-6) < 1e-6);
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
                add_matmul_tn(&mut dw, dy, &x[0], 0.25)?;
                add_matmul_tn(&mut dw, dy, &x[0], 0.75)?;
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

//! Every backward against finite differences of its forward, at awkward sizes.

use candle_core::{DType, Device, Result, Tensor};

use super::super::ops::{attention, gelu, head, matmul_nn, matmul_nt, matmul_tn, norm, rope};
use super::{devices, download, error, normals};

/// Central differences of f32 functions with this step are good to about a part in a thousand.
const STEP: f32 = 1e-2;
const TOLERANCE: f64 = 2e-3;

/// Normal tensors of some shapes.
fn inputs(shapes: &[&[usize]], device: &Device) -> Vec<Tensor> {
    let each = shapes.iter().enumerate().map(|(i, shape)| {
        let data = normals(&format!("input {i}"), shape.iter().product());
        Tensor::from_vec(data, *shape, device).unwrap()
    });
    each.collect()
}

/// Checks `gradients` of `Σ weights · f(inputs)`, where the weights are normal.
fn check(
    what: &str,
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
    for (i, found) in gradients(&dy).unwrap().iter().enumerate() {
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
        assert_eq!(found.dims(), inputs[i].dims(), "{what}, input {i}");
        let error = error(&download(found), &expected, 0.1);
        assert!(error < TOLERANCE, "{what}, input {i}: {error:e}");
    }
}

#[test]
fn norm_backward_is_its_derivative() {
    for (name, device) in devices() {
        for shape in [[1, 1], [1, 7], [5, 33]] {
            let x = inputs(&[&shape], &device);
            let (y, inv_rms) = norm::forward(&x[0]).unwrap();
            check(
                &format!("norm {shape:?} on {name}"),
                &x,
                |x| Ok(norm::forward(&x[0])?.0),
                |dy| Ok(vec![norm::backward(dy, &y, &inv_rms)?]),
            );
        }
    }
}

#[test]
fn rope_backward_is_its_derivative() {
    for (name, device) in devices() {
        for shape in [[1, 1, 2], [3, 5, 6], [2, 17, 8]] {
            let table = rope::RopeTable::new(shape[1], shape[2], 10_000.0, &device).unwrap();
            let x = inputs(&[&shape], &device);
            let (y, inv_rms) = rope::forward(&x[0], &table).unwrap();
            check(
                &format!("rope {shape:?} on {name}"),
                &x,
                |x| Ok(rope::forward(&x[0], &table)?.0),
                |dy| Ok(vec![rope::backward(dy, &y, &inv_rms, &table)?]),
            );
        }
    }
}

#[test]
fn attention_backward_is_its_derivative() {
    for (name, device) in devices() {
        for shape in [[1, 1, 1, 2], [1, 2, 9, 3], [3, 1, 2, 5]] {
            let mask = attention::causal_mask(shape[2], &device).unwrap();
            let x = inputs(&[&shape[..]; 3], &device);
            let (out, lse) = attention::forward(&x[0], &x[1], &x[2], &mask).unwrap();
            let seen = [&x[0], &x[1], &x[2]];
            check(
                &format!("attention {shape:?} on {name}"),
                &x,
                |x| Ok(attention::forward(&x[0], &x[1], &x[2], &mask)?.0),
                |d| Ok(attention::backward(d, seen, &out, &lse, &mask)?.to_vec()),
            );
        }
    }
}

#[test]
fn gelu_slope_is_its_derivative_and_far_values_stay_finite() {
    for (name, device) in devices() {
        let x = inputs(&[&[3, 11]], &device);
        let (_, slope) = gelu::forward(&x[0], true).unwrap();
        check(
            &format!("gelu on {name}"),
            &x,
            |x| Ok(gelu::forward(&x[0], false)?.0),
            |dy| Ok(vec![(dy * slope.as_ref().unwrap())?]),
        );
        let far = Tensor::new(&[-1e4f32, -60.0, 60.0, 1e4], &device).unwrap();
        let (y, slope) = gelu::forward(&far, true).unwrap();
        assert_eq!(download(&y), [0.0, 0.0, 60.0, 1e4]);
        assert_eq!(download(&slope.unwrap()), [0.0, 0.0, 1.0, 1.0]);
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
            |dy| Ok(vec![matmul_nn(dy, &x[1])?, matmul_tn(dy, &x[0])?]),
        );
    }
}

/// Chunks of one position, of some with a stump at the end, and all at once must give the same.
#[test]
fn head_gradients_are_derivatives_whatever_the_chunks() {
    for (name, device) in devices() {
        for (m, v, d) in [(1, 1, 2), (1, 5, 3), (7, 19, 4)] {
            let x = inputs(&[&[m, d], &[v, d], &[m, d], &[v, d]], &device);
            let targets: Vec<u32> = (0..m).map(|i| (i * 7 % v) as u32).collect();
            let targets = Tensor::from_vec(targets, m, &device).unwrap();
            let positions = |x: &[Tensor]| -> [Tensor; 5] {
                [&x[0], &x[1], &x[2], &x[3], &targets].map(Tensor::clone)
            };
            for chunk_logits in [1, 3 * v, 1 << 20] {
                let run = |x: &[Tensor], weights: Option<head::Weights>| {
                    let [hidden, embed, reference, reference_embed, targets] = positions(x);
                    let positions = head::Positions {
                        student: (&hidden, &embed),
                        reference: Some((&reference, &reference_embed)),
                        targets: &targets,
                    };
                    head::run(&positions, weights, chunk_logits)
                };
                check(
                    &format!("head {m} × {v}, chunks of {chunk_logits} on {name}"),
                    &x,
                    |x| run(x, None)?.0.narrow(1, 0, 2),
                    |weights| {
                        let (ntp, kl) = (weights.narrow(1, 0, 1)?, weights.narrow(1, 1, 1)?);
                        let (ntp, kl) = (ntp.flatten_all()?, kl.flatten_all()?);
                        let weights = head::Weights { ntp: &ntp, kl: &kl };
                        let gradients = run(&x, Some(weights))?.1.unwrap();
                        Ok(vec![gradients.hidden, gradients.embed])
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
        let targets = [1u32, 1, 0, 0];
        // With the identity as embedding, hidden states are logits.
        let hidden = Tensor::new(&logits, &device).unwrap();
        let embed = Tensor::eye(3, DType::F32, &device).unwrap();
        let targets = Tensor::new(&targets, &device).unwrap();
        let positions = head::Positions {
            student: (&hidden, &embed),
            reference: None,
            targets: &targets,
        };
        let (losses, _) = head::run(&positions, None, 1 << 20).unwrap();
        let correct = download(&losses.narrow(1, 2, 1).unwrap());
        assert_eq!(correct, [1.0, 0.0, 0.0, 1.0]);
    }
}

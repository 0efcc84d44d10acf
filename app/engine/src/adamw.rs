//! AdamW: updates in one pass over memory, and moments that can be saved.

use rayon::prelude::*;

use crate::ops::simd::{dot, multiversion};

/// Settings of [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the square root of the second moment after its bias correction.
    pub eps: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
}

/// State of AdamW (Loshchilov and Hutter, arXiv 1711.05101) for one flat buffer of weights.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// Settings.
    pub config: AdamWConfig,
    /// Number of updates so far.
    pub updates: u64,
    /// First moment of each weight.
    pub m: Vec<f32>,
    /// Second moment of each weight.
    pub v: Vec<f32>,
}

/// Weights that a thread updates at once; fixed, so that the norm is always summed in one order.
const CHUNK: usize = 1 << 14;
/// Weights whose gradients are summed at once, on the stack.
const BLOCK: usize = 1 << 10;

/// Factors of one update in f32, as the kernels take them.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    /// `1 / (1 − beta1^t)` and `1 / √(1 − beta2^t)`.
    pub correct1: f32,
    pub correct2: f32,
    pub lr: f32,
    pub weight_decay: f32,
    /// `1 − beta1` and `1 − beta2`, computed in f64: in f32 the betas are too coarse.
    pub rest1: f32,
    pub rest2: f32,
}

impl AdamWConfig {
    /// Factors of update number `updates`, from 1.
    pub(crate) fn factors(&self, updates: u64, lr: f64) -> Factors {
        let t = updates.min(i32::MAX as u64) as i32;
        Factors {
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            eps: self.eps as f32,
            correct1: (1.0 / (1.0 - self.beta1.powi(t))) as f32,
            correct2: (1.0 / (1.0 - self.beta2.powi(t)).sqrt()) as f32,
            lr: lr as f32,
            weight_decay: self.weight_decay as f32,
            rest1: (1.0 - self.beta1) as f32,
            rest2: (1.0 - self.beta2) as f32,
        }
    }
}

impl AdamW {
    /// Initial state for `len` weights.
    pub fn new(config: AdamWConfig, len: usize) -> Self {
        Self {
            config,
            updates: 0,
            m: vec![0.0; len],
            v: vec![0.0; len],
        }
    }

    /// Returns to the initial state.
    pub fn reset(&mut self) {
        self.updates = 0;
        self.m.fill(0.0);
        self.v.fill(0.0);
    }

    /// Updates `weights` with the sum of `grads`, each as long as the weights; returns the norm of that sum.
    ///
    /// `θ −= lr · (m̂ / (√v̂ + eps) + weight_decay · θ)`. Runs on the rayon pool it is called in.
    pub fn update(&mut self, weights: &mut [f32], grads: &[&[f32]], lr: f64) -> f64 {
        self.updates += 1;
        let factors = self.config.factors(self.updates, lr);
        let squares: Vec<f64> = weights
            .par_chunks_mut(CHUNK)
            .zip(self.m.par_chunks_mut(CHUNK))
            .zip(self.v.par_chunks_mut(CHUNK))
            .enumerate()
            .map(|(i, ((weights, m), v))| {
                let mut squares = 0.0;
                for first in (0..weights.len()).step_by(BLOCK) {
                    let len = BLOCK.min(weights.len() - first);
                    let at = i * CHUNK + first;
                    let mut sum = [0f32; BLOCK];
                    let sum = &mut sum[..len];
                    for grads in grads {
                        add(sum, &grads[at..at + len]);
                    }
                    let range = first..first + len;
                    squares += f64::from(step(
                        &mut weights[range.clone()],
                        &mut m[range.clone()],
                        &mut v[range],
                        sum,
                        factors,
                    ));
                }
                squares
            })
            .collect();
        squares.iter().sum::<f64>().sqrt()
    }
}

multiversion! {
    /// `sum += x`.
    fn add(sum: &mut [f32], x: &[f32]) {
        for (sum, x) in sum.iter_mut().zip(x) {
            *sum += *x;
        }
    }
}

multiversion! {
    /// Updates a block; returns the sum of the squared gradients.
    fn step(weights: &mut [f32], m: &mut [f32], v: &mut [f32], grads: &[f32], f: Factors) -> f32 {
        for (((w, m), v), &g) in weights.iter_mut().zip(m).zip(v).zip(grads) {
            *m = f.beta1.mul_add(*m, f.rest1 * g);
            *v = f.beta2.mul_add(*v, f.rest2 * g * g);
            let direction = *m * f.correct1 / (v.sqrt() * f.correct2 + f.eps);
            *w = (-f.lr).mul_add(f.weight_decay.mul_add(*w, direction), *w);
        }
        dot(grads, grads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights must decay at small learning rates too, and moments must change with betas near 1.
    #[test]
    fn updates_follow_the_formula_where_f32_is_coarse() {
        let config = AdamWConfig {
            beta1: 0.9,
            beta2: 0.999_999_99,
            eps: 1e-8,
            weight_decay: 0.02,
        };
        let (lr, g) = (1e-4, 0.5f64);
        let mut adamw = AdamW::new(config, 1);
        let mut weights = [1e-3f32];
        let mut exact = 1e-3f64;
        let (mut m, mut v) = (0.0, 0.0);
        for t in 1..=20 {
            let grads = [g as f32];
            let norm = adamw.update(&mut weights, &[&grads], lr);
            assert!((norm - g).abs() < 1e-6);
            m = config.beta1 * m + (1.0 - config.beta1) * g;
            v = config.beta2 * v + (1.0 - config.beta2) * g * g;
            let m_hat = m / (1.0 - config.beta1.powi(t));
            let v_hat = v / (1.0 - config.beta2.powi(t));
            exact -= lr * (m_hat / (v_hat.sqrt() + config.eps) + config.weight_decay * exact);
        }
        assert!(
            (f64::from(weights[0]) - exact).abs() < 1e-8,
            "{} against {exact}",
            weights[0]
        );
        let mut still = [1.0f32];
        AdamW::new(config, 1).update(&mut still, &[&[0.0]], 1e-5);
        assert!((f64::from(still[0]) - (1.0 - 2e-7)).abs() < 6e-8);
    }
}

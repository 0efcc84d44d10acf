//! Losses and gradients of batches, whose rows are spread over threads.
//!
//! A batch is divided into micro-batches small enough to stay in the caches. Each *lane* runs its share of
//! them one after another on one thread, with buffers and a gradient of its own; the optimizer sums
//! the lanes' gradients in a fixed order. Which lane gets which micro-batch depends on the number of lanes
//! alone, so that the same number of threads gives the same bits. A single thread runs two lanes, so that
//! one and two threads agree as well.

use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use crate::adamw::AdamW;
use crate::batch::{Batching, LossBatch, LossReport, Query};
use crate::micro::{Cut, TokenRows};
use crate::model::{Layout, Lora, LoraLayout, ModelRef, Packed, Params};
use crate::ops::Precision;
use crate::ops::head::PositionLoss;

use super::lane::Lane;
use super::micro;

/// Losses, gradients and updates on the CPU, for models of one layout.
pub struct Engine {
    layout: Arc<Layout>,
    pool: Arc<rayon::ThreadPool>,
    threads: usize,
    student: Packed,
    reference: Packed,
    batching: Batching,
    lanes: Vec<Lane>,
    /// Number of lanes that had a share of the last batch; the gradients of the others are stale.
    busy: usize,
}

impl Engine {
    /// An engine with that many threads.
    ///
    /// # Errors
    /// When the system refuses to start threads.
    pub fn new(
        layout: &Arc<Layout>,
        threads: usize,
        precision: Precision,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("engine-{i}"))
            .build()?;
        let lanes = (0..Self::lanes(threads))
            .map(|_| Lane::new(layout.config))
            .collect();
        Ok(Self {
            layout: layout.clone(),
            pool: Arc::new(pool),
            threads,
            student: Packed::new(layout, precision),
            reference: Packed::new(layout, precision),
            batching: Batching::default(),
            lanes,
            busy: 0,
        })
    }

    /// Number of lanes of an engine with that many threads.
    pub fn lanes(threads: usize) -> usize {
        threads.max(2)
    }

    /// Sets how batches are divided from now on.
    pub fn set_batching(&mut self, batching: Batching) {
        self.batching = batching;
    }

    /// The pool of threads, which a sampler may share.
    pub fn pool(&self) -> &Arc<rayon::ThreadPool> {
        &self.pool
    }

    /// Computes losses and the gradient of their weighted sum with respect to `student`, or to its adapters if
    /// it has any; the lanes keep the gradient.
    ///
    /// `reference` is needed where a batch has KL weights.
    pub fn forward_backward<'a>(
        &mut self,
        student: impl Into<ModelRef<'a>>,
        reference: Option<&Params>,
        batches: &[LossBatch],
    ) -> LossReport {
        let student = student.into();
        let batching = self.batching;
        let mut micros = Vec::new();
        for (number, batch) in batches.iter().enumerate() {
            let rows = TokenRows {
                tokens: batch.tokens,
                seq_len: batch.seq_len,
            };
            let of_batch = rows.next_token(self.cut(batch.seq_len), batch.counts());
            micros.extend(of_batch.into_iter().map(|micro| (number, micro)));
        }
        // One clears its gradient also where nothing is scored.
        self.busy = micros.len().clamp(1, self.lanes.len());
        let len = match student.lora {
            Some(lora) => lora.layout.gradient_len(),
            None => self.layout.len,
        };
        let reference = reference.filter(|_| batches.iter().any(LossBatch::has_kl));
        let results = self.pool.install(|| {
            let student = self.student.pack(student, true);
            let reference = reference.map(|params| self.reference.pack(params.into(), false));
            let lanes = &mut self.lanes[..self.busy];
            lanes
                .par_iter_mut()
                .for_each(|lane| lane.clear_gradients(len));
            share(lanes, &micros, |lane, (batch, micro)| {
                let start = Instant::now();
                let batch = &batches[*batch];
                let losses = lane.train(student, reference, micro, batch, batching.keep());
                (losses, start.elapsed().as_secs_f64())
            })
        });
        let mut report = LossReport::default();
        let zeros = |batch: &LossBatch| vec![PositionLoss::default(); batch.tokens.len()];
        let mut losses: Vec<Vec<PositionLoss>> = batches.iter().map(zeros).collect();
        report.seconds = vec![0.0; batches.len()];
        for ((batch, micro), (of_micro, seconds)) in micros.iter().zip(results) {
            micro.put(of_micro, &mut losses[*batch]);
            report.seconds[*batch] += seconds / self.threads as f64;
        }
        for (batch, losses) in batches.iter().zip(losses) {
            let (total, rows) = batch.weigh(&losses);
            report.total += total;
            report.rows.push(rows);
        }
        report
    }

    /// Updates `student` with the gradient of the last [`Self::forward_backward`]; returns its norm.
    pub fn update(&mut self, student: &mut Params, optimizer: &mut AdamW, lr: f64) -> f64 {
        let grads: Vec<&[f32]> = self.lane_gradients().collect();
        self.pool
            .install(|| optimizer.update(&mut student.data, &grads, lr))
    }

    /// Updates adapters with the gradient of the last [`Self::forward_backward`]; returns its norm.
    pub fn update_adapters(&mut self, lora: &mut Lora, optimizer: &mut AdamW, lr: f64) -> f64 {
        let gradient = self.adapter_gradients(&lora.layout);
        self.pool
            .install(|| optimizer.update(&mut lora.data, &[&gradient.data], lr))
    }

    /// The gradient of the last [`Self::forward_backward`] of a model with adapters of this layout.
    pub fn adapter_gradients(&self, layout: &Arc<LoraLayout>) -> Lora {
        let gradients: Vec<&[f32]> = self.lane_gradients().collect();
        layout.gather(&gradients, layout.config.scale())
    }

    /// The gradients that the lanes keep of the last batches.
    fn lane_gradients(&self) -> impl Iterator<Item = &[f32]> {
        self.lanes[..self.busy].iter().map(|lane| &lane.grads[..])
    }

    /// The gradient of the last [`Self::forward_backward`] of a model without adapters.
    pub fn gradients(&self) -> Params {
        let mut sum = Params::zeros(&self.layout);
        for gradient in self.lane_gradients() {
            for (sum, g) in sum.data.iter_mut().zip(gradient) {
                *sum += g;
            }
        }
        sum
    }

    /// Computes losses `[B, T]` of positions of `tokens [B, T]` without gradients: of those that are `wanted`, or
    /// of all. The losses of the others, and of each row's last position, are zero.
    pub fn evaluate<'a>(
        &mut self,
        student: impl Into<ModelRef<'a>>,
        reference: Option<&Params>,
        tokens: &[u32],
        seq_len: usize,
        wanted: Option<&[bool]>,
    ) -> Vec<PositionLoss> {
        let student = student.into();
        let counts = |i: usize| wanted.is_none_or(|wanted| wanted[i]);
        let micros = TokenRows { tokens, seq_len }.next_token(self.cut(seq_len), counts);
        let results = self.pool.install(|| {
            let student = self.student.pack(student, false);
            let reference = reference.map(|params| self.reference.pack(params.into(), false));
            share(&mut self.lanes, &micros, |lane, micro| {
                lane.evaluate(student, reference, micro)
            })
        });
        let mut losses = vec![PositionLoss::default(); tokens.len()];
        for (micro, of_micro) in micros.iter().zip(results) {
            micro.put(of_micro, &mut losses);
        }
        losses
    }

    /// Log-probabilities of each query's candidates for the token that follows its position in
    /// `tokens [B, T]`; no other position passes through the head.
    pub fn log_probs<'a>(
        &mut self,
        student: impl Into<ModelRef<'a>>,
        tokens: &[u32],
        seq_len: usize,
        queries: &[Query],
    ) -> Vec<Vec<f32>> {
        let student = student.into();
        let asked = TokenRows { tokens, seq_len }.asked(self.cut(seq_len), queries);
        let results = self.pool.install(|| {
            let student = self.student.pack(student, false);
            share(&mut self.lanes, &asked, |lane, asked| {
                let candidates = asked.queries.iter().map(|&q| &queries[q].candidates[..]);
                lane.log_probs(student, &asked.micro, &candidates.collect::<Vec<_>>())
            })
        });
        let mut log_probs = vec![Vec::new(); queries.len()];
        for (asked, answers) in asked.iter().zip(results) {
            for (&query, answer) in asked.queries.iter().zip(answers) {
                log_probs[query] = answer;
            }
        }
        log_probs
    }

    /// All logits `[B, T, V]` of `tokens [B, T]`. For checks: training never holds them all.
    pub fn logits<'a>(
        &mut self,
        student: impl Into<ModelRef<'a>>,
        tokens: &[u32],
        seq_len: usize,
    ) -> Vec<f32> {
        let student = student.into();
        let (packed, lane) = (&mut self.student, &mut self.lanes[0]);
        self.pool
            .install(|| lane.logits(packed.pack(student, false), tokens, seq_len))
    }

    /// How rows of this length are divided into micro-batches.
    fn cut(&self, seq_len: usize) -> Cut<impl Fn(usize) -> usize + use<>> {
        let (batching, layout, lanes) = (self.batching, self.layout.clone(), self.lanes.len());
        Cut {
            count: move |rows| micro::count(batching, &layout, rows, seq_len, lanes),
            multiple: 1,
        }
    }
}

/// Runs each lane's micro-batches; the results are in the order of the micro-batches.
fn share<M: Sync, R: Send>(
    lanes: &mut [Lane],
    micros: &[M],
    work: impl Fn(&mut Lane, &M) -> R + Sync,
) -> Vec<R> {
    let n_lanes = lanes.len();
    let mut results_of_lanes: Vec<std::vec::IntoIter<R>> = lanes
        .par_iter_mut()
        .enumerate()
        .map(|(i, lane)| {
            let micros = micros.iter().skip(i).step_by(n_lanes);
            let results: Vec<R> = micros.map(|micro| work(lane, micro)).collect();
            results.into_iter()
        })
        .collect();
    (0..micros.len())
        .filter_map(|i| results_of_lanes[i % n_lanes].next())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adamw::AdamWConfig;
    use crate::model::ModelConfig;
    use crate::random::Stream;

    /// Losses and gradient of the second of two steps, and the weights it starts from.
    struct Step {
        report: LossReport,
        gradient: Params,
        student: Params,
    }

    /// Takes two steps on new and replayed rows of different lengths.
    fn train(batching: Batching, threads: usize) -> Step {
        let layout = Layout::new(ModelConfig::mini(24, 3, 8, 37));
        let mut student = Params::init(&layout, &Stream::new(1, "student"));
        let reference = Params::init(&layout, &Stream::new(2, "reference"));
        let random = |rows: usize, seq_len: usize| -> (Vec<u32>, Vec<f32>) {
            let mut random = Stream::new(3, "rows").at(rows as u64);
            let tokens = (0..rows * seq_len).map(|_| random.below(37) as u32);
            tokens.map(|t| (t, t as f32 / 1000.0)).unzip()
        };
        let (new, ntp) = random(13, 7);
        let (replay, kl) = random(6, 11);
        let zeros = vec![0.0; new.len()];
        let batches = [
            LossBatch {
                tokens: &new,
                seq_len: 7,
                ntp_weights: &ntp,
                kl_weights: &zeros,
            },
            LossBatch {
                tokens: &replay,
                seq_len: 11,
                ntp_weights: &zeros[..replay.len()],
                kl_weights: &kl,
            },
        ];
        let config = AdamWConfig {
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.01,
        };
        let mut optimizer = AdamW::new(config, layout.len);
        let mut engine = Engine::new(&layout, threads, Precision::F32).unwrap();
        engine.set_batching(batching);
        engine.forward_backward(&student, Some(&reference), &batches);
        engine.update(&mut student, &mut optimizer, 1e-2);
        let report = engine.forward_backward(&student, Some(&reference), &batches);
        Step {
            report,
            gradient: engine.gradients(),
            student,
        }
    }

    /// Else less memory would mean another experiment.
    #[test]
    fn computing_blocks_again_gives_the_same_bits() {
        for micro_batch in [0, 1, 4] {
            let with = |recompute| {
                let batching = Batching {
                    micro_batch,
                    recompute,
                    ..Batching::default()
                };
                let step = train(batching, 2);
                (
                    step.report.total,
                    step.report.rows,
                    step.gradient,
                    step.student,
                )
            };
            assert_eq!(with(true), with(false), "micro-batches of {micro_batch}");
        }
    }

    /// Else a smaller micro-batch would weigh rows otherwise: the divisor is the batch's, not its own.
    #[test]
    fn micro_batches_of_any_size_give_the_same_losses_and_gradients() {
        let whole = train(Batching::default(), 1);
        let largest = whole.gradient.data.iter().fold(0f32, |a, x| a.max(x.abs()));
        assert!(whole.report.total > 0.0 && largest > 0.0);
        // One row, a divisor of neither batch, one more than half, larger than both.
        for micro_batch in [1, 4, 7, 1000] {
            let batching = Batching {
                micro_batch,
                ..Batching::default()
            };
            let cut = train(batching, 3);
            let close = |a: f64, b: f64| (a - b).abs() < 1e-5 * b.abs().max(1.0);
            assert!(close(cut.report.total, whole.report.total), "{micro_batch}");
            let batches = cut.report.rows.iter().zip(&whole.report.rows);
            for (batch, (rows, expected)) in batches.enumerate() {
                assert_eq!(rows.len(), [13, 6][batch]);
                for (a, b) in rows.iter().zip(expected) {
                    assert!(close(a.ntp, b.ntp) && close(a.kl, b.kl), "{micro_batch}");
                }
            }
            for (a, b) in cut.gradient.data.iter().zip(&whole.gradient.data) {
                assert!((a - b).abs() < 1e-5 * largest, "{micro_batch}: {a}, {b}");
            }
        }
    }
}

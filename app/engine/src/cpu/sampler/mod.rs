//! Batched generation with a KV cache.

mod lane;

use std::sync::Arc;

use lane::{CACHE_STEP, Chunk, Lane, widths};
use rayon::prelude::*;

use crate::model::{Layout, ModelConfig, ModelRef, Packed};
use crate::ops::Precision;
use crate::sampling::{Generated, Request};

/// Most rows that a thread generates together: enough to share the reading of the weights.
const CHUNK_ROWS: usize = 64;
/// Most bytes of a thread's caches, unless a few rows alone need more.
const CACHE_BYTES: usize = 192 << 20;

/// Generation on the CPU, for models of one layout.
pub struct Sampler {
    layout: Arc<Layout>,
    pool: Arc<rayon::ThreadPool>,
    packed: Packed,
    lanes: Vec<Lane>,
}

impl Sampler {
    /// A sampler that works on the threads of `pool`.
    pub fn new(layout: &Arc<Layout>, pool: &Arc<rayon::ThreadPool>, precision: Precision) -> Self {
        let lanes = (0..pool.current_num_threads())
            .map(|_| Lane::new(layout.config))
            .collect();
        Self {
            layout: layout.clone(),
            pool: pool.clone(),
            packed: Packed::new(layout, precision),
            lanes,
        }
    }

    /// Number of floats in caches and buffers after `rows` of `length` tokens were generated from prompts of one
    /// token.
    pub fn len(config: &ModelConfig, threads: usize, rows: usize, length: usize) -> usize {
        let chunk = chunk_rows(config, length, rows, threads);
        let widths: usize = widths(config).iter().sum();
        let row = row_cache(config, length) + widths + config.vocab_size;
        threads.min(rows.div_ceil(chunk)) * chunk * row
    }

    /// Generates every row of the request by ancestral sampling from `model`.
    ///
    /// Prompts must not be empty nor longer than `length`, their ids below the vocabulary's size.
    pub fn generate<'a>(&mut self, model: impl Into<ModelRef<'a>>, request: Request) -> Generated {
        let model = model.into();
        debug_assert_eq!(model.params.layout, self.layout);
        let rows = request.prompts.len();
        let mut generated = Generated {
            tokens: vec![0; rows * request.length],
            lengths: vec![request.length as u32; rows],
        };
        let n_lanes = self.lanes.len();
        let chunk_rows = chunk_rows(&self.layout.config, request.length, rows, n_lanes);
        // Chunk i belongs to lane i mod n.
        let mut shares: Vec<Vec<Chunk>> = (0..n_lanes).map(|_| Vec::new()).collect();
        let tokens = generated
            .tokens
            .chunks_mut(chunk_rows * request.length.max(1));
        let lengths = generated.lengths.chunks_mut(chunk_rows);
        for (i, (tokens, lengths)) in tokens.zip(lengths).enumerate() {
            shares[i % n_lanes].push(Chunk {
                first: i * chunk_rows,
                tokens,
                lengths,
            });
        }
        self.pool.install(|| {
            let model = self.packed.pack(model, false);
            self.lanes
                .par_iter_mut()
                .zip(shares)
                .for_each(|(lane, chunks)| {
                    for chunk in chunks {
                        lane.generate(model, &request, chunk);
                    }
                });
        });
        generated
    }
}

/// Number of rows of a chunk: as many as are useful and fit into the caches, but few enough that no lane idles.
/// A row's tokens do not depend on it.
fn chunk_rows(config: &ModelConfig, length: usize, rows: usize, lanes: usize) -> usize {
    let row_bytes = 4 * row_cache(config, length);
    let max_rows = (CACHE_BYTES / row_bytes.max(1)).clamp(8, CHUNK_ROWS);
    max_rows.min(rows.div_ceil(lanes)).max(1)
}

/// Number of floats in the caches of a row.
fn row_cache(config: &ModelConfig, length: usize) -> usize {
    let kv_width = config.n_kv_heads * config.head_dim;
    2 * config.n_layers * kv_width * length.next_multiple_of(CACHE_STEP)
}

#[cfg(test)]
mod tests {
    use crate::model::Params;
    use crate::ops::head::log_sum_exp;
    use crate::random::Stream;
    use crate::sampling::Sampling;

    use super::super::Engine;
    use super::super::tests::{AFTER, AROUND};
    use super::*;

    /// The paper's small model, a Llama, and models with every part that is unlike it.
    fn models() -> [Params; 4] {
        let mini = ModelConfig::mini(32, 2, 8, 23);
        let llama = ModelConfig::llama(32, 2, [4, 2, 8], 45, 23);
        let [around, after] = [AROUND, AFTER].map(|like| ModelConfig {
            mlp: like.mlp,
            parts: like.parts,
            ..llama
        });
        [mini, llama, around, after].map(|config| {
            let layout = Layout::new(config);
            let mut params = Params::init(&layout, &Stream::new(7, "test"));
            // Far enough from uniform that a wrong cache changes the choice.
            params.data.iter_mut().for_each(|x| *x *= 2.0);
            params
        })
    }

    fn generate(
        params: &Params,
        threads: usize,
        length: usize,
        sampling: &Sampling,
        prompts: &[Vec<u32>],
    ) -> Generated {
        let engine = Engine::new(&params.layout, threads, Precision::F32).unwrap();
        let mut sampler = Sampler::new(&params.layout, engine.pool(), Precision::F32);
        let stream = Stream::new(3, "sample");
        sampler.generate(
            params,
            Request {
                prompts,
                length,
                sampling,
                stream: &stream,
                first_row: 5,
            },
        )
    }

    /// Prompts are run in passes of many positions: token by token the result must be the same.
    #[test]
    fn prompts_taken_at_once_change_no_bit() {
        for model in models() {
            let (sampling, length) = (Sampling::default(), 300);
            // Longer than a pass of so many rows; and one row that keeps the others from going ahead.
            let prompt = |i: u32| (0..290).map(|j| (i * 7 + j * 3 + j / 9) % 23).collect();
            let long: Vec<Vec<u32>> = (0..3).map(prompt).collect();
            let at_once = generate(&model, 1, length, &sampling, &long);
            let mut with_short = long.clone();
            with_short.push(vec![3]);
            let one_by_one = generate(&model, 1, length, &sampling, &with_short);
            assert_eq!(at_once.tokens, one_by_one.tokens[..3 * length]);
        }
    }

    /// Greedy decoding with the cache writes what the full forward finds most likely.
    #[test]
    fn greedy_decoding_agrees_with_the_full_forward() {
        let prompts: Vec<Vec<u32>> = (0..70)
            .map(|i| (0..1 + i % 5).map(|j| (i * 7 + j * 3) % 23).collect())
            .collect();
        let length = 19;
        for model in models() {
            let out = generate(&model, 2, length, &Sampling::greedy(), &prompts);
            let mut engine = Engine::new(&model.layout, 2, Precision::F32).unwrap();
            let losses = engine.evaluate(&model, None, &out.tokens, length, None);
            let rows = out.tokens.chunks(length).zip(losses.chunks(length));
            for (i, (row, losses)) in rows.enumerate() {
                let prompt = &prompts[i];
                assert_eq!(&row[..prompt.len()], prompt);
                let written = &losses[prompt.len() - 1..length - 1];
                assert!(written.iter().all(|l| l.correct), "row {i}");
            }
        }
    }

    #[test]
    fn the_same_rows_come_out_on_any_number_of_threads() {
        let prompts = vec![vec![1]; 200];
        for model in models() {
            let one = generate(&model, 1, 15, &Sampling::default(), &prompts);
            let three = generate(&model, 3, 15, &Sampling::default(), &prompts);
            assert_eq!(one, three);
            assert_ne!(one.tokens[..15], one.tokens[15..30]);
        }
    }

    /// Ancestral sampling at temperature 1 draws from the model's distribution.
    #[test]
    fn frequencies_follow_the_model() {
        let [model, ..] = models();
        let n = 20_000;
        let out = generate(&model, 2, 2, &Sampling::default(), &vec![vec![4]; n]);
        let mut engine = Engine::new(&model.layout, 1, Precision::F32).unwrap();
        let logits = engine.logits(&model, &[4, 0], 2);
        let lse = log_sum_exp(&logits[..23]);
        for (token, logit) in logits[..23].iter().enumerate() {
            let p = f64::from((logit - lse).exp());
            let rows = out.tokens.chunks(2);
            let count = rows.filter(|row| row[1] == token as u32).count();
            let frequency = count as f64 / n as f64;
            let sigma = (p * (1.0 - p) / n as f64).sqrt();
            assert!(
                (frequency - p).abs() < 5.0 * sigma + 1e-4,
                "token {token}: {frequency} against {p}"
            );
        }
    }

    #[test]
    fn a_stop_token_ends_a_row_and_stays_in_it() {
        let prompts = vec![vec![1]; 100];
        let stop_tokens = vec![2, 5];
        let sampling = Sampling {
            stop_tokens: stop_tokens.clone(),
            ..Sampling::default()
        };
        let out = generate(&models()[0], 2, 15, &sampling, &prompts);
        let mut stopped = 0;
        for (row, &len) in out.tokens.chunks(15).zip(&out.lengths) {
            let len = len as usize;
            assert!(!row[1..len - 1].iter().any(|t| stop_tokens.contains(t)));
            assert!(row[len..].iter().all(|&t| t == 0));
            if len < 15 {
                assert!(stop_tokens.contains(&row[len - 1]));
                stopped += 1;
            }
        }
        assert!(stopped > 0);
    }
}

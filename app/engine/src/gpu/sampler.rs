//! Batched generation with a KV cache; tokens stay on the device until all are chosen.

use candle_core::{Device, Result, Tensor};

use crate::batch::Batching;
use crate::random::Random;
use crate::sampling::{Generated, Request, Sampling};

use super::arguments::Choose;
use super::kernels::{Grid, launch};
use super::matmul::matmul_nt;
use super::memory;
use super::model::Cache;
use super::params::Params;
use super::pointers::{change_ids, f32s, optional};
use super::tensor::upload_ids;

/// What a row has in place of a token that is still to be chosen, as in `kernels.cu`.
pub(super) const UNCHOSEN: u32 = u32::MAX;
/// Positions between two checks whether all rows have stopped.
const STOP_INTERVAL: usize = 32;

/// Generation on a GPU.
pub struct Sampler {
    device: Device,
    /// Says how many rows are generated together.
    batching: Batching,
}

impl Sampler {
    /// A sampler on a device.
    pub fn new(device: &Device) -> Self {
        Self {
            device: device.clone(),
            batching: Batching::default(),
        }
    }

    /// Sets how many rows are generated together from now on.
    pub fn set_batching(&mut self, batching: Batching) {
        self.batching = batching;
    }

    /// Generates every row of the request by ancestral sampling from `params`, with the same random numbers as
    /// the sampler on the CPU.
    ///
    /// Prompts must not be empty nor longer than `length`, their ids below the vocabulary's size.
    ///
    /// # Errors
    /// When the device fails, most likely for want of memory.
    pub fn generate(&self, params: &Params, request: Request) -> Result<Generated> {
        let row_bytes = memory::generated_row(
            &params.layout.config,
            params.dtype(),
            request.length,
            // No chunk runs more positions of its prompts in one pass.
            request.prompts.iter().map(Vec::len).max().unwrap_or(0),
        );
        let rows = request.prompts.len();
        let chunk = memory::generated_together(self.batching, rows, row_bytes);
        let mut generated = Generated {
            tokens: Vec::new(),
            lengths: Vec::new(),
        };
        for (i, prompts) in request.prompts.chunks(chunk).enumerate() {
            let first_row = request.first_row + (i * chunk) as u64;
            let request = Request {
                prompts,
                first_row,
                ..request
            };
            let rows = self.generate_together(params, &request)?;
            generated.tokens.extend(rows.tokens);
            generated.lengths.extend(rows.lengths);
        }
        Ok(generated)
    }

    /// Generates all rows of a request at once.
    fn generate_together(&self, params: &Params, request: &Request) -> Result<Generated> {
        let length = request.length;
        let tokens = upload(request.prompts, length, &self.device)?;
        let chooser = Chooser::new(request, &self.device)?;
        let mut cache = Cache::new(params, request.prompts.len(), length)?;
        let stop = !request.sampling.stop_tokens.is_empty();
        // Positions that are in all prompts are run in one pass.
        let shared = shortest(request.prompts);
        let prefix: Vec<u32> = request
            .prompts
            .iter()
            .flat_map(|p| &p[..shared])
            .copied()
            .collect();
        let mut hidden = cache.run(params, &upload_ids(&prefix, &self.device)?, shared)?;
        for t in shared..length {
            let logits = matmul_nt(&hidden, params.embed_out())?;
            let position = tokens.get(t)?;
            chooser.choose(&logits, t, &position)?;
            drop(logits);
            if t + 1 == length {
                break;
            }
            hidden = cache.run(params, &position, 1)?;
            if stop && (t - shared) % STOP_INTERVAL == STOP_INTERVAL - 1 {
                let so_far = finish(&tokens.narrow(0, 0, t + 1)?, request)?;
                if so_far.lengths.iter().all(|&len| (len as usize) < length) {
                    return Ok(so_far);
                }
            }
        }
        finish(&tokens, request)
    }
}

/// Length of the shortest prompt.
fn shortest(prompts: &[Vec<u32>]) -> usize {
    prompts.iter().map(Vec::len).min().unwrap_or(0)
}

/// Copies prompts to a device, by position, `[length, B]`; behind a prompt's end, tokens are [`UNCHOSEN`].
fn upload(prompts: &[Vec<u32>], length: usize, device: &Device) -> Result<Tensor> {
    let by_position = (0..length).flat_map(|t| prompts.iter().map(move |p| p.get(t)));
    let tokens: Vec<u32> = by_position
        .map(|x| x.copied().unwrap_or(UNCHOSEN))
        .collect();
    Tensor::from_vec(tokens, (length, prompts.len()), device)
}

/// Copies the tokens of the positions so far to the host, `[T, B]`, and ends each row at its first stop token.
fn finish(tokens: &Tensor, request: &Request) -> Result<Generated> {
    let (n_rows, length) = (request.prompts.len(), request.length);
    let tokens = tokens.flatten_all()?.to_vec1::<u32>()?;
    let mut generated = Generated {
        tokens: vec![0; n_rows * length],
        lengths: vec![length as u32; n_rows],
    };
    let rows = generated
        .tokens
        .chunks_exact_mut(length)
        .zip(&mut generated.lengths);
    for (i, (row, len)) in rows.enumerate() {
        for (t, position) in tokens.chunks_exact(n_rows).enumerate() {
            row[t] = position[i];
            let chosen = t >= request.prompts[i].len();
            if chosen && request.sampling.stop_tokens.contains(&row[t]) {
                *len = t as u32 + 1;
                break;
            }
        }
    }
    Ok(generated)
}

/// How the next token of every row is chosen, on the device.
pub(super) struct Chooser {
    inv_temperature: f32,
    /// 0 where it is not set.
    top_k: usize,
    /// 0 where it is not set.
    top_p: f32,
    /// A uniform random number for each position and row, `[length, B]`; `None` for the most likely token.
    uniforms: Option<Tensor>,
}

impl Chooser {
    fn new(request: &Request, device: &Device) -> Result<Self> {
        let (prompts, sampling) = (request.prompts, request.sampling);
        if sampling.temperature <= 0.0 {
            return Ok(Self::with(sampling, None));
        }
        let rows = request.first_row..request.first_row + prompts.len() as u64;
        let mut randoms: Vec<Random> = rows.map(|row| request.stream.at(row)).collect();
        let mut uniforms = Vec::with_capacity(request.length * prompts.len());
        for t in 0..request.length {
            let rows = randoms.iter_mut().zip(prompts);
            uniforms.extend(rows.map(|(random, prompt)| {
                if t < prompt.len() {
                    0.0
                } else {
                    random.uniform()
                }
            }));
        }
        let shape = (request.length, prompts.len());
        let uniforms = Tensor::from_vec(uniforms, shape, device)?;
        Ok(Self::with(sampling, Some(uniforms)))
    }

    /// Chooses by uniform random numbers, `[length, B]`, or without them the first of the most likely tokens.
    pub(super) fn with(sampling: &Sampling, uniforms: Option<Tensor>) -> Self {
        Self {
            inv_temperature: 1.0 / sampling.temperature,
            top_k: sampling.top_k.map_or(0, |k| k.max(1) as usize),
            top_p: sampling.top_p.unwrap_or(0.0),
            uniforms,
        }
    }

    /// Chooses the tokens at position `t` from `logits [B, V]`, in place where `tokens [B]` has [`UNCHOSEN`].
    pub(super) fn choose(&self, logits: &Tensor, t: usize, tokens: &Tensor) -> Result<()> {
        let (rows, v) = logits.dims2()?;
        let uniforms = self.uniforms.as_ref().map(|x| x.get(t)).transpose()?;
        let args = Choose {
            tokens: change_ids(tokens)?,
            logits: f32s(logits)?,
            uniforms: optional(uniforms.as_ref(), f32s)?,
            v,
            top_k: self.top_k,
            top_p: self.top_p,
            inv_temperature: self.inv_temperature,
        };
        let grid = Grid {
            blocks: rows,
            width: v,
        };
        launch(logits.device(), grid, &args)
    }
}

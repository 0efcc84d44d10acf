//! Batched generation with a KV cache; tokens stay on the device until all are chosen.

use candle_core::{Device, Result, Tensor};

use crate::random::Random;
use crate::sampling::{Generated, Request, Sampling};

use super::arguments::Choose;
use super::kernels::{Grid, launch};
use super::matmul::matmul_nt;
use super::memory;
use super::model::Cache;
use super::params::Params;
use super::pointers::{Fresh, f32s, optional};
use super::tensor::download;

/// Positions between two checks whether all rows have stopped.
const STOP_INTERVAL: usize = 32;

/// Generation on a GPU.
pub struct Sampler {
    device: Device,
}

impl Sampler {
    /// A sampler on a device.
    pub fn new(device: &Device) -> Self {
        let device = device.clone();
        Self { device }
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
            shortest(request.prompts),
        );
        let chunk = (memory::GENERATION_BYTES / row_bytes).max(1);
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
        let prompts = Prompts::upload(request.prompts, length, &self.device)?;
        let mut chooser = Chooser::new(request, &self.device)?;
        let mut cache = Cache::new(params, request.prompts.len(), length)?;
        let stop = !request.sampling.stop_tokens.is_empty();
        // Positions that are in all prompts are run in one pass.
        let shared = shortest(request.prompts);
        let prefix = prompts.tokens.narrow(0, 0, shared)?.t()?.flatten_all()?;
        let mut hidden = cache.run(params, &prefix, shared)?;
        // Tokens of each position, `[B]`.
        let mut tokens: Vec<Tensor> = (0..shared)
            .map(|t| prompts.tokens.get(t))
            .collect::<Result<_>>()?;
        for t in shared..length {
            let chosen = chooser.choose(&matmul_nt(&hidden, params.embed_out())?, t)?;
            let prompt = prompts.tokens.get(t)?;
            tokens.push(prompts.mask.get(t)?.where_cond(&prompt, &chosen)?);
            if t + 1 == length {
                break;
            }
            hidden = cache.run(params, &tokens[t], 1)?;
            if stop && (t - shared) % STOP_INTERVAL == STOP_INTERVAL - 1 {
                let so_far = finish(&tokens, request)?;
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

/// Prompts on a device, by position, `[length, B]`.
struct Prompts {
    /// Token ids; 0 after a prompt's end.
    tokens: Tensor,
    /// 1 within a prompt, 0 after its end.
    mask: Tensor,
}

impl Prompts {
    /// Copies prompts to a device.
    fn upload(prompts: &[Vec<u32>], length: usize, device: &Device) -> Result<Self> {
        let shape = (length, prompts.len());
        let by_position = (0..length).flat_map(|t| prompts.iter().map(move |p| p.get(t)));
        let tokens: Vec<u32> = by_position.clone().map(|x| x.map_or(0, |&x| x)).collect();
        let mask: Vec<u8> = by_position.map(|x| u8::from(x.is_some())).collect();
        Ok(Self {
            tokens: Tensor::from_vec(tokens, shape, device)?,
            mask: Tensor::from_vec(mask, shape, device)?,
        })
    }
}

/// Copies the tokens of the positions so far to the host, and ends each row at its first stop token.
fn finish(tokens: &[Tensor], request: &Request) -> Result<Generated> {
    let (n_rows, length) = (request.prompts.len(), request.length);
    let tokens = Tensor::stack(tokens, 0)?.flatten_all()?.to_vec1::<u32>()?;
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

/// Chooses the next token of every row.
enum Chooser<'a> {
    /// Chooses on the device: the most likely token, or one from the whole distribution.
    Device {
        inv_temperature: f32,
        /// A uniform random number for each position and row, `[length, B]`; `None` for the most likely token.
        uniforms: Option<Tensor>,
    },
    /// Chooses from the truncated distribution, on the host.
    Host {
        sampling: &'a Sampling,
        prompts: &'a [Vec<u32>],
        randoms: Vec<Random>,
    },
}

impl<'a> Chooser<'a> {
    fn new(request: &Request<'a>, device: &Device) -> Result<Self> {
        let (prompts, sampling) = (request.prompts, request.sampling);
        if sampling.temperature <= 0.0 {
            return Ok(Self::Device {
                inv_temperature: 1.0,
                uniforms: None,
            });
        }
        let rows = request.first_row..request.first_row + prompts.len() as u64;
        let mut randoms: Vec<Random> = rows.map(|row| request.stream.at(row)).collect();
        if sampling.top_k.is_some() || sampling.top_p.is_some() {
            return Ok(Self::Host {
                sampling,
                prompts,
                randoms,
            });
        }
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
        Ok(Self::Device {
            inv_temperature: 1.0 / sampling.temperature,
            uniforms: Some(Tensor::from_vec(uniforms, shape, device)?),
        })
    }

    /// Chooses the tokens at position `t`, u32 `[B]`, from `logits [B, V]`.
    fn choose(&mut self, logits: &Tensor, t: usize) -> Result<Tensor> {
        match self {
            Self::Device {
                inv_temperature,
                uniforms,
            } => {
                let uniforms_at_t = uniforms.as_ref().map(|x| x.get(t)).transpose()?;
                choose(logits, *inv_temperature, uniforms_at_t.as_ref())
            }
            Self::Host {
                sampling,
                prompts,
                randoms,
            } => {
                let (rows, v) = logits.dims2()?;
                let (mut logits, device) = (download(logits)?, logits.device());
                let mut tokens = vec![0; rows];
                for (i, logits) in logits.chunks_exact_mut(v).enumerate() {
                    if t >= prompts[i].len() {
                        tokens[i] = sampling.choose(logits, &mut randoms[i], &mut Vec::new());
                    }
                }
                Tensor::from_vec(tokens, rows, device)
            }
        }
    }
}

/// Chooses one token for each row of `logits [B, V]`, u32 `[B]`: from the distribution by `uniforms [B]`, or
/// without them the first of the most likely.
pub(super) fn choose(
    logits: &Tensor,
    inv_temperature: f32,
    uniforms: Option<&Tensor>,
) -> Result<Tensor> {
    let (rows, v) = logits.dims2()?;
    let grid = Grid {
        blocks: rows,
        width: v,
    };
    let tokens = Fresh::ids(rows, logits.device())?;
    let args = Choose {
        tokens: tokens.out(),
        logits: f32s(logits)?,
        uniforms: optional(uniforms, f32s)?,
        v,
        inv_temperature,
    };
    launch(logits.device(), grid, &args)?;
    Ok(tokens.written())
}

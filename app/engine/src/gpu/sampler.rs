//! Batched generation with a KV cache; tokens stay on the device until all are chosen.

use candle_core::{DType, Device, Result, Tensor};

use crate::random::Random;
use crate::sampling::{Generated, Request, Sampling};

use super::kernels::launch;
use super::matmul::matmul_nt;
use super::model::Cache;
use super::{Params, download, memory};

/// Positions after which it is asked whether all rows have stopped.
const STOP_INTERVAL: usize = 32;

/// Counterpart of [`crate::cpu::Sampler`].
pub struct Sampler {
    device: Device,
}

impl Sampler {
    /// A sampler on a device.
    pub fn new(device: &Device) -> Self {
        let device = device.clone();
        Self { device }
    }

    /// Generates every row of the request by ancestral sampling from `params`, each with the random
    /// numbers the CPU's sampler would give it.
    ///
    /// Prompts must be non-empty, no longer than `length`, their ids below the vocabulary's size.
    ///
    /// # Errors
    /// When the device fails, most likely for want of memory.
    pub fn generate(&self, params: &Params, request: Request) -> Result<Generated> {
        let prompts = request.prompts.iter().map(Vec::len);
        let per_row = memory::generated_row(
            &params.layout.config,
            params.dtype(),
            request.length,
            prompts.min().unwrap_or(0),
        );
        let chunk = (memory::GENERATION_BYTES / per_row).max(1);
        let mut all = Generated {
            tokens: Vec::new(),
            lengths: Vec::new(),
        };
        for (i, prompts) in request.prompts.chunks(chunk).enumerate() {
            let first_row = request.first_row + (i * chunk) as u64;
            let rows = Request {
                prompts,
                first_row,
                ..request
            };
            let done = self.generate_together(params, &rows)?;
            all.tokens.extend(done.tokens);
            all.lengths.extend(done.lengths);
        }
        Ok(all)
    }

    fn generate_together(&self, params: &Params, request: &Request) -> Result<Generated> {
        let (prompts, length) = (request.prompts, request.length);
        let given = Given::upload(prompts, length, &self.device)?;
        let mut chooser = Chooser::new(request, &self.device)?;
        let mut cache = Cache::new(params, prompts.len(), length)?;
        let stop = !request.sampling.stop_tokens.is_empty();
        // What all prompts have is run in one pass.
        let shared = prompts.iter().map(Vec::len).min().unwrap_or(0);
        let prompt = given.tokens.narrow(0, 0, shared)?.t()?.flatten_all()?;
        let mut hidden = cache.run(params, &prompt, shared)?;
        // Tokens of each position, `[B]`.
        let mut tokens: Vec<Tensor> = (0..shared)
            .map(|t| given.tokens.get(t))
            .collect::<Result<_>>()?;
        for t in shared..length {
            let chosen = chooser.choose(&matmul_nt(&hidden, params.embed_out())?, t)?;
            let prompt = given.tokens.get(t)?;
            tokens.push(given.mask.get(t)?.where_cond(&prompt, &chosen)?);
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

/// The prompts by position, `[length, B]`.
struct Given {
    /// Zeros past a prompt's end.
    tokens: Tensor,
    /// 1 within a prompt.
    mask: Tensor,
}

impl Given {
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

/// Brings the tokens of the positions so far to the host and ends each row at its first stop token.
fn finish(tokens: &[Tensor], request: &Request) -> Result<Generated> {
    let (rows, length) = (request.prompts.len(), request.length);
    let tokens = Tensor::stack(tokens, 0)?.flatten_all()?.to_vec1::<u32>()?;
    let mut done = Generated {
        tokens: vec![0; rows * length],
        lengths: vec![length as u32; rows],
    };
    let lines = done.tokens.chunks_exact_mut(length).zip(&mut done.lengths);
    for (i, (line, len)) in lines.enumerate() {
        for (t, position) in tokens.chunks_exact(rows).enumerate() {
            line[t] = position[i];
            let chosen = t >= request.prompts[i].len();
            if chosen && request.sampling.stop_tokens.contains(&line[t]) {
                *len = t as u32 + 1;
                break;
            }
        }
    }
    Ok(done)
}

/// Chooses the next token of every row.
enum Chooser<'a> {
    /// On the device: the most likely one, or one from the whole distribution by a uniform number for
    /// each row and position, `[length, B]`.
    Device {
        inv_temperature: f32,
        uniforms: Option<Tensor>,
    },
    /// One from the truncated distribution, on the host.
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
            uniforms.extend(rows.map(|(random, prompt)| match t < prompt.len() {
                true => 0.0,
                false => random.uniform(),
            }));
        }
        let shape = (request.length, prompts.len());
        Ok(Self::Device {
            inv_temperature: 1.0 / sampling.temperature,
            uniforms: Some(Tensor::from_vec(uniforms, shape, device)?),
        })
    }

    /// Tokens for position `t`, u32 `[B]`, from `logits [B, V]`.
    fn choose(&mut self, logits: &Tensor, t: usize) -> Result<Tensor> {
        match self {
            Self::Device {
                inv_temperature,
                uniforms,
            } => {
                let uniforms = uniforms.as_ref().map(|all| all.get(t)).transpose()?;
                choose(logits, *inv_temperature, uniforms.as_ref())
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

/// One token a row, u32 `[B]`: by `uniforms [B]` from the distribution, or without them the first of
/// the most likely.
pub(super) fn choose(
    logits: &Tensor,
    inv_temperature: f32,
    uniforms: Option<&Tensor>,
) -> Result<Tensor> {
    let (rows, v) = logits.dims2()?;
    let [tokens] = launch(
        "choose",
        (rows, v),
        [(rows, DType::U32)],
        &[Some(logits), uniforms],
        &[v],
        &[inv_temperature],
    )?;
    Ok(tokens)
}

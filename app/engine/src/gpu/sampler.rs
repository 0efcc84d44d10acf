//! Batched generation with a KV cache; tokens stay on the device until all are chosen.

use candle_core::{D, DType, Device, Result, Tensor};

use crate::sample::{Generated, Request, Sampling};
use crate::train::Random;

use super::ops::matmul_nt;
use super::{Params, download, model};

/// What the keys and values of rows generated together may take.
const CACHE_BYTES: usize = 4 << 30;
/// Positions after which it is asked whether all rows have stopped.
const STOP_INTERVAL: usize = 32;
/// Tokens whose probabilities are added up first when one is drawn.
const GROUP: usize = 128;

/// Counterpart of [`crate::sample::Sampler`].
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
        let config = params.layout.config;
        let per_row = size_of::<f32>() * request.length * 2 * config.n_layers * config.d_model;
        let chunk = (CACHE_BYTES / per_row.max(1)).max(1);
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
        let mut chooser = Chooser::new(request, params.layout.config.vocab_size, &self.device)?;
        let mut cache = model::Cache::new(params, prompts.len(), length)?;
        let embed = params.embed_out()?;
        let stop = !request.sampling.stop_tokens.is_empty();
        let shortest = prompts.iter().map(Vec::len).min().unwrap_or(0);
        // Tokens of each position, `[B]`.
        let mut tokens = vec![given.tokens.get(0)?];
        for t in 0..length - 1 {
            let hidden = model::step(params, &tokens[t], t, &mut cache)?;
            let prompt = given.tokens.get(t + 1)?;
            tokens.push(if t + 1 < shortest {
                prompt
            } else {
                let chosen = chooser.choose(&matmul_nt(&hidden, &embed)?, t + 1)?;
                given.mask.get(t + 1)?.where_cond(&prompt, &chosen)?
            });
            if stop && t % STOP_INTERVAL == STOP_INTERVAL - 1 {
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
    /// The most likely one.
    Greedy { ids: Tensor },
    /// One from the whole distribution, by a uniform number for each row and position.
    Draw {
        inv_temperature: f64,
        /// `[length, B]`
        uniforms: Tensor,
        triangles: [Tensor; 2],
    },
    /// One from the truncated distribution, on the host.
    Host {
        sampling: &'a Sampling,
        prompts: &'a [Vec<u32>],
        randoms: Vec<Random>,
    },
}

impl<'a> Chooser<'a> {
    fn new(request: &Request<'a>, vocab_size: usize, device: &Device) -> Result<Self> {
        let (prompts, sampling) = (request.prompts, request.sampling);
        if sampling.temperature <= 0.0 {
            let ids = Tensor::arange(0f32, vocab_size as f32, device)?.unsqueeze(0)?;
            return Ok(Self::Greedy { ids });
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
        Ok(Self::Draw {
            inv_temperature: 1.0 / f64::from(sampling.temperature),
            uniforms: Tensor::from_vec(uniforms, (request.length, prompts.len()), device)?,
            triangles: triangles(vocab_size, device)?,
        })
    }

    /// Tokens for position `t`, u32 `[B]`, from `logits [B, V]`.
    fn choose(&mut self, logits: &Tensor, t: usize) -> Result<Tensor> {
        match self {
            Self::Greedy { ids } => {
                let max = logits.max_keepdim(D::Minus1)?;
                let is_max = logits.broadcast_eq(&max)?;
                let ids = ids.broadcast_as(logits.shape())?;
                let none = (ids.ones_like()? * (ids.dim(1)? - 1) as f64)?;
                let first = is_max.where_cond(&ids, &none)?.min(D::Minus1)?;
                first.to_dtype(DType::U32)
            }
            Self::Draw {
                inv_temperature,
                uniforms,
                triangles,
            } => {
                let max = logits.max_keepdim(D::Minus1)?;
                let weights = (logits.broadcast_sub(&max)? * *inv_temperature)?.exp()?;
                draw(&weights, &uniforms.get(t)?, triangles)
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

/// Upper triangles of ones, whose products add up the groups before, and the tokens of a group.
pub(super) fn triangles(vocab_size: usize, device: &Device) -> Result<[Tensor; 2]> {
    let triangle = |n: usize| Tensor::triu2(n, DType::F32, device);
    Ok([triangle(vocab_size.div_ceil(GROUP))?, triangle(GROUP)?])
}

/// Inverts the cumulative distribution of `weights [B, V]` (not normalised) at `u [B]` in `[0, 1)`:
/// finds the group of tokens first, then the token. One of weight 0 is never drawn.
pub(super) fn draw(weights: &Tensor, u: &Tensor, triangles: &[Tensor; 2]) -> Result<Tensor> {
    let [groups, group] = triangles;
    let (rows, v) = weights.dims2()?;
    let n = groups.dim(0)?;
    let weights = weights.pad_with_zeros(1, 0, n * GROUP - v)?;
    let weights = weights.reshape((rows, n, GROUP))?;
    let sums = weights.sum(D::Minus1)?.matmul(groups)?;
    let at = (sums.narrow(1, n - 1, 1)? * u.unsqueeze(1)?)?;
    let (index, before) = invert(&sums, &at)?;

    let of_group = index.to_dtype(DType::U32)?.unsqueeze(2)?;
    let of_group = of_group.broadcast_as((rows, 1, GROUP))?.contiguous()?;
    let weights = weights.gather(&of_group, 1)?.squeeze(1)?;
    let (within, _) = invert(&weights.matmul(group)?, &(at - before)?)?;
    ((index * GROUP as f64)? + within)?
        .squeeze(1)?
        .to_dtype(DType::U32)
}

/// How many of the ascending `sums [B, n]` lie at or below `at [B, 1]`, and the last that does (0
/// where none does), both f32 `[B, 1]`. Rounding must not put `at` beyond the last sum.
fn invert(sums: &Tensor, at: &Tensor) -> Result<(Tensor, Tensor)> {
    const BELOW_ONE: f64 = 1.0 - 1e-6;
    let last = sums.narrow(1, sums.dim(1)? - 1, 1)?;
    let at = at.minimum(&(last * BELOW_ONE)?)?;
    let below = sums.broadcast_le(&at)?.to_dtype(DType::F32)?;
    let count = below.sum_keepdim(D::Minus1)?;
    Ok((count, (sums * below)?.max_keepdim(D::Minus1)?))
}

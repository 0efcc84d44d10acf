//! Requests that are answered with rows of tokens or scores: each is read from the plugin's struct,
//! checked, put to [`Services`], and its response copied into the plugin's buffers.

use std::ffi::c_void;

use forgetlab_plugin_api::abi;

use super::{
    DrawRequest, GenerateRequest, PhaseContext, ScoreRequest, Scores, Sequences, ServiceError,
    Services, WhichModel,
    host_context::{HostState, serve},
    raw::{array, copy, sized, sized_mut},
    services::failed,
};

/// A request whose response goes into buffers of the plugin.
pub(super) trait Request: PartialEq + Sized {
    /// The request as it crosses the boundary.
    type Raw;
    /// The response as [`Services`] give it.
    type Response;
    /// The plugin's buffers for the response.
    type Out;

    /// Reads and checks a request.
    ///
    /// # Safety
    /// The arrays of `raw` must be null or as long as it says.
    unsafe fn read(raw: &Self::Raw, phase: &PhaseContext) -> Result<Self, ServiceError>;

    /// Gets the response from the training loop.
    fn ask(&self, services: &mut dyn Services) -> Result<Self::Response, ServiceError>;

    /// Writes the response's size and, where it fits, the response; whether it fits.
    ///
    /// # Safety
    /// The buffers of `out` must be null or as long as it says.
    unsafe fn give(
        &self,
        response: &Self::Response,
        out: &mut Self::Out,
    ) -> Result<bool, ServiceError>;

    /// Rows asked for.
    fn rows(&self) -> u64;

    /// Where a response that did not fit is kept with its request.
    fn kept(state: &mut HostState) -> &mut Option<(Self, Self::Response)>;
}

/// Serves a request. A response that does not fit is kept for the same request with larger buffers.
///
/// # Safety
/// As for [`serve`]; `request` and `out` must be null or valid as the ABI says.
pub(super) unsafe fn answer<R: Request>(
    context: *mut c_void,
    name: &str,
    request: *const R::Raw,
    out: *mut R::Out,
    message: *mut abi::Message,
) -> i32 {
    let body = |state: &mut HostState, services: &mut dyn Services| {
        // SAFETY: the caller vouches for both structs.
        let (raw, out) = unsafe {
            (
                sized(request, "the request")?,
                sized_mut(out, "the result")?,
            )
        };
        // SAFETY: the caller vouches for the arrays of a valid struct.
        let request = unsafe { R::read(raw, state.phase()?)? };
        let response = match R::kept(state).take() {
            Some((of, response)) if of == request => response,
            _ => {
                if state.is_much(request.rows()) && services.cancelled() {
                    return Err(ServiceError::Cancelled);
                }
                request.ask(services)?
            }
        };
        // SAFETY: the caller vouches for the buffers of a valid struct.
        if unsafe { request.give(&response, out)? } {
            return Ok(abi::OK);
        }
        *R::kept(state) = Some((request, response));
        Ok(abi::RETRY)
    };
    // SAFETY: the caller vouches for context and message.
    unsafe { serve(context, name, message, body) }
}

impl Request for DrawRequest {
    type Raw = abi::DrawRequest;
    type Response = Sequences;
    type Out = abi::Sequences;

    unsafe fn read(raw: &Self::Raw, phase: &PhaseContext) -> Result<Self, ServiceError> {
        let tasks = phase.old_tasks.len() as u64;
        if tasks == 0 {
            return Err(failed("there are no old tasks in the first phase"));
        }
        if raw.task != abi::TASK_ALL && raw.task >= tasks {
            return Err(failed(format!(
                "there is no old task {}; there are {tasks}",
                raw.task
            )));
        }
        if raw.rows == 0 {
            return Err(failed("0 rows cannot be drawn"));
        }
        check_size(raw.rows, phase.max_seq_len as u64, phase)?;
        Ok(Self {
            task: (raw.task != abi::TASK_ALL).then_some(raw.task as usize),
            rows: raw.rows as usize,
        })
    }

    fn ask(&self, services: &mut dyn Services) -> Result<Sequences, ServiceError> {
        services.draw_old(self)
    }

    unsafe fn give(&self, drawn: &Sequences, out: &mut Self::Out) -> Result<bool, ServiceError> {
        // SAFETY: the caller vouches for the buffers.
        unsafe { give_sequences(drawn, out) }
    }

    fn rows(&self) -> u64 {
        self.rows as u64
    }

    fn kept(state: &mut HostState) -> &mut Option<(Self, Sequences)> {
        &mut state.draw
    }
}

impl Request for GenerateRequest {
    type Raw = abi::GenerateRequest;
    type Response = Sequences;
    type Out = abi::Sequences;

    unsafe fn read(raw: &Self::Raw, phase: &PhaseContext) -> Result<Self, ServiceError> {
        let cells = raw.prompts_len.saturating_mul(raw.prompt_stride);
        check_size(raw.prompts_len, raw.length.max(raw.prompt_stride), phase)?;
        // SAFETY: the caller vouches for the arrays.
        let (prompts, lengths, stops) = unsafe {
            (
                array(raw.prompts, cells, "prompts")?,
                array(raw.prompt_lengths, raw.prompts_len, "prompt lengths")?,
                array(raw.stop_tokens, raw.stop_tokens_len, "stop tokens")?,
            )
        };
        if lengths.is_empty() {
            return Err(failed(
                "there are no prompts; every sequence needs at least one token",
            ));
        }
        check_rows(prompts, lengths, raw.prompt_stride, phase)?;
        let longest = lengths.iter().max().copied().unwrap_or(0);
        if raw.length < u64::from(longest) || raw.length > phase.max_seq_len as u64 {
            let max = phase.max_seq_len;
            let length = raw.length;
            return Err(failed(format!(
                "length {length} with prompts of up to {longest}; it must hold the prompt and be at most {max}"
            )));
        }
        if !(raw.temperature.is_finite() && raw.temperature >= 0.0) {
            return Err(failed(format!(
                "temperature {} must be finite and ≥ 0",
                raw.temperature
            )));
        }
        if !(raw.top_p > 0.0 && raw.top_p <= 1.0) {
            return Err(failed(format!(
                "top_p {} must be above 0 and at most 1",
                raw.top_p
            )));
        }
        let model = match model(raw.model, raw.snapshot)? {
            WhichModel::VirtualStep => return Err(failed("a virtual step is for scores only")),
            model => model,
        };
        let rows = prompts
            .chunks_exact(raw.prompt_stride as usize)
            .zip(lengths);
        Ok(Self {
            model,
            prompts: rows
                .map(|(row, len)| row[..*len as usize].to_vec())
                .collect(),
            length: raw.length as usize,
            temperature: raw.temperature,
            top_k: (raw.top_k > 0).then_some(raw.top_k),
            top_p: (raw.top_p < 1.0).then_some(raw.top_p),
            stop_tokens: stops.to_vec(),
        })
    }

    fn ask(&self, services: &mut dyn Services) -> Result<Sequences, ServiceError> {
        services.generate(self)
    }

    unsafe fn give(
        &self,
        generated: &Sequences,
        out: &mut Self::Out,
    ) -> Result<bool, ServiceError> {
        // SAFETY: the caller vouches for the buffers.
        unsafe { give_sequences(generated, out) }
    }

    fn rows(&self) -> u64 {
        self.prompts.len() as u64
    }

    fn kept(state: &mut HostState) -> &mut Option<(Self, Sequences)> {
        &mut state.generate
    }
}

impl Request for ScoreRequest {
    type Raw = abi::ScoreRequest;
    type Response = Scores;
    type Out = abi::Scores;

    unsafe fn read(raw: &Self::Raw, phase: &PhaseContext) -> Result<Self, ServiceError> {
        let cells = raw.rows.saturating_mul(raw.seq_len);
        check_size(
            raw.rows,
            raw.seq_len.saturating_mul(raw.top_k.max(1).into()),
            phase,
        )?;
        // SAFETY: the caller vouches for the arrays.
        let (tokens, lengths) = unsafe {
            (
                array(raw.tokens, cells, "tokens")?,
                array(raw.lengths, raw.rows, "lengths")?,
            )
        };
        check_rows(tokens, lengths, raw.seq_len, phase)?;
        if raw.top_k > phase.vocab_size || u64::from(raw.top_k) > abi::MAX_TOP_K {
            let max = abi::MAX_TOP_K.min(phase.vocab_size.into());
            return Err(failed(format!(
                "top_k {}; at most {max} is possible",
                raw.top_k
            )));
        }
        Ok(Self {
            model: model(raw.model, raw.snapshot)?,
            rows: raw.rows as usize,
            seq_len: raw.seq_len as usize,
            tokens: tokens.to_vec(),
            lengths: lengths.to_vec(),
            top_k: raw.top_k as usize,
        })
    }

    fn ask(&self, services: &mut dyn Services) -> Result<Scores, ServiceError> {
        services.score(self)
    }

    unsafe fn give(&self, scores: &Scores, out: &mut Self::Out) -> Result<bool, ServiceError> {
        let cells = self.tokens.len();
        let top = cells * self.top_k;
        if scores.log_probs.len() != cells
            || scores.top_ids.len() != top
            || scores.top_log_probs.len() != top
        {
            return Err(failed(
                "the lab's own scores are inconsistent; please report it",
            ));
        }
        (out.rows, out.seq_len) = (self.rows as u64, self.seq_len as u64);
        out.k = self.top_k as u64;
        if cells as u64 > out.log_probs_capacity || top as u64 > out.top_capacity {
            return Ok(false);
        }
        // SAFETY: the capacities were compared above.
        unsafe {
            copy(&scores.log_probs, out.log_probs);
            copy(&scores.top_ids, out.top_ids);
            copy(&scores.top_log_probs, out.top_log_probs);
        }
        Ok(true)
    }

    fn rows(&self) -> u64 {
        self.rows as u64
    }

    fn kept(state: &mut HostState) -> &mut Option<(Self, Scores)> {
        &mut state.score
    }
}

/// A model by its kind in the ABI.
pub(super) fn model(kind: u32, snapshot: u64) -> Result<WhichModel, ServiceError> {
    match kind {
        abi::MODEL_REFERENCE => Ok(WhichModel::Reference),
        abi::MODEL_STUDENT => Ok(WhichModel::Student),
        abi::MODEL_SNAPSHOT => Ok(WhichModel::Snapshot(snapshot)),
        abi::MODEL_VIRTUAL_STEP => Ok(WhichModel::VirtualStep),
        other => Err(failed(format!("there is no model kind {other}"))),
    }
}

/// Checks how much is asked for: a request must not take all memory, nor time in which nothing else is heard.
fn check_size(rows: u64, cells: u64, phase: &PhaseContext) -> Result<(), ServiceError> {
    let most = phase.most_rows();
    if rows > most {
        return Err(failed(format!(
            "{rows} rows are asked for; at most {most} are given at once, {} batches of max_rows",
            abi::MAX_BATCHES
        )));
    }
    let elements = rows.saturating_mul(cells);
    if elements > abi::MAX_ELEMENTS {
        return Err(failed(format!(
            "{rows} rows of {cells} values are asked for; at most {} values are given at once",
            abi::MAX_ELEMENTS
        )));
    }
    Ok(())
}

/// Checks rows of token ids that a plugin hands in.
fn check_rows(
    tokens: &[u32],
    lengths: &[u32],
    seq_len: u64,
    phase: &PhaseContext,
) -> Result<(), ServiceError> {
    let vocab = phase.vocab_size;
    if seq_len == 0 || seq_len > phase.max_seq_len as u64 {
        let max = phase.max_seq_len;
        return Err(failed(format!(
            "rows of {seq_len} tokens; 1 to {max} are possible"
        )));
    }
    for (row, (length, tokens)) in lengths
        .iter()
        .zip(tokens.chunks_exact(seq_len as usize))
        .enumerate()
    {
        if *length == 0 || u64::from(*length) > seq_len {
            return Err(failed(format!(
                "row {row} has length {length}; 1 to {seq_len} are possible"
            )));
        }
        if let Some(id) = tokens.iter().find(|id| **id >= vocab) {
            return Err(failed(format!(
                "row {row} has token id {id}; the vocabulary has {vocab}"
            )));
        }
    }
    Ok(())
}

/// Writes the size of sequences and, where they fit, the sequences; whether they fit.
///
/// # Safety
/// The buffers of `out` must be null or as long as it says.
pub(super) unsafe fn give_sequences(
    from: &Sequences,
    out: &mut abi::Sequences,
) -> Result<bool, ServiceError> {
    let cells = from.rows * from.seq_len;
    let consistent = from.tokens.len() == cells
        && from.lengths.len() == from.rows
        && from.weights.as_ref().is_none_or(|w| w.len() == cells)
        && from.tasks.as_ref().is_none_or(|t| t.len() == from.rows);
    if !consistent {
        return Err(failed(
            "the lab's own sequences are inconsistent; please report it",
        ));
    }
    (out.rows, out.seq_len) = (from.rows as u64, from.seq_len as u64);
    if out.rows > out.rows_capacity || cells as u64 > out.tokens_capacity {
        return Ok(false);
    }
    let tasks: Vec<u64> = match &from.tasks {
        Some(tasks) => tasks.iter().map(|task| *task as u64).collect(),
        None => vec![abi::TASK_ALL; from.rows],
    };
    let default_weight = |cell: usize| {
        let (row, t) = (cell / from.seq_len, cell % from.seq_len);
        if t > 0 && t < from.lengths[row] as usize {
            1.0
        } else {
            0.0
        }
    };
    // SAFETY: the capacities were compared above.
    unsafe {
        copy(&from.tokens, out.tokens);
        copy(&from.lengths, out.lengths);
        copy(&tasks, out.tasks);
        match &from.weights {
            Some(weights) => copy(weights, out.weights),
            None if out.weights.is_null() => {}
            None => {
                let weights: Vec<f32> = (0..cells).map(default_weight).collect();
                copy(&weights, out.weights);
            }
        }
    }
    Ok(true)
}

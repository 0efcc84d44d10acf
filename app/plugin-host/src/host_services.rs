//! The services as a plugin calls them: each reads the request, checks it, asks [`Services`], and
//! copies the result into the plugin's buffers.

use std::ffi::c_void;

use forgetlab_plugin_api::abi;

use super::{
    DrawRequest, GenerateRequest, LogLevel, PhaseContext, ScoreRequest, Sequences, ServiceError,
    Services, WhichModel,
    host_table::{HostState, failed, serve},
    raw::{array, copy, one_line, sized},
};

/// The result stored for this request, or a fresh one.
fn fresh_or_kept<R: PartialEq, V>(
    kept: Option<(R, V)>,
    request: R,
    make: impl FnOnce(&R) -> Result<V, ServiceError>,
) -> Result<(R, V), ServiceError> {
    match kept {
        Some((of, value)) if of == request => Ok((of, value)),
        _ => {
            let value = make(&request)?;
            Ok((request, value))
        }
    }
}

/// Writes sequences into a plugin's buffers; whether they fit.
///
/// # Safety
/// The buffers must be null or as long as they say.
unsafe fn give_sequences(from: &Sequences, out: &mut abi::Sequences) -> Result<bool, ServiceError> {
    let cells = from.rows * from.seq_len;
    let fits_together = from.tokens.len() == cells
        && from.lengths.len() == from.rows
        && from.weights.as_ref().is_none_or(|w| w.len() == cells)
        && from.tasks.as_ref().is_none_or(|t| t.len() == from.rows);
    if !fits_together {
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
    let default = |(cell, _): (usize, &u32)| {
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
                let weights: Vec<f32> = from.tokens.iter().enumerate().map(default).collect();
                copy(&weights, out.weights);
            }
        }
    }
    Ok(true)
}

fn model(kind: u32, snapshot: u64) -> Result<WhichModel, ServiceError> {
    match kind {
        abi::MODEL_REFERENCE => Ok(WhichModel::Reference),
        abi::MODEL_STUDENT => Ok(WhichModel::Student),
        abi::MODEL_SNAPSHOT => Ok(WhichModel::Snapshot(snapshot)),
        abi::MODEL_VIRTUAL_STEP => Ok(WhichModel::VirtualStep),
        other => Err(failed(format!("there is no model kind {other}"))),
    }
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

pub(super) unsafe extern "C" fn draw_old(
    context: *mut c_void,
    request: *const abi::DrawRequest,
    out: *mut abi::Sequences,
    message: *mut abi::Message,
) -> i32 {
    let body = |state: &mut HostState, services: &mut dyn Services| {
        // SAFETY: the plugin's structs are null or valid as the ABI says.
        let (raw, out) = unsafe {
            (
                sized(request.cast_mut(), "the request")?,
                sized(out, "the result")?,
            )
        };
        let tasks = state.phase()?.old_tasks.len() as u64;
        if tasks == 0 {
            return Err(failed("there are no old tasks in the first phase"));
        }
        if raw.task != abi::TASK_ALL && raw.task >= tasks {
            return Err(failed(format!(
                "there is no old task {}; there are {tasks}",
                raw.task
            )));
        }
        if raw.rows == 0 || raw.rows > abi::MAX_ELEMENTS {
            return Err(failed(format!("{} rows cannot be drawn", raw.rows)));
        }
        let request = DrawRequest {
            task: (raw.task != abi::TASK_ALL).then_some(raw.task as usize),
            rows: raw.rows as usize,
        };
        let made = fresh_or_kept(state.draw.take(), request, |r| services.draw_old(r))?;
        // SAFETY: the plugin's buffers are as long as they say.
        if unsafe { give_sequences(&made.1, out)? } {
            return Ok(abi::OK);
        }
        state.draw = Some(made);
        Ok(abi::RETRY)
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "draw_old", message, body) }
}

pub(super) unsafe extern "C" fn generate(
    context: *mut c_void,
    request: *const abi::GenerateRequest,
    out: *mut abi::Sequences,
    message: *mut abi::Message,
) -> i32 {
    let body = |state: &mut HostState, services: &mut dyn Services| {
        // SAFETY: the plugin's structs are null or valid as the ABI says.
        let (raw, out) = unsafe {
            (
                sized(request.cast_mut(), "the request")?,
                sized(out, "the result")?,
            )
        };
        let phase = state.phase()?;
        let cells = raw.prompts_len.saturating_mul(raw.prompt_stride);
        // SAFETY: the plugin's arrays are null or as long as it says.
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
        let rows = prompts
            .chunks_exact(raw.prompt_stride as usize)
            .zip(lengths);
        let request = GenerateRequest {
            model: match model(raw.model, raw.snapshot)? {
                WhichModel::VirtualStep => return Err(failed("a virtual step is for scores only")),
                model => model,
            },
            prompts: rows
                .map(|(row, len)| row[..*len as usize].to_vec())
                .collect(),
            length: raw.length as usize,
            temperature: raw.temperature,
            top_k: (raw.top_k > 0).then_some(raw.top_k),
            top_p: (raw.top_p < 1.0).then_some(raw.top_p),
            stop_tokens: stops.to_vec(),
        };
        let made = fresh_or_kept(state.generate.take(), request, |r| services.generate(r))?;
        // SAFETY: the plugin's buffers are as long as they say.
        if unsafe { give_sequences(&made.1, out)? } {
            return Ok(abi::OK);
        }
        state.generate = Some(made);
        Ok(abi::RETRY)
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "generate", message, body) }
}

pub(super) unsafe extern "C" fn score(
    context: *mut c_void,
    request: *const abi::ScoreRequest,
    out: *mut abi::Scores,
    message: *mut abi::Message,
) -> i32 {
    let body = |state: &mut HostState, services: &mut dyn Services| {
        // SAFETY: the plugin's structs are null or valid as the ABI says.
        let (raw, out) = unsafe {
            (
                sized(request.cast_mut(), "the request")?,
                sized(out, "the result")?,
            )
        };
        let phase = state.phase()?;
        let cells = raw.rows.saturating_mul(raw.seq_len);
        // SAFETY: the plugin's arrays are null or as long as it says.
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
        let request = ScoreRequest {
            model: model(raw.model, raw.snapshot)?,
            rows: raw.rows as usize,
            seq_len: raw.seq_len as usize,
            tokens: tokens.to_vec(),
            lengths: lengths.to_vec(),
            top_k: raw.top_k as usize,
        };
        let made = fresh_or_kept(state.score.take(), request, |r| services.score(r))?;
        let scores = &made.1;
        let top = cells as usize * raw.top_k as usize;
        if scores.log_probs.len() as u64 != cells
            || scores.top_ids.len() != top
            || scores.top_log_probs.len() != top
        {
            return Err(failed(
                "the lab's own scores are inconsistent; please report it",
            ));
        }
        (out.rows, out.seq_len, out.k) = (raw.rows, raw.seq_len, raw.top_k.into());
        if cells > out.log_probs_capacity || top as u64 > out.top_capacity {
            state.score = Some(made);
            return Ok(abi::RETRY);
        }
        // SAFETY: the capacities were compared above.
        unsafe {
            copy(&scores.log_probs, out.log_probs);
            copy(&scores.top_ids, out.top_ids);
            copy(&scores.top_log_probs, out.top_log_probs);
        }
        Ok(abi::OK)
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "score", message, body) }
}

pub(super) unsafe extern "C" fn new_batch(
    context: *mut c_void,
    out: *mut abi::Sequences,
    message: *mut abi::Message,
) -> i32 {
    let body = |state: &mut HostState, services: &mut dyn Services| {
        // SAFETY: the plugin's struct is null or valid as the ABI says.
        let out = unsafe { sized(out, "the result")? };
        let batch = match state.new_batch.take() {
            Some((_, batch)) => batch,
            None => match services.new_batch()? {
                Some(batch) => batch,
                None => return Ok(abi::NOTHING),
            },
        };
        // SAFETY: the plugin's buffers are as long as they say.
        if unsafe { give_sequences(&batch, out)? } {
            return Ok(abi::OK);
        }
        state.new_batch = Some(((), batch));
        Ok(abi::RETRY)
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "new_batch", message, body) }
}

/// Writes one array with its needed length.
///
/// # Safety
/// `out` must have room for `capacity`, `needed` be null or writable.
unsafe fn give_array<T: Copy>(from: &[T], out: *mut T, capacity: u64, needed: *mut u64) -> i32 {
    let len = from.len() as u64;
    // SAFETY: the caller vouches for the pointers; the capacity is compared first.
    unsafe {
        copy(&[len], needed);
        if len > capacity {
            return abi::RETRY;
        }
        copy(from, out);
    }
    abi::OK
}

pub(super) unsafe extern "C" fn encode(
    context: *mut c_void,
    text: *const u8,
    len: u64,
    out: *mut u32,
    capacity: u64,
    needed: *mut u64,
    message: *mut abi::Message,
) -> i32 {
    let body = |_: &mut HostState, services: &mut dyn Services| {
        // SAFETY: the plugin's text is null or as long as it says.
        let bytes = unsafe { array(text, len, "the text")? };
        let text = std::str::from_utf8(bytes).map_err(|_| failed("the text is not UTF-8"))?;
        let tokens = services.encode(text)?;
        // SAFETY: the plugin's buffer is as long as it says.
        Ok(unsafe { give_array(&tokens, out, capacity, needed) })
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "encode", message, body) }
}

pub(super) unsafe extern "C" fn decode(
    context: *mut c_void,
    tokens: *const u32,
    len: u64,
    out: *mut u8,
    capacity: u64,
    needed: *mut u64,
    message: *mut abi::Message,
) -> i32 {
    let body = |_: &mut HostState, services: &mut dyn Services| {
        // SAFETY: the plugin's tokens are null or as many as it says.
        let tokens = unsafe { array(tokens, len, "the tokens")? };
        let text = services.decode(tokens)?;
        // SAFETY: the plugin's buffer is as long as it says.
        Ok(unsafe { give_array(text.as_bytes(), out, capacity, needed) })
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "decode", message, body) }
}

pub(super) unsafe extern "C" fn special_tokens(
    context: *mut c_void,
    out: *mut abi::SpecialTokens,
    message: *mut abi::Message,
) -> i32 {
    let body = |_: &mut HostState, services: &mut dyn Services| {
        // SAFETY: the plugin's struct is null or valid as the ABI says.
        let out = unsafe { sized(out, "the result")? };
        let special = services.special_tokens();
        out.bos = special.bos.map_or(-1, i64::from);
        out.eos = special.eos.map_or(-1, i64::from);
        out.pad = special.pad.map_or(-1, i64::from);
        Ok(abi::OK)
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "special_tokens", message, body) }
}

pub(super) unsafe extern "C" fn random(
    context: *mut c_void,
    out: *mut u64,
    len: u64,
    message: *mut abi::Message,
) -> i32 {
    let body = |_: &mut HostState, services: &mut dyn Services| {
        if len > abi::MAX_RANDOM || (out.is_null() && len > 0) {
            return Err(failed(format!(
                "{len} random values at {out:?} cannot be given"
            )));
        }
        let mut values = vec![0; len as usize];
        services.random(&mut values)?;
        // SAFETY: the plugin's buffer is as long as it says.
        unsafe { copy(&values, out) };
        Ok(abi::OK)
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "random", message, body) }
}

pub(super) unsafe extern "C" fn log(
    context: *mut c_void,
    level: u32,
    text: *const u8,
    len: u64,
    message: *mut abi::Message,
) -> i32 {
    let body = |_: &mut HostState, services: &mut dyn Services| {
        // SAFETY: the plugin's text is null or as long as it says.
        let bytes = unsafe { array(text, len.min(abi::MAX_TEXT), "the text")? };
        let level = match level {
            abi::LOG_ERROR => LogLevel::Error,
            abi::LOG_WARN => LogLevel::Warn,
            _ => LogLevel::Info,
        };
        services.log(level, &one_line(bytes));
        Ok(abi::OK)
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "log", message, body) }
}

pub(super) unsafe extern "C" fn metric(
    context: *mut c_void,
    name: *const u8,
    len: u64,
    value: f64,
    message: *mut abi::Message,
) -> i32 {
    let body = |_: &mut HostState, services: &mut dyn Services| {
        // SAFETY: the plugin's name is null or as long as it says.
        let name = one_line(unsafe { array(name, len.min(64), "the name")? });
        if name.trim().is_empty() {
            return Err(failed("a metric needs a name"));
        }
        if !value.is_finite() {
            return Err(failed(format!(
                "metric {name} is {value}; it must be finite"
            )));
        }
        services.metric(&name, value);
        Ok(abi::OK)
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "metric", message, body) }
}

pub(super) unsafe extern "C" fn cancelled(context: *mut c_void) -> u8 {
    let mut answer = 0;
    let body = |_: &mut HostState, services: &mut dyn Services| {
        answer = u8::from(services.cancelled());
        Ok(abi::OK)
    };
    // SAFETY: the context is the plugin's copy of what we gave it.
    unsafe { serve(context, "cancelled", std::ptr::null_mut(), body) };
    answer
}

pub(super) unsafe extern "C" fn keep_snapshot(
    context: *mut c_void,
    kind: u32,
    id: *mut u64,
    message: *mut abi::Message,
) -> i32 {
    let body = |_: &mut HostState, services: &mut dyn Services| {
        let kept = match model(kind, 0)? {
            model @ (WhichModel::Reference | WhichModel::Student) => {
                services.keep_snapshot(model)?
            }
            _ => return Err(failed("only the reference and the student can be kept")),
        };
        // SAFETY: `id` is null or where the plugin wants the id.
        unsafe { copy(&[kept], id) };
        Ok(abi::OK)
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "keep_snapshot", message, body) }
}

pub(super) unsafe extern "C" fn drop_snapshot(
    context: *mut c_void,
    id: u64,
    message: *mut abi::Message,
) -> i32 {
    let body = |_: &mut HostState, services: &mut dyn Services| {
        services.drop_snapshot(id)?;
        Ok(abi::OK)
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "drop_snapshot", message, body) }
}

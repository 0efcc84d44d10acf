//! The host's functions as the ABI has them, and the table of them that a plugin is given: each reads its
//! arguments, checks them, asks [`Services`], and copies the result into the plugin's buffers.

use std::ffi::c_void;

use forgetlab_plugin_api::abi;

use super::{
    DrawRequest, GenerateRequest, LogLevel, ScoreRequest, Services, WhichModel,
    host_context::{Context, HostState, serve},
    raw::{array, copy, copy_within, one_line, sized_mut},
    requests::{answer, give_sequences, model},
    services::failed,
};

/// The table of one instance.
pub(super) fn table(context: &'static Context) -> abi::Host {
    abi::Host {
        struct_size: size_of::<abi::Host>() as u64,
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        context: std::ptr::from_ref(context).cast_mut().cast(),
        draw_old: Some(draw_old),
        generate: Some(generate),
        score: Some(score),
        new_batch: Some(new_batch),
        encode: Some(encode),
        decode: Some(decode),
        special_tokens: Some(special_tokens),
        random: Some(random),
        log: Some(log),
        metric: Some(metric),
        cancelled: Some(cancelled),
        keep_snapshot: Some(keep_snapshot),
        drop_snapshot: Some(drop_snapshot),
        reserved: [0; 8],
    }
}

unsafe extern "C" fn draw_old(
    context: *mut c_void,
    request: *const abi::DrawRequest,
    out: *mut abi::Sequences,
    message: *mut abi::Message,
) -> i32 {
    // SAFETY: context and message are the plugin's copies of what we gave it, and its structs are null or
    // valid as the ABI says.
    unsafe { answer::<DrawRequest>(context, "draw_old", request, out, message) }
}

unsafe extern "C" fn generate(
    context: *mut c_void,
    request: *const abi::GenerateRequest,
    out: *mut abi::Sequences,
    message: *mut abi::Message,
) -> i32 {
    // SAFETY: context and message are the plugin's copies of what we gave it, and its structs are null or
    // valid as the ABI says.
    unsafe { answer::<GenerateRequest>(context, "generate", request, out, message) }
}

unsafe extern "C" fn score(
    context: *mut c_void,
    request: *const abi::ScoreRequest,
    out: *mut abi::Scores,
    message: *mut abi::Message,
) -> i32 {
    // SAFETY: context and message are the plugin's copies of what we gave it, and its structs are null or
    // valid as the ABI says.
    unsafe { answer::<ScoreRequest>(context, "score", request, out, message) }
}

unsafe extern "C" fn new_batch(
    context: *mut c_void,
    out: *mut abi::Sequences,
    message: *mut abi::Message,
) -> i32 {
    let body = |state: &mut HostState, services: &mut dyn Services| {
        // SAFETY: the plugin's struct is null or valid as the ABI says.
        let out = unsafe { sized_mut(out, "the result")? };
        let batch = match state.new_batch.take() {
            Some(batch) => batch,
            None => match services.new_batch()? {
                Some(batch) => batch,
                None => return Ok(abi::NOTHING),
            },
        };
        // SAFETY: the plugin's buffers are as long as they say.
        if unsafe { give_sequences(&batch, out)? } {
            return Ok(abi::OK);
        }
        state.new_batch = Some(batch);
        Ok(abi::RETRY)
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "new_batch", message, body) }
}

unsafe extern "C" fn encode(
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
        Ok(unsafe { copy_within(&tokens, out, capacity, needed) })
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "encode", message, body) }
}

unsafe extern "C" fn decode(
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
        Ok(unsafe { copy_within(text.as_bytes(), out, capacity, needed) })
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "decode", message, body) }
}

unsafe extern "C" fn special_tokens(
    context: *mut c_void,
    out: *mut abi::SpecialTokens,
    message: *mut abi::Message,
) -> i32 {
    let body = |_: &mut HostState, services: &mut dyn Services| {
        // SAFETY: the plugin's struct is null or valid as the ABI says.
        let out = unsafe { sized_mut(out, "the result")? };
        let special = services.special_tokens();
        out.bos = special.bos.map_or(-1, i64::from);
        out.eos = special.eos.map_or(-1, i64::from);
        out.pad = special.pad.map_or(-1, i64::from);
        Ok(abi::OK)
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "special_tokens", message, body) }
}

unsafe extern "C" fn random(
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

unsafe extern "C" fn log(
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
        services.log(level, &one_line(bytes.trim_ascii_end()));
        Ok(abi::OK)
    };
    // SAFETY: context and message are the plugin's copies of what we gave it.
    unsafe { serve(context, "log", message, body) }
}

unsafe extern "C" fn metric(
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

unsafe extern "C" fn cancelled(context: *mut c_void) -> u8 {
    let mut answer = 0;
    let body = |_: &mut HostState, services: &mut dyn Services| {
        answer = u8::from(services.cancelled());
        Ok(abi::OK)
    };
    // SAFETY: the context is the plugin's copy of what we gave it.
    unsafe { serve(context, "cancelled", std::ptr::null_mut(), body) };
    answer
}

unsafe extern "C" fn keep_snapshot(
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

unsafe extern "C" fn drop_snapshot(
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

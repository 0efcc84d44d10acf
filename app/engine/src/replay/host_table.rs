//! The host's service table, and what holds for every call through it.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::{self, ThreadId},
};

use forgetlab_plugin_api::abi;

use super::{
    DrawRequest, GenerateRequest, PhaseContext, ScoreRequest, Scores, Sequences, ServiceError,
    Services, breadcrumb::Trail, host_services as service, raw::write_message, watchdog::Watchdog,
};

/// What a plugin's service calls work on; the table's `context`.
pub(super) struct HostState {
    /// Set while a callback runs.
    services: Option<(*mut (dyn Services + 'static), ThreadId)>,
    /// Callback under way.
    call: &'static str,
    /// Phase under way.
    pub(super) phase: Option<PhaseContext>,
    pub(super) trail: Trail,
    pub(super) watchdog: Option<Watchdog>,
    /// Results that did not fit, for the same request with larger buffers.
    pub(super) draw: Option<(DrawRequest, Sequences)>,
    pub(super) generate: Option<(GenerateRequest, Sequences)>,
    pub(super) score: Option<(ScoreRequest, Scores)>,
    pub(super) new_batch: Option<((), Sequences)>,
}

impl HostState {
    pub(super) fn new(trail: Trail, watchdog: Option<Watchdog>) -> Self {
        Self {
            services: None,
            call: "",
            phase: None,
            trail,
            watchdog,
            draw: None,
            generate: None,
            score: None,
            new_batch: None,
        }
    }

    /// A callback begins; it may use `services`.
    pub(super) fn begin(&mut self, call: &'static str, services: Option<&mut dyn Services>) {
        self.call = call;
        self.services = services.map(|services| {
            let services: *mut (dyn Services + '_) = services;
            // SAFETY: only the lifetime is erased; `end` forgets the pointer before it ends.
            let services = unsafe {
                std::mem::transmute::<*mut (dyn Services + '_), *mut (dyn Services + 'static)>(
                    services,
                )
            };
            (services, thread::current().id())
        });
        self.trail.leave(call);
        if let Some(watchdog) = &self.watchdog {
            watchdog.begin(call);
        }
    }

    /// The callback returned.
    pub(super) fn end(&mut self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.end();
        }
        self.trail.clear();
        self.services = None;
        (self.draw, self.generate, self.score, self.new_batch) = (None, None, None, None);
    }

    /// The phase under way.
    pub(super) fn phase(&self) -> Result<&PhaseContext, ServiceError> {
        self.phase
            .as_ref()
            .ok_or_else(|| failed("there is no phase yet; call this from phase_started on"))
    }
}

/// The table of one instance.
pub(super) fn table(context: *mut HostState) -> abi::Host {
    abi::Host {
        struct_size: size_of::<abi::Host>() as u64,
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        context: context.cast(),
        draw_old: Some(service::draw_old),
        generate: Some(service::generate),
        score: Some(service::score),
        new_batch: Some(service::new_batch),
        encode: Some(service::encode),
        decode: Some(service::decode),
        special_tokens: Some(service::special_tokens),
        random: Some(service::random),
        log: Some(service::log),
        metric: Some(service::metric),
        cancelled: Some(service::cancelled),
        keep_snapshot: Some(service::keep_snapshot),
        drop_snapshot: Some(service::drop_snapshot),
        reserved: [0; 8],
    }
}

/// An error with this text.
pub(super) fn failed(text: impl Into<String>) -> ServiceError {
    ServiceError::Failed(text.into())
}

/// Runs a service: checks that it may be called here and now, and keeps panics on our side.
///
/// # Safety
/// `context` must come from our table, `message` be null or valid as the ABI says.
pub(super) unsafe fn serve(
    context: *mut c_void,
    name: &str,
    message: *mut abi::Message,
    body: impl FnOnce(&mut HostState, &mut dyn Services) -> Result<i32, ServiceError>,
) -> i32 {
    // SAFETY: the context is our own state; nobody else touches it while a callback runs.
    let state = unsafe { context.cast::<HostState>().as_mut() };
    let services = state.as_ref().and_then(|state| state.services);
    let (Some(state), Some((services, thread))) = (state, services) else {
        let text =
            format!("{name}: host services work only inside a callback that is given the host");
        // SAFETY: the caller vouches for the message.
        unsafe { write_message(message, &text) };
        return abi::FAILED;
    };
    if thread != thread::current().id() {
        let text = format!("{name}: host services work only on the thread of the callback");
        // SAFETY: the caller vouches for the message.
        unsafe { write_message(message, &text) };
        return abi::FAILED;
    }
    // SAFETY: the pointer was set by `begin` from a mutable borrow that outlives the callback, and
    // services do not call back into the plugin.
    let services = unsafe { &mut *services };
    let heavy = matches!(name, "draw_old" | "generate" | "score" | "keep_snapshot");
    if heavy {
        state.trail.leave(&format!("{} > {name}", state.call));
    }
    if let Some(watchdog) = &state.watchdog {
        watchdog.pause();
    }
    let result = catch_unwind(AssertUnwindSafe(|| body(state, services)));
    if let Some(watchdog) = &state.watchdog {
        watchdog.go_on();
    }
    if heavy {
        state.trail.leave(state.call);
    }
    let (status, text) = match result {
        Ok(Ok(status)) => return status,
        Ok(Err(ServiceError::Cancelled)) => (abi::CANCELLED, ServiceError::Cancelled.to_string()),
        Ok(Err(error @ ServiceError::NotSupported(_))) => (abi::UNSUPPORTED, error.to_string()),
        Ok(Err(ServiceError::Failed(text))) => (abi::FAILED, text),
        Err(_) => (
            abi::FAILED,
            "the lab's own service panicked; please report it".into(),
        ),
    };
    // SAFETY: the caller vouches for the message.
    unsafe { write_message(message, &text) };
    status
}

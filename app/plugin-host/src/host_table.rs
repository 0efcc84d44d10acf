//! The host's service table, and what holds for every call through it.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use forgetlab_plugin_api::abi;

use super::{
    DrawRequest, GenerateRequest, PhaseContext, ScoreRequest, Scores, Sequences, ServiceError,
    Services, breadcrumb::Trail, host_services as service, raw::write_message, watchdog::Watchdog,
};

/// The table's `context`: says who may touch the state. It is never freed, for a plugin's thread may
/// call with it at any time, even after the instance is gone.
pub(super) struct Context {
    /// Number of the thread that is inside a callback; 0: none is. A thread writes only its own
    /// number and takes it back itself, so one that reads its own is inside, whatever the ordering.
    inside: AtomicU64,
    state: NonNull<HostState>,
}

impl Context {
    /// A context for the state, which stays the caller's.
    pub(super) fn leak(state: NonNull<HostState>) -> &'static Self {
        Box::leak(Box::new(Self {
            inside: AtomicU64::new(0),
            state,
        }))
    }

    /// This thread goes into a callback. Until [`Context::leave`] the state is the services'.
    pub(super) fn enter(&self) {
        self.inside.store(this_thread(), Ordering::Relaxed);
    }

    /// The callback returned.
    pub(super) fn leave(&self) {
        self.inside.store(0, Ordering::Relaxed);
    }
}

/// A number of this thread's own, never 0 and never given again.
fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

/// What a plugin's service calls work on.
pub(super) struct HostState {
    /// Set while a callback that is given the host runs.
    services: Option<*mut (dyn Services + 'static)>,
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
            unsafe {
                std::mem::transmute::<*mut (dyn Services + '_), *mut (dyn Services + 'static)>(
                    services,
                )
            }
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
pub(super) fn table(context: &'static Context) -> abi::Host {
    abi::Host {
        struct_size: size_of::<abi::Host>() as u64,
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        context: std::ptr::from_ref(context).cast_mut().cast(),
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
    const IN_CALLBACK: &str = "inside a callback that is given the host";
    let refuse = |place: &str| {
        let text = format!("{name}: host services work only {place}");
        // SAFETY: the caller vouches for the message.
        unsafe { write_message(message, &text) };
        abi::FAILED
    };
    // SAFETY: the contexts of our tables are never freed, and shared by all threads.
    let Some(context) = (unsafe { context.cast::<Context>().as_ref() }) else {
        return refuse(IN_CALLBACK);
    };
    match context.inside.load(Ordering::Relaxed) {
        0 => return refuse(IN_CALLBACK),
        inside if inside != this_thread() => return refuse("on the thread of the callback"),
        _ => {}
    }
    // SAFETY: this thread is inside a callback: the instance that owns the state waits for it to
    // return, other threads were refused, and services do not call back into the plugin.
    let state = unsafe { &mut *context.state.as_ptr() };
    let Some(services) = state.services else {
        return refuse(IN_CALLBACK);
    };
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

//! The frame of every host service call: who may call and when, and how errors and panics are answered.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use forgetlab_plugin_api::abi;

use super::{
    DrawRequest, GenerateRequest, PhaseContext, ScoreRequest, Scores, Sequences, ServiceError,
    Services, breadcrumb::Trail, float::FloatMode, raw::write_message, services::failed,
    watchdog::Watchdog,
};

/// The table's `context`: says which thread may use the host state. It is never freed, for a plugin's
/// thread may call with it at any time, even after the instance is gone.
pub(super) struct Context {
    /// Number of the thread that is inside a callback; 0: none. A thread writes only its own number
    /// and resets it itself, so one that reads its own is inside, whatever the ordering.
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

    /// Marks this thread as inside a callback. Until [`Context::leave`] the services use the state.
    pub(super) fn enter(&self) {
        self.inside.store(this_thread(), Ordering::Relaxed);
    }

    /// Marks the callback as returned.
    pub(super) fn leave(&self) {
        self.inside.store(0, Ordering::Relaxed);
    }
}

/// The number of this thread, unique in the process and never 0.
fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

/// State behind the service calls of one instance.
pub(super) struct HostState {
    /// Set while a callback that is given the host runs.
    services: Option<*mut (dyn Services + 'static)>,
    /// Current callback.
    call: &'static str,
    /// The lab's own arithmetic, for its services: the plugin may have set another for itself.
    float: FloatMode,
    /// Current phase; `None` before the first.
    pub(super) phase: Option<PhaseContext>,
    pub(super) trail: Trail,
    pub(super) watchdog: Option<Watchdog>,
    /// Rows asked for in the current callback.
    rows: u64,
    /// Responses that did not fit, each with its request, for a call with larger buffers.
    pub(super) draw: Option<(DrawRequest, Sequences)>,
    pub(super) generate: Option<(GenerateRequest, Sequences)>,
    pub(super) score: Option<(ScoreRequest, Scores)>,
    /// The same for `new_batch`, which has no request.
    pub(super) new_batch: Option<Sequences>,
}

impl HostState {
    pub(super) fn new(trail: Trail, watchdog: Option<Watchdog>) -> Self {
        Self {
            services: None,
            call: "",
            float: FloatMode::now(),
            phase: None,
            trail,
            watchdog,
            rows: 0,
            draw: None,
            generate: None,
            score: None,
            new_batch: None,
        }
    }

    /// Begins a callback, which may use `services`.
    pub(super) fn begin(&mut self, call: &'static str, services: Option<&mut dyn Services>) {
        self.call = call;
        self.float = FloatMode::now();
        self.rows = 0;
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

    /// Ends the callback.
    pub(super) fn end(&mut self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.end();
        }
        self.trail.clear();
        self.services = None;
        (self.draw, self.generate, self.score, self.new_batch) = (None, None, None, None);
    }

    /// Counts rows that are asked for; whether the current callback has asked for more than a single request may.
    pub(super) fn is_much(&mut self, rows: u64) -> bool {
        self.rows = self.rows.saturating_add(rows);
        self.phase
            .as_ref()
            .is_some_and(|phase| self.rows > phase.most_rows())
    }

    /// The current phase.
    pub(super) fn phase(&self) -> Result<&PhaseContext, ServiceError> {
        self.phase
            .as_ref()
            .ok_or_else(|| failed("there is no phase yet; call this from phase_started on"))
    }
}

/// Runs a service: refuses calls outside a callback or on another thread, and turns errors and panics
/// into a status with a message.
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
    let theirs = FloatMode::now();
    state.float.restore();
    let result = catch_unwind(AssertUnwindSafe(|| body(state, services)))
        .unwrap_or_else(|_| Err(failed("the lab's own service panicked; please report it")));
    theirs.restore();
    if let Some(watchdog) = &state.watchdog {
        watchdog.go_on();
    }
    if heavy {
        state.trail.leave(state.call);
    }
    let (status, text) = match result {
        Ok(status) => return status,
        Err(ServiceError::Failed(text)) => (abi::FAILED, text),
        Err(error @ ServiceError::NotSupported(_)) => (abi::UNSUPPORTED, error.to_string()),
        Err(error @ ServiceError::Cancelled) => (abi::CANCELLED, error.to_string()),
    };
    // SAFETY: the caller vouches for the message.
    unsafe { write_message(message, &text) };
    status
}

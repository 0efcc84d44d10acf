//! The C functions of a strategy's descriptor, which call the [`Strategy`] and catch its panics.

use std::{
    cell::{Cell, RefCell},
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use crate::{
    Batch, Error, Host, Observation, Phase, RowObjective, Settings, Step, Strategy, Teacher, abi,
    raw::{slice, text, write_message},
};

/// The instance that a handle points to.
struct Instance<T> {
    strategy: T,
    /// A batch that did not fit the host's buffers, with its step.
    pending: Option<(u64, Batch)>,
    /// A state that did not fit the host's buffer.
    saved: Option<Vec<u8>>,
    /// Whether a call panicked, after which the strategy may be inconsistent.
    panicked: bool,
}

/// The descriptor of a strategy; `version` is the version of its crate.
pub const fn descriptor<T: Strategy>(version: &'static str) -> abi::Descriptor {
    abi::Descriptor {
        struct_size: size_of::<abi::Descriptor>() as u64,
        magic: abi::MAGIC,
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        name: T::NAME.as_ptr(),
        name_len: T::NAME.len() as u64,
        version: version.as_ptr(),
        version_len: version.len() as u64,
        summary: T::SUMMARY.as_ptr(),
        summary_len: T::SUMMARY.len() as u64,
        settings_schema: T::SETTINGS.as_ptr(),
        settings_schema_len: T::SETTINGS.len() as u64,
        capabilities: T::CAPABILITIES.bits(),
        state_version: T::STATE_VERSION,
        pad: 0,
        create: Some(create::<T>),
        phase_started: Some(phase_started::<T>),
        next_batch: Some(next_batch::<T>),
        observe: Some(observe::<T>),
        save: Some(save::<T>),
        load: Some(load::<T>),
        destroy: Some(destroy::<T>),
        reserved: [0; 8],
    }
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Installs a panic hook that keeps the message of a panic inside a callback for the error, instead of
/// printing it.
pub fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if INSIDE.get() {
                PANIC.with_borrow_mut(|text| *text = info.to_string().replace('\n', " "));
            } else {
                before(info);
            }
        }));
    });
}

/// Runs a callback; a panic or an error becomes a status and a message.
fn guard(message: *mut abi::Message, body: impl FnOnce() -> Result<i32, Error>) -> i32 {
    INSIDE.set(true);
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        // A payload may panic when dropped.
        std::mem::forget(payload);
        Err(Error::Failed(PANIC.with_borrow_mut(std::mem::take)))
    });
    INSIDE.set(false);
    let error = match result {
        Ok(status) => return status,
        Err(error) => error,
    };
    // SAFETY: the host's message is null or valid.
    unsafe { write_message(message, &error.to_string()) };
    // "Unsupported" is a status of the host only: a strategy that needs the service has failed.
    match error.status() {
        abi::UNSUPPORTED => abi::FAILED,
        status => status,
    }
}

/// Runs a callback on an instance, unless an earlier one panicked.
///
/// # Safety
/// `handle` must come from [`create`] of the same `T`, `host` from the host.
unsafe fn guard_instance<T: Strategy>(
    handle: *mut c_void,
    message: *mut abi::Message,
    body: impl FnOnce(&mut Instance<T>) -> Result<i32, Error>,
) -> i32 {
    guard(message, || {
        // SAFETY: the handle is a live instance, and calls come one at a time.
        let instance =
            unsafe { handle.cast::<Instance<T>>().as_mut() }.ok_or("called without an instance")?;
        if instance.panicked {
            return Err("an earlier call panicked".into());
        }
        instance.panicked = true;
        let result = body(instance);
        instance.panicked = false;
        result
    })
}

/// The host's services, if the host is of this ABI.
///
/// # Safety
/// `host` must be null or valid as the ABI says.
unsafe fn host<'a>(host: *const abi::Host) -> Result<Host<'a>, Error> {
    // SAFETY: the caller vouches for the pointer.
    let host = unsafe { host.as_ref() }.ok_or("called without a host")?;
    if host.abi_major != abi::ABI_MAJOR || host.struct_size < size_of::<abi::Host>() as u64 {
        return Err(format!(
            "built for plugin ABI {}.{}, called by a lab of {}.{}",
            abi::ABI_MAJOR,
            abi::ABI_MINOR,
            host.abi_major,
            host.abi_minor
        )
        .into());
    }
    Ok(Host::new(host))
}

unsafe extern "C" fn create<T: Strategy>(
    table: *const abi::Host,
    args: *const abi::CreateArgs,
    out: *mut *mut c_void,
    message: *mut abi::Message,
) -> i32 {
    guard(message, || {
        // SAFETY: the host's pointers are null or valid as the ABI says.
        let (mut host, settings) = unsafe {
            let args = args.as_ref().ok_or("created without arguments")?;
            (host(table)?, text(args.settings, args.settings_len))
        };
        let strategy = T::create(&Settings::parse(&settings)?, &mut host)?;
        let instance = Box::new(Instance {
            strategy,
            pending: None,
            saved: None,
            panicked: false,
        });
        // SAFETY: `out` is where the host wants the handle.
        unsafe { out.write(Box::into_raw(instance).cast()) };
        Ok(abi::OK)
    })
}

unsafe extern "C" fn phase_started<T: Strategy>(
    handle: *mut c_void,
    table: *const abi::Host,
    phase: *const abi::Phase,
    message: *mut abi::Message,
) -> i32 {
    let body = |instance: &mut Instance<T>| {
        // SAFETY: the host's pointers are null or valid as the ABI says.
        let (mut host, phase) = unsafe { (host(table)?, Phase::read(phase)) };
        let phase = phase.ok_or("called without a phase")?;
        (instance.pending, instance.saved) = (None, None);
        instance.strategy.phase_started(&phase, &mut host)?;
        Ok(abi::OK)
    };
    // SAFETY: the handle is the host's.
    unsafe { guard_instance(handle, message, body) }
}

unsafe extern "C" fn next_batch<T: Strategy>(
    handle: *mut c_void,
    table: *const abi::Host,
    step: *const abi::Step,
    out: *mut abi::ReplayBatch,
    message: *mut abi::Message,
) -> i32 {
    let body = |instance: &mut Instance<T>| {
        // SAFETY: the host's pointers are null or valid as the ABI says.
        let (mut host, step, out) = unsafe { (host(table)?, Step::read(step), out.as_mut()) };
        let step = step.ok_or("called without a step")?;
        let out = out.ok_or("called without a batch")?;
        instance.saved = None;
        let batch = match instance.pending.take() {
            Some((of, batch)) if of == step.step => batch,
            _ => match instance.strategy.next_batch(&step, &mut host)? {
                Some(batch) => batch,
                None => return Ok(abi::NOTHING),
            },
        };
        batch.check()?;
        // SAFETY: the buffers of `out` are as long as it says.
        let status = unsafe { write_batch(&batch, out) };
        if status == abi::RETRY {
            instance.pending = Some((step.step, batch));
        }
        Ok(status)
    };
    // SAFETY: the handle is the host's.
    unsafe { guard_instance(handle, message, body) }
}

/// Writes a batch into the host's buffers, or only its size when they are too small.
///
/// # Safety
/// The buffers must be as long as their capacities say.
unsafe fn write_batch(batch: &Batch, out: &mut abi::ReplayBatch) -> i32 {
    let sequences = &batch.sequences;
    out.rows = sequences.rows() as u64;
    out.seq_len = sequences.seq_len as u64;
    let (teacher_ids, teacher_log_probs): (&[u32], &[f32]) = match &batch.teacher {
        Teacher::Reference => {
            out.teacher = abi::TEACHER_REFERENCE;
            (&[], &[])
        }
        Teacher::Snapshot(id) => {
            (out.teacher, out.teacher_snapshot) = (abi::TEACHER_SNAPSHOT, *id);
            (&[], &[])
        }
        Teacher::Supplied { k, ids, log_probs } => {
            (out.teacher, out.teacher_k) = (abi::TEACHER_SUPPLIED, *k as u64);
            (ids, log_probs)
        }
    };
    out.has_coeff = u8::from(batch.coeff.is_some());
    out.coeff = batch.coeff.unwrap_or_default();
    out.has_weights = u8::from(sequences.weights.is_some());
    out.has_row_objectives = u8::from(batch.row_objectives.is_some());
    if out.rows > out.rows_capacity
        || sequences.tokens.len() as u64 > out.tokens_capacity
        || teacher_ids.len() as u64 > out.teacher_capacity
    {
        return abi::RETRY;
    }
    let objectives: Vec<u8> = batch
        .row_objectives
        .iter()
        .flatten()
        .map(|objective| match objective {
            RowObjective::Default => abi::OBJECTIVE_DEFAULT,
            RowObjective::Kl => abi::OBJECTIVE_KL,
            RowObjective::Ntp => abi::OBJECTIVE_NTP,
        })
        .collect();
    // SAFETY: capacities were compared above, and `check` made all arrays agree in shape.
    unsafe {
        copy(&sequences.tokens, out.tokens);
        copy(&sequences.lengths, out.lengths);
        copy(
            sequences.weights.as_deref().unwrap_or_default(),
            out.weights,
        );
        copy(&objectives, out.row_objectives);
        copy(teacher_ids, out.teacher_ids);
        copy(teacher_log_probs, out.teacher_log_probs);
    }
    abi::OK
}

/// Copies an array into a buffer of the host.
///
/// # Safety
/// `to` must have room for `from`.
unsafe fn copy<V: Copy>(from: &[V], to: *mut V) {
    if !from.is_empty() {
        // SAFETY: the caller vouches for the room.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
    }
}

unsafe extern "C" fn observe<T: Strategy>(
    handle: *mut c_void,
    table: *const abi::Host,
    observation: *const abi::Observation,
    message: *mut abi::Message,
) -> i32 {
    let body = |instance: &mut Instance<T>| {
        // SAFETY: the host's pointers are null or valid as the ABI says.
        let (mut host, observation) = unsafe { (host(table)?, Observation::read(observation)) };
        let observation = observation.ok_or("called without an observation")?;
        instance.saved = None;
        instance.strategy.observe(&observation, &mut host)?;
        Ok(abi::OK)
    };
    // SAFETY: the handle is the host's.
    unsafe { guard_instance(handle, message, body) }
}

unsafe extern "C" fn save<T: Strategy>(
    handle: *mut c_void,
    buffer: *mut u8,
    capacity: u64,
    needed: *mut u64,
    message: *mut abi::Message,
) -> i32 {
    let body = |instance: &mut Instance<T>| {
        let state = match instance.saved.take() {
            Some(state) => state,
            None => instance.strategy.save()?,
        };
        // SAFETY: `needed` is where the host wants the size.
        unsafe { needed.write(state.len() as u64) };
        if state.len() as u64 > capacity {
            instance.saved = Some(state);
            return Ok(abi::RETRY);
        }
        // SAFETY: the buffer has room for `capacity` bytes.
        unsafe { copy(&state, buffer) };
        Ok(abi::OK)
    };
    // SAFETY: the handle is the host's.
    unsafe { guard_instance::<T>(handle, message, body) }
}

unsafe extern "C" fn load<T: Strategy>(
    handle: *mut c_void,
    table: *const abi::Host,
    version: u32,
    bytes: *const u8,
    len: u64,
    phase: *const abi::Phase,
    message: *mut abi::Message,
) -> i32 {
    let body = |instance: &mut Instance<T>| {
        // SAFETY: the host's pointers are null or valid as the ABI says.
        let (mut host, state, phase) =
            unsafe { (host(table)?, slice(bytes, len), Phase::read(phase)) };
        (instance.pending, instance.saved) = (None, None);
        instance
            .strategy
            .load(version, state, phase.as_ref(), &mut host)?;
        Ok(abi::OK)
    };
    // SAFETY: the handle is the host's.
    unsafe { guard_instance(handle, message, body) }
}

unsafe extern "C" fn destroy<T: Strategy>(handle: *mut c_void) {
    guard(std::ptr::null_mut(), || {
        if !handle.is_null() {
            // SAFETY: the handle came from `create`, and the host gives it back once.
            drop(unsafe { Box::from_raw(handle.cast::<Instance<T>>()) });
        }
        Ok(abi::OK)
    });
}

/// Makes a plugin of a [`Strategy`](crate::Strategy): `export_strategy!(MyStrategy);`, once in a
/// `cdylib` crate.
#[macro_export]
macro_rules! export_strategy {
    ($strategy:ty) => {
        const _: () = assert!(
            cfg!(panic = "unwind"),
            "a strategy must be built with panic = \"unwind\": a panic is then an error of its arm, \
             not the end of the run"
        );

        /// The strategy in this library.
        #[unsafe(no_mangle)]
        pub extern "C" fn forgetlab_strategy() -> *const $crate::abi::Descriptor {
            static DESCRIPTOR: $crate::abi::Descriptor =
                $crate::shim::descriptor::<$strategy>(env!("CARGO_PKG_VERSION"));
            $crate::shim::install_panic_hook();
            &DESCRIPTOR
        }
    };
}

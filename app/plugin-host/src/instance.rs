//! A strategy's instance, which serves one arm.

use std::{ptr::NonNull, sync::Arc, time::Duration};

use forgetlab_plugin_api::abi;
use serde_json::{Map, Value};

use super::{
    Capabilities, OnLate, PhaseContext, Plugin, ReplayBatch, Services, StepMetrics, StrategyError,
    breadcrumb::{Breadcrumbs, Trail},
    check::BatchBuffers,
    float::FloatMode,
    host_context::{Context, HostState},
    host_services,
    lent::Lent,
    library::{Calls, Handle},
    phase::LentPhase,
    raw::MessageBuffer,
    state::{self, Saved},
    watchdog::Watchdog,
};

/// How often in a row a plugin may answer [`abi::RETRY`].
const MAX_RETRIES: u32 = 16;

/// What is said of a plugin that does not heed the length of a buffer.
const OVERRUN: &str = "it wrote past the end of a buffer that it was given";

/// The arm that an instance serves, and the conditions it runs under.
#[derive(Clone)]
pub struct InstanceOptions {
    /// Name of the arm in messages.
    pub arm: String,
    /// Capabilities the run offers; a plugin that needs others is refused.
    pub offered: Capabilities,
    /// File that names the current call; instances that take turns share it.
    pub breadcrumb: Option<Breadcrumbs>,
    /// Time in the plugin after which a call is late, and the function that is told.
    pub deadline: Option<(Duration, OnLate)>,
}

/// An instance of a strategy. Dropping it destroys the plugin's side of it.
///
/// Any error ends the arm: the instance is not used after a failed call.
pub struct StrategyInstance {
    plugin: Arc<Plugin>,
    calls: Calls,
    handle: Handle,
    /// Behind a pointer because `context` leads to it too; freed on drop.
    state: NonNull<HostState>,
    context: &'static Context,
    table: Box<abi::Host>,
    buffers: BatchBuffers,
    message: MessageBuffer,
    /// Whether what is lent for a call is never used again, so that a plugin that kept it is found out.
    on_trial: bool,
}

// SAFETY: the ABI allows calls from any one thread at a time, and `&mut self` makes them so.
unsafe impl Send for StrategyInstance {}

impl Plugin {
    /// Makes an instance with settings from [`Plugin::resolve_settings`].
    pub fn instantiate(
        self: &Arc<Self>,
        settings: &Map<String, Value>,
        options: InstanceOptions,
        services: &mut dyn Services,
    ) -> Result<StrategyInstance, StrategyError> {
        if let Some(missing) = self.capabilities.missing_from(options.offered) {
            return Err(StrategyError::MissingCapability {
                strategy: self.name.clone(),
                missing,
            });
        }
        let arm = options.arm.clone();
        let mut state = Box::new(self.host_state(options)?);
        let calls = self.load_code(&mut state)?;
        let state = NonNull::from(Box::leak(state));
        let context = Context::leak(state);
        let mut instance = StrategyInstance {
            plugin: Arc::clone(self),
            calls,
            handle: std::ptr::null_mut(),
            state,
            context,
            table: Box::new(host_services::table(context)),
            buffers: BatchBuffers::default(),
            message: MessageBuffer::default(),
            on_trial: false,
        };
        instance.create(settings, &arm, services)?;
        Ok(instance)
    }

    /// Loads the library for an arm to come, so that nothing depends on what becomes of the file. If that fails, the
    /// arm's instance will.
    pub fn load_ahead(&self, options: InstanceOptions) {
        if !self.was_asked_for()
            && let Ok(mut state) = self.host_state(options)
        {
            let _ = self.load_code(&mut state);
        }
    }

    /// What an instance's calls are watched by.
    fn host_state(&self, options: InstanceOptions) -> Result<HostState, StrategyError> {
        let arm = &options.arm;
        let trail = Trail::new(options.breadcrumb, &self.name, arm);
        let watchdog = options
            .deadline
            .map(|(deadline, on_late)| Watchdog::start(&self.name, arm, deadline, on_late));
        Ok(HostState::new(trail, watchdog))
    }

    /// The functions of the library, which is loaded for its first instance; watched as a call is.
    fn load_code(&self, state: &mut HostState) -> Result<Calls, StrategyError> {
        const CALL: &str = "dlopen";
        state.begin(CALL, None);
        let calls = self.calls();
        state.end();
        calls.map_err(|error| StrategyError::Failed {
            strategy: self.name.clone(),
            call: CALL,
            message: format!("{} {error}", self.path.display()),
        })
    }
}

impl StrategyInstance {
    fn create(
        &mut self,
        settings: &Map<String, Value>,
        arm: &str,
        services: &mut dyn Services,
    ) -> Result<(), StrategyError> {
        let settings = self.with_prompts(settings.clone(), services)?;
        let settings = Value::Object(settings).to_string();
        let args = abi::CreateArgs {
            struct_size: size_of::<abi::CreateArgs>() as u64,
            settings: settings.as_ptr(),
            settings_len: settings.len() as u64,
            arm: arm.as_ptr(),
            arm_len: arm.len() as u64,
            reserved: [0; 4],
        };
        let create = self.calls.create;
        let mut handle = std::ptr::null_mut();
        let out = &raw mut handle;
        self.must("create", services, |_, host, message| {
            // SAFETY: all pointers are valid for the call.
            unsafe { create(host, &args, out, message) }
        })?;
        self.handle = handle;
        Ok(())
    }

    /// Settings with their prompts as token ids.
    fn with_prompts(
        &self,
        mut settings: Map<String, Value>,
        services: &mut dyn Services,
    ) -> Result<Map<String, Value>, StrategyError> {
        let plugin = &self.plugin;
        if !plugin.has_prompts() {
            return Ok(settings);
        }
        let bos = services.special_tokens().bos;
        let prompts = plugin.prompts(&settings, bos, &mut |text| {
            services.encode(text).map_err(|error| error.to_string())
        });
        let prompts = prompts.map_err(|error| StrategyError::Failed {
            strategy: plugin.name.clone(),
            call: "create",
            message: error.to_string(),
        })?;
        for (name, tokens) in prompts {
            settings.insert(name, tokens.into());
        }
        Ok(settings)
    }

    /// The plugin that the instance belongs to.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Has whatever is lent for a call overwritten for good after it, at the price of its memory.
    pub(super) fn put_on_trial(&mut self) {
        self.on_trial = true;
    }

    /// Announces a phase.
    pub fn phase_started(
        &mut self,
        phase: &PhaseContext,
        services: &mut dyn Services,
    ) -> Result<(), StrategyError> {
        self.state().phase = Some(phase.clone());
        let call = self.calls.phase_started;
        let lent = self.lend(phase);
        let raw = LentPhase::pointer(Some(&lent));
        self.must("phase_started", services, |handle, host, message| {
            // SAFETY: all pointers are valid for the call.
            unsafe { call(handle, host, raw, message) }
        })
    }

    /// The replay batch of a step, with the usual rows of the phase, as [`Self::next_batch_of`].
    pub fn next_batch(
        &mut self,
        step: u64,
        services: &mut dyn Services,
    ) -> Result<Option<ReplayBatch>, StrategyError> {
        let rows = self.phase("next_batch")?.replay_rows;
        self.next_batch_of(step, rows, services)
    }

    /// The replay batch of a step, of `rows` rows if the strategy has no other number in mind; `step` counts the
    /// arm's steps so far. `None`: no replay this step.
    pub fn next_batch_of(
        &mut self,
        step: u64,
        rows: usize,
        services: &mut dyn Services,
    ) -> Result<Option<ReplayBatch>, StrategyError> {
        const CALL: &str = "next_batch";
        let phase = self.phase(CALL)?;
        let call = self.calls.next_batch;
        let lent = self.lend(&phase);
        let raw_step = abi::Step {
            struct_size: size_of::<abi::Step>() as u64,
            step,
            phase_step: step.saturating_sub(phase.first_step),
            rows: rows as u64,
            phase: LentPhase::pointer(Some(&lent)),
            reserved: [0; 4],
        };
        for retry in 0..=MAX_RETRIES {
            let batch = self.buffers.prepare(&phase);
            let mut batch = batch.map_err(|what| self.misbehaved(CALL, what))?;
            let buffers = std::mem::take(&mut self.buffers);
            let mut overrun = false;
            let (status, message) = self.call(CALL, Some(services), |handle, host, message| {
                // SAFETY: all pointers are valid for the call, buffers as long as they say.
                let status = unsafe { call(handle, host, &raw_step, &mut batch, message) };
                overrun = buffers.overrun();
                status
            });
            self.buffers = buffers;
            match status {
                _ if overrun => return Err(self.misbehaved(CALL, OVERRUN.into())),
                abi::OK => {
                    let checked = self.buffers.take(&batch, &phase, self.plugin.capabilities);
                    return checked
                        .map(Some)
                        .map_err(|what| self.misbehaved(CALL, what));
                }
                abi::NOTHING => return Ok(None),
                abi::RETRY if !services.cancelled() => {
                    let grown = self.buffers.grow(&batch, &phase);
                    grown.map_err(|what| self.misbehaved(CALL, what))?;
                    pause_before(retry);
                }
                abi::RETRY => return Err(self.cancelled(CALL)),
                status => return Err(self.error(CALL, status, message, services.cancelled())),
            }
        }
        Err(self.retried_too_often(CALL))
    }

    /// Reports the metrics of the last step.
    pub fn observe(
        &mut self,
        metrics: &StepMetrics,
        services: &mut dyn Services,
    ) -> Result<(), StrategyError> {
        let phase = self.phase("observe")?;
        let call = self.calls.observe;
        let lent = self.lend(&phase);
        let observation = abi::Observation {
            struct_size: size_of::<abi::Observation>() as u64,
            step: metrics.step,
            phase_step: metrics.step.saturating_sub(phase.first_step),
            new_loss: metrics.new_loss,
            replay_loss: metrics.replay_loss.unwrap_or_default(),
            grad_norm: metrics.grad_norm,
            learning_rate: metrics.learning_rate,
            new_row_losses: metrics.new_row_losses.as_ptr(),
            new_row_losses_len: metrics.new_row_losses.len() as u64,
            replay_row_losses: metrics.replay_row_losses.as_ptr(),
            replay_row_losses_len: metrics.replay_row_losses.len() as u64,
            phase: LentPhase::pointer(Some(&lent)),
            has_replay: u8::from(metrics.replay_loss.is_some()),
            pad8: [0; 7],
            reserved: [0; 4],
        };
        self.must("observe", services, |handle, host, message| {
            // SAFETY: all pointers are valid for the call.
            unsafe { call(handle, host, &observation, message) }
        })
    }

    /// Saves the instance's state, with the name of the plugin and the version of the state.
    pub fn save(&mut self) -> Result<Vec<u8>, StrategyError> {
        const CALL: &str = "save";
        let call = self.calls.save;
        let mut buffer = Lent::<u8>::default();
        let mut capacity = 0;
        for _ in 0..=MAX_RETRIES {
            if buffer.fill(capacity as usize, 0).is_err() {
                let what = format!("no memory for its state of {capacity} bytes");
                return Err(self.misbehaved(CALL, what));
            }
            let (pointer, mut needed) = (buffer.as_mut_ptr(), 0);
            let mut overrun = false;
            let (status, message) = self.call(CALL, None, |handle, _, message| {
                // SAFETY: the buffer has room for `capacity` bytes.
                let status = unsafe { call(handle, pointer, capacity, &mut needed, message) };
                overrun = buffer.overrun();
                status
            });
            match status {
                _ if overrun => return Err(self.misbehaved(CALL, OVERRUN.into())),
                abi::OK if needed <= capacity => {
                    let (name, version) = (&self.plugin.name, self.calls.state_version);
                    return Ok(state::pack(name, version, buffer.take(needed as usize)));
                }
                abi::OK | abi::RETRY if needed > abi::MAX_STATE => {
                    let most = abi::MAX_STATE;
                    let what = format!("its state has {needed} bytes; at most {most} are kept");
                    return Err(self.misbehaved(CALL, what));
                }
                abi::OK | abi::RETRY => capacity = capacity.max(needed),
                status => return Err(self.error(CALL, status, message, false)),
            }
        }
        Err(self.retried_too_often(CALL))
    }

    /// Restores a state written by [`StrategyInstance::save`] into a fresh instance. `phase` is the
    /// current phase, which [`StrategyInstance::phase_started`] does not announce again.
    pub fn load(
        &mut self,
        saved: &[u8],
        phase: Option<&PhaseContext>,
        services: &mut dyn Services,
    ) -> Result<(), StrategyError> {
        let Saved {
            state_version,
            state,
        } = state::unpack(&self.plugin.name, saved).map_err(|what| StrategyError::BadState {
            strategy: self.plugin.name.clone(),
            what,
        })?;
        self.state().phase = phase.cloned();
        let call = self.calls.load;
        let (pointer, len) = (state.as_ptr(), state.len() as u64);
        let lent = phase.map(|phase| self.lend(phase));
        let phase = LentPhase::pointer(lent.as_ref());
        self.must("load", services, |handle, host, message| {
            // SAFETY: all pointers are valid for the call.
            unsafe { call(handle, host, state_version, pointer, len, phase, message) }
        })
    }

    fn state(&mut self) -> &mut HostState {
        // SAFETY: ours until drop; no callback is running while `&mut self` is free to use, and
        // services touch it only inside one.
        unsafe { self.state.as_mut() }
    }

    fn lend(&self, phase: &PhaseContext) -> LentPhase {
        LentPhase::new(phase.clone(), self.on_trial)
    }

    fn phase(&mut self, call: &'static str) -> Result<PhaseContext, StrategyError> {
        let phase = self.state().phase.clone();
        phase.ok_or_else(|| self.misbehaved(call, "called before the first phase".into()))
    }

    /// Makes one call into the plugin, with breadcrumb, watchdog and services in place; its status and
    /// message.
    fn call(
        &mut self,
        name: &'static str,
        services: Option<&mut dyn Services>,
        call: impl FnOnce(Handle, *const abi::Host, *mut abi::Message) -> i32,
    ) -> (i32, String) {
        let mut message = std::mem::take(&mut self.message);
        message.clear();
        let float = FloatMode::now();
        self.state().begin(name, services);
        self.context.enter();
        let status = call(self.handle, &*self.table, message.as_mut_ptr());
        self.context.leave();
        float.restore();
        let overrun = message.overrun();
        self.state().end();
        let text = message.text();
        self.message = message;
        if overrun {
            return (abi::FAILED, OVERRUN.into());
        }
        (status, text)
    }

    /// Makes a call that must answer [`abi::OK`], after retries.
    fn must(
        &mut self,
        name: &'static str,
        services: &mut dyn Services,
        mut call: impl FnMut(Handle, *const abi::Host, *mut abi::Message) -> i32,
    ) -> Result<(), StrategyError> {
        for retry in 0..=MAX_RETRIES {
            let (status, message) = self.call(name, Some(&mut *services), &mut call);
            match status {
                abi::OK => return Ok(()),
                abi::RETRY if !services.cancelled() => pause_before(retry),
                abi::RETRY => return Err(self.cancelled(name)),
                status => return Err(self.error(name, status, message, services.cancelled())),
            }
        }
        Err(self.retried_too_often(name))
    }

    fn error(
        &self,
        call: &'static str,
        status: i32,
        message: String,
        stopping: bool,
    ) -> StrategyError {
        match status {
            abi::FAILED => StrategyError::Failed {
                strategy: self.plugin.name.clone(),
                call,
                message,
            },
            abi::CANCELLED if stopping => self.cancelled(call),
            abi::CANCELLED => self.misbehaved(
                call,
                "it answered \"cancelled\", but nobody is stopping the run".into(),
            ),
            abi::NOTHING => self.misbehaved(
                call,
                "it answered \"nothing\", which is for next_batch only".into(),
            ),
            other => self.misbehaved(call, format!("it answered with the unknown status {other}")),
        }
    }

    fn misbehaved(&self, call: &'static str, what: String) -> StrategyError {
        StrategyError::Misbehaved {
            strategy: self.plugin.name.clone(),
            call,
            what,
        }
    }

    fn cancelled(&self, call: &'static str) -> StrategyError {
        StrategyError::Cancelled {
            strategy: self.plugin.name.clone(),
            call,
        }
    }

    fn retried_too_often(&self, call: &'static str) -> StrategyError {
        let calls = MAX_RETRIES + 1;
        self.misbehaved(
            call,
            format!("it asked to be called again {calls} times in a row"),
        )
    }
}

/// Waits before a retry, longer each time: 1 ms, 2 ms, … 64 ms.
fn pause_before(retry: u32) {
    std::thread::sleep(Duration::from_millis(1 << retry.min(6)));
}

impl Drop for StrategyInstance {
    fn drop(&mut self) {
        let destroy = self.calls.destroy;
        if !self.handle.is_null() {
            self.call("destroy", None, |handle, _, _| {
                // SAFETY: the handle is given back once, here.
                unsafe { destroy(handle) };
                abi::OK
            });
        }
        // SAFETY: made by `Box::leak`; no callback is running, so `context` lets nobody reach it.
        drop(unsafe { Box::from_raw(self.state.as_ptr()) });
    }
}

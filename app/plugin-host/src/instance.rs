//! A strategy's instance, which serves one arm.

use std::{path::PathBuf, ptr::NonNull, sync::Arc, time::Duration};

use forgetlab_plugin_api::abi;
use serde_json::{Map, Value};

use super::{
    Capabilities, OnLate, PhaseContext, Plugin, ReplayBatch, Services, StepMetrics, StrategyError,
    breadcrumb::Trail,
    check::BatchBuffers,
    host_context::{Context, HostState},
    host_services,
    library::Handle,
    phase::with_phase,
    raw::MessageBuffer,
    state::{self, Saved},
    watchdog::Watchdog,
};

/// How often in a row a plugin may answer [`abi::RETRY`].
const MAX_RETRIES: u32 = 16;

/// The arm that an instance serves, and the conditions it runs under.
#[derive(Clone)]
pub struct InstanceOptions {
    /// Name of the arm in messages.
    pub arm: String,
    /// Capabilities the run offers; a plugin that needs others is refused.
    pub offered: Capabilities,
    /// File that names the current call, see [`super::breadcrumb`]; instances that take turns may
    /// share it.
    pub breadcrumb: Option<PathBuf>,
    /// Time in the plugin after which a call is reported as late, and the function that is told.
    pub deadline: Option<(Duration, OnLate)>,
}

/// An instance of a strategy. Dropping it destroys the plugin's side of it.
///
/// Any error ends the arm: the instance is not used after a failed call.
pub struct StrategyInstance {
    plugin: Arc<Plugin>,
    handle: Handle,
    /// Behind a pointer because `context` leads to it too; freed on drop.
    state: NonNull<HostState>,
    context: &'static Context,
    table: Box<abi::Host>,
    buffers: BatchBuffers,
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
        let arm = &options.arm;
        let trail =
            Trail::open(options.breadcrumb.as_deref(), &self.name, arm).map_err(|error| {
                let path = options.breadcrumb.unwrap_or_default();
                StrategyError::Failed {
                    strategy: self.name.clone(),
                    call: "create",
                    message: format!("{} cannot be written: {error}", path.display()),
                }
            })?;
        let watchdog = options
            .deadline
            .map(|(deadline, on_late)| Watchdog::start(&self.name, arm, deadline, on_late));
        let state = NonNull::from(Box::leak(Box::new(HostState::new(trail, watchdog))));
        let context = Context::leak(state);
        let mut instance = StrategyInstance {
            plugin: Arc::clone(self),
            handle: std::ptr::null_mut(),
            state,
            context,
            table: Box::new(host_services::table(context)),
            buffers: BatchBuffers::default(),
        };
        instance.create(settings, arm, services)?;
        Ok(instance)
    }
}

impl StrategyInstance {
    fn create(
        &mut self,
        settings: &Map<String, Value>,
        arm: &str,
        services: &mut dyn Services,
    ) -> Result<(), StrategyError> {
        let settings = Value::Object(settings.clone()).to_string();
        let args = abi::CreateArgs {
            struct_size: size_of::<abi::CreateArgs>() as u64,
            settings: settings.as_ptr(),
            settings_len: settings.len() as u64,
            arm: arm.as_ptr(),
            arm_len: arm.len() as u64,
            reserved: [0; 4],
        };
        let create = self.plugin.calls.create;
        let mut handle = std::ptr::null_mut();
        let out = &raw mut handle;
        self.must("create", services, |_, host, message| {
            // SAFETY: all pointers are valid for the call.
            unsafe { create(host, &args, out, message) }
        })?;
        self.handle = handle;
        Ok(())
    }

    /// The plugin that the instance belongs to.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Announces a phase.
    pub fn phase_started(
        &mut self,
        phase: &PhaseContext,
        services: &mut dyn Services,
    ) -> Result<(), StrategyError> {
        self.state().phase = Some(phase.clone());
        let call = self.plugin.calls.phase_started;
        with_phase(Some(phase), |raw| {
            self.must("phase_started", services, |handle, host, message| {
                // SAFETY: all pointers are valid for the call.
                unsafe { call(handle, host, raw, message) }
            })
        })
    }

    /// The replay batch of a step; `step` counts the arm's steps so far. `None`: no replay this step.
    pub fn next_batch(
        &mut self,
        step: u64,
        services: &mut dyn Services,
    ) -> Result<Option<ReplayBatch>, StrategyError> {
        const CALL: &str = "next_batch";
        let phase = self.phase(CALL)?;
        let call = self.plugin.calls.next_batch;
        with_phase(Some(&phase), |raw_phase| {
            let raw_step = abi::Step {
                struct_size: size_of::<abi::Step>() as u64,
                step,
                phase_step: step.saturating_sub(phase.first_step),
                rows: phase.replay_rows as u64,
                phase: raw_phase,
                reserved: [0; 4],
            };
            for retry in 0..=MAX_RETRIES {
                let mut batch = self.buffers.prepare(&phase);
                let (status, message) = self.call(CALL, Some(services), |handle, host, message| {
                    // SAFETY: all pointers are valid for the call, buffers as long as they say.
                    unsafe { call(handle, host, &raw_step, &mut batch, message) }
                });
                match status {
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
        })
    }

    /// Reports the metrics of the last step.
    pub fn observe(
        &mut self,
        metrics: &StepMetrics,
        services: &mut dyn Services,
    ) -> Result<(), StrategyError> {
        let phase = self.phase("observe")?;
        let call = self.plugin.calls.observe;
        with_phase(Some(&phase), |raw_phase| {
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
                phase: raw_phase,
                has_replay: u8::from(metrics.replay_loss.is_some()),
                pad8: [0; 7],
                reserved: [0; 4],
            };
            self.must("observe", services, |handle, host, message| {
                // SAFETY: all pointers are valid for the call.
                unsafe { call(handle, host, &observation, message) }
            })
        })
    }

    /// Saves the instance's state, with the name of the plugin and the version of the state.
    pub fn save(&mut self) -> Result<Vec<u8>, StrategyError> {
        const CALL: &str = "save";
        let call = self.plugin.calls.save;
        let mut buffer: Vec<u8> = Vec::new();
        for _ in 0..=MAX_RETRIES {
            let mut needed = 0;
            let (pointer, capacity) = (buffer.as_mut_ptr(), buffer.len() as u64);
            let (status, message) = self.call(CALL, None, |handle, _, message| {
                // SAFETY: the buffer has room for `capacity` bytes.
                unsafe { call(handle, pointer, capacity, &mut needed, message) }
            });
            match status {
                abi::OK | abi::RETRY if needed > abi::MAX_STATE => {
                    let what = format!(
                        "its state has {needed} bytes; at most {} are kept",
                        abi::MAX_STATE
                    );
                    return Err(self.misbehaved(CALL, what));
                }
                abi::OK | abi::RETRY if needed > capacity => {
                    let more = (needed - capacity) as usize;
                    if buffer.try_reserve_exact(more).is_err() {
                        let what = format!("no memory for its state of {needed} bytes");
                        return Err(self.misbehaved(CALL, what));
                    }
                    buffer.resize(needed as usize, 0);
                }
                abi::OK => {
                    buffer.truncate(needed as usize);
                    return Ok(state::pack(&self.plugin, &buffer));
                }
                abi::RETRY => {}
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
        let call = self.plugin.calls.load;
        let (pointer, len) = (state.as_ptr(), state.len() as u64);
        with_phase(phase, |phase| {
            self.must("load", services, |handle, host, message| {
                // SAFETY: all pointers are valid for the call.
                unsafe { call(handle, host, state_version, pointer, len, phase, message) }
            })
        })
    }

    fn state(&mut self) -> &mut HostState {
        // SAFETY: ours until drop; no callback is running while `&mut self` is free to use, and
        // services touch it only inside one.
        unsafe { self.state.as_mut() }
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
        let mut message = MessageBuffer::new();
        self.state().begin(name, services);
        self.context.enter();
        let status = call(self.handle, &*self.table, message.as_mut_ptr());
        self.context.leave();
        self.state().end();
        (status, message.text())
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
        let destroy = self.plugin.calls.destroy;
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

//! The end of a run that is to stop while a strategy does not return.
//!
//! Nobody can end a call into a plugin from outside, and the thread that trains is in it. So another one saves the
//! arms that wait for their turn, each at its last step, reports that the arm of the call failed, and has the
//! process end. It all happens on a watchdog's thread, which holds the call where it is (see [`OnLate`]).

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use forgetlab_plugin_host::{LateCall, OnLate};
use forgetlab_study::run::{Event, Level};

use super::journal::Journal;
use super::waiting::WaitingElsewhere;

/// Asked from any thread; gives the reason when the run is to stop.
pub type Stop = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Ends the process of a run that was given up, told why it was to stop. All that could be saved is saved, and the
/// events are complete; the thread that trains never goes on.
pub type EndProcess = Arc<dyn Fn(String) + Send + Sync>;

/// The longest that a late call has to notice that the run is to stop, where its deadline is not shorter.
const PATIENCE: Duration = Duration::from_secs(5);

/// What late calls of any arm lead to.
pub(super) struct Hang {
    pub journal: Journal,
    pub waiting: WaitingElsewhere,
    pub stop: Stop,
    pub end_process: EndProcess,
    /// When a late call was first known to hold up the stop.
    pub held_up: OnceLock<Instant>,
    /// The arm whose call has the run given up.
    pub given_up_for: OnceLock<usize>,
}

impl Hang {
    /// Reports late calls of an arm's strategy, and gives the run up where one holds up its stop.
    pub(super) fn on_late(self: &Arc<Self>, arm: usize, deadline: Duration) -> OnLate {
        let hang = Arc::clone(self);
        Arc::new(move |late: LateCall| {
            if late.first {
                hang.log(arm, late.to_string());
            }
            let Some(reason) = (hang.stop)() else { return };
            let held_up = hang.held_up.get_or_init(Instant::now);
            if held_up.elapsed() >= deadline.min(PATIENCE) {
                hang.give_up(arm, deadline, &late, reason);
            }
        })
    }

    /// Saves what can be saved and ends the process. Where the strategy of another arm hangs, too, when it is to
    /// save its state, that call's watchdog comes here as well and goes on with the next arm.
    fn give_up(&self, arm: usize, deadline: Duration, late: &LateCall, reason: String) {
        let first = self.given_up_for.set(arm).is_ok();
        let what = format!(
            "strategy `{}` did not return from {} within {} s (replay.call_deadline_seconds)",
            late.strategy,
            late.call,
            deadline.as_secs_f64()
        );
        let (is_over, step) = self.journal.state(|state| {
            let arm = &state.arms[arm];
            (arm.status.is_over(), arm.step)
        });
        // An arm that is being loaded or destroyed is whole on the disk.
        let is_saved = is_over || matches!(late.call, "load" | "destroy");
        match first && !is_saved {
            true => self.emit(Event::ArmFailed {
                arm,
                step,
                reason: what,
            }),
            false => self.log(
                arm,
                format!("{what}; the arm resumes from its last checkpoint"),
            ),
        }
        while let Some(mut run) = self.waiting.take_first() {
            if let Err(error) = run.save(&self.journal) {
                let message = format!("not saved, resumes from its last checkpoint: {error}");
                self.log(run.index(), message);
            }
            // Its strategy is not to be called any more.
            std::mem::forget(run);
        }
        let is_told =
            |state: &forgetlab_study::run::RunState| state.finished || state.interrupted.is_some();
        if !self.journal.state(is_told) {
            self.emit(Event::Interrupted {
                reason: reason.clone(),
            });
        }
        // Where the disk is full, all was tried.
        let _ = self.journal.sync();
        (self.end_process)(reason);
    }

    fn log(&self, arm: usize, message: String) {
        let level = Level::Warn;
        self.emit(Event::Log {
            level,
            arm: Some(arm),
            message,
        });
    }

    fn emit(&self, event: Event) {
        // A full disk will be met, and reported, by the training loop, or by whoever resumes.
        let _ = self.journal.emit(event);
    }
}

//! The watchdog, which reports plugin calls that run past their deadline while they are still running.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A call that is past its deadline and still running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateCall {
    /// Name of the strategy.
    pub strategy: String,
    /// Arm it serves.
    pub arm: String,
    /// Callback.
    pub call: &'static str,
    /// Time spent in the plugin so far, without the time in host services.
    pub elapsed: Duration,
}

impl std::fmt::Display for LateCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "strategy `{}` of arm {} has been in {} for {:.1} s and has not returned; if it never does, kill the run and resume it with --skip-arm",
            self.strategy,
            self.arm,
            self.call,
            self.elapsed.as_secs_f64()
        )
    }
}

/// Told of late calls, once per call, on the watchdog's thread.
pub type OnLate = Arc<dyn Fn(LateCall) + Send + Sync>;

#[derive(Debug, Default)]
struct Clock {
    call: Option<&'static str>,
    /// Time in the plugin before `since`.
    spent: Duration,
    /// `None` while a host service runs.
    since: Option<Instant>,
    reported: bool,
}

#[derive(Debug, Default)]
struct Shared {
    clock: Mutex<Clock>,
    stop: AtomicBool,
}

impl Shared {
    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that checks one instance's clock several times per deadline.
#[derive(Debug)]
pub(super) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts watching the calls of one instance.
    pub(super) fn start(strategy: &str, arm: &str, deadline: Duration, on_late: OnLate) -> Self {
        let shared = Arc::new(Shared::default());
        let (strategy, arm) = (strategy.to_owned(), arm.to_owned());
        let watched = Arc::clone(&shared);
        let pause = (deadline / 8).clamp(Duration::from_millis(5), Duration::from_millis(500));
        let watch = move || {
            while !watched.stop.load(Ordering::Relaxed) {
                thread::park_timeout(pause);
                let mut clock = watched.clock();
                let (Some(call), Some(since)) = (clock.call, clock.since) else {
                    continue;
                };
                let elapsed = clock.spent + since.elapsed();
                if elapsed < deadline || clock.reported {
                    continue;
                }
                clock.reported = true;
                drop(clock);
                on_late(LateCall {
                    strategy: strategy.clone(),
                    arm: arm.clone(),
                    call,
                    elapsed,
                });
            }
        };
        // Without a thread calls are not watched; that is no reason to end a run.
        let thread = thread::Builder::new()
            .name("plugin-watchdog".into())
            .spawn(watch)
            .ok();
        Self { shared, thread }
    }

    /// Starts the clock for a call.
    pub(super) fn begin(&self, call: &'static str) {
        *self.shared.clock() = Clock {
            call: Some(call),
            since: Some(Instant::now()),
            ..Clock::default()
        };
    }

    /// Stops the clock: the call returned.
    pub(super) fn end(&self) {
        *self.shared.clock() = Clock::default();
    }

    /// Pauses the clock while a host service runs.
    pub(super) fn pause(&self) {
        let mut clock = self.shared.clock();
        if let Some(since) = clock.since.take() {
            clock.spent += since.elapsed();
        }
    }

    /// Continues after a host service.
    pub(super) fn go_on(&self) {
        self.shared.clock().since = Some(Instant::now());
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(deadline: u64) -> (Watchdog, Arc<Mutex<Vec<LateCall>>>) {
        let late = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&late);
        let on_late: OnLate = Arc::new(move |call| sink.lock().expect("lock").push(call));
        let deadline = Duration::from_millis(deadline);
        (Watchdog::start("s", "s:kl:1", deadline, on_late), late)
    }

    /// Else a researcher would look at a run that hangs and not learn which plugin hangs it.
    #[test]
    fn a_call_past_its_deadline_is_reported_once_while_it_runs() {
        let (dog, late) = watched(20);
        dog.begin("next_batch");
        let start = Instant::now();
        while late.lock().expect("lock").is_empty() && start.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(60));
        let late = late.lock().expect("lock").clone();
        assert_eq!(late.len(), 1);
        assert_eq!(late[0].call, "next_batch");
    }

    /// Else every large buffer the engine generates would be blamed on the plugin that asked for it.
    #[test]
    fn time_in_host_services_does_not_count() {
        let (dog, late) = watched(400);
        dog.begin("next_batch");
        dog.pause();
        thread::sleep(Duration::from_millis(700));
        dog.go_on();
        dog.end();
        assert!(late.lock().expect("lock").is_empty());
    }
}

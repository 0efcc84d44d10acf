//! The watchdog, which reports plugin calls that run past their deadline while they are still running.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Thread},
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
    /// Whether nobody was told of this call before.
    pub first: bool,
}

impl std::fmt::Display for LateCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "strategy `{}` of arm {} has been in {} for {:.1} s and has not returned; if it never does, stop the run: that ends the arm, and a resume goes on with the others",
            self.strategy,
            self.arm,
            self.call,
            self.elapsed.as_secs_f64()
        )
    }
}

/// Told of a call on a thread of its own when its deadline passes, and again several times per deadline until it
/// returns. Meanwhile the call can neither return nor begin a host service.
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

impl Clock {
    /// The call under way and how long it has been, where that is too long.
    fn late(&self, deadline: Duration) -> Option<(&'static str, Duration)> {
        let (call, elapsed) = (self.call?, self.spent + self.since?.elapsed());
        (elapsed >= deadline).then_some((call, elapsed))
    }
}

/// The clock of one instance, and who is told where it runs too long.
struct Watched {
    clock: Mutex<Clock>,
    /// Whether a thread is telling of its call.
    telling: AtomicBool,
    strategy: String,
    arm: String,
    deadline: Duration,
    on_late: OnLate,
}

impl Watched {
    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time between two looks.
    fn pause(&self) -> Duration {
        (self.deadline / 8).clamp(Duration::from_millis(5), Duration::from_millis(500))
    }

    /// Looks at the clock; a late call is told of by a thread of its own, for who is told may take long, and call
    /// another strategy that is to be watched meanwhile.
    fn look(self: &Arc<Self>) {
        // A clock that is in use just now is looked at again.
        let Ok(clock) = self.clock.try_lock() else {
            return;
        };
        if clock.late(self.deadline).is_none() || self.telling.swap(true, Ordering::Relaxed) {
            return;
        }
        drop(clock);
        let watched = Arc::clone(self);
        let tell = thread::Builder::new()
            .name("late-call".into())
            .spawn(move || watched.tell());
        if tell.is_err() {
            self.telling.store(false, Ordering::Relaxed);
        }
    }

    fn tell(&self) {
        let mut clock = self.clock();
        if let Some((call, elapsed)) = clock.late(self.deadline) {
            let first = !std::mem::replace(&mut clock.reported, true);
            // The clock stays locked, which holds the call where it is.
            (self.on_late)(LateCall {
                strategy: self.strategy.clone(),
                arm: self.arm.clone(),
                call,
                elapsed,
                first,
            });
        }
        self.telling.store(false, Ordering::Relaxed);
    }
}

/// All instances that are watched, and the one thread that watches them, which is never ended.
#[derive(Default)]
struct Watch {
    all: Vec<Arc<Watched>>,
    thread: Option<Thread>,
}

static WATCH: Mutex<Watch> = Mutex::new(Watch {
    all: Vec::new(),
    thread: None,
});

fn watch() -> MutexGuard<'static, Watch> {
    WATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread does: looks at every clock several times per deadline.
fn keep_watch() {
    loop {
        let pause = watch().all.iter().map(|watched| watched.pause()).min();
        match pause {
            Some(pause) => thread::park_timeout(pause),
            None => thread::park(),
        }
        let all = watch().all.clone();
        for watched in all {
            watched.look();
        }
    }
}

/// Has one instance's calls watched for as long as it lives.
pub(super) struct Watchdog {
    watched: Arc<Watched>,
}

impl Watchdog {
    /// Starts watching the calls of one instance.
    pub(super) fn start(strategy: &str, arm: &str, deadline: Duration, on_late: OnLate) -> Self {
        let watched = Arc::new(Watched {
            clock: Mutex::default(),
            telling: AtomicBool::new(false),
            strategy: strategy.to_owned(),
            arm: arm.to_owned(),
            deadline,
            on_late,
        });
        let mut watch = watch();
        watch.all.push(Arc::clone(&watched));
        match &watch.thread {
            // Its next look may come earlier now.
            Some(thread) => thread.unpark(),
            None => {
                // Without a thread calls are not watched; that is no reason to end a run.
                let thread = thread::Builder::new()
                    .name("plugin-watchdog".into())
                    .spawn(keep_watch);
                watch.thread = thread.ok().map(|thread| thread.thread().clone());
            }
        }
        Self { watched }
    }

    /// Starts the clock for a call.
    pub(super) fn begin(&self, call: &'static str) {
        *self.watched.clock() = Clock {
            call: Some(call),
            since: Some(Instant::now()),
            ..Clock::default()
        };
    }

    /// Stops the clock: the call returned.
    pub(super) fn end(&self) {
        *self.watched.clock() = Clock::default();
    }

    /// Pauses the clock while a host service runs.
    pub(super) fn pause(&self) {
        let mut clock = self.watched.clock();
        if let Some(since) = clock.since.take() {
            clock.spent += since.elapsed();
        }
    }

    /// Continues after a host service.
    pub(super) fn go_on(&self) {
        self.watched.clock().since = Some(Instant::now());
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        watch()
            .all
            .retain(|watched| !Arc::ptr_eq(watched, &self.watched));
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

    /// Else a researcher would look at a run that hangs and not learn which plugin hangs it, nor be able to end it.
    #[test]
    fn a_call_past_its_deadline_is_reported_while_it_runs() {
        let (dog, late) = watched(20);
        dog.begin("next_batch");
        let start = Instant::now();
        while late.lock().expect("lock").is_empty() && start.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(60));
        let told = late.lock().expect("lock").clone();
        assert_eq!(told[0].call, "next_batch");
        assert!(told.len() > 1, "once more, for whoever would end it");
        let first: Vec<bool> = told.iter().map(|late| late.first).collect();
        assert!(first[0] && !first[1..].contains(&true));
        dog.end();
        late.lock().expect("lock").clear();
        thread::sleep(Duration::from_millis(60));
        assert!(late.lock().expect("lock").is_empty(), "it has returned");
    }

    /// Else an arm would be given up in the moment in which its strategy returns.
    #[test]
    fn a_call_waits_while_it_is_told_of() {
        let told = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&told);
        let on_late: OnLate = Arc::new(move |_| {
            thread::sleep(Duration::from_millis(200));
            flag.store(true, Ordering::Relaxed);
        });
        let dog = Watchdog::start("s", "s:kl:1", Duration::from_millis(20), on_late);
        dog.begin("next_batch");
        thread::sleep(Duration::from_millis(100));
        dog.end();
        assert!(told.load(Ordering::Relaxed));
    }

    /// Else a run of a thousand arms would have a thousand threads that do nothing.
    #[test]
    #[cfg(target_os = "linux")]
    fn one_thread_watches_all_instances() {
        let late = |deadline| watched(deadline).0;
        let dogs: Vec<Watchdog> = (0..50).map(|_| late(100_000)).collect();
        let watching = || {
            let threads = std::fs::read_dir("/proc/self/task").expect("threads");
            let names = threads
                .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
            names
                .filter(|name| name.trim() == "plugin-watchdog")
                .count()
        };
        // A thread that it starts to tell of a late call has its name for a moment.
        let start = Instant::now();
        while watching() != 1 && start.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(watching(), 1);
        drop(dogs);
    }

    /// Else the end of one strategy that hangs would hang in another.
    #[test]
    fn a_second_late_call_is_reported_while_the_first_is_told_of() {
        let (second, late) = watched(20);
        second.begin("save");
        let (told, tell) = std::sync::mpsc::channel();
        let on_late: OnLate = Arc::new(move |_| {
            while late.lock().expect("lock").is_empty() {
                thread::sleep(Duration::from_millis(5));
            }
            let _ = told.send(());
        });
        let first = Watchdog::start("s", "s:kl:1", Duration::from_millis(20), on_late);
        first.begin("next_batch");
        tell.recv_timeout(Duration::from_secs(20))
            .expect("told of the second");
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

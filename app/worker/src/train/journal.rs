//! The run's events while it runs: written, folded, shown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forgetlab_plugin_host::{LateCall, OnLate};
use forgetlab_study::run::{Event, EventWriter, Level, Record, RunError, RunState};

/// Called with every event as it is written and the state of the run after it; from another thread while a
/// strategy is late.
pub type Listener = Box<dyn FnMut(&RunState, &Record) + Send>;

/// Writes events, keeps the state of the run they tell, calls the listener.
#[derive(Clone)]
pub(super) struct Journal {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    writer: EventWriter,
    state: RunState,
    listener: Listener,
}

impl Journal {
    pub(super) fn new(writer: EventWriter, state: RunState, listener: Listener) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                writer,
                state,
                listener,
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A listener that panicked leaves the events as they should be.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn emit(&self, event: Event) -> Result<(), RunError> {
        let mut inner = self.lock();
        let record = inner.writer.append(event)?;
        inner.state.apply(&record);
        let Inner {
            state, listener, ..
        } = &mut *inner;
        listener(state, &record);
        Ok(())
    }

    pub(super) fn log(
        &self,
        level: Level,
        arm: Option<usize>,
        message: impl Into<String>,
    ) -> Result<(), RunError> {
        self.emit(Event::Log {
            level,
            arm,
            message: message.into(),
        })
    }

    pub(super) fn sync(&self) -> Result<(), RunError> {
        self.lock().writer.sync()
    }

    /// Reads the state of the run after all events so far.
    pub(super) fn state<T>(&self, read: impl FnOnce(&RunState) -> T) -> T {
        read(&self.lock().state)
    }

    /// Where the strategy of arm `arm` logs to.
    pub(super) fn log_of(&self, arm: usize) -> impl Fn(Level, &str) + use<> {
        let journal = self.clone();
        move |level, message| {
            // A full disk will be met, and reported, by the training loop.
            let _ = journal.log(level, Some(arm), message);
        }
    }

    /// Reports a late call of arm `arm`'s strategy.
    pub(super) fn on_late(&self, arm: usize) -> OnLate {
        let journal = self.clone();
        Arc::new(move |late: LateCall| {
            // A full disk will be met, and reported, by the training loop.
            let _ = journal.log(Level::Warn, Some(arm), late.to_string());
        })
    }
}

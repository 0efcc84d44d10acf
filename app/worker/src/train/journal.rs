//! The run's events while it runs: written, folded, shown.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forgetlab_study::run::{
    Evaluation, Event, EventWriter, Level, Mark, Record, RunError, RunState, SampleLook, Score,
    TrainingStretch,
};

/// Called with every event as it is written and the state of the run after it; from another thread while a
/// strategy is late.
pub type Listener = Box<dyn FnMut(&RunState, &Record) + Send>;

/// Writes events, keeps the state of the run they tell, calls the listener.
#[derive(Clone)]
pub(super) struct Journal {
    /// The run's folder.
    folder: PathBuf,
    inner: Arc<Mutex<Inner>>,
}

/// What the first phase recorded.
#[derive(Clone, Copy, Default)]
pub(super) struct Recorded<'a> {
    pub evaluations: &'a [Evaluation],
    /// Figures of training.
    pub training: &'a [TrainingStretch],
    /// What its student wrote.
    pub samples: &'a [SampleLook],
}

struct Inner {
    writer: EventWriter,
    state: RunState,
    listener: Listener,
}

impl Journal {
    /// The journal of the run in `folder`.
    pub(super) fn new(
        folder: &Path,
        writer: EventWriter,
        state: RunState,
        listener: Listener,
    ) -> Self {
        Self {
            folder: folder.to_owned(),
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

    /// A path inside the run's folder, as events name it.
    pub(super) fn path_in_run(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.folder).unwrap_or(path);
        inside.display().to_string()
    }

    /// Syncs the events to disk, and tells how far they go.
    pub(super) fn sync(&self) -> Result<Mark, RunError> {
        self.sync_and_index(false)
    }

    /// The same at the end of the work, when nothing follows.
    pub(super) fn close(&self) -> Result<(), RunError> {
        self.sync_and_index(true).map(drop)
    }

    fn sync_and_index(&self, end: bool) -> Result<Mark, RunError> {
        let mut inner = self.lock();
        let Inner { writer, state, .. } = &mut *inner;
        let mark = writer.sync()?;
        writer.index(state, end);
        Ok(mark)
    }

    /// Reads the state of the run after all events so far.
    pub(super) fn state<T>(&self, read: impl FnOnce(&RunState) -> T) -> T {
        read(&self.lock().state)
    }

    /// Brings the events of arms to where the first phase stands: nothing beyond, nothing missing.
    pub(super) fn catch_up(
        &self,
        members: &[usize],
        step: u64,
        recorded: Recorded,
    ) -> Result<(), RunError> {
        for &arm in members {
            let (is_beyond, known) = self.state(|state| {
                let arm = &state.arms[arm];
                let whole = |e: &&Evaluation| !e.scores.iter().any(Score::lacks_rows);
                let known = arm.evaluations.iter().take_while(whole);
                let known = known.map(|e| e.step).collect::<Vec<u64>>();
                (arm.is_beyond(step), known)
            });
            if is_beyond {
                let reason = format!("resumed from step {step} of the first phase");
                self.emit(Event::Rewound { arm, step, reason })?;
            }
            if known.is_empty() {
                let phase = 0;
                let step = 0;
                self.emit(Event::PhaseStarted { arm, phase, step })?;
            }
            let (trained, wrote) = self.state(|state| {
                let arm = &state.arms[arm];
                let trained: Vec<u64> = arm.training.iter().map(|s| s.step).collect();
                let wrote: Vec<u64> = arm.samples.iter().map(|look| look.step).collect();
                (trained, wrote)
            });
            let training = recorded.training.iter();
            let training = training.filter(|s| !trained.contains(&s.step));
            let evaluations = recorded.evaluations.iter();
            let evaluations = evaluations.filter(|e| !known.contains(&e.step));
            let samples = recorded.samples.iter();
            let samples = samples.filter(|look| !wrote.contains(&look.step));
            let missing = training.map(|s| (s.step, s.event(arm)));
            let missing = missing.chain(evaluations.map(|e| (e.step, e.event(arm))));
            let missing = missing.chain(samples.map(|look| (look.step, look.event(arm))));
            let mut missing: Vec<(u64, Event)> = missing.collect();
            missing.sort_by_key(|(step, _)| *step);
            for (_, event) in missing {
                self.emit(event)?;
            }
        }
        Ok(())
    }

    /// Whether the events of all these arms tell of the end of the first phase.
    pub(super) fn told_of_first_end(&self, members: &[usize]) -> bool {
        self.state(|state| {
            let mut members = members.iter();
            members.all(|&arm| !state.arms[arm].ends.is_empty())
        })
    }

    /// Where the strategy of arm `arm` logs to.
    pub(super) fn log_of(
        &self,
        arm: usize,
    ) -> impl Fn(Level, &str) -> Result<(), RunError> + use<> {
        let journal = self.clone();
        move |level, message| journal.log(level, Some(arm), message)
    }
}

//! What `run`, `resume` and a detached worker have in common: one process takes one run to its end.

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use forgetlab_engine::check_device;
use forgetlab_engine::memory::peak_memory;
use forgetlab_engine::pretrained::Hub;
use forgetlab_plugin_host::{Registry, breadcrumb};
use forgetlab_study::experiment::{RunConfig, validate};
use forgetlab_study::printed::path_in_line;
use forgetlab_study::report;
use forgetlab_study::run::{
    Environment, Event, Record, Results, RunDir, RunLock, RunState, Ticket,
};
use forgetlab_worker::train::{
    self, BREADCRUMB, EndProcess, Listener, Outcome, Prepared, RunOptions,
};

use super::model::Downloads;
use super::new_run::has_begun;
use super::progress::ProgressView;
use super::signals::Signals;
use super::supervise::Parent;
use super::worker::{WorkerArgs, registry};
use super::{advice, detach, disk, exit, neighbours, out, unless_gone, warn};

/// Time between two versions of the CSVs while a run goes on.
const CSV_INTERVAL: Duration = Duration::from_secs(10);

/// Checks the configuration of a new run against this machine and its strategies; fills in their defaults, reads its data,
/// fetches what it names on the hub, and decides what it leaves open.
pub fn prepare(config: RunConfig, worker: &WorkerArgs) -> anyhow::Result<Prepared> {
    prepare_with(config, &registry(worker))
}

/// The same with strategies that were looked for before.
pub fn prepare_with(config: RunConfig, registry: &Registry) -> anyhow::Result<Prepared> {
    let mut prepared = prepare_again(config, registry)?;
    train::decide_samples(&mut prepared)?;
    Ok(prepared)
}

/// The same for a run that has begun: what it left open stays so.
fn prepare_again(mut config: RunConfig, registry: &Registry) -> anyhow::Result<Prepared> {
    check_device(&config.device)?;
    let (hub, progress) = (Hub::from_env(), Downloads::default());
    train::fetch(&mut config, &hub, &progress)?;
    let mut prepared = train::prepare(config, registry)?;
    // What does not fit into memory is not worth the wait.
    if train::fetch_weights(&prepared.config, &hub, &progress)? {
        prepared = train::prepare(prepared.config, registry)?;
    }
    prepared.environment.commit = Some(env!("FORGETLAB_COMMIT").into());
    Ok(prepared)
}

/// The work on one run, and who waits for it.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    pub dir: &'a RunDir,
    pub skip_arms: &'a [String],
    pub args: &'a WorkerArgs,
    pub parent: &'a Parent,
}

impl Work<'_> {
    /// Takes a new run to its end in this process, or hands it to a detached one.
    pub fn start(&self, lock: Option<RunLock>, prepared: Prepared) -> anyhow::Result<u8> {
        if !self.args.in_background() {
            return self.go_on(lock, Some(prepared));
        }
        if let Some(line) = disk::check(self.dir, &prepared)? {
            warn(format_args!("warning: {line}"));
        }
        // The other process says so in its log alone.
        if !self.args.queue
            && let Some(line) = neighbours::warning(self.dir, &prepared)
        {
            warn(format_args!("warning: {line}"));
        }
        // It reads for itself.
        drop((lock, prepared));
        detach::start(self.dir, &[], self.args)
    }

    /// Goes on with a run in this process, or hands it to a detached one.
    pub fn resume(&self) -> anyhow::Result<u8> {
        match self.args.in_background() {
            true => detach::start(self.dir, self.skip_arms, self.args),
            false => self.go_on(None, None),
        }
    }

    /// Takes the run to its end in this process. What was not prepared yet is what the run's folder asks for.
    pub fn go_on(&self, lock: Option<RunLock>, prepared: Option<Prepared>) -> anyhow::Result<u8> {
        let Self { dir, args, .. } = *self;
        let lock = lock.map_or_else(|| dir.lock(), Ok)?;
        self.parent.tell_run(dir);
        // From here on the run counts as live, and a request to stop is meant for this worker.
        dir.stop_request().clear()?;
        Ticket::discard(dir.path())?;
        let prepared = match prepared {
            Some(prepared) => prepared,
            None => {
                dir.complete_config(&lock)?;
                let config = dir.read_config()?;
                validate(&config)?;
                prepare_again(config, &registry(args))?
            }
        };
        let mut warnings = Vec::new();
        warnings.extend(environment_warning(dir, &prepared.environment)?);
        warnings.extend(crash_warning(dir, args)?);
        warnings.extend(neighbours::warning(dir, &prepared));
        warnings.extend(disk::check(dir, &prepared)?);
        warnings.extend(prepared.warnings.clone());
        let model = prepared.pretrained();
        warnings.extend(model.iter().flat_map(|model| model.warnings.clone()));

        let signals = Signals::watch(args.detach)?;
        let request = dir.stop_request();
        let stop = move || match signals.caught() {
            Some(name) => Some(name.to_owned()),
            None => request.by(),
        };
        let cache = Results::from_env().cache();
        let view = Arc::new(Mutex::new(ProgressView::new()));
        let result = train::run(RunOptions {
            dir,
            lock: &lock,
            prepared: &prepared,
            cache: (!args.no_cache).then_some(&cache),
            skip_arms: self.skip_arms,
            warnings,
            strategies: &|| registry(args),
            stop: Arc::new(stop),
            end_process: self.end_process(&view),
            listener: listener(dir, &view),
        });
        view.lock().unwrap_or_else(PoisonError::into_inner).finish();
        let outcome = match result {
            Ok(outcome) => outcome,
            // Nothing was saved, or nothing was done.
            Err(error) if error.is_refused() || !has_begun(dir) => return Err(error.into()),
            Err(error) => {
                let resume = advice::resume(dir, &args.plugin_dir);
                return Err(error).context(format!(
                    "the run stopped; what was saved is safe, go on with `{resume}`"
                ));
            }
        };
        report_outcome(dir, outcome, args)
    }

    /// Ends this process while the thread that trains is in a strategy that does not return.
    fn end_process(&self, view: &Arc<Mutex<ProgressView>>) -> EndProcess {
        let (dir, view, args) = (self.dir.clone(), Arc::clone(view), self.args.clone());
        let parent = self.parent.clone();
        Arc::new(move |reason: String| {
            view.lock().unwrap_or_else(PoisonError::into_inner).finish();
            // The events name the call; the next worker need not warn of it again.
            let _ = fs::remove_file(dir.join(BREADCRUMB));
            if let Err(error) = report_outcome(&dir, Outcome::Interrupted(reason), &args) {
                warn(format_args!("error: {error:#}"));
            }
            parent.end(exit::INTERRUPTED)
        })
    }
}

/// Notes where a run is started; for a run that goes on, what differs from where it was started.
fn environment_warning(dir: &RunDir, now: &Environment) -> anyhow::Result<Option<String>> {
    let Some(before) = dir.read_environment()? else {
        dir.write_environment(now)?;
        return Ok(None);
    };
    let differences = before.differences(now);
    Ok((!differences.is_empty()).then(|| {
        format!(
            "not where the run was started: {}; results may differ in their last bits",
            differences.join("; ")
        )
    }))
}

/// Notes the most memory that this worker has used, where that is more than one before it has.
fn note_peak_memory(dir: &RunDir) -> anyhow::Result<()> {
    let now = peak_memory().map(|bytes| bytes as u64);
    if let Some(environment) = dir.read_environment()?
        && environment.peak_memory_bytes < now
    {
        dir.write_environment(&Environment {
            peak_memory_bytes: now,
            ..environment
        })?;
    }
    Ok(())
}

/// Tells of the strategy in whose call the last worker ended, if it did in one.
fn crash_warning(dir: &RunDir, worker: &WorkerArgs) -> anyhow::Result<Option<String>> {
    let crumbs = dir.join(BREADCRUMB);
    let warning = breadcrumb::read(&crumbs).map(|call| {
        format!(
            "the last worker ended inside strategy `{}`, arm {}, call {}; if that happens again, \
             go on without it: {}",
            call.plugin,
            call.arm,
            call.call,
            advice::resume_without(dir, &call.arm, &worker.plugin_dir),
        )
    });
    // The next crash must tell of itself.
    match fs::remove_file(&crumbs) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", crumbs.display()))
        }
        _ => Ok(warning),
    }
}

/// Shows every event, and writes the CSVs and the memory used now and then while the run goes on.
fn listener(dir: &RunDir, view: &Arc<Mutex<ProgressView>>) -> Listener {
    let (view, dir) = (Arc::clone(view), dir.clone());
    let mut written = Instant::now();
    Box::new(move |state: &RunState, record: &Record| {
        view.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .update(state, record);
        let saved = matches!(record.event, Event::CheckpointSaved { .. });
        if saved && written.elapsed() > CSV_INTERVAL {
            // A full disk will be met, and reported, by the training loop.
            let _ = report::write_csvs(&dir, state);
            let _ = note_peak_memory(&dir);
            written = Instant::now();
        }
    })
}

/// Writes the files that derive from the events, prints the table and the files; the exit code.
fn report_outcome(dir: &RunDir, outcome: Outcome, worker: &WorkerArgs) -> anyhow::Result<u8> {
    note_peak_memory(dir)?;
    let place = dir.place()?;
    let state = dir.load_state()?;
    let written = report::write(dir, &state)?;
    // Else a run whose folder went away just now would be said to be done.
    dir.must_be_at(place)?;
    for note in &written.notes {
        warn(format_args!("note: {note}"));
    }
    let name = dir.name();
    let table = report::table(&[(name.as_str(), &state)], super::glyphs());
    let mut told = format!("\n{table}\n");
    for file in [&written.metrics, &written.summary]
        .into_iter()
        .chain(&written.figures)
    {
        told += &format!("{}\n", path_in_line(file));
    }
    let code = match outcome {
        Outcome::Finished { failed: 0 } => exit::DONE,
        Outcome::Finished { .. } => exit::ARM_FAILED,
        Outcome::Interrupted(reason) => {
            let resume = advice::resume(dir, &worker.plugin_dir);
            told += &format!("interrupted ({reason}); go on with `{resume}`\n");
            exit::INTERRUPTED
        }
    };
    // Scripts go by the code, whether or not somebody reads.
    unless_gone(out::stdout().write_all(told.as_bytes()))?;
    Ok(code)
}

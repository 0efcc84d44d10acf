//! What `run`, `resume` and a detached worker have in common: one process takes one run to its end.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use forgetlab_engine::check_device;
use forgetlab_engine::pretrained::Hub;
use forgetlab_plugin_host::{Registry, breadcrumb, search_path};
use forgetlab_study::experiment::{RunConfig, validate};
use forgetlab_study::report;
use forgetlab_study::run::{
    Environment, Event, OutFolder, Record, Results, RunDir, RunState, RunStatus, write_atomically,
};
use forgetlab_worker::train::{self, BREADCRUMB, Listener, Outcome, Prepared, RunOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::exit;
use super::model::Downloads;
use super::progress::ProgressView;

/// Time between two versions of the CSVs while a run goes on.
const CSV_INTERVAL: Duration = Duration::from_secs(10);
/// Time a detached worker may take to get hold of its run.
const DETACH_PATIENCE: Duration = Duration::from_secs(30);
/// Where a detached worker's output goes, inside the run directory.
const WORKER_LOG: &str = "worker.log";

/// How a worker goes about its run.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WorkerArgs {
    /// Also look for strategies in this folder (may be given again)
    #[arg(long, value_name = "DIR")]
    pub plugin_dir: Vec<PathBuf>,
    /// Train the shared first phase even if it was trained before
    #[arg(long)]
    pub no_cache: bool,
    /// Run in the background, surviving this terminal
    #[arg(long)]
    pub detach: bool,
}

/// Arguments of the hidden `worker` command, which a detached run is.
#[derive(clap::Args)]
pub struct Args {
    run: PathBuf,
    #[arg(long)]
    skip_arm: Vec<String>,
    #[command(flatten)]
    worker: WorkerArgs,
}

/// The detached side of `--detach`: leaves the terminal's session, then works.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Fails only where it leads a session already, which is as good.
    let _ = rustix::process::setsid();
    let dir = RunDir::open(&args.run)?;
    work(
        &dir,
        None,
        &args.skip_arm,
        &WorkerArgs {
            detach: true,
            ..args.worker
        },
    )
}

/// Strategies that can be loaded here.
pub fn registry(worker: &WorkerArgs) -> Registry {
    Registry::discover(&search_path(&worker.plugin_dir))
}

/// Checks a configuration against this machine and its strategies; fills in their defaults, reads its data, and
/// fetches what it names on the hub.
pub fn prepare(mut config: RunConfig, worker: &WorkerArgs) -> anyhow::Result<Prepared> {
    check_device(&config.device)?;
    let (hub, progress) = (Hub::from_env(), Downloads::default());
    train::fetch(&mut config, &hub, &progress)?;
    let prepared = train::prepare(config, &registry(worker))?;
    // What does not fit into memory is not worth the wait.
    train::fetch_weights(&prepared.config, &hub, &progress)?;
    Ok(prepared)
}

/// Takes a new run to its end in this process, or hands it to a detached one.
pub fn start(dir: &RunDir, prepared: Prepared, worker: &WorkerArgs) -> anyhow::Result<ExitCode> {
    if worker.detach {
        // The other process reads for itself.
        drop(prepared);
        detach(dir, &[], worker)
    } else {
        work(dir, Some(prepared), &[], worker)
    }
}

/// Goes on with a run in this process, or hands it to a detached one.
pub fn resume(dir: &RunDir, skip_arms: &[String], worker: &WorkerArgs) -> anyhow::Result<ExitCode> {
    if worker.detach {
        detach(dir, skip_arms, worker)
    } else {
        work(dir, None, skip_arms, worker)
    }
}

/// Starts a worker in a session of its own and waits until it holds the run.
fn detach(dir: &RunDir, skip_arms: &[String], worker: &WorkerArgs) -> anyhow::Result<ExitCode> {
    // Where another process has it, says so before that one's log is touched.
    drop(dir.lock()?);
    let log = dir.join(WORKER_LOG);
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.arg("worker").arg(absolute(dir.path())?);
    for arm in skip_arms {
        command.arg("--skip-arm").arg(arm);
    }
    for plugin_dir in &worker.plugin_dir {
        command.arg("--plugin-dir").arg(absolute(plugin_dir)?);
    }
    if worker.no_cache {
        command.arg("--no-cache");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(
            output
                .try_clone()
                .context("cannot share the worker's log")?,
        )
        .stderr(output)
        .spawn()
        .context("cannot start a worker process")?;
    let patience = Instant::now();
    let begun = |child: u32| {
        dir.live()
            .is_some_and(|pid| pid.is_none_or(|pid| pid == child))
    };
    while !begun(child.id()) {
        if let Some(status) = child.try_wait().context("cannot watch the worker")? {
            if dir.status()? == RunStatus::Finished {
                break;
            }
            let said = fs::read_to_string(&log).unwrap_or_default();
            bail!("the worker ended at once ({status}): {}", said.trim());
        }
        if patience.elapsed() > DETACH_PATIENCE {
            bail!(
                "the worker has not begun after {DETACH_PATIENCE:?}; see {}",
                log.display()
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
    let mut out = io::stdout().lock();
    let name = dir.name();
    writeln!(
        out,
        "running in the background; watch it with `forgetlab attach {name}`"
    )?;
    writeln!(out, "{}", dir.path().display())?;
    Ok(ExitCode::SUCCESS)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))
}

/// Takes a run to its end in this process. What was not prepared yet is what the run's folder asks for.
fn work(
    dir: &RunDir,
    prepared: Option<Prepared>,
    skip_arms: &[String],
    worker: &WorkerArgs,
) -> anyhow::Result<ExitCode> {
    let lock = dir.lock()?;
    // From here on the run counts as live, and a request to stop is meant for this worker.
    dir.stop_request().clear()?;
    let prepared = match prepared {
        Some(prepared) => prepared,
        None => {
            let config = dir.read_config()?;
            validate(&config)?;
            prepare(config, worker)?
        }
    };
    let mut warnings = Vec::new();
    warnings.extend(environment_warning(dir, &prepared.environment)?);
    warnings.extend(crash_warning(dir)?);

    let signals = Signals::watch(worker)?;
    let request = dir.stop_request();
    let stop = || match signals.caught() {
        Some(name) => Some(name.to_owned()),
        None => request.pending().then(|| "forgetlab stop".to_owned()),
    };
    let cache = Results::from_env().cache();
    let view = Arc::new(Mutex::new(ProgressView::new()));
    let result = train::run(RunOptions {
        dir,
        lock: &lock,
        prepared: &prepared,
        cache: (!worker.no_cache).then_some(&cache),
        skip_arms,
        warnings,
        stop: &stop,
        listener: listener(dir, &view),
    });
    view.lock().unwrap_or_else(PoisonError::into_inner).finish();
    let outcome = result.with_context(|| {
        let path = dir.path().display();
        format!("the run stopped; what was saved is safe, go on with `forgetlab resume {path}`")
    })?;
    report_outcome(dir, outcome)
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

/// Tells of the strategy in whose call the last worker ended, if it did in one.
fn crash_warning(dir: &RunDir) -> anyhow::Result<Option<String>> {
    let crumbs = dir.join(BREADCRUMB);
    let warning = breadcrumb::read(&crumbs).map(|call| {
        format!(
            "the last worker ended inside strategy `{}`, arm {}, call {}; if that happens again, \
             go on without it: forgetlab resume {} --skip-arm {}",
            call.plugin,
            call.arm,
            call.call,
            dir.path().display(),
            call.arm,
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

/// Shows every event, and writes the CSVs now and then while the run goes on.
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
            written = Instant::now();
        }
    })
}

/// Writes the files that derive from the events, prints the table and the files; the exit code.
fn report_outcome(dir: &RunDir, outcome: Outcome) -> anyhow::Result<ExitCode> {
    let state = dir.load_state()?;
    let written = report::write(dir, &state)?;
    let name = dir.name();
    let table = report::table(&[(name.as_str(), &state)], super::glyphs());
    let mut out = io::stdout().lock();
    writeln!(out, "\n{table}")?;
    for file in [&written.metrics, &written.summary]
        .into_iter()
        .chain(&written.figures)
    {
        writeln!(out, "{}", file.display())?;
    }
    Ok(match outcome {
        Outcome::Finished { failed: 0 } => ExitCode::SUCCESS,
        Outcome::Finished { .. } => ExitCode::from(exit::ARM_FAILED),
        Outcome::Interrupted(reason) => {
            let path = dir.path().display();
            writeln!(
                out,
                "interrupted ({reason}); go on with `forgetlab resume {path}`"
            )?;
            ExitCode::from(exit::INTERRUPTED)
        }
    })
}

/// Creates a run directory with its configuration, or finds the same run in it already.
pub fn create(config: &RunConfig, out: Option<&Path>) -> anyhow::Result<RunDir> {
    let dir = match out {
        None => Results::from_env().create(&config.experiment)?,
        Some(path) => match RunDir::out(path)? {
            OutFolder::Fresh(dir) => dir,
            OutFolder::Existing(dir) => {
                if dir.read_config()? != *config {
                    bail!(
                        "{} holds a run of another configuration; give another folder to --out, or \
                         go on with that run: forgetlab resume {}",
                        path.display(),
                        path.display()
                    );
                }
                return Ok(dir);
            }
        },
    };
    // Nothing is left behind where the disk has no room for a run at all; a kill in this moment
    // leaves a temporary file, which a folder for a run may hold.
    let probe = dir.join(".tmp-probe");
    write_atomically(&probe, |w| w.write_all(&[0; 4096]))?;
    fs::remove_file(&probe).with_context(|| format!("cannot remove {}", probe.display()))?;
    dir.write_config(config)?;
    Ok(dir)
}

/// Signals that ask this process to stop at the next step.
struct Signals {
    /// Number of the signal caught; 0: none.
    caught: Arc<AtomicUsize>,
}

impl Signals {
    fn watch(worker: &WorkerArgs) -> anyhow::Result<Self> {
        let caught = Arc::new(AtomicUsize::new(0));
        // A second Ctrl-C, by somebody who cannot wait for the step to end, ends at once: a killed
        // run is resumable too. Not SIGTERM and SIGHUP, which some senders repeat by themselves.
        let insists = Arc::new(AtomicBool::new(false));
        let code = i32::from(exit::INTERRUPTED);
        signal_hook::flag::register_conditional_shutdown(SIGINT, code, Arc::clone(&insists))
            .and_then(|_| signal_hook::flag::register(SIGINT, insists))
            .context("cannot watch for signals")?;
        // A detached worker has no terminal to lose: SIGHUP is none of its business.
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let to = if signal == SIGHUP && worker.detach {
                Arc::new(AtomicUsize::new(0))
            } else {
                Arc::clone(&caught)
            };
            signal_hook::flag::register_usize(signal, to, signal as usize)
                .context("cannot watch for signals")?;
        }
        Ok(Self { caught })
    }

    fn caught(&self) -> Option<&'static str> {
        match self.caught.load(Ordering::Relaxed) as i32 {
            SIGINT => Some("SIGINT"),
            SIGTERM => Some("SIGTERM"),
            SIGHUP => Some("SIGHUP"),
            _ => None,
        }
    }
}

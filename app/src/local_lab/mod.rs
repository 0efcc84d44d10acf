//! The lab on this machine: run directories, plugin libraries, worker processes.

mod catalog;
mod changes;
mod looks;
mod predict;
mod sweeps;
mod tables;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use forgetlab_study::experiment::{self, Overrides, RunConfig};
use forgetlab_study::report;
use forgetlab_study::run::{
    Event, Follow, Queue, Record, ReplayLook, Results, RunDir, RunState, RunStatus, SampleLook,
    SweepDir, Ticket, delete, write_atomically,
};
use forgetlab_tui::lab::{
    Catalog, Device, Feed, FeedUpdate, Kept, Lab, LabelChange, Machine, Prediction, Preview,
    RunSummary, StartRequest, Started, Sweep,
};

use crate::last_words;
use crate::machine::Reader;
use catalog::LocalCatalog;
pub use looks::look;
use sweeps::{Known, Place};

/// How long a worker may take to tell the directory of its run.
const START_LIMIT: Duration = Duration::from_secs(120);

/// The lab on this machine.
pub struct LocalLab {
    results: Results,
    plugin_dirs: Vec<PathBuf>,
    devices: Vec<Device>,
    /// What the list said of each run, and what its events looked like then.
    known: HashMap<String, (Seen, RunSummary)>,
    /// The same of the points of each sweep.
    sweeps: HashMap<String, Known>,
    /// The machine, once somebody has asked for it.
    machine: Option<Reader>,
    /// Whether runs were listed before: the first list, on which the lab opens, is without configurations.
    listed: bool,
}

/// Whether a run has changed: length of its events, and whether it is live.
type Seen = (u64, bool);

impl LocalLab {
    /// A lab over `results`; `plugin_dirs` are searched first, `devices` are offered in order.
    pub fn new(results: Results, plugin_dirs: Vec<PathBuf>, devices: Vec<Device>) -> Self {
        Self {
            results,
            plugin_dirs,
            devices,
            known: HashMap::new(),
            sweeps: HashMap::new(),
            machine: None,
            listed: false,
        }
    }

    /// The folder of a run, or of a sweep's point.
    fn run_dir(&self, run: &str) -> anyhow::Result<RunDir> {
        match Place::find(&self.results, run)? {
            Place::Run(dir) => Ok(dir),
            Place::Point(sweep, point) => {
                let dir = sweep.run(&point);
                dir.with_context(|| format!("nobody has begun with {point} yet"))
            }
            Place::Sweep(_) => bail!("{run} is a sweep, not a run"),
        }
    }

    fn summary(&mut self, name: &str, dir: &RunDir) -> RunSummary {
        let live = dir.is_live();
        let length = fs::metadata(dir.events_path()).map_or(0, |data| data.len());
        let labels = dir.labels().unwrap_or_default();
        if let Some((seen, summary)) = self.known.get_mut(name)
            && *seen == (length, live)
        {
            summary.labels = labels;
            if self.listed && summary.config.is_empty() {
                summary.config = settings(dir);
            }
            return summary.clone();
        }
        let stored = report::digest(dir).filter(|_| !live);
        let digest = match stored {
            Some(digest) => Ok(digest),
            None => dir
                .brief_state(live)
                .map(|state| report::Digest::quick(&state)),
        };
        let (digest, problem) = match digest {
            Ok(digest) => (digest, None),
            Err(error) => (report::Digest::default(), Some(error.to_string())),
        };
        let summary = RunSummary {
            name: name.to_string(),
            experiment: digest.experiment.clone(),
            preset: digest.preset.clone(),
            status: digest.status(live),
            arms: digest.arms.iter().map(|arm| arm.seeds.len()).sum(),
            started: digest.times.map(|times| times.0),
            progress: digest.done(),
            problem,
            points: None,
            queued: None,
            labels,
            digest: Arc::new(digest),
            config: match self.listed {
                true => settings(dir),
                false => Arc::default(),
            },
        };
        let seen = (length, live);
        self.known.insert(name.to_string(), (seen, summary.clone()));
        summary
    }

    /// Runs this program with `arguments` and waits for it; returns what it wrote.
    fn call_self(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let program = std::env::current_exe().context("cannot tell this program's own path")?;
        // Files, not pipes: a worker that keeps them open must not keep the lab waiting.
        let scratch = Scratch::new()?;
        let (output, errors) = (scratch.path("output"), scratch.path("errors"));
        let create = |path: &Path| {
            fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(create(&output)?).stderr(create(&errors)?);
        for dir in &self.plugin_dirs {
            command.arg("--plugin-dir").arg(dir);
        }
        let mut child = command.spawn().context("cannot start a worker")?;
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().context("cannot wait for the worker")? {
                break status;
            }
            if started.elapsed() > START_LIMIT {
                bail!(
                    "the worker has said nothing for {} s; it was left alone: look at the list \
                     of runs",
                    START_LIMIT.as_secs()
                );
            }
            thread::sleep(Duration::from_millis(20));
        };
        let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        if !status.success() {
            let errors = text(&errors);
            let errors = errors.trim();
            let said = errors.strip_prefix("error: ").unwrap_or(errors);
            match said {
                "" => bail!("the worker ended ({status}) without a word"),
                said => bail!("{said}"),
            }
        }
        Ok(text(&output))
    }
}

/// A temporary folder, removed when it goes out of scope.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let name = format!("forgetlab-{}-{nanos:x}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left in a temporary folder hurts nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Share of a run that is done.
fn progress(state: &RunState) -> f64 {
    let (done, all) = state.steps_done();
    done as f64 / all.max(1) as f64
}

impl Lab for LocalLab {
    fn catalog(&self) -> Box<dyn Catalog> {
        Box::new(LocalCatalog {
            plugin_dirs: self.plugin_dirs.clone(),
            devices: self.devices.clone(),
        })
    }

    fn runs(&mut self) -> anyhow::Result<Vec<RunSummary>> {
        let folder = self.results.runs();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", folder.display()));
            }
        };
        let line = Queue::of(&self.results).line()?;
        let mut runs = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
            // What is no run is none of the list's business.
            let name = entry.file_name().into_string();
            let Ok(name) = name else {
                continue;
            };
            let mut summary = if let Ok(dir) = SweepDir::open(&entry.path()) {
                let known = self.sweeps.entry(name.clone()).or_default();
                known.look(&name, &dir).summary
            } else if let Ok(dir) = RunDir::open(&entry.path()) {
                self.summary(&name, &dir)
            } else {
                continue;
            };
            let own = |ticket: &Ticket| line.iter().find(|waiting| waiting.ticket == *ticket);
            let ticket = Ticket::of(&entry.path());
            summary.queued = ticket.as_ref().and_then(own).map(|waiting| waiting.place);
            runs.push(summary);
        }
        // Newest first; one that has not begun is the newest.
        let start = |run: &RunSummary| run.started.unwrap_or(f64::INFINITY);
        runs.sort_by(|a, b| {
            let newest = start(b).total_cmp(&start(a));
            newest.then_with(|| b.name.cmp(&a.name))
        });
        self.listed = true;
        Ok(runs)
    }

    fn sweep(&mut self, sweep: &str) -> anyhow::Result<Sweep> {
        let dir = SweepDir::open(&self.results.runs().join(sweep))?;
        let known = self.sweeps.entry(sweep.to_owned()).or_default();
        let sweep = known.look(sweep, &dir);
        match &sweep.summary.problem {
            Some(problem) => bail!("{problem}"),
            None => Ok(sweep),
        }
    }

    fn open(&mut self, run: &str) -> anyhow::Result<Box<dyn Feed>> {
        let dir = self.run_dir(run)?;
        Ok(Box::new(RunFeed::new(dir)))
    }

    fn start(&mut self, request: &StartRequest) -> anyhow::Result<Started> {
        if sweeps::is_sweep(request)? {
            return self.start_sweep(request).map(Started::Sweep);
        }
        let config = config(request)?;
        // A file says what no argument can: settings of one arm alone.
        let scratch = Scratch::new()?;
        let file = scratch.path("run.toml");
        let text = toml::to_string(&config).context("cannot write the run's configuration")?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let file = file
            .to_str()
            .context("the temporary folder's name is not UTF-8")?;
        let output = self.call_self(&["run", file, background(request)])?;
        let path = output.lines().rev().find(|line| !line.trim().is_empty());
        let path = path.context("the worker was started but did not say where its run is")?;
        Ok(Started::Run(file_name(Path::new(path.trim()))))
    }

    fn resume(&mut self, run: &str) -> anyhow::Result<()> {
        let path = |path: &Path| {
            let path = path.to_str().context("the folder's name is not UTF-8")?;
            anyhow::Ok(path.to_owned())
        };
        match Place::find(&self.results, run)? {
            Place::Run(dir) => {
                let _command = dir.command()?;
                self.call_self(&["resume", &path(dir.path())?, "--detach"])
            }
            Place::Sweep(dir) => self.call_self(&["resume", &path(dir.path())?, "--detach"]),
            Place::Point(dir, point) => {
                let sweep = path(dir.path())?;
                self.call_self(&["resume", &sweep, "--point", &point, "--detach"])
            }
        }
        .map(drop)
    }

    fn stop(&mut self, run: &str) -> anyhow::Result<()> {
        let stop = |dir: &RunDir| match dir.is_live() {
            true => {
                let _command = dir.command()?;
                dir.stop_request().make()
            }
            // One that has ended meanwhile needs no request, which would only greet the next worker.
            false => Ok(()),
        };
        match Place::find(&self.results, run)? {
            Place::Run(dir) => stop(&dir)?,
            Place::Point(sweep, point) => sweep.run(&point).as_ref().map_or(Ok(()), stop)?,
            Place::Sweep(sweep) => {
                let statuses = sweep.statuses()?;
                if sweep.counts(&statuses)?.is_live() {
                    sweep.stop_request().make()?;
                }
                // Also those that no sweep's process works on.
                for (point, _) in &statuses {
                    sweep.run(&point.name).as_ref().map_or(Ok(()), stop)?;
                }
            }
        }
        Ok(())
    }

    fn export(&mut self, runs: &[String]) -> anyhow::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        let mut states = Vec::new();
        for run in runs {
            let dir = self.run_dir(run)?;
            let state = dir.checked_state()?;
            let written = report::write(&dir, &state)?;
            paths.extend([written.metrics, written.summary]);
            paths.extend(written.figures);
            states.push((dir.name(), state));
        }
        if runs.len() < 2 {
            return Ok(paths);
        }
        let root = self.results.runs();
        let folder = root.parent().unwrap_or(&root);
        let path = folder.join(format!("compare-{}.csv", tables::stamp()));
        let states = states.iter().map(|(name, state)| (name.as_str(), state));
        write_atomically(&path, |out| report::compare_csv(states, out))?;
        // What was asked for comes first.
        paths.insert(0, path);
        Ok(paths)
    }

    fn write_table(&mut self, runs: &[String], format: &str) -> anyhow::Result<PathBuf> {
        self.write_text(&self.compared(runs, format)?, format)
    }

    fn write_text(&mut self, table: &str, format: &str) -> anyhow::Result<PathBuf> {
        self.write_a_table(table, format)
    }

    fn preview(&mut self, run: &str) -> anyhow::Result<Preview> {
        let dir = self.run_dir(run)?;
        let live = dir.is_live();
        let state = dir.follow_quickly()?.state;
        Ok(Preview {
            status: RunDir::status_of(live, &state),
            differs: self.differs(run, &dir),
            state,
        })
    }

    fn differences(&mut self, runs: &[String]) -> anyhow::Result<String> {
        self.told_differences(runs)
    }

    fn config(&mut self, run: &str) -> anyhow::Result<RunConfig> {
        Ok(self.run_dir(run)?.read_config()?)
    }

    fn look(&mut self, run: &str, arm: usize, step: u64) -> anyhow::Result<ReplayLook> {
        look(&self.run_dir(run)?, arm, step)
    }

    fn samples(&mut self, run: &str, arm: usize, step: u64) -> anyhow::Result<SampleLook> {
        looks::samples(&self.run_dir(run)?, arm, step)
    }

    fn add_arm(&mut self, run: &str, arm: &str) -> anyhow::Result<String> {
        let folder = self.folder(run)?;
        Ok(said(&self.call_self(&["add", &folder, arm])?))
    }

    fn stop_arms(&mut self, run: &str, slugs: &[String]) -> anyhow::Result<String> {
        let folder = self.folder(run)?;
        let mut arguments = vec!["stop", folder.as_str()];
        arguments.extend(slugs.iter().flat_map(|slug| ["--arm", slug.as_str()]));
        Ok(said(&self.call_self(&arguments)?))
    }

    fn label(&mut self, run: &str, change: &LabelChange) -> anyhow::Result<()> {
        self.change_labels(run, change)
    }

    fn disk_use(&mut self, run: &str) -> anyhow::Result<u64> {
        Ok(self.run_dir(run)?.size())
    }

    fn delete(&mut self, run: &str) -> anyhow::Result<()> {
        delete(&self.run_dir(run)?)?;
        self.known.remove(run);
        Ok(())
    }

    fn check(&mut self, library: &Path) -> anyhow::Result<(bool, String)> {
        let path = library
            .to_str()
            .context("the library's name is not UTF-8")?;
        match self.call_self(&["plugins", "check", path]) {
            Ok(text) => Ok((true, text)),
            // What it says is what somebody wants to read.
            Err(error) => Ok((false, format!("{error:#}"))),
        }
    }

    fn predict(&mut self, request: &StartRequest) -> anyhow::Result<Prediction> {
        self.predicted(request)
    }

    fn write_config(&mut self, request: &StartRequest, file: &str) -> anyhow::Result<PathBuf> {
        let text =
            toml::to_string(&config(request)?).context("cannot write the run's configuration")?;
        let path = PathBuf::from(match file.ends_with(".toml") {
            true => file.to_owned(),
            false => format!("{file}.toml"),
        });
        if path.exists() {
            bail!("{} is there already; it is not replaced", path.display());
        }
        write_atomically(&path, |out| out.write_all(text.as_bytes()))?;
        Ok(std::path::absolute(&path).unwrap_or(path))
    }

    fn kept(&mut self) -> anyhow::Result<Kept> {
        changes::kept()
    }

    fn keep_views(&mut self, views: &str) -> anyhow::Result<()> {
        changes::keep_views(views)
    }

    fn machine(&mut self) -> anyhow::Result<Machine> {
        let machine = match &mut self.machine {
            Some(machine) => machine,
            None => self.machine.insert(Reader::new(self.results.clone())?),
        };
        Ok(machine.read())
    }
}

/// What happens in a run.
pub struct RunFeed {
    dir: RunDir,
    /// The run's events, once they have been read for the first time; then its state is brief.
    follow: Option<Follow>,
}

/// Status of a run, and why it crashed where that is known.
fn standing(dir: &RunDir, live: bool, state: &RunState) -> (RunStatus, Option<String>) {
    let status = RunDir::status_of(live, state);
    let crashed = status == RunStatus::Crashed;
    let why = crashed.then(|| last_words::why(dir, state));
    (status, why.flatten())
}

impl RunFeed {
    /// Begins with the first event.
    pub fn new(dir: RunDir) -> Self {
        Self { dir, follow: None }
    }

    /// What the events tell so far, at once.
    fn first(&mut self, live: bool) -> anyhow::Result<FeedUpdate> {
        let mut follow = self.dir.follow_quickly()?;
        if !live {
            follow.check_end()?;
        }
        let brief = follow.state.brief();
        let before = std::mem::replace(&mut follow.state, brief);
        let (status, why) = standing(&self.dir, live, &before);
        self.follow = Some(follow);
        Ok(FeedUpdate {
            before: Some(Box::new(before)),
            records: Vec::new(),
            status,
            why,
        })
    }
}

impl Feed for RunFeed {
    fn poll(&mut self) -> anyhow::Result<FeedUpdate> {
        // The lock before the events: a run that ends in between is not called crashed.
        let live = self.dir.is_live();
        let Some(follow) = &mut self.follow else {
            return self.first(live);
        };
        let records = follow.poll()?;
        let goes_back = |record: &Record| matches!(record.event, Event::Rewound { .. });
        if records.iter().any(goes_back) {
            // It may need what was dropped meanwhile.
            return self.first(live);
        }
        let (status, why) = standing(&self.dir, live, &follow.state);
        Ok(FeedUpdate {
            before: None,
            records,
            status,
            why,
        })
    }
}

/// How a run is started that nobody waits for.
fn background(request: &StartRequest) -> &'static str {
    match request.queue {
        true => "--queue",
        false => "--detach",
    }
}

/// The configuration of a run, as it stands in its file; empty where that cannot be read.
fn settings(dir: &RunDir) -> Arc<toml::Table> {
    let text = fs::read_to_string(dir.config_path()).unwrap_or_default();
    Arc::new(text.parse().unwrap_or_default())
}

/// The last line that a command said.
fn said(output: &str) -> String {
    output
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .to_owned()
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// The configuration that a request stands for.
fn config(request: &StartRequest) -> anyhow::Result<RunConfig> {
    let overrides = Overrides {
        preset: Some(request.preset.clone()),
        seeds: request.seeds.clone(),
        device: Some(request.device.clone()),
        set: request.set.clone(),
        ..Overrides::default()
    };
    let mut config = experiment::resolve(&request.experiment, &overrides)?;
    config.arms.clone_from(&request.arms);
    experiment::settle_arms(&mut config)?;
    Ok(config)
}

#[cfg(test)]
mod tests;

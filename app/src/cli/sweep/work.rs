//! Workers that take the points of a sweep, one at a time each, until none is open.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use forgetlab_study::printed::{one_line, path_in_line};
use forgetlab_study::report::human_seconds;
use forgetlab_study::run::{PointSpec, PointStatus, SweepCounts, SweepDir, Taken, shell_path};
use rustix::process::{Pid, Signal, kill_process};

use super::super::signals::Signals;
use super::super::worker::WorkerArgs;
use super::super::{exit, out, unless_gone, warn};
use super::{code_of, gpus, report};
use crate::last_words::heading;

/// Time between two looks at children and leases.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time between two looks at points that others work on.
const LOOK_AT_OTHERS: Duration = Duration::from_secs(1);
/// Bytes of the end of a log that are told where a point goes wrong.
const TAIL: u64 = 2000;

/// Work on a sweep.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    pub sweep: &'a SweepDir,
    /// How many points at a time.
    pub workers: usize,
    /// Whether points that failed or were refused begin anew.
    pub retry: bool,
    pub args: &'a WorkerArgs,
}

/// What the workers of this process share.
struct Shared<'a> {
    work: Work<'a>,
    points: Vec<PointSpec>,
    /// Points that this process has begun with, or left for good.
    taken: Mutex<BTreeMap<String, bool>>,
    stop: AtomicBool,
    device: String,
}

impl Work<'_> {
    /// Works until no point is open, or somebody asks to stop; the exit code.
    pub fn run(&self) -> anyhow::Result<u8> {
        let signals = Signals::watch(self.args.detach)?;
        let mut through = self.sweep.work_through()?;
        let mut looked = Instant::now();
        self.sweep.stop_request().clear()?;
        let points = self.sweep.spec()?.points;
        for point in &points {
            self.sweep.check_run(&point.name)?;
        }
        let first = points.first().map(|point| self.sweep.config(&point.name));
        let shared = Shared {
            work: *self,
            device: first
                .transpose()?
                .map_or_else(String::new, |config| config.device),
            points,
            taken: Mutex::default(),
            stop: AtomicBool::new(false),
        };
        let errors: Vec<anyhow::Error> = thread::scope(|scope| {
            let workers: Vec<_> = (0..self.workers)
                .map(|slot| {
                    let shared = &shared;
                    scope.spawn(move || shared.worker(slot))
                })
                .collect();
            while workers.iter().any(|worker| !worker.is_finished()) {
                if signals.caught().is_some() || self.sweep.stop_request().pending() {
                    shared.stop.store(true, Ordering::Relaxed);
                }
                // Whoever had it may be gone, which is known of another machine after a while.
                if through.is_none() && looked.elapsed() >= LOOK_AT_OTHERS {
                    looked = Instant::now();
                    through = self.sweep.work_through().ok().flatten();
                }
                thread::sleep(LOOK_EVERY);
            }
            workers
                .into_iter()
                .filter_map(|worker| match worker.join() {
                    Ok(ended) => ended.err(),
                    Err(_) => Some(anyhow::anyhow!("a worker panicked")),
                })
                .collect()
        });
        if let Some(error) = errors.into_iter().next() {
            return Err(error.context(format!(
                "the sweep stopped; go on with `{}`",
                self.resume(false)
            )));
        }
        let code = self.tell_end(shared.stop.load(Ordering::Relaxed));
        // Its tables and figures are a part of the work.
        drop(through);
        code
    }

    /// The command that goes on with it.
    fn resume(&self, retry: bool) -> String {
        let mut command = format!("forgetlab resume {}", shell_path(self.sweep.path()));
        for dir in &self.args.plugin_dir {
            command += &format!(" --plugin-dir {}", shell_path(dir));
        }
        match retry {
            true => command + " --retry",
            false => command,
        }
    }

    /// Writes the tables and figures, and tells how the sweep stands; the exit code.
    fn tell_end(&self, stopped: bool) -> anyhow::Result<u8> {
        let statuses = self.sweep.statuses()?;
        let counts = SweepCounts::of(statuses.iter().map(|(_, status)| status));
        let mut told = match report(self.sweep) {
            Ok(told) => told,
            Err(error) if counts.finished == 0 => format!("no table yet: {error:#}\n"),
            Err(error) => return Err(error),
        };
        told += &format!(
            "{} of {} points are finished\n",
            counts.finished, counts.all
        );
        for (point, status) in &statuses {
            if let PointStatus::Refused(reason) = status {
                told += &format!("{}: refused: {}\n", point.name, one_line(reason));
            } else if *status == PointStatus::Failed {
                told += &format!("{}: an arm failed\n", point.name);
            }
        }
        if counts.bad > 0 {
            told += &format!("try these again with `{}`\n", self.resume(true));
        }
        let code = match (stopped, code_of(counts.status())) {
            (true, exit::DONE) => exit::DONE,
            (true, _) | (false, exit::INTERRUPTED) => {
                told += &format!("interrupted; go on with `{}`\n", self.resume(false));
                exit::INTERRUPTED
            }
            (false, code) => code,
        };
        unless_gone(out::stdout().write_all(told.as_bytes()))?;
        Ok(code)
    }
}

impl Shared<'_> {
    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One worker: takes open points until there is none.
    fn worker(&self, slot: usize) -> anyhow::Result<()> {
        while !self.stops() {
            match self.next()? {
                Next::Point(point) => self.point(&point, slot)?,
                Next::Others => thread::sleep(LOOK_AT_OTHERS),
                Next::Nothing => break,
            }
        }
        Ok(())
    }

    /// The next open point, which is then this process' to try.
    fn next(&self) -> anyhow::Result<Next> {
        let mut taken = self.taken();
        let mut others = false;
        for point in &self.points {
            if taken.contains_key(&point.name) {
                continue;
            }
            let status = self.work.sweep.status(&point.name);
            let open = match status {
                Ok(status) if status.is_open() => true,
                Ok(PointStatus::Failed | PointStatus::Refused(_)) => self.work.retry,
                // Of a holder on another machine it is known after a while that it is gone.
                Ok(PointStatus::Live) => match self.work.sweep.take(&point.name)? {
                    Taken::Own(lease) => {
                        drop(lease);
                        let status = self.work.sweep.status(&point.name)?;
                        // Its run may be live without a lease, started as an ordinary one.
                        others |= status == PointStatus::Live;
                        status.is_open()
                    }
                    Taken::Busy(_) => {
                        others = true;
                        false
                    }
                },
                Ok(_) => false,
                Err(error) => {
                    warn(format_args!("{}: {error}", point.name));
                    taken.insert(point.name.clone(), false);
                    false
                }
            };
            if open {
                taken.insert(point.name.clone(), true);
                return Ok(Next::Point(point.clone()));
            }
        }
        Ok(match others {
            true => Next::Others,
            false => Next::Nothing,
        })
    }

    /// Works on a point in a process of its own.
    fn point(&self, point: &PointSpec, slot: usize) -> anyhow::Result<()> {
        let number = self.points.iter().position(|other| other == point);
        let place = format!("[{}/{}]", number.map_or(0, |n| n + 1), self.points.len());
        let name = one_line(&point.name).into_owned();
        say(&format!("{place} {name}: begins"))?;
        let begun = Instant::now();
        let path = self.work.sweep.log_path(&point.name)?;
        let mut log = Log::begin(&path)?;
        let mut child = self.spawn(point, slot, &log)?;
        let status = self.wait(&mut child)?;
        let now = self.work.sweep.status(&point.name)?;
        let took = human_seconds(begun.elapsed().as_secs_f64());
        match now {
            PointStatus::Finished => say(&format!("{place} {name}: finished in {took}")),
            PointStatus::Live => {
                // To be looked at again: whoever works on it may be killed.
                self.taken().remove(&point.name);
                say(&format!("{place} {name}: somebody else works on it"))
            }
            PointStatus::Unfinished if self.stops() => say(&format!("{place} {name}: stopped")),
            now => {
                say(&format!(
                    "{place} {name}: {} ({}); what it said is in {}",
                    now.word(),
                    how(status),
                    path_in_line(&path)
                ))?;
                for line in log.last_lines() {
                    say(&format!("    {}", one_line(&line)))?;
                }
                Ok(())
            }
        }
    }

    /// Starts `forgetlab resume SWEEP --point POINT`, which ends with this process.
    fn spawn(&self, point: &PointSpec, slot: usize, log: &Log) -> anyhow::Result<Child> {
        let Work {
            sweep,
            args,
            workers,
            retry,
        } = self.work;
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.arg("resume").arg(absolute(sweep.path())?);
        command.args(["--point", &point.name, "--with-parent"]);
        for dir in &args.plugin_dir {
            command.arg("--plugin-dir").arg(absolute(dir)?);
        }
        if args.no_cache {
            command.arg("--no-cache");
        }
        if retry {
            command.arg("--retry");
        }
        if let Some(gpu) = gpus::of_worker(slot, workers, &self.device) {
            command.env(gpus::VISIBLE, gpu);
        }
        command
            .stdin(Stdio::null())
            .stdout(log.share()?)
            .stderr(log.share()?);
        command
            .spawn()
            .context("cannot start a process for a point")
    }

    /// Waits for a child's end; asks it to stop where this process is asked to.
    fn wait(&self, child: &mut Child) -> anyhow::Result<ExitStatus> {
        let mut asked = false;
        loop {
            if let Some(status) = child.try_wait().context("cannot wait for a point")? {
                return Ok(status);
            }
            if self.stops() && !asked {
                asked = true;
                // It may have come to its end meanwhile.
                let _ = kill_process(Pid::from_child(child), Signal::TERM);
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// What a worker finds to do.
enum Next {
    Point(PointSpec),
    /// Nothing now; others work on what is left.
    Others,
    Nothing,
}

fn how(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = out::stdout();
    Ok(unless_gone(
        writeln!(out, "{line}").and_then(|()| out.flush()),
    )?)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))
}

/// What is printed while a point is worked on.
struct Log {
    file: File,
    from: u64,
}

impl Log {
    fn begin(path: &Path) -> anyhow::Result<Self> {
        let open = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path);
        let begun = open.and_then(|mut file| {
            file.write_all(heading().as_bytes())?;
            let from = file.metadata()?.len();
            Ok(Self { file, from })
        });
        begun.with_context(|| format!("cannot write {}", path.display()))
    }

    fn share(&self) -> anyhow::Result<File> {
        self.file.try_clone().context("cannot share a log")
    }

    /// The last lines that were printed, a few.
    fn last_lines(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        let end = self.file.metadata().map_or(0, |data| data.len());
        let from = self.from.max(end.saturating_sub(TAIL));
        if self.file.seek(SeekFrom::Start(from)).is_ok() {
            // As much as can be had.
            let _ = self.file.read_to_end(&mut bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[lines.len().saturating_sub(4)..].to_vec()
    }
}

/// Starts the work in a session of its own, where it survives this terminal.
pub fn start_detached(work: &Work) -> anyhow::Result<u8> {
    let path = work.sweep.join("worker.log");
    let log = Log::begin(&path)?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command
        .args(["worker", "sweep"])
        .arg(absolute(work.sweep.path())?);
    command.args(["--workers", &work.workers.to_string()]);
    for dir in &work.args.plugin_dir {
        command.arg("--plugin-dir").arg(absolute(dir)?);
    }
    if work.args.no_cache {
        command.arg("--no-cache");
    }
    if work.retry {
        command.arg("--retry");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(log.share()?)
        .stderr(log.share()?)
        .spawn()
        .context("cannot start a worker process")?;
    thread::sleep(LOOK_EVERY * 5);
    if let Some(status) = child.try_wait().context("cannot watch the worker")?
        && !status.success()
    {
        bail!(
            "the worker ended at once ({status}); see {}",
            path.display()
        );
    }
    let path = shell_path(work.sweep.path());
    let told = writeln!(
        out::stdout(),
        "running in the background; watch it with `forgetlab attach {path}`, stop it with `forgetlab stop {path}`"
    );
    unless_gone(told)?;
    Ok(exit::DONE)
}

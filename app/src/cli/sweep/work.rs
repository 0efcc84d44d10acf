//! Workers that take the points of a sweep, one at a time each, until none is open.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use forgetlab_study::printed::{one_line, path_in_line};
use forgetlab_study::report::human_seconds;
use forgetlab_study::run::{
    PointSpec, PointStatus, SweepCounts, SweepDir, Taken, Ticket, shell_path,
};
use rustix::process::{Pid, Signal, kill_process};

use super::super::devices::VISIBLE;
use super::super::process_log::{ProcessLog, command};
use super::super::signals::Signals;
use super::super::worker::WorkerArgs;
use super::super::{Usage, exit, out, queue, unless_gone, warn};
use super::view::View;
use super::{code_of, complete, gpus, report};
use crate::last_words::LOG;

/// Time between two looks at children and leases.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time between two looks at points that others work on.
const LOOK_AT_OTHERS: Duration = Duration::from_secs(1);
/// Lines of the end of a log that are told where a point goes wrong.
const LAST_LINES: usize = 4;

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
    taken: Mutex<BTreeSet<String>>,
    stop: AtomicBool,
    /// Whether it was said that others work on what is left.
    waits: AtomicBool,
    device: String,
    view: View,
}

impl Work<'_> {
    /// Works until no point is open, or somebody asks to stop; the exit code.
    pub fn run(&self) -> anyhow::Result<u8> {
        let signals = Signals::watch(self.args.detach)?;
        let mut through = self.sweep.work_through()?;
        let mut looked = Instant::now();
        self.sweep.stop_request().clear()?;
        if through.is_some() {
            Ticket::discard(self.sweep.path())?;
        }
        let points = self.sweep.spec()?.points;
        for point in &points {
            self.sweep.refuse_foreign(&point.name)?;
        }
        let shared = Shared {
            work: *self,
            device: device_and_threads(self.sweep, &points).0,
            points,
            taken: Mutex::default(),
            stop: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            view: View::new(),
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
                shared.view.look(self.sweep);
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
        shared.view.finish();
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
        for (point, status) in &statuses {
            // What cannot be read is left out of the table, too.
            if let Err(error) = complete(self.sweep, &point.name, status) {
                warn(format_args!("{error:#}"));
            }
        }
        let (mut told, unreadable) = match report(self.sweep) {
            Ok(told) => told,
            Err(error) if counts.finished == 0 => (format!("no table yet: {error:#}\n"), false),
            Err(error) => return Err(error),
        };
        told += &format!(
            "{} of {} points are finished\n",
            counts.finished, counts.all
        );
        for (point, status) in &statuses {
            told += &match status {
                PointStatus::Refused(reason) => {
                    format!("{}: refused: {}\n", point.name, one_line(reason))
                }
                PointStatus::Failed => format!("{}: an arm failed\n", point.name),
                PointStatus::Unfinished if !stopped => {
                    format!("{}: its process ended before its run did\n", point.name)
                }
                _ => continue,
            };
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
            (false, exit::DONE) if unreadable => exit::FAILED,
            (false, code) => code,
        };
        unless_gone(out::stdout().write_all(told.as_bytes()))?;
        Ok(code)
    }
}

impl Shared<'_> {
    fn say(&self, line: &str) -> anyhow::Result<()> {
        self.view.say(line)
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn taken(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One worker: takes open points until there is none.
    fn worker(&self, slot: usize) -> anyhow::Result<()> {
        while !self.stops() {
            match self.next()? {
                Next::Point(point) => self.point(&point, slot)?,
                Next::Others => {
                    if !self.waits.swap(true, Ordering::Relaxed) {
                        self.say("others work on what is left; waiting for them")?;
                    }
                    thread::sleep(LOOK_AT_OTHERS);
                }
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
            if taken.contains(&point.name) {
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
                Ok(_) => {
                    taken.insert(point.name.clone());
                    false
                }
                Err(error) => {
                    warn(format_args!("{}: {error}", point.name));
                    taken.insert(point.name.clone());
                    false
                }
            };
            if open {
                taken.insert(point.name.clone());
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
        self.say(&format!("{place} {name}: begins"))?;
        let begun = Instant::now();
        let path = self.work.sweep.log_path(&point.name)?;
        let log = ProcessLog::begin(path.clone())?;
        let mut child = self.start(point, slot, &log)?;
        let status = self.wait(&mut child)?;
        let now = self.work.sweep.status(&point.name)?;
        let took = human_seconds(begun.elapsed().as_secs_f64());
        match now {
            PointStatus::Finished => self.say(&format!("{place} {name}: finished in {took}")),
            PointStatus::Live => {
                // To be looked at again: whoever works on it may be killed.
                self.taken().remove(&point.name);
                self.say(&format!("{place} {name}: somebody else works on it"))
            }
            PointStatus::Unfinished if self.stops() => {
                self.say(&format!("{place} {name}: stopped"))
            }
            now => {
                self.say(&format!(
                    "{place} {name}: {} ({}); what it said is in {}",
                    now.word(),
                    how(status),
                    path_in_line(&path)
                ))?;
                let said = log.said();
                let lines: Vec<&str> = said.lines().collect();
                let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
                last.iter()
                    .try_for_each(|line| self.say(&format!("    {line}")))
            }
        }
    }

    /// Starts `forgetlab resume SWEEP --point POINT`, which ends with this process.
    fn start(&self, point: &PointSpec, slot: usize, log: &ProcessLog) -> anyhow::Result<Child> {
        let Work { sweep, args, .. } = self.work;
        let mut command = command(&["resume"], sweep.path(), args)?;
        let this = std::process::id().to_string();
        command.args(["--point", &point.name, "--with-parent", &this]);
        if self.work.retry {
            command.arg("--retry");
        }
        if let Some(gpu) = gpus::of_worker(slot, self.work.workers, &self.device) {
            command.env(VISIBLE, gpu);
        }
        log.start(&mut command)
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

/// Device and threads of a sweep's points, as the first says whose configuration can be read.
pub fn device_and_threads(sweep: &SweepDir, points: &[PointSpec]) -> (String, usize) {
    let mut configs = points
        .iter()
        .filter_map(|point| sweep.config(&point.name).ok());
    configs.next().map_or_else(
        || ("cpu".to_owned(), 1),
        |config| (config.device, config.threads),
    )
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

/// Starts the work in a session of its own, where it survives this terminal.
///
/// # Errors
/// Where several GPUs would have to be waited for at once.
pub fn start_detached(work: &Work) -> anyhow::Result<u8> {
    let (device, _) = device_and_threads(work.sweep, &work.sweep.spec()?.points);
    if work.args.queue && work.workers > 1 && device != "cpu" {
        let what =
            "--queue waits for one GPU, and each of several workers needs its own; use --workers 1";
        return Err(Usage(what.into()).into());
    }
    let log = ProcessLog::begin(work.sweep.join(LOG))?;
    let mut command = command(&["worker", "sweep"], work.sweep.path(), work.args)?;
    command.args(["--workers", &work.workers.to_string()]);
    if work.retry {
        command.arg("--retry");
    }
    let mut child = log.start(&mut command)?;
    thread::sleep(LOOK_EVERY * 5);
    if let Some(status) = child.try_wait().context("cannot watch the worker")?
        && !status.success()
    {
        bail!(
            "the worker ended at once ({status}); see {}",
            log.path.display()
        );
    }
    let path = shell_path(work.sweep.path());
    let how = queue::words(work.sweep.path());
    let how = how.unwrap_or_else(|| "running in the background".into());
    let told = writeln!(
        out::stdout(),
        "{how}; watch it with `forgetlab attach {path}`, stop it with `forgetlab stop {path}`"
    );
    unless_gone(told)?;
    Ok(exit::DONE)
}

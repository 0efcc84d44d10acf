//! `run` and `resume` in the foreground: a child process does the work, and this one waits and tells the exit code.
//!
//! A strategy can end the process that it is loaded into, with any exit code. So success is told only where the
//! child said that it comes to its end, and the run's events say the same.
//!
//! Both are in one process group: a terminal's Ctrl-C and Ctrl-Z reach both. The child takes a second signal for the
//! first one; whether somebody insists is decided here.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use forgetlab_study::run::{RunDir, RunStatus};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_setfl, fstat};
use rustix::process::{Pid, Signal, kill_process};
use rustix::stdio::dup2_stdin;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGKILL, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::signals::is_ignored;
use super::worker::WorkerArgs;
use super::{Usage, advice, code_of, exit, out, report};
use crate::last_words;

/// What the child tells: a letter, what it stands for, and a zero byte.
const RUN: u8 = b'R';
const END: u8 = b'E';

/// The process that waits for this one, as its worker sees it.
#[derive(Clone)]
pub struct Parent(Option<Arc<File>>);

impl Parent {
    /// Nobody waits.
    pub fn none() -> Self {
        Self(None)
    }

    /// Takes the parent's pipe from standard input, where strategies then find nothing to read. From here on this
    /// process ends with its parent.
    fn meet() -> anyhow::Result<Self> {
        let stdin = io::stdin();
        let mode = fstat(&stdin).map_or(0, |data| data.st_mode);
        if FileType::from_raw_mode(mode) != FileType::Fifo {
            return Err(Usage(
                "`forgetlab run` and `forgetlab resume` start this themselves".into(),
            )
            .into());
        }
        let pipe = File::from(
            stdin
                .as_fd()
                .try_clone_to_owned()
                .context("cannot keep the pipe")?,
        );
        let nothing = File::open("/dev/null").context("cannot read /dev/null")?;
        dup2_stdin(nothing).context("cannot replace standard input")?;
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .context("cannot follow the end of the parent process")?;
        // It may have ended before that.
        let mut ends = [PollFd::new(&pipe, PollFlags::empty())];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        if poll(&mut ends, Some(&now)).is_ok() && ends[0].revents().contains(PollFlags::ERR) {
            bail!("the process that waits for this one is gone");
        }
        Ok(Self(Some(Arc::new(pipe))))
    }

    /// Tells which run is worked on.
    pub fn tell_run(&self, dir: &RunDir) {
        self.tell(RUN, dir.path().as_os_str().as_bytes());
    }

    /// Ends this process with an exit code, and tells that it was meant to end. No exit handlers: those of a
    /// strategy's library could wait for its threads, or end the process in another way.
    pub fn end(&self, code: u8) -> ! {
        let _ = out::stdout().flush();
        self.tell(END, code.to_string().as_bytes());
        signal_hook::low_level::exit(i32::from(code))
    }

    fn tell(&self, what: u8, text: &[u8]) {
        if let Some(mut pipe) = self.0.as_deref() {
            // Where nobody hears it, nobody takes it for success.
            let _ = pipe.write_all(&[&[what], text, &[0]].concat());
        }
    }
}

/// The child's side: does the work, reports its error, and ends this process with the exit code.
pub fn be_waited_for(work: impl FnOnce(&Parent) -> anyhow::Result<u8>) -> anyhow::Result<ExitCode> {
    let parent = Parent::meet()?;
    // A panic has been told by the hook.
    let code = match catch_unwind(AssertUnwindSafe(|| work(&parent))) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => report(&error),
        Err(_) => exit::FAILED,
    };
    parent.end(code)
}

/// How a child ended.
struct End {
    pid: u32,
    status: ExitStatus,
    /// The run it told of.
    run: Option<PathBuf>,
    /// The exit code it told.
    code: Option<u8>,
    /// How often it was interrupted.
    interrupts: usize,
    /// Signals passed on to it.
    passed_on: Vec<i32>,
}

/// The parent's side: runs this very command line in a child, waits for its end, and tells the exit code.
pub fn run(worker: &WorkerArgs) -> anyhow::Result<ExitCode> {
    let mut watched = vec![SIGCHLD, SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        watched.push(SIGHUP);
    }
    // Before there is a child whose end could be missed.
    let mut signals = Signals::new(watched).context("cannot watch for signals")?;
    let (told, teller) = io::pipe().context("cannot make a pipe")?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut child = Command::new(program)
        .arg("worker")
        .args(std::env::args_os().skip(1))
        .stdin(teller)
        .spawn()
        .context("cannot start a worker process")?;
    let end = wait(&mut child, &mut signals, told)?;
    judge(&end, worker).map(ExitCode::from)
}

/// Waits for the child's end, and passes on what asks it to stop.
fn wait(child: &mut Child, signals: &mut Signals, told: PipeReader) -> anyhow::Result<End> {
    let pid = child.id();
    let (mut interrupts, mut passed_on) = (0, Vec::new());
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for the worker")? {
            break status;
        }
        for signal in signals.wait() {
            if signal == SIGCHLD {
                continue;
            }
            interrupts += usize::from(signal == SIGINT);
            // Somebody who cannot wait for the step to end: a killed run is resumable, too.
            let signal = if interrupts > 1 { SIGKILL } else { signal };
            passed_on.push(signal);
            if let Some(signal) = Signal::from_named_raw(signal) {
                // It may have come to its end meanwhile.
                let _ = kill_process(Pid::from_child(child), signal);
            }
        }
    };
    let (run, code) = heard(told);
    Ok(End {
        pid,
        status,
        run,
        code,
        interrupts,
        passed_on,
    })
}

/// What the child told: its run and its exit code. A process that a strategy started may keep the pipe open, so what
/// is not there yet is not waited for.
fn heard(mut told: PipeReader) -> (Option<PathBuf>, Option<u8>) {
    let mut bytes = Vec::new();
    if fcntl_setfl(&told, OFlags::NONBLOCK).is_ok() {
        let _ = told.read_to_end(&mut bytes);
    }
    let (mut run, mut code) = (None, None);
    for part in bytes.split(|&byte| byte == 0) {
        match part.split_first() {
            Some((&RUN, path)) => run = Some(std::ffi::OsString::from_vec(path.to_owned()).into()),
            Some((&END, digits)) => {
                code = str::from_utf8(digits)
                    .ok()
                    .and_then(|code| code.parse().ok())
            }
            _ => {}
        }
    }
    (run, code)
}

/// The exit code that a child's end and the events of its run call for.
fn judge(end: &End, worker: &WorkerArgs) -> anyhow::Result<u8> {
    let dir = end.run.as_ref().map(|path| RunDir::open(path));
    match (end.code, dir) {
        // An error, told in words.
        (Some(code @ (exit::FAILED | exit::USAGE)), _) => Ok(code),
        // No run was worked on here.
        (Some(code), None) => Ok(code),
        (Some(code), Some(dir)) => {
            let dir =
                dir.context("the run is not where it was any more, and was not told to be over")?;
            let state = dir.brief_state(false)?;
            let status = RunDir::status_of(false, &state);
            // Somebody else may go on with it by now.
            if code == code_of(status) || dir.is_live() {
                return Ok(code);
            }
            let resume = advice::resume(&dir, &worker.plugin_dir);
            bail!(
                "{} does not say that the run is over; something has changed it. Go on with `{resume}`",
                dir.events_path().display()
            )
        }
        (None, _) if end.interrupts > 1 => Ok(exit::INTERRUPTED),
        (None, _)
            if end
                .status
                .signal()
                .is_some_and(|signal| end.passed_on.contains(&signal)) =>
        {
            // It was not watching for signals yet: as without it, this process ends by the signal, too.
            let _ = emulate_default_handler(end.status.signal().unwrap_or(SIGTERM));
            Ok(exit::FAILED)
        }
        (None, Some(Ok(dir))) => Err(ended_early(end, &dir, worker)),
        (None, _) => bail!(
            "nothing was run: the worker ended ({}) while it prepared the run, without a word. The library of a \
             strategy may have ended it: `forgetlab plugins list` names those that are found",
            end.status
        ),
    }
}

/// Tells of a child that ended before its time.
fn ended_early(end: &End, dir: &RunDir, worker: &WorkerArgs) -> anyhow::Error {
    let resume = advice::resume(dir, &worker.plugin_dir);
    let status = dir
        .load_state()
        .map(|state| RunDir::status_of(false, &state));
    let what = match status {
        Ok(RunStatus::Finished | RunStatus::Failed) => {
            "after the last step, before all files were written"
        }
        _ => "before the run was over",
    };
    let memory = match end.status.signal() {
        Some(SIGKILL) => ", as the system does where memory runs out",
        _ => "",
    };
    match last_words::call_of(dir, end.pid) {
        Some(call) => anyhow!(
            "the worker ended ({}{memory}) {what}, inside strategy `{}`, arm {}, call {}; go on with `{resume}`, or \
             without that arm: `{}`",
            end.status,
            call.plugin,
            call.arm,
            call.call,
            advice::resume_without(dir, &call.arm, &worker.plugin_dir)
        ),
        None => anyhow!(
            "the worker ended ({}{memory}) {what}; what was saved is safe, go on with `{resume}`",
            end.status
        ),
    }
}

//! A process of this program that loads a library in place of the one that asks: what crashes, hangs or prints in
//! it does so there.
//!
//! The child answers in lines of JSON on the standard output it was started with. Whatever the library itself
//! prints goes to its standard error, which is read, and told where it helps.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};

use super::{LoadError, library::Description, raw::one_line};

/// The hidden subcommand that [`super::serve`] does the work of.
pub const CHILD_COMMAND: &str = "plugin-child";

/// Bytes of all that a child may answer.
const MAX_ANSWERS: u64 = 64 << 20;
/// Bytes kept of what a library prints.
const MAX_PRINTED: usize = 200;
/// Time that what a child has printed is given to arrive once it is gone.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What a child says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Word {
    /// A library, looked at.
    Looked(Result<Description, LoadError>),
    /// What is being done from now on, in words; it is blamed on it if no other word comes.
    Doing(String),
    /// A line to show: what was tried, and how it went.
    Line(String, String),
    /// A call that takes long.
    Late(String),
    /// The last word of a check: it works, or why not.
    Checked(Result<(), String>),
}

/// What came from a child.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// A word.
    Word(Box<Word>),
    /// Nothing, for as long as was waited.
    Nothing,
    /// Nothing, and nothing will: it has ended.
    End,
}

/// How a child ended.
pub(super) struct End {
    /// Its exit code or the signal that ended it; `None` if it had to be killed.
    pub(super) status: Option<ExitStatus>,
    /// The beginning of what the library printed.
    pub(super) printed: String,
}

/// The program that is started to look at libraries, as `PROGRAM plugin-child …`.
#[derive(Clone, Debug)]
pub struct Helper {
    program: PathBuf,
    pub(super) limit: Duration,
    pub(super) on_slow: fn(&Path, Duration),
}

/// Time to load a library and call its entry point, which takes milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

impl Helper {
    /// A helper that starts `program`.
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            limit: LIMIT,
            on_slow: |_, _| {},
        }
    }

    /// The same with another time limit for a library to be loaded in.
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The same, which tells of a library that is slow to load, and the time it is given in all.
    pub fn on_slow(self, on_slow: fn(&Path, Duration)) -> Self {
        Self { on_slow, ..self }
    }

    /// A helper that starts the program that runs.
    pub fn this_program() -> Self {
        let program = std::env::current_exe();
        Self::new(program.unwrap_or_else(|_| "/proc/self/exe".into()))
    }

    /// Starts a task in a process of its own.
    pub(super) fn start(&self, task: &str, library: &Path, rest: &[&str]) -> io::Result<Watched> {
        let mut command = Command::new(&self.program);
        command.arg(CHILD_COMMAND).arg(task).arg(library).args(rest);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // What it starts itself ends with it.
        let mut child = command.process_group(0).spawn()?;
        let (answers, errors) = (child.stdout.take(), child.stderr.take());
        let ((said, words), (printing, printed)) = (channel(), channel());
        let watched = Watched {
            child,
            words,
            printed,
        };
        // A thread each, for a pipe may stay open behind a child that is gone.
        thread::Builder::new().spawn(move || {
            let answers = answers.map(|answers| BufReader::new(answers.take(MAX_ANSWERS)));
            for line in answers.into_iter().flat_map(BufRead::lines) {
                let word = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                if word.is_none_or(|word| said.send(word).is_err()) {
                    return;
                }
            }
        })?;
        thread::Builder::new().spawn(move || {
            let mut kept = Vec::new();
            if let Some(mut errors) = errors {
                let mut chunk = [0; 4096];
                while let Ok(read @ 1..) = errors.read(&mut chunk) {
                    let room = MAX_PRINTED.saturating_sub(kept.len());
                    kept.extend_from_slice(&chunk[..read.min(room)]);
                }
            }
            let _ = printing.send(one_line(&kept).trim().to_owned());
        })?;
        Ok(watched)
    }
}

/// A child at work. It is killed when it goes out of scope.
pub(super) struct Watched {
    child: Child,
    words: Receiver<Word>,
    printed: Receiver<String>,
}

impl Watched {
    /// The next word.
    pub(super) fn next(&mut self, limit: Duration) -> Heard {
        match self.words.recv_timeout(limit) {
            Ok(word) => Heard::Word(Box::new(word)),
            Err(RecvTimeoutError::Disconnected) => Heard::End,
            Err(RecvTimeoutError::Timeout) if self.ended().is_some() => Heard::End,
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end as long as `grace`, then ends it.
    pub(super) fn end(mut self, grace: Duration) -> End {
        let begin = Instant::now();
        let mut pause = Duration::from_micros(200);
        let status = loop {
            match self.ended() {
                Some(status) => break Some(status),
                None if begin.elapsed() > grace => break None,
                None => thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        self.kill();
        End {
            status,
            printed: self.printed.recv_timeout(LAST_WORDS).unwrap_or_default(),
        }
    }

    fn kill(&mut self) {
        // The group may outlive its first process, whose number is not given anew meanwhile.
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

impl End {
    /// How it ended, in words, with the library's own.
    pub(super) fn words(&self) -> String {
        let how = match self.status {
            Some(status) => status.to_string(),
            None => "it had to be killed".into(),
        };
        match self.printed.as_str() {
            "" => how,
            printed => format!("{how}; it said: {printed}"),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The child's side: where it answers.
pub(super) struct Voice(File);

impl Voice {
    /// Keeps standard output for the answers alone, and readies this process for whatever a library may do.
    #[expect(clippy::disallowed_methods, reason = "nothing is printed to them")]
    pub(super) fn take() -> io::Result<Self> {
        let answers = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
        rustix::stdio::dup2_stdout(io::stderr())?;
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        // Nobody wants a core file of it, nor a child that nobody waits for.
        let _ = rustix::process::setrlimit(Resource::Core, none);
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        Ok(Self(File::from(answers)))
    }

    /// Says a word. One that nobody hears ends the process: there is no other use for it.
    pub(super) fn say(&mut self, word: &Word) {
        let line = serde_json::to_string(word).unwrap_or_default();
        if writeln!(self.0, "{line}").is_err() {
            std::process::exit(1);
        }
    }
}

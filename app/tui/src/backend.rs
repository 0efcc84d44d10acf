//! The thread that calls the [`Lab`], so that a slow disk or plugin does not freeze the screen, and the one that
//! computes verdicts.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use forgetlab_study::run::{RunState, RunStatus};

use super::arms::Question;
use super::event::{Command, Event, Reply};
use super::lab::{Feed, Lab, RunSummary, Sweep};

/// How often the watched run is read.
const FEED_EVERY: Duration = Duration::from_millis(250);
/// How often the list of runs, or a sweep, is read while it is shown.
const RUNS_EVERY: Duration = Duration::from_secs(2);

/// Starts the threads; they end when `commands` is closed.
pub fn spawn(
    lab: Box<dyn Lab>,
    commands: Receiver<Command>,
    events: Sender<Event>,
) -> std::io::Result<()> {
    let (questions, asked) = mpsc::channel();
    let judged = events.clone();
    thread::Builder::new()
        .name("verdicts".into())
        .spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| judge(&asked, &judged))).is_err() {
                let fault = "the thread that computes verdicts panicked; runs go on".to_string();
                let _ = judged.send(Event::Reply(Reply::Fault(fault)));
            }
        })?;
    thread::Builder::new().name("lab".into()).spawn(move || {
        let mut backend = Backend {
            lab,
            events: events.clone(),
            questions,
            watched: None,
            follow_runs: None,
            last_runs: None,
            sweep: None,
        };
        if catch_unwind(AssertUnwindSafe(|| backend.serve(&commands))).is_err() {
            let fault = "the lab's own thread panicked; runs go on".to_string();
            let _ = events.send(Event::Reply(Reply::Fault(fault)));
        }
    })?;
    Ok(())
}

/// A question about an arm, and the names of the runs that it is of.
type Asked = (Vec<String>, Question);

/// Answers questions in order. Of several about one arm the last one counts.
fn judge(asked: &Receiver<Asked>, events: &Sender<Event>) {
    let mut queue: VecDeque<Asked> = VecDeque::new();
    loop {
        if queue.is_empty() {
            let Ok(first) = asked.recv() else { return };
            queue.push_back(first);
        }
        for newer in asked.try_iter() {
            let same = |old: &&mut Asked| old.0 == newer.0 && old.1.members == newer.1.members;
            match queue.iter_mut().find(same) {
                Some(old) => *old = newer,
                None => queue.push_back(newer),
            }
        }
        if let Some((runs, question)) = queue.pop_front() {
            let judgement = Box::new(question.judge());
            let reply = Reply::Judged(runs, question.members, judgement);
            if events.send(Event::Reply(reply)).is_err() {
                return;
            }
        }
    }
}

/// State of the thread: the lab, and the runs it follows.
struct Backend {
    lab: Box<dyn Lab>,
    events: Sender<Event>,
    /// To the thread that computes verdicts.
    questions: Sender<Asked>,
    watched: Option<Watched>,
    /// When the list of runs is to be read next, while it is followed.
    follow_runs: Option<Instant>,
    /// The last list sent: an unchanged one is not sent again.
    last_runs: Option<Result<Vec<RunSummary>, String>>,
    sweep: Option<FollowedSweep>,
}

/// A sweep whose points are shown.
struct FollowedSweep {
    name: String,
    due: Instant,
    /// What was sent last: the same is not sent again.
    last: Option<Result<Sweep, String>>,
}

struct Watched {
    run: String,
    feed: Box<dyn Feed>,
    status: Option<RunStatus>,
    due: Instant,
}

impl Backend {
    fn serve(&mut self, commands: &Receiver<Command>) {
        let mut queue = VecDeque::new();
        loop {
            let due = [
                self.watched.as_ref().map(|watched| watched.due),
                self.follow_runs,
                self.sweep.as_ref().map(|sweep| sweep.due),
            ];
            let command = match due.into_iter().flatten().min() {
                _ if !queue.is_empty() => queue.pop_front(),
                Some(due) => {
                    match commands.recv_timeout(due.saturating_duration_since(Instant::now())) {
                        Ok(command) => Some(command),
                        Err(RecvTimeoutError::Timeout) => None,
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
                None => match commands.recv() {
                    Ok(command) => Some(command),
                    Err(_) => return,
                },
            };
            queue.extend(commands.try_iter());
            if let Some(command) = command {
                self.carry_out(command);
            }
            self.poll_due();
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::LoadCatalog => {
                let experiments = text(self.lab.experiments());
                self.reply(Reply::Experiments(experiments));
                let plugins = text(self.lab.plugins());
                self.reply(Reply::Plugins(plugins));
                let devices = text(self.lab.devices());
                self.reply(Reply::Devices(devices));
            }
            Command::LoadRuns => self.send_runs(true),
            Command::FollowRuns(on) => self.follow_runs = on.then(Instant::now),
            Command::FollowSweep(name) => {
                self.sweep = name.map(|name| FollowedSweep {
                    name,
                    due: Instant::now(),
                    last: None,
                });
            }
            Command::Watch(run) => self.watch(run),
            Command::Start(request) => {
                let started = text(self.lab.start(&request));
                self.reply(Reply::Started(started));
            }
            Command::Resume(run) => {
                let resumed = text(self.lab.resume(&run));
                self.reply(Reply::Resumed(run, resumed));
            }
            Command::Stop(run) => {
                let stopping = text(self.lab.stop(&run));
                self.reply(Reply::Stopping(run, stopping));
            }
            Command::Compare(runs) => {
                let whole = runs
                    .into_iter()
                    .map(|run| {
                        let state = text(self.read_whole(&run));
                        (run, state)
                    })
                    .collect();
                self.reply(Reply::Compared(whole));
            }
            Command::Export(runs) => {
                let paths = text(self.lab.export(&runs));
                self.reply(Reply::Exported(paths));
            }
            Command::Judge(runs, question) => {
                // If that thread has ended, it has sent an event that says so.
                let _ = self.questions.send((runs, question));
            }
        }
    }

    fn read_whole(&mut self, run: &str) -> anyhow::Result<RunState> {
        let update = self.lab.open(run)?.poll()?;
        let mut state = update.before.map(|before| *before).unwrap_or_default();
        for record in &update.records {
            state.apply(record);
        }
        Ok(state)
    }

    fn watch(&mut self, run: String) {
        self.watched = None;
        match self.lab.open(&run) {
            Ok(feed) => {
                let due = Instant::now();
                self.watched = Some(Watched {
                    run,
                    feed,
                    status: None,
                    due,
                });
            }
            Err(error) => {
                let update = Err(format!("{error:#}"));
                self.reply(Reply::Feed {
                    run,
                    first: true,
                    update,
                });
            }
        }
    }

    fn poll_due(&mut self) {
        let now = Instant::now();
        if self.follow_runs.is_some_and(|due| due <= now) {
            self.send_runs(false);
            self.follow_runs = Some(Instant::now() + RUNS_EVERY);
        }
        self.send_sweep(now);
        let Some(watched) = self.watched.as_mut().filter(|w| w.due <= now) else {
            return;
        };
        let first = watched.status.is_none();
        let update = watched.feed.poll();
        watched.due = Instant::now() + FEED_EVERY;
        let run = watched.run.clone();
        match update {
            Ok(update) => {
                let changed = watched.status != Some(update.status);
                watched.status = Some(update.status);
                if first || changed || !update.records.is_empty() {
                    self.reply(Reply::Feed {
                        run,
                        first,
                        update: Ok(update),
                    });
                }
            }
            Err(error) => {
                // A run that cannot be read any more is no longer followed.
                self.watched = None;
                let update = Err(format!("{error:#}"));
                self.reply(Reply::Feed { run, first, update });
            }
        }
    }

    fn send_runs(&mut self, unchanged_too: bool) {
        let runs = text(self.lab.runs());
        if unchanged_too || self.last_runs.as_ref() != Some(&runs) {
            self.last_runs = Some(runs.clone());
            self.reply(Reply::Runs(runs));
        }
    }

    /// Sends the sweep that is followed, if it is due and has changed.
    fn send_sweep(&mut self, now: Instant) {
        let Some(followed) = self.sweep.as_mut().filter(|sweep| sweep.due <= now) else {
            return;
        };
        let sweep = text(self.lab.sweep(&followed.name));
        followed.due = Instant::now() + RUNS_EVERY;
        if followed.last.as_ref() != Some(&sweep) {
            followed.last = Some(sweep.clone());
            let name = followed.name.clone();
            self.reply(Reply::Sweep(name, sweep.map(Box::new)));
        }
    }

    fn reply(&self, reply: Reply) {
        // Nobody receives it any more when the lab is being left.
        let _ = self.events.send(Event::Reply(reply));
    }
}

fn text<T>(result: anyhow::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{error:#}"))
}

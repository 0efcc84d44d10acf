//! The thread that calls the [`Lab`], so that a slow disk or plugin does not freeze the screen, and the one that
//! computes verdicts.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use forgetlab_study::run::RunStatus;

use super::arms::Question;
use super::event::{Command, Event, Reply};
use super::lab::{Feed, Lab, RunSummary, Sweep};

/// How many times longer than reading takes the list of runs is left alone.
const QUIET: u32 = 1000;
/// How often a watched run that is live is read.
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
            watched: Vec::new(),
            follow_runs: None,
            last_runs: None,
            sweep: None,
            machine: None,
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
    watched: Vec<Watched>,
    /// When the list of runs is to be read next, while it is followed.
    follow_runs: Option<Instant>,
    /// The last list sent: an unchanged one is not sent again.
    last_runs: Option<Result<Vec<RunSummary>, String>>,
    sweep: Option<FollowedSweep>,
    /// When the machine is to be read next, and how often.
    machine: Option<(Instant, Duration)>,
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
                self.watched.iter().map(|watched| watched.due).min(),
                self.follow_runs,
                self.sweep.as_ref().map(|sweep| sweep.due),
                self.machine.map(|(due, _)| due),
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
            // Of several runs or batches that the cursor went over, the last one is looked at; so of what was typed into
            // a form.
            let passed = queue.iter().any(|later| {
                matches!(
                    (&command, later),
                    (Some(Command::Preview(_)), Command::Preview(_))
                        | (Some(Command::Predict(_)), Command::Predict(_))
                        | (Some(Command::Look(..)), Command::Look(..))
                )
            });
            if let Some(command) = command.filter(|_| !passed) {
                self.carry_out(command);
            }
            self.poll_due();
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::LoadCatalog => self.load_catalog(),
            Command::LoadKept => {
                let kept = text(self.lab.kept());
                self.reply(Reply::Kept(kept));
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
            Command::FollowMachine(every) => {
                self.machine = every.map(|every| (Instant::now(), every));
            }
            Command::Watch(runs) => self.watch(runs),
            Command::Preview(run) => {
                let preview = text(self.lab.preview(&run)).map(Box::new);
                self.reply(Reply::Preview(run, preview));
            }
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
            other => self.carry_out_small(other),
        }
    }

    /// The rest of the commands, which follow nothing.
    fn carry_out_small(&mut self, command: Command) {
        let done = |result: anyhow::Result<String>| Reply::Done(text(result));
        let reply = match command {
            Command::AddArm(run, arm) => done(self.lab.add_arm(&run, &arm)),
            Command::StopArm(run, slugs) => done(self.lab.stop_arms(&run, &slugs)),
            Command::Again(run) => Reply::Config(text(self.lab.config(&run)).map(Box::new)),
            Command::Export(runs) => Reply::Exported(text(self.lab.export(&runs))),
            Command::WriteTable(runs, format) => {
                let path = self.lab.write_table(&runs, &format);
                Reply::Exported(text(path).map(|path| vec![path]))
            }
            Command::WriteText(table, format) => {
                let path = self.lab.write_text(&table, &format);
                Reply::Exported(text(path).map(|path| vec![path]))
            }
            Command::Look(run, arm, step) => {
                let look = text(self.lab.look(&run, arm, step));
                Reply::Looked(run, arm, step, look)
            }
            Command::ReadSamples(run, arm, step) => {
                let look = text(self.lab.samples(&run, arm, step));
                Reply::Samples(run, arm, step, look)
            }
            Command::Diff(runs) => {
                Reply::Told("Settings that differ", text(self.lab.differences(&runs)))
            }
            Command::Label(run, change) => {
                let labelled = self.lab.label(&run, &change).map(|()| String::new());
                self.send_runs(true);
                done(labelled)
            }
            Command::AskDelete(run) => {
                let bytes = text(self.lab.disk_use(&run));
                Reply::DiskUse(run, bytes)
            }
            Command::Delete(run) => {
                let deleted = self.lab.delete(&run).map(|()| format!("{run} is deleted"));
                self.send_runs(true);
                done(deleted)
            }
            Command::Check(library) => Reply::Told(
                "Check",
                text(self.lab.check(&library)).map(|(_, said)| said),
            ),
            Command::Predict(request) => {
                let prediction = text(self.lab.predict(&request));
                Reply::Predicted(Box::new(request), prediction)
            }
            Command::WriteConfig(request, file) => {
                let path = self.lab.write_config(&request, &file);
                Reply::Exported(text(path).map(|path| vec![path]))
            }
            Command::KeepViews(views) => match self.lab.keep_views(&views) {
                Ok(()) => return,
                Err(error) => done(Err(error)),
            },
            Command::Judge(runs, question) => {
                // If that thread has ended, it has sent an event that says so.
                let _ = self.questions.send((runs, question));
                return;
            }
            _ => return,
        };
        self.reply(reply);
    }

    /// Loads what runs are composed of, while runs are read on.
    fn load_catalog(&self) {
        let (catalog, events) = (self.lab.catalog(), self.events.clone());
        let load = move || {
            let replies = || {
                [
                    Reply::Experiments(text(catalog.experiments())),
                    Reply::Plugins(text(catalog.plugins())),
                    Reply::Devices(text(catalog.devices())),
                ]
            };
            let fault = "reading experiments and strategies panicked; runs go on";
            let replies = catch_unwind(AssertUnwindSafe(replies))
                .map_or_else(|_| vec![Reply::Fault(fault.to_owned())], Vec::from);
            for reply in replies {
                // Nobody receives it any more when the lab is being left.
                let _ = events.send(Event::Reply(reply));
            }
        };
        if let Err(error) = thread::Builder::new().name("catalog".into()).spawn(load) {
            self.reply(Reply::Experiments(Err(error.to_string())));
        }
    }

    fn watch(&mut self, runs: Vec<String>) {
        self.watched.clear();
        for run in runs {
            match self.lab.open(&run) {
                Ok(feed) => {
                    let due = Instant::now();
                    self.watched.push(Watched {
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
    }

    fn poll_due(&mut self) {
        let now = Instant::now();
        if self.follow_runs.is_some_and(|due| due <= now) {
            self.send_runs(false);
            // A long list on a slow disk is read less often: it must not keep a core busy.
            let wait = (now.elapsed() * QUIET).max(RUNS_EVERY);
            self.follow_runs = Some(Instant::now() + wait);
        }
        self.send_sweep(now);
        if let Some((_, every)) = self.machine.filter(|(due, _)| *due <= now) {
            let machine = text(self.lab.machine()).map(Box::new);
            self.machine = Some((Instant::now() + every, every));
            self.reply(Reply::Machine(machine));
        }
        let mut watched = std::mem::take(&mut self.watched);
        watched.retain_mut(|watched| watched.due > now || self.poll(watched));
        self.watched = watched;
    }

    /// Reads what is new of a run; whether it is followed any further.
    fn poll(&self, watched: &mut Watched) -> bool {
        let first = watched.status.is_none();
        let update = watched.feed.poll();
        let every = match &update {
            Ok(update) if update.status == RunStatus::Live => FEED_EVERY,
            _ => RUNS_EVERY,
        };
        watched.due = Instant::now() + every;
        let reply = |update| Reply::Feed {
            run: watched.run.clone(),
            first,
            update,
        };
        match update {
            Ok(update) => {
                let changed = watched.status != Some(update.status);
                let status = update.status;
                if first || changed || !update.records.is_empty() {
                    self.reply(reply(Ok(update)));
                }
                watched.status = Some(status);
                true
            }
            Err(error) => {
                // A run that cannot be read any more is no longer followed.
                self.reply(reply(Err(format!("{error:#}"))));
                false
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

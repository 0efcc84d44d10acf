//! What the lab's thread replies, and what becomes of it on the screens.

use forgetlab_study::run::RunStatus;

use super::super::event::{Command, Reply};
use super::super::keymap::Keymap;
use super::super::lab::{FeedUpdate, Kept, RunSummary, Started, Sweep};
use super::super::screens::overlay::{Overlay, Text};
use super::super::screens::{Ask, Screen, machine};
use super::super::view;
use super::{App, Exit};

impl App {
    /// Applies a reply of the lab's thread.
    pub(super) fn reply(&mut self, reply: Reply) {
        let was_dirty = std::mem::replace(&mut self.dirty, true);
        // A reply ends a hint such as "starting…", unless it is only an update of what is followed.
        if !matches!(
            reply,
            Reply::Feed { .. }
                | Reply::Runs(_)
                | Reply::Machine(_)
                | Reply::Predicted(..)
                | Reply::Preview(..)
                | Reply::Looked(..)
                | Reply::Samples(..)
                | Reply::Kept(_)
                | Reply::Sweep(..)
                | Reply::Judged(..)
        ) {
            self.hint = None;
        }
        match reply {
            Reply::Experiments(experiments) => {
                self.has_catalog = true;
                self.compose.set_experiments(experiments);
            }
            Reply::Plugins(plugins) => self.strategies.list = Some(plugins),
            Reply::Devices(devices) => self.compose.set_devices(devices),
            Reply::Kept(kept) => self.kept(kept),
            Reply::Runs(runs) => self.listed(runs, was_dirty),
            Reply::Machine(machine) => self.machine.set(machine),
            Reply::Feed { run, first, update } => self.fed(&run, first, update, was_dirty),
            Reply::Sweep(name, result) => self.swept(&name, result, was_dirty),
            Reply::Preview(run, preview) => {
                let commands = self.runs.previewed(&run, preview);
                self.commands.extend(commands);
                self.want_catalog();
                self.dirty = was_dirty || self.screen == Screen::Runs;
            }
            Reply::Started(result) => self.started(result),
            Reply::Resumed(run, result) => self.resumed(run, result),
            Reply::Stopping(run, result) => self.stop_asked(&run, result),
            Reply::Predicted(request, prediction) => {
                self.compose.predicted(*request, prediction);
                self.dirty = was_dirty || self.screen == Screen::Compose;
            }
            Reply::Config(Ok(config)) => {
                self.compose.take(*config);
                self.go(Screen::Compose);
            }
            Reply::Config(Err(error)) => self.notify("Its configuration cannot be read", error),
            Reply::Exported(Ok(paths)) => {
                let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
                self.notify("Written", paths.join("\n"));
            }
            Reply::Exported(Err(error)) => self.notify("Not everything could be written", error),
            Reply::Looked(run, arm, step, look) => self.watch.seen(&run, arm, step, look),
            Reply::Samples(run, arm, step, look) => self.watch.wrote(&run, arm, step, look),
            Reply::Told(title, Ok(text)) => {
                let text = Text::Told(title.to_owned(), text);
                self.overlay = Some(Overlay::Text(text, 0));
            }
            Reply::Told(title, Err(error)) => self.notify(title, error),
            Reply::Done(Ok(text)) => self.hint = (!text.is_empty()).then_some(text),
            Reply::Done(Err(error)) => self.notify("That could not be done", error),
            Reply::DiskUse(run, bytes) => self.ask_delete(run, bytes),
            Reply::Judged(runs, members, judgement) => {
                self.watch.judged(&runs, &members, &judgement);
                if let Some(preview) = self.runs.watch() {
                    preview.judged(&runs, &members, &judgement);
                }
                let shown = [Screen::Watch, Screen::Runs].contains(&self.screen);
                self.dirty = was_dirty || shown;
            }
            Reply::Fault(fault) => self.exit = Some(Exit::Fault(fault)),
        }
    }

    /// Takes what is new of a sweep.
    fn swept(&mut self, name: &str, result: Result<Box<Sweep>, String>, was_dirty: bool) {
        if let Ok(sweep) = &result {
            self.note_status(name, sweep.summary.status);
        }
        if let Some(shown) = self.sweep.as_mut().filter(|sweep| sweep.name == name) {
            shown.set(result.map(|sweep| *sweep));
        }
        self.dirty = was_dirty || self.screen == Screen::Sweep;
    }

    /// Takes what is kept for the user.
    fn kept(&mut self, kept: Result<Kept, String>) {
        let kept = match kept {
            Ok(kept) => kept,
            Err(error) => return self.notify("What is kept cannot be read", error),
        };
        self.views = view::read(&kept.views);
        let (keymap, problems) = Keymap::with(&kept.keys);
        self.keymap = keymap;
        if !problems.is_empty() {
            let title = format!("{} is left out", kept.keys_path);
            self.notify(&title, problems.join("\n"));
        }
        self.look_as_before();
    }

    /// Looks at the watched runs as their experiment was looked at before.
    fn look_as_before(&mut self) {
        let view = self
            .watch
            .experiment()
            .and_then(|name| self.views.get(name));
        if let Some(view) = view.cloned() {
            let commands = self.watch.set_view(view);
            self.commands.extend(commands);
        }
    }

    /// Takes the list of runs; the first one decides which screen the lab opens on.
    fn listed(&mut self, runs: Result<Vec<RunSummary>, String>, was_dirty: bool) {
        let known = runs.as_deref().unwrap_or_default();
        self.mine.retain(|name| {
            let run = known.iter().find(|run| run.name == *name);
            run.is_none_or(|run| run.status == RunStatus::Live)
        });
        let mut live = known
            .iter()
            .filter(|run| run.status == RunStatus::Live && run.points.is_none());
        let live = live.next().map(|run| run.name.clone());
        let none = runs.as_ref().is_ok_and(Vec::is_empty);
        self.runs.set(runs);
        self.watch.entitle(self.runs.list());
        self.dirty = was_dirty || self.screen == Screen::Runs;
        if !self.settled {
            self.settled = true;
            match live {
                Some(live) => self.open(vec![live]),
                None if none => self.go(Screen::Compose),
                None => {}
            }
            self.dirty = true;
        }
    }

    /// Takes what is new of a run.
    fn fed(&mut self, run: &str, first: bool, update: Result<FeedUpdate, String>, was_dirty: bool) {
        // Of a point it is the sweep that is live, and that leaving asks about.
        if let Ok(update) = &update
            && !self.is_point(run)
        {
            self.note_status(run, update.status);
        }
        self.want_catalog();
        let known = self.watch.experiment().is_some();
        let commands = self.watch.feed(run, first, update);
        self.commands.extend(commands);
        if !known {
            self.look_as_before();
        }
        self.dirty = was_dirty || self.screen == Screen::Watch;
    }

    fn ask_delete(&mut self, run: String, bytes: Result<u64, String>) {
        match bytes {
            Ok(bytes) => {
                let text = format!(
                    "{run}: delete its folder with {}, checkpoints, events and figures? It cannot be brought back.",
                    machine::bytes(bytes)
                );
                self.overlay = Some(Overlay::Ask(Ask {
                    title: "Delete the run?".into(),
                    text,
                    then: Command::Delete(run),
                    hint: "deleting…".into(),
                }));
            }
            Err(error) => self.notify("It cannot be deleted", error),
        }
    }

    fn started(&mut self, result: Result<Started, String>) {
        self.compose.starting = false;
        let started = match result {
            Ok(started) => started,
            Err(error) => return self.notify("It could not be started", error),
        };
        let (Started::Run(name) | Started::Sweep(name)) = &started;
        self.note_status(name, RunStatus::Live);
        match started {
            Started::Run(run) if self.screen == Screen::Compose => self.open(vec![run]),
            Started::Sweep(sweep) if self.screen == Screen::Compose => self.open_sweep(sweep),
            Started::Run(name) | Started::Sweep(name) => {
                self.hint = Some(format!("{name} was started"));
            }
        }
    }

    fn resumed(&mut self, run: String, result: Result<(), String>) {
        if let Err(error) = result {
            return self.notify("It could not be resumed", error);
        }
        if !self.is_point(&run) {
            self.note_status(&run, RunStatus::Live);
        }
        match self.is_sweep(&run) {
            true => self.open_sweep(run),
            false => self.open(vec![run]),
        }
    }

    fn stop_asked(&mut self, run: &str, result: Result<(), String>) {
        let leaving = self.stopping.iter().any(|name| name == run);
        self.stopping.retain(|name| name != run);
        match result {
            Ok(()) => {
                self.hint = Some(format!("{run} stops at its next step, with a checkpoint"));
                if leaving {
                    self.mine.retain(|name| name != run);
                }
            }
            Err(error) => {
                self.stopping.clear();
                return self.notify("It could not be stopped", error);
            }
        }
        if leaving && self.stopping.is_empty() {
            self.exit = Some(Exit::Quit);
        }
    }
}

//! What the lab's thread replies, and what becomes of it on the screens.

use forgetlab_study::run::RunStatus;

use super::super::event::Reply;
use super::super::lab::Started;
use super::super::screens::Screen;
use super::super::screens::compare::Compare;
use super::{App, Exit};

impl App {
    /// Applies a reply of the lab's thread.
    pub(super) fn reply(&mut self, reply: Reply) {
        let was_dirty = std::mem::replace(&mut self.dirty, true);
        // A reply ends a hint such as "starting…", unless it is only an update of what is followed.
        if !matches!(
            reply,
            Reply::Feed { .. } | Reply::Runs(_) | Reply::Sweep(..) | Reply::Judged(..)
        ) {
            self.hint = None;
        }
        match reply {
            Reply::Experiments(experiments) => self.new_run.set_experiments(experiments),
            Reply::Plugins(plugins) => self.plugins.list = Some(plugins),
            Reply::Devices(devices) => self.new_run.set_devices(devices),
            Reply::Runs(runs) => {
                let known = runs.as_deref().unwrap_or_default();
                self.mine.retain(|name| {
                    let run = known.iter().find(|run| run.name == *name);
                    run.is_none_or(|run| run.status == RunStatus::Live)
                });
                self.runs.set(runs);
                self.dirty = was_dirty || self.screen == Screen::Runs;
            }
            Reply::Feed { run, first, update } => {
                // Of a point it is the sweep that is live, and that leaving asks about.
                if let Ok(update) = &update
                    && !self.is_point(&run)
                {
                    self.note_status(&run, update.status);
                }
                let shown = self.live.as_mut().filter(|live| live.run == run);
                if let Some(live) = shown {
                    self.commands.extend(live.feed(first, update));
                }
                self.dirty = was_dirty || matches!(self.screen, Screen::Live | Screen::Arm);
            }
            Reply::Sweep(name, result) => {
                if let Ok(sweep) = &result {
                    self.note_status(&name, sweep.summary.status);
                }
                if let Some(shown) = self.sweep.as_mut().filter(|sweep| sweep.name == name) {
                    shown.set(result.map(|sweep| *sweep));
                }
                self.dirty = was_dirty || self.screen == Screen::Sweep;
            }
            Reply::Started(result) => self.started(result),
            Reply::Resumed(run, result) => self.resumed(run, result),
            Reply::Stopping(run, result) => self.stop_asked(&run, result),
            Reply::Compared(runs) => {
                let (compare, commands) = Compare::new(runs);
                self.compare = compare;
                self.commands.extend(commands);
                self.go(Screen::Compare);
            }
            Reply::Exported(Ok(paths)) => {
                let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
                self.notify("Written", paths.join("\n"));
            }
            Reply::Exported(Err(error)) => self.notify("Not everything could be written", error),
            Reply::Judged(runs, members, judgement) => {
                if let Some(live) = &mut self.live {
                    live.judged(&runs, &members, &judgement);
                }
                self.compare.judged(&runs, &members, &judgement);
                let shown = [Screen::Live, Screen::Arm, Screen::Compare].contains(&self.screen);
                self.dirty = was_dirty || shown;
            }
            Reply::Fault(fault) => self.exit = Some(Exit::Fault(fault)),
        }
    }

    fn started(&mut self, result: Result<Started, String>) {
        self.new_run.starting = false;
        let started = match result {
            Ok(started) => started,
            Err(error) => return self.notify("It could not be started", error),
        };
        let (Started::Run(name) | Started::Sweep(name)) = &started;
        self.note_status(name, RunStatus::Live);
        match started {
            Started::Run(run) if self.screen == Screen::NewRun => self.open(run),
            Started::Sweep(sweep) if self.screen == Screen::NewRun => self.open_sweep(sweep),
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
            false => self.open(run),
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

//! The list of runs, live ones first, and beside it a picture of the one under the cursor.

mod draw;
mod filter;

use std::collections::BTreeSet;

use forgetlab_study::filter::Filter;
use forgetlab_study::run::RunStatus;

use crate::event::Command;
use crate::keymap::Action;
use crate::lab::{FeedUpdate, LabelChange, Preview, RunSummary};

use super::watch::Watch;
use super::{Effects, Prompt, step, sweep};

/// State of the list.
#[derive(Debug, Default)]
pub struct Runs {
    /// Runs, live ones first, then the newest; `None` until they are read.
    list: Option<Vec<RunSummary>>,
    /// Why they cannot be read.
    problem: Option<String>,
    /// Name of the run under the cursor: new runs do not move it.
    cursor: Option<String>,
    marks: BTreeSet<String>,
    /// The text of the filter, and the filter or why it is none.
    filter: (String, Option<Result<Filter, String>>),
    /// The run that is shown beside the list.
    preview: Option<Shown>,
}

/// A run beside the list.
#[derive(Debug)]
struct Shown {
    name: String,
    watch: Watch,
    differs: Option<(String, Vec<String>)>,
}

impl Runs {
    /// Replaces the list.
    pub fn set(&mut self, list: Result<Vec<RunSummary>, String>) {
        match list {
            Ok(mut list) => {
                self.marks
                    .retain(|name| list.iter().any(|run| run.name == *name));
                // Stable: within both parts the newest stays first.
                list.sort_by_key(|run| run.status != RunStatus::Live);
                self.list = Some(list);
                self.problem = None;
            }
            Err(problem) => self.problem = Some(problem),
        }
    }

    /// All runs read.
    pub fn list(&self) -> &[RunSummary] {
        self.list.as_deref().unwrap_or_default()
    }

    /// Whether the list was read and has none.
    pub fn has_none(&self) -> bool {
        self.list.as_ref().is_some_and(Vec::is_empty)
    }

    /// The runs that pass the filter.
    fn shown(&self) -> Vec<&RunSummary> {
        let list = self.list().iter();
        match &self.filter.1 {
            Some(Ok(filter)) => list.filter(|run| run.passes(filter)).collect(),
            Some(Err(_)) => Vec::new(),
            None => list.collect(),
        }
    }

    fn index(&self, shown: &[&RunSummary]) -> usize {
        let at = |name: &String| shown.iter().position(|run| run.name == *name);
        self.cursor.as_ref().and_then(at).unwrap_or(0)
    }

    /// The run under the cursor.
    pub fn current(&self) -> Option<&RunSummary> {
        let shown = self.shown();
        shown.get(self.index(&shown)).copied()
    }

    /// Names of the marked runs that are shown, in order; if none is, of the one under the cursor.
    fn chosen(&self) -> Vec<String> {
        let shown = self.shown();
        let names = shown.iter().map(|run| &run.name);
        let marked: Vec<String> = names.filter(|n| self.marks.contains(*n)).cloned().collect();
        match marked.is_empty() {
            true => self
                .current()
                .map(|run| run.name.clone())
                .into_iter()
                .collect(),
            false => marked,
        }
    }

    /// Whether a name is that of a sweep.
    pub fn is_sweep(&self, name: &str) -> bool {
        let mut list = self.list().iter();
        list.any(|run| run.name == name && run.points.is_some())
    }

    /// The command that reads what is to be shown beside the list, where that is not there.
    pub fn wanted_preview(&mut self) -> Option<Command> {
        let run = self
            .current()
            .filter(|run| run.points.is_none() && run.problem.is_none())?;
        let name = run.name.clone();
        let live = run.status == RunStatus::Live;
        let there = self.preview.as_ref().filter(|shown| shown.name == name);
        let stale = |shown: &Shown| shown.watch.is_live() != live;
        if there.is_some_and(|shown| !stale(shown)) {
            return None;
        }
        let watch = Watch::new(vec![name.clone()]);
        self.preview = Some(Shown {
            name: name.clone(),
            watch,
            differs: None,
        });
        Some(Command::Preview(name))
    }

    /// Keeps what is shown beside the list. Returns what is to be computed for it.
    pub fn previewed(&mut self, name: &str, preview: Result<Box<Preview>, String>) -> Vec<Command> {
        let Some(shown) = self.preview.as_mut().filter(|shown| shown.name == name) else {
            return Vec::new();
        };
        let update = preview.map(|preview| {
            shown.differs = preview.differs;
            FeedUpdate {
                before: Some(Box::new(preview.state)),
                records: Vec::new(),
                status: preview.status,
                why: None,
            }
        });
        let commands = shown.watch.feed(name, true, update);
        if let Some(run) = self.list.iter().flatten().find(|run| run.name == name) {
            shown.watch.entitle(std::slice::from_ref(run));
        }
        commands
    }

    /// The arms of the run beside the list, for verdicts.
    pub fn watch(&mut self) -> Option<&mut Watch> {
        self.preview.as_mut().map(|shown| &mut shown.watch)
    }

    /// Filters the list by another text, or takes the filter away.
    fn set_filter(&mut self, text: &str) {
        let text = text.trim();
        let read =
            (!text.is_empty()).then(|| Filter::parse(text).map_err(|error| error.to_string()));
        self.filter = (text.to_owned(), read);
    }

    fn go_to(&mut self, by: isize) {
        let shown = self.shown();
        let index = step(self.index(&shown), by, shown.len());
        self.cursor = shown.get(index).map(|run| run.name.clone());
    }

    /// Applies an action; `argument` is what a command line says behind its name, `height` the body's.
    pub fn act(
        &mut self,
        action: Action,
        argument: Option<&str>,
        height: u16,
        effects: &mut Effects,
    ) {
        let page = isize::from(height.saturating_sub(3).max(1) as i16);
        match action {
            Action::Up => return self.go_to(-1),
            Action::Down => return self.go_to(1),
            Action::PageUp => return self.go_to(-page),
            Action::PageDown => return self.go_to(page),
            Action::First => return self.go_to(isize::MIN),
            Action::Last => return self.go_to(isize::MAX),
            Action::Filter => match argument {
                Some(text) => self.set_filter(text),
                None => effects.prompt = Some(Prompt::Filter(self.filter.0.clone())),
            },
            Action::Back => match self.filter.0.is_empty() {
                true => self.marks.clear(),
                false => self.set_filter(""),
            },
            _ => {}
        }
        if let Some(run) = self.current().cloned() {
            match run.points.is_some() {
                true => self.act_on_sweep(action, argument, &run, effects),
                false => self.act_on_run(action, argument, run, effects),
            }
        }
    }

    fn act_on_run(
        &mut self,
        action: Action,
        argument: Option<&str>,
        run: RunSummary,
        effects: &mut Effects,
    ) {
        match action {
            Action::Enter if self.chosen().len() > 1 => effects.open = self.chosen(),
            Action::Enter => match &run.problem {
                Some(problem) => effects.notice = Some(problem.clone()),
                None => effects.open = vec![run.name],
            },
            Action::Mark => {
                if !self.marks.remove(&run.name) {
                    self.marks.insert(run.name);
                }
                self.go_to(1);
            }
            Action::Export => {
                effects.ask(Command::Export(self.chosen()), "writing CSVs and figures…");
            }
            Action::Resume if run.status.is_resumable() => {
                effects.ask(Command::Resume(run.name), "resuming…");
            }
            Action::Resume => effects.hint(match run.status {
                RunStatus::Live => "this run is live already",
                _ => "this run has finished: there is nothing to resume",
            }),
            Action::Stop if run.status == RunStatus::Live => effects.ask_stop(run.name),
            Action::Stop => effects.hint("this run is not live"),
            Action::Again => effects.ask(Command::Again(run.name), "reading its configuration…"),
            Action::Diff => self.diff(&run, effects),
            Action::Delete if run.status == RunStatus::Live => {
                effects.hint("this run is live: X stops it");
            }
            Action::Delete => {
                effects.ask(Command::AskDelete(run.name), "looking how much it takes…")
            }
            other => label(other, argument, &run, effects),
        }
    }

    /// Says in which settings the marked runs differ, or this one and the next below it of its experiment.
    fn diff(&self, run: &RunSummary, effects: &mut Effects) {
        let mut runs = self.chosen();
        if runs.len() < 2 {
            let shown = self.shown();
            let below = shown.iter().skip(self.index(&shown) + 1);
            let mut below = below.filter(|other| other.points.is_none());
            let other = below.find(|other| other.experiment == run.experiment);
            match other {
                Some(other) => runs = vec![run.name.clone(), other.name.clone()],
                None => {
                    return effects.hint("no other run of this experiment below; space marks runs");
                }
            }
        }
        effects.ask(Command::Diff(runs), "comparing their settings…");
    }

    fn act_on_sweep(
        &mut self,
        action: Action,
        argument: Option<&str>,
        sweep: &RunSummary,
        effects: &mut Effects,
    ) {
        let name = &sweep.name;
        match action {
            Action::Enter if self.chosen().len() > 1 => effects.open = self.chosen(),
            Action::Enter => effects.open_sweep = Some(name.clone()),
            Action::Mark => effects
                .hint("a sweep is compared as one; Enter opens its points, which can be marked"),
            Action::Export => effects.hint(format!("`forgetlab figure {name}` draws its figures")),
            Action::Resume => sweep::resume(name, sweep.status, effects),
            Action::Stop if sweep.status == RunStatus::Live => effects.ask_stop_sweep(name.clone()),
            Action::Stop => effects.hint("this sweep is not live"),
            Action::Diff | Action::Again | Action::Delete => {
                effects.hint("this is a sweep: Enter opens its points");
            }
            other => label(other, argument, sweep, effects),
        }
    }
}

/// Actions that change what is written to a run.
fn label(action: Action, argument: Option<&str>, run: &RunSummary, effects: &mut Effects) {
    let name = run.name.clone();
    let prompt = match (action, argument) {
        (Action::Rename, None) => Prompt::Name(name, run.labels.name.clone().unwrap_or_default()),
        (Action::Note, None) => Prompt::Note(name, run.labels.note.clone()),
        (Action::Tag, None) => Prompt::Tag(name),
        (Action::Rename | Action::Note | Action::Tag, Some(text)) => {
            let change = match action {
                Action::Rename => LabelChange::Name(text.to_owned()),
                Action::Note => LabelChange::Note(text.to_owned()),
                _ => LabelChange::Tags(text.split_whitespace().map(str::to_owned).collect()),
            };
            return effects.ask(Command::Label(name, change), "writing it down…");
        }
        _ => return,
    };
    effects.prompt = Some(prompt);
}

//! The runs being watched: what their arms kept and learned, in panes over a table of arms.

mod act;
mod alerts;
mod draw;
mod filter;
mod layout;
mod panes;
mod shown;
mod table;
mod times;

use std::collections::{HashMap, HashSet};

use forgetlab_study::filter::Filter;
use forgetlab_study::report::{ArmSeeds, Judgement};
use forgetlab_study::run::{Event, Record, ReplayLook, RunState, RunStatus, SampleLook};
use ratatui::layout::Rect;

use crate::arms::{Arms, Group, Member, Of, Runs};
use crate::event::Command;
use crate::figures::Metric;
use crate::lab::{FeedUpdate, RunSummary};
use crate::track::{Axis, Columns};
use crate::view::{Pane, View};
use crate::widgets::names::end_of;
use crate::widgets::plot::Range;

pub use alerts::Alert;
pub use shown::Shown;
use table::ArmRow;
pub use table::Column;

/// A run on the screen.
#[derive(Debug, Default)]
pub struct Watched {
    /// Name of the run.
    pub name: String,
    /// State of the run, from the records so far.
    pub state: RunState,
    /// Status of the run; `None` until the first update.
    pub status: Option<RunStatus>,
    /// Why the worker of a crashed run ended, where that is known.
    pub why: Option<String>,
    /// Why the run cannot be read (any more), if it cannot.
    pub problem: Option<String>,
    /// Its display name, if it was given one.
    pub title: Option<String>,
}

impl Watched {
    /// Whether a worker is running it.
    pub fn is_live(&self) -> bool {
        self.status == Some(RunStatus::Live) && self.problem.is_none()
    }

    /// Takes what is new of it, and gives its events back. The first update begins it anew, and so does one with a state
    /// to go on from.
    pub fn take(&mut self, first: bool, update: FeedUpdate) -> Vec<Record> {
        if first || update.before.is_some() {
            self.state = update.before.map(|before| *before).unwrap_or_default();
            self.problem = None;
        }
        for record in &update.records {
            self.state.apply(record);
        }
        // A killed worker left no word that what its arms waited for will not come.
        if update.status != RunStatus::Live {
            self.state.nobody_waits();
        }
        self.status = Some(update.status);
        self.why = update.why;
        update.records
    }
}

/// Texts that are kept at once, of each kind.
const LOOKS: usize = 256;

/// A replay batch, or what a student wrote, by run, arm and step.
type LookAt = (usize, usize, u64);

/// State of the screen.
#[derive(Debug, Default)]
pub struct Watch {
    /// The runs, in the order in which they were opened.
    pub runs: Vec<Watched>,
    /// The sweep from whose points they were opened, to go back to.
    pub sweep: Option<String>,
    /// Their arms over the seeds, and the verdicts on them.
    pub arms: Arms,
    /// How they are looked at.
    pub view: View,
    /// Where every arm is read, on the x axis.
    cursor: Option<f64>,
    /// The step there.
    cursor_step: Option<f64>,
    /// What of the x axis is shown; `None` for all of it.
    window: Option<Range>,
    /// Index of the arm (or of the single seed) under the cursor.
    arm: usize,
    /// The pane that has the focus; `None` for the table.
    focus: Option<Pane>,
    /// Lines of the text with the focus that are scrolled away, from its beginning (of the log from its end).
    scroll: usize,
    /// How many phases back the picture of what was kept is of.
    phases_back: usize,
    /// Names of the numbers that plugins gave.
    plugin_names: Vec<String>,
    /// Replay batches whose texts were read.
    looks: HashMap<LookAt, Result<ReplayLook, String>>,
    /// What students wrote at steps whose texts were read.
    written: HashMap<LookAt, Result<SampleLook, String>>,
    /// The pane and the place of texts that were asked for.
    asked: HashSet<(Pane, LookAt)>,
    /// Whether the filter cannot be read, and why.
    filter_problem: Option<String>,
    filter: Option<Filter>,
    /// Seconds since the Unix epoch.
    pub now: f64,
}

impl Watch {
    /// Runs that have not been read yet.
    pub fn new(runs: Vec<String>) -> Self {
        let run = |name| Watched {
            name,
            ..Watched::default()
        };
        Self {
            runs: runs.into_iter().map(run).collect(),
            ..Self::default()
        }
    }

    /// Names of the runs.
    pub fn names(&self) -> Vec<String> {
        self.runs.iter().map(|run| run.name.clone()).collect()
    }

    /// The runs that are shown, each with its name.
    fn states(&self) -> Vec<(&str, &RunState)> {
        let runs = self.runs.iter();
        runs.map(|run| (run.name.as_str(), &run.state)).collect()
    }

    /// The run that is described where only one can be.
    pub fn first(&self) -> Option<&Watched> {
        self.runs.first()
    }

    /// The experiment whose view this is; `None` before it is known.
    pub fn experiment(&self) -> Option<&str> {
        let mut names = self.runs.iter().map(|run| run.state.experiment.as_str());
        names.find(|name| !name.is_empty())
    }

    /// Applies an update of a run. Returns what is to be computed for it.
    pub fn feed(
        &mut self,
        run: &str,
        first: bool,
        update: Result<FeedUpdate, String>,
    ) -> Vec<Command> {
        let Some(at) = self.runs.iter().position(|known| known.name == run) else {
            return Vec::new();
        };
        let run = &mut self.runs[at];
        match update {
            Ok(update) => {
                let goes_back = |record: &Record| matches!(record.event, Event::Rewound { .. });
                if first || update.before.is_some() || update.records.iter().any(goes_back) {
                    self.arms.restart();
                }
                let records = run.take(first, update);
                self.note_names(at, &records);
            }
            Err(problem) => run.problem = Some(problem),
        }
        let commands = self.update_arms();
        // What is drawn and told of it is taken up: the rest need not be kept.
        self.runs[at].state.thin();
        commands
    }

    /// Notes the names of a plugin's numbers: those of records, or of all that was before.
    fn note_names(&mut self, run: usize, records: &[Record]) {
        let of_record = |record: &'_ Record| match &record.event {
            Event::PluginMetric { name, .. } => Some(name.clone()),
            _ => None,
        };
        let mut note = |name: &String| {
            if !self.plugin_names.contains(name) {
                self.plugin_names.push(name.clone());
            }
        };
        if records.is_empty() {
            let arms = self.runs[run].state.arms.iter();
            arms.flat_map(|arm| &arm.plugin_metrics)
                .for_each(|(_, name, _)| note(name));
        }
        records
            .iter()
            .filter_map(of_record)
            .for_each(|name| note(&name));
    }

    /// Takes up what is new in the runs.
    fn update_arms(&mut self) -> Vec<Command> {
        let mut arms = std::mem::take(&mut self.arms);
        if arms.apart != self.view.apart {
            arms = Arms::new(self.view.apart);
        }
        let questions = arms.update(&self.states());
        self.arms = arms;
        self.arm = self.arm.min(self.arms.groups().len().saturating_sub(1));
        let names = self.names();
        let ask = |question| Command::Judge(names.clone(), question);
        questions.into_iter().map(ask).collect()
    }

    /// Looks at the runs as another view has it.
    pub fn set_view(&mut self, view: View) -> Vec<Command> {
        // One pane alone is a look, not a way of looking.
        self.view = View {
            zoomed: false,
            ..view
        };
        self.read_filter();
        self.update_arms()
    }

    /// Keeps a verdict, if it is about these runs.
    pub fn judged(&mut self, runs: &[String], members: &[Member], judgement: &Judgement) {
        if runs == self.names() {
            self.arms.judged(members.to_vec(), judgement.clone());
        }
    }

    /// Keeps the texts of a replay batch.
    pub fn seen(&mut self, run: &str, arm: usize, step: u64, look: Result<ReplayLook, String>) {
        if let Some(run) = self.runs.iter().position(|known| known.name == run) {
            self.forget_texts(self.looks.len());
            self.looks.insert((run, arm, step), look);
        }
    }

    /// What the footer shows first while one pane is shown alone, or the cursor is on.
    pub fn ways_out(&self) -> Vec<(String, &'static str)> {
        let mut ways = Vec::new();
        if self.view.zoomed || self.cursor.is_some() {
            ways.push(("Esc".to_owned(), "back"));
        }
        if self.cursor.is_some() {
            ways.push(("←→".to_owned(), "step"));
        }
        ways
    }

    /// Puts the cursor on an arm.
    ///
    /// # Errors
    /// The names of the arms where it is none of them.
    pub fn point_at(&mut self, arm: &str) -> Result<(), Vec<String>> {
        let groups = self.arms.groups();
        let found = groups.iter().position(|group| group.label == arm);
        let names = || -> Vec<String> { groups.iter().map(|group| group.label.clone()).collect() };
        self.arm = found.ok_or_else(names)?;
        Ok(())
    }

    /// Keeps what a student wrote.
    pub fn wrote(&mut self, run: &str, arm: usize, step: u64, look: Result<SampleLook, String>) {
        if let Some(run) = self.runs.iter().position(|known| known.name == run) {
            self.forget_texts(self.written.len());
            self.written.insert((run, arm, step), look);
        }
    }

    /// Forgets texts where there are so many, which are then asked for again where they are looked at.
    fn forget_texts(&mut self, known: usize) {
        if known >= LOOKS {
            self.looks.clear();
            self.written.clear();
            self.asked.clear();
        }
    }

    /// Asks for texts that are shown on a screen of this size and are not known; once for each.
    pub fn wanted_texts(&mut self, body: Rect) -> Option<Command> {
        let shown = layout::panes_shown(body, &self.view, self.focus);
        let replay = self.wanted_look().map(|at| (Pane::Replay, at));
        let samples = self.wanted_samples().map(|at| (Pane::Samples, at));
        let mut wanted = replay.into_iter().chain(samples);
        let (pane, at) =
            wanted.find(|asked| shown.contains(&asked.0) && !self.asked.contains(asked))?;
        self.asked.insert((pane, at));
        let (run, arm, step) = at;
        let run = self.runs[run].name.clone();
        Some(match pane {
            Pane::Samples => Command::ReadSamples(run, arm, step),
            _ => Command::Look(run, arm, step),
        })
    }

    /// The step that the cursor is at, or stands behind; `None` where there is no cursor.
    fn step_at_cursor(&self) -> Option<u64> {
        self.cursor.and(self.cursor_step).map(|step| step as u64)
    }

    /// Takes the display names of runs.
    pub fn entitle(&mut self, list: &[RunSummary]) {
        for run in &mut self.runs {
            if let Some(listed) = list.iter().find(|listed| listed.name == run.name) {
                run.title.clone_from(&listed.labels.name);
            }
        }
    }

    /// The arm under the cursor.
    pub fn group(&self) -> Option<&Group> {
        self.arms.groups().get(self.arm)
    }

    /// The seeds of an arm.
    fn seeds(&self, group: &Group) -> ArmSeeds<'_> {
        group.seeds(&self.states())
    }

    /// Whether a worker is running one of them.
    pub fn is_live(&self) -> bool {
        self.runs.iter().any(Watched::is_live)
    }

    /// What the curves show.
    fn shown(&self) -> Shown {
        let runs = self.states();
        let all = Shown::all(&self.arms, &runs, &self.plugin_names);
        let named = all
            .into_iter()
            .find(|shown| shown.name(&self.arms) == self.view.shown);
        named.unwrap_or_else(|| {
            let metric = runs
                .first()
                .map(|(_, run)| Metric::first_of(run))
                .unwrap_or_default();
            // Before there is old data, what is being learned.
            let any_old = self.phases_with_old() > 0;
            Shown::Score(if any_old { Of::Old } else { Of::New }, metric)
        })
    }

    /// The metric of the table and of the small panels.
    fn metric(&self) -> Metric {
        self.shown().metric().unwrap_or_else(|| self.first_metric())
    }

    /// The metric that the runs are shown in first.
    fn first_metric(&self) -> Metric {
        let run = self.first().map(|run| Metric::first_of(&run.state));
        run.unwrap_or_default()
    }

    /// The arms that are shown, in the order of the table.
    fn rows(&self) -> Vec<ArmRow<'_>> {
        let runs = self.states();
        let groups = self.arms.groups().iter();
        let shown = groups.filter(|group| !self.view.hidden.contains(&group.label));
        let first = self.first_of_several();
        let row = |group| ArmRow {
            group,
            seeds: group.seeds(&runs),
            judgement: self.arms.judgement(group),
            left: self.time_left(group),
            base: self
                .compared_with(group, first)
                .and_then(|base| base.figures(self.metric()).forgot),
            pinned: self.view.pinned.contains(&group.label),
        };
        let rows = shown.map(row).filter(|row| self.passes(row));
        let mut rows: Vec<ArmRow> = rows.collect();
        table::sort(&mut rows, self.sort(), self.metric());
        rows
    }

    /// The column by which the table is sorted, and whether that order is turned.
    fn sort(&self) -> (Column, bool) {
        let column = Column::named(&self.view.sort).unwrap_or(Column::Kept);
        (column, self.view.reversed)
    }

    /// The run whose arms those of the others are compared with, each with that of its name: the first of several that
    /// have arms in common.
    fn first_of_several(&self) -> Option<usize> {
        let first = (0..self.runs.len()).min_by_key(|&run| &self.runs[run].name)?;
        let groups = self.arms.groups();
        let has_twin = |group: &Group| !group.is_of(first) && self.twin(group, first).is_some();
        groups.iter().any(has_twin).then_some(first)
    }

    /// The arm of a run that has the name of another run's, and its seed where seeds stand apart.
    fn twin(&self, group: &Group, run: usize) -> Option<&Group> {
        let (own, apart) = (&group.mean.info, self.view.apart);
        let mut groups = self.arms.groups().iter().filter(|other| other.is_of(run));
        groups.find(|other| {
            let info = &other.mean.info;
            info.name == own.name && (!apart || info.seed == own.seed)
        })
    }

    /// The arm that another one is compared with: that of its name in the first of several runs, else plain finetuning.
    fn compared_with(&self, group: &Group, first: Option<usize>) -> Option<&Group> {
        match first {
            Some(run) if group.is_of(run) => None,
            Some(run) => self.twin(group, run),
            None => self.plain().filter(|plain| plain.index != group.index),
        }
    }

    /// Plain finetuning.
    fn plain(&self) -> Option<&Group> {
        let mut groups = self.arms.groups().iter();
        groups.find(|group| group.mean.info.name == "none")
    }

    /// Name of what arms are compared with.
    fn baseline(&self) -> Option<String> {
        match self.first_of_several() {
            Some(run) => Some(end_of(&self.runs[run].name).to_owned()),
            None => Some(self.plain()?.label.clone()),
        }
    }

    /// The axis of the curves.
    fn axis(&self) -> Axis {
        self.view.axis
    }

    /// The axis of the curves in words.
    fn axis_words(&self) -> String {
        let name = self.axis().name();
        match self.view.log_axis {
            true => format!("log {name}"),
            false => name.to_owned(),
        }
    }

    /// Columns of dots for a drawing of such a width.
    fn columns(&self, x: Range, width: u16) -> Columns {
        Columns {
            low: x.low,
            high: x.high,
            count: 2 * usize::from(width.max(1)),
            log: self.view.log_axis && x.low > 0.0,
        }
    }

    /// What of the x axis there is; of a logarithmic one, from the first place behind 0.
    fn extent(&self, rows: &[ArmRow]) -> Range {
        let axis = self.axis();
        let mut end = 0.0f64;
        for row in rows {
            if let Some(at) = row.group.track.end() {
                end = end.max(at.on(axis));
            }
            if axis == Axis::Steps {
                let steps = row
                    .seeds
                    .seeds
                    .iter()
                    .map(|(run, arm)| run.total_steps_of(arm));
                end = end.max(steps.max().unwrap_or(0) as f64);
            }
        }
        let high = if end > 0.0 { end } else { 1.0 };
        let low = if self.view.log_axis {
            let places = rows.iter().flat_map(|row| row.group.track.places());
            let places = places.map(|place| place.on(axis));
            places.filter(|&at| at > 0.0).fold(high, f64::min)
        } else {
            0.0
        };
        Range { low, high }
    }
}

/// Whether runs are alike enough to share phases under one axis.
fn shared_phases<'a>(runs: Runs<'a>) -> Option<&'a RunState> {
    let (_, first) = *runs.first()?;
    runs.iter()
        .all(|(_, run)| run.phases == first.phases)
        .then_some(first)
}

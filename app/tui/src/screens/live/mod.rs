//! The watched run: one panel of curves per arm, side by side, and the table of arms below.

mod draw;

use forgetlab_study::report::{ArmSeeds, Judgement};
use forgetlab_study::run::{Level, LogLine, RunState, RunStatus};
use ratatui::layout::{Constraint, Layout, Rect, Size};
use ratatui::style::Style;

use crate::arms::{Arms, Group, Member};
use crate::event::Command;
use crate::figures::Metric;
use crate::keymap::Action;
use crate::lab::FeedUpdate;
use crate::theme::Theme;
use crate::widgets::arm_table::{self, Sort};
use crate::widgets::grid::Grid;
use crate::widgets::text::{clip, seconds};

use super::{Effects, Screen};

/// State of the watched run's screens.
#[derive(Debug)]
pub struct Live {
    /// Name of the run.
    pub run: String,
    /// The sweep from whose points it was opened, to go back to.
    pub sweep: Option<String>,
    /// State of the run, from the records so far.
    pub state: RunState,
    /// Its arms over their seeds, and the verdicts on them.
    pub arms: Arms,
    /// Status of the run; `None` until the first update.
    pub status: Option<RunStatus>,
    /// Why the worker of a crashed run ended, where that is known.
    pub why: Option<String>,
    /// Why the run cannot be read (any more), if it cannot.
    pub problem: Option<String>,
    /// Metric of the curves.
    pub metric: Metric,
    /// Order of the table.
    pub sort: Sort,
    /// Whether future datasets have curves.
    pub future: bool,
    /// Index of the arm (or of the single seed) under the cursor.
    pub arm: usize,
    /// Number of lines at the end of an arm's log that are scrolled out of sight.
    pub log_back: usize,
}

impl Live {
    /// A run that has not been read yet.
    pub fn new(run: String) -> Self {
        Self {
            run,
            sweep: None,
            state: RunState::default(),
            arms: Arms::default(),
            status: None,
            why: None,
            problem: None,
            metric: Metric::default(),
            sort: Sort::default(),
            future: false,
            arm: 0,
            log_back: 0,
        }
    }

    /// Applies an update of the run. Returns what is to be computed for it.
    pub fn feed(&mut self, first: bool, update: Result<FeedUpdate, String>) -> Vec<Command> {
        match update {
            Ok(update) => {
                if first {
                    self.state = update.before.map(|before| *before).unwrap_or_default();
                    self.metric = Metric::first_of(&self.state);
                    self.arms = Arms::new(self.arms.apart);
                    self.problem = None;
                }
                for record in &update.records {
                    self.state.apply(record);
                }
                self.status = Some(update.status);
                self.why = update.why;
            }
            Err(problem) => self.problem = Some(problem),
        }
        self.update_arms()
    }

    fn update_arms(&mut self) -> Vec<Command> {
        let questions = self.arms.update(&[(&self.run, &self.state)]);
        self.arm = self.arm.min(self.arms.groups().len().saturating_sub(1));
        let ask = |question| Command::Judge(vec![self.run.clone()], question);
        questions.into_iter().map(ask).collect()
    }

    /// Keeps a verdict, if it is about this run.
    pub fn judged(&mut self, runs: &[String], members: &[Member], judgement: &Judgement) {
        if runs == [self.run.as_str()] {
            self.arms.judged(members.to_vec(), judgement.clone());
        }
    }

    /// Opens the single seeds of every arm, or closes them; the cursor stays on the arm.
    pub fn toggle_seeds(&mut self, effects: &mut Effects) {
        let at = self
            .arms
            .groups()
            .get(self.arm)
            .and_then(|group| group.members.first().copied());
        self.arms.apart = !self.arms.apart;
        effects.commands.extend(self.update_arms());
        self.arm = at
            .and_then(|member| self.arms.position(member))
            .unwrap_or(0);
        if !self.state.has_several_seeds() {
            effects.hint("every arm of this run has one seed");
        }
    }

    /// The arm under the cursor.
    pub fn group(&self) -> Option<&Group> {
        self.arms.groups().get(self.arm)
    }

    /// The seeds of an arm.
    pub fn seeds(&self, group: &Group) -> ArmSeeds<'_> {
        group.seeds(&[(&self.run, &self.state)])
    }

    /// Whether a worker is running it.
    pub fn is_live(&self) -> bool {
        self.status == Some(RunStatus::Live) && self.problem.is_none()
    }

    /// Applies a key's action on the screen of all arms.
    pub fn act(&mut self, action: Action, body: Size, effects: &mut Effects) {
        match action {
            Action::Up => self.move_cursor(-1),
            Action::Down => self.move_cursor(1),
            Action::PageUp => self.turn_page(-1, body),
            Action::PageDown => self.turn_page(1, body),
            Action::Enter if !self.arms.groups().is_empty() => {
                self.log_back = 0;
                effects.go = Some(Screen::Arm);
            }
            Action::Back => match &self.sweep {
                Some(sweep) => effects.open_sweep = Some(sweep.clone()),
                None => effects.go = Some(Screen::Runs),
            },
            Action::Metric => self.metric = self.metric.next_of(&self.state),
            Action::Sort => self.sort = self.sort.next(),
            Action::Future => self.future = !self.future,
            Action::Seeds => self.toggle_seeds(effects),
            Action::Log => effects.log = true,
            Action::Export => {
                effects.ask(
                    Command::Export(vec![self.run.clone()]),
                    "writing CSVs and figures…",
                );
            }
            Action::Stop if self.is_live() => effects.ask_stop = Some(self.run.clone()),
            Action::Stop => effects.hint("this run is not live"),
            Action::Resume if self.status.is_some_and(RunStatus::is_resumable) => {
                effects.ask(Command::Resume(self.run.clone()), "resuming…");
            }
            Action::Resume => effects.hint("only an interrupted or crashed run can be resumed"),
            _ => {}
        }
    }

    /// Arms in the order of the table.
    pub fn order(&self) -> Vec<usize> {
        let runs = [(self.run.as_str(), &self.state)];
        arm_table::order(self.arms.groups(), &runs, self.sort, self.metric)
    }

    fn move_cursor(&mut self, by: isize) {
        let order = self.order();
        let at = order.iter().position(|arm| *arm == self.arm).unwrap_or(0);
        self.arm = order
            .get(super::step(at, by, order.len()))
            .copied()
            .unwrap_or(0);
    }

    fn turn_page(&mut self, by: isize, body: Size) {
        let parts = self.parts(Rect::new(0, 0, body.width, body.height));
        let count = self.arms.groups().len();
        let page = Grid::fitting(count, parts[2]).cells() as isize;
        self.arm = super::step(self.arm, by * page, count);
    }

    /// The areas of the headline, the attention line, the panels, the legend, the table, and the line about the arm
    /// under the cursor.
    fn parts(&self, area: Rect) -> [Rect; 6] {
        let attention = u16::from(self.attention().is_some());
        let free = area.height.saturating_sub(4 + attention);
        let rows = (self.arms.groups().len() as u16).min((free / 3).max(4));
        Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(attention),
            Constraint::Fill(1),
            Constraint::Length(1),
            Constraint::Length(rows + 1),
            Constraint::Length(1),
        ])
        .areas(area)
    }

    /// The most important message of the run, if there is one, and whether it is an error.
    fn attention(&self) -> Option<(String, bool)> {
        if let Some(problem) = &self.problem {
            return Some((format!("cannot be read: {problem}"), true));
        }
        match self.status {
            Some(RunStatus::Crashed) => {
                let why = self.why.as_deref();
                let why = why.unwrap_or("the worker vanished before the end");
                let text = format!("crashed: {why}; r resumes, l shows the log");
                return Some((text, true));
            }
            Some(RunStatus::Interrupted) => {
                let reason = self.state.interrupted.as_deref().unwrap_or("stopped");
                return Some((format!("interrupted ({reason}); r resumes it"), false));
            }
            _ => {}
        }
        let problems = self.state.log.iter().filter(|l| l.level != Level::Info);
        let last = problems.clone().next_back()?;
        let log = match problems.count() {
            1 => "(l: log)".to_string(),
            count => format!("(l: log, {count} such)"),
        };
        let room = 76usize.saturating_sub(log.len());
        let text = format!("{}{}", self.arm_prefix(last), last.message);
        let text = format!("{} {log}", clip(&text, room));
        Some((text, last.level == Level::Error))
    }

    /// Name of a log line's arm, followed by a colon; empty where it is about none.
    fn arm_prefix(&self, line: &LogLine) -> String {
        let arm = line.arm.and_then(|arm| self.state.arms.get(arm));
        arm.map_or_else(String::new, |arm| {
            format!("{}: ", self.state.arm_label(arm))
        })
    }

    /// Lines of the run's log, oldest first: time since the start, level, arm and text. With `group`, only
    /// those of this arm, without its name where it has one seed.
    pub fn log_lines(&self, theme: Theme, group: Option<&Group>) -> Vec<(String, Style)> {
        let start = self.state.times.map_or(0.0, |times| times.0);
        let wanted = |line: &&LogLine| match (group, line.arm) {
            (None, _) => true,
            (Some(group), Some(arm)) => group.members.contains(&(0, arm)),
            (Some(_), None) => false,
        };
        let write = |line: &LogLine| {
            let (word, style) = match line.level {
                Level::Info => ("", Style::new()),
                Level::Warn => ("warning: ", theme.warn()),
                Level::Error => ("error: ", theme.bad()),
            };
            let name = match group {
                Some(group) if group.members.len() < 2 => String::new(),
                _ => self.arm_prefix(line),
            };
            let time = seconds(line.time - start);
            (format!("{time} {word}{name}{}", line.message), style)
        };
        self.state.log.iter().filter(wanted).map(write).collect()
    }
}

//! The comparison of several runs in one table, one row per arm.

use forgetlab_study::report::Judgement;
use forgetlab_study::run::RunState;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;

use crate::arms::{Arms, Group, Member};
use crate::event::Command;
use crate::figures::Metric;
use crate::keymap::Action;
use crate::theme::Theme;
use crate::widgets::arm_table::{self, ArmRow, ArmTable, Sort};
use crate::widgets::text::{clip, plural};
use crate::widgets::verdict;

use super::{Effects, Screen, step};

/// State of the comparison.
#[derive(Debug, Default)]
pub struct Compare {
    runs: Vec<(String, Result<RunState, String>)>,
    arms: Arms,
    cursor: usize,
    sort: Sort,
    metric: Metric,
}

impl Compare {
    /// A comparison of runs, each with its name, and what is to be computed for it.
    pub fn new(runs: Vec<(String, Result<RunState, String>)>) -> (Self, Vec<Command>) {
        let mut compare = Self {
            runs,
            ..Self::default()
        };
        compare.metric = compare.first().map(Metric::first_of).unwrap_or_default();
        let commands = compare.update();
        (compare, commands)
    }

    /// The runs that can be read.
    fn readable(&self) -> Vec<(&str, &RunState)> {
        let readable = self.runs.iter();
        readable
            .filter_map(|(name, run)| Some((name.as_str(), run.as_ref().ok()?)))
            .collect()
    }

    /// The first run that can be read.
    pub fn first(&self) -> Option<&RunState> {
        self.runs.iter().find_map(|(_, run)| run.as_ref().ok())
    }

    fn names(&self) -> Vec<String> {
        let readable = self.readable().into_iter();
        readable.map(|(name, _)| name.to_owned()).collect()
    }

    fn update(&mut self) -> Vec<Command> {
        let mut arms = std::mem::take(&mut self.arms);
        let questions = arms.update(&self.readable());
        self.arms = arms;
        let ask = |question| Command::Judge(self.names(), question);
        questions.into_iter().map(ask).collect()
    }

    /// Keeps a verdict, if it is about these runs.
    pub fn judged(&mut self, runs: &[String], members: &[Member], judgement: &Judgement) {
        if self.names() == runs {
            self.arms.judged(members.to_vec(), judgement.clone());
        }
    }

    /// The arms in the order of the table.
    fn rows(&self) -> Vec<&Group> {
        let groups = self.arms.groups();
        let order = arm_table::order(groups, &self.readable(), self.sort, self.metric);
        order.into_iter().map(|index| &groups[index]).collect()
    }

    /// Names of the runs that an arm is of.
    fn runs_of(&self, group: &Group) -> Vec<&str> {
        let runs = self.readable();
        let mut names: Vec<&str> = Vec::new();
        for (run, _) in &group.members {
            if let Some((name, _)) = runs.get(*run)
                && !names.contains(name)
            {
                names.push(name);
            }
        }
        names
    }

    /// Applies a key's action; `height` is the body's.
    pub fn act(&mut self, action: Action, height: u16, effects: &mut Effects) {
        let rows = self.arms.groups().len();
        let page = height.saturating_sub(5).max(1) as isize;
        match action {
            Action::Up => self.cursor = step(self.cursor, -1, rows),
            Action::Down => self.cursor = step(self.cursor, 1, rows),
            Action::PageUp => self.cursor = step(self.cursor, -page, rows),
            Action::PageDown => self.cursor = step(self.cursor, page, rows),
            Action::Back => effects.go = Some(Screen::Runs),
            Action::Sort => self.sort = self.sort.next(),
            Action::Metric => {
                self.metric = match self.metric {
                    Metric::Accuracy => Metric::Ntp,
                    _ => self.first().map(Metric::first_of).unwrap_or_default(),
                };
            }
            Action::Seeds => {
                self.arms.apart = !self.arms.apart;
                effects.commands.extend(self.update());
                self.cursor = step(self.cursor, 0, self.arms.groups().len());
            }
            Action::Enter => {
                let rows = self.rows();
                let group = rows.get(self.cursor);
                let runs = group.map(|group| self.runs_of(group)).unwrap_or_default();
                effects.open = runs.first().map(|run| (*run).to_owned());
            }
            Action::Export => {
                let runs = self.runs.iter().map(|(name, _)| name.clone()).collect();
                effects.ask(Command::Export(runs), "writing the comparison…");
            }
            _ => {}
        }
    }

    /// Draws the table.
    pub fn draw(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let problems: Vec<String> = self
            .runs
            .iter()
            .filter_map(|(name, run)| Some(format!("{name}: {}", run.as_ref().err()?)))
            .collect();
        let [head, bad, body, below] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(problems.len().min(5) as u16),
            Constraint::Fill(1),
            Constraint::Length(1),
        ])
        .areas(area);
        let rows = self.rows();
        let metric = self.metric.name();
        let text = format!(
            "{}, {}; figures in {metric}",
            plural(self.runs.len(), "run"),
            match self.arms.apart {
                true => plural(rows.len(), "single seed"),
                false => plural(rows.len(), "arm"),
            }
        );
        let shown: usize = rows.iter().map(|group| group.members.len()).sum();
        let all: usize = self.readable().iter().map(|(_, run)| run.arms.len()).sum();
        let repeated = match shown < all {
            true => "; seeds with the same numbers in several runs count once",
            false => "",
        };
        let text = clip(&format!("{text}{repeated}"), usize::from(head.width));
        frame.render_widget(Line::styled(text, theme.heading()), head);
        for (row, problem) in bad.rows().zip(&problems) {
            let problem = clip(problem, usize::from(row.width));
            frame.render_widget(Line::styled(problem, theme.bad()), row);
        }
        if rows.is_empty() {
            let text = "nothing to compare: these runs have recorded no arms";
            frame.render_widget(Line::styled(text, theme.dim()).centered(), body);
            return;
        }
        let runs = self.readable();
        let rows: Vec<ArmRow> = rows
            .into_iter()
            .map(|group| self.row(group, &runs, area.width))
            .collect();
        if let Some(row) = rows.get(self.cursor) {
            let line = verdict::line(theme, &row.seeds, row.judgement, usize::from(below.width));
            frame.render_widget(line, below);
        }
        ArmTable {
            theme,
            lead: ("run", if area.width >= WIDE { 36 } else { 6 }),
            rows,
            sort: self.sort,
            metric: self.metric,
            datasets: datasets(&runs),
            cursor: Some(self.cursor),
        }
        .draw(frame, body);
    }

    fn row<'a>(
        &'a self,
        group: &'a Group,
        runs: &[(&str, &'a RunState)],
        width: u16,
    ) -> ArmRow<'a> {
        let names = self.runs_of(group);
        let lead = match names[..] {
            // The end of a name is what tells runs of one day apart.
            [name] if width < WIDE => name.rsplit('-').next().unwrap_or(name).to_owned(),
            [name] => name.to_owned(),
            _ => plural(names.len(), "run"),
        };
        ArmRow {
            lead,
            group,
            seeds: group.seeds(runs),
            judgement: self.arms.judgement(group),
        }
    }
}

/// Columns from which the whole names of runs are shown.
const WIDE: u16 = 130;

/// Names of the datasets of all runs.
fn datasets(runs: &[(&str, &RunState)]) -> Vec<String> {
    let mut datasets: Vec<String> = Vec::new();
    for (_, run) in runs {
        for name in run.datasets() {
            if !datasets.iter().any(|known| known == name) {
                datasets.push(name.to_owned());
            }
        }
    }
    datasets
}

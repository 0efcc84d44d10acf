//! The comparison of several runs in one table, one row per arm.

use forgetlab_study::run::{ArmState, RunState};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;

use crate::event::Command;
use crate::figures::Metric;
use crate::keymap::Action;
use crate::theme::Theme;
use crate::widgets::arm_table::{self, ArmTable, Sort};
use crate::widgets::text::{clip, plural};

use super::{Effects, Screen, step};

/// State of the comparison.
#[derive(Debug, Default)]
pub struct Compare {
    runs: Vec<(String, Result<RunState, String>)>,
    cursor: usize,
    sort: Sort,
    metric: Metric,
}

impl Compare {
    /// A comparison of runs, each with its name.
    pub fn new(runs: Vec<(String, Result<RunState, String>)>) -> Self {
        Self {
            runs,
            ..Self::default()
        }
    }

    /// Every arm with its run, in the order of the table.
    fn rows(&self) -> Vec<(&str, &RunState, &ArmState)> {
        let readable = self
            .runs
            .iter()
            .filter_map(|(name, run)| Some((name, run.as_ref().ok()?)));
        let arms = readable.flat_map(|(name, run)| {
            let of = move |arm| (name.as_str(), run, arm);
            run.arms.iter().map(of)
        });
        let rows: Vec<_> = arms.collect();
        let arms = rows.iter().map(|(_, run, arm)| (*run, *arm));
        let order = arm_table::order(arms, self.sort, self.metric);
        order.into_iter().map(|index| rows[index]).collect()
    }

    /// Applies a key's action; `height` is the body's.
    pub fn act(&mut self, action: Action, height: u16, effects: &mut Effects) {
        let rows = self.rows().len();
        let page = height.saturating_sub(4).max(1) as isize;
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
                    _ => Metric::Accuracy,
                };
            }
            Action::Enter => {
                effects.open = self
                    .rows()
                    .get(self.cursor)
                    .map(|(run, ..)| (*run).to_string());
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
        let [head, bad, body] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(problems.len().min(5) as u16),
            Constraint::Fill(1),
        ])
        .areas(area);
        let rows = self.rows();
        let metric = self.metric.name();
        let text = format!(
            "{}, {}; figures in {metric}",
            plural(self.runs.len(), "run"),
            plural(rows.len(), "arm")
        );
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
        let mut datasets: Vec<String> = Vec::new();
        for (_, run, _) in &rows {
            for name in run.datasets() {
                if !datasets.iter().any(|known| known == name) {
                    datasets.push(name.to_owned());
                }
            }
        }
        let wide = area.width >= 130;
        let short = |run: &str| match run.rsplit('-').next() {
            // The end of a name is what tells runs of one day apart.
            Some(end) if !wide && end.len() < run.len() => end.to_string(),
            _ => run.to_string(),
        };
        ArmTable {
            theme,
            lead: ("run", if wide { 36 } else { 6 }),
            rows: rows
                .iter()
                .map(|(name, run, arm)| (short(name), *run, *arm))
                .collect(),
            sort: self.sort,
            metric: self.metric,
            datasets,
            cursor: Some(self.cursor),
        }
        .draw(frame, body);
    }
}

//! The table of arms of one or several runs: verdict, forgetting, learning, cost.

use std::cmp::Ordering;

use forgetlab_study::report::{Verdict, verdict};
use forgetlab_study::run::{ArmState, ArmStatus, RunState};
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Table};

use crate::figures::{self, Metric};
use crate::theme::Theme;

use super::text::{clip, count, nats, percent, scroll_to, seconds};

/// Order of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Least forgetting first.
    #[default]
    Forgetting,
    /// In the order of the run.
    Arm,
}

impl Sort {
    /// The other order.
    pub fn next(self) -> Self {
        match self {
            Self::Forgetting => Self::Arm,
            Self::Arm => Self::Forgetting,
        }
    }
}

/// Indices of the arms in the order of `sort`; arms without forgetting come last.
pub fn order<'a>(
    arms: impl Iterator<Item = (&'a RunState, &'a ArmState)>,
    sort: Sort,
    metric: Metric,
) -> Vec<usize> {
    let metric = metric.of_change();
    let lost: Vec<Option<f64>> = arms
        .map(|(run, arm)| figures::forgetting(arm, &run.phases, metric))
        .collect();
    let mut order: Vec<usize> = (0..lost.len()).collect();
    if sort == Sort::Forgetting {
        order.sort_by(|&a, &b| match (lost[a], lost[b]) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        });
    }
    order
}

/// Name of an arm, with its seed where the run has several.
pub fn arm_name(run: &RunState, arm: &ArmState) -> String {
    let same_name = run
        .arms
        .iter()
        .filter(|other| other.info.name == arm.info.name && other.info.seed == arm.info.seed);
    if same_name.count() > 1 {
        // Arms that differ in their settings alone are told apart by their folders' names.
        arm.info.slug.clone()
    } else if run.has_several_seeds() {
        format!("{} s{}", arm.info.name, arm.info.seed)
    } else {
        arm.info.name.clone()
    }
}

/// Status of an arm in a word or two, with its style.
pub fn status(theme: Theme, run: &RunState, arm: &ArmState) -> (String, Style) {
    match &arm.status {
        ArmStatus::Waiting => ("waiting".into(), theme.dim()),
        ArmStatus::Running => {
            let total = run.total_steps().max(1);
            let done = 100 * arm.step.min(total) / total;
            (format!("running {done}%"), Style::new())
        }
        ArmStatus::Finished => ("finished".into(), Style::new()),
        ArmStatus::Failed(_) => ("FAILED".into(), theme.bad()),
        ArmStatus::Skipped(_) => ("skipped".into(), theme.warn()),
    }
}

/// Style of a verdict, which its word makes clear without colour.
pub fn verdict_style(theme: Theme, verdict: Verdict) -> Style {
    match verdict {
        Verdict::TooEarly => theme.dim(),
        Verdict::Keeps => theme.good(),
        Verdict::Slips => theme.warn(),
        Verdict::Forgets => theme.bad(),
    }
}

/// A value in `metric` as text; a dot where it does not apply.
pub fn figure(metric: Metric, value: Option<f64>) -> String {
    match value {
        None => "·".into(),
        Some(value) if metric == Metric::Accuracy => percent(value),
        Some(value) => nats(value),
    }
}

/// The table.
pub struct ArmTable<'a> {
    /// Styles.
    pub theme: Theme,
    /// Heading and width of the first column.
    pub lead: (&'a str, u16),
    /// Rows in order: text of the first column, run and arm.
    pub rows: Vec<(String, &'a RunState, &'a ArmState)>,
    /// The order of the rows, for the mark in the header.
    pub sort: Sort,
    /// Metric of the scores; forgetting and learning are in its [`Metric::of_change`].
    pub metric: Metric,
    /// Datasets whose last scores are shown, where there is room.
    pub datasets: Vec<String>,
    /// Index of the row under the cursor.
    pub cursor: Option<usize>,
}

impl ArmTable<'_> {
    /// Draws as many rows as fit, the cursor's among them.
    pub fn draw(self, frame: &mut Frame, area: Rect) {
        const FIXED: [u16; 6] = [7, 7, 7, 6, 6, 11];
        let metric = self.metric.of_change();
        let used: u16 = FIXED.iter().sum::<u16>() + self.lead.1 + 7;
        let room = area.width.saturating_sub(used + 22);
        let scores = &self.datasets[..self.datasets.len().min(usize::from(room / 11))];
        let name_width = usize::from(area.width.saturating_sub(used)) - scores.len() * 11;

        let right = |text: String| Cell::from(Text::from(text).right_aligned());
        let (lead, forgot) = match self.sort {
            Sort::Forgetting => (self.lead.0.to_string(), "forgot↑"),
            Sort::Arm => (format!("{}↑", self.lead.0), "forgot"),
        };
        let mut header = vec![
            Cell::from(lead),
            Cell::from("arm"),
            Cell::from("verdict"),
            right(forgot.into()),
            right("learned".into()),
        ];
        header.extend(scores.iter().map(|name| right(clip(name, 10))));
        header.extend(["tokens", "time"].map(|title| right(title.into())));
        header.push(Cell::from("status"));

        let height = usize::from(area.height.saturating_sub(1));
        let first = scroll_to(self.cursor.unwrap_or(0), self.rows.len(), height);
        let shown = self.rows.iter().enumerate().skip(first).take(height);
        let rows = shown.map(|(index, (lead, run, arm))| {
            let verdict = verdict(arm, &run.phases);
            let forgot = figures::forgetting(arm, &run.phases, metric);
            let learned = figures::learning(arm, &run.phases, metric);
            let last = arm.evaluations.last();
            let (status, status_style) = status(self.theme, run, arm);
            let mut cells = vec![
                Cell::from(clip(lead, usize::from(self.lead.1))),
                Cell::from(clip(&arm_name(run, arm), name_width)),
                Cell::from(Line::styled(
                    verdict.word(),
                    verdict_style(self.theme, verdict),
                )),
                right(figure(metric, forgot)),
                right(figure(metric, learned)),
            ];
            cells.extend(scores.iter().map(|name| {
                let score = last.and_then(|e| e.scores.iter().find(|s| s.dataset == *name));
                right(figure(self.metric, score.and_then(|s| self.metric.of(s))))
            }));
            cells.push(right(
                last.map_or("·".into(), |e| count(e.cost.tokens_trained)),
            ));
            cells.push(right(
                last.map_or("·".into(), |e| seconds(e.cost.seconds())),
            ));
            cells.push(Cell::from(Line::styled(status, status_style)));
            let style = if self.cursor == Some(index) {
                self.theme.selected()
            } else {
                Style::new()
            };
            Row::new(cells).style(style)
        });

        let mut widths = vec![
            Constraint::Length(self.lead.1),
            Constraint::Length(name_width as u16),
            Constraint::Length(FIXED[0]),
            Constraint::Length(FIXED[1]),
            Constraint::Length(FIXED[2]),
        ];
        widths.extend(scores.iter().map(|_| Constraint::Length(10)));
        widths.extend(FIXED[3..].iter().map(|width| Constraint::Length(*width)));
        let table = Table::new(rows, widths)
            .header(Row::new(header).style(self.theme.heading()))
            .column_spacing(1);
        frame.render_widget(table, area);
    }
}

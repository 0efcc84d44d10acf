//! The table of arms of one or several runs: verdict, forgetting, learning, worst moment, cost.

use std::cmp::Ordering;

use forgetlab_study::report::{ArmSeeds, Judgement};
use forgetlab_study::run::{ArmStatus, RunState};
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Table};

use crate::arms::{Group, Runs};
use crate::figures::{self, Metric};
use crate::theme::Theme;

use super::names::distinct;
use super::text::{clip, count, nats, percent, scroll_to, seconds};
use super::verdict;

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
pub fn order(groups: &[Group], runs: Runs, sort: Sort, metric: Metric) -> Vec<usize> {
    let metric = metric.of_change();
    let lost = groups.iter().map(|group| {
        let (run, _) = *group.seeds(runs).seeds.first()?;
        figures::forgetting(&group.mean, &run.phases, metric)
    });
    let lost: Vec<Option<f64>> = lost.collect();
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

/// Status of an arm over its seeds in a word or two, with its style.
pub fn status(theme: Theme, seeds: &ArmSeeds) -> (String, Style) {
    let all = seeds.seeds.len();
    let are = |holds: fn(&ArmStatus) -> bool| {
        seeds
            .seeds
            .iter()
            .filter(|(_, arm)| holds(&arm.status))
            .count()
    };
    let share = |count: usize, word: &str| match all {
        1 => word.to_owned(),
        _ => format!("{count}/{all} {word}"),
    };
    let failed = are(|status| matches!(status, ArmStatus::Failed(_)));
    let skipped = are(|status| matches!(status, ArmStatus::Skipped(_)));
    if failed > 0 {
        (share(failed, "FAILED"), theme.bad())
    } else if skipped > 0 {
        (share(skipped, "skipped"), theme.warn())
    } else if are(|status| *status == ArmStatus::Finished) == all {
        ("finished".into(), Style::new())
    } else if are(|status| *status == ArmStatus::Waiting) == all {
        ("waiting".into(), theme.dim())
    } else {
        let steps = |of: fn(&RunState, &forgetlab_study::run::ArmState) -> u64| -> u64 {
            seeds.seeds.iter().map(|(run, arm)| of(run, arm)).sum()
        };
        let total = steps(RunState::total_steps_of).max(1);
        let done = u128::from(100 * steps(RunState::steps_of).min(total)) / u128::from(total);
        (format!("running {done}%"), Style::new())
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

/// A loss and its step: `99.8%@450`; a dot where there is none.
pub fn worst(metric: Metric, worst: Option<(f64, u64)>) -> String {
    match worst {
        None => "·".into(),
        Some((loss, step)) => format!("{}@{step}", figure(metric, Some(loss))),
    }
}

/// A row of the table.
pub struct ArmRow<'a> {
    /// Text of the first column.
    pub lead: String,
    /// The arm.
    pub group: &'a Group,
    /// Its seeds.
    pub seeds: ArmSeeds<'a>,
    /// The verdict on it, once it is known.
    pub judgement: Option<&'a Judgement>,
}

impl ArmRow<'_> {
    /// Mark behind the name of an arm over several seeds.
    fn mark(&self) -> String {
        match self.seeds.counted().len() {
            0 | 1 => String::new(),
            seeds => format!(" ×{seeds}"),
        }
    }
}

/// The table.
pub struct ArmTable<'a> {
    /// Styles.
    pub theme: Theme,
    /// Heading and width of the first column.
    pub lead: (&'a str, u16),
    /// Rows in order.
    pub rows: Vec<ArmRow<'a>>,
    /// The order of the rows, for the mark in the header.
    pub sort: Sort,
    /// Metric of the scores; forgetting and learning are in its [`Metric::of_change`].
    pub metric: Metric,
    /// Datasets whose last scores are shown, where there is room.
    pub datasets: Vec<String>,
    /// Index of the row under the cursor.
    pub cursor: Option<usize>,
}

/// A column of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Column {
    Lead,
    Name,
    Verdict { interval: bool },
    Forgot,
    Learned,
    Worst,
    Score(String),
    Tokens,
    Time,
    Status,
}

impl Column {
    fn width(&self) -> u16 {
        match self {
            Self::Lead | Self::Name => 0,
            Self::Verdict { interval: false } => 7,
            Self::Verdict { interval: true } => verdict::LONG,
            Self::Forgot | Self::Learned => 7,
            Self::Worst | Self::Status => 11,
            Self::Score(_) => 10,
            Self::Tokens | Self::Time => 6,
        }
    }

    fn is_number(&self) -> bool {
        !matches!(
            self,
            Self::Lead | Self::Name | Self::Verdict { .. } | Self::Status
        )
    }
}

/// Columns that long names get before others are shown.
const NAME: usize = 32;

impl ArmTable<'_> {
    /// The columns that fit, and the width that is left for the names.
    fn columns(&self, width: u16) -> (Vec<Column>, usize) {
        use Column as C;
        let least = [
            C::Verdict { interval: false },
            C::Forgot,
            C::Learned,
            C::Worst,
            C::Status,
        ];
        let used: u16 = least.iter().map(|column| column.width() + 1).sum();
        let names = self
            .rows
            .iter()
            .map(|row| row.group.label.chars().count() + row.mark().len());
        let names = names.max().unwrap_or(0).min(NAME);
        let mut room = usize::from(width.saturating_sub(used + self.lead.1 + 1));
        let mut take = |cost: u16| {
            let fits = room >= names + usize::from(cost);
            if fits {
                room -= usize::from(cost);
            }
            fits
        };
        let interval = take(verdict::LONG - 7);
        let costs = take(C::Tokens.width() + C::Time.width() + 2);
        let scores = self.datasets.iter().map(|name| C::Score(name.clone()));
        let scores: Vec<Column> = scores
            .take_while(|column| costs && take(column.width() + 1))
            .collect();
        let mut columns = vec![C::Lead, C::Name, C::Verdict { interval }];
        columns.extend([C::Forgot, C::Learned, C::Worst]);
        columns.extend(scores);
        if costs {
            columns.extend([C::Tokens, C::Time]);
        }
        columns.push(C::Status);
        (columns, room)
    }

    fn title(&self, column: &Column) -> String {
        let sorted = |title: &str, by: Sort| match self.sort == by {
            true => format!("{title}↑"),
            false => title.to_owned(),
        };
        match column {
            Column::Lead => sorted(self.lead.0, Sort::Arm),
            Column::Name => "arm".into(),
            Column::Verdict { interval: false } => "verdict".into(),
            Column::Verdict { interval: true } => "verdict [95% interval]".into(),
            Column::Forgot => sorted("forgot", Sort::Forgetting),
            Column::Learned => "learned".into(),
            Column::Worst => "worst@step".into(),
            Column::Score(name) => clip(name, 10),
            Column::Tokens => "tokens".into(),
            Column::Time => "time".into(),
            Column::Status => "status".into(),
        }
    }

    /// Text and style of a cell.
    fn cell(&self, column: &Column, row: &ArmRow, name: &str) -> (String, Style) {
        let metric = self.metric.of_change();
        let mean = &row.group.mean;
        let phases = row
            .seeds
            .seeds
            .first()
            .map(|(run, _)| run.phases.as_slice());
        let phases = phases.unwrap_or_default();
        let cost = mean.evaluations.last().map(|e| e.cost);
        let text = match column {
            Column::Lead => clip(&row.lead, usize::from(self.lead.1)),
            Column::Name => format!("{name}{}", row.mark()),
            Column::Verdict { interval } => {
                let style = verdict::style(self.theme, row.judgement);
                let text = match interval {
                    true => verdict::long(&row.seeds, row.judgement),
                    false => verdict::word(&row.seeds, row.judgement).to_owned(),
                };
                return (text, style);
            }
            Column::Forgot => figure(metric, figures::forgetting(mean, phases, metric)),
            Column::Learned => figure(metric, figures::learning(mean, phases, metric)),
            Column::Worst => worst(metric, figures::worst(&row.seeds, metric)),
            Column::Score(name) => {
                let score = figures::last_of(mean, name);
                figure(self.metric, score.and_then(|(_, s)| self.metric.of(s)))
            }
            Column::Tokens => cost.map_or("·".into(), |cost| count(cost.tokens_trained)),
            Column::Time => cost.map_or("·".into(), |cost| seconds(cost.seconds())),
            Column::Status => return status(self.theme, &row.seeds),
        };
        (text, Style::new())
    }

    /// Draws as many rows as fit, the cursor's among them.
    pub fn draw(self, frame: &mut Frame, area: Rect) {
        let (columns, name_width) = self.columns(area.width);
        let labels: Vec<&str> = self
            .rows
            .iter()
            .map(|row| row.group.label.as_str())
            .collect();
        let mark = self.rows.iter().map(|row| row.mark().chars().count()).max();
        let names = distinct(&labels, name_width.saturating_sub(mark.unwrap_or(0)));
        let cell = |column: &Column, text: String, style: Style| match column.is_number() {
            true => Cell::from(Text::styled(text, style).right_aligned()),
            false => Cell::from(Line::styled(text, style)),
        };
        let header = columns
            .iter()
            .map(|column| cell(column, self.title(column), Style::new()));
        let header = Row::new(header).style(self.theme.heading());

        let height = usize::from(area.height.saturating_sub(1));
        let first = scroll_to(self.cursor.unwrap_or(0), self.rows.len(), height);
        let shown = self.rows.iter().enumerate().skip(first).take(height);
        let rows = shown.map(|(index, row)| {
            let cells = columns.iter().map(|column| {
                let (text, style) = self.cell(column, row, &names[index]);
                cell(column, text, style)
            });
            let style = if self.cursor == Some(index) {
                self.theme.selected()
            } else {
                Style::new()
            };
            Row::new(cells).style(style)
        });
        let widths = columns.iter().map(|column| {
            Constraint::Length(match column {
                Column::Lead => self.lead.1,
                Column::Name => name_width as u16,
                other => other.width(),
            })
        });
        let table = Table::new(rows, widths).header(header).column_spacing(1);
        frame.render_widget(table, area);
    }
}

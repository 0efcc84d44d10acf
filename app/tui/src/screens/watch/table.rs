//! The table of arms: verdict, what was kept and learned, cost, progress; sorted by any column.

use std::cmp::Ordering;

use forgetlab_study::report::{ArmSeeds, Judgement, Sheet, Verdict};
use forgetlab_study::run::{ArmState, ArmStatus, Role, RunState};
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Row, Table};
use unicode_width::UnicodeWidthStr;

use crate::arms::Group;
use crate::figures::{self, Figures, Metric};
use crate::theme::Theme;
use crate::widgets::names::distinct;
use crate::widgets::text::{clip, count, nats, percent, plural, scroll_to, seconds};
use crate::widgets::verdict;

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The arm's name, which is always there; in its order, arms of one name in several runs are neighbours.
    Arm,
    /// The verdict, with the interval it rests on where there is room.
    Verdict,
    /// Mean score of old data now.
    Kept,
    /// What was lost of it.
    Forgot,
    /// What was learned.
    Learned,
    /// The worst moment of old data.
    Worst,
    /// Forgetting beyond that of the baseline.
    Against,
    /// KL on old data.
    KlOld,
    /// KL on new data.
    KlNew,
    /// Tokens trained on.
    Tokens,
    /// FLOPs, evaluation apart.
    Flops,
    /// Seconds.
    Time,
    /// Time left.
    Left,
    /// Status.
    Status,
}

impl Column {
    /// Every column, behind the name the one that goes last in a narrow terminal first, but for the status, which always stays.
    pub const ALL: [Self; 14] = [
        Self::Arm,
        Self::Verdict,
        Self::Kept,
        Self::Forgot,
        Self::Learned,
        Self::Worst,
        Self::Against,
        Self::KlOld,
        Self::KlNew,
        Self::Tokens,
        Self::Flops,
        Self::Time,
        Self::Left,
        Self::Status,
    ];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arm => "arm",
            Self::Verdict => "verdict",
            Self::Kept => "kept",
            Self::Forgot => "forgot",
            Self::Learned => "learned",
            Self::Worst => "worst",
            Self::Against => "against",
            Self::KlOld => "kl-old",
            Self::KlNew => "kl-new",
            Self::Tokens => "tokens",
            Self::Flops => "flops",
            Self::Time => "time",
            Self::Left => "left",
            Self::Status => "status",
        }
    }

    /// The column of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }

    /// Columns it takes, where verdicts take so many.
    fn width(self, verdicts: u16, seeds: bool) -> u16 {
        match self {
            Self::Arm => 0,
            Self::Verdict => verdicts,
            Self::Kept if seeds => 13,
            Self::Kept | Self::Forgot | Self::Learned | Self::Against => 7,
            Self::Worst | Self::Status => 11,
            Self::KlOld | Self::KlNew | Self::Tokens | Self::Flops => 7,
            Self::Time | Self::Left => 6,
        }
    }

    fn is_number(self) -> bool {
        !matches!(self, Self::Verdict | Self::Status)
    }
}

/// A row of the table.
pub struct ArmRow<'a> {
    /// The arm.
    pub group: &'a Group,
    /// Its seeds.
    pub seeds: ArmSeeds<'a>,
    /// The verdict on it, once it is known.
    pub judgement: Option<&'a Judgement>,
    /// Seconds it still takes, where that is known.
    pub left: Option<f64>,
    /// What the arm forgot that it is compared with; `None` where there is none, or nothing is known of it.
    pub base: Option<f64>,
    /// Whether it stays on top.
    pub pinned: bool,
}

impl ArmRow<'_> {
    /// Mark behind the name of an arm over several seeds.
    fn mark(&self) -> String {
        match self.seeds.counted().len() {
            0 | 1 => String::new(),
            seeds => format!(" ×{seeds}"),
        }
    }

    /// The metric in which a filter asks for figures: the one the arm has that says most.
    pub fn by_metric(&self) -> Metric {
        let run = self.seeds.seeds.first().map(|(run, _)| *run);
        run.map(Metric::first_of).unwrap_or_default()
    }

    /// What was kept and learned; KL measures neither, so beside its curves these figures are of NTP.
    fn figures(&self, metric: Metric) -> &Figures {
        self.group.figures(metric.of_change())
    }

    /// The number by which a column is sorted, and whether less of it is better.
    pub fn number(&self, column: Column, metric: Metric) -> (Option<f64>, bool) {
        let figures = self.figures(metric);
        let cost = self.group.mean.evaluations.last().map(|e| e.cost);
        match column {
            Column::Arm => (None, true),
            Column::Verdict => {
                let verdict = self.judgement.map(|judgement| judgement.verdict);
                let verdict = verdict.filter(|verdict| *verdict != Verdict::TooEarly);
                let verdict = verdict.map(|verdict| verdict as u8);
                (verdict.map(f64::from), true)
            }
            Column::Kept => {
                let kept = figures.kept.map(|kept| kept.0);
                (kept, metric.less_is_better())
            }
            Column::Forgot => (figures.forgot, true),
            Column::Learned => (figures.learned, false),
            Column::Worst => (figures.worst.map(|worst| worst.0), true),
            Column::Against => (
                figures.forgot.zip(self.base).map(|(own, base)| own - base),
                true,
            ),
            Column::KlOld => (figures::kl(&self.group.mean, Role::Old), true),
            Column::KlNew => (figures::kl(&self.group.mean, Role::New), true),
            Column::Tokens => (cost.map(|cost| cost.tokens_trained as f64), true),
            Column::Flops => (cost.and_then(|cost| cost.flops_without_evaluation()), true),
            Column::Time => (cost.map(|cost| cost.seconds()), true),
            Column::Left => (self.left, true),
            Column::Status => (Some(share_done(&self.seeds)), false),
        }
    }
}

/// Share of the steps of an arm that is done.
fn share_done(seeds: &ArmSeeds) -> f64 {
    let steps = |of: fn(&RunState, &ArmState) -> u64| -> u64 {
        seeds.seeds.iter().map(|(run, arm)| of(run, arm)).sum()
    };
    let total = steps(RunState::total_steps_of).max(1);
    steps(RunState::steps_of).min(total) as f64 / total as f64
}

/// Status of an arm over its seeds, with its style: why it failed, how far it is.
pub fn status(theme: Theme, seeds: &ArmSeeds) -> (String, Style) {
    let all = seeds.seeds.len();
    let are = |holds: fn(&ArmStatus) -> bool| {
        let seeds = seeds.seeds.iter();
        seeds.filter(|(_, arm)| holds(&arm.status)).count()
    };
    let share = |count: usize, word: &str| match all {
        1 => word.to_owned(),
        _ => format!("{count}/{all} {word}"),
    };
    let why = seeds.seeds.iter().find_map(|(_, arm)| match &arm.status {
        ArmStatus::Failed(reason) | ArmStatus::Skipped(reason) => Some(reason.as_str()),
        _ => None,
    });
    let failed = are(|status| matches!(status, ArmStatus::Failed(_)));
    let skipped = are(|status| matches!(status, ArmStatus::Skipped(_)));
    if failed > 0 {
        let why = why.unwrap_or_default();
        (format!("{}: {why}", share(failed, "FAILED")), theme.bad())
    } else if skipped > 0 {
        let why = why.unwrap_or_default();
        (
            format!("{}: {why}", share(skipped, "skipped")),
            theme.warn(),
        )
    } else if let Some(why) = seeds.seeds.iter().find_map(|(_, arm)| arm.waits.as_ref()) {
        let waits = seeds.seeds.iter().filter(|(_, arm)| arm.waits.is_some());
        (
            format!("{}: {why}", share(waits.count(), "waits")),
            theme.warn(),
        )
    } else if are(|status| *status == ArmStatus::Finished) == all {
        ("finished".into(), Style::new())
    } else if are(|status| *status == ArmStatus::Waiting) == all {
        ("waiting".into(), theme.dim())
    } else {
        let done = share_done(seeds);
        let full = (done * 4.0).floor() as usize;
        let bar = format!("▕{}{}▏", "█".repeat(full), " ".repeat(4 - full.min(4)));
        (
            format!("{bar} {:.0}%", (100.0 * done).floor()),
            Style::new(),
        )
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

/// The table.
pub struct ArmTable<'a> {
    /// Styles.
    pub theme: Theme,
    /// Rows in order.
    pub rows: Vec<ArmRow<'a>>,
    /// The column by which they are sorted, and whether that order is turned.
    pub sort: (Column, bool),
    /// Metric of the scores; forgetting and learning are in its [`Metric::of_change`].
    pub metric: Metric,
    /// Name of what arms are compared with, where there is something.
    pub baseline: Option<String>,
    /// Index of the row under the cursor.
    pub cursor: usize,
    /// Whether it has the focus.
    pub focused: bool,
    /// Whether means have their spread over seeds beside them: where there are seeds, and room.
    pub spread: bool,
}

/// Columns from which means have their spread over seeds beside them.
pub const WITH_SPREAD: u16 = 90;

/// Columns that long names get before verdicts have their intervals, and before other columns are shown.
const NAME: usize = 34;
const SHORT: usize = 26;
/// Columns of a verdict without its interval.
const VERDICT: u16 = 11;

/// Puts rows in the order of a column: the best first, those without a value last, pinned ones on top.
pub fn sort(rows: &mut [ArmRow], (column, reversed): (Column, bool), metric: Metric) {
    let order = |a: &ArmRow, b: &ArmRow| {
        let ((x, less), (y, _)) = (a.number(column, metric), b.number(column, metric));
        let values = match (x, y) {
            _ if column == Column::Arm => {
                let key = |row: &ArmRow| (row.group.mean.info.name.clone(), row.group.index);
                let order = key(a).cmp(&key(b));
                if reversed { order.reverse() } else { order }
            }
            (Some(x), Some(y)) if less != reversed => x.total_cmp(&y),
            (Some(x), Some(y)) => y.total_cmp(&x),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        b.pinned.cmp(&a.pinned).then(values)
    };
    rows.sort_by(order);
}

impl ArmTable<'_> {
    /// The columns that fit, the width of verdicts, which have their intervals where there is room, and the width that is
    /// left for the names.
    fn columns(&self, width: u16) -> (Vec<Column>, u16, usize) {
        let names = self
            .rows
            .iter()
            .map(|row| row.group.label.width() + row.mark().width());
        let names = names.max().unwrap_or(0).min(NAME);
        let without = |column: &Column| match column {
            Column::Arm => true,
            Column::Against => self.rows.iter().all(|row| row.base.is_none()),
            Column::Left => self.rows.iter().all(|row| row.left.is_none()),
            _ => false,
        };
        // Marker, gaps, and the status: why an arm failed has more room than how far it is.
        let status = self
            .rows
            .iter()
            .map(|row| status(self.theme, &row.seeds).0.width());
        let status = status
            .max()
            .unwrap_or(0)
            .clamp(11, usize::from(width / 4).max(11));
        let mut room = usize::from(width).saturating_sub(2 + 1 + status + 1);
        let seeds = self.spread;
        let mut take = |cost: u16| {
            let fits = room >= names.min(SHORT) + usize::from(cost);
            if fits {
                room -= usize::from(cost);
            }
            fits
        };
        let mut columns = Vec::new();
        let mut full = false;
        for column in Column::ALL.into_iter().filter(|column| !without(column)) {
            let is_status = column == Column::Status;
            full |= !is_status && !take(column.width(VERDICT, seeds) + 1);
            // What the table is sorted by is always shown.
            if is_status || !full || column == self.sort.0 {
                columns.push(column);
            }
        }
        let longest = self
            .rows
            .iter()
            .map(|row| verdict::long(row.judgement).width());
        let longest = longest.max().unwrap_or(0) as u16;
        let more = usize::from(longest.saturating_sub(VERDICT));
        match room >= names + more {
            true => (columns, VERDICT.max(longest), room - more),
            false => (columns, VERDICT, room),
        }
    }

    /// The unit of what was kept, forgotten and learned.
    fn unit(&self) -> &'static str {
        match self.metric.of_change() {
            Metric::Accuracy => "(accuracy)",
            Metric::Error => "(RMSE)",
            Metric::Ntp | Metric::Kl => "(NTP, nats)",
        }
    }

    fn title(&self, column: Column) -> String {
        // Whether the least or the greatest is on top.
        let less = self
            .rows
            .first()
            .map(|row| row.number(column, self.metric).1);
        let arrow = match (self.sort.0 == column, less != Some(self.sort.1)) {
            (false, _) => "",
            (true, true) => "↑",
            (true, false) => "↓",
        };
        let title = match column {
            Column::Against => {
                let name = self.baseline.as_deref().unwrap_or_default();
                return format!("vs {name}{arrow}").chars().take(7).collect();
            }
            Column::Arm => return format!("arm{arrow} {}", self.unit()),
            Column::KlOld => "KL old",
            Column::KlNew => "KL new",
            Column::Worst => "worst@step",
            Column::Flops => "FLOPs",
            other => other.name(),
        };
        format!("{title}{arrow}")
    }

    /// Text and style of a cell.
    fn cell(&self, column: Column, row: &ArmRow, interval: bool) -> (String, Style) {
        let change = self.metric.of_change();
        let number = row.number(column, self.metric).0;
        let text = match column {
            Column::Arm => row.group.label.clone(),
            Column::Verdict => {
                let style = verdict::style(self.theme, row.judgement);
                let text = match interval {
                    true => verdict::long(row.judgement),
                    false => verdict::at(row.judgement),
                };
                return (text, style);
            }
            Column::Kept => {
                let half = row.figures(self.metric).kept.map(|kept| kept.1);
                let half = half.filter(|half| self.spread && half.is_finite());
                let shown = figure(self.metric, number);
                match half {
                    Some(half) => format!(
                        "{shown} ±{}",
                        figure(self.metric, Some(half)).trim_end_matches('%')
                    ),
                    None => shown,
                }
            }
            Column::Forgot | Column::Learned => figure(change, number),
            Column::Against => figure(change, number),
            Column::Worst => worst(change, row.figures(self.metric).worst),
            Column::KlOld | Column::KlNew => figure(Metric::Kl, number),
            Column::Tokens => number.map_or("·".into(), |tokens| count(tokens as u64)),
            Column::Flops => number.map_or("·".into(), |flops| format!("{flops:.1e}")),
            Column::Time | Column::Left => number.map_or("·".into(), seconds),
            Column::Status => return status(self.theme, &row.seeds),
        };
        (text, Style::new())
    }

    /// The best value of each column; of several as good, none.
    fn best(&self, column: Column) -> Option<f64> {
        let compared = matches!(
            column,
            Column::Kept | Column::Forgot | Column::Learned | Column::Worst | Column::KlOld
        );
        let numbers = self.rows.iter();
        let numbers = numbers.map(|row| row.number(column, self.metric));
        let numbers: Vec<(f64, bool)> = numbers.filter_map(|(n, less)| Some((n?, less))).collect();
        let better = |a: f64, b: f64, less: bool| if less { a.min(b) } else { a.max(b) };
        let (first, less) = *numbers.first().filter(|_| compared && numbers.len() > 1)?;
        let best = numbers
            .iter()
            .fold(first, |best, (n, _)| better(best, *n, less));
        let alike = numbers.iter().filter(|(n, _)| *n == best).count();
        (alike < numbers.len()).then_some(best)
    }

    /// The table as it is shown in so many columns, to be written: whole, with what its figures are.
    pub fn sheet(&self, width: u16) -> Sheet {
        let (columns, ..) = self.columns(width);
        let progress = |column: &Column| matches!(column, Column::Status | Column::Left);
        let columns: Vec<Column> = columns
            .into_iter()
            .filter(|column| !progress(column))
            .collect();
        let title = |column: &Column| {
            let title = self.title(*column);
            title.trim_end_matches(['↑', '↓']).to_owned()
        };
        let row = |row: &ArmRow| {
            let name = format!("{}{}", row.group.label, row.mark());
            let cells = columns.iter().map(|column| self.cell(*column, row, true).0);
            [name].into_iter().chain(cells).collect()
        };
        let about = |column: &Column| {
            Some(match column {
                Column::Verdict => {
                    "verdict: by the old dataset that fares worst, with the 95 % interval of its forgetting."
                }
                Column::Kept if self.spread => {
                    "kept: mean score of the old data, ± half the 95 % interval over seeds."
                }
                Column::Kept => "kept: mean score of the old data.",
                Column::Forgot => {
                    "forgot: mean over the old datasets, against the end of their phases."
                }
                Column::Learned => "learned: the last dataset, against the start of its phase.",
                Column::Worst => {
                    "worst: the largest loss of an old dataset since it was last trained on, and its step."
                }
                Column::Against => "vs: forgetting less that of the arm compared with.",
                Column::KlOld => "KL old, KL new: to the reference, nats.",
                Column::Flops => "FLOPs: without evaluation.",
                _ => return None,
            })
        };
        let unit = self.unit().trim_matches(['(', ')']);
        let one_seed = self.rows.iter().any(|row| row.seeds.counted().len() < 2);
        let one_seed = one_seed.then_some(
            "Intervals of an arm with one seed are over held-out rows and say nothing of other seeds.",
        );
        Sheet {
            title: format!(
                "What {} kept and learned, in {unit}",
                plural(self.rows.len(), "arm")
            ),
            head: ["arm".to_owned()]
                .into_iter()
                .chain(columns.iter().map(title))
                .collect(),
            rows: self.rows.iter().map(row).collect(),
            notes: columns
                .iter()
                .filter_map(about)
                .chain(one_seed)
                .map(str::to_owned)
                .collect(),
            messages: Vec::new(),
        }
    }

    /// Draws as many rows as fit, the cursor's among them.
    pub fn draw(self, frame: &mut Frame, area: Rect) {
        if area.height == 0 {
            return;
        }
        let (columns, verdicts, name_width) = self.columns(area.width);
        let labels: Vec<&str> = self
            .rows
            .iter()
            .map(|row| row.group.label.as_str())
            .collect();
        let mark = self.rows.iter().map(|row| row.mark().width()).max();
        let names = distinct(&labels, name_width.saturating_sub(mark.unwrap_or(0)));
        let cell = |column: Column, text: String, style: Style| match column.is_number() {
            true => Cell::from(Text::styled(text, style).right_aligned()),
            false => Cell::from(Line::styled(text, style)),
        };
        let title = |column: &Column| cell(*column, self.title(*column), Style::new());
        let heading = match self.focused {
            true => self.theme.heading().add_modifier(Modifier::UNDERLINED),
            false => self.theme.heading(),
        };
        let first_titles = [Cell::from(""), Cell::from(self.title(Column::Arm))];
        let header = first_titles.into_iter().chain(columns.iter().map(title));
        let header = Row::new(header).style(heading);

        let best: Vec<Option<f64>> = columns.iter().map(|column| self.best(*column)).collect();
        let height = usize::from(area.height.saturating_sub(1));
        let first = scroll_to(self.cursor, self.rows.len(), height);
        let shown = self.rows.iter().enumerate().skip(first).take(height);
        let rows = shown.map(|(index, row)| {
            let cells = columns.iter().zip(&best).map(|(column, best)| {
                let (text, mut style) = self.cell(*column, row, verdicts > VERDICT);
                // Of a number that is too long no digit at its beginning may be lost.
                let text = match column.is_number() {
                    true => clip(&text, column.width(verdicts, self.spread).into()),
                    false => text,
                };
                let number = row.number(*column, self.metric).0;
                if best.is_some() && number == *best {
                    style = style.add_modifier(Modifier::BOLD);
                }
                cell(*column, text, style)
            });
            let series = self.theme.series(row.group.index);
            let marker = Span::styled(self.theme.marker(row.group.index), series);
            let pin = if row.pinned { "›" } else { " " };
            let lead = Cell::from(Line::from(vec![marker, Span::raw(pin)]));
            let name = Cell::from(format!("{}{}", names[index], row.mark()));
            let style = match self.cursor == index {
                true => self.theme.selected(),
                false => Style::new(),
            };
            Row::new([lead, name].into_iter().chain(cells)).style(style)
        });
        let widths = columns.iter().map(|column| match column {
            Column::Status => Constraint::Fill(1),
            other => Constraint::Length(other.width(verdicts, self.spread)),
        });
        let lead = [
            Constraint::Length(2),
            Constraint::Length(name_width.min(NAME + 8) as u16),
        ];
        let table = Table::new(rows, lead.into_iter().chain(widths));
        frame.render_widget(table.header(header).column_spacing(1), area);
    }
}

//! The watched run: one panel of curves per arm, side by side, and the table of arms below.

use forgetlab_study::report::verdict;
use forgetlab_study::run::{ArmState, ArmStatus, Level, LogLine, Role, RunState, RunStatus};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect, Size};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::event::Command;
use crate::figures::{self, Metric};
use crate::keymap::Action;
use crate::lab::FeedUpdate;
use crate::theme::Theme;
use crate::widgets::arm_table::{self, ArmTable, Sort};
use crate::widgets::chart::{Chart, Range, Series};
use crate::widgets::text::{clip, seconds};

use super::{Effects, Screen};

/// Size of the smallest panel whose curves can be read.
const PANEL: Size = Size::new(38, 6);

/// State of the watched run's screens.
#[derive(Debug)]
pub struct Live {
    /// Name of the run.
    pub run: String,
    /// State of the run, from the records so far.
    pub state: RunState,
    /// Status of the run; `None` until the first update.
    pub status: Option<RunStatus>,
    /// Why the run cannot be read (any more), if it cannot.
    pub problem: Option<String>,
    /// Metric of the curves.
    pub metric: Metric,
    /// Order of the table.
    pub sort: Sort,
    /// Whether future datasets have curves.
    pub future: bool,
    /// Index of the arm under the cursor.
    pub arm: usize,
    /// Number of lines at the end of an arm's log that are scrolled out of sight.
    pub log_back: usize,
}

impl Live {
    /// A run that has not been read yet.
    pub fn new(run: String) -> Self {
        Self {
            run,
            state: RunState::default(),
            status: None,
            problem: None,
            metric: Metric::default(),
            sort: Sort::default(),
            future: false,
            arm: 0,
            log_back: 0,
        }
    }

    /// Applies an update of the run.
    pub fn feed(&mut self, first: bool, update: Result<FeedUpdate, String>) {
        match update {
            Ok(update) => {
                if first {
                    self.state = RunState::default();
                    self.problem = None;
                }
                for record in &update.records {
                    self.state.apply(record);
                }
                self.status = Some(update.status);
                self.arm = self.arm.min(self.state.arms.len().saturating_sub(1));
            }
            Err(problem) => self.problem = Some(problem),
        }
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
            Action::Enter if !self.state.arms.is_empty() => {
                self.log_back = 0;
                effects.go = Some(Screen::Arm);
            }
            Action::Back => effects.go = Some(Screen::Runs),
            Action::Metric => self.metric = self.metric.next(),
            Action::Sort => self.sort = self.sort.next(),
            Action::Future => self.future = !self.future,
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
        let arms = self.state.arms.iter().map(|arm| (&self.state, arm));
        arm_table::order(arms, self.sort, self.metric)
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
        let grid = Grid::fitting(self.state.arms.len(), parts[2]);
        let page = grid.cells() as isize;
        self.arm = super::step(self.arm, by * page, self.state.arms.len());
    }

    /// The areas of the headline, the attention line, the panels, the legend and the table.
    fn parts(&self, area: Rect) -> [Rect; 5] {
        let attention = u16::from(self.attention().is_some());
        let free = area.height.saturating_sub(3 + attention);
        let rows = (self.state.arms.len() as u16).min((free / 3).max(4));
        Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(attention),
            Constraint::Fill(1),
            Constraint::Length(1),
            Constraint::Length(rows + 1),
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
                let text =
                    "crashed: the worker vanished before the end; r resumes, l shows the log";
                return Some((text.into(), true));
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
        arm.map_or_else(String::new, |arm| format!("{}: ", arm.info.name))
    }

    /// Draws all arms.
    pub fn draw(&self, frame: &mut Frame, area: Rect, theme: Theme, now: f64) {
        let [head, attention, panels, legend, table] = self.parts(area);
        frame.render_widget(self.headline(theme, now, usize::from(head.width)), head);
        if let Some((text, bad)) = self.attention() {
            let style = if bad { theme.bad() } else { theme.warn() };
            let text = clip(&format!("! {text}"), usize::from(attention.width));
            frame.render_widget(Line::styled(text, style), attention);
        }
        if self.state.arms.is_empty() {
            let text = match (&self.problem, self.status) {
                (Some(_), _) => "",
                (None, None) => "reading the run…",
                (None, Some(RunStatus::Live)) => "waiting for the worker's first event…",
                (None, Some(_)) => "nothing was recorded in this run",
            };
            frame.render_widget(Line::styled(text, theme.dim()).centered(), panels);
            return;
        }
        self.draw_panels(frame, panels, theme);
        let page = self.page(panels).unwrap_or_default();
        let room = usize::from(legend.width).saturating_sub(page.len());
        frame.render_widget(self.legend(theme, room), legend);
        frame.render_widget(Line::styled(page, theme.dim()).right_aligned(), legend);
        let order = self.order();
        let rows = order.iter().map(|&index| {
            let arm = &self.state.arms[index];
            ((index + 1).to_string(), &self.state, arm)
        });
        let names = self.state.datasets();
        ArmTable {
            theme,
            lead: ("#", 2),
            rows: rows.collect(),
            sort: self.sort,
            metric: self.metric,
            datasets: names.into_iter().map(str::to_owned).collect(),
            cursor: order.iter().position(|index| *index == self.arm),
        }
        .draw(frame, table);
    }

    fn headline(&self, theme: Theme, now: f64, width: usize) -> Line<'_> {
        let state = &self.state;
        let status = match self.status {
            None => Span::styled("…", theme.dim()),
            Some(RunStatus::Live) => Span::styled("LIVE", theme.good().patch(theme.heading())),
            Some(RunStatus::Finished) => Span::styled("finished", theme.heading()),
            Some(status) => Span::styled(status.word(), theme.bad()),
        };
        let mut facts = Vec::new();
        let (done, total) = state.steps_done();
        if total > 0 && self.is_live() {
            facts.push(format!("{}%", 100 * done / total));
        }
        if let Some((start, last)) = state.times {
            let end = if self.is_live() { now.max(last) } else { last };
            facts.push(seconds(end - start));
        }
        facts.push(state.device.clone());
        let facts = facts.join(" · ");
        let room = width.saturating_sub(status.width() + 4);
        let name = clip(
            &self.run,
            room.saturating_sub(facts.chars().count().min(24)),
        );
        let facts = clip(&facts, room.saturating_sub(name.chars().count()));
        Line::from(vec![
            Span::styled(name, theme.heading()),
            Span::raw("  "),
            status,
            Span::raw("  "),
            Span::raw(facts),
        ])
    }

    /// The legend: the metric, and marker and name of every dataset.
    pub fn legend(&self, theme: Theme, width: usize) -> Line<'_> {
        let metric = match self.metric {
            Metric::Accuracy => "accuracy:",
            Metric::Ntp => "NTP, nats:",
            Metric::Kl => "KL, nats:",
        };
        let mut spans = vec![Span::styled(metric, theme.dim())];
        let names = self.state.datasets();
        let room = width.saturating_sub(metric.len()) / names.len().max(1);
        for (index, name) in names.iter().enumerate() {
            let name = clip(name, room.saturating_sub(3));
            let style = theme.series(index);
            spans.push(Span::styled(
                format!(" {} {name}", theme.marker(index)),
                style,
            ));
        }
        Line::from(spans)
    }

    fn draw_panels(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let arms = &self.state.arms;
        let grid = Grid::fitting(arms.len(), area);
        let page = grid.cells();
        let first = self.arm / page * page;
        let range = self.range(arms.iter());
        for slot in 0..page.min(arms.len() - first) {
            let index = first + slot;
            let cell = grid.cell(area, slot);
            let arm = &arms[index];
            let title = self.panel_title(theme, index, usize::from(cell.width));
            frame.render_widget(self.chart(theme, arm, title, range), cell);
        }
    }

    /// The number of the page of panels, if there are several.
    fn page(&self, panels: Rect) -> Option<String> {
        let count = self.state.arms.len();
        let page = Grid::fitting(count, panels).cells();
        let pages = count.div_ceil(page);
        (pages > 1).then(|| format!(" PgUp/Dn: page {} of {pages}", self.arm / page + 1))
    }

    fn panel_title(&self, theme: Theme, index: usize, width: usize) -> Line<'_> {
        let arm = &self.state.arms[index];
        let verdict = verdict(arm, &self.state.phases);
        let forgot = figures::forgetting(arm, &self.state.phases, self.metric.of_change());
        let number = format!("{:>2} ", index + 1);
        let (words, words_style) = match (&arm.status, forgot) {
            (ArmStatus::Failed(_), _) => ("FAILED".into(), theme.bad()),
            (ArmStatus::Skipped(_), _) => ("skipped".into(), theme.warn()),
            (_, None) => (String::new(), theme.dim()),
            (_, Some(lost)) => {
                let lost = arm_table::figure(self.metric.of_change(), Some(lost));
                let style = arm_table::verdict_style(theme, verdict);
                (format!("{} {lost}", verdict.word()), style)
            }
        };
        let room = width.saturating_sub(number.len() + words.len() + 2);
        let name = clip(&arm_table::arm_name(&self.state, arm), room);
        let style = if index == self.arm {
            theme.heading().patch(theme.selected())
        } else {
            theme.heading()
        };
        Line::from(vec![
            Span::styled(format!("{number}{name}"), style),
            Span::raw("  "),
            Span::styled(words, words_style),
        ])
    }

    /// The curves of one arm.
    pub fn chart<'a>(
        &'a self,
        theme: Theme,
        arm: &'a ArmState,
        title: Line<'a>,
        range: Range,
    ) -> Chart<'a> {
        let names = self.state.datasets();
        let series = names.iter().enumerate().map(|(index, name)| Series {
            index,
            points: self.points(arm, name),
        });
        let mut end = 0;
        let mut phases = Vec::new();
        for phase in &self.state.phases {
            end += phase.steps;
            phases.push((phase.dataset.as_str(), end));
        }
        let note = match &arm.status {
            ArmStatus::Failed(reason) => Some(reason.as_str()),
            ArmStatus::Skipped(reason) => Some(reason.as_str()),
            _ if arm.evaluations.is_empty() => Some("not evaluated yet"),
            _ => None,
        };
        Chart {
            theme,
            title,
            series: series.collect(),
            steps: end.max(arm.evaluations.last().map_or(1, |e| e.step)),
            range,
            percent: self.metric == Metric::Accuracy,
            phases,
            note,
        }
    }

    fn points(&self, arm: &ArmState, dataset: &str) -> Vec<(u64, Option<f64>)> {
        let point = |evaluation: &forgetlab_study::run::Evaluation| {
            let score = evaluation.scores.iter().find(|s| s.dataset == dataset);
            let shown = score.filter(|s| self.future || s.role != Role::Future);
            (evaluation.step, shown.and_then(|s| self.metric.of(s)))
        };
        arm.evaluations.iter().map(point).collect()
    }

    /// Range of the value axis that these arms share.
    pub fn range<'a>(&self, arms: impl Iterator<Item = &'a ArmState>) -> Range {
        if self.metric == Metric::Accuracy {
            return Range {
                low: 0.0,
                high: 1.0,
            };
        }
        let scores = arms
            .flat_map(|arm| &arm.evaluations)
            .flat_map(|e| &e.scores);
        let shown = scores.filter(|s| self.future || s.role != Role::Future);
        let highest = shown.filter_map(|s| self.metric.of(s)).fold(0.0, f64::max);
        Range {
            low: 0.0,
            high: if highest > 0.0 { highest } else { 1.0 },
        }
    }

    /// Lines of the run's log, oldest first: time since the start, level, arm and text. With `arm`, only
    /// those of this arm, without its name.
    pub fn log_lines(&self, theme: Theme, arm: Option<usize>) -> Vec<(String, Style)> {
        let start = self.state.times.map_or(0.0, |times| times.0);
        let wanted = |line: &&LogLine| arm.is_none() || line.arm == arm;
        let write = |line: &LogLine| {
            let (word, style) = match line.level {
                Level::Info => ("", Style::new()),
                Level::Warn => ("warning: ", theme.warn()),
                Level::Error => ("error: ", theme.bad()),
            };
            let name = if arm.is_none() {
                self.arm_prefix(line)
            } else {
                String::new()
            };
            let time = seconds(line.time - start);
            (format!("{time} {word}{name}{}", line.message), style)
        };
        self.state.log.iter().filter(wanted).map(write).collect()
    }
}

/// Columns and rows of panels.
#[derive(Clone, Copy)]
struct Grid {
    columns: usize,
    rows: usize,
}

impl Grid {
    /// The grid with the largest panels that holds `count` of them, or as many as fit.
    fn fitting(count: usize, area: Rect) -> Self {
        let most = Self {
            columns: usize::from(area.width / PANEL.width).max(1),
            rows: usize::from(area.height / PANEL.height).max(1),
        };
        let fits = (1..=most.columns)
            .map(|columns| Self {
                columns,
                rows: count.div_ceil(columns).max(1),
            })
            .filter(|grid| grid.rows <= most.rows);
        // A character is about twice as high as wide, and a curve reads best twice as wide as high.
        let size = |grid: &Self| {
            (usize::from(area.width) / grid.columns).min(4 * usize::from(area.height) / grid.rows)
        };
        fits.max_by_key(size).unwrap_or(most)
    }

    /// Number of panels.
    fn cells(self) -> usize {
        self.columns * self.rows
    }

    /// Area of panel `slot`, counted row by row.
    fn cell(self, area: Rect, slot: usize) -> Rect {
        let (x, y) = ((slot % self.columns) as u16, (slot / self.columns) as u16);
        let (columns, rows) = (self.columns as u16, self.rows as u16);
        let left = area.width * x / columns;
        let right = area.width * (x + 1) / columns;
        let top = area.height * y / rows;
        let bottom = area.height * (y + 1) / rows;
        Rect {
            x: area.x + left,
            y: area.y + top,
            // A gap between neighbours.
            width: (right - left).saturating_sub(u16::from(x + 1 < columns)),
            height: bottom - top,
        }
    }
}

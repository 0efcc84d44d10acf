//! One run, every arm side by side: a panel of curves an arm, and the table below.

use forgetlab_study::report::verdict;
use forgetlab_study::run::{ArmState, ArmStatus, Level, Role, RunState, RunStatus};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::event::Command;
use crate::figures::{self, Metric};
use crate::keymap::Action;
use crate::lab::FeedUpdate;
use crate::theme::Theme;
use crate::widgets::arm_table::{self, ArmTable, Sort};
use crate::widgets::chart::{Chart, Series};
use crate::widgets::text::{clip, seconds};

use super::{Effects, Screen};

/// Smallest panel whose curves can be read: columns, rows.
const PANEL: (u16, u16) = (38, 6);

/// The run being watched.
#[derive(Debug)]
pub struct Live {
    /// Name of the run.
    pub run: String,
    /// What is known of it.
    pub state: RunState,
    /// Where it stands; `None` until its first news.
    pub status: Option<RunStatus>,
    /// Why it cannot be read (any more).
    pub problem: Option<String>,
    /// What the curves show.
    pub metric: Metric,
    /// Order of the table.
    pub sort: Sort,
    /// Whether tasks still to come have curves.
    pub future: bool,
    /// Arm under the cursor, as the run has them.
    pub arm: usize,
    /// Lines between the end of an arm's log and what is shown of it.
    pub log_back: usize,
}

impl Live {
    /// A run of which nothing is known yet.
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

    /// Takes news of the run.
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

    /// Whether a worker is at it.
    pub fn is_live(&self) -> bool {
        self.status == Some(RunStatus::Live) && self.problem.is_none()
    }

    /// Takes a key on the screen of all arms.
    pub fn act(&mut self, action: Action, body: (u16, u16), effects: &mut Effects) {
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

    fn turn_page(&mut self, by: isize, body: (u16, u16)) {
        let parts = self.parts(Rect::new(0, 0, body.0, body.1));
        let (columns, rows) = grid(self.state.arms.len(), parts[2]);
        let page = (columns * rows) as isize;
        self.arm = super::step(self.arm, by * page, self.state.arms.len());
    }

    /// State of the run, what needs attention, panels, legend, table.
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

    /// The one thing to read first, if there is one.
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
        let last = self.state.log.iter().rfind(|line| line.1 != Level::Info)?;
        let arm = last.2.and_then(|arm| self.state.arms.get(arm));
        let arm = arm.map_or(String::new(), |arm| format!("{}: ", arm.info.name));
        let count = self
            .state
            .log
            .iter()
            .filter(|line| line.1 != Level::Info)
            .count();
        let log = match count {
            1 => "(l: log)".to_string(),
            count => format!("(l: log, {count} such)"),
        };
        let room = 76usize.saturating_sub(log.len());
        let text = clip(&format!("{arm}{}", last.3), room);
        Some((format!("{text} {log}"), last.1 == Level::Error))
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

    /// Which curve is whose, and what they show.
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
        let (columns, rows) = grid(arms.len(), area);
        let page = columns * rows;
        let first = self.arm / page * page;
        let range = self.range(arms.iter());
        for slot in 0..page.min(arms.len() - first) {
            let index = first + slot;
            let cell = cell(area, (columns, rows), slot);
            let arm = &arms[index];
            let title = self.panel_title(theme, index, usize::from(cell.width));
            frame.render_widget(self.chart(theme, arm, title, range), cell);
        }
    }

    /// Which of several pages of panels is shown.
    fn page(&self, panels: Rect) -> Option<String> {
        let count = self.state.arms.len();
        let (columns, rows) = grid(count, panels);
        let page = columns * rows;
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
        let style = match index == self.arm {
            true => theme.heading().patch(theme.selected()),
            false => theme.heading(),
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
        range: (f64, f64),
    ) -> Chart<'a> {
        let names = self.state.datasets();
        let series = names.iter().enumerate().map(|(index, name)| Series {
            index,
            points: self.points(arm, name),
        });
        let mut end = 0;
        let phases = self.state.phases.iter().map(|phase| {
            end += phase.steps;
            (phase.dataset.as_str(), end)
        });
        let phases: Vec<_> = phases.collect();
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

    /// Lowest and highest value of the axis that these arms share.
    pub fn range<'a>(&self, arms: impl Iterator<Item = &'a ArmState>) -> (f64, f64) {
        if self.metric == Metric::Accuracy {
            return (0.0, 1.0);
        }
        let scores = arms
            .flat_map(|arm| &arm.evaluations)
            .flat_map(|e| &e.scores);
        let shown = scores.filter(|s| self.future || s.role != Role::Future);
        let highest = shown.filter_map(|s| self.metric.of(s)).fold(0.0, f64::max);
        (0.0, if highest > 0.0 { highest } else { 1.0 })
    }

    /// The run's log, oldest first: time since the start, level, arm and text.
    pub fn log_lines(&self, theme: Theme, arm: Option<usize>) -> Vec<(String, Style)> {
        let start = self.state.times.map_or(0.0, |times| times.0);
        let wanted = self.state.log.iter().filter(|line| match arm {
            Some(_) => line.2 == arm,
            None => true,
        });
        let line = |(time, level, of, text): &(f64, Level, Option<usize>, String)| {
            let (word, style) = match level {
                Level::Info => ("", Style::new()),
                Level::Warn => ("warning: ", theme.warn()),
                Level::Error => ("error: ", theme.bad()),
            };
            let name = of
                .filter(|_| arm.is_none())
                .and_then(|of| self.state.arms.get(of));
            let name = name.map_or(String::new(), |arm| format!("{}: ", arm.info.name));
            (
                format!("{} {word}{name}{text}", seconds(time - start)),
                style,
            )
        };
        wanted.map(line).collect()
    }
}

/// Columns and rows of panels: all of `count` where they fit, as near to square as may be.
fn grid(count: usize, area: Rect) -> (usize, usize) {
    let most_columns = usize::from(area.width / PANEL.0).max(1);
    let most_rows = usize::from(area.height / PANEL.1).max(1);
    let fits = (1..=most_columns)
        .map(|columns| (columns, count.div_ceil(columns).max(1)))
        .filter(|(_, rows)| *rows <= most_rows);
    // A character is about twice as high as wide, and a curve reads best twice as wide as high.
    let size = |&(columns, rows): &(usize, usize)| {
        (usize::from(area.width) / columns).min(4 * usize::from(area.height) / rows)
    };
    fits.max_by_key(size).unwrap_or((most_columns, most_rows))
}

/// Place of panel `slot` of a grid.
fn cell(area: Rect, (columns, rows): (usize, usize), slot: usize) -> Rect {
    let (x, y) = ((slot % columns) as u16, (slot / columns) as u16);
    let (columns, rows) = (columns as u16, rows as u16);
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

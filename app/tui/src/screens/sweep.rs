//! The points of a sweep: open one, stop or resume the sweep.

use std::collections::BTreeSet;

use forgetlab_study::run::{PointStatus, RunStatus};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Row, Table};

use crate::event::Command;
use crate::keymap::Action;
use crate::lab::{Sweep, SweepPoint};
use crate::theme::Theme;
use crate::widgets::status::{in_words, status_style};
use crate::widgets::text::{clip, scroll_to, wrap};

use super::{Effects, Screen, step};

/// State of the screen.
#[derive(Debug)]
pub struct SweepScreen {
    /// Name of the sweep.
    pub name: String,
    /// What was read last; `None` until then.
    sweep: Option<Sweep>,
    /// Why it cannot be read (any more).
    problem: Option<String>,
    cursor: usize,
    /// Names of the points that are marked.
    marks: BTreeSet<String>,
}

impl SweepScreen {
    /// A sweep that has not been read yet.
    pub fn new(name: String) -> Self {
        Self {
            name,
            sweep: None,
            problem: None,
            cursor: 0,
            marks: BTreeSet::new(),
        }
    }

    /// Takes what was read.
    pub fn set(&mut self, sweep: Result<Sweep, String>) {
        match sweep {
            Ok(sweep) => {
                self.cursor = self.cursor.min(sweep.points.len().saturating_sub(1));
                self.sweep = Some(sweep);
                self.problem = None;
            }
            Err(problem) => self.problem = Some(problem),
        }
    }

    /// Whether a name is that of the run of one of its points.
    pub fn has_run(&self, run: &str) -> bool {
        let mut points = self.points().iter();
        points.any(|point| point.run.as_deref() == Some(run))
    }

    fn points(&self) -> &[SweepPoint] {
        self.sweep.as_ref().map_or(&[], |sweep| &sweep.points)
    }

    /// Whether somebody works on it.
    pub fn is_live(&self) -> bool {
        self.status() == Some(RunStatus::Live)
    }

    /// Status of the sweep; `None` until it is read.
    fn status(&self) -> Option<RunStatus> {
        self.sweep.as_ref().map(|sweep| sweep.summary.status)
    }

    /// Applies a key's action; `height` is the body's.
    pub fn act(&mut self, action: Action, height: u16, effects: &mut Effects) {
        let page = isize::from(height.saturating_sub(4).max(1) as i16);
        let len = self.points().len();
        match action {
            Action::Up => self.cursor = step(self.cursor, -1, len),
            Action::Down => self.cursor = step(self.cursor, 1, len),
            Action::PageUp => self.cursor = step(self.cursor, -page, len),
            Action::PageDown => self.cursor = step(self.cursor, page, len),
            Action::First => self.cursor = 0,
            Action::Last => self.cursor = step(self.cursor, isize::MAX, len),
            Action::Back if !self.marks.is_empty() => self.marks.clear(),
            Action::Back => effects.go = Some(Screen::Runs),
            Action::Mark => self.mark(),
            Action::Enter if self.marks.len() > 1 => effects.open = self.chosen(),
            Action::Enter => self.open_point(effects),
            Action::Export => match self.chosen() {
                none if none.is_empty() => effects.hint("nobody has begun with this point yet"),
                runs => effects.ask(Command::Export(runs), "writing CSVs and figures…"),
            },
            Action::Stop if self.is_live() => effects.ask_stop_sweep(self.name.clone()),
            Action::Stop => effects.hint("this sweep is not live"),
            Action::Resume => match self.status() {
                Some(status) => resume(&self.name, status, effects),
                None => effects.hint("reading the sweep…"),
            },
            _ => {}
        }
    }

    fn mark(&mut self) {
        if let Some(point) = self.points().get(self.cursor) {
            let name = point.name.clone();
            if !self.marks.remove(&name) {
                self.marks.insert(name);
            }
            self.cursor = step(self.cursor, 1, self.points().len());
        }
    }

    /// The runs of the marked points in order; where none is marked, that of the one under the cursor.
    fn chosen(&self) -> Vec<String> {
        let all = self.points().iter().enumerate();
        let chosen = all.filter(|(index, point)| match self.marks.is_empty() {
            true => *index == self.cursor,
            false => self.marks.contains(&point.name),
        });
        chosen.filter_map(|(_, point)| point.run.clone()).collect()
    }

    fn open_point(&self, effects: &mut Effects) {
        let Some(point) = self.points().get(self.cursor) else {
            return;
        };
        match (&point.status, &point.run) {
            (PointStatus::Refused(why), _) => {
                effects.notice = Some(format!("{} was refused: {why}", point.name));
            }
            (_, Some(run)) => effects.open = vec![run.clone()],
            (PointStatus::Live, None) => effects.hint("this point is just beginning"),
            (_, None) => effects.hint("nobody has begun with this point yet"),
        }
    }

    /// Draws the sweep's line and its points.
    pub fn draw(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let width = usize::from(area.width);
        let problem = self.problem.as_deref();
        let problem = problem.map(|text| wrap(text, width)).unwrap_or_default();
        let [head, top, body, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(problem.len() as u16),
            Constraint::Fill(1),
            Constraint::Length(1),
        ])
        .areas(area);
        frame.render_widget(self.headline(theme, width), head);
        for (row, line) in top.rows().zip(&problem) {
            frame.render_widget(Line::styled(line.as_str(), theme.bad()), row);
        }
        let Some(sweep) = &self.sweep else {
            let text = if problem.is_empty() {
                "reading the sweep…"
            } else {
                ""
            };
            frame.render_widget(Line::styled(text, theme.dim()).centered(), body);
            return;
        };
        frame.render_widget(self.table(&sweep.points, body, theme), body);
        let counts = sweep.summary.points.unwrap_or_default();
        let text = clip(&in_words(counts), width);
        frame.render_widget(Line::styled(text, theme.dim()), foot);
    }

    fn headline(&self, theme: Theme, width: usize) -> Line<'_> {
        let mut told = Vec::new();
        if let Some(sweep) = &self.sweep {
            let summary = &sweep.summary;
            let style = status_style(theme, summary.status);
            told.push(Span::raw("  "));
            told.push(Span::styled(summary.status.word(), style));
            told.push(Span::raw(format!("  {}", percent(summary.progress))));
        }
        let beside: usize = told.iter().map(Span::width).sum();
        let name = clip(&self.name, width.saturating_sub(beside));
        let mut spans = vec![Span::styled(name, theme.heading())];
        spans.append(&mut told);
        Line::from(spans)
    }

    /// The table, with as many points as fit, the cursor's among them.
    fn table(&self, points: &[SweepPoint], area: Rect, theme: Theme) -> Table<'static> {
        let height = usize::from(area.height.saturating_sub(1));
        let first = scroll_to(self.cursor, points.len(), height);
        let width = usize::from(area.width);
        let longest = points.iter().map(|point| point.name.chars().count()).max();
        // Number, status, share and the spaces between; what is told has a third of the rest at least.
        let free = width.saturating_sub(4 + 1 + 10 + 1 + 4 + 1 + 1);
        let name_width = longest.unwrap_or(0).clamp(5, (free * 2 / 3).max(5));
        let told_width = free.saturating_sub(name_width);
        let shown = points.iter().enumerate().skip(first).take(height);
        let rows = shown.map(|(index, point)| {
            let told = match &point.status {
                PointStatus::Refused(why) => why,
                _ => &point.told,
            };
            let cells = [
                match self.marks.contains(&point.name) {
                    true => Text::raw("✓").right_aligned(),
                    false => Text::styled((index + 1).to_string(), theme.dim()).right_aligned(),
                },
                Text::raw(clip(&point.name, name_width)),
                Text::styled(point.status.word(), point_style(theme, &point.status)),
                Text::raw(percent(point.progress)).right_aligned(),
                Text::raw(clip(told, told_width)),
            ];
            let style = match index == self.cursor {
                true => theme.selected(),
                false => Style::new(),
            };
            Row::new(cells).style(style)
        });
        let widths = [
            Constraint::Length(4),
            Constraint::Length(name_width as u16),
            Constraint::Length(10),
            Constraint::Length(4),
            Constraint::Length(told_width as u16),
        ];
        let header = ["", "point", "status", "done", "forgot, first arm"];
        Table::new(rows, widths)
            .header(Row::new(header).style(theme.heading()))
            .column_spacing(1)
    }
}

/// Asks for a sweep to be gone on with, where there is something left to do.
pub fn resume(name: &str, status: RunStatus, effects: &mut Effects) {
    match status {
        RunStatus::Live => effects.hint("this sweep is live already"),
        RunStatus::Finished => effects.hint("this sweep has finished: there is nothing to resume"),
        RunStatus::Failed => {
            effects
                .hint("only failed points are left: `forgetlab resume --retry` tries them again");
        }
        RunStatus::Interrupted | RunStatus::Crashed => {
            effects.ask(Command::Resume(name.to_owned()), "resuming…");
        }
    }
}

fn percent(progress: f64) -> String {
    format!("{:.0}%", (progress * 100.0).clamp(0.0, 100.0).floor())
}

fn point_style(theme: Theme, status: &PointStatus) -> Style {
    match status {
        PointStatus::Waiting => theme.dim(),
        PointStatus::Live => status_style(theme, RunStatus::Live),
        PointStatus::Unfinished => theme.warn(),
        PointStatus::Finished => Style::new(),
        PointStatus::Failed | PointStatus::Refused(_) => theme.bad(),
    }
}

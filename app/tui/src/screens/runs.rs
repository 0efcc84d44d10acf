//! The list of runs: attach, open, resume, stop, mark and compare.

use std::collections::BTreeSet;

use forgetlab_study::run::RunStatus;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Row, Table};

use crate::event::Command;
use crate::keymap::Action;
use crate::lab::RunSummary;
use crate::theme::Theme;
use crate::widgets::text::{clip, plural, scroll_to, seconds, wrap};

use super::{Effects, step};

/// State of the list.
#[derive(Debug, Default)]
pub struct Runs {
    /// Runs, newest first; `None` until they are read.
    list: Option<Vec<RunSummary>>,
    /// Why they cannot be read.
    problem: Option<String>,
    /// Name of the run under the cursor: new runs do not move it.
    cursor: Option<String>,
    marks: BTreeSet<String>,
}

impl Runs {
    /// Replaces the list.
    pub fn set(&mut self, list: Result<Vec<RunSummary>, String>) {
        match list {
            Ok(list) => {
                self.marks
                    .retain(|name| list.iter().any(|run| run.name == *name));
                self.list = Some(list);
                self.problem = None;
            }
            Err(problem) => self.problem = Some(problem),
        }
    }

    /// The runs read.
    pub fn list(&self) -> &[RunSummary] {
        self.list.as_deref().unwrap_or_default()
    }

    fn index(&self) -> usize {
        let at = |name: &String| self.list().iter().position(|run| run.name == *name);
        self.cursor.as_ref().and_then(at).unwrap_or(0)
    }

    fn current(&self) -> Option<&RunSummary> {
        self.list().get(self.index())
    }

    /// Names of the marked runs in the order of the list; if none is, of the one under the cursor.
    fn chosen(&self) -> Vec<String> {
        let names = self.list().iter().map(|run| &run.name);
        let marked: Vec<String> = names.filter(|n| self.marks.contains(*n)).cloned().collect();
        if marked.is_empty() {
            return self
                .current()
                .map(|run| run.name.clone())
                .into_iter()
                .collect();
        }
        marked
    }

    /// Applies a key's action; `height` is the body's.
    pub fn act(&mut self, action: Action, height: u16, effects: &mut Effects) {
        let page = isize::from(height.saturating_sub(3).max(1) as i16);
        let by = match action {
            Action::Up => -1,
            Action::Down => 1,
            Action::PageUp => -page,
            Action::PageDown => page,
            Action::First => isize::MIN,
            Action::Last => isize::MAX,
            _ => 0,
        };
        if by != 0 {
            let index = step(self.index(), by, self.list().len());
            self.cursor = self.list().get(index).map(|run| run.name.clone());
            return;
        }
        let Some(run) = self.current().cloned() else {
            return;
        };
        match action {
            Action::Enter => match &run.problem {
                Some(problem) => effects.notice = Some(problem.clone()),
                None => effects.open = Some(run.name),
            },
            Action::Mark => {
                if !self.marks.remove(&run.name) {
                    self.marks.insert(run.name);
                }
                let next = step(self.index(), 1, self.list().len());
                self.cursor = self.list().get(next).map(|run| run.name.clone());
            }
            Action::Compare => effects.ask(Command::Compare(self.chosen()), "reading the runs…"),
            Action::Export => {
                effects.ask(Command::Export(self.chosen()), "writing CSVs and figures…");
            }
            Action::Resume if run.status.is_resumable() => {
                effects.ask(Command::Resume(run.name), "resuming…");
            }
            Action::Resume => effects.hint(match run.status {
                RunStatus::Live => "this run is live already",
                _ => "this run has finished: there is nothing to resume",
            }),
            Action::Stop if run.status == RunStatus::Live => effects.ask_stop = Some(run.name),
            Action::Stop => effects.hint("this run is not live"),
            _ => {}
        }
    }

    /// Draws the list.
    pub fn draw(&self, frame: &mut Frame, area: Rect, theme: Theme, now: f64) {
        let problem = self
            .problem
            .as_deref()
            .map(|problem| wrap(problem, usize::from(area.width)))
            .unwrap_or_default();
        let [top, body, foot] = Layout::vertical([
            Constraint::Length(problem.len() as u16),
            Constraint::Fill(1),
            Constraint::Length(1),
        ])
        .areas(area);
        for (row, line) in top.rows().zip(&problem) {
            frame.render_widget(Line::styled(line.as_str(), theme.bad()), row);
        }
        let Some(list) = self.list.as_ref().filter(|list| !list.is_empty()) else {
            let text = match (&self.list, &self.problem) {
                (None, None) => "reading the list of runs…",
                (None, Some(_)) => "",
                (Some(_), _) => "no runs here yet: press 1 to start one",
            };
            frame.render_widget(Line::styled(text, theme.dim()).centered(), body);
            return;
        };
        frame.render_widget(self.table(list, body, theme, now), body);
        let live = list
            .iter()
            .filter(|run| run.status == RunStatus::Live)
            .count();
        let text = format!(
            "{}, {live} live, {} marked",
            plural(list.len(), "run"),
            self.marks.len()
        );
        frame.render_widget(Line::styled(text, theme.dim()), foot);
    }

    /// The table, with as many runs as fit, the cursor's among them.
    fn table(&self, list: &[RunSummary], area: Rect, theme: Theme, now: f64) -> Table<'static> {
        let height = usize::from(area.height.saturating_sub(1));
        let cursor = self.index();
        let first = scroll_to(cursor, list.len(), height);
        let wide = area.width >= 110;
        let name_width = usize::from(area.width) - if wide { 68 } else { 43 };
        let shown = list.iter().enumerate().skip(first).take(height);
        let rows = shown.map(|(index, run)| {
            let mut cells = self.cells(run, name_width, theme, now);
            if wide {
                cells.insert(2, Text::raw(clip(&run.experiment, 24)));
            }
            let style = if index == cursor {
                theme.selected()
            } else {
                Style::new()
            };
            Row::new(cells).style(style)
        });
        let mut header = vec!["", "run", "status", "done", "arms", "preset", "   started"];
        let mut widths = vec![
            Constraint::Length(1),
            Constraint::Length(name_width as u16),
            Constraint::Length(11),
            Constraint::Length(4),
            Constraint::Length(4),
            Constraint::Length(8),
            Constraint::Length(10),
        ];
        if wide {
            header.insert(2, "experiment");
            widths.insert(2, Constraint::Length(24));
        }
        Table::new(rows, widths)
            .header(Row::new(header).style(theme.heading()))
            .column_spacing(1)
    }

    /// Cells of a run: mark, name, status, share done, arms, preset, time since the start.
    fn cells(
        &self,
        run: &RunSummary,
        name_width: usize,
        theme: Theme,
        now: f64,
    ) -> Vec<Text<'static>> {
        let mark = if self.marks.contains(&run.name) {
            "✓"
        } else {
            ""
        };
        let started = run.started.map_or("·".into(), |started| {
            format!("{} ago", seconds((now - started).max(0.0)))
        });
        let status_style = match run.status {
            RunStatus::Live => theme.good().patch(theme.heading()),
            RunStatus::Finished => Style::new(),
            RunStatus::Interrupted => theme.warn(),
            RunStatus::Failed | RunStatus::Crashed => theme.bad(),
        };
        let status = match run.problem {
            Some(_) => Line::styled("unreadable", theme.bad()),
            None => Line::styled(run.status.word(), status_style),
        };
        let done = format!("{:.0}%", (run.progress * 100.0).clamp(0.0, 100.0).floor());
        vec![
            Text::raw(mark),
            Text::raw(clip(&run.name, name_width)),
            status.into(),
            Text::raw(done).right_aligned(),
            Text::raw(run.arms.to_string()).right_aligned(),
            Text::raw(clip(&run.preset, 8)),
            Text::raw(started).right_aligned(),
        ]
    }
}

//! The list of runs: attach, open, resume, stop, mark and compare.

use std::collections::BTreeSet;

use forgetlab_study::run::RunStatus;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Table};

use crate::event::Command;
use crate::keymap::Action;
use crate::lab::RunSummary;
use crate::theme::Theme;
use crate::widgets::status::{in_words, status_style};
use crate::widgets::text::{clip, plural, scroll_to, seconds, wrap};

use super::{Effects, step, sweep};

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

    /// Whether a name is that of a sweep.
    pub fn is_sweep(&self, name: &str) -> bool {
        let mut list = self.list().iter();
        list.any(|run| run.name == name && run.points.is_some())
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
        if run.points.is_some() {
            return self.act_on_sweep(action, &run, effects);
        }
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

    fn act_on_sweep(&self, action: Action, sweep: &RunSummary, effects: &mut Effects) {
        let name = &sweep.name;
        match action {
            Action::Enter => effects.open_sweep = Some(name.clone()),
            Action::Mark => {
                effects.hint("a sweep is compared as one: `forgetlab compare` has its table")
            }
            Action::Compare => effects.hint(format!("`forgetlab compare {name}` has its table")),
            Action::Export => effects.hint(format!("`forgetlab figure {name}` draws its figures")),
            Action::Resume => sweep::resume(name, sweep.status, effects),
            Action::Stop if sweep.status == RunStatus::Live => {
                effects.ask_stop = Some(name.clone());
            }
            Action::Stop => effects.hint("this sweep is not live"),
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
        let sweeps = list.iter().filter(|run| run.points.is_some()).count();
        let runs = match (list.len() - sweeps, sweeps) {
            (runs, 0) => plural(runs, "run"),
            (0, sweeps) => plural(sweeps, "sweep"),
            (runs, sweeps) => format!("{}, {}", plural(runs, "run"), plural(sweeps, "sweep")),
        };
        let mut text = format!("{runs}, {live} live, {} marked", self.marks.len());
        if let Some(counts) = self.current().and_then(|run| run.points) {
            let sweep = format!("this sweep: {}", in_words(counts));
            let both = format!("{text}; {sweep}");
            text = match both.chars().count() <= usize::from(foot.width) {
                true => both,
                false => sweep,
            };
        }
        let text = clip(&text, usize::from(foot.width));
        frame.render_widget(Line::styled(text, theme.dim()), foot);
    }

    /// The table, with as many runs as fit, the cursor's among them.
    fn table(&self, list: &[RunSummary], area: Rect, theme: Theme, now: f64) -> Table<'static> {
        let height = usize::from(area.height.saturating_sub(1));
        let cursor = self.index();
        let first = scroll_to(cursor, list.len(), height);
        let wide = area.width >= 110;
        let name_width = usize::from(area.width) - if wide { 65 } else { 40 };
        let shown = list.iter().enumerate().skip(first).take(height);
        let rows = shown.map(|(index, run)| {
            let mut cells = self.cells(run, name_width, theme, now);
            if wide {
                cells.insert(2, Text::raw(clip(&run.experiment, 24)).into());
            }
            let style = if index == cursor {
                theme.selected()
            } else {
                Style::new()
            };
            Row::new(cells).style(style)
        });
        let mut header = vec!["", "run", "status", "done", "arms", "preset", "   age"];
        let mut widths = vec![
            Constraint::Length(1),
            Constraint::Length(name_width as u16),
            Constraint::Length(11),
            Constraint::Length(4),
            Constraint::Length(4),
            Constraint::Length(8),
            Constraint::Length(6),
        ];
        if wide {
            header.insert(2, "experiment");
            widths.insert(2, Constraint::Length(24));
        }
        Table::new(rows, widths)
            .header(Row::new(header).style(theme.heading()))
            .column_spacing(1)
    }

    /// Cells of a run: mark, name, status, share done, arms, preset, time since the start. A sweep has how many of its
    /// points are finished in place of arms and preset.
    fn cells(
        &self,
        run: &RunSummary,
        name_width: usize,
        theme: Theme,
        now: f64,
    ) -> Vec<Cell<'static>> {
        let mark = if self.marks.contains(&run.name) {
            "✓"
        } else {
            ""
        };
        let started = run
            .started
            .map_or("·".into(), |started| seconds((now - started).max(0.0)));
        let status = match run.problem {
            Some(_) => Line::styled("unreadable", theme.bad()),
            None => Line::styled(run.status.word(), status_style(theme, run.status)),
        };
        let done = format!("{:.0}%", (run.progress * 100.0).clamp(0.0, 100.0).floor());
        let mut cells: Vec<Cell> = vec![
            mark.into(),
            clip(&run.name, name_width).into(),
            status.into(),
            Text::raw(done).right_aligned().into(),
        ];
        match run.points {
            Some(counts) => {
                // As wide as arms and preset together.
                let told = format!("sweep {}/{}", counts.finished, counts.all);
                cells.push(Cell::from(clip(&told, 13)).column_span(2));
            }
            None => cells.extend([
                Text::raw(run.arms.to_string()).right_aligned().into(),
                clip(&run.preset, 8).into(),
            ]),
        }
        cells.push(Text::raw(started).right_aligned().into());
        cells
    }
}

//! Drawing of the list of runs, and of what is beside it.

use forgetlab_study::run::RunStatus;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Table};
use unicode_width::UnicodeWidthStr;

use crate::lab::RunSummary;
use crate::theme::Theme;
use crate::widgets::names::without_time;
use crate::widgets::status::{in_words, status_style};
use crate::widgets::text::{clip, plural, scroll_to, seconds, wrap};

use super::Runs;

/// Columns from which a run is shown beside the list.
const BESIDE: u16 = 116;
/// Columns from which the list has the number of arms, too.
const WITH_PRESETS: u16 = 76;

/// Rows from which it is shown below the list in a narrower terminal.
const BELOW: u16 = 34;

impl Runs {
    /// Draws the list.
    pub fn draw(&self, frame: &mut Frame, area: Rect, theme: Theme, now: f64) {
        let problem = self.problem.as_deref().or(match &self.filter.1 {
            Some(Err(problem)) => Some(problem.as_str()),
            _ => None,
        });
        let problem = problem
            .map(|text| wrap(text, usize::from(area.width)))
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
        if self.list().is_empty() {
            let text = match (&self.list, &self.problem) {
                (None, None) => "reading the list of runs…",
                (None, Some(_)) => "",
                (Some(_), _) => "no runs here yet: 3 composes one",
            };
            frame.render_widget(Line::styled(text, theme.dim()).centered(), body);
            return;
        }
        let (list, beside) = match (body.width, body.height) {
            (width, _) if width >= BESIDE => {
                let left = (width / 2).clamp(60, 110);
                let halves = [
                    Constraint::Length(left),
                    Constraint::Length(1),
                    Constraint::Fill(1),
                ];
                let [left, _, right] = Layout::horizontal(halves).areas(body);
                (left, Some(right))
            }
            (_, height) if height >= BELOW => {
                let [upper, lower] = Layout::vertical([Constraint::Fill(1); 2]).areas(body);
                (upper, Some(lower))
            }
            _ => (body, None),
        };
        let shown = self.shown();
        match shown.is_empty() {
            true => {
                let text = "no run passes the filter; Esc takes it away";
                frame.render_widget(Line::styled(text, theme.dim()).centered(), list);
            }
            false => frame.render_widget(self.table(&shown, list, theme, now), list),
        }
        if let Some(beside) = beside {
            self.draw_beside(frame, beside, theme);
        }
        let text = clip(
            &self.summary(&shown, usize::from(foot.width)),
            usize::from(foot.width),
        );
        frame.render_widget(Line::styled(text, theme.dim()), foot);
    }

    /// How many runs there are, what is filtered, and how the sweep under the cursor stands.
    fn summary(&self, shown: &[&RunSummary], width: usize) -> String {
        let list = self.list();
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
        if !self.filter.0.is_empty() {
            text = format!("{} of {text}; /{}", shown.len(), self.filter.0);
        }
        let current = self.current();
        let more = match current.and_then(|run| run.points) {
            Some(counts) => format!("this sweep: {}", in_words(counts)),
            None => current.map_or(String::new(), |run| run.labels.note.clone()),
        };
        let both = format!("{text}; {more}");
        match (more.is_empty(), both.chars().count() <= width) {
            (true, _) => text,
            (false, true) => both,
            (false, false) => more,
        }
    }

    /// The table, with as many runs as fit, the cursor's among them.
    fn table(&self, list: &[&RunSummary], area: Rect, theme: Theme, now: f64) -> Table<'static> {
        let height = usize::from(area.height.saturating_sub(1));
        let cursor = self.index(list);
        let first = scroll_to(cursor, list.len(), height);
        let presets = area.width >= WITH_PRESETS;
        let others = if presets { 40 } else { 35 };
        let name_width = usize::from(area.width).saturating_sub(others).max(10);
        let shown = list.iter().enumerate().skip(first).take(height);
        let rows = shown.map(|(index, run)| {
            let style = match index == cursor {
                true => theme.selected(),
                false => Style::new(),
            };
            let mut cells = self.cells(run, name_width, presets, theme, now);
            if !presets && run.points.is_none() {
                cells.remove(4);
            }
            Row::new(cells).style(style)
        });
        let mut header = vec!["", "run", "status", "done", "arms", "preset", "   age"];
        let mut widths = vec![1, name_width as u16, 11, 4, 4, 8, 6];
        if !presets {
            header.remove(4);
            widths.remove(4);
        }
        let widths = widths.into_iter().map(Constraint::Length);
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
        presets: bool,
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
        let status = match (&run.problem, run.queued) {
            (Some(_), _) => Line::styled("unreadable", theme.bad()),
            (None, Some(place)) => Line::styled(format!("queued, {place}."), theme.warn()),
            (None, None) => Line::styled(run.status.word(), status_style(theme, run.status)),
        };
        let done = format!("{:.0}%", (run.progress * 100.0).clamp(0.0, 100.0).floor());
        let tags: String = run
            .labels
            .tags
            .iter()
            .map(|tag| format!(" #{tag}"))
            .collect();
        let shown = run.labels.name.as_deref().unwrap_or(&run.name);
        let mut name = format!("{shown}{tags}");
        if name.width() > name_width && run.labels.name.is_none() {
            // The age stands in a column of its own: what a name ends with tells more than its time.
            name = format!("{}{tags}", without_time(&run.name));
        }
        let mut cells: Vec<Cell> = vec![
            mark.into(),
            clip(&name, name_width).into(),
            status.into(),
            Text::raw(done).right_aligned().into(),
        ];
        match run.points {
            Some(counts) => {
                // As wide as arms and preset together, or as the preset alone.
                let told = format!("{}/{}", counts.finished, counts.all);
                cells.push(match presets {
                    true => Cell::from(clip(&format!("sweep {told}"), 13)).column_span(2),
                    false => clip(&told, 8).into(),
                });
            }
            None => cells.extend([
                Text::raw(run.arms.to_string()).right_aligned().into(),
                clip(&run.preset, 8).into(),
            ]),
        }
        cells.push(Text::raw(started).right_aligned().into());
        cells
    }

    /// The run under the cursor: its picture, its arms, and what differs from the run before it.
    fn draw_beside(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let current = self.current();
        let name = current.map_or("", |run| run.name.as_str());
        let Some(shown) = self.preview.as_ref().filter(|shown| shown.name == name) else {
            let text = match current {
                Some(run) if run.points.is_some() => "Enter opens the points of this sweep",
                _ => "",
            };
            let lines = match current.and_then(|run| run.problem.as_deref()) {
                Some(problem) => wrap(problem, usize::from(area.width)),
                None => vec![text.to_owned()],
            };
            for (row, line) in area.rows().zip(lines) {
                frame.render_widget(Line::styled(line, theme.dim()), row);
            }
            return;
        };
        let width = usize::from(area.width);
        let mut texts: Vec<(String, Style)> = Vec::new();
        if let Some(run) = current {
            if !run.labels.note.is_empty() {
                let note = wrap(&run.labels.note, width).into_iter().take(3);
                texts.extend(note.map(|line| (line, theme.warn())));
            }
            if run.labels.name.is_some() {
                texts.push((clip(&run.name, width), theme.dim()));
            }
        }
        if let Some((other, settings)) = &shown.differs {
            let text = match settings.is_empty() {
                true => format!("the same settings as {other}"),
                false => format!("unlike {other}: {}", settings.join(", ")),
            };
            let lines = wrap(&text, width).into_iter().take(4);
            texts.extend(lines.map(|line| (line, theme.dim())));
        }
        let [picture, below] =
            Layout::vertical([Constraint::Fill(1), Constraint::Length(texts.len() as u16)])
                .areas(area);
        shown.watch.draw(frame, picture, theme);
        for (row, (text, style)) in below.rows().zip(texts) {
            frame.render_widget(Line::styled(text, style), row);
        }
    }
}

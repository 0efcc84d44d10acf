//! A small panel for each arm: the curves of every dataset side by side.

use forgetlab_study::run::{ArmStatus, Role};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::arms::{Group, Of, line_of};
use crate::figures::Metric;
use crate::theme::Theme;
use crate::track::Columns;
use crate::view::Pane;
use crate::widgets::grid::Grid;
use crate::widgets::names::distinct;
use crate::widgets::plot::{Curve, Curves, Range};
use crate::widgets::text::{clip, plural};
use crate::widgets::verdict;

use super::super::Watch;
use super::super::draw::under_title;
use super::super::table::ArmRow;
use super::curves::{range_of, value_range};

/// Columns of a window whose range is looked for.
const WIDE: u16 = 50;

impl Watch {
    pub(in super::super) fn draw_panels(
        &self,
        rows: &[ArmRow],
        frame: &mut Frame,
        area: Rect,
        theme: Theme,
    ) {
        let (title, body) = under_title(area);
        let at = rows
            .iter()
            .position(|row| row.group.index == self.arm)
            .unwrap_or(0);
        let grid = Grid::fitting(rows.len().max(1), body);
        let page = grid.cells();
        let first = at / page * page;
        let shown = &rows[first..rows.len().min(first + page)];
        let pages = rows.len().div_ceil(page);
        let mut words = vec![format!("{} of every dataset", self.metric().name())];
        words.push(self.axis_words());
        if pages > 1 {
            words.push(format!("page {} of {pages}", at / page + 1));
        }
        let line = self.pane_title(theme, Pane::Panels, &words, title.width);
        frame.render_widget(line, title);
        let titles = self.panel_titles(
            rows,
            first,
            at,
            theme,
            usize::from(grid.cell(body, 0).width),
        );
        let range = self.panels_range(rows);
        for (slot, (row, title)) in shown.iter().zip(titles).enumerate() {
            let cell = grid.cell(body, slot);
            let chart = self.panel(row, rows, theme, title, (range, cell.width));
            frame.render_widget(chart, cell);
        }
    }

    /// Marker and name of every dataset, for the curves of one arm.
    pub(super) fn legend(&self, theme: Theme, width: usize) -> Line<'static> {
        let names = &self.arms.datasets;
        let room = width / names.len().max(1);
        let span = |(index, name): (usize, &String)| {
            let name = clip(name, room.saturating_sub(3));
            Span::styled(
                format!(" {} {name}", theme.marker(index)),
                theme.series(index),
            )
        };
        Line::from(names.iter().enumerate().map(span).collect::<Vec<_>>())
    }

    /// The datasets whose curves are shown, by their indices.
    fn shown_datasets(&self, group: &Group) -> impl Iterator<Item = usize> {
        let last = group.mean.evaluations.last();
        let datasets = self.arms.datasets.iter().enumerate();
        let shown = datasets.filter(move |(_, name)| {
            let role = last.and_then(|e| e.score(name)).map(|score| score.role);
            self.view.future || role != Some(Role::Future)
        });
        shown.map(|(index, _)| index)
    }

    fn dataset_curves(&self, group: &Group, columns: Columns) -> Vec<Curve> {
        let metric = self.metric();
        let curve = |index| {
            let line = line_of(Of::Dataset(index), metric);
            Curve {
                index,
                points: group.track.drawn(line, self.axis(), columns),
            }
        };
        let curves = self.shown_datasets(group).map(curve);
        curves.filter(|curve| !curve.points.is_empty()).collect()
    }

    /// The range that all panels share.
    pub(super) fn panels_range(&self, rows: &[ArmRow]) -> Range {
        let share = self.metric() == Metric::Accuracy;
        if self.window.is_none() && !self.view.log {
            // All that there is.
            let metric = self.metric();
            let ends = rows.iter().flat_map(|row| {
                let lines = self.shown_datasets(row.group);
                lines.filter_map(move |index| {
                    let (low, high) = row.group.track.ends(line_of(Of::Dataset(index), metric))?;
                    Some([low, high])
                })
            });
            return range_of(ends.flatten(), share);
        }
        let x = self.window.unwrap_or_else(|| self.extent(rows));
        let curves = rows.iter();
        let curves = curves.flat_map(|row| self.dataset_curves(row.group, self.columns(x, WIDE)));
        let curves: Vec<Curve> = curves.collect();
        value_range(&curves, x, share)
    }

    /// The curves of one arm.
    pub(super) fn panel<'a>(
        &'a self,
        row: &ArmRow<'a>,
        rows: &[ArmRow<'a>],
        theme: Theme,
        title: Line<'a>,
        (y, width): (Range, u16),
    ) -> Curves<'a> {
        let x = self.window.unwrap_or_else(|| self.extent(rows));
        let curves = self.dataset_curves(row.group, self.columns(x, width));
        let note = match &row.group.mean.status {
            ArmStatus::Failed(reason) | ArmStatus::Skipped(reason) => Some(reason.as_str()),
            _ if curves.is_empty() => Some("not evaluated yet"),
            _ => None,
        };
        Curves {
            theme,
            title,
            curves,
            axis: self.axis(),
            x,
            y,
            log: (self.view.log_axis, self.view.log),
            smoothing: self.view.weight(),
            percent: self.metric() == Metric::Accuracy,
            phases: self.phase_ends(std::slice::from_ref(row), &self.states()),
            cursor: self.cursor,
            note,
        }
    }

    /// Titles of the panels from one on: marker, name, and as much of the verdict as fits.
    fn panel_titles(
        &self,
        rows: &[ArmRow],
        first: usize,
        at: usize,
        theme: Theme,
        width: usize,
    ) -> Vec<Line<'static>> {
        let words: Vec<Vec<String>> = rows.iter().map(panel_words).collect();
        let shortest = words.iter().filter_map(|forms| Some(forms.last()?.width()));
        let shortest = shortest.max().unwrap_or(0);
        let labels: Vec<&str> = rows.iter().map(|row| row.group.label.as_str()).collect();
        // Marker and gaps.
        let room = width.saturating_sub(5);
        let names = distinct(&labels, room.saturating_sub(shortest));
        let title = |index: usize| {
            let (row, name) = (&rows[index], &names[index]);
            let fits = |form: &&String| name.width() + form.width() <= room;
            let form = words[index].iter().find(fits).or(words[index].last());
            let style = match index == at {
                true => theme.heading().patch(theme.selected()),
                false => theme.heading(),
            };
            let words_style = match &row.group.mean.status {
                ArmStatus::Failed(_) => theme.bad(),
                ArmStatus::Skipped(_) => theme.warn(),
                _ => verdict::style(theme, row.judgement),
            };
            let marker = theme.marker(row.group.index);
            Line::from(vec![
                Span::styled(format!("{marker} "), theme.series(row.group.index)),
                Span::styled(name.clone(), style),
                Span::raw("  "),
                Span::styled(form.cloned().unwrap_or_default(), words_style),
            ])
        };
        (first..rows.len()).map(title).collect()
    }
}

/// The verdict in a panel's title, from all that belongs to it to the word alone.
fn panel_words(row: &ArmRow) -> Vec<String> {
    match &row.group.mean.status {
        ArmStatus::Failed(_) => return vec!["FAILED".to_owned()],
        ArmStatus::Skipped(_) => return vec!["skipped".to_owned()],
        _ => {}
    }
    let judgement = row.judgement;
    let long = verdict::long(judgement);
    let count = judgement.and_then(|judgement| Some(judgement.by.as_ref()?.seeds));
    let with_seeds = count.map(|count| format!("{long} {}", plural(count, "seed")));
    let word = verdict::word(judgement).to_owned();
    let shorter = [long, verdict::short(judgement), word];
    with_seeds.into_iter().chain(shorter).collect()
}

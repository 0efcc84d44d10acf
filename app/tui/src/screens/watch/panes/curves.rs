//! Curves of one quantity, all arms overlaid; and the same of what training reports, one below the other.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};

use crate::arms::Runs;
use crate::theme::Theme;
use crate::track::{Axis, Columns, Point};
use crate::view::Pane;
use crate::widgets::names::distinct;
use crate::widgets::plot::{Curve, Curves, Range};

use super::super::shown::Training;
use super::super::table::ArmRow;
use super::super::{Shown, Watch, shared_phases};

impl Watch {
    pub(in super::super) fn draw_curves(
        &self,
        rows: &[ArmRow],
        frame: &mut Frame,
        area: Rect,
        theme: Theme,
    ) {
        let shown = self.shown();
        let mut words = vec![shown.title(&self.arms), self.axis_words()];
        words.extend(self.log_words(rows, &shown));
        if self.view.smoothing > 0 {
            words.push(format!("smooth .{}", self.view.smoothing));
        }
        if self.window.is_some() {
            words.push("zoomed".to_owned());
        }
        let title = self.pane_title(theme, Pane::Curves, &words, area.width);
        let area = self.above_legend(rows, frame, area, theme);
        frame.render_widget(self.overlaid(rows, &shown, theme, title, area.width), area);
    }

    pub(in super::super) fn draw_losses(
        &self,
        rows: &[ArmRow],
        frame: &mut Frame,
        area: Rect,
        theme: Theme,
    ) {
        let wanted: &[Training] = match area.height {
            0..12 => &[Training::Loss],
            12..20 => &[Training::Loss, Training::Gradient],
            _ => &[Training::Loss, Training::Gradient, Training::Rate],
        };
        let area = self.above_legend(rows, frame, area, theme);
        let areas = Layout::vertical(vec![Constraint::Fill(1); wanted.len()]).split(area);
        for (&training, &rect) in wanted.iter().zip(areas.iter()) {
            let shown = Shown::Training(training);
            let mut words = vec![shown.title(&self.arms), self.axis_words()];
            words.extend(self.log_words(rows, &shown));
            let title = self.pane_title(theme, Pane::Losses, &words, rect.width);
            frame.render_widget(self.overlaid(rows, &shown, theme, title, rect.width), rect);
        }
    }

    /// Draws which arm is which below curves that are shown without the table; returns the area above.
    fn above_legend(&self, rows: &[ArmRow], frame: &mut Frame, area: Rect, theme: Theme) -> Rect {
        if !self.view.zoomed || area.height < 8 {
            return area;
        }
        let [above, legend] =
            Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(area);
        let labels: Vec<&str> = rows.iter().map(|row| row.group.label.as_str()).collect();
        let each = usize::from(area.width) / rows.len().max(1);
        let names = distinct(&labels, each.saturating_sub(4).max(4));
        let spans = rows.iter().zip(names).map(|(row, name)| {
            let marker = theme.marker(row.group.index);
            Span::styled(format!("{marker} {name}  "), theme.series(row.group.index))
        });
        frame.render_widget(Line::from_iter(spans), legend);
        above
    }

    /// Whether values are on a logarithmic scale, in words.
    fn log_words(&self, rows: &[ArmRow], shown: &Shown) -> Option<String> {
        if !self.view.log {
            return None;
        }
        let runs = self.states();
        let points = rows
            .iter()
            .flat_map(|row| shown.points(row.group, &runs, self.axis(), Columns::ONE));
        let zeros = points.into_iter().any(|point| point.low <= 0.0);
        Some(if zeros { "no log of 0" } else { "log" }.to_owned())
    }

    /// The curves of all arms that are shown, for a pane of a width.
    fn overlaid<'a>(
        &'a self,
        rows: &[ArmRow<'a>],
        shown: &Shown,
        theme: Theme,
        title: Line<'a>,
        width: u16,
    ) -> Curves<'a> {
        let runs = self.states();
        let x = self.window.unwrap_or_else(|| self.extent(rows));
        // Later curves are drawn over earlier ones: the arm under the cursor last.
        let mut ordered: Vec<&ArmRow> = rows.iter().rev().collect();
        ordered.sort_by_key(|row| (row.pinned, row.group.index == self.arm));
        let curve = |row: &&ArmRow| Curve {
            index: row.group.index,
            points: shown.points(row.group, &runs, self.axis(), self.columns(x, width)),
        };
        let curves: Vec<Curve> = ordered
            .iter()
            .map(curve)
            .filter(|curve| !curve.points.is_empty())
            .collect();
        let y = value_range(&curves, x, shown.is_share());
        let note = match curves.iter().any(|curve| !in_sight(curve, x).is_empty()) {
            true => None,
            false if !curves.is_empty() => Some("nothing was measured here; ] shows more"),
            false => Some(match shown {
                Shown::Training(_) => "nothing is recorded of it",
                _ => "nothing was measured of it yet",
            }),
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
            percent: shown.is_share(),
            phases: self.phase_ends(rows, &runs),
            cursor: self.cursor,
            note,
        }
    }

    /// Name and last step of every phase, where all arms have the same ones.
    pub(super) fn phase_ends<'a>(&'a self, rows: &[ArmRow<'a>], runs: Runs) -> Vec<(&'a str, f64)> {
        if self.axis() != Axis::Steps || shared_phases(runs).is_none() {
            return Vec::new();
        }
        let Some((run, _)) = rows.first().and_then(|row| row.seeds.seeds.first()) else {
            return Vec::new();
        };
        let steps = |row: &ArmRow| {
            let (run, arm) = row.seeds.seeds.first()?;
            Some(run.phase_steps_of(arm))
        };
        let first = rows.first().and_then(steps);
        if rows.iter().any(|row| steps(row) != first) {
            return Vec::new();
        }
        let mut end = 0;
        let ends = first.unwrap_or_default().into_iter().map(|steps| {
            end += steps;
            end as f64
        });
        let ends: Vec<f64> = ends.collect();
        run.phases
            .iter()
            .map(|phase| phase.dataset.as_str())
            .zip(ends)
            .collect()
    }
}

/// The points of a curve that are in sight; where it passes between two of them, those two.
fn in_sight(curve: &Curve, x: Range) -> &[Point] {
    let points = &curve.points;
    let from = points.partition_point(|point| point.x < x.low);
    let to = points.partition_point(|point| point.x <= x.high);
    match from == to && from > 0 && to < points.len() {
        true => &points[from - 1..=to],
        false => &points[from..to],
    }
}

/// The range of the values that are in sight; of shares at least from 0 to 1 where they take most of it.
pub(super) fn value_range(curves: &[Curve], x: Range, share: bool) -> Range {
    let points = curves.iter().flat_map(|curve| in_sight(curve, x));
    let ends = points.flat_map(|point| [point.low, point.high]);
    range_of(ends, share)
}

/// The range of values, with some room where they hardly differ.
pub(super) fn range_of(values: impl Iterator<Item = f64>, share: bool) -> Range {
    let range = Range::of(values).unwrap_or(Range {
        low: 0.0,
        high: 1.0,
    });
    let wide = range.high - range.low;
    match share {
        true if wide > 0.5 => Range {
            low: 0.0,
            high: 1.0,
        },
        // A difference that is none would look large.
        true if wide < 0.04 => Range {
            low: (range.low - 0.04).max(0.0),
            high: (range.high + 0.04).min(1.0),
        },
        _ => range,
    }
}

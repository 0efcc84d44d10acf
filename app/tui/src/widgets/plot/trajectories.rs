//! What was kept against what was learned: the way of every arm, from a ring to its marker.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Widget;
use unicode_width::UnicodeWidthStr;

use super::canvas::{Canvas, Layer};
use super::scale::{Range, Scale, short};
use crate::theme::Theme;
use crate::widgets::text::{clip, wrap};

/// Columns of the labels left of the plot, the axis included.
const LABELS: u16 = 6;
/// Most markers on the way.
const MARKERS: usize = 4;

/// The way of one arm.
pub struct Trajectory {
    /// Index of its colour and marker in the theme.
    pub index: usize,
    /// Its name, and what it kept, for its end.
    pub label: String,
    /// Places in order: learned, kept.
    pub points: Vec<(f64, f64)>,
}

/// The picture.
pub struct Trajectories<'a> {
    /// Colours and markers.
    pub theme: Theme,
    /// What the y axis is, the first line.
    pub title: Line<'a>,
    /// What the x axis is.
    pub below: String,
    /// Ways; later ones are drawn over earlier ones.
    pub ways: Vec<Trajectory>,
    /// Whether values are shares, written as percentages.
    pub percent: bool,
    /// Whether less is better: then both axes are turned, so that right and up are always better.
    pub turned: bool,
    /// A text inside the plot, e.g. why it is empty.
    pub note: Option<&'a str>,
}

impl Trajectories<'_> {
    /// Where a range is too narrow to be worth a picture, some more: differences that are none would look large.
    fn range(&self, of: impl Fn(&(f64, f64)) -> f64) -> Range {
        let values = self.ways.iter().flat_map(|way| &way.points).map(of);
        let range = Range::of(values).unwrap_or(Range {
            low: 0.0,
            high: 1.0,
        });
        let least = if self.percent { 0.04 } else { 0.02 };
        let missing = (least - (range.high - range.low)).max(0.0) / 2.0;
        let room = (range.high - range.low) * 0.04;
        let wide = Range {
            low: range.low - missing - room,
            high: range.high + missing + room,
        };
        match self.percent {
            true => Range {
                low: wide.low.max(0.0),
                high: wide.high.min(1.0),
            },
            false => wide,
        }
    }

    fn place(&self, scale: Scale, value: f64) -> f64 {
        let place = scale.place(value);
        if self.turned { 1.0 - place } else { place }
    }

    fn value(&self, scale: Scale, place: f64) -> f64 {
        scale.value(if self.turned { 1.0 - place } else { place })
    }

    fn axes(&self, plot: Rect, buf: &mut Buffer, x: Scale, y: Scale) {
        let dim = self.theme.dim();
        let (top, bottom) = (plot.y, plot.bottom() - 1);
        let middle = (plot.height >= 5).then_some((top + bottom) / 2);
        for row in plot.top()..plot.bottom() {
            buf.set_string(plot.x - 1, row, "│", dim);
            if row == top || row == bottom || Some(row) == middle {
                let rows = f64::from(bottom - top).max(1.0);
                let value = self.value(y, f64::from(bottom - row) / rows);
                let width = usize::from(LABELS) - 1;
                let label = format!("{:>width$}", short(value, self.percent));
                buf.set_string(plot.x - LABELS, row, label, dim);
            }
        }
        let axis = plot.bottom();
        buf.set_string(plot.x - 1, axis, "└", dim);
        buf.set_string(plot.x, axis, "─".repeat(usize::from(plot.width)), dim);
        let left = format!("{} ", short(self.value(x, 0.0), self.percent));
        let right = format!(" {}", short(self.value(x, 1.0), self.percent));
        buf.set_string(plot.x, axis, &left, dim);
        let at = plot.right().saturating_sub(right.width() as u16);
        buf.set_string(at, axis, &right, dim);
        let room = usize::from(plot.width).saturating_sub(left.width() + right.width() + 2);
        let below = clip(&format!(" {} ", self.below), room);
        let from = plot.x + (usize::from(plot.width).saturating_sub(below.width()) / 2) as u16;
        buf.set_string(from, axis, below, dim);
    }

    /// The names of the arms at the ends of their ways, where there is room beside them.
    fn labels(
        &self,
        plot: Rect,
        buf: &mut Buffer,
        canvas: &Canvas,
        ends: &[Option<(usize, usize)>],
    ) {
        let (width, height) = (usize::from(plot.width), usize::from(plot.height));
        let mut taken: Vec<(usize, usize, usize)> = Vec::new();
        for (way, end) in self.ways.iter().zip(ends) {
            let Some((column, row)) = *end else {
                continue;
            };
            // Several arms may end at one place: each name has its own marker.
            let whole = format!("{} {}", self.theme.marker(way.index), way.label);
            let free = |row: usize, from: usize, long: usize| {
                let inside = row < height && from + long <= width;
                let drawn = |column| !canvas.is_free(column, row);
                let written = taken.iter().any(|&(at, start, end)| {
                    at == row && start < from + long + 1 && from < end + 1
                });
                inside && !written && !(from..from + long).any(drawn)
            };
            let rows = [
                row,
                row.saturating_sub(1),
                row + 1,
                row.saturating_sub(2),
                row + 2,
            ];
            // Whole, else half as wide as the plot.
            let texts = [clip(&whole, width), clip(&whole, width / 2)].into_iter();
            let mut places = texts.flat_map(|text| {
                let long = text.width();
                let sides = [Some(column + 2), column.checked_sub(long + 1)];
                let sides = move |row| sides.into_iter().flatten().map(move |from| (row, from));
                let places = rows.into_iter().flat_map(sides);
                places.map(move |(row, from)| (row, from, text.clone()))
            });
            let place = places.find(|(row, from, text)| free(*row, *from, text.width()));
            if let Some((row, from, text)) = place {
                let style = Style::reset().patch(self.theme.series(way.index));
                buf.set_string(plot.x + from as u16, plot.y + row as u16, &text, style);
                taken.push((row, from, from + text.width()));
            }
        }
    }
}

impl Widget for Trajectories<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(buf.area);
        if area.height < 4 || area.width < LABELS + 12 {
            self.title.render(area, buf);
            return;
        }
        buf.set_line(area.x, area.y, &self.title, area.width);
        let plot = Rect {
            x: area.x + LABELS,
            y: area.y + 1,
            width: area.width - LABELS,
            height: area.height - 2,
        };
        if let Some(note) = self.note {
            let lines = wrap(note, usize::from(plot.width.saturating_sub(2)));
            let first = plot.y + plot.height.saturating_sub(lines.len() as u16) / 2;
            for (y, line) in (first..plot.bottom()).zip(&lines) {
                buf.set_string(plot.x + 1, y, line, self.theme.dim());
            }
            return;
        }
        let (x, y) = (
            Scale::new(self.range(|point| point.0), false),
            Scale::new(self.range(|point| point.1), false),
        );
        self.axes(plot, buf, x, y);
        let mut canvas = Canvas::new(plot.width.into(), plot.height.into(), self.theme.ascii);
        let mut rings = Vec::new();
        let mut ends = Vec::new();
        for (owner, way) in self.ways.iter().enumerate() {
            let dots = way
                .points
                .iter()
                .map(|&(learned, kept)| canvas.dot(self.place(x, learned), self.place(y, kept)));
            let dots: Vec<(usize, usize)> = dots.collect();
            for pair in dots.windows(2) {
                canvas.line(Layer::Strong, owner, pair[0], pair[1]);
            }
            if let [only] = dots[..] {
                canvas.set(Layer::Strong, owner, only);
            }
            let every = dots.len().div_ceil(MARKERS + 1).max(1);
            for &dot in dots.iter().skip(every).step_by(every) {
                let (column, row) = canvas.cell_of(dot);
                canvas.mark(owner, column, row);
            }
            rings.extend(dots.first().map(|&dot| canvas.cell_of(dot)));
            ends.push(dots.last().map(|&dot| canvas.cell_of(dot)));
        }
        canvas.render(plot, buf, self.theme, |owner| self.ways[owner].index);
        for (column, row) in rings {
            let at = (plot.x + column as u16, plot.y + row as u16);
            let ring = if self.theme.ascii { "@" } else { "◎" };
            buf[at]
                .set_symbol(ring)
                .set_style(Style::reset().patch(self.theme.heading()));
        }
        for (way, end) in self.ways.iter().zip(&ends) {
            if let Some((column, row)) = *end {
                let at = (plot.x + column as u16, plot.y + row as u16);
                let style = Style::reset().patch(self.theme.series(way.index));
                buf[at]
                    .set_symbol(self.theme.marker(way.index))
                    .set_style(style);
            }
        }
        self.labels(plot, buf, &canvas, &ends);
    }
}

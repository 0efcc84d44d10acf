//! Curves over steps, tokens, seconds or FLOPs: Braille lines, each with its own marker, or markers alone in ASCII.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Widget;
use unicode_width::UnicodeWidthStr;

use super::canvas::{Canvas, Layer};
use super::scale::{Range, Scale, short, written};
use crate::theme::Theme;
use crate::track::{Axis, Point, smoothed};
use crate::widgets::text::{clip, wrap};

/// Columns of the labels left of the plot, the axis included.
const LABELS: u16 = 6;
/// Columns between two markers on a curve.
const MARKER_EVERY: usize = 12;

/// One curve.
pub struct Curve {
    /// Index of its colour and marker in the theme.
    pub index: usize,
    /// Its points in order.
    pub points: Vec<Point>,
}

/// Curves with a title, axis labels, and the phases under the step axis.
pub struct Curves<'a> {
    /// Colours and markers.
    pub theme: Theme,
    /// Title, the first line.
    pub title: Line<'a>,
    /// Curves; later ones are drawn over earlier ones.
    pub curves: Vec<Curve>,
    /// What the x axis counts.
    pub axis: Axis,
    /// What of it is shown.
    pub x: Range,
    /// Range of the values.
    pub y: Range,
    /// Whether the x axis and that of the values are logarithmic.
    pub log: (bool, bool),
    /// Weight of what came before in smoothed curves, 0 to 1.
    pub smoothing: f64,
    /// Whether values are shares, written as percentages.
    pub percent: bool,
    /// Name and last step of every phase, under a step axis.
    pub phases: Vec<(&'a str, f64)>,
    /// Where every curve is read.
    pub cursor: Option<f64>,
    /// A text inside the plot, e.g. why it is empty.
    pub note: Option<&'a str>,
}

impl Widget for Curves<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(buf.area);
        if area.height < 3 || area.width < LABELS + 8 {
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
        let (x, y) = (
            Scale::new(self.x, self.log.0),
            Scale::new(self.y, self.log.1),
        );
        self.values(plot, buf, y);
        match self.phases.len() > 1 && self.axis == Axis::Steps {
            true => self.phases(plot, buf, x),
            false => self.places(plot, buf, x),
        }
        if let Some(at) = self.cursor.filter(|&at| x.holds(at)) {
            let column = plot.x + column(plot, x.place(at));
            for row in plot.top()..plot.bottom() {
                buf.set_string(column, row, "┃", self.theme.dim());
            }
        }
        self.draw(plot, buf, x, y);
        if let Some(note) = self.note {
            let lines = wrap(note, usize::from(plot.width.saturating_sub(2)));
            let first = plot.y + plot.height.saturating_sub(lines.len() as u16) / 2;
            for (y, line) in (first..plot.bottom()).zip(&lines) {
                buf.set_string(plot.x + 1, y, line, Style::new());
            }
        }
    }
}

/// Column of a place from 0 to 1.
fn column(plot: Rect, place: f64) -> u16 {
    (place * f64::from(plot.width - 1)).round() as u16
}

impl Curves<'_> {
    /// The value axis and its labels.
    fn values(&self, plot: Rect, buf: &mut Buffer, scale: Scale) {
        let dim = self.theme.dim();
        let (top, bottom) = (plot.y, plot.bottom() - 1);
        // Where no row is exactly in the middle, the nearest one is labelled if the plot is high enough.
        let fits = plot.height >= 8 || (plot.height >= 5 && plot.height % 2 == 1);
        let middle = fits.then_some((top + bottom) / 2);
        for y in plot.top()..plot.bottom() {
            buf.set_string(plot.x - 1, y, "│", dim);
            if y == top || y == bottom || Some(y) == middle {
                let rows = f64::from(bottom - top).max(1.0);
                let value = scale.value(f64::from(bottom - y) / rows);
                let label = short(value, self.percent);
                let width = usize::from(LABELS) - 1;
                buf.set_string(plot.x - LABELS, y, format!("{label:>width$}"), dim);
            }
        }
        buf.set_string(plot.x - 1, plot.bottom(), "└", dim);
    }

    /// A dotted line where a phase ends, its name under the axis.
    fn phases(&self, plot: Rect, buf: &mut Buffer, scale: Scale) {
        let dim = self.theme.dim();
        let axis = plot.bottom();
        let mut start = 0;
        let last = self.phases.len() - 1;
        for (index, &(name, step)) in self.phases.iter().enumerate() {
            let end = column(plot, scale.place(step));
            let room = usize::from(end.saturating_sub(start + u16::from(index > 0)));
            // The step at which it ends, where there is room for it behind the name.
            let number = written(self.axis, step);
            let number = Some(number).filter(|number| name.width() + number.width() + 4 <= room);
            let room = room - number.as_ref().map_or(0, |number| number.width() + 1);
            let name = clip(name, room);
            let x = plot.x + start + u16::from(index > 0);
            if let Some(number) = number {
                buf.set_string(x + room as u16 + 1, axis, number, dim);
            }
            let pad = room.saturating_sub(name.width()) / 2;
            buf.set_string(x + pad as u16, axis, name, dim);
            if index < last && end > start && end + 1 < plot.width {
                buf.set_string(plot.x + end, axis, "┴", dim);
                for y in plot.top()..plot.bottom() {
                    buf.set_string(plot.x + end, y, "┊", dim);
                }
            }
            start = end;
        }
    }

    /// Places on the x axis in words: at both ends, and between where there is room.
    fn places(&self, plot: Rect, buf: &mut Buffer, scale: Scale) {
        let dim = self.theme.dim();
        let axis = plot.bottom();
        buf.set_string(plot.x, axis, "─".repeat(usize::from(plot.width)), dim);
        let labels = (usize::from(plot.width) / 14).clamp(2, 7);
        for index in 0..labels {
            let place = index as f64 / (labels - 1) as f64;
            let text = written(self.axis, scale.value(place));
            let text = match index {
                0 => format!("{text} "),
                _ if index + 1 == labels => format!(" {text}"),
                _ => format!(" {text} "),
            };
            let width = text.width() as u16;
            let before = match index {
                0 => 0,
                _ if index + 1 == labels => width,
                _ => width / 2,
            };
            let end = place * f64::from(plot.width);
            let x = (end as u16)
                .saturating_sub(before)
                .min(plot.width.saturating_sub(width));
            buf.set_stringn(plot.x + x, axis, text, usize::from(plot.width - x), dim);
        }
    }

    fn draw(&self, plot: Rect, buf: &mut Buffer, x: Scale, y: Scale) {
        let (width, height) = (usize::from(plot.width), usize::from(plot.height));
        let mut canvas = Canvas::new(width, height, self.theme.ascii);
        for (owner, curve) in self.curves.iter().enumerate() {
            // One point beyond each end, so that curves reach the edges.
            let from = curve.points.partition_point(|p| p.x < self.x.low);
            let to = curve.points.partition_point(|p| p.x <= self.x.high);
            let shown = from.saturating_sub(1)..(to + 1).min(curve.points.len());
            if self.smoothing > 0.0 {
                let smooth = smoothed(&curve.points, self.smoothing);
                line(
                    &mut canvas,
                    Layer::Faint,
                    owner,
                    &curve.points[shown.clone()],
                    x,
                    y,
                );
                let points = curve.points.iter().zip(smooth);
                let points = points.map(|(point, value)| Point::single(point.x, value));
                let points: Vec<Point> = points.collect();
                line(&mut canvas, Layer::Strong, owner, &points[shown], x, y);
            } else {
                let points = &curve.points[shown];
                interval(&mut canvas, owner, points, x, y);
                line(&mut canvas, Layer::Strong, owner, points, x, y);
            }
        }
        let curves = self.curves.len().max(1);
        for owner in 0..self.curves.len() {
            let last = (0..width).rfind(|&column| canvas.row_of(owner, column).is_some());
            // Curves that lie on one another have their markers at different columns.
            let offset = owner * MARKER_EVERY / curves;
            for column in 0..width {
                if let Some(row) = canvas.row_of(owner, column)
                    && (Some(column) == last || column % MARKER_EVERY == offset % MARKER_EVERY)
                {
                    canvas.mark(owner, column, row);
                }
            }
        }
        canvas.render(plot, buf, self.theme, |owner| self.curves[owner].index);
    }
}

/// Draws a curve: from each point to the next, and upright where a point stands for several values.
fn line(canvas: &mut Canvas, layer: Layer, owner: usize, points: &[Point], x: Scale, y: Scale) {
    let mut before = None;
    for point in points {
        let now = (point.x, y.place(point.mean));
        // Also where both ends are out of sight.
        if let Some(from) = before
            && let Some(ends) = x.part(from, now)
        {
            let [from, to] = ends.map(|(at, up)| canvas.dot(x.place(at), up));
            canvas.line(layer, owner, from, to);
        }
        if x.holds(point.x) {
            let upright = (y.place(point.low), y.place(point.high));
            let (low, high) = (canvas.dot(0.0, upright.0).1, canvas.dot(0.0, upright.1).1);
            let column = canvas.dot(x.place(point.x), 0.0).0;
            canvas.line(layer, owner, (column, high), (column, low));
        }
        before = Some(now);
    }
}

/// Draws the intervals over seeds, as faint dots every other column.
fn interval(canvas: &mut Canvas, owner: usize, points: &[Point], x: Scale, y: Scale) {
    let with = points.iter().filter(|p| p.half.is_finite() && x.holds(p.x));
    for point in with {
        let column = canvas.dot(x.place(point.x), 0.0).0;
        let ends = [point.mean - point.half, point.mean + point.half];
        let [low, high] = ends.map(|end| canvas.dot(0.0, y.place(end)).1);
        for row in (high..=low).filter(|row| (row + column).is_multiple_of(2)) {
            canvas.set(Layer::Faint, owner, (column, row));
        }
    }
}

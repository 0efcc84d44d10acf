//! Curves over training steps: Braille lines, each with its own marker, or markers alone in ASCII.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Widget;

use crate::theme::Theme;

use super::text::clip;

/// Columns of the labels left of the plot, the axis included.
const LABELS: u16 = 5;
/// Columns between two markers on a curve.
const MARKER_EVERY: usize = 12;

/// Lowest and highest value of an axis.
#[derive(Clone, Copy)]
pub struct Range {
    /// Lowest value.
    pub low: f64,
    /// Highest value.
    pub high: f64,
}

/// One curve.
pub struct Series {
    /// Index of its colour and marker in the theme.
    pub index: usize,
    /// Steps in order and values; `None` interrupts the curve.
    pub points: Vec<(u64, Option<f64>)>,
}

/// Curves with a title, axis labels, and the phases under the step axis.
pub struct Chart<'a> {
    /// Colours and markers.
    pub theme: Theme,
    /// Title, the first line.
    pub title: Line<'a>,
    /// Curves; later ones are drawn over earlier ones.
    pub series: Vec<Series>,
    /// Last step of the step axis.
    pub steps: u64,
    /// Range of the value axis.
    pub range: Range,
    /// Whether values are shares, written as percentages.
    pub percent: bool,
    /// Name and last step of every phase.
    pub phases: Vec<(&'a str, u64)>,
    /// A text inside the plot, e.g. why it is empty.
    pub note: Option<&'a str>,
}

impl Widget for Chart<'_> {
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
        self.frame(plot, buf);
        self.curves(plot, buf);
        if let Some(note) = self.note {
            let lines = super::text::wrap(note, usize::from(plot.width.saturating_sub(2)));
            let first = plot.y + plot.height.saturating_sub(lines.len() as u16) / 2;
            for (y, line) in (first..plot.bottom()).zip(&lines) {
                buf.set_string(plot.x + 1, y, line, Style::new());
            }
        }
    }
}

impl Chart<'_> {
    /// Column of a step, the plot being `width` columns wide.
    fn column(&self, step: u64, width: usize) -> usize {
        let share = step as f64 / self.steps.max(1) as f64;
        ((share * (width - 1) as f64).round() as usize).min(width - 1)
    }

    fn frame(&self, plot: Rect, buf: &mut Buffer) {
        let dim = self.theme.dim();
        let Range { low, high } = self.range;
        let (top, bottom) = (plot.y, plot.bottom() - 1);
        // Where no row is exactly in the middle, the nearest one is labelled if the plot is high enough.
        let fits = plot.height >= 8 || (plot.height >= 5 && plot.height % 2 == 1);
        let middle = fits.then_some((top + bottom) / 2);
        for y in plot.top()..plot.bottom() {
            buf.set_string(plot.x - 1, y, "│", dim);
            let value = match y {
                _ if y == top => high,
                _ if y == bottom => low,
                _ if Some(y) == middle => (low + high) / 2.0,
                _ => continue,
            };
            let label = format!("{:>4}", self.label(value));
            buf.set_string(plot.x - LABELS, y, label, dim);
        }
        // Phases: a dotted line where one ends, its name under the axis.
        let axis = plot.bottom();
        buf.set_string(plot.x - 1, axis, "└", dim);
        let width = usize::from(plot.width);
        let mut start = 0;
        for (index, (name, end)) in self.phases.iter().enumerate() {
            let end = self.column(*end, width);
            let room = end.saturating_sub(start + usize::from(index > 0));
            let name = clip(name, room);
            let x = plot.x + start as u16 + u16::from(index > 0);
            let pad = room.saturating_sub(name.chars().count()) / 2;
            buf.set_string(x + pad as u16, axis, name, dim);
            if index + 1 < self.phases.len() {
                buf.set_string(plot.x + end as u16, axis, "┴", dim);
                for y in plot.top()..plot.bottom() {
                    buf.set_string(plot.x + end as u16, y, "┊", dim);
                }
            }
            start = end;
        }
    }

    fn label(&self, value: f64) -> String {
        if self.percent {
            return format!("{:.0}%", value * 100.0);
        }
        match value.abs() {
            v if v < 9.995 => format!("{value:.2}"),
            v if v < 99.95 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        }
    }

    fn curves(&self, plot: Rect, buf: &mut Buffer) {
        let (width, height) = (usize::from(plot.width), usize::from(plot.height));
        let (dots_x, dots_y) = if self.theme.ascii { (1, 1) } else { (2, 4) };
        let mut canvas = Canvas::new(width, height, dots_x, dots_y);
        for (owner, series) in self.series.iter().enumerate() {
            let heights = self.heights(series, width * dots_x, height * dots_y);
            canvas.line(owner, &heights);
            let spot = |column: usize| {
                let dots = heights[column * dots_x..(column + 1) * dots_x].iter();
                dots.flatten().next_back().map(|y| y / dots_y)
            };
            let last = (0..width).rfind(|column| spot(*column).is_some());
            // Curves that lie on one another have their markers at different columns.
            let offset = owner * MARKER_EVERY / self.series.len().max(1);
            for column in 0..width {
                if let Some(row) = spot(column)
                    && (Some(column) == last || column % MARKER_EVERY == offset)
                {
                    canvas.mark(owner, column, row);
                }
            }
        }
        for row in 0..height {
            for column in 0..width {
                if let Some((owner, symbol)) = canvas.cell(column, row, self.theme.ascii) {
                    let index = self.series[owner].index;
                    let symbol = match symbol {
                        Symbol::Dots(dots) => dots.to_string(),
                        Symbol::Marker => self.theme.marker(index).to_string(),
                    };
                    let (x, y) = (plot.x + column as u16, plot.y + row as u16);
                    let style = Style::reset().patch(self.theme.series(index));
                    buf[(x, y)].set_symbol(&symbol).set_style(style);
                }
            }
        }
    }

    /// Height of a curve at every column of dots, in dots from the top.
    fn heights(&self, series: &Series, width: usize, height: usize) -> Vec<Option<usize>> {
        let Range { low, high } = self.range;
        let span = if high > low { high - low } else { 1.0 };
        let row = |value: f64| {
            let down = ((high - value) / span).clamp(0.0, 1.0);
            (down * (height - 1) as f64).round() as usize
        };
        let mut heights = vec![None; width];
        for &(step, value) in &series.points {
            if let Some(value) = value {
                heights[self.column(step, width)] = Some(row(value));
            }
        }
        for pair in series.points.windows(2) {
            let ((from, Some(a)), (to, Some(b))) = (pair[0], pair[1]) else {
                continue;
            };
            let (first, last) = (self.column(from, width), self.column(to, width));
            let between = heights.iter_mut().enumerate().take(last).skip(first + 1);
            for (x, height) in between {
                let share = (x - first) as f64 / (last - first) as f64;
                *height = Some(row(a + (b - a) * share));
            }
        }
        heights
    }
}

enum Symbol {
    Dots(char),
    Marker,
}

/// The cells of a plot, with the curves through them.
struct Canvas {
    /// Columns of cells.
    width: usize,
    /// Columns of dots in a cell.
    dots_x: usize,
    /// Rows of dots in a cell.
    dots_y: usize,
    /// Braille dots of each cell.
    dots: Vec<u8>,
    /// Curves through each cell, one bit each.
    owners: Vec<u64>,
    /// Curve of the marker in each cell, if there is one.
    markers: Vec<Option<usize>>,
}

impl Canvas {
    fn new(width: usize, height: usize, dots_x: usize, dots_y: usize) -> Self {
        Self {
            width,
            dots_x,
            dots_y,
            dots: vec![0; width * height],
            owners: vec![0; width * height],
            markers: vec![None; width * height],
        }
    }

    /// Draws a line through the heights of all columns of dots.
    fn line(&mut self, owner: usize, heights: &[Option<usize>]) {
        /// Bit of the dot at (x, y) of a Braille character.
        const BRAILLE: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        let mut before = None;
        for (x, height) in heights.iter().enumerate() {
            if let Some(y) = *height {
                let from = before.unwrap_or(y);
                for y in from.min(y)..=from.max(y) {
                    let cell = y / self.dots_y * self.width + x / self.dots_x;
                    self.dots[cell] |= BRAILLE[x % self.dots_x][y % self.dots_y];
                    self.owners[cell] |= 1 << (owner % 64);
                }
            }
            before = *height;
        }
    }

    /// Sets a marker of a curve; if another one is there, up to three columns further left.
    fn mark(&mut self, owner: usize, column: usize, row: usize) {
        for column in (column.saturating_sub(3)..=column).rev() {
            let cell = row * self.width + column;
            let on_curve = self.owners[cell] & (1 << (owner % 64)) != 0;
            if on_curve && self.markers[cell].is_none() {
                self.markers[cell] = Some(owner);
                return;
            }
        }
    }

    /// The symbol in a cell and its curve; curves that share cells alternate by column.
    fn cell(&self, column: usize, row: usize, ascii: bool) -> Option<(usize, Symbol)> {
        let cell = row * self.width + column;
        if let Some(owner) = self.markers[cell] {
            return Some((owner, Symbol::Marker));
        }
        let owners = self.owners[cell];
        let turn = column as u32 % owners.count_ones().max(1);
        let owner = (0..64)
            .filter(|bit| owners & (1 << bit) != 0)
            .nth(turn as usize)?;
        if ascii {
            return Some((owner, Symbol::Marker));
        }
        let dots = char::from_u32(0x2800 + u32::from(self.dots[cell]))?;
        Some((owner, Symbol::Dots(dots)))
    }
}

//! A raster of dots in terminal cells, with the curves that go through each.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use crate::theme::Theme;

/// Bit of the dot at (x, y) of a Braille character.
const BRAILLE: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

/// How strong something is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// Behind everything: raw curves, intervals.
    Faint,
    /// The curves.
    Strong,
}

/// The cells of a plot.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    /// Columns and rows of dots in a cell.
    dots: (usize, usize),
    /// Braille dots of each cell, faint and strong.
    cells: [Vec<u8>; 2],
    /// Curves through each cell, one bit each, faint and strong.
    owners: [Vec<u64>; 2],
    /// Curve of the marker in each cell, if there is one.
    markers: Vec<Option<usize>>,
}

impl Canvas {
    /// An empty canvas of a size in cells.
    pub(super) fn new(width: usize, height: usize, ascii: bool) -> Self {
        let cells = width * height;
        Self {
            width,
            height,
            dots: if ascii { (1, 1) } else { (2, 4) },
            cells: [vec![0; cells], vec![0; cells]],
            owners: [vec![0; cells], vec![0; cells]],
            markers: vec![None; cells],
        }
    }

    /// Columns and rows of dots.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.width * self.dots.0, self.height * self.dots.1)
    }

    /// Place of a share of the width and of the height (from the bottom), in dots.
    pub(super) fn dot(&self, x: f64, y: f64) -> (usize, usize) {
        let (width, height) = self.size();
        let at = |share: f64, size: usize| (share * (size - 1) as f64).round() as usize;
        (at(x, width), at(1.0 - y, height))
    }

    /// The cell of a dot: column and row.
    pub(super) fn cell_of(&self, dot: (usize, usize)) -> (usize, usize) {
        // Powers of two: a frame has millions of dots.
        let (x, y) = (self.dots.0.trailing_zeros(), self.dots.1.trailing_zeros());
        (dot.0 >> x, dot.1 >> y)
    }

    /// Sets a dot.
    pub(super) fn set(&mut self, layer: Layer, owner: usize, (x, y): (usize, usize)) {
        let (column, row) = self.cell_of((x, y));
        if column >= self.width || row >= self.height {
            return;
        }
        let cell = row * self.width + column;
        let layer = layer as usize;
        self.cells[layer][cell] |= BRAILLE[x & (self.dots.0 - 1)][y & (self.dots.1 - 1)];
        self.owners[layer][cell] |= 1 << (owner % 64);
    }

    /// Draws a straight line.
    pub(super) fn line(
        &mut self,
        layer: Layer,
        owner: usize,
        from: (usize, usize),
        to: (usize, usize),
    ) {
        let (dx, dy) = (to.0.abs_diff(from.0), to.1.abs_diff(from.1));
        let steps = dx.max(dy).max(1);
        if dx == 0 {
            for y in from.1.min(to.1)..=from.1.max(to.1) {
                self.set(layer, owner, (from.0, y));
            }
            return;
        }
        // The nearest dots.
        let between = |a: usize, b: usize, step: usize| {
            (2 * (a * (steps - step) + b * step) + steps) / (2 * steps)
        };
        for step in 0..=steps {
            let dot = (between(from.0, to.0, step), between(from.1, to.1, step));
            self.set(layer, owner, dot);
        }
    }

    /// The row of a curve in a column of cells, the last one from the left.
    pub(super) fn row_of(&self, owner: usize, column: usize) -> Option<usize> {
        let bit = 1 << (owner % 64);
        let owners = &self.owners[Layer::Strong as usize];
        (0..self.height).find(|row| owners[row * self.width + column] & bit != 0)
    }

    /// Sets a marker on a curve; where another one is, up to three columns further left.
    pub(super) fn mark(&mut self, owner: usize, column: usize, row: usize) {
        let bit = 1 << (owner % 64);
        for column in (column.saturating_sub(3)..=column).rev() {
            let cell = row * self.width + column;
            let on_curve = self.owners[Layer::Strong as usize][cell] & bit != 0;
            if on_curve && self.markers[cell].is_none() {
                self.markers[cell] = Some(owner);
                return;
            }
        }
    }

    /// Whether nothing is drawn in a cell.
    pub(super) fn is_free(&self, column: usize, row: usize) -> bool {
        let cell = row * self.width + column;
        self.owners.iter().all(|owners| owners[cell] == 0) && self.markers[cell].is_none()
    }

    /// Writes the dots and markers; `index` is that of a curve's colour and marker in the theme.
    pub(super) fn render(
        &self,
        plot: Rect,
        buf: &mut Buffer,
        theme: Theme,
        index: impl Fn(usize) -> usize,
    ) {
        for row in 0..self.height {
            for column in 0..self.width {
                let cell = row * self.width + column;
                let strong = self.owners[Layer::Strong as usize][cell] != 0;
                let layer = if strong { Layer::Strong } else { Layer::Faint };
                let marked = self.markers[cell];
                let Some(owner) = marked.or_else(|| self.owner(layer, cell, column)) else {
                    continue;
                };
                let index = index(owner);
                let mut style = Style::reset().patch(theme.series(index));
                if layer == Layer::Faint {
                    style = style.add_modifier(Modifier::DIM);
                }
                let at = (plot.x + column as u16, plot.y + row as u16);
                if marked.is_some() || (theme.ascii && strong) {
                    buf[at].set_symbol(theme.marker(index)).set_style(style);
                } else if theme.ascii {
                    buf[at].set_symbol(".").set_style(style);
                } else {
                    let dots = 0x2800 + u32::from(self.cells[layer as usize][cell]);
                    let dots = char::from_u32(dots).unwrap_or(' ');
                    buf[at].set_char(dots).set_style(style);
                }
            }
        }
    }

    /// The curve that a cell is drawn in; those that share cells alternate by column.
    fn owner(&self, layer: Layer, cell: usize, column: usize) -> Option<usize> {
        let owners = self.owners[layer as usize][cell];
        let turn = column as u32 % owners.count_ones().max(1);
        let mut all = (0..64).filter(|bit| owners & (1 << bit) != 0);
        all.nth(turn as usize)
    }
}

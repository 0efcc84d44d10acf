//! Panels side by side.

use ratatui::layout::{Rect, Size};

/// Size of the smallest panel whose curves can be read.
const PANEL: Size = Size::new(38, 6);

/// Columns and rows of panels.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    columns: usize,
    rows: usize,
}

impl Grid {
    /// The grid with the largest panels that holds `count` of them, or as many as fit.
    pub fn fitting(count: usize, area: Rect) -> Self {
        let most = Self {
            columns: usize::from(area.width / PANEL.width).max(1),
            rows: usize::from(area.height / PANEL.height).max(1),
        };
        let fits = (1..=most.columns)
            .map(|columns| Self {
                columns,
                rows: count.div_ceil(columns).max(1),
            })
            .filter(|grid| grid.rows <= most.rows);
        // A character is about twice as high as wide, and a curve reads best twice as wide as high.
        let size = |grid: &Self| {
            (usize::from(area.width) / grid.columns).min(4 * usize::from(area.height) / grid.rows)
        };
        fits.max_by_key(size).unwrap_or(most)
    }

    /// Number of panels.
    pub fn cells(self) -> usize {
        self.columns * self.rows
    }

    /// Area of panel `slot`, counted row by row.
    pub fn cell(self, area: Rect, slot: usize) -> Rect {
        let (x, y) = ((slot % self.columns) as u16, (slot / self.columns) as u16);
        let (columns, rows) = (self.columns as u16, self.rows as u16);
        let left = area.width * x / columns;
        let right = area.width * (x + 1) / columns;
        let top = area.height * y / rows;
        let bottom = area.height * (y + 1) / rows;
        Rect {
            x: area.x + left,
            y: area.y + top,
            // A gap between neighbours.
            width: (right - left).saturating_sub(u16::from(x + 1 < columns)),
            height: bottom - top,
        }
    }
}

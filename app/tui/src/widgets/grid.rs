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
        let (x, y) = (slot % self.columns, slot / self.columns);
        let edge = |whole: u16, at: usize, of: usize| (usize::from(whole) * at / of) as u16;
        let left = edge(area.width, x, self.columns);
        let right = edge(area.width, x + 1, self.columns);
        let top = edge(area.height, y, self.rows);
        let bottom = edge(area.height, y + 1, self.rows);
        Rect {
            x: area.x + left,
            y: area.y + top,
            // A gap between neighbours.
            width: (right - left).saturating_sub(u16::from(x + 1 < self.columns)),
            height: bottom - top,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A panel over its pane's edge would be drawn on its neighbour, or bring the lab down.
    #[test]
    fn however_many_panels_they_stay_in_their_pane_and_apart() {
        for (width, height) in [(0, 0), (1, 1), (37, 5), (80, 18), (161, 47), (5000, 3000)] {
            let area = Rect::new(3, 7, width, height);
            for count in [1, 2, 3, 7, 16, 40, 1000] {
                let grid = Grid::fitting(count, area);
                let cells: Vec<Rect> = (0..grid.cells().min(count))
                    .map(|slot| grid.cell(area, slot))
                    .collect();
                for (at, cell) in cells.iter().enumerate() {
                    assert_eq!(area.union(*cell), area, "{cell:?} in {area:?}");
                    let apart = |other: &Rect| other.intersection(*cell).is_empty();
                    assert!(cells[at + 1..].iter().all(apart), "{grid:?} in {area:?}");
                }
            }
        }
    }
}

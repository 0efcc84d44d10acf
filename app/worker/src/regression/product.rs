//! Products of small matrices in f64.

/// Rows and columns of a tile, whose sums stay in registers.
const TILE: usize = 4;

/// A matrix to be read: element (row, column) lies at `row * strides.0 + column * strides.1`.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) data: &'a [f64],
    /// Rows and columns.
    pub(super) size: (usize, usize),
    pub(super) strides: (usize, usize),
}

impl<'a> View<'a> {
    /// A matrix whose rows follow each other.
    pub(super) fn rows(data: &'a [f64], rows: usize, columns: usize) -> Self {
        Self {
            data,
            size: (rows, columns),
            strides: (columns, 1),
        }
    }

    /// Columns as rows.
    pub(super) fn transposed(self) -> Self {
        Self {
            data: self.data,
            size: (self.size.1, self.size.0),
            strides: (self.strides.1, self.strides.0),
        }
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.data[row * self.strides.0 + column * self.strides.1]
    }
}

/// Memory for the factors of a product, reordered; kept from call to call.
#[derive(Clone, Debug, Default)]
pub(super) struct Panels {
    left: Vec<[f64; TILE]>,
    right: Vec<[f64; TILE]>,
}

/// `out[row][column] = start[column] + Σ_k left[row][k] · right[k][column]`, an empty `start` being zero. The sums run
/// in the order of k, so that results depend on nothing else.
pub(super) fn product(
    out: &mut [f64],
    start: &[f64],
    left: View<'_>,
    right: View<'_>,
    panels: &mut Panels,
) {
    let (rows, depth) = left.size;
    let columns = right.size.1;
    debug_assert!(depth == right.size.0 && out.len() == rows * columns);
    panels.right.clear();
    for column in (0..columns).step_by(TILE) {
        for k in 0..depth {
            panels.right.push(std::array::from_fn(|c| {
                if column + c < columns {
                    right.at(k, column + c)
                } else {
                    0.0
                }
            }));
        }
    }
    for row in (0..rows).step_by(TILE) {
        panels.left.clear();
        let height = TILE.min(rows - row);
        for k in 0..depth {
            panels
                .left
                .push(std::array::from_fn(|r| left.at(row + r.min(height - 1), k)));
        }
        for (panel, column) in (0..columns).step_by(TILE).enumerate() {
            let width = TILE.min(columns - column);
            let mut begin = [0.0; TILE];
            if !start.is_empty() {
                begin[..width].copy_from_slice(&start[column..column + width]);
            }
            let right = &panels.right[panel * depth..][..depth];
            let sums = tile(begin, &panels.left, right);
            for r in 0..height {
                let at = (row + r) * columns + column;
                out[at..at + width].copy_from_slice(&sums[r][..width]);
            }
        }
    }
}

/// One tile of a product, every row of it beginning at `begin`.
#[inline(always)]
fn tile(begin: [f64; TILE], left: &[[f64; TILE]], right: &[[f64; TILE]]) -> [[f64; TILE]; TILE] {
    let mut sums = [begin; TILE];
    for (l, r) in left.iter().zip(right) {
        for row in 0..TILE {
            for column in 0..TILE {
                sums[row][column] += l[row] * r[column];
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the network's outputs and gradients are wrong for sizes that are no multiple of a tile.
    #[test]
    fn every_size_and_order_is_multiplied_right() {
        let number = |i: usize| ((i * 7919 + 13) % 101) as f64 / 50.0 - 1.0;
        let mut panels = Panels::default();
        for (rows, depth, columns) in [(1, 1, 1), (4, 4, 4), (5, 3, 7), (2, 9, 1), (13, 6, 10)] {
            let a: Vec<f64> = (0..rows * depth).map(number).collect();
            let b: Vec<f64> = (0..depth * columns).map(|i| number(i + 5)).collect();
            let start: Vec<f64> = (0..columns).map(number).collect();
            let left = View::rows(&a, depth, rows).transposed();
            let right = View::rows(&b, depth, columns);
            let mut out = vec![f64::NAN; rows * columns];
            product(&mut out, &start, left, right, &mut panels);
            for row in 0..rows {
                for column in 0..columns {
                    let mut sum = start[column];
                    for k in 0..depth {
                        sum += a[k * rows + row] * b[k * columns + column];
                    }
                    assert_eq!(out[row * columns + column], sum);
                }
            }
        }
    }
}

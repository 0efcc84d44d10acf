//! Matrix products on one CPU thread, with right-hand factors that are packed in advance.
//!
//! The weights of a step are packed once and multiplied by every micro-batch on every thread; a general
//! library would pack them again for each product. Left-hand factors are read where they are. The result
//! is computed in tiles that stay in registers over a block of the summed dimension; a panel's block stays
//! in the first-level cache while all rows are multiplied by it.

mod bf16;
mod kernel;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use bf16::Format;
use kernel::{Lhs, Product, Rhs, WIDTH};

use super::Precision;
use super::simd::{InstructionSet, multiversion};

pub use kernel::{Out, Sizes};

/// Name of what decides the bits of this CPU's products: its instruction set, and its kind of bf16 products.
pub fn instruction_set(precision: Precision) -> String {
    let level = InstructionSet::detect().name();
    match Format::of(precision) {
        Format::Pairs => format!("{level} with bf16 pairs"),
        Format::F32 | Format::Rounded => level.into(),
    }
}

/// A right-hand factor `[K, N]`, packed in panels of 32 columns, each `[K, 32]`; the last is padded with zeros.
#[derive(Clone, Debug)]
pub struct Panels {
    data: Vec<f32>,
    k: usize,
    n: usize,
    format: Format,
}

impl Panels {
    /// Panels without contents; products with them compute in this precision.
    pub fn new(precision: Precision) -> Self {
        Self {
            data: Vec::new(),
            k: 0,
            n: 0,
            format: Format::of(precision),
        }
    }

    /// Packs `rhs [K, N]`.
    pub fn pack(&mut self, rhs: &[f32], k: usize, n: usize) {
        assert_eq!(rhs.len(), k * n);
        self.resize(k, n);
        pack_rhs(&mut self.data, rhs, k, n);
        self.format.convert(&mut self.data, k, WIDTH);
    }

    /// Packs the transpose of `w [N, K]`, a linear layer's weights.
    pub fn pack_transposed(&mut self, w: &[f32], n: usize, k: usize) {
        assert_eq!(w.len(), k * n);
        self.resize(k, n);
        for (p, panel) in self.data.chunks_exact_mut((k * WIDTH).max(1)).enumerate() {
            let width = WIDTH.min(n - p * WIDTH);
            let rows = &w[p * WIDTH * k..][..width * k];
            // In square blocks, so that each cache line is still cached when it is needed again.
            for first in (0..k).step_by(16) {
                let depth = 16.min(k - first);
                let block = &mut panel[first * WIDTH..][..depth * WIDTH];
                if width < WIDTH {
                    block.fill(0.0);
                }
                for (j, row) in rows.chunks_exact(k).enumerate() {
                    for (l, x) in row[first..first + depth].iter().enumerate() {
                        block[l * WIDTH + j] = *x;
                    }
                }
            }
        }
        self.format.convert(&mut self.data, k, WIDTH);
    }

    /// Number of floats that a packed factor `[K, N]` takes.
    pub fn len(k: usize, n: usize) -> usize {
        k * n.next_multiple_of(WIDTH)
    }

    /// Shape `[N, K]` of the transpose.
    pub(super) fn shape_transposed(&self) -> [usize; 2] {
        [self.n, self.k]
    }

    fn resize(&mut self, k: usize, n: usize) {
        (self.k, self.n) = (k, n);
        let len = Self::len(k, n);
        if self.data.len() != len {
            self.data.clear();
            self.data.resize(len, 0.0);
        }
    }
}

multiversion! {
    /// Packs `rhs [K, N]` into panels.
    fn pack_rhs(panels: &mut [f32], rhs: &[f32], k: usize, n: usize) {
        for (p, panel) in panels.chunks_exact_mut((k * WIDTH).max(1)).enumerate() {
            let width = WIDTH.min(n - p * WIDTH);
            for (row, out) in rhs.chunks_exact(n).zip(panel.as_chunks_mut::<WIDTH>().0) {
                let row = &row[p * WIDTH..][..width];
                match row.as_array::<WIDTH>() {
                    Some(row) => *out = *row,
                    None => {
                        out[..width].copy_from_slice(row);
                        out[width..].fill(0.0);
                    }
                }
            }
        }
    }
}

/// `out [M, N] (+)= lhs [M, K] · rhs [K, N]`, set or added as `mode` says.
pub fn product(out: &mut [f32], lhs: &[f32], rhs: &Panels, mode: Out) {
    let (n, k) = (rhs.n, rhs.k);
    let m = out.len() / n.max(1);
    assert!(out.len() == m * n && lhs.len() == m * k);
    SCRATCH.with_borrow_mut(|scratch| {
        let lhs = rhs.format.rows(lhs, k, &mut scratch.lhs);
        let depth = rhs.format.depth(k);
        let product = Product {
            out: out.as_mut_ptr(),
            out_stride: n,
            lhs: lhs.as_ptr(),
            lhs_layout: Lhs::Strided {
                row: depth,
                step: 1,
            },
            rhs: rhs.data.as_ptr(),
            rhs_layout: Rhs::Panels,
            sizes: Sizes { m, n, k: depth },
            mode,
            pairs: rhs.format == Format::Pairs,
        };
        // SAFETY: the pointers reach what the sizes and strides say, as asserted.
        unsafe { product.run() }
    });
}

/// A matrix in memory that need not be contiguous.
#[derive(Clone, Copy)]
pub struct Strided<'a> {
    /// The memory from the first element on.
    pub data: &'a [f32],
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next.
    pub column_stride: usize,
}

/// `out [M, N] (+)= lhs [M, K] · rhs [K, N]` for small factors that are not packed, set or added as `mode` says.
///
/// Rows of `out` are `out_stride` elements apart. N must be a multiple of 16, and the columns of `out` and
/// `rhs` must be contiguous.
pub fn product_strided(
    out: &mut [f32],
    out_stride: usize,
    lhs: Strided,
    rhs: Strided,
    sizes: Sizes,
    mode: Out,
) {
    let Sizes { m, n, k } = sizes;
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let (row, step) = (lhs.row_stride, lhs.column_stride);
    assert!(n.is_multiple_of(16) && rhs.column_stride == 1);
    assert!(out.len() >= (m - 1) * out_stride + n);
    assert!(lhs.data.len() > (m - 1) * row + (k - 1) * step);
    assert!(rhs.data.len() >= (k - 1) * rhs.row_stride + n);
    let product = Product {
        out: out.as_mut_ptr(),
        out_stride,
        lhs: lhs.data.as_ptr(),
        lhs_layout: Lhs::Strided { row, step },
        rhs: rhs.data.as_ptr(),
        rhs_layout: Rhs::Rows {
            stride: rhs.row_stride,
        },
        sizes,
        mode,
        pairs: false,
    };
    // SAFETY: the pointers reach what the sizes and strides say, as asserted.
    unsafe { product.run() }
}

thread_local! {
    /// Each thread's buffers for factors that are packed for one product.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        rhs: Panels::new(Precision::F32),
        lhs: Vec::new(),
    });
}

struct Scratch {
    rhs: Panels,
    /// Rows in another format; or `lhsᵀ` in tiles of rows, each `[K, R]`, since its long stride would defeat
    /// the caches.
    lhs: Vec<f32>,
}

/// `out [M, N] (+)= lhsᵀ · rhs` for `lhs [K, M]` and `rhs [K, N]`, as in the gradient of a linear layer's weights.
pub fn product_transposed(
    out: &mut [f32],
    lhs: &[f32],
    rhs: &[f32],
    sizes: Sizes,
    mode: Out,
    precision: Precision,
) {
    product_transposed_as(out, lhs, rhs, sizes, mode, Format::of(precision));
}

/// [`product_transposed`] in one of the formats of a precision.
fn product_transposed_as(
    out: &mut [f32],
    lhs: &[f32],
    rhs: &[f32],
    Sizes { m, n, k }: Sizes,
    mode: Out,
    format: Format,
) {
    assert!(out.len() == m * n && lhs.len() == m * k);
    SCRATCH.with_borrow_mut(
        |Scratch {
             rhs: panels,
             lhs: tiles,
         }| {
            panels.format = format;
            panels.pack(rhs, k, n);
            tiles.resize(tiles.len().max(m * k), 0.0);
            let tiles = &mut tiles[..m * k];
            pack_lhs(tiles, lhs, m, k);
            let rows = kernel::rows();
            let (whole, last) = tiles.split_at_mut(m / rows * rows * k);
            format.convert(whole, k, rows);
            format.convert(last, k, m % rows);
            if format == Format::Pairs {
                // The last tile follows the shortened ones.
                let from = whole.len();
                tiles.copy_within(from.., m / rows * rows * format.depth(k));
            }
            let product = Product {
                out: out.as_mut_ptr(),
                out_stride: n,
                lhs: tiles.as_ptr(),
                lhs_layout: Lhs::Tiles,
                rhs: panels.data.as_ptr(),
                rhs_layout: Rhs::Panels,
                sizes: Sizes {
                    m,
                    n,
                    k: format.depth(k),
                },
                mode,
                pairs: format == Format::Pairs,
            };
            // SAFETY: the pointers reach what the sizes and strides say, as asserted.
            unsafe { product.run() }
        },
    );
}

/// Number of floats in a thread's buffers after [`product_transposed`] of `lhs [K, M]` and `rhs [K, N]`.
pub fn scratch_len(k: usize, m: usize, n: usize) -> usize {
    Panels::len(k, n) + m * k
}

multiversion! {
    /// Cuts `lhs [K, M]` into tiles `[K, R]` of its columns; the last may be narrower.
    fn pack_lhs(tiles: &mut [f32], lhs: &[f32], m: usize, k: usize) {
        match InstructionSet::detect() {
            InstructionSet::Avx512 => pack_tiles::<{ kernel::ROWS_AVX512 }>(tiles, lhs, m, k),
            InstructionSet::Avx2 => pack_tiles::<{ kernel::ROWS_AVX2 }>(tiles, lhs, m, k),
            InstructionSet::Baseline => pack_tiles::<{ kernel::ROWS_BASELINE }>(tiles, lhs, m, k),
        }
    }
}

/// The same for tiles of `R` columns.
#[inline(always)]
fn pack_tiles<const R: usize>(tiles: &mut [f32], lhs: &[f32], m: usize, k: usize) {
    let whole = m / R * R;
    let (tiles, last) = tiles.split_at_mut(whole * k);
    // A few rows at a time, which are still cached when the next tile reads them.
    for (first, rows) in lhs.chunks(16 * m).enumerate() {
        for (i, tile) in tiles.chunks_exact_mut(k * R).enumerate() {
            let tile = &mut tile.as_chunks_mut::<R>().0[16 * first..];
            for (row, out) in rows.chunks_exact(m).zip(tile) {
                if let Some(row) = row[i * R..].first_chunk() {
                    *out = *row;
                }
            }
        }
    }
    if whole < m {
        for (row, tile) in lhs.chunks_exact(m).zip(last.chunks_exact_mut(m - whole)) {
            tile.copy_from_slice(&row[whole..]);
        }
    }
}

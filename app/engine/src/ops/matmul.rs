//! Matrix products on one CPU thread, their right-hand factors packed ahead.
//!
//! The weights of a step are packed once and multiplied by every micro-batch on every thread, which
//! a general library cannot know: it packs them again for each product. A left-hand factor is read
//! where it lies. The result is made in tiles that stay in registers over a block of the summed
//! dimension; a panel's block stays in the first-level cache while all rows pass by it.

use super::simd::{Level, multiversion};

/// Columns of a panel.
const WIDTH: usize = 32;
/// Summed elements a tile takes at once: a panel's block of them is 32 KiB.
const DEPTH: usize = 256;

/// Tiles of rows that pass by a panel before the next one is taken: their left-hand factor stays in
/// the second-level cache.
const HEIGHT: usize = 20;

/// Summed elements between two prefetches.
const CHUNK: usize = 8;
/// Elements of a cache line.
const LINE: usize = 16;

/// What happens to the destination's old contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Out {
    /// Overwritten.
    Set,
    /// Added to.
    Add,
}

/// A right-hand factor `[K, N]` in panels of 32 columns, each `[K, 32]`; the last is padded with zeros.
#[derive(Clone, Debug, Default)]
pub struct Panels {
    data: Vec<f32>,
    k: usize,
    n: usize,
}

impl Panels {
    /// Packs `rhs [K, N]`.
    pub fn pack(&mut self, rhs: &[f32], k: usize, n: usize) {
        assert_eq!(rhs.len(), k * n);
        self.resize(k, n);
        pack_rhs(&mut self.data, rhs, k, n);
    }

    /// Packs the transpose of `w [N, K]`, a linear layer's weights.
    pub fn pack_transposed(&mut self, w: &[f32], n: usize, k: usize) {
        assert_eq!(w.len(), k * n);
        self.resize(k, n);
        for (p, panel) in self.data.chunks_exact_mut((k * WIDTH).max(1)).enumerate() {
            let width = WIDTH.min(n - p * WIDTH);
            let rows = &w[p * WIDTH * k..][..width * k];
            // Square blocks: each cache line is met while it is near.
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
    }

    /// `[N, K]`.
    pub(super) fn shape_transposed(&self) -> [usize; 2] {
        [self.n, self.k]
    }

    fn resize(&mut self, k: usize, n: usize) {
        (self.k, self.n) = (k, n);
        let len = k * n.next_multiple_of(WIDTH);
        if self.data.len() != len {
            self.data.clear();
            self.data.resize(len, 0.0);
        }
    }
}

multiversion! {
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

/// `out [M, N] (+)= lhs [M, K] · rhs [K, N]`.
pub fn product(out: &mut [f32], lhs: &[f32], rhs: &Panels, mode: Out) {
    let m = out.len() / rhs.n.max(1);
    assert!(out.len() == m * rhs.n && lhs.len() == m * rhs.k);
    run(out, lhs, Lhs::Rows { k: rhs.k }, rhs, m, mode);
}

/// Buffers for factors that are packed for one product.
#[derive(Default)]
pub struct Scratch {
    rhs: Panels,
    /// `lhsᵀ` in tiles of rows, each `[K, R]`: read where it lies, its long stride would defeat the caches.
    lhs: Vec<f32>,
}

/// `out [M, N] (+)= lhsᵀ · rhs` for `lhs [K, M]`, `rhs [K, N]`: a linear layer's gradient to its weights.
pub fn product_transposed(
    out: &mut [f32],
    lhs: &[f32],
    rhs: &[f32],
    (k, m, n): (usize, usize, usize),
    mode: Out,
    scratch: &mut Scratch,
) {
    assert!(out.len() == m * n && lhs.len() == m * k);
    scratch.rhs.pack(rhs, k, n);
    scratch.lhs.resize(scratch.lhs.len().max(m * k), 0.0);
    let tiles = &mut scratch.lhs[..m * k];
    pack_lhs(tiles, lhs, m, k);
    run(out, &scratch.lhs, Lhs::Tiles { k }, &scratch.rhs, m, mode);
}

/// How the left-hand factor lies in memory.
#[derive(Clone, Copy)]
enum Lhs {
    /// `[M, K]`.
    Rows { k: usize },
    /// Tiles of rows, each `[K, R]`.
    Tiles { k: usize },
}

multiversion! {
    /// Cuts `lhs [K, M]` into tiles `[K, R]` of its columns; the last may be narrower.
    fn pack_lhs(tiles: &mut [f32], lhs: &[f32], m: usize, k: usize) {
        match Level::detect() {
            Level::Avx512 => pack_tiles::<14>(tiles, lhs, m, k),
            Level::Avx2 => pack_tiles::<6>(tiles, lhs, m, k),
            Level::Baseline => pack_tiles::<2>(tiles, lhs, m, k),
        }
    }
}

#[inline(always)]
fn pack_tiles<const R: usize>(tiles: &mut [f32], lhs: &[f32], m: usize, k: usize) {
    let whole = m / R * R;
    let (tiles, last) = tiles.split_at_mut(whole * k);
    // A few rows at a time: they are still near when the next tile reads them.
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

fn run(out: &mut [f32], lhs: &[f32], layout: Lhs, rhs: &Panels, m: usize, mode: Out) {
    if m == 0 || rhs.n == 0 {
        return;
    }
    let product = Product {
        out: out.as_mut_ptr(),
        lhs: lhs.as_ptr(),
        layout,
        rhs,
        m,
        mode,
    };
    match Level::detect() {
        // SAFETY: the level was detected on this CPU; the public functions checked the sizes.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::avx512(product) },
        // SAFETY: the same.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::avx2(product) },
        // SAFETY: the public functions checked the sizes.
        _ => unsafe { product.blocks::<Plain, 2, 2>() },
    }
}

/// A product under way; its pointers reach `[M, N]` and `[M, K]` elements.
#[derive(Clone, Copy)]
struct Product<'a> {
    out: *mut f32,
    lhs: *const f32,
    layout: Lhs,
    rhs: &'a Panels,
    m: usize,
    mode: Out,
}

/// A vector register.
trait Register: Copy {
    /// Elements.
    const LANES: usize;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `a · b + self`.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    unsafe fn plus(self, x: Self) -> Self;
    /// Asks for a cache line that will be needed.
    unsafe fn prefetch(_: *const f32) {}
    /// The same for one that will be needed later.
    unsafe fn prefetch_far(_: *const f32) {}
}

impl Product<'_> {
    /// All blocks, in tiles of `R` rows by `V` registers.
    ///
    /// # Safety
    /// The CPU must have what `X` needs.
    #[inline(always)]
    unsafe fn blocks<X: Register, const R: usize, const V: usize>(self) {
        let Panels { k, n, data } = self.rhs;
        let (k, n) = (*k, *n);
        if k == 0 {
            if self.mode == Out::Set {
                // SAFETY: `out` reaches `[M, N]` elements.
                unsafe { self.out.write_bytes(0, self.m * n) };
            }
            return;
        }
        for first in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - first);
            let mode = if first == 0 { self.mode } else { Out::Add };
            let blocks = (0..self.m).step_by(HEIGHT * R);
            let columns = move || (0..n).step_by(V * X::LANES);
            for (top, column) in blocks.flat_map(|top| columns().map(move |column| (top, column))) {
                let bottom = self.m.min(top + HEIGHT * R);
                let (panel, within) = (column / WIDTH, column % WIDTH);
                let columns = (n - column).min(V * X::LANES);
                // SAFETY: panel, block and column lie in `data`; rows and columns of each tile in
                // `out` and `lhs`.
                unsafe {
                    let rhs = data.as_ptr().add((panel * k + first) * WIDTH + within);
                    // Where a row of the tile begins, the strides of its rows and summed elements.
                    let lhs = |row: usize| match self.layout {
                        Lhs::Rows { k } => (self.lhs.add(row * k + first), k, 1),
                        Lhs::Tiles { k } => {
                            let tile = self.lhs.add(row / R * R * k);
                            let width = R.min(self.m - row / R * R);
                            (tile.add(first * width + row % R), 1, width)
                        }
                    };
                    // The next panel is asked for while this one is multiplied.
                    let steps = (bottom - top).div_ceil(R) * depth.div_ceil(CHUNK);
                    let lines = (depth * WIDTH / LINE).div_ceil(steps);
                    let mut ahead = rhs.wrapping_add(k * WIDTH);
                    let mut row = top;
                    while row + R <= bottom {
                        self.tile::<X, R, V>(
                            lhs(row),
                            rhs,
                            depth,
                            row,
                            column,
                            columns,
                            mode,
                            (ahead, lines),
                        );
                        ahead = ahead.wrapping_add(depth.div_ceil(CHUNK) * lines * LINE);
                        row += R;
                    }
                    // The rows that are left, in smaller tiles.
                    macro_rules! rest {
                        ($($r:literal)*) => {$(
                            if R > $r && row + $r <= bottom {
                                self.tile::<X, $r, V>(lhs(row), rhs, depth, row, column, columns, mode, (ahead, 0));
                                row += $r;
                            }
                        )*};
                    }
                    rest!(8 4 2 1);
                }
            }
        }
    }

    /// One tile: `R` rows from `row`, `columns` columns from `column`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn tile<X: Register, const R: usize, const V: usize>(
        self,
        (lhs, row_stride, step): (*const f32, usize, usize),
        rhs: *const f32,
        depth: usize,
        row: usize,
        column: usize,
        columns: usize,
        mode: Out,
        (mut ahead, lines): (*const f32, usize),
    ) {
        let n = self.rhs.n;
        // SAFETY: as the caller says.
        unsafe {
            let out = self.out.add(row * n + column);
            let mut acc = [[X::splat(0.0); V]; 14];
            // Every third row has a pointer of its own; the others are reached by an index register.
            let mut p0 = lhs;
            let mut p1 = lhs.wrapping_add(3 * row_stride);
            let mut p2 = lhs.wrapping_add(6 * row_stride);
            let mut p3 = lhs.wrapping_add(9 * row_stride);
            let mut p4 = lhs.wrapping_add(12 * row_stride);
            let mut rhs = rhs;
            let mut left = depth;
            let mut ahead_row = 0;
            while left > 0 {
                // The next tile's destination is asked for line by line on the way: all at once
                // would keep the factors waiting.
                if ahead_row < R {
                    for v in 0..V {
                        let at = (R + ahead_row) * n + v * X::LANES;
                        X::prefetch(out.wrapping_add(at));
                    }
                    ahead_row += 1;
                }
                for _ in 0..lines {
                    X::prefetch_far(ahead);
                    ahead = ahead.wrapping_add(LINE);
                }
                for _ in 0..left.min(CHUNK) {
                    let mut b = [X::splat(0.0); V];
                    for v in 0..V {
                        b[v] = X::load(rhs.add(v * X::LANES));
                    }
                    // Written out: a loop over the rows would add up their addresses one by one.
                    macro_rules! rows {
                        ($($i:literal: $base:ident $j:literal)*) => {$(
                            if $i < R {
                                let a = X::splat(*$base.add($j * row_stride));
                                for v in 0..V {
                                    acc[$i][v] = acc[$i][v].add_product(a, b[v]);
                                }
                            }
                        )*};
                    }
                    rows!(0: p0 0  1: p0 1  2: p0 2  3: p1 0  4: p1 1  5: p1 2  6: p2 0  7: p2 1
                        8: p2 2  9: p3 0  10: p3 1  11: p3 2  12: p4 0  13: p4 1);
                    p0 = p0.wrapping_add(step);
                    p1 = p1.wrapping_add(step);
                    p2 = p2.wrapping_add(step);
                    p3 = p3.wrapping_add(step);
                    p4 = p4.wrapping_add(step);
                    rhs = rhs.add(WIDTH);
                }
                left -= left.min(CHUNK);
            }
            if columns == V * X::LANES {
                for i in 0..R {
                    for v in 0..V {
                        let out = out.add(i * n + v * X::LANES);
                        match mode {
                            Out::Set => acc[i][v].store(out),
                            Out::Add => acc[i][v].plus(X::load(out)).store(out),
                        }
                    }
                }
            } else {
                for i in 0..R {
                    let mut tile = [0f32; WIDTH];
                    for v in 0..V {
                        acc[i][v].store(tile.as_mut_ptr().add(v * X::LANES));
                    }
                    for (j, x) in tile[..columns].iter().enumerate() {
                        let out = out.add(i * n + j);
                        *out = match mode {
                            Out::Set => *x,
                            Out::Add => *out + *x,
                        };
                    }
                }
            }
        }
    }
}

/// Four elements without any instruction set's help.
#[derive(Clone, Copy)]
struct Plain([f32; 4]);

impl Register for Plain {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the caller says.
        Self(unsafe { from.cast::<[f32; 4]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as the caller says.
        unsafe { to.cast::<[f32; 4]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| a.0[i] * b.0[i] + self.0[i]))
    }
    #[inline(always)]
    unsafe fn plus(self, x: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + x.0[i]))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Product, Register};
    use std::arch::x86_64::*;

    /// 28 of 32 registers hold the tile.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn avx512(product: Product) {
        // SAFETY: as the caller says.
        unsafe { product.blocks::<__m512, 14, 2>() }
    }

    /// 12 of 16 registers hold the tile.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2(product: Product) {
        // SAFETY: as the caller says.
        unsafe { product.blocks::<__m256, 6, 2>() }
    }

    macro_rules! register {
        ($ty:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $fma:ident, $add:ident) => {
            impl Register for $ty {
                const LANES: usize = $lanes;
                #[inline(always)]
                unsafe fn splat(x: f32) -> Self {
                    // SAFETY: only called where the CPU has the instruction set.
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    // SAFETY: the same; the caller vouches for the pointer.
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: the same.
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn add_product(self, a: Self, b: Self) -> Self {
                    // SAFETY: the same.
                    unsafe { $fma(a, b, self) }
                }
                #[inline(always)]
                unsafe fn plus(self, x: Self) -> Self {
                    // SAFETY: the same.
                    unsafe { $add(self, x) }
                }
                #[inline(always)]
                unsafe fn prefetch(at: *const f32) {
                    // SAFETY: a prefetch touches no memory.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
                }
                #[inline(always)]
                unsafe fn prefetch_far(at: *const f32) {
                    // SAFETY: a prefetch touches no memory.
                    unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
                }
            }
        };
    }
    register!(
        __m512,
        16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps
    );
    register!(
        __m256,
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps
    );
}

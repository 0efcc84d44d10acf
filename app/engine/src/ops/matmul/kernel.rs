//! The micro-kernel: tiles of the product that stay in registers, for each instruction set.

use super::super::simd::InstructionSet;

/// What happens to the old contents of a product's destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Out {
    /// They are overwritten.
    Set,
    /// The product is added to them.
    Add,
}

/// Sizes of a product of `[M, K]` and `[K, N]`.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Rows M of the left-hand factor and of the product.
    pub m: usize,
    /// Columns N of the right-hand factor and of the product.
    pub n: usize,
    /// Length K of the summed dimension.
    pub k: usize,
}

/// Columns of a panel.
pub(super) const WIDTH: usize = 32;

/// Summed elements of a block: a panel's block takes 32 KiB.
const DEPTH: usize = 256;

/// Tiles of rows that are multiplied by a panel before the next panel: their left-hand factor stays in the
/// second-level cache.
const HEIGHT: usize = 20;

/// Columns that are summed over all blocks before the next columns: the destination stays in the second-level
/// cache (a multiple of a panel's columns).
const COLUMNS: usize = 1024;

/// Summed elements between two prefetches.
const CHUNK: usize = 8;
/// Elements of a cache line.
const LINE: usize = 16;

/// Rows of a tile: with two registers for each row, the accumulators leave just enough for the factors.
pub(super) const ROWS_AVX512: usize = 14;
pub(super) const ROWS_AVX2: usize = 6;
pub(super) const ROWS_BASELINE: usize = 2;

/// Rows of a tile on this CPU.
pub(super) fn rows() -> usize {
    match InstructionSet::detect() {
        InstructionSet::Avx512 => ROWS_AVX512,
        InstructionSet::Avx2 => ROWS_AVX2,
        InstructionSet::Baseline => ROWS_BASELINE,
    }
}

/// Memory layout of the left-hand factor.
#[derive(Clone, Copy)]
pub(super) enum Lhs {
    /// Rows `row` elements apart, and summed elements `step` apart.
    Strided { row: usize, step: usize },
    /// Tiles `[K, R]`, with as many rows R as the kernel's.
    Tiles,
}

/// Memory layout of the right-hand factor.
#[derive(Clone, Copy)]
pub(super) enum Rhs {
    /// Panels `[K, WIDTH]` of columns.
    Panels,
    /// Rows `stride` elements apart, readable up to whole registers.
    Rows { stride: usize },
}

/// A product `out [M, N] (+)= lhs [M, K] · rhs [K, N]`.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub out: *mut f32,
    pub out_stride: usize,
    pub lhs: *const f32,
    pub lhs_layout: Lhs,
    pub rhs: *const f32,
    pub rhs_layout: Rhs,
    pub sizes: Sizes,
    pub mode: Out,
    /// Whether the factors' elements are pairs of bf16.
    pub pairs: bool,
}

/// Part of a product: `depth` summed elements from `first` on, `columns` columns from `column` on.
#[derive(Clone, Copy)]
struct Tile {
    first: usize,
    depth: usize,
    column: usize,
    columns: usize,
    mode: Out,
}

/// Where a tile reads its rows of the left-hand factor.
#[derive(Clone, Copy)]
struct TileRows {
    first: *const f32,
    /// Elements from one row to the next.
    stride: usize,
    /// Elements from one summed element to the next.
    step: usize,
}

/// Where a tile reads its columns of the right-hand factor.
#[derive(Clone, Copy)]
struct TileColumns {
    first: *const f32,
    /// Elements from one summed element to the next.
    step: usize,
}

/// Cache lines to prefetch while a tile is computed.
#[derive(Clone, Copy)]
struct Ahead {
    next: *const f32,
    /// Lines for each `CHUNK` of summed elements.
    lines: usize,
}

/// A vector register.
trait Register: Copy {
    /// Number of elements.
    const LANES: usize;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `a · b + self`.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    unsafe fn plus(self, x: Self) -> Self;
    /// Prefetches a cache line that is needed soon.
    unsafe fn prefetch(_: *const f32) {}
    /// Prefetches a cache line that is needed later.
    unsafe fn prefetch_far(_: *const f32) {}
}

impl Product {
    /// Computes the product.
    ///
    /// # Safety
    /// The pointers must be valid for all elements that sizes and layouts name; `out` overlaps no factor.
    pub(super) unsafe fn run(self) {
        match InstructionSet::detect() {
            // SAFETY: the level was detected on this CPU; the rest is the caller's to see to.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 if self.pairs => unsafe { x86::avx512_bf16(self) },
            // SAFETY: the same.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => unsafe { x86::avx512(self) },
            // SAFETY: the same.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => unsafe { x86::avx2(self) },
            // SAFETY: the same.
            _ => unsafe { self.blocks::<Plain, ROWS_BASELINE>() },
        }
    }

    /// Computes all blocks, in tiles of `R` rows by two registers, or one where no more columns are left.
    ///
    /// # Safety
    /// As for [`Self::run`]; the CPU must have what `X` needs.
    #[inline(always)]
    unsafe fn blocks<X: Register, const R: usize>(self) {
        let Sizes { m, n, k } = self.sizes;
        if k == 0 && self.mode == Out::Set {
            for row in 0..m {
                // SAFETY: `out` reaches `[M, N]` elements.
                unsafe { self.out.add(row * self.out_stride).write_bytes(0, n) };
            }
        }
        for top in (0..m).step_by(HEIGHT * R) {
            let bottom = m.min(top + HEIGHT * R);
            for left in (0..n).step_by(COLUMNS) {
                for first in (0..k).step_by(DEPTH) {
                    let depth = DEPTH.min(k - first);
                    let mode = if first == 0 { self.mode } else { Out::Add };
                    for column in (left..n.min(left + COLUMNS)).step_by(2 * X::LANES) {
                        let tile = Tile {
                            first,
                            depth,
                            column,
                            columns: (n - column).min(2 * X::LANES),
                            mode,
                        };
                        // SAFETY: rows and columns lie in the product.
                        unsafe {
                            if tile.columns <= X::LANES {
                                self.column::<X, R, 1>(tile, top, bottom);
                            } else {
                                self.column::<X, R, 2>(tile, top, bottom);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Computes the rows from `top` to `bottom` of some columns.
    #[inline(always)]
    unsafe fn column<X: Register, const R: usize, const V: usize>(
        self,
        tile: Tile,
        top: usize,
        bottom: usize,
    ) {
        let Sizes { m, k, .. } = self.sizes;
        let Tile {
            first,
            depth,
            column,
            ..
        } = tile;
        // SAFETY: as the caller says.
        unsafe {
            let rhs = match self.rhs_layout {
                Rhs::Panels => {
                    let (panel, within) = (column / WIDTH, column % WIDTH);
                    TileColumns {
                        first: self.rhs.add((panel * k + first) * WIDTH + within),
                        step: WIDTH,
                    }
                }
                Rhs::Rows { stride } => TileColumns {
                    first: self.rhs.add(first * stride + column),
                    step: stride,
                },
            };
            // The next panel is prefetched while this one is multiplied.
            let chunks = depth.div_ceil(CHUNK);
            let lines = match self.rhs_layout {
                Rhs::Panels => (depth * WIDTH / LINE).div_ceil((bottom - top).div_ceil(R) * chunks),
                Rhs::Rows { .. } => 0,
            };
            let mut next = rhs.first.wrapping_add(k * WIDTH);
            let lhs = |row: usize| match self.lhs_layout {
                Lhs::Strided { row: stride, step } => TileRows {
                    first: self.lhs.add(row * stride + first * step),
                    stride,
                    step,
                },
                Lhs::Tiles => {
                    let begin = row / R * R;
                    let width = R.min(m - begin);
                    TileRows {
                        first: self.lhs.add(begin * k + first * width + row % R),
                        stride: 1,
                        step: width,
                    }
                }
            };
            let mut row = top;
            // A tile one register wide has room for one row more, which alone would take as long as many.
            let room = V == 1 && R == ROWS_AVX512 && matches!(self.lhs_layout, Lhs::Strided { .. });
            while row + R <= bottom && !(room && bottom - row == R + 1) {
                self.tile::<X, R, V>(lhs(row), rhs, row, tile, Ahead { next, lines });
                next = next.wrapping_add(chunks * lines * LINE);
                row += R;
            }
            let nothing = Ahead { next, lines: 0 };
            if room && bottom - row == R + 1 {
                self.tile::<X, 15, V>(lhs(row), rhs, row, tile, nothing);
                row = bottom;
            }
            // The rows that are left, in smaller tiles.
            macro_rules! rest {
                ($($r:literal)*) => {$(
                    if R > $r && bottom - row >= $r {
                        self.tile::<X, $r, V>(lhs(row), rhs, row, tile, nothing);
                        row += $r;
                    }
                )*};
            }
            rest!(8 4 2 1);
        }
    }

    /// Computes one tile: `R` rows from `row` on, `V` registers wide.
    #[allow(
        clippy::too_many_lines,
        reason = "the accumulators stay in registers from the first product to the store"
    )]
    #[inline(always)]
    unsafe fn tile<X: Register, const R: usize, const V: usize>(
        self,
        lhs: TileRows,
        rhs: TileColumns,
        row: usize,
        tile: Tile,
        ahead: Ahead,
    ) {
        let n = self.out_stride;
        let row_stride = lhs.stride;
        let (mut b_at, mut ahead_at) = (rhs.first, ahead.next);
        let Tile {
            depth,
            column,
            columns,
            mode,
            ..
        } = tile;
        // SAFETY: as the caller says.
        unsafe {
            let out = self.out.wrapping_add(row * n + column);
            let mut acc = [[X::splat(0.0); V]; 15];
            // Every third row has a pointer of its own; the rows between are addressed with an index register.
            let mut p0 = lhs.first;
            let mut p1 = lhs.first.wrapping_add(3 * row_stride);
            let mut p2 = lhs.first.wrapping_add(6 * row_stride);
            let mut p3 = lhs.first.wrapping_add(9 * row_stride);
            let mut p4 = lhs.first.wrapping_add(12 * row_stride);
            let mut left = depth;
            let mut ahead_row = 0;
            while left > 0 {
                // The next tile's destination is prefetched line by line: all lines at once would delay
                // the loads of the factors.
                if ahead_row < R {
                    for v in 0..V {
                        let at = (R + ahead_row) * n + v * X::LANES;
                        X::prefetch(out.wrapping_add(at));
                    }
                    ahead_row += 1;
                }
                for _ in 0..ahead.lines {
                    X::prefetch_far(ahead_at);
                    ahead_at = ahead_at.wrapping_add(LINE);
                }
                for _ in 0..left.min(CHUNK) {
                    let mut b = [X::splat(0.0); V];
                    for v in 0..V {
                        b[v] = X::load(b_at.wrapping_add(v * X::LANES));
                    }
                    // Unrolled by hand: a loop over the rows would compute their addresses one by one.
                    macro_rules! rows {
                        ($($i:literal: $base:ident $j:literal)*) => {$(
                            if $i < R {
                                let a = X::splat(*$base.wrapping_add($j * row_stride));
                                for v in 0..V {
                                    acc[$i][v] = acc[$i][v].add_product(a, b[v]);
                                }
                            }
                        )*};
                    }
                    rows!(0: p0 0  1: p0 1  2: p0 2  3: p1 0  4: p1 1  5: p1 2  6: p2 0  7: p2 1
                        8: p2 2  9: p3 0  10: p3 1  11: p3 2  12: p4 0  13: p4 1  14: p4 2);
                    p0 = p0.wrapping_add(lhs.step);
                    p1 = p1.wrapping_add(lhs.step);
                    p2 = p2.wrapping_add(lhs.step);
                    p3 = p3.wrapping_add(lhs.step);
                    p4 = p4.wrapping_add(lhs.step);
                    b_at = b_at.wrapping_add(rhs.step);
                }
                left -= left.min(CHUNK);
            }
            if columns == V * X::LANES {
                for i in 0..R {
                    for v in 0..V {
                        let out = out.wrapping_add(i * n + v * X::LANES);
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
                        acc[i][v].store(tile.as_mut_ptr().wrapping_add(v * X::LANES));
                    }
                    for (j, x) in tile[..columns].iter().enumerate() {
                        let out = out.wrapping_add(i * n + j);
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

/// Four elements, for CPUs of any instruction set.
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

    /// Products with AVX-512: 28 of 32 registers hold the tile.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn avx512(product: Product) {
        // SAFETY: as the caller says.
        unsafe { product.blocks::<__m512, { super::ROWS_AVX512 }>() }
    }

    /// The same for pairs of bf16, with two products for each element.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    pub(super) unsafe fn avx512_bf16(product: Product) {
        // SAFETY: as the caller says.
        unsafe { product.blocks::<Pairs, { super::ROWS_AVX512 }>() }
    }

    /// 16 sums of f32; as a factor, 16 pairs of bf16.
    #[derive(Clone, Copy)]
    struct Pairs(__m512);

    impl Register for Pairs {
        const LANES: usize = 16;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // As an integer: as a float, a pair could be a signalling NaN, which a copy may quieten.
            // SAFETY: only called where the CPU has the instruction set.
            Self(unsafe { _mm512_castsi512_ps(_mm512_set1_epi32(x.to_bits() as i32)) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the same; the caller vouches for the pointer.
            Self(unsafe { <__m512 as Register>::load(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the same.
            unsafe { Register::store(self.0, to) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the same; both types are 64 bytes of any value.
            unsafe {
                let [a, b] = [a.0, b.0].map(|x| std::mem::transmute::<__m512, __m512bh>(x));
                Self(_mm512_dpbf16_ps(self.0, a, b))
            }
        }
        #[inline(always)]
        unsafe fn plus(self, x: Self) -> Self {
            // SAFETY: the same.
            Self(unsafe { self.0.plus(x.0) })
        }
        #[inline(always)]
        unsafe fn prefetch(at: *const f32) {
            // SAFETY: the same.
            unsafe { <__m512 as Register>::prefetch(at) }
        }
        #[inline(always)]
        unsafe fn prefetch_far(at: *const f32) {
            // SAFETY: the same.
            unsafe { <__m512 as Register>::prefetch_far(at) }
        }
    }

    /// Products with AVX2: 12 of 16 registers hold the tile.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2(product: Product) {
        // SAFETY: as the caller says.
        unsafe { product.blocks::<__m256, { super::ROWS_AVX2 }>() }
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

//! The micro-kernel: tiles of the product that stay in registers, for each instruction set.

use super::super::simd::InstructionSet;
use super::{Out, WIDTH};

/// Summed elements a tile takes at once: a panel's block of them is 32 KiB.
const DEPTH: usize = 256;

/// Tiles of rows that pass by a panel before the next one is taken: their left-hand factor stays in
/// the second-level cache.
const HEIGHT: usize = 20;

/// Columns that are summed up before the next are taken: what is added to stays in the second-level
/// cache (a multiple of a panel's).
const COLUMNS: usize = 1024;

/// Summed elements between two prefetches.
const CHUNK: usize = 8;
/// Elements of a cache line.
const LINE: usize = 16;

/// Rows of a tile: with two registers a row they fill the registers but for the factors.
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

/// How the left-hand factor lies in memory.
#[derive(Clone, Copy)]
pub(super) enum Lhs {
    /// Distance of rows, and of summed elements.
    Strided { row: usize, step: usize },
    /// Tiles of as many rows as the kernel's, each `[K, R]`.
    Tiles,
}

/// How the right-hand factor lies in memory.
#[derive(Clone, Copy)]
pub(super) enum Rhs {
    /// As in [`super::Panels`].
    Panels,
    /// Rows so far apart, readable up to whole registers.
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
    /// M, N, K.
    pub sizes: (usize, usize, usize),
    pub mode: Out,
    /// Whether the factors' elements are pairs of bf16 to be multiplied and added up.
    pub pairs: bool,
}

/// Part of a product: `depth` summed elements from `first` on, some columns.
#[derive(Clone, Copy)]
struct Tile {
    first: usize,
    depth: usize,
    column: usize,
    columns: usize,
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

impl Product {
    /// Multiplies.
    ///
    /// # Safety
    /// The pointers must reach all elements that sizes and layouts name; `out` overlaps nothing.
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

    /// All blocks, in tiles of `R` rows by two registers, or one where no more columns are left.
    ///
    /// # Safety
    /// As for [`Self::run`]; the CPU must have what `X` needs.
    #[inline(always)]
    unsafe fn blocks<X: Register, const R: usize>(self) {
        let (m, n, k) = self.sizes;
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

    /// The rows from `top` to `bottom` of some columns.
    #[inline(always)]
    unsafe fn column<X: Register, const R: usize, const V: usize>(
        self,
        tile: Tile,
        top: usize,
        bottom: usize,
    ) {
        let (m, _, k) = self.sizes;
        let Tile {
            first,
            depth,
            column,
            ..
        } = tile;
        // SAFETY: as the caller says.
        unsafe {
            let (rhs, rhs_step) = match self.rhs_layout {
                Rhs::Panels => {
                    let (panel, within) = (column / WIDTH, column % WIDTH);
                    (self.rhs.add((panel * k + first) * WIDTH + within), WIDTH)
                }
                Rhs::Rows { stride } => (self.rhs.add(first * stride + column), stride),
            };
            // The next panel is asked for while this one is multiplied.
            let chunks = depth.div_ceil(CHUNK);
            let lines = match self.rhs_layout {
                Rhs::Panels => (depth * WIDTH / LINE).div_ceil((bottom - top).div_ceil(R) * chunks),
                Rhs::Rows { .. } => 0,
            };
            let mut ahead = rhs.wrapping_add(k * WIDTH);
            let lhs = |row: usize| match self.lhs_layout {
                Lhs::Strided { row: stride, step } => {
                    (self.lhs.add(row * stride + first * step), stride, step)
                }
                Lhs::Tiles => {
                    let begin = row / R * R;
                    let width = R.min(m - begin);
                    (self.lhs.add(begin * k + first * width + row % R), 1, width)
                }
            };
            let mut row = top;
            // One register wide there is room for a row more: a lone one would take as long as many.
            let room = V == 1 && R == ROWS_AVX512 && matches!(self.lhs_layout, Lhs::Strided { .. });
            while row + R <= bottom && !(room && bottom - row == R + 1) {
                self.tile::<X, R, V>(lhs(row), (rhs, rhs_step), row, tile, (ahead, lines));
                ahead = ahead.wrapping_add(chunks * lines * LINE);
                row += R;
            }
            if room && bottom - row == R + 1 {
                self.tile::<X, 15, V>(lhs(row), (rhs, rhs_step), row, tile, (ahead, 0));
                row = bottom;
            }
            // The rows that are left, in smaller tiles.
            macro_rules! rest {
                ($($r:literal)*) => {$(
                    if R > $r && bottom - row >= $r {
                        self.tile::<X, $r, V>(lhs(row), (rhs, rhs_step), row, tile, (ahead, 0));
                        row += $r;
                    }
                )*};
            }
            rest!(8 4 2 1);
        }
    }

    /// One tile: `R` rows from `row` on, `V` registers wide.
    #[inline(always)]
    unsafe fn tile<X: Register, const R: usize, const V: usize>(
        self,
        (lhs, row_stride, step): (*const f32, usize, usize),
        (mut rhs, rhs_step): (*const f32, usize),
        row: usize,
        tile: Tile,
        (mut ahead, lines): (*const f32, usize),
    ) {
        let n = self.out_stride;
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
            // Every third row has a pointer of its own; the others are reached by an index register.
            let mut p0 = lhs;
            let mut p1 = lhs.wrapping_add(3 * row_stride);
            let mut p2 = lhs.wrapping_add(6 * row_stride);
            let mut p3 = lhs.wrapping_add(9 * row_stride);
            let mut p4 = lhs.wrapping_add(12 * row_stride);
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
                        b[v] = X::load(rhs.wrapping_add(v * X::LANES));
                    }
                    // Written out: a loop over the rows would add up their addresses one by one.
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
                    p0 = p0.wrapping_add(step);
                    p1 = p1.wrapping_add(step);
                    p2 = p2.wrapping_add(step);
                    p3 = p3.wrapping_add(step);
                    p4 = p4.wrapping_add(step);
                    rhs = rhs.wrapping_add(rhs_step);
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
        unsafe { product.blocks::<__m512, { super::ROWS_AVX512 }>() }
    }

    /// The same for pairs of bf16: two products an element.
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
            // An integer: as a number, a pair could be a NaN that is made quiet on the way.
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

    /// 12 of 16 registers hold the tile.
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

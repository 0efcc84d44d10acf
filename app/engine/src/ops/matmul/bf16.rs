//! Formats of factors in bfloat16: rounded f32, or pairs for the CPU's dot-product instruction.

use super::super::Precision;
use super::super::simd::{InstructionSet, multiversion};

/// Format of a packed factor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// f32.
    F32,
    /// f32 rounded to bf16.
    Rounded,
    /// Two summed elements in bf16 in the place of one f32, the first in its low half.
    Pairs,
}

impl Format {
    /// The fastest format of a precision on this CPU.
    pub(super) fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 if has_fast_pairs() => Self::Pairs,
            Precision::Bf16 => Self::Rounded,
        }
    }

    /// Number of stored elements (or pairs) for `k` summed elements.
    pub(super) fn depth(self, k: usize) -> usize {
        match self {
            Self::Pairs => k.div_ceil(2),
            Self::F32 | Self::Rounded => k,
        }
    }

    /// Converts blocks `[K, width]` in place; pairs make blocks `[K / 2, width]`, one after another.
    pub(super) fn convert(self, blocks: &mut [f32], k: usize, width: usize) {
        match self {
            Self::F32 => {}
            Self::Rounded => round(blocks),
            Self::Pairs if k * width == 0 => {}
            Self::Pairs => pair_rows(blocks, k, width),
        }
    }

    /// Converts rows `[M, K]`, into `scratch` unless they are in this format already.
    pub(super) fn rows<'a>(self, x: &'a [f32], k: usize, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        if self == Self::F32 {
            return x;
        }
        scratch.resize(scratch.len().max(x.len() + k), 0.0);
        if self == Self::Rounded {
            let out = &mut scratch[..x.len()];
            out.copy_from_slice(x);
            round(out);
            return out;
        }
        let len = x.len() / k.max(1) * k.div_ceil(2);
        pair_columns(&mut scratch[..len], x, k);
        &scratch[..len]
    }
}

/// Whether the CPU multiplies bf16 pairs faster than f32: AMD's do (at twice the rate), Intel's do not outside
/// their matrix units (Sapphire Rapids: half the rate of f32, measured).
fn has_fast_pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    if InstructionSet::detect() == InstructionSet::Avx512
        && std::arch::is_x86_feature_detected!("avx512bf16")
    {
        let vendor = std::arch::x86_64::__cpuid(0);
        return [vendor.ebx, vendor.edx, vendor.ecx]
            == [*b"Auth", *b"enti", *b"cAMD"].map(u32::from_le_bytes);
    }
    false
}

/// Rounds to the nearest bf16, ties to even, in the upper half of an f32's bits; NaN stays NaN.
#[inline(always)]
fn nearest(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    if x.is_nan() {
        (bits | 0x0040_0000) & 0xffff_0000
    } else {
        rounded
    }
}

/// Two elements in bf16 as one f32.
#[inline(always)]
fn pair(low: f32, high: f32) -> f32 {
    f32::from_bits(nearest(low) >> 16 | nearest(high))
}

multiversion! {
    /// Rounds every element to bf16.
    fn round(x: &mut [f32]) {
        for x in x {
            *x = f32::from_bits(nearest(*x));
        }
    }
}

multiversion! {
    /// Converts rows `[M, K]` to pairs `[M, K / 2]`; an odd last element is paired with zero.
    fn pair_columns(out: &mut [f32], x: &[f32], k: usize) {
        for (out, x) in out.chunks_exact_mut(k.div_ceil(2).max(1)).zip(x.chunks_exact(k.max(1))) {
            let (pairs, odd) = x.as_chunks::<2>();
            for (out, [low, high]) in out.iter_mut().zip(pairs) {
                *out = pair(*low, *high);
            }
            if let ([x], [.., last]) = (odd, out) {
                *last = pair(*x, 0.0);
            }
        }
    }
}

multiversion! {
    /// Converts blocks `[K, width]` to pairs `[K / 2, width]`, one after another; an odd last row is paired with
    /// zeros.
    fn pair_rows(blocks: &mut [f32], k: usize, width: usize) {
        let mut to = 0;
        for block in (0..blocks.len()).step_by(k * width) {
            for row in (0..k).step_by(2) {
                for from in block + row * width..block + (row + 1) * width {
                    let high = if row + 1 < k { blocks[from + width] } else { 0.0 };
                    // `to` never passes an element that has yet to be read.
                    blocks[to] = pair(blocks[from], high);
                    to += 1;
                }
            }
        }
    }
}

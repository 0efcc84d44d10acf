//! Choice of the instruction set at run time, and functions on elements that the compiler vectorises.

use std::sync::OnceLock;

/// Instruction sets that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// The instructions that every CPU of the architecture has.
    Baseline,
}

impl InstructionSet {
    /// The best instruction set of this CPU.
    pub fn detect() -> Self {
        #[cfg(test)]
        if let Some(level) = FORCED.get() {
            return level;
        }
        static LEVEL: OnceLock<InstructionSet> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::is_x86_feature_detected as has;
                if has!("avx512f")
                    && has!("avx512bw")
                    && has!("avx512dq")
                    && has!("avx512vl")
                    && has!("fma")
                {
                    return InstructionSet::Avx512;
                }
                if has!("avx2") && has!("fma") {
                    return InstructionSet::Avx2;
                }
            }
            InstructionSet::Baseline
        })
    }

    /// The name under which runs record it: `avx512`, `avx2` or `baseline`.
    pub fn name(self) -> &'static str {
        match self {
            InstructionSet::Avx512 => "avx512",
            InstructionSet::Avx2 => "avx2",
            InstructionSet::Baseline => "baseline",
        }
    }
}

#[cfg(test)]
thread_local! {
    /// The instruction set that a test forces on this thread with [`InstructionSet::force`].
    static FORCED: std::cell::Cell<Option<InstructionSet>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
impl InstructionSet {
    /// The instruction sets of this CPU, best first.
    pub(crate) fn available() -> Vec<Self> {
        let levels = [
            InstructionSet::Avx512,
            InstructionSet::Avx2,
            InstructionSet::Baseline,
        ];
        let forced = FORCED.replace(None);
        let best = InstructionSet::detect();
        FORCED.set(forced);
        levels.into_iter().skip_while(|&l| l != best).collect()
    }

    /// Makes the calling thread use one of [`Self::available`]; `None` returns to the best.
    pub(crate) fn force(level: Option<Self>) {
        assert!(level.is_none_or(|l| Self::available().contains(&l)));
        FORCED.set(level);
    }
}

/// Compiles a function for each [`InstructionSet`] and calls the version for the best one of this CPU.
///
/// The body is inlined into each version, so that the compiler vectorises its loops for it.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take each slice and each size by itself")]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "as above")]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "as above")]
            fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "as above")]
            fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

            match $crate::ops::simd::InstructionSet::detect() {
                // SAFETY: the level was detected on this CPU.
                #[cfg(target_arch = "x86_64")]
                $crate::ops::simd::InstructionSet::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: the level was detected on this CPU.
                #[cfg(target_arch = "x86_64")]
                $crate::ops::simd::InstructionSet::Avx2 => unsafe { avx2($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}
pub(crate) use multiversion;

/// Accumulators of a reduction: the lanes of one AVX-512 register, or of two AVX2 ones.
pub(crate) const LANES: usize = 16;

/// `e^x` to about one unit in the last place; `x` is clamped to [−87, 88], NaN stays NaN.
///
/// Range reduction to `x = n ln 2 + r` and a degree-6 polynomial in `r` (Cephes `expf`).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let z = x.mul_add(LOG2_E, ROUND);
    let n = z - ROUND;
    let r = n.mul_add(-LN2_HI, x);
    let r = n.mul_add(-LN2_LO, r);
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 5.000_000_3e-1);
    let p = p.mul_add(r * r, r) + 1.0;
    p * f32::from_bits((z.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// `Σ a·b`, summed in a fixed order.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut acc = [0f32; LANES];
    let (a_body, a_tail) = a.as_chunks::<LANES>();
    let (b_body, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a_body.iter().zip(b_body) {
        for i in 0..LANES {
            acc[i] = a[i].mul_add(b[i], acc[i]);
        }
    }
    let mut sum: f32 = fold(acc);
    for (a, b) in a_tail.iter().zip(b_tail) {
        sum = a.mul_add(*b, sum);
    }
    sum
}

/// The largest element; NaNs are skipped.
#[inline(always)]
pub(crate) fn maximum(x: &[f32]) -> f32 {
    let (body, tail) = x.as_chunks::<LANES>();
    let mut max = [f32::MIN; LANES];
    for x in body {
        for l in 0..LANES {
            max[l] = if x[l] > max[l] { x[l] } else { max[l] };
        }
    }
    tail.iter()
        .fold(fold_maximum(max), |a, &b| if b > a { b } else { a })
}

/// The largest of the accumulators.
#[inline(always)]
pub(crate) fn fold_maximum(mut acc: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            acc[i] = if acc[i + width] > acc[i] {
                acc[i + width]
            } else {
                acc[i]
            };
        }
        width /= 2;
    }
    acc[0]
}

/// Pairwise sum of the accumulators.
#[inline(always)]
pub(crate) fn fold(mut acc: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            acc[i] += acc[i + width];
        }
        width /= 2;
    }
    acc[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp() {
        let mut worst = 0f64;
        for i in -86_000..87_000 {
            let x = i as f32 * 1e-3;
            let exact = (x as f64).exp();
            worst = worst.max(((exp(x) as f64) - exact).abs() / exact);
        }
        assert!(worst < 2.4e-7, "relative error {worst:e}");
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn dot_takes_every_element() {
        let a: Vec<f32> = (0..37).map(|i| i as f32).collect();
        assert_eq!(dot(&a, &a), (0..37).map(|i| (i * i) as f32).sum::<f32>());
    }
}

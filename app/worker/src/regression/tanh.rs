//! The hyperbolic tangent of a slice, in plain arithmetic.
//!
//! The compiler vectorises it, unlike calls of the C library; and as nothing but additions, multiplications and
//! divisions is used, every machine computes the same bits.

/// Added to a number below 2⁵¹, leaves it rounded to an integer in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts: multiples of the first up to 2⁷ are exact.
const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
/// 1 / k! for odd and for even k up to 13 and 14: the series of eʳ − 1.
const ODD: [f64; 7] = [
    1.0,
    1.0 / 6.0,
    1.0 / 120.0,
    1.0 / 5_040.0,
    1.0 / 362_880.0,
    1.0 / 39_916_800.0,
    1.0 / 6_227_020_800.0,
];
const EVEN: [f64; 7] = [
    1.0 / 2.0,
    1.0 / 24.0,
    1.0 / 720.0,
    1.0 / 40_320.0,
    1.0 / 3_628_800.0,
    1.0 / 479_001_600.0,
    1.0 / 87_178_291_200.0,
];

/// Replaces each number by its hyperbolic tangent, within 3 units of the last place; NaN stays NaN.
pub(super) fn tanh_in_place(xs: &mut [f64]) {
    for x in xs {
        *x = tanh(*x);
    }
}

/// (e²ˣ − 1) / (e²ˣ + 1), with e²ˣ − 1 = 2ⁿ (eʳ − 1) + (2ⁿ − 1), where |r| ≤ ln 2 / 2.
#[inline(always)]
fn tanh(x: f64) -> f64 {
    let size = x.abs();
    // The tangent is 1 to the last bit from here on. Not `min`, which would lose a NaN.
    let doubled = 2.0 * if size > 20.0 { 20.0 } else { size };
    let shifted = doubled * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (doubled - n * LN_2[0]) - n * LN_2[1];
    let square = r * r;
    let (mut odd, mut even) = (0.0, 0.0);
    for k in (0..7).rev() {
        odd = odd * square + ODD[k];
        even = even * square + EVEN[k];
    }
    let two_to_n = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    let e = two_to_n * (odd * r + even * square) + (two_to_n - 1.0);
    (e / (e + 2.0)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else every function of the study is another one than its formulas say.
    #[test]
    fn is_the_tangent_of_the_standard_library_to_the_last_places() {
        let mut worst: f64 = 0.0;
        for i in -60_000..60_000 {
            let x = f64::from(i) * 0.000_4;
            for x in [x, x * 1e-3, x * 1e-12] {
                let error = (tanh(x) - x.tanh()).abs();
                worst = worst.max(error / (x.tanh().abs() * f64::EPSILON).max(f64::MIN_POSITIVE));
            }
        }
        assert!(worst < 3.0, "{worst} units");
        assert_eq!(tanh(f64::INFINITY), 1.0);
        assert_eq!(tanh(-1e300), -1.0);
        assert_eq!(tanh(-0.0).to_bits(), (-0.0_f64).to_bits());
        assert!(tanh(f64::NAN).is_nan());
    }
}

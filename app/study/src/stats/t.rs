//! Means, and what Student's t distribution says of them.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Level of the intervals in tables, figures and verdicts: 95 %.
pub const LEVEL: f64 = 0.95;

/// Spreads below this share of the mean are what subtracting equal accuracies leaves, and count as none.
const ROUNDING: f64 = 1e-12;

/// An interval of values, both ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end, not below the lower one.
    pub high: f64,
}

impl Interval {
    /// Half the distance between its ends: the number after a ±.
    pub fn half_width(&self) -> f64 {
        // Halves first: the distance of two large numbers may be infinite.
        0.5 * self.high - 0.5 * self.low
    }

    /// Whether a value lies in it.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// The interval, unless an end is no finite number.
    pub(super) fn finite(low: f64, high: f64) -> Option<Self> {
        (low.is_finite() && high.is_finite()).then_some(Self { low, high })
    }
}

/// The arithmetic mean; that of equal values is their value, to the bit. `None` of no values, or if one is not
/// finite.
pub fn mean(values: &[f64]) -> Option<f64> {
    let first = *values.first()?;
    if values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    if values.iter().all(|&v| v == first) {
        return Some(first);
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    // A sum of huge values overflows where their mean does not.
    Some(if mean.is_finite() {
        mean
    } else {
        values.iter().map(|v| v / count).sum()
    })
}

/// The interval in which the mean of such values lies, by Student's t.
///
/// `mean ± t · s / √n` with the sample standard deviation `s` (over n − 1) and the quantile `t` of n − 1 degrees
/// of freedom at `(1 + level) / 2`. Equal values, and values that differ by rounding alone (`s` below 10⁻¹² of the
/// mean), give an interval of no width: they say nothing about the spread of others. `None` below two values, if
/// one is not finite, or if `level` is not between 0 and 1.
pub fn t_interval(values: &[f64], level: f64) -> Option<Interval> {
    let sample = Sample::of(values)?;
    sample.interval(level)
}

/// A paired t test: the mean of differences, its interval, and how likely a mean as far from 0 is by chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedT {
    /// Mean of the differences.
    pub difference: f64,
    /// Where the mean lies, as [`t_interval`] has it.
    pub interval: Interval,
    /// Two-sided p value of the mean being 0; `None` without spread, of which nothing can be said.
    pub p: Option<f64>,
}

/// The paired t test of differences `a − b`, one a pair (a seed). `None` as for [`t_interval`].
///
/// `p = 2 · P(T > |mean| / (s / √n))` with n − 1 degrees of freedom.
pub fn paired_t(differences: &[f64], level: f64) -> Option<PairedT> {
    let sample = Sample::of(differences)?;
    let p = (sample.error > 0.0).then(|| {
        let t = (sample.mean / sample.error).abs();
        (2.0 * sample.distribution.sf(t)).clamp(0.0, 1.0)
    });
    Some(PairedT {
        difference: sample.mean,
        interval: sample.interval(level)?,
        p,
    })
}

/// What the t distribution needs of two or more values.
struct Sample {
    mean: f64,
    /// Standard error of the mean; 0 if there is no spread beyond rounding.
    error: f64,
    distribution: StudentsT,
}

impl Sample {
    fn of(values: &[f64]) -> Option<Self> {
        let mean = mean(values)?;
        let freedom = values.len().checked_sub(1)? as f64;
        // Refuses no degrees of freedom.
        let distribution = StudentsT::new(0.0, 1.0, freedom).ok()?;
        let deviation = deviation(values, mean, freedom);
        let error = deviation / (freedom + 1.0).sqrt();
        let has_spread = deviation > ROUNDING * mean.abs();
        error.is_finite().then_some(Self {
            mean,
            error: if has_spread { error } else { 0.0 },
            distribution,
        })
    }

    fn interval(&self, level: f64) -> Option<Interval> {
        if !(level > 0.0 && level < 1.0) {
            return None;
        }
        let t = -self.distribution.inverse_cdf(0.5 * (1.0 - level));
        let half = t * self.error;
        Interval::finite(self.mean - half, self.mean + half)
    }
}

/// The sample standard deviation: the squares' sum over `freedom`, taken at a scale where no square overflows.
fn deviation(values: &[f64], mean: f64, freedom: f64) -> f64 {
    let far = |far: f64, v: &f64| far.max((v - mean).abs());
    let scale = values.iter().fold(0.0, far);
    if scale == 0.0 {
        return 0.0;
    }
    let squares = values.iter().map(|v| ((v - mean) / scale).powi(2));
    scale * (squares.sum::<f64>() / freedom).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else one seed, or a run whose figures are missing, would be given an interval.
    #[test]
    fn too_little_is_refused() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[3.0]), Some(3.0));
        assert_eq!(mean(&[1.0, f64::NAN]), None);
        assert_eq!(mean(&[1.0, f64::INFINITY]), None);
        for values in [&[][..], &[3.0], &[1.0, f64::NAN], &[f64::INFINITY, 1.0]] {
            assert_eq!(t_interval(values, LEVEL), None, "{values:?}");
            assert_eq!(paired_t(values, LEVEL), None, "{values:?}");
        }
        for level in [0.0, 1.0, -1.0, f64::NAN] {
            assert_eq!(t_interval(&[1.0, 2.0], level), None, "{level}");
            assert_eq!(paired_t(&[1.0, 2.0], level), None, "{level}");
        }
    }

    /// Else seeds that agree to the last bit, or but for rounding, would print NaN or a p value made of rounding.
    #[test]
    fn no_spread_is_no_width() {
        for value in [0.1, -0.3, 1e300, 5e-324] {
            for n in 2..10 {
                let test = paired_t(&vec![value; n], LEVEL).unwrap();
                assert_eq!(
                    (test.difference, test.interval.half_width(), test.p),
                    (value, 0.0, None)
                );
            }
        }
        assert_eq!(paired_t(&[0.0, -0.0, 0.0], LEVEL).unwrap().p, None);
        // The same difference of accuracies, rounded differently.
        let rounded = [0.95 - 0.9, 0.85 - 0.8, 0.3 - 0.25];
        assert_ne!(rounded[0], rounded[2]);
        let test = paired_t(&rounded, LEVEL).unwrap();
        assert_eq!((test.interval.half_width(), test.p), (0.0, None));
    }

    /// Else a diverged arm would print NaN beside the arms it is compared with.
    #[test]
    fn nothing_overflows_to_nan() {
        assert_eq!(mean(&[f64::MAX, f64::MAX / 2.0]), Some(f64::MAX * 0.75));
        let huge = t_interval(&[1e200, 3e200, 2e200], LEVEL).unwrap();
        assert!((huge.half_width() / 1e200 - 2.484_137_711_7).abs() < 1e-9);
        let tiny = t_interval(&[1e-200, 3e-200, 2e-200], LEVEL).unwrap();
        assert!((tiny.half_width() / 1e-200 - 2.484_137_711_7).abs() < 1e-9);
        assert_eq!(t_interval(&[f64::MAX, -f64::MAX], LEVEL), None);
    }
}

//! p values of counts and of several comparisons, and the least that few pairs can give.

use statrs::distribution::{Binomial, DiscreteCDF};

/// McNemar's exact test: how likely two models differ so much on the same questions by chance.
///
/// Given are the questions that only the first and only the second model answers rightly. Two-sided p value, twice
/// the smaller binomial tail at ½, at most 1; 1 where no question tells them apart. McNemar (1947),
/// doi:10.1007/BF02295996.
pub fn mcnemar_exact(only_first_right: u64, only_second_right: u64) -> f64 {
    let fewer = only_first_right.min(only_second_right);
    let count = only_first_right.saturating_add(only_second_right);
    // ½ is a probability; one that were none would tell nothing apart.
    Binomial::new(0.5, count).map_or(1.0, |binomial| (2.0 * binomial.cdf(fewer)).min(1.0))
}

/// p values adjusted for how many there are (Holm's step-down method), in the order given.
///
/// Declaring significant what stays below α errs with a chance of at most α over all comparisons together. The
/// i-th smallest of m becomes the largest of `(m − j + 1) · p₍ⱼ₎` over `j ≤ i`, at most 1. A p value that is NaN
/// counts as 1: a comparison that could not be tested makes the others no more significant. Holm (1979).
pub fn holm(p: &[f64]) -> Vec<f64> {
    let known = |p: f64| if p.is_nan() { 1.0 } else { p.clamp(0.0, 1.0) };
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| known(p[a]).total_cmp(&known(p[b])));
    let mut adjusted = vec![1.0; p.len()];
    let mut largest = 0.0_f64;
    for (smaller, &place) in order.iter().enumerate() {
        largest = largest
            .max((p.len() - smaller) as f64 * known(p[place]))
            .min(1.0);
        adjusted[place] = largest;
    }
    adjusted
}

/// The least two-sided p value that a sign test can give with so many pairs: `2¹⁻ⁿ`, all of one sign.
///
/// It is above 0.05 up to five pairs: with five seeds or fewer no sign test is significant at 5 %.
pub fn smallest_sign_test_p(pairs: usize) -> f64 {
    let halvings = i32::try_from(pairs).unwrap_or(i32::MAX);
    (2.0 * 0.5_f64.powi(halvings)).min(1.0)
}

/// The least two-sided p value that a Wilcoxon signed-rank test can give with so many pairs.
///
/// The same as a sign test's: of the `2ⁿ` ways to give the ranks signs, one has the most extreme sum on each side.
pub fn smallest_rank_test_p(pairs: usize) -> f64 {
    smallest_sign_test_p(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a comparison that could not be tested would print NaN, or make the others look significant.
    #[test]
    fn what_is_no_p_value_counts_as_one() {
        assert_eq!(holm(&[]), [0.0; 0]);
        assert_eq!(holm(&[f64::NAN]), [1.0]);
        assert_eq!(holm(&[0.01, f64::NAN, 0.02]), [0.03, 1.0, 0.04]);
        assert_eq!(holm(&[-1.0, 2.0]), [0.0, 1.0]);
    }

    /// Else two models that no question tells apart would get a p value of NaN.
    #[test]
    fn no_difference_is_not_significant() {
        assert_eq!(mcnemar_exact(0, 0), 1.0);
        for (first, second) in [(7, 7), (0, 1), (500, 501)] {
            let p = mcnemar_exact(first, second);
            assert!(p <= 1.0 && p > 1.0 - 1e-12, "{p}");
        }
        assert!(mcnemar_exact(0, u64::MAX) < 1e-300);
        assert_eq!(
            (smallest_sign_test_p(0), smallest_rank_test_p(0)),
            (1.0, 1.0)
        );
        assert_eq!(smallest_sign_test_p(usize::MAX), 0.0);
    }
}

//! How two numbers go together.

use super::mean;

/// Pearson's correlation of pairs: their covariance over the product of their standard deviations. `None` below three
/// pairs, if a value is not finite, or where one of the two does not vary.
pub fn pearson(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 3 {
        return None;
    }
    let centred = |values: Vec<f64>| -> Option<Vec<f64>> {
        let mean = mean(&values)?;
        let far = values
            .iter()
            .fold(0.0_f64, |far, v| far.max((v - mean).abs()));
        // At a scale where no square overflows or vanishes.
        let varies = far > 1e-12 * mean.abs() && far.is_finite();
        varies.then(|| values.iter().map(|v| (v - mean) / far).collect())
    };
    let xs = centred(pairs.iter().map(|pair| pair.0).collect())?;
    let ys = centred(pairs.iter().map(|pair| pair.1).collect())?;
    let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let r = sum(&xs, &ys) / (sum(&xs, &xs).sqrt() * sum(&ys, &ys).sqrt());
    Some(r.clamp(-1.0, 1.0))
}

/// Spearman's rank correlation of pairs: Pearson's of their ranks, equal values having the mean of theirs. `None` as
/// for [`pearson`].
pub fn spearman(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.iter().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
        return None;
    }
    let xs = ranks(pairs.iter().map(|pair| pair.0).collect());
    let ys = ranks(pairs.iter().map(|pair| pair.1).collect());
    pearson(&xs.into_iter().zip(ys).collect::<Vec<_>>())
}

/// Ranks from 1; equal values have the mean of theirs.
fn ranks(values: Vec<f64>) -> Vec<f64> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count();
        let equal = values.iter().filter(|other| *other == value).count();
        below as f64 + (equal as f64 + 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A predictor of forgetting that another program would not find from the same numbers is none.
    #[test]
    fn correlations_are_those_of_scipy() {
        let xs = [0.3, 1.1, 2.2, 2.2, 4.0, 0.9];
        let ys = [0.05, 0.2, 0.15, 0.9, 2.5, 0.15];
        let pairs: Vec<(f64, f64)> = xs.into_iter().zip(ys).collect();
        // scipy.stats.pearsonr and spearmanr.
        assert!((pearson(&pairs).unwrap() - 0.8956207820654187).abs() < 1e-14);
        assert!((spearman(&pairs).unwrap() - 0.8382352941176471).abs() < 1e-14);
        let huge: Vec<(f64, f64)> = pairs.iter().map(|(x, y)| (x * 1e300, y * 1e-300)).collect();
        assert!((pearson(&huge).unwrap() - 0.8956207820654187).abs() < 1e-12);
        for none in [
            &pairs[..2],
            &[(1.0, 2.0), (1.0, 3.0), (1.0, 4.0)],
            &[(f64::NAN, 1.0); 3],
        ] {
            assert_eq!((pearson(none), spearman(none)), (None, None));
        }
    }
}

//! The same numbers by scipy, statsmodels and numpy (`tests/fixtures/statistics/make.py`).

use serde::Deserialize;
use statrs::distribution::{Continuous, ContinuousCDF, Normal};

use super::*;

#[derive(Deserialize)]
struct Fixture {
    t: Vec<T>,
    paired_t: Vec<Paired>,
    quantile: Vec<Quantile>,
    bootstrap: Vec<Resampled>,
    two_level: Vec<TwoLevel>,
    enumerated: Vec<TwoLevel>,
    mcnemar: Vec<McNemar>,
    holm: Vec<Holm>,
    smallest: Vec<Smallest>,
}

#[derive(Deserialize)]
struct T {
    values: Vec<f64>,
    level: f64,
    mean: f64,
    low: f64,
    high: f64,
    p: f64,
}

#[derive(Deserialize)]
struct Paired {
    a: Vec<f64>,
    b: Vec<f64>,
    difference: f64,
    low: f64,
    high: f64,
    p: f64,
}

#[derive(Deserialize)]
struct Quantile {
    sorted: Vec<f64>,
    shares: Vec<f64>,
    quantiles: Vec<f64>,
}

#[derive(Deserialize)]
struct Resampled {
    differences: Vec<f64>,
    weights: Option<Vec<f64>>,
    level: f64,
    resamples: usize,
    step: f64,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct TwoLevel {
    differences: Vec<Vec<f64>>,
    weights: Option<Vec<f64>>,
    level: f64,
    #[serde(default)]
    resamples: usize,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct McNemar {
    first: u64,
    second: u64,
    p: f64,
}

#[derive(Deserialize)]
struct Holm {
    p: Vec<f64>,
    adjusted: Vec<f64>,
}

#[derive(Deserialize)]
struct Smallest {
    pairs: usize,
    sign: f64,
    rank: f64,
}

fn fixture() -> Fixture {
    let text = include_str!("../../../../tests/fixtures/statistics/statistics.json");
    serde_json::from_str(text).unwrap()
}

#[track_caller]
fn near(ours: f64, theirs: f64, tolerance: f64) {
    assert!(
        (ours - theirs).abs() <= tolerance,
        "{ours} {theirs} ± {tolerance}"
    );
}

/// Near as a share of the figure, however small it is.
#[track_caller]
fn near_share(ours: f64, theirs: f64, share: f64) {
    near(ours, theirs, share * theirs);
}

/// Else the intervals over seeds in tables and figures would be wrong.
#[test]
fn t_intervals_are_scipys() {
    for case in fixture().t {
        let half = 0.5 * case.high - 0.5 * case.low;
        let largest = case.values.iter().fold(0.0_f64, |l, v| l.max(v.abs()));
        // Of values much larger than their spread, rounding is larger than 10⁻¹⁰ of the interval.
        let rounding = 1e-15 * largest;
        let tolerance = 1e-10 * half + rounding;
        near(mean(&case.values).unwrap(), case.mean, tolerance);
        let test = paired_t(&case.values, case.level).unwrap();
        assert_eq!(t_interval(&case.values, case.level), Some(test.interval));
        near(test.difference, case.mean, tolerance);
        near(test.interval.low, case.low, tolerance);
        near(test.interval.high, case.high, tolerance);
        near(test.interval.half_width(), half, tolerance);
        near_share(test.p.unwrap(), case.p, 1e-9 + 100.0 * rounding / half);
    }
}

/// Else one arm would be told from another where it is not.
#[test]
fn paired_t_tests_are_scipys() {
    for case in fixture().paired_t {
        let differences: Vec<f64> = case.a.iter().zip(&case.b).map(|(a, b)| a - b).collect();
        let test = paired_t(&differences, LEVEL).unwrap();
        near(test.difference, case.difference, 1e-12);
        near(test.interval.low, case.low, 1e-12);
        near(test.interval.high, case.high, 1e-12);
        let p = test.p.unwrap();
        near_share(p, case.p, 1e-9);
        assert!(test.interval.contains(0.0) == (p >= 0.05));
    }
}

/// Else the ends of every bootstrap interval would be off.
#[test]
fn quantiles_are_numpys() {
    for case in fixture().quantile {
        for (share, theirs) in case.shares.iter().zip(case.quantiles) {
            near(bootstrap::quantile(&case.sorted, *share), theirs, 1e-14);
        }
    }
}

/// How far simulation alone moves an end of an interval: one standard deviation, as a share of its half-width,
/// where figures of resamples are about normal.
fn end_error(resamples: usize, level: f64) -> f64 {
    let normal = Normal::standard();
    let q = 0.5 * (1.0 + level);
    let z = normal.inverse_cdf(q);
    (q * (1.0 - q) / resamples as f64).sqrt() / normal.pdf(z) / z
}

/// Whether two simulations' intervals agree: ends within four standard deviations, or a step of figures that
/// have steps.
fn agree(ours: Interval, theirs: Interval, resamples: usize, level: f64, step: f64) -> bool {
    let ours_error = end_error(Bootstrap::default().resamples, level);
    let error = ours_error.hypot(end_error(resamples, level));
    let tolerance = (4.0 * error * theirs.half_width()).max(1.001 * step);
    let near = |ours: f64, theirs: f64| (ours - theirs).abs() <= tolerance;
    near(ours.low, theirs.low) && near(ours.high, theirs.high)
}

/// Else verdicts of a single seed, and the noise floor, would be wrong.
#[test]
fn bootstrap_intervals_are_scipys() {
    for case in fixture().bootstrap {
        let (low, high) = (case.low, case.high);
        let agrees = |differences: &[f64], level: f64| {
            let weights = case.weights.as_deref();
            let ours = Bootstrap::default().paired(differences, weights, level);
            let theirs = Interval { low, high };
            agree(ours.unwrap(), theirs, case.resamples, case.level, case.step)
        };
        assert!(agrees(&case.differences, case.level), "{low} {high}");
        // The tolerance is no wider than it must be: near misses are told.
        assert!(!agrees(&case.differences, 0.9) && !agrees(&case.differences, 0.98));
        let mean = mean(&case.differences).unwrap();
        let wider: Vec<f64> = case
            .differences
            .iter()
            .map(|d| mean + 1.12 * (d - mean))
            .collect();
        assert!(!agrees(&wider, case.level));
        if case.weights.is_some() {
            let unweighted = Bootstrap::default().paired(&case.differences, None, LEVEL);
            assert!(!agree(
                unweighted.unwrap(),
                Interval { low, high },
                case.resamples,
                LEVEL,
                0.0
            ));
        }
    }
}

fn both(case: &TwoLevel) -> Interval {
    let weights = case.weights.as_deref();
    let ours = Bootstrap::default().seeds_and_items(&case.differences, weights, case.level);
    ours.unwrap()
}

/// Else differences of questions over seeds would be given too little or too much spread.
#[test]
fn seeds_and_items_are_resampled_as_by_numpy() {
    for case in fixture().two_level {
        let theirs = Interval {
            low: case.low,
            high: case.high,
        };
        let agrees = |ours| agree(ours, theirs, case.resamples, case.level, 0.0);
        let ours = both(&case);
        assert!(agrees(ours), "{ours:?} {theirs:?}");
        // Items alone, each with its mean over the seeds, have less spread.
        let items = 0..case.differences[0].len();
        let means = items.map(|i| mean(&case.differences.iter().map(|d| d[i]).collect::<Vec<_>>()));
        let means: Vec<f64> = means.map(Option::unwrap).collect();
        let alone = Bootstrap::default().paired(&means, case.weights.as_deref(), LEVEL);
        assert!(!agrees(alone.unwrap()));
    }
}

/// Else an interval could be off by a constant that simulations hide.
#[test]
fn tiny_inputs_give_the_interval_of_all_resamples() {
    for case in fixture().enumerated {
        let ours = match &case.differences[..] {
            [only] => {
                let weights = case.weights.as_deref();
                let ours = Bootstrap::default().paired(only, weights, case.level);
                ours.unwrap()
            }
            _ => both(&case),
        };
        near(ours.low, case.low, 1e-12);
        near(ours.high, case.high, 1e-12);
    }
}

/// Else two models of one seed would be told apart, or not, by a wrong p value.
#[test]
fn mcnemar_is_statsmodels() {
    for case in fixture().mcnemar {
        near_share(mcnemar_exact(case.first, case.second), case.p, 1e-9);
        near_share(mcnemar_exact(case.second, case.first), case.p, 1e-9);
    }
}

/// Else one of many arms would be called different by chance.
#[test]
fn holm_is_statsmodels() {
    for case in fixture().holm {
        let ours = holm(&case.p);
        assert_eq!(ours.len(), case.adjusted.len());
        for (ours, theirs) in ours.iter().zip(case.adjusted) {
            near(*ours, theirs, 1e-15);
        }
    }
}

/// Else the lab would not say, or say wrongly, that so few seeds cannot be significant.
#[test]
fn least_p_values_are_scipys() {
    for case in fixture().smallest {
        near_share(smallest_sign_test_p(case.pairs), case.sign, 1e-12);
        near_share(smallest_rank_test_p(case.pairs), case.rank, 1e-12);
        assert_eq!(smallest_sign_test_p(case.pairs) > 0.05, case.pairs <= 5);
    }
}

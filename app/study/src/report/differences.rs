//! Differences of arms to a baseline, with intervals and tests.

use crate::run::{ArmState, Role, RunState, Score};
use crate::stats::{Interval, LEVEL, holm, mcnemar_exact, paired_t, smallest_sign_test_p};

use super::arms::ArmSeeds;
use super::measures::{Metric, since_trained};
use super::numbers::{in_metric, interval_of, p_value};
use super::sheet::Sheet;
use super::verdict::{Over, Rows, metrics_of, old_datasets};

/// The fewest seeds that a difference is tested over.
const LEAST_TESTED: usize = 3;

/// What is compared between two arms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Forgetting of an old dataset.
    Forgetting,
    /// Learning of the new dataset.
    Learning,
}

impl Quantity {
    /// Name in the CSVs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forgetting => "forgetting",
            Self::Learning => "learning",
        }
    }
}

/// Difference of an arm to the baseline on one dataset: the arm's value − the baseline's.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Name of the arm.
    pub arm: String,
    /// What is compared.
    pub quantity: Quantity,
    /// Dataset.
    pub dataset: String,
    /// Metric.
    pub metric: Metric,
    /// Seeds that both arms have.
    pub seeds: usize,
    /// Whether the dataset is judged by this metric; tables show no other.
    pub judged: bool,
    /// Mean difference.
    pub difference: f64,
    /// Its 95 % interval, and what that is over.
    pub interval: Option<(Interval, Over)>,
    /// Test that gave the p value; empty without one.
    pub test: &'static str,
    /// p value of no difference.
    pub p: Option<f64>,
    /// p value adjusted for the number of arms (Holm).
    pub p_holm: Option<f64>,
}

/// Start and end of a dataset in an arm, as far as what is compared needs them.
struct Pair<'a> {
    start: &'a Score,
    now: &'a Score,
}

impl Pair<'_> {
    fn loss(&self, metric: Metric) -> Option<f64> {
        Some(metric.loss(metric.of(self.start)?, metric.of(self.now)?))
    }

    /// Losses of the single rows.
    fn rows(&self, metric: Metric) -> Option<Rows> {
        Rows::between(
            metric,
            self.start.outcomes.as_ref()?,
            self.now.outcomes.as_ref()?,
        )
    }
}

fn pair<'a>(
    state: &RunState,
    arm: &'a ArmState,
    quantity: Quantity,
    dataset: &str,
) -> Option<Pair<'a>> {
    let (start, now) = match quantity {
        Quantity::Forgetting => since_trained(arm, &state.phases, dataset)?,
        Quantity::Learning => {
            let now = arm.evaluations.last()?;
            // An arm that never came to that phase has learned nothing in it.
            now.score(dataset).filter(|score| score.role == Role::New)?;
            (arm.start(&state.phases, dataset, now)?, now)
        }
    };
    Some(Pair {
        start: start.score(dataset)?,
        now: now.score(dataset)?,
    })
}

/// Differences of every arm to the baseline, for every old dataset's forgetting and the new one's learning. p values
/// are adjusted over the arms, for each dataset and metric apart.
pub fn differences(arms: &[ArmSeeds], baseline: &ArmSeeds) -> Vec<Difference> {
    let others: Vec<&ArmSeeds> = arms
        .iter()
        .filter(|arm| arm.name != baseline.name)
        .collect();
    let old = old_datasets(baseline)
        .into_iter()
        .map(|dataset| (Quantity::Forgetting, dataset));
    let new = baseline.counted().first().and_then(|(state, arm)| {
        let phase = state.phases.get(arm.phase)?;
        Some((Quantity::Learning, phase.dataset.as_str()))
    });
    let mut all = Vec::new();
    for (quantity, dataset) in old.chain(new) {
        let mut judged = None;
        for metric in metrics_of(baseline, dataset) {
            let of = others
                .iter()
                .filter_map(|arm| difference(arm, baseline, quantity, dataset, metric));
            let mut of: Vec<Difference> = of.collect();
            let tested: Vec<f64> = of.iter().filter_map(|d| d.p).collect();
            let adjusted = holm(&tested);
            let with_p = of.iter_mut().filter(|d| d.p.is_some());
            with_p.zip(adjusted).for_each(|(d, p)| d.p_holm = Some(p));
            if !of.is_empty() {
                let by = *judged.get_or_insert(metric);
                of.iter_mut().for_each(|d| d.judged = d.metric == by);
            }
            all.extend(of);
        }
    }
    all
}

fn difference(
    arm: &ArmSeeds,
    baseline: &ArmSeeds,
    quantity: Quantity,
    dataset: &str,
    metric: Metric,
) -> Option<Difference> {
    let baseline_seeds = baseline.counted();
    // By seed: what other seeds do is no answer to this arm's.
    let pairs: Vec<(Pair, Pair)> = arm
        .counted()
        .into_iter()
        .filter_map(|(state, own)| {
            let mut others = baseline_seeds.iter();
            let (other_state, other) =
                others.find(|(_, other)| other.info.seed == own.info.seed)?;
            Some((
                pair(state, own, quantity, dataset)?,
                pair(other_state, other, quantity, dataset)?,
            ))
        })
        .collect();
    let sign = match quantity {
        Quantity::Forgetting => 1.0,
        Quantity::Learning => -1.0,
    };
    let values: Option<Vec<f64>> = pairs
        .iter()
        .map(|(own, other)| Some(sign * (own.loss(metric)? - other.loss(metric)?)))
        .collect();
    let values = values.filter(|values| !values.is_empty())?;
    let rows = row_differences(&pairs, metric, sign);
    let questions = pairs.iter().all(|(own, _)| own.now.choices.is_some());
    let mut result = Difference {
        arm: arm.name.clone(),
        quantity,
        dataset: dataset.to_owned(),
        metric,
        seeds: values.len(),
        judged: false,
        difference: values.iter().sum::<f64>() / values.len() as f64,
        interval: None,
        test: "",
        p: None,
        p_holm: None,
    };
    match paired_t(&values, LEVEL) {
        Some(t) => {
            if values.len() >= LEAST_TESTED && t.p.is_some() {
                (result.test, result.p) = ("paired t over seeds", t.p);
            }
            let spread = Some((t.interval, Over::Seeds)).filter(|_| t.interval.half_width() > 0.0);
            let joint = rows
                .filter(|_| questions || spread.is_none())
                .and_then(|rows| Rows::over_seeds(&rows.iter().collect::<Vec<_>>()));
            result.interval = match questions {
                true => joint
                    .map(|interval| (interval, Over::SeedsAndRows))
                    .or(spread),
                false => spread.or(joint.map(|interval| (interval, Over::SeedsAndRows))),
            };
        }
        None => {
            let only = rows.and_then(|mut rows| rows.pop());
            if let Some(rows) = only {
                if metric == Metric::Accuracy && rows.weights.is_none() {
                    let (own, other) = pairs.first()?;
                    result.test = match own.start.outcomes == other.start.outcomes {
                        // Then which rows an arm lost is which it answers at the end.
                        true => "McNemar over rows",
                        false => "sign test over rows",
                    };
                    result.p = Some(sign_test(&rows));
                }
                result.interval = rows.interval(LEVEL).map(|interval| (interval, Over::Rows));
            }
        }
    }
    Some(result)
}

/// Differences of what two arms lost on each row, a seed each.
fn row_differences(pairs: &[(Pair, Pair)], metric: Metric, sign: f64) -> Option<Vec<Rows>> {
    let rows = pairs.iter().map(|(own, other)| {
        let (own, other) = (own.rows(metric)?, other.rows(metric)?);
        let same = own.weights == other.weights && own.losses.len() == other.losses.len();
        let losses = own.losses.iter().zip(&other.losses);
        same.then(|| Rows {
            losses: losses.map(|(a, b)| sign * (a - b)).collect(),
            weights: own.weights,
        })
    });
    rows.collect()
}

/// The exact sign test of which rows one arm lost and the other kept; McNemar's where both started from the same
/// answers.
fn sign_test(rows: &Rows) -> f64 {
    let more = rows.losses.iter().filter(|&&loss| loss > 0.0).count();
    let less = rows.losses.iter().filter(|&&loss| loss < 0.0).count();
    mcnemar_exact(more as u64, less as u64)
}

/// The differences as a table: one row an arm and dataset, in the metric by which it is judged.
pub fn differences_sheet(all: &[Difference], baseline: &str) -> Sheet {
    let shown: Vec<&Difference> = all.iter().filter(|d| d.judged).collect();
    let unit = |metric: Metric| match metric {
        Metric::Accuracy => "points of accuracy (%)",
        Metric::Ntp => "nats a token",
        Metric::Error => "RMSE",
    };
    let mut units: Vec<&str> = shown.iter().map(|d| unit(d.metric)).collect();
    units.sort_unstable();
    units.dedup();
    let mixed = units.len() > 1;
    let title = format!("difference to {baseline}, {}", units.join(" or "));
    let mut sheet = Sheet::new(
        title,
        &["arm", "of", "difference", "95 % interval", "p (Holm)"],
    );
    let mut seeds = 0;
    for d in shown {
        seeds = seeds.max(d.seeds);
        let nats = if mixed && d.metric == Metric::Ntp {
            ", nats"
        } else {
            ""
        };
        let quantity = match d.quantity {
            Quantity::Forgetting => "forgot",
            Quantity::Learning => "learned",
        };
        sheet.rows.push(vec![
            d.arm.clone(),
            format!("{quantity} {}{nats}", d.dataset),
            in_metric(d.metric, d.difference),
            d.interval
                .map_or_else(String::new, |(interval, _)| interval_of(d.metric, interval)),
            d.p_holm.map_or_else(String::new, p_value),
        ]);
    }
    if all.iter().any(|d| d.test.starts_with("paired")) {
        sheet.notes.push(format!(
            "Paired t tests over the seeds that both arms have (at most {seeds}); p values are adjusted for the number \
             of arms (Holm), intervals are not."
        ));
    }
    if all.iter().any(|d| d.test.ends_with("over rows")) {
        sheet.notes.push(
            "1 seed: exact sign tests over the held-out rows (McNemar's where both arms started from the same \
             answers), Holm over the arms; they say nothing about other seeds."
                .to_owned(),
        );
    }
    if seeds == 2 {
        sheet
            .notes
            .push("2 seeds: no test; their differences are what there is.".to_owned());
    }
    if (2..=5).contains(&seeds) {
        sheet.notes.push(format!(
            "With {seeds} seeds no sign or rank test can be significant: its smallest two-sided p is {}.",
            smallest_sign_test_p(seeds)
        ));
    }
    sheet
}

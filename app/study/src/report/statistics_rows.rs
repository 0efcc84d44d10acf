//! The rows of `verdicts.csv` and `differences.csv`: arms over their seeds, with intervals and tests.

use std::io::{self, Write};

use super::arms::ArmSeeds;
use super::differences::Difference;
use super::measures::Metric;
use super::rows::{identity, number, optional};
use super::verdict::{Margins, forgetting, old_datasets};

const VERDICTS: [&str; 23] = [
    "experiment",
    "arm",
    "strategy",
    "objective",
    "coeff",
    "lr",
    "seeds",
    "dataset",
    "metric",
    "start",
    "now",
    "forgetting",
    "forgetting_low",
    "forgetting_high",
    "interval_over",
    "floor",
    "worst_loss",
    "worst_step",
    "evaluations",
    "worst_floor",
    "worst_decides",
    "margin",
    "verdict",
];

/// Writes `verdicts.csv`: one row per (arm, old dataset, metric), over the seeds of the arm.
pub fn verdicts_csv(arms: &[ArmSeeds], margins: Margins, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(VERDICTS)?;
    for arm in arms {
        for dataset in old_datasets(arm) {
            for metric in Metric::ALL {
                let Some(of) = forgetting(arm, dataset, metric, margins) else {
                    continue;
                };
                let (interval, over) = of.interval.unzip();
                let worst = of.worst;
                let count = |count: u64| count.to_string();
                csv.write_record(arm_over_seeds(arm, of.seeds).into_iter().chain([
                    dataset.to_owned(),
                    metric.name().to_owned(),
                    number(of.start),
                    number(of.now),
                    number(of.mean),
                    optional(interval.map(|i| i.low)),
                    optional(interval.map(|i| i.high)),
                    over.map_or("", |over| over.name()).to_owned(),
                    optional(of.floor),
                    optional(worst.map(|worst| worst.loss)),
                    worst.map_or_else(String::new, |worst| count(worst.step)),
                    worst.map_or_else(String::new, |worst| count(worst.evaluations as u64)),
                    optional(worst.and_then(|worst| worst.floor)),
                    worst.map_or_else(String::new, |worst| worst.decides.to_string()),
                    number(margins.of(metric)),
                    of.verdict.word().to_owned(),
                ]))?;
            }
        }
    }
    csv.flush()
}

const DIFFERENCES: [&str; 14] = [
    "arm",
    "baseline",
    "quantity",
    "dataset",
    "metric",
    "seeds",
    "difference",
    "difference_low",
    "difference_high",
    "interval_over",
    "test",
    "p",
    "p_holm",
    "arms_tested",
];

/// Writes `differences.csv`: one row per (arm, dataset, metric), each against the baseline.
pub fn differences_csv(all: &[Difference], baseline: &str, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(DIFFERENCES)?;
    for of in all {
        let (interval, over) = of.interval.unzip();
        let like = |other: &&Difference| {
            other.p.is_some()
                && (other.quantity, &other.dataset, other.metric)
                    == (of.quantity, &of.dataset, of.metric)
        };
        csv.write_record([
            of.arm.clone(),
            baseline.to_owned(),
            of.quantity.name().to_owned(),
            of.dataset.clone(),
            of.metric.name().to_owned(),
            of.seeds.to_string(),
            number(of.difference),
            optional(interval.map(|i| i.low)),
            optional(interval.map(|i| i.high)),
            over.map_or("", |over| over.name()).to_owned(),
            of.test.to_owned(),
            optional(of.p),
            optional(of.p_holm),
            all.iter().filter(like).count().to_string(),
        ])?;
    }
    csv.flush()
}

/// Identity of an arm over its seeds; in place of the seed, how many there are.
fn arm_over_seeds(arm: &ArmSeeds, seeds: usize) -> [String; 7] {
    let mut row = match arm.seeds.first() {
        Some((state, own)) => identity(state, &own.info),
        None => Default::default(),
    };
    row[1].clone_from(&arm.name);
    row[6] = seeds.to_string();
    row
}

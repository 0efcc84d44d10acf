//! What the tables of a comparison tell, for scripts: numbers that are not rounded, under the names of the CSVs' columns.

use serde_json::{Map, Value, json};

use crate::run::Cost;
use crate::stats::{LEVEL, mean, t_interval};

use super::arms::ArmSeeds;
use super::differences::Difference;
use super::measures::Metric;
use super::rows::status;
use super::table::Comparison;
use super::verdict::{Judgement, Margins, Verdict, forgetting, learning, old_datasets};

/// An object for each arm over its seeds; null is what does not apply or is not known.
pub fn comparison_json(
    comparison: &Comparison,
    differences: &[Difference],
    baseline: &str,
) -> Vec<Value> {
    let arms = comparison.arms.iter().zip(&comparison.judgements);
    arms.map(|(arm, judgement)| {
        let own = differences.iter().filter(|of| of.arm == arm.name);
        let first = arm.seeds.first().map(|(_, own)| &own.info);
        let seeds = arm.seeds.iter().map(|(_, own)| own.info.seed);
        let mut statuses: Vec<&str> = Vec::new();
        for (state, own) in &arm.seeds {
            let word = status(state, own);
            if !statuses.contains(&word) {
                statuses.push(word);
            }
        }
        json!({
            "arm": arm.name,
            "strategy": first.map(|info| &info.strategy),
            "objective": first.map(|info| &info.objective).filter(|name| !name.is_empty()),
            "coeff": first.and_then(|info| info.coeff),
            "lr": first.map(|info| info.lr),
            "seeds": seeds.collect::<Vec<_>>(),
            "status": statuses.join(", "),
            "verdict": word(judgement.verdict),
            "by": by(judgement),
            "learned": learned(arm),
            "forgetting": forgotten(arm, comparison.margins),
            "final": final_scores(comparison, arm),
            "cost": cost(arm),
            "baseline": baseline,
            "differences": own.map(difference).collect::<Vec<_>>(),
        })
    })
    .collect()
}

fn word(verdict: Verdict) -> Option<&'static str> {
    (verdict != Verdict::TooEarly).then(|| verdict.word())
}

/// The dataset and the metric on which a verdict rests.
fn by(judgement: &Judgement) -> Value {
    let by = judgement.by.as_ref();
    by.map_or(
        Value::Null,
        |by| json!({ "dataset": by.dataset, "metric": by.metric.name() }),
    )
}

/// What was learned of the data of the last phase: a mean over the seeds, and its interval.
fn learned(arm: &ArmSeeds) -> Value {
    let (metric, values) = learning(arm);
    let interval = t_interval(&values, LEVEL);
    let counted = arm.counted();
    let dataset = counted.first().and_then(|(state, own)| {
        let phase = state.phases.get(own.phase)?;
        Some(phase.dataset.as_str())
    });
    json!({
        "dataset": dataset,
        "metric": metric.name(),
        "learning": mean(&values),
        "learning_low": interval.map(|interval| interval.low),
        "learning_high": interval.map(|interval| interval.high),
    })
}

/// The rows of `verdicts.csv`.
fn forgotten(arm: &ArmSeeds, margins: Margins) -> Vec<Value> {
    let datasets = old_datasets(arm).into_iter();
    let all = datasets.flat_map(|dataset| {
        let of = move |metric| forgetting(arm, dataset, metric, margins);
        Metric::ALL.into_iter().filter_map(of)
    });
    all.map(|of| {
        let (interval, over) = of.interval.unzip();
        json!({
            "dataset": of.dataset,
            "metric": of.metric.name(),
            "start": of.start,
            "now": of.now,
            "forgetting": of.mean,
            "forgetting_low": interval.map(|interval| interval.low),
            "forgetting_high": interval.map(|interval| interval.high),
            "interval_over": over.map(|over| over.name()),
            "floor": of.floor,
            "worst_loss": of.worst.map(|worst| worst.loss),
            "worst_step": of.worst.map(|worst| worst.step),
            "margin": margins.of(of.metric),
            "verdict": word(of.verdict),
        })
    })
    .collect()
}

/// The last score of every dataset in every metric that it has: means over the seeds.
fn final_scores(comparison: &Comparison, arm: &ArmSeeds) -> Value {
    let mut scores = Map::new();
    for (_, state) in &comparison.runs {
        for dataset in state.datasets() {
            let mut own = Map::new();
            for metric in Metric::ALL {
                let counted = arm.counted().into_iter();
                let last: Vec<f64> = counted
                    .filter_map(|(_, seed)| {
                        let mut evaluations = seed.evaluations.iter().rev();
                        evaluations.find_map(|e| metric.of(e.score(dataset)?))
                    })
                    .collect();
                if let Some(mean) = mean(&last) {
                    own.insert(metric.name().to_owned(), json!(mean));
                }
            }
            if !own.is_empty() {
                scores.insert(dataset.to_owned(), Value::Object(own));
            }
        }
    }
    Value::Object(scores)
}

/// What a seed paid, on average.
fn cost(arm: &ArmSeeds) -> Value {
    let of = |value: &dyn Fn(Cost) -> Option<f64>| {
        let seeds = arm.counted().into_iter();
        let values: Option<Vec<f64>> = seeds.map(|(_, own)| value(own.cost())).collect();
        values.and_then(|values| mean(&values))
    };
    json!({
        "tokens_trained": of(&|cost| Some(cost.tokens_trained as f64)),
        "tokens_generated": of(&|cost| Some(cost.tokens_generated as f64)),
        "flops": of(&|cost| cost.flops()),
        "flops_eval": of(&|cost| Some(cost.flops_eval).filter(|flops| flops.is_finite())),
        "seconds": of(&|cost| Some(cost.seconds())),
    })
}

/// A row of `differences.csv`.
fn difference(of: &Difference) -> Value {
    let (interval, over) = of.interval.unzip();
    json!({
        "quantity": of.quantity.name(),
        "dataset": of.dataset,
        "metric": of.metric.name(),
        "difference": of.difference,
        "difference_low": interval.map(|interval| interval.low),
        "difference_high": interval.map(|interval| interval.high),
        "interval_over": over.map(|over| over.name()),
        "test": Some(of.test).filter(|test| !test.is_empty()),
        "p": of.p,
        "p_holm": of.p_holm,
    })
}

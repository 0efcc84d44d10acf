//! Limits that an arm must keep, for scripts: `forgot>0.05`.

use std::str::FromStr;

use crate::run::ArmStatus;
use crate::stats::{Interval, LEVEL, mean, t_interval};

use super::arms::ArmSeeds;
use super::numbers::in_metric;
use super::table::Comparison;
use super::verdict::{Verdict, forgetting_judged, learning, old_datasets};

/// A limit on an arm; the arm fails where it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    quantity: GateQuantity,
    /// Whether values above the limit fail; else those below.
    above: bool,
    limit: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GateQuantity {
    /// Forgetting of each old dataset.
    Forgot,
    /// Largest loss of each old dataset on the way.
    Worst,
    /// Learning of the new dataset.
    Learned,
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || {
            "write QUANTITY>X or QUANTITY<X, e.g. forgot>0.05; QUANTITY is forgot, worst or learned"
                .to_owned()
        };
        let at = text.find(['<', '>']).ok_or_else(shape)?;
        let (name, limit) = (text[..at].trim(), text[at + 1..].trim());
        let quantity = match name {
            "forgot" => GateQuantity::Forgot,
            "worst" => GateQuantity::Worst,
            "learned" => GateQuantity::Learned,
            _ => return Err(shape()),
        };
        let limit: f64 = limit.parse().map_err(|_| shape())?;
        let above = text[at..].starts_with('>');
        if !limit.is_finite() || above == (quantity == GateQuantity::Learned) {
            return Err(shape());
        }
        Ok(Self {
            quantity,
            above,
            limit,
        })
    }
}

/// Why arms fail limits, a sentence each. Of an interval the end that speaks against the arm counts; without an
/// interval the value itself does. Where a limit is on forgetting, an arm whose verdict is unclear, or that has no old
/// data yet, fails, too, unless `allow_unclear`.
pub fn failures(comparison: &Comparison, gates: &[Gate], allow_unclear: bool) -> Vec<String> {
    let mut failures = Vec::new();
    for gate in gates {
        for (arm, judgement) in comparison.arms.iter().zip(&comparison.judgements) {
            let name = &arm.name;
            let over = arm
                .seeds
                .iter()
                .filter(|(_, own)| own.status == ArmStatus::Finished)
                .count();
            if over < arm.seeds.len() {
                let failure = format!("{name}: {over} of {} seeds finished", arm.seeds.len());
                if !failures.contains(&failure) {
                    failures.push(failure);
                }
            }
            if gate.quantity == GateQuantity::Learned {
                failures.extend(learned(arm, gate));
                continue;
            }
            for dataset in old_datasets(arm) {
                let of = forgetting_judged(arm, dataset, comparison.margins);
                let Some(of) = of else { continue };
                let (value, what) = match gate.quantity {
                    GateQuantity::Worst => (
                        of.worst.map_or(of.mean, |worst| worst.loss),
                        "lost at worst",
                    ),
                    _ => (
                        of.interval.map_or(of.mean, |(interval, _)| interval.high),
                        "forgot up to",
                    ),
                };
                if value > gate.limit {
                    let [value, limit] = [value, gate.limit].map(|v| in_metric(of.metric, v));
                    failures.push(format!(
                        "{name} {what} {value} of {dataset}, more than {limit}"
                    ));
                }
            }
            let why = match judgement.verdict {
                Verdict::Unclear => "the verdict is unclear",
                Verdict::TooEarly => "no old data that was known has been measured",
                Verdict::Keeps | Verdict::Forgets => continue,
            };
            let failure = format!("{name}: {why} (--allow-unclear lets it pass)");
            if !allow_unclear && !failures.contains(&failure) {
                failures.push(failure);
            }
        }
    }
    failures
}

fn learned(arm: &ArmSeeds, gate: &Gate) -> Option<String> {
    let (metric, values) = learning(arm);
    let least = t_interval(&values, LEVEL)
        .map(|Interval { low, .. }| low)
        .or_else(|| mean(&values));
    let Some(least) = least else {
        return Some(format!("{}: nothing was learned yet", arm.name));
    };
    (least < gate.limit).then(|| {
        let [least, limit] = [least, gate.limit].map(|v| in_metric(metric, v));
        format!(
            "{} learned as little as {least}, less than {limit}",
            arm.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;

    /// A gate that lets a bad run pass, or fails a good one, is worse than none.
    #[test]
    fn limits_are_on_the_end_of_the_interval_that_speaks_against_the_arm() {
        let mut state = fixture::state();
        fixture::add_outcomes(&mut state);
        let comparison = Comparison::new(&[("a", &state)], None, |_| true);
        let fails = |gate: &str| failures(&comparison, &[gate.parse().unwrap()], false);
        // `none` lost 90 points, `bos-prompted` 2 ([0, 5]).
        assert_eq!(fails("forgot>0.06").len(), 1);
        assert_eq!(
            fails("forgot > 0.04").len(),
            2,
            "the mean is 0.02, the interval's end 0.05"
        );
        assert!(
            fails("forgot>0.04")[1].contains("bos-prompted:kl:10 forgot up to 5.0 of reversal")
        );
        assert_eq!(fails("forgot>0.96").len(), 0);
        assert_eq!(fails("worst>0.5").len(), 1);
        assert_eq!(fails("learned<0.92").len(), 1);
        for bad in [
            "forgot",
            "forgot>",
            "forgot<0.1",
            "learned>0.1",
            "lost>0.1",
            "forgot>nan",
        ] {
            assert!(bad.parse::<Gate>().is_err(), "{bad}");
        }
        // Without outcomes and with one seed nothing is clear.
        let state = fixture::state();
        let comparison = Comparison::new(&[("a", &state)], None, |_| true);
        let gate = ["forgot>1".parse().unwrap()];
        assert_eq!(failures(&comparison, &gate, false).len(), 2);
        assert_eq!(failures(&comparison, &gate, true).len(), 0);
        // Nor before there is old data; and it is said once.
        let mut early = fixture::state();
        early
            .arms
            .iter_mut()
            .for_each(|arm| arm.evaluations.truncate(2));
        let comparison = Comparison::new(&[("a", &early)], None, |_| true);
        let gates = ["forgot>1", "worst>1"].map(|gate| gate.parse().unwrap());
        assert_eq!(failures(&comparison, &gates, false).len(), 2);
    }
}

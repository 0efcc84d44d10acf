//! By what factor replay needs fewer steps than a low finetuning rate, where both forget as much.
//!
//! All arms are taken where the new data first has one loss. Between the arms of a way of replay, which differ in
//! their share or coefficient, steps and forgetting are interpolated by straight lines in their logarithms.

use crate::stats::{LEVEL, mean, t_interval};

use super::arms::ArmSeeds;
use super::equal_terms::steps_and_forgetting;
use super::numbers::nats;
use super::series::{Place, place};
use super::sheet::Sheet;

/// A way of replay with one seed: steps and forgetting of its arms, with what sets them apart.
struct Course {
    points: Vec<(f64, f64, String)>,
}

impl Course {
    /// Steps at an amount of forgetting, and the two arms it lies between; `None` beyond the ends.
    fn steps_at(&self, forgetting: f64) -> Option<(f64, [&str; 2])> {
        let mut points: Vec<_> = self.points.iter().filter(|(_, f, _)| *f > 0.0).collect();
        points.sort_by(|a, b| a.1.total_cmp(&b.1));
        let two = points
            .windows(2)
            .find(|two| two[0].1 <= forgetting && forgetting <= two[1].1)?;
        let [(steps, low, from), (other, high, to)] = [two[0], two[1]];
        let share = match high > low {
            true => (forgetting.ln() - low.ln()) / (high.ln() - low.ln()),
            false => 0.0,
        };
        let log = steps.ln() + share * (other.ln() - steps.ln());
        Some((log.exp(), [from, to]))
    }
}

/// The factors of every arm without replay against every way of replay that has several arms; `None` where there are
/// no such arms.
pub fn at_equal_forgetting(arms: &[ArmSeeds], level: f64) -> Option<Sheet> {
    let mut sheet = Sheet::new(
        format!(
            "at equal forgetting, when the new data first has {} nats",
            nats(level)
        ),
        &[
            "arm",
            "forgot",
            "steps",
            "replay",
            "between",
            "times faster",
        ],
    );
    let of = |arm: &ArmSeeds| Some(place(&arm.counted().first()?.1.info));
    let plain = arms
        .iter()
        .filter(|arm| of(arm).is_some_and(|p| p.is_plain));
    let plain: Vec<&ArmSeeds> = plain.collect();
    let mut ways: Vec<(String, Vec<&ArmSeeds>)> = Vec::new();
    for arm in arms {
        let Some(place) = of(arm).filter(|place| !place.is_plain) else {
            continue;
        };
        match ways.iter_mut().find(|(name, _)| *name == place.series) {
            Some((_, arms)) => arms.push(arm),
            None => ways.push((place.series, vec![arm])),
        }
    }
    for (name, arms) in &mut ways {
        // A share of 0 is plain finetuning at the rate.
        let zero = plain
            .iter()
            .find(|arm| of(arm).is_some_and(|plain| is_share_of_0(name, &plain)));
        arms.extend(zero);
    }
    ways.retain(|(_, arms)| arms.len() > 1);
    if plain.len() < 2 || ways.is_empty() {
        return None;
    }
    for arm in plain {
        for (name, way) in &ways {
            if way.iter().any(|other| std::ptr::eq(*other, arm)) {
                continue;
            }
            match row(arm, way, level) {
                Some(row) => sheet
                    .rows
                    .push([&row[..3], std::slice::from_ref(name), &row[3..]].concat()),
                None => sheet.notes.push(format!(
                    "{name} does not come to forget as {} does, in every seed.",
                    arm.name
                )),
            }
        }
    }
    sheet.notes.push(
        "Steps and forgetting of replay are interpolated between two of its arms, in logarithms; 95 % interval of the \
         factor over seeds (t, of its logarithm)."
            .into(),
    );
    Some(sheet)
}

/// Whether an arm without replay is one of `replace` with a share of 0, of a series.
fn is_share_of_0(series: &str, plain: &Place) -> bool {
    let others = plain.series.strip_prefix("none");
    let (_, after) = series.split_once(":replace").unwrap_or_default();
    others.is_some_and(|others| after == format!("{others}, {}", plain.label))
}

/// An arm without replay against a way of replay: forgetting, steps, the arms it lies between, the factor.
fn row(arm: &ArmSeeds, way: &[&ArmSeeds], level: f64) -> Option<Vec<String>> {
    let own = steps_and_forgetting(arm, level)?;
    let mut logs = Vec::new();
    let mut between = Vec::new();
    for &(seed, steps, forgetting) in &own {
        let points = way.iter().filter_map(|other| {
            let found = steps_and_forgetting(other, level)?;
            let (_, steps, forgetting) = found.into_iter().find(|point| point.0 == seed)?;
            let place = place(&other.counted().first()?.1.info);
            let label = if place.is_plain {
                "0".into()
            } else {
                place.label
            };
            Some((steps, forgetting, label))
        });
        let course = Course {
            points: points.collect(),
        };
        let (at, [from, to]) = course.steps_at(forgetting)?;
        logs.push((steps / at).ln());
        let words = format!("{from}, {to}");
        if !between.contains(&words) {
            between.push(words);
        }
    }
    let factor = mean(&logs)?.exp();
    let told = match t_interval(&logs, LEVEL) {
        Some(ends) => format!(
            "{factor:.1} [{:.1}, {:.1}]",
            ends.low.exp(),
            ends.high.exp()
        ),
        None => format!("{factor:.1}"),
    };
    let of = |value: fn(&(u64, f64, f64)) -> f64| mean(&own.iter().map(value).collect::<Vec<_>>());
    Some(vec![
        arm.name.clone(),
        nats(of(|point| point.2)?),
        format!("{:.0}", of(|point| point.1)?),
        between.join("; "),
        told,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A factor that is read off between two arms must be that of the lines between them, and none beyond them.
    #[test]
    fn steps_at_equal_forgetting_lie_between_two_arms() {
        let point = |steps, forgetting, label: &str| (steps, forgetting, label.to_owned());
        let course = Course {
            points: vec![
                point(100.0, 0.1, "1/4"),
                point(10.0, 1.0, "1/64"),
                point(50.0, -0.1, "1/2"),
            ],
        };
        let at = |forgetting| {
            course
                .steps_at(forgetting)
                .map(|(steps, arms)| (steps.round(), arms))
        };
        assert_eq!(at(0.1), Some((100.0, ["1/4", "1/64"])));
        // Half-way in the logarithm of both.
        assert_eq!(at(0.1_f64.sqrt()), Some((32.0, ["1/4", "1/64"])));
        assert_eq!(at(1.0), Some((10.0, ["1/4", "1/64"])));
        assert_eq!((at(1.1), at(0.05), at(-0.05)), (None, None, None));
    }

    /// A low rate that is taken for the beginning of another rate's replay would bend its line.
    #[test]
    fn a_share_of_0_is_plain_finetuning_with_the_same_settings() {
        let plain = |series: &str, label: &str| Place {
            series: series.into(),
            label: label.into(),
            is_plain: true,
        };
        let own = plain("none", "lr 3e-3");
        assert!(is_share_of_0("true-data:replace, lr 3e-3", &own));
        assert!(!is_share_of_0("true-data:replace, lr 1e-3", &own));
        assert!(!is_share_of_0("true-data:kl, lr 3e-3", &own));
    }
}

//! Whether finetuning gets below the frontier: the losses of models that were pretrained on mixtures of old and new
//! data.

use crate::experiment::shortest;
use crate::stats::mean;

use super::super::arms::ArmSeeds;
use super::super::equal_terms::{Point, course, loss_of, old_datasets_of, old_names};
use super::super::mean::Mean;
use super::super::measures::Metric;
use super::super::numbers::{nats, spread};
use super::super::sheet::Sheet;
use super::grid::{Grid, Place};

/// Mixtures and finetuned arms in the plane of the losses of new and old data.
pub(in crate::report) struct FrontierStudy {
    /// The experiment.
    pub(in crate::report) experiment: String,
    /// The old data.
    pub(in crate::report) old: String,
    /// The new data.
    pub(in crate::report) new: String,
    /// The mixtures, by their loss of the new data.
    pub(in crate::report) mixtures: Vec<Mixture>,
    /// The finetuned arms.
    pub(in crate::report) paths: Vec<Path>,
    /// Mixtures without a loss.
    pub(in crate::report) missing: Vec<String>,
}

/// A model pretrained on a mixture.
pub(in crate::report) struct Mixture {
    /// Its share of new data, as it is said.
    pub(in crate::report) label: String,
    /// Seeds with their losses of the new and the old data.
    seeds: Vec<(u64, f64, f64)>,
    /// The means of both.
    pub(in crate::report) at: (Mean, Mean),
}

/// A finetuned arm.
pub(in crate::report) struct Path {
    /// Its name.
    pub(in crate::report) name: String,
    /// Mean losses of the new and the old data over the seeds, from the start on.
    pub(in crate::report) course: Vec<(f64, f64)>,
    /// The means at the end.
    pub(in crate::report) end: (Mean, Mean),
    /// How far each seed ends above the frontier; `None` where one ends beyond it.
    above: Option<Vec<f64>>,
    /// The least that each seed was above it on its way; `None` where one was never beside it.
    least: Option<Vec<f64>>,
}

impl FrontierStudy {
    /// The study of a sweep; `None` unless one of its grids is the frontier, with two mixtures, and another has arms.
    pub(in crate::report) fn of(grids: &[Grid]) -> Option<Self> {
        let (frontier, others): (Vec<&Grid>, Vec<&Grid>) =
            grids.iter().partition(|grid| grid.is_frontier());
        let states = || {
            others
                .iter()
                .flat_map(|grid| &grid.places)
                .flat_map(|place| &place.runs)
        };
        let (_, first) = states().find(|(_, state)| state.phases.len() > 1)?;
        let (olds, new) = (
            old_datasets_of(first),
            first.phases.last()?.dataset.as_str(),
        );
        let (mut mixtures, mut missing) = (Vec::new(), Vec::new());
        for grid in frontier {
            for place in &grid.places {
                let label = label(grid, place);
                match Mixture::of(place, label.clone(), (&olds, new)) {
                    Some(mixture) => mixtures.push(mixture),
                    None => missing.push(label),
                }
            }
        }
        mixtures.sort_by(|a, b| a.at.0.value.total_cmp(&b.at.0.value));
        let mut paths = Vec::new();
        for grid in &others {
            for place in &grid.places {
                let several = grid.places.len() > 1;
                let named = |arm: &str| match (grid.name, several) {
                    ("", false) => arm.to_owned(),
                    (name, false) => format!("{name}: {arm}"),
                    _ => format!("{}: {arm}", label(grid, place)),
                };
                let arms = place.arms();
                paths.extend(
                    arms.iter()
                        .filter_map(|arm| Path::of(arm, named(&arm.name), &mixtures)),
                );
            }
        }
        (mixtures.len() > 1 && !paths.is_empty()).then(|| Self {
            experiment: first.experiment.clone(),
            old: old_names(first),
            new: new.to_owned(),
            mixtures,
            paths,
            missing,
        })
    }

    /// Its table.
    pub(in crate::report) fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(
            format!(
                "finetuned arms against the frontier of {} mixtures, at their ends",
                self.mixtures.len()
            ),
            &[
                "arm",
                "new loss",
                "old loss",
                "above it",
                "least above",
                "crosses",
            ],
        );
        for path in &self.paths {
            let told = |values: &Option<Vec<f64>>| match values {
                Some(values) => spread(Metric::Ntp, values),
                None => "beyond it".to_owned(),
            };
            let (new, old) = path.end;
            sheet.rows.push(vec![
                path.name.clone(),
                of_mean(&new),
                of_mean(&old),
                told(&path.above),
                told(&path.least),
                path.crosses().to_owned(),
            ]);
        }
        sheet.notes.push(format!(
            "Above it: loss of the old data ({}) minus that of the frontier at the same loss of the new ({}), which is \
             joined by straight lines; negative below it. Least above: over the evaluations after the start. Beyond \
             it: outside the losses of the mixtures. Crosses: least above is below 0, with its interval.",
            self.old, self.new
        ));
        if !self.missing.is_empty() {
            sheet.notes.push(format!(
                "Mixtures without a loss: {}.",
                self.missing.join(", ")
            ));
        }
        sheet
    }
}

impl Mixture {
    fn of(place: &Place, label: String, (olds, new): (&[&str], &str)) -> Option<Self> {
        let mut seeds: Vec<(u64, f64, f64)> = Vec::new();
        let arms = place.runs.iter().flat_map(|(_, state)| &state.arms);
        for arm in arms {
            let end = arm.evaluations.iter().rfind(|e| e.phase == 0);
            let losses = end.and_then(|end| Some((loss_of(end, &[new])?, loss_of(end, olds)?)));
            // The arms of a run have the first phase in common.
            let known = seeds.iter().any(|&(seed, ..)| seed == arm.info.seed);
            if let Some((new, old)) = losses.filter(|_| !known) {
                seeds.push((arm.info.seed, new, old));
            }
        }
        let mean =
            |of: fn(&(u64, f64, f64)) -> f64| Mean::of(&seeds.iter().map(of).collect::<Vec<_>>());
        Some(Self {
            label,
            at: (mean(|seed| seed.1)?, mean(|seed| seed.2)?),
            seeds,
        })
    }

    /// Its losses with a seed, else their means.
    fn with(&self, seed: Option<u64>) -> (f64, f64) {
        let own = self.seeds.iter().find(|own| Some(own.0) == seed);
        own.map_or((self.at.0.value, self.at.1.value), |own| (own.1, own.2))
    }
}

impl Path {
    fn of(arm: &ArmSeeds, name: String, mixtures: &[Mixture]) -> Option<Self> {
        let seeds = arm
            .counted()
            .into_iter()
            .map(|(state, own)| (own.info.seed, course(state, own)));
        let seeds: Vec<(u64, Vec<Point>)> = seeds.filter(|(_, course)| course.len() > 1).collect();
        let (_, first) = seeds.first()?;
        let common = |at: &Point| {
            let same = |course: &'_ Vec<Point>| course.iter().find(|p| p.step == at.step).copied();
            let all: Option<Vec<Point>> = seeds.iter().map(|(_, course)| same(course)).collect();
            let all = all?;
            let of = |value: fn(&Point) -> f64| mean(&all.iter().map(value).collect::<Vec<_>>());
            Some((of(|p| p.new)?, of(|p| p.old)?))
        };
        let ends: Vec<Point> = seeds
            .iter()
            .filter_map(|(_, course)| course.last().copied())
            .collect();
        let end = |value: fn(&Point) -> f64| Mean::of(&ends.iter().map(value).collect::<Vec<_>>());
        let (new, old) = (end(|p| p.new)?, end(|p| p.old)?);
        let mut course: Vec<(f64, f64)> = first.iter().filter_map(common).collect();
        if course.last() != Some(&(new.value, old.value)) {
            course.push((new.value, old.value));
        }
        let above = seeds.iter().map(|(seed, course)| {
            let last = course.last()?;
            above(&line(mixtures, *seed), (last.new, last.old))
        });
        let least = seeds.iter().map(|(seed, course)| {
            let line = line(mixtures, *seed);
            let beside = course[1..]
                .iter()
                .filter_map(|p| self::above(&line, (p.new, p.old)));
            beside.reduce(f64::min)
        });
        Some(Self {
            name,
            course,
            end: (new, old),
            above: above.collect(),
            least: least.collect(),
        })
    }

    /// Whether it comes to lie below the frontier, as far as its seeds tell.
    pub(in crate::report) fn crosses(&self) -> &'static str {
        let Some(least) = self.least.as_deref().and_then(Mean::of) else {
            return "";
        };
        let interval = least
            .interval
            .map_or([least.value; 2], |ends| [ends.low, ends.high]);
        match interval {
            [_, high] if high < 0.0 => "yes",
            [low, _] if low >= 0.0 => "no",
            _ => "unclear",
        }
    }
}

/// The frontier of a seed where all mixtures have it, else that of the means.
fn line(mixtures: &[Mixture], seed: u64) -> Vec<(f64, f64)> {
    let all = mixtures
        .iter()
        .all(|mixture| mixture.seeds.iter().any(|own| own.0 == seed));
    let seed = all.then_some(seed);
    let mut line: Vec<(f64, f64)> = mixtures.iter().map(|mixture| mixture.with(seed)).collect();
    line.sort_by(|a, b| a.0.total_cmp(&b.0));
    line
}

/// How far a place lies above a line of places with rising first numbers; `None` beyond its ends.
fn above(line: &[(f64, f64)], (new, old): (f64, f64)) -> Option<f64> {
    let two = line
        .windows(2)
        .find(|two| two[0].0 <= new && new <= two[1].0)?;
    let [(from, low), (to, high)] = [two[0], two[1]];
    let share = if to > from {
        (new - from) / (to - from)
    } else {
        0.0
    };
    Some(old - (low + share * (high - low)))
}

fn of_mean(mean: &Mean) -> String {
    let half = mean
        .interval
        .map(|ends| format!(" ±{}", nats(ends.half_width())));
    format!("{}{}", nats(mean.value), half.unwrap_or_default())
}

/// A place of a grid as it is said: a share as a fraction, where it is one.
fn label(grid: &Grid, place: &Place) -> String {
    let share = |at: f64| {
        let (parts, others) = (1.0 / at, 1.0 / (1.0 - at));
        let whole = |n: f64| (n - n.round()).abs() < 1e-6 * n && n < 1e5;
        match at {
            at if !(0.0 < at && at < 1.0) => shortest(at),
            _ if whole(parts) => format!("1/{}", parts.round()),
            _ if whole(others) => format!("{}/{}", others.round() - 1.0, others.round()),
            at => shortest(at),
        }
    };
    let of = |(axis, &at): (&super::grid::Axis, &f64)| match axis.is_numeric()
        && axis.key.ends_with("share")
    {
        true => share(at),
        false => axis.label(at),
    };
    let parts: Vec<String> = grid.axes.iter().zip(&place.at).map(of).collect();
    match (parts.is_empty(), place.runs.first()) {
        (true, Some((name, _))) => (*name).to_owned(),
        _ => parts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::grids;
    use super::super::made_up::{Made, place, point};
    use super::*;

    fn mixture(share: f64, new: f64, old: f64) -> super::super::SweepPoint {
        let made = Made {
            before: old,
            course: vec![(0, new, old, 0.0)],
            ..Made::default()
        };
        point(
            "frontier",
            vec![place("phases.en.mix.share", "share", share)],
            &[made],
        )
    }

    /// Else an arm would be said to beat the frontier that no mixture is compared with.
    #[test]
    fn distances_are_from_the_line_between_two_mixtures() {
        let path = |name: &str, ends: &[(f64, f64)]| {
            let course = ends.iter().enumerate();
            let course = course.map(|(i, &(new, old))| (10 * i as u64, new, old, 0.1));
            Made {
                name: name.into(),
                before: ends[0].1,
                course: course.collect(),
                ..Made::default()
            }
        };
        let arms = [
            // At 3.5 half way between the mixtures 3.0 and 4.0: 3.3 there.
            path("none", &[(5.0, 3.2), (4.5, 3.25), (3.5, 3.9)]),
            // On its way at 4.0, where the frontier has 3.2, it has 3.15.
            path("true-data:kl:1", &[(5.0, 3.2), (4.0, 3.15), (3.5, 3.35)]),
            path("true-data:kl:10", &[(5.0, 3.2), (2.5, 3.3)]),
        ];
        let points = [
            mixture(0.5, 3.0, 3.4),
            mixture(1.0 / 64.0, 5.0, 3.0),
            mixture(0.125, 4.0, 3.2),
            point("overtrained", Vec::new(), &arms),
        ];
        let study = FrontierStudy::of(&grids(&points)).expect("a study");
        let labels: Vec<&str> = study
            .mixtures
            .iter()
            .map(|mixture| mixture.label.as_str())
            .collect();
        assert_eq!(labels, ["1/2", "1/8", "1/64"]);
        let rows = study.sheet().rows;
        let expected = [
            [
                "overtrained: none",
                "3.500",
                "3.900",
                "0.600",
                "0.150",
                "no",
            ],
            [
                "overtrained: true-data:kl:1",
                "3.500",
                "3.350",
                "0.050",
                "-0.050",
                "yes",
            ],
            [
                "overtrained: true-data:kl:10",
                "2.500",
                "3.300",
                "beyond it",
                "beyond it",
                "",
            ],
        ];
        assert_eq!(rows, expected);
        assert!(FrontierStudy::of(&grids(&points[1..2])).is_none());
        assert!(FrontierStudy::of(&grids(&points[3..])).is_none());
    }
}

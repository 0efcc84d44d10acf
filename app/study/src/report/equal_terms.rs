//! Arms on equal terms: old loss where they have learned the same, and where they have paid the same.

use crate::experiment::DIGIT_TASKS;
use crate::run::{ArmState, Evaluation, PhaseInfo, Role, RunState, Score};
use crate::stats::mean;

use super::measures::Metric;
use super::numbers::{nats, spread};

use super::arms::{ArmSeeds, Seed};
use super::sheet::Sheet;

/// A point of an arm in its last phase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// Steps of the arm from the start of the run.
    pub(super) step: f64,
    flops: Option<f64>,
    /// Loss of the new data.
    pub(super) new: f64,
    /// Mean loss of the old data.
    pub(super) old: f64,
}

impl Point {
    /// The point a share of the way to another.
    fn towards(self, other: Self, share: f64) -> Self {
        let between = |a: f64, b: f64| a + share * (b - a);
        Self {
            step: between(self.step, other.step),
            flops: self.flops.zip(other.flops).map(|(a, b)| between(a, b)),
            new: between(self.new, other.new),
            old: between(self.old, other.old),
        }
    }
}

/// The evaluations of an arm in its last phase, with that before its first step.
pub(super) fn course(state: &RunState, arm: &ArmState) -> Vec<Point> {
    let last = state.phases.len().saturating_sub(1);
    let Some(new) = state.phases.get(last).map(|phase| phase.dataset.as_str()) else {
        return Vec::new();
    };
    let before = arm.evaluations.iter().rfind(|e| e.phase < last);
    let during = arm.evaluations.iter().filter(|e| e.phase == last);
    let olds = old_datasets_of(state);
    let point = |e: &Evaluation| {
        Some(Point {
            step: e.step as f64,
            flops: e.cost.flops_without_evaluation(),
            new: Metric::Ntp.of(e.score(new)?)?,
            old: loss_of(e, &olds)?,
        })
    };
    before.into_iter().chain(during).filter_map(point).collect()
}

/// The evaluations of an arm before its last phase: steps, and mean loss of the data that is old then.
pub(super) fn pretraining(state: &RunState, arm: &ArmState) -> Vec<(f64, f64)> {
    let olds = old_datasets_of(state);
    let last = state.phases.len().saturating_sub(1);
    let before = arm.evaluations.iter().filter(|e| e.phase < last);
    before
        .filter_map(|e| Some((e.step as f64, loss_of(e, &olds)?)))
        .collect()
}

/// Names of the datasets that are old in the last phase.
pub(super) fn old_datasets_of(state: &RunState) -> Vec<&str> {
    let last = state.phases.len().saturating_sub(1);
    let mut names = state.datasets();
    names.retain(|dataset| state.role(dataset, last) == Role::Old);
    names
}

/// Those of them that have a loss, in words; questions have none.
pub(super) fn old_names(state: &RunState) -> String {
    let mut names = old_datasets_of(state);
    names.retain(|name| {
        let mut lasts = state.arms.iter().filter_map(|arm| arm.evaluations.last());
        lasts.any(|last| loss_of(last, &[name]).is_some())
    });
    names.join(", ")
}

/// Mean loss of datasets at an evaluation.
pub(super) fn loss_of(evaluation: &Evaluation, datasets: &[&str]) -> Option<f64> {
    let is_of = |score: &&Score| datasets.contains(&score.dataset.as_str());
    let scores = evaluation.scores.iter().filter(is_of);
    let losses: Vec<f64> = scores.filter_map(|score| Metric::Ntp.of(score)).collect();
    mean(&losses)
}

/// Whether old and new data of a run are told by their losses: those of text are, digit tasks by their accuracy.
pub(super) fn is_told_by_losses(state: &RunState) -> bool {
    let is_digits = |phase: &PhaseInfo| DIGIT_TASKS.contains(&phase.dataset.as_str());
    state.phases.len() > 1 && !state.phases.iter().any(is_digits)
}

/// The level of new loss at which arms are compared: the highest of the arms' best new losses among those that made at
/// least half of the baseline's gain (a mean over seeds); of an arm, that of the seed that learned least.
pub fn level(arms: &[ArmSeeds], baseline: &ArmSeeds) -> Option<f64> {
    let of = |arm: &ArmSeeds| -> Option<(f64, f64)> {
        let courses: Vec<Vec<Point>> = arm
            .counted()
            .into_iter()
            .map(|(state, own)| course(state, own))
            .filter(|c| !c.is_empty())
            .collect();
        let start = mean(&courses.iter().map(|c| c[0].new).collect::<Vec<_>>())?;
        let least = |c: &Vec<Point>| c.iter().map(|p| p.new).fold(f64::INFINITY, f64::min);
        let bests: Vec<f64> = courses.iter().map(least).collect();
        // Of the seed that learned least, so that all of them reach it.
        let reached = bests.iter().copied().reduce(f64::max)?;
        Some((start - mean(&bests)?, reached))
    };
    let (gain, _) = of(baseline)?;
    let learned = arms
        .iter()
        .filter_map(of)
        .filter(|(own, _)| *own >= gain / 2.0);
    learned.map(|(_, best)| best).reduce(f64::max)
}

/// Where a course first reaches a level of new loss, on a straight line between two evaluations.
pub(super) fn at_loss(course: &[Point], level: f64) -> Option<Point> {
    if course.first()?.new <= level {
        return course.first().copied();
    }
    let crossing = course
        .windows(2)
        .find(|two| two[0].new > level && two[1].new <= level)?;
    let share = (crossing[0].new - level) / (crossing[0].new - crossing[1].new);
    Some(crossing[0].towards(crossing[1], share))
}

/// Steps of the last phase and mean loss of the old data where each seed's new loss first reaches a level; seeds that
/// never reach it have none.
pub(super) fn steps_and_loss(arm: &ArmSeeds, level: f64) -> Vec<(f64, f64)> {
    let seeds = arm.counted().into_iter().filter_map(|(state, own)| {
        let course = course(state, own);
        let (start, at) = (course.first()?.step, at_loss(&course, level)?);
        Some((at.step - start, at.old))
    });
    seeds.collect()
}

/// Mean loss of the old data before the last phase, of each seed.
pub(super) fn old_loss_before(arm: &ArmSeeds) -> Vec<f64> {
    let seeds = arm.counted().into_iter();
    seeds
        .filter_map(|(state, own)| Some(course(state, own).first()?.old))
        .collect()
}

/// Seed, steps and forgetting of the old data there; `None` where a seed never reaches the level.
pub(super) fn steps_and_forgetting(arm: &ArmSeeds, level: f64) -> Option<Vec<(u64, f64, f64)>> {
    let seeds = arm.counted().into_iter().map(|(state, own)| {
        let course = course(state, own);
        let (start, at) = (course.first()?, at_loss(&course, level)?);
        Some((own.info.seed, at.step - start.step, at.old - start.old))
    });
    seeds.collect()
}

/// Where a course has cost as much as given, on a straight line between two evaluations.
fn at_cost(course: &[Point], flops: f64) -> Option<Point> {
    // The last evaluation itself, however its sum is rounded.
    let last = course.last()?;
    if last.flops? <= flops * (1.0 + 1e-9) && last.flops? >= flops * (1.0 - 1e-9) {
        return Some(*last);
    }
    let crossing = course.windows(2).find_map(|two| {
        let (from, to) = (two[0].flops?, two[1].flops?);
        (from <= flops && flops < to).then(|| (two, (flops - from) / (to - from)))
    });
    crossing.map(|(two, share)| two[0].towards(two[1], share))
}

/// Old loss of every arm where its new loss first reaches a level.
pub fn at_equal_loss(arms: &[ArmSeeds], level: f64) -> Sheet {
    let mut sheet = Sheet::new(
        format!(
            "at equal new loss, {} nats: first crossing, linear between evaluations",
            nats(level)
        ),
        &["arm", "old loss", "step", "FLOPs"],
    );
    let (mut never, mut below) = (Vec::new(), Vec::new());
    for arm in arms {
        let already = |(state, own): Seed<'_>| {
            course(state, own)
                .first()
                .is_some_and(|start| start.new <= level)
        };
        if arm.counted().into_iter().any(already) {
            below.push(arm.name.as_str());
        }
        let points = points(arm, |course| at_loss(course, level));
        let seeds = arm.counted().len();
        match points.len() == seeds {
            true => sheet.rows.push(row(arm, &points, |p| p.old)),
            false => never.push(format!(
                "{} ({} of {} seeds reached it)",
                arm.name,
                points.len(),
                seeds
            )),
        }
    }
    if !below.is_empty() {
        let below = below.join(", ");
        sheet
            .notes
            .push(format!("At or below it before the phase: {below}."));
    }
    if !never.is_empty() {
        sheet
            .notes
            .push(format!("Not reached by {}.", never.join(", ")));
    }
    sheet
}

/// New and old loss of every arm where it has paid what the cheapest arm paid in all, evaluation apart; `None` where
/// FLOPs were not counted.
pub fn at_equal_compute(arms: &[ArmSeeds]) -> Option<Sheet> {
    let total = |(state, own): Seed<'_>| course(state, own).last()?.flops;
    let seeds = arms.iter().flat_map(ArmSeeds::counted);
    let totals: Option<Vec<f64>> = seeds.map(total).collect();
    let least = totals?.into_iter().reduce(f64::min)?;
    let mut sheet = Sheet::new(
        format!("at equal compute, {least:.2e} FLOPs since the start, evaluation apart"),
        &["arm", "new loss", "old loss", "step"],
    );
    for arm in arms {
        let points = points(arm, |course| at_cost(course, least));
        if points.len() == arm.counted().len() {
            let of = |value: fn(&Point) -> f64| points.iter().map(value).collect::<Vec<f64>>();
            let step = mean(&of(|p| p.step)).unwrap_or(0.0);
            let fields = [
                spread(Metric::Ntp, &of(|p| p.new)),
                spread(Metric::Ntp, &of(|p| p.old)),
                format!("{step:.0}"),
            ];
            sheet
                .rows
                .push([vec![arm.name.clone()], fields.into()].concat());
        } else {
            sheet
                .notes
                .push(format!("{} had paid more before its last phase.", arm.name));
        }
    }
    Some(sheet)
}

fn points(arm: &ArmSeeds, at: impl Fn(&[Point]) -> Option<Point>) -> Vec<Point> {
    arm.counted()
        .into_iter()
        .filter_map(|(state, own)| at(&course(state, own)))
        .collect()
}

fn row(arm: &ArmSeeds, points: &[Point], value: fn(&Point) -> f64) -> Vec<String> {
    let of = |value: fn(&Point) -> f64| points.iter().map(value).collect::<Vec<f64>>();
    let flops: Option<Vec<f64>> = points.iter().map(|p| p.flops).collect();
    let flops = flops.and_then(|flops| mean(&flops));
    vec![
        arm.name.clone(),
        spread(Metric::Ntp, &of(value)),
        mean(&of(|p| p.step)).map_or_else(String::new, |step| format!("{step:.0}")),
        flops.map_or_else(String::new, |flops| format!("{flops:.2e}")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: f64, new: f64, old: f64) -> Point {
        Point {
            step,
            flops: Some(step * 1e9),
            new,
            old,
        }
    }

    /// An arm that learned less would pass for one that forgets less.
    #[test]
    fn points_of_equal_loss_and_cost_lie_between_evaluations() {
        // Falls, rises again, falls below: the first crossing counts.
        let course = [
            point(0.0, 3.0, 1.0),
            point(10.0, 2.0, 1.2),
            point(20.0, 2.5, 1.4),
            point(30.0, 1.0, 2.0),
        ];
        assert_eq!(at_loss(&course, 2.25), Some(point(7.5, 2.25, 1.15)));
        assert_eq!(at_loss(&course, 2.0), Some(course[1]));
        assert_eq!(
            at_loss(&course, 1.5).map(|p| p.step),
            Some(20.0 + 10.0 * (1.0 / 1.5))
        );
        assert_eq!(at_loss(&course, 0.9), None);
        assert_eq!(at_loss(&course, 3.5), Some(course[0]));
        assert_eq!(
            at_cost(&course, 25e9).map(|p| (p.new, p.old)),
            Some((1.75, 1.7))
        );
        assert_eq!(at_cost(&course, 30e9), Some(course[3]));
        assert_eq!(at_cost(&course, 31e9), None);
    }
}

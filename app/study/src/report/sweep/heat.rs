//! How much of its pretraining a model has kept: the compute multiplier, over two axes of a sweep.

use super::super::arms::ArmSeeds;
use super::super::equal_terms::pretraining;
use super::super::numbers::{fixed, nats};
use super::super::sheet::Sheet;
use super::grid::{Axis, Grid};
use super::level::seen;
use crate::stats::{Interval, LEVEL, mean, t_interval};

/// Compute multipliers over two axes.
pub(in crate::report) struct HeatStudy {
    /// The experiment.
    pub(in crate::report) experiment: String,
    /// The axes: that which lies, that which stands.
    pub(in crate::report) axes: [Axis; 2],
    /// Places on each of them.
    pub(in crate::report) places: [Vec<f64>; 2],
    /// The new data.
    pub(in crate::report) new: String,
    /// The loss of the new data at which arms are compared.
    pub(in crate::report) level: f64,
    /// A map an arm.
    pub(in crate::report) maps: Vec<Map>,
}

/// The map of an arm.
pub(in crate::report) struct Map {
    /// The arm.
    pub(in crate::report) arm: String,
    /// Places with a multiplier of each seed.
    pub(in crate::report) cells: Vec<([f64; 2], Vec<f64>)>,
    /// Places without, and why.
    pub(in crate::report) missing: Vec<String>,
}

impl HeatStudy {
    /// The study of a grid; `None` unless it has two axes of numbers.
    pub(in crate::report) fn of(grid: &Grid, level: f64) -> Option<Self> {
        let axes = grid.numeric::<2>().filter(|_| !grid.is_frontier())?;
        let states = || grid.places.iter().flat_map(|place| &place.runs);
        let (_, first) = states().find(|(_, state)| state.phases.len() > 1)?;
        let maps: Vec<Map> = grid
            .arm_names()
            .into_iter()
            .map(|arm| Map::of(grid, axes, arm, level))
            .collect();
        let along = |axis: usize| {
            let mut places: Vec<f64> = grid.places.iter().map(|place| place.at[axis]).collect();
            places.sort_by(f64::total_cmp);
            places.dedup();
            places
        };
        let any = maps.iter().any(|map| !map.cells.is_empty());
        any.then(|| Self {
            experiment: first.experiment.clone(),
            axes: axes.clone(),
            places: [along(0), along(1)],
            new: first
                .phases
                .last()
                .map(|phase| phase.dataset.clone())
                .unwrap_or_default(),
            level,
            maps,
        })
    }

    /// Its tables, one an arm.
    pub(in crate::report) fn sheets(&self) -> Vec<Sheet> {
        self.maps.iter().map(|map| self.sheet(map)).collect()
    }

    fn sheet(&self, map: &Map) -> Sheet {
        let [across, upwards] = &self.axes;
        let mut sheet = Sheet::new(
            format!(
                "compute multiplier of {} when {} first has {} nats; columns: {}",
                map.arm,
                self.new,
                nats(self.level),
                across.name
            ),
            &[upwards.name.as_str()],
        );
        let [xs, ys] = &self.places;
        sheet.head.extend(xs.iter().map(|&x| across.label(x)));
        for &y in ys {
            let mut row = vec![upwards.label(y)];
            row.extend(xs.iter().map(|&x| {
                let cell = map.cells.iter().find(|(at, _)| *at == [x, y]);
                cell.map_or_else(String::new, |(_, values)| told(values))
            }));
            sheet.rows.push(row);
        }
        sheet.notes.push(
            "The share of its pretraining after which the model first had as low a loss of the old data as it has now, \
             linear between evaluations; 1 where it has lost nothing. Mean and 95 % interval over seeds."
                .into(),
        );
        if !map.missing.is_empty() {
            sheet
                .notes
                .push(format!("Without one: {}.", map.missing.join("; ")));
        }
        sheet
    }
}

impl Map {
    fn of(grid: &Grid, axes: &[Axis; 2], arm: String, level: f64) -> Self {
        let (mut cells, mut missing) = (Vec::new(), Vec::new());
        for place in &grid.places {
            let arms = place.arms();
            let own = arms.iter().find(|own| own.name == arm);
            let seeds = own.map_or(0, |own| own.counted().len());
            let values = own.map_or_else(Vec::new, |own| multipliers(own, level));
            if seeds > 0 && values.len() == seeds {
                cells.push(([place.at[0], place.at[1]], values));
                continue;
            }
            let at = axes.iter().zip(&place.at);
            let at: Vec<String> = at
                .map(|(axis, &at)| format!("{} {}", axis.name, axis.label(at)))
                .collect();
            let at = at.join(", ");
            missing.push(match seeds {
                0 => format!("{at} (nothing was measured)"),
                seeds => format!("{at} ({} of {seeds} seeds learned as much)", values.len()),
            });
        }
        Self {
            arm,
            cells,
            missing,
        }
    }
}

/// The multiplier of every seed that reaches a level.
fn multipliers(arm: &ArmSeeds, level: f64) -> Vec<f64> {
    let seen = seen(arm, level);
    let of = |(state, own): (_, &crate::run::ArmState)| {
        let now = seen.iter().find(|seen| seen.seed == own.info.seed)?.old;
        multiplier(&pretraining(state, own), now)
    };
    arm.counted().into_iter().filter_map(of).collect()
}

/// The share of a pretraining, given by steps and losses, after which its loss first was as low as one now; 1 where it
/// never was.
fn multiplier(course: &[(f64, f64)], now: f64) -> Option<f64> {
    let &(steps, _) = course.last().filter(|(steps, _)| *steps > 0.0)?;
    if course.first()?.1 <= now {
        return Some(0.0);
    }
    let crossing = course
        .windows(2)
        .find(|two| two[0].1 > now && two[1].1 <= now);
    Some(crossing.map_or(1.0, |two| {
        let share = (two[0].1 - now) / (two[0].1 - two[1].1);
        (two[0].0 + share * (two[1].0 - two[0].0)) / steps
    }))
}

/// A mean of shares with half the width of its interval.
fn told(values: &[f64]) -> String {
    let Some(mean) = mean(values) else {
        return String::new();
    };
    let half = t_interval(values, LEVEL).as_ref().map(Interval::half_width);
    let half = half.map_or_else(String::new, |half| format!(" ±{}", fixed(half, 2)));
    format!("{}{half}", fixed(mean, 2))
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{Made, place, point};
    use super::super::sweep_sheets;
    use super::*;

    /// Else a model that has lost half of its pretraining would be said to have kept most of it.
    #[test]
    fn the_multiplier_is_where_pretraining_first_was_as_low() {
        // Rises again after 20 steps: the first crossing counts.
        let course = [(0.0, 7.0), (20.0, 4.0), (40.0, 4.5), (100.0, 3.0)];
        for (now, expected) in [
            (3.0, 1.0),
            (2.9, 1.0),
            (3.75, 0.7),
            (4.0, 0.2),
            (5.5, 0.1),
            (7.5, 0.0),
        ] {
            let found = multiplier(&course, now).unwrap();
            assert!((found - expected).abs() < 1e-12, "{now}: {found}");
        }
        assert_eq!(multiplier(&[], 3.0), None);
        assert_eq!(multiplier(&[(0.0, 7.0)], 3.0), None);
    }

    /// Else a point that was never measured would look like one that has lost everything.
    #[test]
    fn maps_leave_out_what_is_missing_and_say_so() {
        let at = |d: f64, tokens: f64, end: f64| {
            let made = Made {
                pretraining: vec![(50, 4.0)],
                course: vec![(0, 6.0, 3.0, 0.0), (10, end, 3.5, 0.1)],
                ..Made::default()
            };
            let axes = vec![place("model.d_model", "D", d), place("t", "tokens", tokens)];
            point("", axes, &[made])
        };
        let mut points = [
            at(32.0, 10.0, 4.0),
            at(32.0, 20.0, 4.0),
            at(64.0, 10.0, 4.2),
            at(64.0, 20.0, 4.0),
        ];
        points[3].state.arms.clear();
        let sheets = sweep_sheets(&points, Some(4.0));
        assert_eq!(sheets[0].head, ["tokens", "32", "64"]);
        // 3.5 is half way from 4.0 at half of the pretraining to 3.0 at its end.
        assert_eq!(sheets[0].rows, [["10", "0.75", ""], ["20", "0.75", ""]]);
        let expected = "Without one: D 64, tokens 10 (0 of 1 seeds learned as much); \
                        D 64, tokens 20 (nothing was measured).";
        assert_eq!(sheets[0].notes[1], expected);
    }
}

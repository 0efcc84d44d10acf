//! Forgetting along one axis of a sweep, e.g. the size of the model: what every arm has where its new data first has
//! one loss.

use super::super::arms::ArmSeeds;
use super::super::equal_terms::old_loss_before;
use super::super::measures::Metric;
use super::super::numbers::{nats, spread};
use super::super::sheet::Sheet;
use super::grid::{Axis, Grid, Place};
use super::level::{Seen, seen};

/// What arms forget along an axis.
pub(in crate::report) struct AxisStudy {
    /// The experiment.
    pub(in crate::report) experiment: String,
    /// The axis.
    pub(in crate::report) axis: Axis,
    /// The new data, and the loss at which arms are compared.
    pub(in crate::report) new: String,
    /// That loss.
    pub(in crate::report) level: f64,
    /// Names of the arms.
    pub(in crate::report) arms: Vec<String>,
    /// Places in order.
    pub(in crate::report) rows: Vec<Row>,
    /// Places with nothing to tell.
    pub(in crate::report) missing: Vec<String>,
}

/// A place on the axis.
pub(in crate::report) struct Row {
    /// Where it lies.
    pub(in crate::report) at: f64,
    /// Old loss before the last phase, of each seed.
    pub(in crate::report) before: Vec<f64>,
    /// Its arms, in the order of [`AxisStudy::arms`].
    pub(in crate::report) cells: Vec<Option<Cell>>,
    /// The arm that reached the level with every seed and forgot least, among several.
    pub(in crate::report) best: Option<usize>,
}

/// An arm at a place.
pub(in crate::report) struct Cell {
    seeds: usize,
    reached: Vec<Seen>,
    /// Whether it replays nothing.
    pub(in crate::report) is_plain: bool,
}

impl Cell {
    /// An arm at a level of new loss.
    pub(super) fn of(arm: &ArmSeeds, level: f64) -> Self {
        let counted = arm.counted();
        Self {
            seeds: counted.len(),
            reached: seen(arm, level),
            is_plain: counted.iter().all(|(_, own)| own.info.objective.is_empty()),
        }
    }

    /// Its seeds, where all of them reached the level.
    pub(in crate::report) fn all(&self) -> Option<&[Seen]> {
        let all = self.seeds > 0 && self.reached.len() == self.seeds;
        all.then_some(self.reached.as_slice())
    }

    /// A number of each seed, where all of them reached the level.
    pub(in crate::report) fn each(&self, of: impl Fn(&Seen) -> f64) -> Option<Vec<f64>> {
        Some(self.all()?.iter().map(of).collect())
    }

    /// How many seeds reached it, in words.
    pub(super) fn remark(&self) -> String {
        format!("{} of {} seeds", self.reached.len(), self.seeds)
    }
}

impl AxisStudy {
    /// The study of a grid; `None` unless it has one axis of numbers, with two places or more, which are not those of
    /// another study.
    pub(in crate::report) fn of(grid: &Grid, level: f64) -> Option<Self> {
        let [axis] = grid
            .numeric::<1>()
            .filter(|_| !grid.is_of_rates() && !grid.is_frontier())?;
        let arms = grid.arm_names();
        let mut missing = Vec::new();
        let mut rows = Vec::new();
        for place in &grid.places {
            match Row::of(place, &arms, level) {
                Some(row) => rows.push(row),
                None => missing.push(format!("{} {}", axis.name, axis.label(place.at[0]))),
            }
        }
        let states = || grid.places.iter().flat_map(|place| &place.runs);
        let (_, first) = states().find(|(_, state)| state.phases.len() > 1)?;
        let any = rows.iter().flat_map(|row| row.cells.iter().flatten());
        let any = any.filter(|cell| cell.all().is_some()).count() > 0;
        (any && rows.len() > 1).then(|| Self {
            experiment: first.experiment.clone(),
            axis: axis.clone(),
            new: first
                .phases
                .last()
                .map(|phase| phase.dataset.clone())
                .unwrap_or_default(),
            level,
            arms,
            rows,
            missing,
        })
    }

    /// Arms that did not reach the level with every seed, and where.
    pub(in crate::report) fn never(&self) -> Vec<String> {
        let of = |i: usize, name: &String| {
            let short = |row: &&Row| {
                let cell = row.cells[i].as_ref();
                cell.is_some_and(|cell| cell.all().is_none())
            };
            let places = self.rows.iter().filter(short);
            let places: Vec<String> = places.map(|row| self.axis.label(row.at)).collect();
            (!places.is_empty()).then(|| format!("{name} at {}", places.join(", ")))
        };
        let arms = self.arms.iter().enumerate();
        arms.filter_map(|(i, name)| of(i, name)).collect()
    }

    /// Its table.
    pub(in crate::report) fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(
            format!(
                "forgetting when {} first has {} nats, by {}",
                self.new,
                nats(self.level),
                self.axis.name
            ),
            &[self.axis.name.as_str(), "before"],
        );
        sheet.head.extend(self.arms.iter().cloned());
        sheet
            .head
            .extend(["best".to_owned(), "its steps".to_owned()]);
        for row in &self.rows {
            let mut fields = vec![self.axis.label(row.at), spread(Metric::Ntp, &row.before)];
            fields.extend(row.cells.iter().map(|cell| match cell {
                None => String::new(),
                Some(cell) => match cell.each(Seen::forgot) {
                    Some(forgot) => spread(Metric::Ntp, &forgot),
                    None => cell.remark(),
                },
            }));
            let best = row.best.and_then(|i| Some((i, row.cells[i].as_ref()?)));
            let steps = best.and_then(|(_, cell)| cell.each(|seen| seen.steps));
            let steps = steps.and_then(|steps| crate::stats::mean(&steps));
            fields.push(best.map_or_else(String::new, |(i, _)| self.arms[i].clone()));
            fields.push(steps.map_or_else(String::new, |steps| format!("{steps:.0}")));
            sheet.rows.push(fields);
        }
        sheet.notes.push(
            "Loss of the old data after minus before, linear between evaluations; mean and 95 % interval over seeds. \
             Where not every seed reached the loss, how many did. Best: reached it with every seed and forgot least."
                .into(),
        );
        if !self.missing.is_empty() {
            sheet
                .notes
                .push(format!("Nothing to tell of {}.", self.missing.join(", ")));
        }
        sheet
    }
}

impl Row {
    fn of(place: &Place, names: &[String], level: f64) -> Option<Self> {
        let arms = place.arms();
        let longest = arms.iter().map(old_loss_before).max_by_key(Vec::len);
        let before = longest.filter(|before| !before.is_empty())?;
        let cell = |name: &String| {
            let arm = arms.iter().find(|arm| arm.name == *name)?;
            Some(Cell::of(arm, level)).filter(|cell| cell.seeds > 0)
        };
        let cells: Vec<Option<Cell>> = names.iter().map(cell).collect();
        let forgot = |cell: &Cell| crate::stats::mean(&cell.each(Seen::forgot)?);
        let all = cells.iter().enumerate();
        let able: Vec<(usize, f64)> = all
            .filter_map(|(i, cell)| Some((i, forgot(cell.as_ref()?)?)))
            .collect();
        let best = able
            .iter()
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|&(i, _)| i);
        Some(Self {
            at: place.at[0],
            before,
            best: best.filter(|_| able.len() > 1),
            cells,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{Made, place, point};
    use super::super::{grids, sweep_sheets};
    use super::*;

    /// An arm that never learned what the others did would pass for the one that forgets least.
    #[test]
    fn the_best_arm_has_learned_as_much_with_every_seed() {
        let made = |name: &str, seed, (new, old): (f64, f64)| Made {
            name: name.into(),
            seed,
            before: 3.0,
            course: vec![(0, 6.0, 3.0, 0.0), (100, new, old, 0.1)],
            ..Made::default()
        };
        let arms = |second: f64| {
            [
                // At 4.5 after 75 of 100 steps, and three quarters of what it forgets.
                made("none", 0, (4.0, 4.0)),
                made("none", 1, (4.0, 4.4)),
                made("true-data:kl:1", 0, (4.0, 3.4)),
                made("true-data:kl:1", 1, (second, 3.4)),
                made("true-data:kl:10", 0, (5.0, 3.0)),
                made("true-data:kl:10", 1, (5.0, 3.0)),
            ]
        };
        let at = |d: f64, second| point("", vec![place("model.d_model", "D", d)], &arms(second));
        let mut points = [at(64.0, 4.0), at(32.0, 5.5), at(128.0, 4.0)];
        points[2].state.arms.clear();
        let sheets = sweep_sheets(&points, Some(4.5));
        let [sheet, _drift] = &sheets[..] else {
            panic!("{sheets:?}")
        };
        let head = [
            "D",
            "before",
            "none",
            "true-data:kl:1",
            "true-data:kl:10",
            "best",
            "its steps",
        ];
        assert_eq!(sheet.head, head);
        // t of one degree of freedom is 12.706; the deviation of 0.75 and 1.05 over √2 is 0.15.
        let expected = [
            [
                "32",
                "3.000 ±0.000",
                "0.900 ±1.906",
                "1 of 2 seeds",
                "0 of 2 seeds",
                "",
                "",
            ],
            [
                "64",
                "3.000 ±0.000",
                "0.900 ±1.906",
                "0.300 ±0.000",
                "0 of 2 seeds",
                "true-data:kl:1",
                "75",
            ],
        ];
        assert_eq!(sheet.rows, expected);
        assert_eq!(sheet.notes[1], "Nothing to tell of D 128.");
        assert!(
            AxisStudy::of(&grids(&points)[0], 0.1).is_none(),
            "nobody reached it"
        );
        assert!(sweep_sheets(&[], None).is_empty());
    }
}

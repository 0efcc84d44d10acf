//! Old loss by finetuning rate, for models pretrained at several rates, where the new data first has one loss.

use super::super::equal_terms::old_loss_before;
use super::super::measures::Metric;
use super::super::numbers::{nats, spread};
use super::super::series::without_rate;
use super::super::sheet::Sheet;
use super::axis::Cell;
use super::grid::{Axis, Grid, Place, rate as rate_label};

/// What arms of several finetuning rates keep, by the rate of pretraining.
pub(in crate::report) struct RatesStudy {
    /// The experiment.
    pub(in crate::report) experiment: String,
    /// The axis of pretraining rates.
    pub(in crate::report) axis: Axis,
    /// The new data.
    pub(in crate::report) new: String,
    /// The loss of the new data at which arms are compared.
    pub(in crate::report) level: f64,
    /// Arms that differ in their rates alone.
    pub(in crate::report) series: Vec<Series>,
    /// Arms that did not reach the level with every seed.
    pub(in crate::report) never: Vec<String>,
}

/// Arms that differ in their rates alone.
pub(in crate::report) struct Series {
    /// What they have in common.
    pub(in crate::report) name: String,
    /// One curve a pretraining rate.
    pub(in crate::report) curves: Vec<Curve>,
}

/// The arms of a series at a pretraining rate.
pub(in crate::report) struct Curve {
    /// The pretraining rate.
    pub(in crate::report) at: f64,
    /// Old loss before the last phase, of each seed.
    pub(in crate::report) before: Vec<f64>,
    /// Finetuning rates, falling, and the old loss of each seed.
    pub(in crate::report) points: Vec<(f64, Vec<f64>)>,
}

impl RatesStudy {
    /// The study of a grid; `None` unless its one axis is a pretraining rate and arms differ in their finetuning rate.
    pub(in crate::report) fn of(grid: &Grid, level: f64) -> Option<Self> {
        let [axis] = grid.numeric::<1>().filter(|_| grid.is_of_rates())?;
        let states = || grid.places.iter().flat_map(|place| &place.runs);
        let (_, first) = states().find(|(_, state)| state.phases.len() > 1)?;
        let mut study = Self {
            experiment: first.experiment.clone(),
            axis: axis.clone(),
            new: first.phases.last()?.dataset.clone(),
            level,
            series: Vec::new(),
            never: Vec::new(),
        };
        for place in &grid.places {
            study.add(place);
        }
        study
            .series
            .retain(|series| series.curves.iter().any(|curve| !curve.points.is_empty()));
        (!study.series.is_empty()).then_some(study)
    }

    fn add(&mut self, place: &Place) {
        let at = place.at[0];
        for arm in place.arms() {
            let Some(info) = arm.counted().first().map(|(_, own)| &own.info) else {
                continue;
            };
            let cell = Cell::of(&arm, self.level);
            let Some(olds) = cell.each(|seen| seen.old) else {
                let rate = self.axis.label(at);
                self.never.push(format!("{} after {rate}", arm.name));
                continue;
            };
            let name = without_rate(info);
            if !self.series.iter().any(|series| series.name == name) {
                let name = name.clone();
                self.series.push(Series {
                    name,
                    curves: Vec::new(),
                });
            }
            let Some(series) = self.series.iter_mut().find(|series| series.name == name) else {
                continue;
            };
            if series.curves.last().is_none_or(|curve| curve.at != at) {
                series.curves.push(Curve {
                    at,
                    before: old_loss_before(&arm),
                    points: Vec::new(),
                });
            }
            if let Some(curve) = series.curves.last_mut() {
                curve.points.push((info.lr, olds));
                curve.points.sort_by(|a, b| b.0.total_cmp(&a.0));
            }
        }
    }

    /// Every finetuning rate, falling.
    pub(in crate::report) fn rates(&self) -> Vec<f64> {
        let curves = self.series.iter().flat_map(|series| &series.curves);
        let mut rates: Vec<f64> = curves
            .flat_map(|curve| curve.points.iter().map(|p| p.0))
            .collect();
        rates.sort_by(|a, b| b.total_cmp(a));
        rates.dedup();
        rates
    }

    /// Its table.
    pub(in crate::report) fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(
            format!(
                "old loss when {} first has {} nats, by finetuning rate",
                self.new,
                nats(self.level)
            ),
            &["arm, pretraining rate", "before"],
        );
        let rates = self.rates();
        sheet
            .head
            .extend(rates.iter().map(|&rate| rate_label(rate)));
        for series in &self.series {
            for curve in &series.curves {
                let at = self.axis.label(curve.at);
                let mut row = vec![
                    format!("{}, {at}", series.name),
                    spread(Metric::Ntp, &curve.before),
                ];
                row.extend(rates.iter().map(|rate| {
                    let point = curve.points.iter().find(|(own, _)| own == rate);
                    point.map_or_else(String::new, |(_, olds)| spread(Metric::Ntp, olds))
                }));
                sheet.rows.push(row);
            }
        }
        sheet
            .notes
            .push("Linear between evaluations; mean and 95 % interval over seeds.".into());
        if !self.never.is_empty() {
            sheet.notes.push(format!(
                "Not reached with every seed: {}.",
                self.never.join("; ")
            ));
        }
        sheet
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{Made, place, point};
    use super::super::sweep_sheets;

    /// Else the loss of one rate would stand under another.
    #[test]
    fn arms_stand_under_their_finetuning_rate() {
        let made = |name: &str, old| Made {
            name: name.into(),
            before: 3.9,
            course: vec![(0, 6.0, 3.9, 0.0), (10, 4.0, old, 0.1)],
            ..Made::default()
        };
        let at = |rate: f64, shift: f64| {
            let mut arms = vec![
                made("none+lr=1e-3", 5.0 + shift),
                made("none+lr=1e-2", 6.0 + shift),
                made("true-data:kl:10+lr=1e-2", 3.95 + shift),
            ];
            arms[2].course[1].1 = if rate > 2e-3 { 4.5 } else { 4.0 };
            point("", vec![place("optimizer.lr", "lr", rate)], &arms)
        };
        let sheets = sweep_sheets(&[at(3e-3, -0.2), at(1e-3, 0.0)], Some(4.0));
        assert_eq!(
            sheets.len(),
            2,
            "that of drift, and no study of an axis beside it"
        );
        assert_eq!(sheets[0].head[2..], ["1e-2", "1e-3"]);
        let expected = [
            ["none, 1e-3", "3.900", "6.000", "5.000"],
            ["none, 3e-3", "3.900", "5.800", "4.800"],
            ["true-data:kl:10, 1e-3", "3.900", "3.950", ""],
        ];
        assert_eq!(sheets[0].rows, expected);
        assert!(sheets[0].notes[1].contains("true-data:kl:10+lr=1e-2 after 3e-3"));
    }
}

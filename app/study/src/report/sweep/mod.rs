//! Sweeps: a run for each point of a grid over settings, pretraining included, and what is told of all of them.
//!
//! In reading order:
//! - `grid`: the axes of a sweep, and the arms at each of its places;
//! - `level`: where the runs are compared;
//! - `axis`, ...: what each figure and its table tell.

mod axis;
mod frontier;
mod grid;
mod heat;
mod level;
#[cfg(test)]
pub(super) mod made_up;
mod rates;

use crate::experiment::AxisValue;
use crate::run::RunState;

use super::drift::Drift;
use super::sheet::Sheet;

pub(super) use axis::{AxisStudy, Cell, Row};
pub(super) use frontier::FrontierStudy;
pub(super) use grid::{grids, rate};
pub(super) use heat::{HeatStudy, Map};
pub(super) use level::{Seen, level_of};
pub(super) use rates::{RatesStudy, Series};

/// A point of a sweep: where it lies, and what happened in its run.
#[derive(Clone, Debug)]
pub struct SweepPoint {
    /// Name of its run within the sweep.
    pub name: String,
    /// Grid that it is a point of; empty where the sweep has one alone.
    pub grid: String,
    /// Its place on each axis of the grid, in order.
    pub place: Vec<AxisValue>,
    /// What happened in its run.
    pub state: RunState,
}

/// The tables that apply to a sweep. Runs are compared where the new data first has the loss `level`, else at the
/// target of their last phase.
pub fn sweep_sheets(points: &[SweepPoint], level: Option<f64>) -> Vec<Sheet> {
    let level = level_of(points, level);
    let mut sheets = Vec::new();
    let runs: Vec<(&str, &RunState)> = points.iter().map(|p| (p.name.as_str(), &p.state)).collect();
    let grids = grids(points);
    sheets.extend(FrontierStudy::of(&grids).map(|study| study.sheet()));
    for grid in &grids {
        let Some(level) = level else {
            continue;
        };
        sheets.extend(AxisStudy::of(grid, level).map(|study| study.sheet()));
        sheets.extend(RatesStudy::of(grid, level).map(|study| study.sheet()));
        sheets.extend(
            HeatStudy::of(grid, level)
                .iter()
                .flat_map(HeatStudy::sheets),
        );
    }
    sheets.extend(Drift::of(&runs).map(|drift| drift.sheet()));
    sheets
}

//! The figures of a sweep.

use std::path::{Path, PathBuf};

use crate::run::RunState;

use super::super::ReportError;
use super::super::drift::Drift;
use super::super::sweep::{
    AxisStudy, FrontierStudy, HeatStudy, RatesStudy, SweepPoint, grids, level_of,
};
use super::axis::AxisFigure;
use super::drift::DriftFigure;
use super::frontier::FrontierFigure;
use super::heat::HeatFigure;
use super::rates::RatesFigure;
use super::{FigureKind, draw};

/// Draws figures of a sweep as `NAME.svg` and `NAME.png` into a folder, which is made if it alone is missing. Kinds
/// that do not apply to the sweep are left out; where one applies to several grids, `-GRID` follows its name.
pub fn write_sweep_figures(
    folder: &Path,
    points: &[SweepPoint],
    kinds: &[FigureKind],
) -> Result<Vec<PathBuf>, ReportError> {
    let level = level_of(points, None);
    let grids = grids(points);
    let mut paths = Vec::new();
    let runs: Vec<(&str, &RunState)> = points.iter().map(|p| (p.name.as_str(), &p.state)).collect();
    for &kind in kinds {
        let whole = (folder, kind.name());
        paths.extend(match kind {
            FigureKind::Drift => draw(whole, Drift::of(&runs).map(DriftFigure))?,
            FigureKind::Frontier => draw(whole, FrontierStudy::of(&grids).map(FrontierFigure))?,
            _ => Vec::new(),
        });
        let mut drawn = 0;
        for grid in &grids {
            let name = match drawn {
                0 => kind.name().to_owned(),
                _ => format!("{}-{}", kind.name(), in_file_name(grid.name)),
            };
            let target = (folder, name.as_str());
            let written = match (kind, level) {
                (FigureKind::Axis, Some(level)) => {
                    draw(target, AxisStudy::of(grid, level).map(AxisFigure))?
                }
                (FigureKind::Rates, Some(level)) => {
                    draw(target, RatesStudy::of(grid, level).map(RatesFigure))?
                }
                (FigureKind::Heat, Some(level)) => {
                    draw(target, HeatStudy::of(grid, level).map(HeatFigure))?
                }
                _ => Vec::new(),
            };
            drawn += usize::from(!written.is_empty());
            paths.extend(written);
        }
    }
    Ok(paths)
}

/// A name with nothing that a path could be made of.
fn in_file_name(name: &str) -> String {
    let kept = |c: char| {
        if c.is_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    name.chars().map(kept).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::super::sweep::made_up;
    use super::*;

    /// Draws a made-up sweep; `FORGETLAB_FIGURES` names a folder to look at them.
    fn drawn(sweep: &str, points: &[SweepPoint]) -> Vec<(String, String)> {
        let scratch = tempfile::tempdir().unwrap();
        let folder = std::env::var_os("FORGETLAB_FIGURES").map(PathBuf::from);
        let folder = folder
            .unwrap_or_else(|| scratch.path().to_owned())
            .join(sweep);
        let paths = write_sweep_figures(&folder, points, &FigureKind::ALL).unwrap();
        let vectors = paths
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "svg"));
        vectors
            .map(|path| {
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                (name, fs::read_to_string(path).unwrap())
            })
            .collect()
    }

    #[track_caller]
    fn says(figures: &[(String, String)], name: &str, words: &[&str]) {
        let (_, text) = figures.iter().find(|(own, _)| own == name).expect(name);
        for word in words {
            assert!(text.contains(word), "{name}: {word}");
        }
    }

    /// Else a figure in a paper would not say what it shows.
    #[test]
    fn a_sweep_along_one_axis_is_drawn_along_it() {
        let figures = drawn("lengths", &made_up::lengths());
        says(
            &figures,
            "axis",
            &[
                "tokens a parameter",
                "forgetting",
                "self-generated:kl:3",
                "1000",
                "3.800",
            ],
        );
    }

    /// Else the panels of a figure could not be told apart, nor the curves.
    #[test]
    fn a_sweep_of_rates_has_a_panel_for_each_way_of_replay() {
        let figures = drawn("rates", &made_up::rates());
        let words = [
            "none (before: 3.90)",
            "true-data:kl:10",
            "pretrained at 3e-2",
            "finetuning rate",
        ];
        says(&figures, "rates", &words);
        assert!(figures.iter().all(|(name, _)| name != "axis"));
    }

    /// Else a comparison of methods would be a table alone, and digit tasks would be told by losses.
    #[test]
    fn methods_and_drift_are_drawn_of_text_alone() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results");
        let scratch = tempfile::tempdir().unwrap();
        let target =
            std::env::var_os("FORGETLAB_FIGURES").map_or(scratch.path().to_owned(), PathBuf::from);
        let figures = |name: &str| -> Vec<String> {
            let state = crate::run::read_csvs(&folder.join(name)).unwrap().state;
            let kinds = [FigureKind::Methods, FigureKind::Drift];
            let paths =
                super::super::write_figures(&target.join(name), &state, &kinds, false).unwrap();
            paths
                .iter()
                .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
                .collect()
        };
        std::fs::create_dir_all(&target).unwrap();
        assert_eq!(
            figures("method-comparison-cpu"),
            ["methods.svg", "methods.png", "drift.svg", "drift.png"]
        );
        assert_eq!(figures("lr-vs-replay-cpu"), ["drift.svg", "drift.png"]);
        assert_eq!(figures("instruct-smollm2").len(), 4);
        assert_eq!(figures("toy-continual-cpu"), [""; 0]);
    }

    /// Else nobody could see whether an arm crosses the frontier, nor of what mixtures it is.
    #[test]
    fn a_frontier_is_drawn_with_the_paths_of_the_other_grids() {
        let figures = drawn("capacity", &made_up::capacity());
        let words = [
            "1/64",
            "63/64",
            "overtrained: self-generated:kl:1",
            "new loss (es), nats",
            "start",
        ];
        says(&figures, "frontier", &words);
        assert!(
            figures
                .iter()
                .all(|(name, _)| name != "axis" && name != "heat")
        );
    }

    /// Else a map would have to be read by its colours alone.
    #[test]
    fn two_axes_make_a_map_an_arm() {
        let figures = drawn("map", &made_up::map());
        let words = [
            "true-data:kl:10",
            "tokens a parameter",
            "compute multiplier",
            "Blank: not",
        ];
        says(&figures, "heat", &words);
    }

    /// Else a sweep that has just begun, or whose runs failed, could not be looked at.
    #[test]
    fn nothing_is_drawn_of_runs_without_numbers() {
        for mut points in [
            made_up::lengths(),
            made_up::rates(),
            made_up::capacity(),
            made_up::map(),
        ] {
            for point in &mut points {
                for score in point
                    .state
                    .arms
                    .iter_mut()
                    .flat_map(|arm| &mut arm.evaluations)
                {
                    score.scores.iter_mut().for_each(|score| {
                        score.ntp = Some(f64::NAN);
                        score.kl = None;
                    });
                }
            }
            assert_eq!(drawn("none", &points), []);
            points.iter_mut().for_each(|point| point.state.arms.clear());
            assert_eq!(drawn("none", &points), []);
            points
                .iter_mut()
                .for_each(|point| point.state = RunState::default());
            assert_eq!(drawn("none", &points), []);
        }
    }
}

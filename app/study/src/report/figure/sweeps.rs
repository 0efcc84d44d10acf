//! The figures of a sweep.

use std::path::{Path, PathBuf};

use super::super::ReportError;
use super::super::sweep::{AxisStudy, RatesStudy, SweepPoint, grids, level_of};
use super::axis::AxisFigure;
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
    for &kind in kinds {
        let mut drawn = 0;
        for grid in &grids {
            let name = match drawn {
                0 => kind.name().to_owned(),
                _ => format!("{}-{}", kind.name(), grid.name),
            };
            let target = (folder, name.as_str());
            let written = match (kind, level) {
                (FigureKind::Axis, Some(level)) => {
                    draw(target, AxisStudy::of(grid, level).map(AxisFigure))?
                }
                (FigureKind::Rates, Some(level)) => {
                    draw(target, RatesStudy::of(grid, level).map(RatesFigure))?
                }
                _ => Vec::new(),
            };
            drawn += usize::from(!written.is_empty());
            paths.extend(written);
        }
    }
    Ok(paths)
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
}

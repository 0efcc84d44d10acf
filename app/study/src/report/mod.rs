//! Reports of runs: CSVs, the comparison table, figures. All derive from the events alone (through
//! [`RunState`]), so they can be made again from any run.

mod figure;
mod retention;
mod rows;
mod table;
mod verdict;

use std::fs;
use std::path::PathBuf;

use figure::{Accuracy, Picture, png, svg};
use retention::Retention;

use crate::run::{RunDir, RunError, RunState, Score, write_atomically};

pub use figure::FigureError;
pub use rows::{
    choices_csv, compare_csv, metrics_csv, plugin_metrics_csv, replay_csv, summary_csv,
};
pub use table::{Glyphs, human_count, human_seconds, table};
pub use verdict::{FORGETS, KEEPS, Verdict, verdict};

/// Failure to write a report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file could not be written.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The figure could not be drawn.
    #[error("cannot draw {}: {source}", path.display())]
    Figure {
        /// File of the figure.
        path: PathBuf,
        /// The cause.
        #[source]
        source: FigureError,
    },
}

/// Files written by [`write()`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// `metrics.csv`.
    pub metrics: PathBuf,
    /// `summary.csv`.
    pub summary: PathBuf,
    /// `plugin_metrics.csv`.
    pub plugin_metrics: PathBuf,
    /// `figures/accuracy` and, where there were questions, `figures/retention`, each as `.svg` and
    /// `.png`; empty where no dataset has an accuracy.
    pub figures: Vec<PathBuf>,
}

/// Writes the CSVs and figures of a run; each file is replaced atomically.
pub fn write(dir: &RunDir, state: &RunState) -> Result<Written, ReportError> {
    let (metrics, summary, plugin_metrics) = write_csvs(dir, state)?;
    let mut figures = Vec::new();
    if scores(state).any(|score| score.accuracy.is_some()) {
        figures.extend(draw(dir, "accuracy", &Accuracy(state))?);
    }
    if has_questions(state)
        && let Some(retention) = Retention::of(state)
    {
        figures.extend(draw(dir, "retention", &retention)?);
    }
    Ok(Written {
        metrics,
        summary,
        plugin_metrics,
        figures,
    })
}

/// Writes a picture as `figures/NAME.svg` and `.png`.
fn draw(dir: &RunDir, name: &str, picture: &impl Picture) -> Result<[PathBuf; 2], ReportError> {
    let folder = dir.join("figures");
    fs::create_dir_all(&folder).map_err(RunError::io("create", &folder))?;
    let paths = ["svg", "png"].map(|kind| folder.join(format!("{name}.{kind}")));
    let bytes = [svg(picture).map(String::into_bytes), png(picture)];
    for (path, bytes) in paths.iter().zip(bytes) {
        let bytes = bytes.map_err(|source| ReportError::Figure {
            path: path.clone(),
            source,
        })?;
        write_atomically(path, |w| w.write_all(&bytes))?;
    }
    Ok(paths)
}

/// Every score of a run.
fn scores(state: &RunState) -> impl Iterator<Item = &Score> {
    let evaluations = state.arms.iter().flat_map(|arm| &arm.evaluations);
    evaluations.flat_map(|evaluation| &evaluation.scores)
}

/// Whether any dataset is of multiple-choice questions.
fn has_questions(state: &RunState) -> bool {
    scores(state).any(|score| score.choices.is_some())
}

/// Writes `metrics.csv`, `summary.csv` and `plugin_metrics.csv`, and returns their paths in this order.
/// `replay.csv` and `choices.csv` are written beside them where the run has replay samples or questions.
pub fn write_csvs(
    dir: &RunDir,
    state: &RunState,
) -> Result<(PathBuf, PathBuf, PathBuf), ReportError> {
    let [metrics, summary, plugin] =
        ["metrics.csv", "summary.csv", "plugin_metrics.csv"].map(|name| dir.join(name));
    write_atomically(&metrics, |w| metrics_csv(state, w))?;
    write_atomically(&summary, |w| summary_csv(state, w))?;
    write_atomically(&plugin, |w| plugin_metrics_csv(state, w))?;
    if state.arms.iter().any(|arm| !arm.replay.is_empty()) {
        write_atomically(&dir.join("replay.csv"), |w| replay_csv(state, w))?;
    }
    if has_questions(state) {
        write_atomically(&dir.join("choices.csv"), |w| choices_csv(state, w))?;
    }
    Ok((metrics, summary, plugin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{OutFolder, fixture};

    /// A run must leave every file its last lines name.
    #[test]
    fn every_file_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let OutFolder::Fresh(run) = RunDir::out(dir.path()).unwrap() else {
            panic!()
        };
        let written = write(&run, &fixture::state()).unwrap();
        assert_eq!(written.figures.len(), 2);
        for file in [&written.metrics, &written.summary, &written.plugin_metrics]
            .into_iter()
            .chain(&written.figures)
        {
            assert!(fs::metadata(file).unwrap().len() > 20, "{}", file.display());
        }
    }
}

//! Reports of runs: CSVs, tables, figures, verdicts. All derive from the events and the scores of single rows alone
//! (through [`RunState`]), so they can be made again from any run.
//!
//! In reading order:
//! - `measures`: what one arm with one seed kept and learned;
//! - `settings`, `arms`: which seeds, of which runs, are one arm's;
//! - `verdict`: forgetting over the seeds of an arm, with its interval, noise floor and verdict;
//! - `differences`, `equal_terms`, `best_rates`: arms against a baseline, where they have learned or paid the same, and
//!   at which rate each does best;
//! - `methods`, `drift`: arms at their ends: old against new data, and forgetting against drift;
//! - `sheet`, `numbers`, `table`, `measures_table`, `gate`: what is printed of all that;
//! - `rows`, `statistics_rows`: the CSVs;
//! - `digest`, `record`: what lists and filters tell of a run;
//! - `sweep`: runs along the axes of a grid;
//! - `join`, `figure`: the pictures.

mod arms;
mod best_rates;
mod differences;
mod digest;
mod drift;
mod equal_terms;
#[cfg(test)]
mod example;
mod faster;
mod figure;
mod gate;
mod join;
mod json;
mod mean;
mod measures;
mod measures_table;
mod methods;
mod numbers;
mod record;
mod rows;
mod series;
mod settings;
mod sheet;
mod statistics_rows;
mod sweep;
mod table;
mod tensorboard;
#[cfg(test)]
mod thinned;
mod verdict;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::run::{RunDir, RunError, RunState, Score, write_atomically};

pub use arms::{ArmSeeds, arms};
pub use best_rates::best_rates;
pub use differences::{Difference, Quantity, differences, differences_sheet};
pub use digest::{ArmDigest, Digest, FinalScore, digest, digest_made};
pub use equal_terms::{at_equal_compute, at_equal_loss, level};
pub use faster::at_equal_forgetting;
pub use figure::{FigureError, FigureKind, figures_memory, write_figures, write_sweep_figures};
pub use gate::{Gate, failures};
pub use join::{JoinError, join};
pub use json::comparison_json;
pub use measures::{Answers, Kept, Metric, Transfer, Worst, answers, kept, transfer};
pub use measures_table::{measures_sheet, questions_sheet};
pub use numbers::{human_count, human_seconds};
pub use record::{ArmRecord, RunRecord};
pub use rows::{
    choices_csv, compare_csv, curves_csv, metrics_csv, plugin_metrics_csv, points_csv, replay_csv,
    summary_csv,
};
pub use settings::settings_sheet;
pub use sheet::{Format, Glyphs, Sheet};
pub use statistics_rows::{differences_csv, verdicts_csv};
pub use sweep::{SweepPoint, sweep_sheets};
pub use table::{Comparison, table};
pub use tensorboard::{Moments, tensorboard};
pub use verdict::{
    Forgetting, Judgement, Margins, Over, Verdict, WorstLoss, forgetting, forgetting_judged, judge,
    margins, old_datasets,
};

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

/// The CSVs that every run has.
const MAIN_CSVS: [&str; 3] = ["metrics.csv", "summary.csv", "plugin_metrics.csv"];
/// The folder of figures.
const FIGURES: &str = "figures";
/// What [`write()`] writes last, and nothing else writes.
const LAST: &str = "verdicts.csv";

/// Files written by [`write()`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// `metrics.csv`.
    pub metrics: PathBuf,
    /// `summary.csv`.
    pub summary: PathBuf,
    /// `plugin_metrics.csv`.
    pub plugin_metrics: PathBuf,
    /// Those of `figures/` that apply to the run ([`FigureKind`]), each as `.svg` and `.png`.
    pub figures: Vec<PathBuf>,
    /// What was there before and is kept under another name, in words.
    pub notes: Vec<String>,
}

/// Writes the CSVs, the digest and the figures of a run; each file is replaced atomically. `verdicts.csv` and `differences.csv`, which
/// resample rows, are written here alone.
pub fn write(dir: &RunDir, state: &RunState) -> Result<Written, ReportError> {
    let mut notes = Vec::new();
    for csv in csvs(state) {
        let path = dir.join(csv.name);
        let (now, before) = (csv.lines()?, lines_of(&path));
        if now < before {
            let kept = path.with_extension("csv.longer");
            fs::rename(&path, &kept).map_err(RunError::io("rename", &path))?;
            notes.push(format!(
                "{} has {now} lines and had {before}: what it was is kept as {}",
                path.display(),
                kept.display()
            ));
        }
        csv.write(&path)?;
    }
    let [metrics, summary, plugin_metrics] = MAIN_CSVS.map(|name| dir.join(name));
    let figures = write_figures(&dir.join(FIGURES), state, &FigureKind::ALL, false)?;
    let arms = arms(&[("", state)]);
    let margins = margins(state);
    if let Some(baseline) = arms.first().filter(|_| arms.len() > 1) {
        let differences = differences(&arms, baseline);
        write_atomically(&dir.join("differences.csv"), |w| {
            differences_csv(&differences, &baseline.name, w)
        })?;
    }
    digest::keep(dir, state)?;
    write_atomically(&dir.join(LAST), |w| verdicts_csv(&arms, margins, w))?;
    Ok(Written {
        metrics,
        summary,
        plugin_metrics,
        figures,
        notes,
    })
}

/// Whether the files of [`write()`] are there, made since the last event. A worker that was killed after its run's last
/// event leaves older ones.
pub fn is_written(dir: &RunDir) -> bool {
    let changed = |path: PathBuf| fs::metadata(path).and_then(|data| data.modified());
    let is_new = match (changed(dir.join(LAST)), changed(dir.events_path())) {
        (Ok(last), Ok(events)) => last >= events,
        _ => false,
    };
    is_new && dir.join(FIGURES).is_dir() && MAIN_CSVS.iter().all(|name| dir.join(name).is_file())
}

/// The tables that belong to the figures of a single run: methods and drift, where they apply.
pub fn run_sheets(state: &RunState) -> Vec<Sheet> {
    let methods = methods::Methods::of(state).map(|methods| methods.sheet());
    let drift = drift::Drift::of(&[("", state)]).map(|drift| drift.sheet());
    methods.into_iter().chain(drift).collect()
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

/// Writes the CSVs of a run that goes on. One that holds more rows already, from before the run went back to a
/// checkpoint, is left until there are as many again.
///
/// # Errors
/// Where the disk fails.
pub fn write_csvs(dir: &RunDir, state: &RunState) -> Result<(), ReportError> {
    for csv in csvs(state) {
        let path = dir.join(csv.name);
        if csv.lines()? >= lines_of(&path) {
            csv.write(&path)?;
        }
    }
    Ok(())
}

/// A CSV of a run.
struct Csv<'a> {
    name: &'static str,
    state: &'a RunState,
    fill: fn(&RunState, &mut dyn Write) -> io::Result<()>,
}

impl Csv<'_> {
    fn write(&self, path: &Path) -> Result<(), RunError> {
        write_atomically(path, |w| (self.fill)(self.state, w))
    }

    /// Its lines.
    fn lines(&self) -> Result<u64, RunError> {
        let mut lines = Lines(0);
        let counted = (self.fill)(self.state, &mut lines);
        counted.map_err(RunError::io("write", Path::new(self.name)))?;
        Ok(lines.0)
    }
}

/// The CSVs that apply to a run.
fn csvs(state: &RunState) -> Vec<Csv<'_>> {
    let csv = |name, fill| Csv { name, state, fill };
    let mut csvs = vec![
        csv("metrics.csv", |state, w| metrics_csv(state, w)),
        csv("summary.csv", |state, w| summary_csv(state, w)),
        csv("plugin_metrics.csv", |state, w| {
            plugin_metrics_csv(state, w)
        }),
    ];
    if state.arms.iter().any(|arm| !arm.replay.is_empty()) {
        csvs.push(csv("replay.csv", |state, w| replay_csv(state, w)));
    }
    if state.arms.iter().any(|arm| !arm.drawn.is_empty()) {
        csvs.push(csv("curves.csv", |state, w| curves_csv(state, w)));
    }
    if has_questions(state) {
        csvs.push(csv("choices.csv", |state, w| choices_csv(state, w)));
    }
    csvs
}

/// Counts the lines written to it.
struct Lines(u64);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines of a file, none where it cannot be read.
fn lines_of(path: &Path) -> u64 {
    let mut lines = Lines(0);
    let regular = fs::metadata(path).is_ok_and(|data| data.is_file());
    match regular.then(|| File::open(path)) {
        Some(Ok(mut file)) => {
            let _ = io::copy(&mut file, &mut lines);
            lines.0
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::run::{OutFolder, fixture};

    /// A run must leave every file its last lines name.
    #[test]
    fn every_file_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let OutFolder::Fresh(run) = RunDir::out(dir.path()).unwrap() else {
            panic!()
        };
        fs::write(run.events_path(), "").unwrap();
        assert!(!is_written(&run));
        let written = write(&run, &fixture::state()).unwrap();
        assert!(is_written(&run));
        // Accuracy, NTP and forgetting, as SVG and PNG.
        assert_eq!(written.figures.len(), 6);
        for file in [&written.metrics, &written.summary, &written.plugin_metrics]
            .into_iter()
            .chain(&written.figures)
        {
            assert!(fs::metadata(file).unwrap().len() > 20, "{}", file.display());
        }
        // Of a worker that was killed before it wrote them they are older.
        let later = SystemTime::now() + Duration::from_secs(1);
        let events = File::options()
            .append(true)
            .open(run.events_path())
            .unwrap();
        events.set_modified(later).unwrap();
        assert!(!is_written(&run));
        write(&run, &fixture::state()).unwrap();
        let verdicts = File::options().append(true).open(run.join(LAST)).unwrap();
        verdicts.set_modified(later).unwrap();
        assert!(is_written(&run));
        fs::remove_file(&written.summary).unwrap();
        assert!(!is_written(&run));
    }

    /// Rows that were measured would be gone from the only file that somebody plots.
    #[test]
    fn a_csv_with_more_rows_is_kept_and_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let OutFolder::Fresh(run) = RunDir::out(dir.path()).unwrap() else {
            panic!()
        };
        let whole = fixture::state();
        assert!(write(&run, &whole).unwrap().notes.is_empty());
        let metrics = run.join("metrics.csv");
        let before = fs::read(&metrics).unwrap();
        let mut less = whole.clone();
        less.arms[0].evaluations.pop();
        // While the run goes on it waits for as many rows again.
        write_csvs(&run, &less).unwrap();
        assert_eq!(fs::read(&metrics).unwrap(), before);
        let written = write(&run, &less).unwrap();
        assert_eq!(written.notes.len(), 1, "{:?}", written.notes);
        assert!(written.notes[0].contains("metrics.csv.longer"));
        assert_eq!(fs::read(run.join("metrics.csv.longer")).unwrap(), before);
        assert!(fs::read(&metrics).unwrap().len() < before.len());
    }
}

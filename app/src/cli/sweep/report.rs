//! The tables and figures of a sweep, in its folder.

use std::fs;

use anyhow::Context;
use forgetlab_study::printed::path_in_line;
use forgetlab_study::report::{
    self, FigureKind, Format, Sheet, SweepPoint, points_csv, write_sweep_figures,
};
use forgetlab_study::run::{PointStatus, SweepDir, write_atomically};

use super::super::load::{Loaded, load_sweep};
use super::super::warn;

/// Writes the tables and figures of a point whose run is over, where whoever worked on it was killed before these were
/// whole, or the main ones are gone.
pub fn complete(sweep: &SweepDir, point: &str, status: &PointStatus) -> anyhow::Result<()> {
    let over = matches!(status, PointStatus::Finished | PointStatus::Failed);
    let run = sweep.run(point).filter(|_| over);
    let Some(run) = run.filter(|run| !report::is_written(run)) else {
        return Ok(());
    };
    // Whoever has it begins anew with it.
    let Ok(_lock) = run.lock() else {
        return Ok(());
    };
    let state = run.checked_state().map_err(anyhow::Error::from);
    let written = state.and_then(|state| Ok(report::write(&run, &state)?));
    for note in written.with_context(|| point.to_owned())?.notes {
        warn(format_args!("note: {note}"));
    }
    Ok(())
}

/// Writes `points.csv` and the figures of what is there by now; the tables and the paths, to be printed, and whether a
/// point is left out since it cannot be read.
pub fn report(sweep: &SweepDir) -> anyhow::Result<(String, bool)> {
    let (loaded, unreadable) = load_sweep(sweep)?;
    let points: Vec<SweepPoint> = loaded.iter().filter_map(Loaded::sweep_point).collect();
    drop(loaded);
    let csv = sweep.join("points.csv");
    write_atomically(&csv, |w| points_csv(&points, w))?;
    let folder = sweep.join("figures");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let figures = write_sweep_figures(&folder, &points, &FigureKind::ALL)?;
    let sheets = report::sweep_sheets(&points, None);
    let format = Format::Text(super::super::glyphs());
    let sheets: Vec<String> = sheets
        .iter()
        .map(|sheet: &Sheet| sheet.write(format))
        .collect();
    let mut told = format!("\n{}\n", sheets.join("\n"));
    for file in [&csv].into_iter().chain(&figures) {
        told += &format!("{}\n", path_in_line(file));
    }
    Ok((told, unreadable))
}

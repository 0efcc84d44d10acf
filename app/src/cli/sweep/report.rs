//! The tables and figures of a sweep, in its folder.

use std::fs;

use anyhow::Context;
use forgetlab_study::printed::path_in_line;
use forgetlab_study::report::{
    self, FigureKind, Format, Sheet, SweepPoint, points_csv, write_sweep_figures,
};
use forgetlab_study::run::{SweepDir, write_atomically};

use super::super::load::{self, Loaded};

/// Writes `points.csv` and the figures of what is there by now; the tables and the paths, to be printed.
pub fn report(sweep: &SweepDir) -> anyhow::Result<String> {
    let path = sweep.path().to_string_lossy().into_owned();
    let (loaded, _) = load::load(&[path])?;
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
    Ok(told)
}

//! Figures, as SVG and PNG.
//!
//! Seeds of an arm are drawn as one: their mean, and its 95 % interval by Student's t. Colours are those of
//! Okabe and Ito, safe for colour-blind eyes; each also has its own marker and dashes, so that figures work in
//! print. The font is embedded: every machine draws the same PNG.

mod arms;
mod axis;
mod curves;
mod drift;
mod error;
mod forgetting;
mod frontier;
mod heat;
mod legend;
mod methods;
mod panel;
mod picture;
mod rates;
mod regression;
mod retention;
mod speed;
mod style;
mod sweeps;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use curves::Curves;
use drift::DriftFigure;
use forgetting::Forgetting;
use methods::MethodsFigure;
use picture::{MOST_PIXELS, Picture, png, svg};
use regression::Regression;
use retention::Retention;
use speed::Speed;

use crate::run::{RunError, RunState, remove_if_there, write_atomically};

pub use error::FigureError;
pub use sweeps::write_sweep_figures;

use super::ReportError;
use super::drift::Drift;
use super::measures::Metric;
use super::methods::Methods;

/// What a figure shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FigureKind {
    /// Accuracy of every dataset against the step, one panel an arm.
    Accuracy,
    /// NTP of every dataset against the step, one panel an arm.
    Ntp,
    /// What each arm forgot of each old dataset, with the margin.
    Forgetting,
    /// Accuracy on old questions, and KL on old data, against accuracy on the new data.
    Retention,
    /// Old loss against the steps to one new loss, along rates and shares.
    Speed,
    /// Old loss and forgetting along one axis of a sweep.
    Axis,
    /// Old loss against the finetuning rate, by the rate of pretraining.
    Rates,
    /// Log-likelihood of old against new data, one marker an arm.
    Methods,
    /// Forgetting against drift on the new data, one marker an arm.
    Drift,
    /// Finetuned arms beside models pretrained on mixtures, in the plane of both losses.
    Frontier,
    /// The compute multiplier over two axes of a sweep.
    Heat,
    /// Error of every dataset of a regression against the step, one panel an arm.
    Error,
    /// The functions of a regression, before the second phase and at its end, one panel an arm.
    Regression,
}

impl FigureKind {
    /// Every kind, in the order in which they are told of.
    pub const ALL: [Self; 13] = [
        Self::Accuracy,
        Self::Ntp,
        Self::Forgetting,
        Self::Retention,
        Self::Speed,
        Self::Axis,
        Self::Rates,
        Self::Methods,
        Self::Drift,
        Self::Frontier,
        Self::Heat,
        Self::Error,
        Self::Regression,
    ];

    /// Name of its files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Ntp => "ntp",
            Self::Forgetting => "forgetting",
            Self::Retention => "retention",
            Self::Speed => "speed",
            Self::Axis => "axis",
            Self::Rates => "rates",
            Self::Methods => "methods",
            Self::Drift => "drift",
            Self::Frontier => "frontier",
            Self::Heat => "heat",
            Self::Error => "error",
            Self::Regression => "regression",
        }
    }

    /// What it shows, in a line.
    pub fn shows(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy of every dataset against the step, one panel an arm",
            Self::Ntp => "next-token loss of every dataset against the step, one panel an arm",
            Self::Forgetting => "what each arm forgot of each old dataset, beside the margin",
            Self::Retention => {
                "accuracy on old questions, and KL on old data, against accuracy on new data"
            }
            Self::Speed => "loss of old data against the steps to one loss of the new",
            Self::Axis => "old loss and forgetting at one loss of the new, along an axis",
            Self::Rates => "old loss at one loss of the new, by rates of both phases",
            Self::Methods => "log-likelihood of old against new data, one marker an arm",
            Self::Drift => "forgetting against drift on the new data, one marker an arm",
            Self::Frontier => "finetuned arms beside pretrained mixtures, by old and new loss",
            Self::Heat => "share of the pretraining that is kept, over two axes",
            Self::Error => "error of every dataset against the step, one panel an arm",
            Self::Regression => "the functions of a regression before and after, one panel an arm",
        }
    }

    /// What a run must have for this figure.
    pub fn needs(self) -> &'static str {
        match self {
            Self::Accuracy => "a dataset with an accuracy",
            Self::Ntp => "a dataset with an NTP",
            Self::Forgetting => "data that is old: trained on in an earlier phase, or questions",
            Self::Retention => "multiple-choice questions, asked during a phase after the first",
            Self::Speed => "arms that differ in one number: a rate, a share or a coefficient",
            Self::Axis => "a sweep along one axis of numbers",
            Self::Rates => "a sweep of pretraining rates, of arms that differ in their rate",
            Self::Methods => "text, and up to 12 arms of several methods",
            Self::Drift => "text, and two arms or more",
            Self::Frontier => "a sweep with a grid `frontier` of mixtures, and another",
            Self::Heat => "a sweep along two axes of numbers",
            Self::Error => "a dataset with an error",
            Self::Regression => "an arm of a regression that has come to its end",
        }
    }
}

/// Draws figures of a run as `NAME.svg` and `NAME.png` into a folder, which is made if it alone is missing; kinds that do
/// not apply to the run are left out, and so is the PNG of one that is very large. With `single_seeds`, seeds are drawn beside their mean.
pub fn write_figures(
    folder: &Path,
    state: &RunState,
    kinds: &[FigureKind],
    single_seeds: bool,
) -> Result<Vec<PathBuf>, ReportError> {
    let mut paths = Vec::new();
    for &kind in kinds {
        let target = (folder, kind.name());
        let curves = |metric| Curves::of(state, metric, single_seeds);
        paths.extend(match kind {
            FigureKind::Accuracy => draw(target, curves(Metric::Accuracy))?,
            FigureKind::Ntp => draw(target, curves(Metric::Ntp))?,
            FigureKind::Forgetting => draw(target, Forgetting::of(state, single_seeds))?,
            FigureKind::Retention => draw(target, Retention::of(state, single_seeds))?,
            FigureKind::Speed => draw(target, Speed::of(state))?,
            FigureKind::Methods => draw(target, Methods::of(state).map(MethodsFigure))?,
            FigureKind::Drift => draw(target, Drift::of(&[("", state)]).map(DriftFigure))?,
            // Of sweeps alone.
            FigureKind::Axis | FigureKind::Rates | FigureKind::Frontier | FigureKind::Heat => {
                Vec::new()
            }
            FigureKind::Error => draw(target, curves(Metric::Error))?,
            FigureKind::Regression => draw(target, Regression::of(state))?,
        });
    }
    Ok(paths)
}

/// Writes a picture, if there is one, as `NAME.svg` and `NAME.png` into a folder.
fn draw(
    (folder, name): (&Path, &str),
    picture: Option<impl Picture>,
) -> Result<Vec<PathBuf>, ReportError> {
    let Some(picture) = picture else {
        return Ok(Vec::new());
    };
    // Not those above it: a run's folder that was moved away is not made anew.
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(RunError::io("create", folder)(error).into());
        }
        _ => {}
    }
    let mut written = Vec::new();
    let path = |kind| folder.join(format!("{name}.{kind}"));
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| ReportError::Figure { path, source }
    };
    let (vector, pixels) = (path("svg"), path("png"));
    let text = svg(&picture).map_err(refused(&vector))?;
    write_atomically(&vector, |w| w.write_all(text.as_bytes()))?;
    written.push(vector);
    match png(&picture).map_err(refused(&pixels))? {
        Some(bytes) => {
            write_atomically(&pixels, |w| w.write_all(&bytes))?;
            written.push(pixels);
        }
        None => remove_if_there(&pixels)?,
    }
    Ok(written)
}

/// Bytes that drawing the figures of so many arms takes at most.
pub fn figures_memory(arms: usize) -> u64 {
    let (width, height) = curves::PANEL;
    let panels = u64::from(width * 2) * u64::from(height * 2) * 3 * arms as u64;
    panels.min(MOST_PIXELS)
}

//! `rates`: loss of the old data when the new has first been learned as well, against the finetuning rate; one curve a
//! pretraining rate, one panel a way of replay.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::super::mean::Mean;
use super::super::numbers::{fixed, nats};
use super::super::sweep::{RatesStudy, Series, rate as rate_label};
use super::error::FigureError;
use super::legend::{Legend, Sample};
use super::panel::{Axis, WIDTH, frame, heading, heading_height, note, note_height, rule, upright};
use super::picture::Picture;
use super::style::{colour, draw_line, draw_marker};

const PANEL: u32 = 236;
/// The rules of the losses before are left out where they would take more than this share of a panel.
const RULES: f64 = 0.45;

/// The figure of a study.
pub(super) struct RatesFigure(pub(super) RatesStudy);

impl RatesFigure {
    fn title(&self) -> String {
        let study = &self.0;
        let level = nats(study.level);
        format!(
            "{}: old loss when {} first has {level} nats",
            study.experiment, study.new
        )
    }

    /// Pretraining rates; the place of one is its colour.
    fn pretraining(&self) -> Vec<f64> {
        let curves = self.0.series.iter().flat_map(|series| &series.curves);
        let mut rates: Vec<f64> = curves.map(|curve| curve.at).collect();
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        rates
    }

    fn legend(&self) -> Legend {
        let mut legend = Legend::default();
        for (i, rate) in self.pretraining().into_iter().enumerate() {
            legend.add(
                Sample::Line(i),
                format!("pretrained at {}", self.0.axis.label(rate)),
            );
        }
        if self.0.series.iter().any(|series| rules(series).is_some()) {
            legend.add(Sample::Rule, "before");
        }
        let mut curves = self.0.series.iter().flat_map(|series| &series.curves);
        if curves.any(|curve| curve.before.len() > 1) {
            legend.add(Sample::Bar, "95 % interval over seeds");
        }
        legend
    }

    fn note(&self) -> String {
        let never = &self.0.never;
        match never.len() {
            0 => String::new(),
            n if n > 4 => format!("{n} arms did not learn as much with every seed: see the table."),
            _ => format!("Not with every seed: {}.", never.join("; ")),
        }
    }

    fn draw_panel<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        series: &Series,
        scale: u32,
    ) -> Result<(), FigureError> {
        let rules = rules(series);
        let (low, high) = befores(series);
        let title = match rules {
            Some(_) => series.name.clone(),
            None if fixed(low, 2) == fixed(high, 2) => {
                format!("{} (before: {})", series.name, fixed(low, 2))
            }
            None => format!(
                "{} (before: {} to {})",
                series.name,
                fixed(low, 2),
                fixed(high, 2)
            ),
        };
        let rates = self.0.rates().into_iter().rev();
        let places: Vec<(f64, String)> = rates.map(|rate| (rate, rate_label(rate))).collect();
        let values = extents(series).chain(rules.iter().flatten().map(|&(_, before)| before));
        let axes = Axis::of_places("finetuning rate", &places).zip(Axis::linear("nats", values));
        let Some((x, y)) = axes else {
            return Ok(());
        };
        let mut chart = frame(area, &title, (&x, &y), scale)?;
        let all = self.pretraining();
        let index = |rate: f64| all.iter().position(|&own| own == rate).unwrap_or(0);
        let [left, right] = x.ends();
        for (at, before) in rules.iter().flatten() {
            let ends = [(left, *before), (right, *before)];
            rule(&mut chart, ends, colour(index(*at)), scale)?;
        }
        for curve in &series.curves {
            let i = index(curve.at);
            let means = curve.points.iter();
            let means = means.filter_map(|(rate, olds)| Some((x.place(*rate), Mean::of(olds)?)));
            let means: Vec<(f64, Mean)> = means.collect();
            let points: Vec<(f64, f64)> =
                means.iter().map(|(at, mean)| (*at, mean.value)).collect();
            if points.len() > 1 {
                draw_line(&mut chart, &points, i, scale)?;
            }
            for ((at, mean), point) in means.iter().zip(points) {
                upright(&mut chart, *at, mean, i, scale)?;
                draw_marker(&mut chart, point, i, scale)?;
            }
        }
        Ok(())
    }
}

/// All that is drawn of a series.
fn extents(series: &Series) -> impl Iterator<Item = f64> {
    let points = series.curves.iter().flat_map(|curve| &curve.points);
    points
        .filter_map(|(_, olds)| Mean::of(olds))
        .flat_map(|mean| mean.extent())
}

/// The least and the most of the losses before.
fn befores(series: &Series) -> (f64, f64) {
    let means = series
        .curves
        .iter()
        .filter_map(|curve| Mean::of(&curve.before));
    let ends = means.map(|mean| (mean.value, mean.value));
    ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
        .unwrap_or((f64::NAN, f64::NAN))
}

/// The losses before of each pretraining rate; `None` where they lie so far off that they would leave the curves no
/// room.
fn rules(series: &Series) -> Option<Vec<(f64, f64)>> {
    let (low, high) = extents(series).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
        (a.min(v), b.max(v))
    });
    let (least, most) = befores(series);
    let whole = most.max(high) - least.min(low);
    let near = (high - low) >= (1.0 - RULES) * whole;
    let of = series.curves.iter();
    near.then(|| {
        of.filter_map(|curve| Some((curve.at, Mean::of(&curve.before)?.value)))
            .collect()
    })
}

impl Picture for RatesFigure {
    fn size(&self) -> (u32, u32) {
        let texts = heading_height(&self.title()) + note_height(&self.note());
        let panels = PANEL * self.0.series.len() as u32;
        (WIDTH, texts + panels + self.legend().height(WIDTH))
    }

    fn draw<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let mut rest = heading(root, &self.title(), scale)?;
        for series in &self.0.series {
            let (panel, below) = rest.split_vertically(PANEL * scale);
            self.draw_panel(&panel, series, scale)?;
            rest = below;
        }
        let rest = note(&rest, &self.note(), scale)?;
        self.legend().draw(&rest, WIDTH, scale)
    }
}

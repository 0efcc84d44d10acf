//! `frontier`: finetuned arms in the plane of both losses, beside models pretrained on mixtures.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::super::sweep::FrontierStudy;
use super::error::{FigureError, refused};
use super::legend::{Legend, Sample};
use super::panel::{Axis, OnePanel, cross, frame, label, label_width};
use super::style::{INK, Panel, draw_line, draw_marker};

/// Black, solid, with circles.
const FRONTIER: usize = 20;
/// Colours of the paths: all but black.
const PATHS: usize = 6;

/// The figure of a study.
pub(super) struct FrontierFigure(pub(super) FrontierStudy);

/// Colour, dashes and marker of a path.
fn index(path: usize) -> usize {
    path % PATHS + path / PATHS * (PATHS + 1)
}

impl FrontierFigure {
    /// Writes the shares of the mixtures below the frontier, but for those that would touch another.
    fn write_shares<DB: DrawingBackend>(
        &self,
        chart: &mut Panel<'_, DB>,
        line: &[(f64, f64)],
        scale: u32,
    ) -> Result<(), FigureError> {
        let k = scale as i32;
        let mut taken: Vec<[i32; 4]> = Vec::new();
        // The ends first: they say what the line runs between.
        let middle = 1..line.len().saturating_sub(1);
        let order = [0, line.len() - 1].into_iter().chain(middle);
        for i in order {
            let text = &self.0.mixtures[i].label;
            let (px, py) = chart.backend_coord(&line[i]);
            let wide = label_width(text);
            let touches = |own: &[i32; 4]| {
                let apart = |other: &[i32; 4]| {
                    own[2] <= other[0]
                        || other[2] <= own[0]
                        || own[3] <= other[1]
                        || other[3] <= own[1]
                };
                !taken.iter().all(apart)
            };
            // To the left below the line, else to the right of it.
            let free = [(-wide - 7, 6), (9, -7)]
                .into_iter()
                .find_map(|(right, down)| {
                    let (left, top) = (px + right * k, py + down * k);
                    let own = [left, top, left + wide * k, top + 16 * k];
                    let first = chart.backend_coord(&(chart.x_range().start, 0.0)).0;
                    (left > first && !touches(&own)).then_some((own, (right, down)))
                });
            let Some((own, (right, down))) = free else {
                continue;
            };
            taken.push(own);
            label(chart, line[i], text, (right, down), scale)?;
        }
        Ok(())
    }
}

impl OnePanel for FrontierFigure {
    const HEIGHT: u32 = 350;

    fn title(&self) -> String {
        format!("{}: finetuning and mixtures", self.0.experiment)
    }

    fn note(&self) -> String {
        match self.0.missing.is_empty() {
            true => String::new(),
            false => format!("Without a loss: {}.", self.0.missing.join(", ")),
        }
    }

    fn legend(&self) -> Legend {
        let mut legend = Legend::default();
        legend.add(
            Sample::Line(FRONTIER),
            format!("pretrained, share of {}", self.0.new),
        );
        for (i, path) in self.0.paths.iter().enumerate() {
            legend.add(Sample::Line(index(i)), path.name.clone());
        }
        legend.add(Sample::Ring, "start");
        let paths = || self.0.paths.iter();
        if paths().any(|path| path.end.1.interval.is_some()) {
            legend.add(Sample::Bar, "95 % interval over seeds");
        }
        legend
    }

    fn draw_panel<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let study = &self.0;
        let means = || {
            let ends = study.paths.iter().map(|path| &path.end);
            ends.chain(study.mixtures.iter().map(|mixture| &mixture.at))
        };
        let course = || study.paths.iter().flat_map(|path| &path.course);
        let xs = means()
            .flat_map(|at| at.0.extent())
            .chain(course().map(|at| at.0));
        let ys = means()
            .flat_map(|at| at.1.extent())
            .chain(course().map(|at| at.1));
        let x = Axis::linear(&format!("new loss ({}), nats", study.new), xs);
        let y = Axis::linear(&format!("old loss ({}), nats", study.old), ys);
        let (Some(x), Some(y)) = (x, y) else {
            return Ok(());
        };
        let mut chart = frame(area, "", (&x, &y), scale)?;
        let line: Vec<(f64, f64)> = study
            .mixtures
            .iter()
            .map(|m| (m.at.0.value, m.at.1.value))
            .collect();
        draw_line(&mut chart, &line, FRONTIER, scale)?;
        for mixture in &study.mixtures {
            cross(&mut chart, (&mixture.at.0, &mixture.at.1), FRONTIER, scale)?;
        }
        for &at in &line {
            draw_marker(&mut chart, at, FRONTIER, scale)?;
        }
        for (i, path) in study.paths.iter().enumerate() {
            draw_line(&mut chart, &path.course, index(i), scale)?;
            cross(&mut chart, (&path.end.0, &path.end.1), index(i), scale)?;
            let end = (path.end.0.value, path.end.1.value);
            draw_marker(&mut chart, end, index(i), scale)?;
        }
        for path in &study.paths {
            let ring = Circle::new(
                (0, 0),
                8 * scale,
                ShapeStyle::from(INK).stroke_width(2 * scale),
            );
            let starts = path
                .course
                .first()
                .map(|&start| EmptyElement::at(start) + ring);
            chart.draw_series(starts).map_err(refused)?;
        }
        self.write_shares(&mut chart, &line, scale)
    }
}

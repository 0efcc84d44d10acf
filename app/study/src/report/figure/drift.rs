//! `drift`: what each arm forgot against how far it has moved from the model before, on the new data.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::super::drift::{Drift, Mark};
use super::super::mean::Mean;
use super::error::FigureError;
use super::legend::{Legend, Sample};
use super::panel::{Axis, OnePanel, cross, frame, zero};
use super::style::draw_shape;

/// The most runs that have an entry of the legend each.
const TOLD: usize = 9;

/// The figure of runs.
pub(super) struct DriftFigure(pub(super) Drift);

impl DriftFigure {
    /// Shape and colour of an arm of a run: of one run both tell the arm, of several the colour tells the run.
    fn look(&self, mark: &Mark) -> (usize, usize) {
        match self.0.runs.len() {
            1 => (mark.arm, mark.arm),
            _ => (mark.arm, mark.run),
        }
    }
}

impl OnePanel for DriftFigure {
    const HEIGHT: u32 = 330;

    fn title(&self) -> String {
        format!("{}: forgetting against drift", self.0.title)
    }

    fn note(&self) -> String {
        let correlation = self.0.correlation();
        let mut notes = Vec::new();
        if !correlation.is_empty() {
            notes.push(format!("{correlation}."));
        }
        if self.0.runs.len() > TOLD {
            notes.push(format!("Colours: {} runs.", self.0.runs.len()));
        }
        notes.join(" ")
    }

    fn legend(&self) -> Legend {
        let mut legend = Legend::default();
        if self.0.runs.len() == 1 {
            for (i, arm) in self.0.arms.iter().enumerate() {
                legend.add(Sample::Marker(i), arm.clone());
            }
        } else {
            for (i, arm) in self.0.arms.iter().enumerate() {
                legend.add(Sample::Shape(i), arm.clone());
            }
            if self.0.runs.len() <= TOLD {
                for (i, run) in self.0.runs.iter().enumerate() {
                    legend.add(Sample::Colour(i), run.clone());
                }
            }
        }
        if self.0.marks.iter().any(|mark| mark.kl.len() > 1) {
            legend.add(Sample::Bar, "95 % interval over seeds");
        }
        legend
    }

    fn draw_panel<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let marks = self.0.marks.iter();
        let marks: Vec<(&Mark, Mean, Mean)> = marks
            .filter_map(|mark| Some((mark, Mean::of(&mark.kl)?, Mean::of(&mark.forgot)?)))
            .collect();
        let words = format!("KL on new data ({}), nats", self.0.new);
        let x = Axis::linear(&words, marks.iter().flat_map(|(_, kl, _)| kl.extent()));
        let y = Axis::linear(
            "forgetting, nats",
            marks.iter().flat_map(|(.., forgot)| forgot.extent()),
        );
        let (Some(x), Some(y)) = (x, y) else {
            return Ok(());
        };
        let mut chart = frame(area, "", (&x, &y), scale)?;
        zero(&mut chart, (&x, &y), scale)?;
        for (mark, kl, forgot) in &marks {
            cross(&mut chart, (kl, forgot), self.look(mark).1, scale)?;
        }
        for (mark, kl, forgot) in &marks {
            draw_shape(&mut chart, (kl.value, forgot.value), self.look(mark), scale)?;
        }
        Ok(())
    }
}

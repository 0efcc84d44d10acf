//! `drift`: what each arm forgot against how far it has moved from the model before, on the new data.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::super::drift::{Drift, Mark};
use super::super::mean::Mean;
use super::error::FigureError;
use super::legend::{Legend, Sample};
use super::panel::{Axis, WIDTH, cross, frame, heading, heading_height, note, note_height, zero};
use super::picture::Picture;
use super::style::draw_shape;

const PANEL: u32 = 330;
/// The most runs that have an entry of the legend each.
const TOLD: usize = 9;

/// The figure of runs.
pub(super) struct DriftFigure(pub(super) Drift);

impl DriftFigure {
    fn title(&self) -> String {
        format!("{}: forgetting against drift", self.0.title)
    }

    /// Shape and colour of an arm of a run: of one run both tell the arm, of several the colour tells the run.
    fn look(&self, mark: &Mark) -> (usize, usize) {
        match self.0.runs.len() {
            1 => (mark.arm, mark.arm),
            _ => (mark.arm, mark.run),
        }
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

    fn draw_plane<DB: DrawingBackend>(
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

impl Picture for DriftFigure {
    fn size(&self) -> (u32, u32) {
        let texts = heading_height(&self.title()) + note_height(&self.note());
        (WIDTH, texts + PANEL + self.legend().height(WIDTH))
    }

    fn draw<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let rest = heading(root, &self.title(), scale)?;
        let (plane, rest) = rest.split_vertically(PANEL * scale);
        self.draw_plane(&plane, scale)?;
        let rest = note(&rest, &self.note(), scale)?;
        self.legend().draw(&rest, WIDTH, scale)
    }
}

//! The legend below a figure: samples of what is drawn, with what they stand for, in as many rows as they need.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::error::{FigureError, refused};
use super::style::{
    FAINT, GREY, INK, colour, draw_line_sample, draw_marker_sample, draw_shape_sample,
    draw_stroke_sample, ring, text_width, write_text,
};

const ROW: u32 = 26;
const MARGIN: u32 = 24;
/// Width of a sample and of the gap to its words.
const SAMPLE: u32 = 52;
const TEXT: u32 = 14;

/// What is drawn before the words of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sample {
    /// A line with its marker.
    Line(usize),
    /// A line without markers in its band.
    Stroke(usize),
    /// A marker.
    Marker(usize),
    /// The shape of a marker, whatever its colour.
    Shape(usize),
    /// The colour of markers, whatever their shape.
    Colour(usize),
    /// The ring at the start of a phase.
    Ring,
    /// A band around a line.
    Band,
    /// A thin line: a single seed.
    Thin,
    /// A dot: a single seed.
    Dot,
    /// An upright bar.
    Bar,
    /// A bar that lies.
    Whisker,
    /// A thin bar that lies.
    ThinWhisker,
    /// A dashed rule.
    Rule,
}

/// A legend.
#[derive(Default)]
pub(super) struct Legend(Vec<(Sample, String)>);

impl Legend {
    /// Adds an entry.
    pub(super) fn add(&mut self, sample: Sample, words: impl Into<String>) {
        self.0.push((sample, words.into()));
    }

    /// Where entries stand in an area of some width: left to right, row by row.
    fn places(&self, width: u32) -> Vec<(u32, u32)> {
        let (mut x, mut row) = (MARGIN, 0);
        let mut places = Vec::new();
        for (_, words) in &self.0 {
            let wide = SAMPLE + text_width(words, TEXT);
            if x > MARGIN && x + wide > width {
                (x, row) = (MARGIN, row + 1);
            }
            places.push((x, row));
            x += wide + MARGIN;
        }
        places
    }

    /// Height it needs.
    pub(super) fn height(&self, width: u32) -> u32 {
        let rows = self.places(width).last().map_or(0, |&(_, row)| row + 1);
        rows * ROW + 14
    }

    /// Draws it into an area of that height.
    pub(super) fn draw<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        width: u32,
        scale: u32,
    ) -> Result<(), FigureError> {
        for ((sample, words), (x, row)) in self.0.iter().zip(self.places(width)) {
            let (x, y) = (x as i32, (row * ROW) as i32 + 14);
            sample.draw(area, (x, y), scale)?;
            write_text(area, words, (x + SAMPLE as i32, y - 6), TEXT, &INK, scale)?;
        }
        Ok(())
    }
}

impl Sample {
    fn draw<DB: DrawingBackend>(
        self,
        area: &DrawingArea<DB, Shift>,
        (x, y): (i32, i32),
        scale: u32,
    ) -> Result<(), FigureError> {
        let k = scale as i32;
        let at = |dx: i32, dy: i32| ((x + dx) * k, (y + dy) * k);
        let line = |points: &[(i32, i32)], colour: RGBColor, width: u32| {
            let style = ShapeStyle::from(colour).stroke_width(width * scale);
            let points: Vec<_> = points.iter().map(|&(dx, dy)| at(dx, dy)).collect();
            area.draw(&PathElement::new(points, style)).map_err(refused)
        };
        match self {
            Self::Line(index) => draw_line_sample(area, (x, y), index, scale),
            Self::Stroke(index) => {
                let fill = colour(index).mix(0.16).filled();
                let corners = [at(0, -7), at(44, 7)];
                area.draw(&Rectangle::new(corners, fill)).map_err(refused)?;
                draw_stroke_sample(area, (x, y), index, scale)
            }
            Self::Marker(index) => draw_marker_sample(area, (x, y), index, scale),
            Self::Shape(index) => draw_shape_sample(area, (x, y), (index, FAINT), scale),
            Self::Colour(index) => {
                let fill = colour(index).filled();
                let corners = [at(12, -5), at(32, 5)];
                area.draw(&Rectangle::new(corners, fill)).map_err(refused)
            }
            Self::Ring => area.draw(&ring(at(22, 0), scale)).map_err(refused),
            Self::Band => {
                let fill = FAINT.mix(0.4).filled();
                let corners = [at(0, -6), at(44, 6)];
                area.draw(&Rectangle::new(corners, fill)).map_err(refused)
            }
            Self::Thin => line(&[(0, 0), (44, 0)], FAINT, 1),
            Self::Dot => {
                let dot = Circle::new(at(22, 0), 2 * scale, FAINT.filled());
                area.draw(&dot).map_err(refused)
            }
            Self::Bar => {
                line(&[(22, -8), (22, 8)], GREY, 1)?;
                line(&[(18, -8), (26, -8)], GREY, 1)?;
                line(&[(18, 8), (26, 8)], GREY, 1)
            }
            Self::Whisker | Self::ThinWhisker => {
                let width = if self == Self::Whisker { 2 } else { 1 };
                line(&[(4, 0), (40, 0)], GREY, width)?;
                line(&[(4, -4), (4, 4)], GREY, width)?;
                line(&[(40, -4), (40, 4)], GREY, width)
            }
            Self::Rule => {
                for dx in (0..44).step_by(8) {
                    line(&[(dx, 0), (dx + 4, 0)], INK, 1)?;
                }
                Ok(())
            }
        }
    }
}

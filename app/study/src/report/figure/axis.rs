//! `axis`: loss of the old data before, and when the new has first been learned as well by every arm, along one axis of
//! a sweep; below it what was forgotten.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::super::mean::Mean;
use super::super::numbers::nats;
use super::super::sweep::{AxisStudy, Cell, Row, Seen};
use super::error::{FigureError, refused};
use super::legend::{Legend, Sample};
use super::panel::{Axis, WIDTH, frame, heading, heading_height, note, note_height, upright, zero};
use super::picture::Picture;
use super::style::{INK, draw_line, draw_marker};

const PANEL: u32 = 236;
/// Arms without replay stand in the upper panel alone where they forget so many times as much as any other.
const FAR: f64 = 4.0;
/// Colour and marker of the loss before; arms follow.
const BEFORE: usize = 6;

/// The figure of a study.
pub(super) struct AxisFigure(pub(super) AxisStudy);

/// What is drawn of an arm: its places, with means over seeds.
type Curve = Vec<(f64, Mean)>;

impl AxisFigure {
    fn title(&self) -> String {
        let study = &self.0;
        format!(
            "{}, when {} first has {} nats",
            study.experiment,
            study.new,
            nats(study.level)
        )
    }

    /// A number of every arm along the axis, and the place of the arm among them.
    fn curves(
        &self,
        of: impl Fn(&Seen) -> f64,
        wanted: impl Fn(usize) -> bool,
    ) -> Vec<(usize, Curve)> {
        let point = |i: usize, row: &Row| {
            let values = row.cells[i].as_ref()?.each(&of)?;
            Some((row.at, Mean::of(&values)?))
        };
        let arms = (0..self.0.arms.len()).filter(|&i| wanted(i));
        let curve = |i: usize| {
            let points = self.0.rows.iter().filter_map(|row| point(i, row));
            (i, points.collect::<Curve>())
        };
        arms.map(curve)
            .filter(|(_, curve)| !curve.is_empty())
            .collect()
    }

    /// Whether an arm stands in the lower panel, too.
    fn is_near(&self, arm: usize) -> bool {
        let cells = |i: usize| {
            self.0
                .rows
                .iter()
                .filter_map(move |row| row.cells[i].as_ref())
        };
        let is_plain = |i: usize| cells(i).all(|cell| cell.is_plain);
        let most = |i: usize| {
            let forgot = cells(i)
                .filter_map(|cell: &Cell| cell.each(Seen::forgot))
                .flatten();
            forgot.reduce(f64::max)
        };
        let others = (0..self.0.arms.len())
            .filter(|&i| !is_plain(i))
            .filter_map(most);
        match (others.reduce(f64::max), most(arm)) {
            (Some(others), Some(own)) if is_plain(arm) => own < FAR * others,
            _ => true,
        }
    }

    fn legend(&self) -> Legend {
        let mut legend = Legend::default();
        legend.add(Sample::Line(BEFORE), "before");
        for (i, _) in self.curves(|seen| seen.old, |_| true) {
            legend.add(Sample::Line(i), self.0.arms[i].clone());
        }
        if self.0.rows.iter().any(|row| row.best.is_some()) {
            legend.add(Sample::Ring, "forgot least");
        }
        if self.0.rows.iter().any(|row| row.before.len() > 1) {
            legend.add(Sample::Bar, "95 % interval over seeds");
        }
        legend
    }

    fn note(&self) -> String {
        let mut notes = Vec::new();
        let never = self.0.never();
        if !never.is_empty() {
            notes.push(format!("Not with every seed: {}.", never.join("; ")));
        }
        if !self.0.missing.is_empty() {
            notes.push(format!("Nothing to tell of {}.", self.0.missing.join(", ")));
        }
        notes.join(" ")
    }

    fn across(&self) -> Option<Axis> {
        let study = &self.0;
        let place = |row: &Row| (row.at, study.axis.label(row.at));
        let places: Vec<(f64, String)> = study.rows.iter().map(place).collect();
        Axis::of_places(&study.axis.name, &places)
    }

    fn draw_losses<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let before = self.0.rows.iter();
        let before = before.filter_map(|row| Some((row.at, Mean::of(&row.before)?)));
        let mut curves = vec![(BEFORE, before.collect::<Curve>())];
        curves.extend(self.curves(|seen| seen.old, |_| true));
        self.draw_panel(area, ("old loss", false), &curves, scale)
    }

    fn draw_forgetting<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let curves = self.curves(Seen::forgot, |arm| self.is_near(arm));
        let title = match (0..self.0.arms.len()).all(|arm| self.is_near(arm)) {
            true => "forgetting",
            false => "forgetting with replay",
        };
        self.draw_panel(area, (title, true), &curves, scale)
    }

    fn draw_panel<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        (title, rings): (&str, bool),
        curves: &[(usize, Curve)],
        scale: u32,
    ) -> Result<(), FigureError> {
        let means = curves.iter().flat_map(|(_, curve)| curve);
        let y = Axis::linear("nats", means.flat_map(|(_, mean)| mean.extent()));
        let (Some(x), Some(y)) = (self.across(), y) else {
            return Ok(());
        };
        let mut chart = frame(area, title, (&x, &y), scale)?;
        zero(&mut chart, (&x, &y), scale)?;
        for (i, curve) in curves {
            let points: Vec<_> = curve
                .iter()
                .map(|(at, mean)| (x.place(*at), mean.value))
                .collect();
            if points.len() > 1 {
                draw_line(&mut chart, &points, *i, scale)?;
            }
            for ((at, mean), point) in curve.iter().zip(points) {
                upright(&mut chart, x.place(*at), mean, *i, scale)?;
                draw_marker(&mut chart, point, *i, scale)?;
                let is_best = |row: &Row| row.at == *at && row.best == Some(*i);
                if rings && self.0.rows.iter().any(is_best) {
                    let circle =
                        Circle::new((0, 0), 9 * scale, ShapeStyle::from(INK).stroke_width(scale));
                    chart
                        .draw_series([EmptyElement::at(point) + circle])
                        .map_err(refused)?;
                }
            }
        }
        Ok(())
    }
}

impl Picture for AxisFigure {
    fn size(&self) -> (u32, u32) {
        let texts = heading_height(&self.title()) + note_height(&self.note());
        (WIDTH, texts + 2 * PANEL + self.legend().height(WIDTH))
    }

    fn draw<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let rest = heading(root, &self.title(), scale)?;
        let (losses, rest) = rest.split_vertically(PANEL * scale);
        let (forgetting, rest) = rest.split_vertically(PANEL * scale);
        self.draw_losses(&losses, scale)?;
        self.draw_forgetting(&forgetting, scale)?;
        let rest = note(&rest, &self.note(), scale)?;
        self.legend().draw(&rest, WIDTH, scale)
    }
}

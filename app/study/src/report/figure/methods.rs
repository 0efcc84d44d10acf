//! `methods`: log-likelihood of the old data against that of the new, one marker an arm.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::super::mean::Mean;
use super::super::methods::Methods;
use super::super::numbers::fixed;
use super::error::{FigureError, refused};
use super::legend::{Legend, Sample};
use super::panel::{Axis, OnePanel, cross, frame, rule};
use super::style::{INK, draw_marker};

/// The start is drawn where it lies no further from the arms than this share of their range.
const NEAR: f64 = 0.6;

/// The figure of a run.
pub(super) struct MethodsFigure(pub(super) Methods);

/// A place in the plane: log-likelihood of the new and of the old data.
type At = (Mean, Mean);

/// The log-likelihoods of losses.
fn likelihood(losses: &[f64]) -> Option<Mean> {
    Mean::of(&losses.iter().map(|loss| -loss).collect::<Vec<_>>())
}

impl MethodsFigure {
    /// The arms with a place.
    fn places(&self) -> Vec<(usize, At)> {
        let arms = self.0.arms.iter().enumerate();
        let place = |(i, arm): (usize, &super::super::methods::Method)| {
            Some((i, (likelihood(&arm.new)?, likelihood(&arm.old)?)))
        };
        arms.filter_map(place).collect()
    }

    fn start(&self) -> Option<At> {
        let [new, old] = &self.0.before;
        Some((likelihood(new)?, likelihood(old)?))
    }

    /// The log-likelihood of the new data before, where it lies near enough to the arms' to be drawn.
    fn near_start(&self) -> Option<f64> {
        let start = self.start()?.0.value;
        let news: Vec<f64> = self
            .places()
            .iter()
            .map(|(_, (new, _))| new.value)
            .collect();
        let (least, most) = news
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| {
                (a.min(v), b.max(v))
            });
        let room = NEAR * (most - least);
        (least - room..=most + room)
            .contains(&start)
            .then_some(start)
    }
}

impl OnePanel for MethodsFigure {
    const HEIGHT: u32 = 330;

    fn title(&self) -> String {
        format!("{}: log-likelihood after finetuning", self.0.title)
    }

    fn note(&self) -> String {
        let unfinished = self.0.unfinished.join(", ");
        match unfinished.is_empty() {
            true => String::new(),
            false => format!("Not finished with every seed: {unfinished}."),
        }
    }

    fn legend(&self) -> Legend {
        let mut legend = Legend::default();
        for (i, _) in self.places() {
            legend.add(Sample::Marker(i), self.0.arms[i].name.clone());
        }
        if self.near_start().is_some() {
            legend.add(Sample::Ring, "before");
        } else {
            let far = self.0.before.each_ref().map(|losses| likelihood(losses));
            let [new, old] = far.map(|far| far.map_or(f64::NAN, |far| far.value));
            let said = |value: f64| fixed(value, 2).replace('-', "−");
            legend.add(
                Sample::Rule,
                format!("before: old {}, new {}", said(old), said(new)),
            );
        }
        if self.0.before[0].len() > 1 {
            legend.add(Sample::Bar, "95 % interval over seeds");
        }
        legend
    }

    fn draw_panel<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let (places, near) = (self.places(), self.near_start());
        let xs = places
            .iter()
            .flat_map(|(_, (new, _))| new.extent())
            .chain(near);
        let before = self.start().map(|(_, old)| old.value);
        let ys = places
            .iter()
            .flat_map(|(_, (_, old))| old.extent())
            .chain(before);
        let words = |role: &str, data: &str| format!("{role} data ({data}), nats");
        let x = Axis::linear(&words("new", &self.0.new), xs);
        let y = Axis::linear(&words("old", &self.0.old), ys);
        let (Some(x), Some(y)) = (x, y) else {
            return Ok(());
        };
        let mut chart = frame(area, "", (&x, &y), scale)?;
        let [left, right] = x.ends();
        if let Some((new, old)) = self.start() {
            let ends = [(left, old.value), (right, old.value)];
            rule(&mut chart, ends, INK, scale)?;
            if near.is_some() {
                let ring = Circle::new(
                    (0, 0),
                    9 * scale,
                    ShapeStyle::from(INK).stroke_width(2 * scale),
                );
                let ring = EmptyElement::at((new.value, old.value)) + ring;
                chart.draw_series([ring]).map_err(refused)?;
            }
        }
        for (i, (new, old)) in &places {
            cross(&mut chart, (new, old), *i, scale)?;
        }
        for (i, (new, old)) in &places {
            draw_marker(&mut chart, (new.value, old.value), *i, scale)?;
        }
        Ok(())
    }
}

//! `speed`: loss of the old data against the steps that an arm took to learn the new as well as the others.
//!
//! One curve for arms that differ in one number alone: finetuning rates of plain training, shares or coefficients of a
//! way of replay. Steps are on a logarithmic axis.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::run::RunState;
use crate::stats;

use super::super::arms::ArmSeeds;
use super::super::equal_terms::{level, old_loss_before, steps_and_loss};
use super::super::numbers::{human_count, nats};
use super::super::series::{Place, place};
use super::arms::{Mean, arms};
use super::error::{FigureError, refused};
use super::legend::{Legend, Sample};
use super::picture::Picture;
use super::style::{
    GRID, INK, Panel, TITLE, colour, draw_line, draw_marker, draw_title, style, text_width,
    write_text,
};

const PLOT: (u32, u32) = (760, 460);
const AXIS: u32 = 46;
const SCALE_Y: u32 = 62;
const NAME: u32 = 12;

/// The figure of a run.
pub(super) struct Speed {
    title: String,
    curves: Vec<Curve>,
    /// Arms with a seed that never learned as much.
    never: Vec<String>,
    /// Loss of the old data before the phase.
    before: f64,
    seeds: usize,
}

/// Arms that differ in one number.
struct Curve {
    name: String,
    points: Vec<Point>,
}

/// An arm at the level: means over its seeds.
struct Point {
    /// What sets it apart from the others of its curve.
    label: String,
    steps: f64,
    old: Mean,
}

impl Speed {
    /// The figure of a run; `None` where no two arms make a curve.
    pub(super) fn of(state: &RunState) -> Option<Self> {
        let arms = arms(state);
        let all: Vec<ArmSeeds> = arms.into_iter().map(|arm| arm.of).collect();
        let level = level(&all, all.first()?)?;
        let last = state.phases.len().checked_sub(1).filter(|&last| last > 0)?;
        let (mut curves, mut never) = (Vec::<Curve>::new(), Vec::new());
        for arm in &all {
            let found = steps_and_loss(arm, level);
            let Some((_, own)) = arm.counted().first().copied() else {
                continue;
            };
            if found.len() < arm.counted().len() {
                never.push(arm.name.clone());
                continue;
            }
            let steps: Vec<f64> = found.iter().map(|&(steps, _)| steps).collect();
            let olds: Vec<f64> = found.iter().map(|&(_, old)| old).collect();
            // Geometric, as the axis is.
            let logs: Vec<f64> = steps.iter().map(|steps| steps.max(1.0).ln()).collect();
            let (Some(log), Some(old)) = (Mean::of(&logs), Mean::of(&olds)) else {
                continue;
            };
            let Place {
                series: name,
                label,
                ..
            } = place(&own.info);
            let point = Point {
                label,
                steps: log.value.exp(),
                old,
            };
            match curves.iter_mut().find(|curve| curve.name == name) {
                Some(curve) => curve.points.push(point),
                None => curves.push(Curve {
                    name,
                    points: vec![point],
                }),
            }
        }
        let starts: Vec<f64> = all.iter().flat_map(old_loss_before).collect();
        let before = stats::mean(&starts)?;
        let new = &state.phases[last].dataset;
        let several = curves.iter().any(|curve| curve.points.len() > 1);
        several.then(|| Self {
            title: format!(
                "{}: old loss and steps when {new} first has {} nats",
                state.title(),
                nats(level)
            ),
            curves,
            never,
            before,
            seeds: all.iter().map(|arm| arm.counted().len()).max().unwrap_or(0),
        })
    }

    fn legend(&self) -> Legend {
        let mut legend = Legend::default();
        for (i, curve) in self.curves.iter().enumerate() {
            let sample = match curve.points.len() {
                1 => Sample::Marker(i),
                _ => Sample::Line(i),
            };
            legend.add(sample, curve.name.clone());
        }
        legend.add(Sample::Rule, "before the phase");
        if self.seeds > 1 {
            legend.add(Sample::Bar, "95 % interval of the mean over seeds (t)");
        }
        legend
    }

    /// Ends of the axes: logarithms to the base 10 of steps, and losses.
    fn ranges(&self) -> (Range<f64>, Range<f64>) {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let ends = |values: &mut dyn Iterator<Item = f64>, room: f64| {
            let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
                (f64::min(a, v), f64::max(b, v))
            });
            let room = room * (most - least).max(0.1);
            least - room..most + room
        };
        let x = ends(&mut points().map(|point| point.steps.log10()), 0.12);
        let losses = points().flat_map(|point| point.old.extent());
        let y = ends(&mut losses.chain([self.before]), 0.08);
        (x, y)
    }

    fn draw_plot<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let (x, y) = self.ranges();
        let across = x.clone();
        let mut chart = ChartBuilder::on(area)
            .margin_left(14 * scale)
            .margin_right(20 * scale)
            .margin_top(8 * scale)
            .x_label_area_size(AXIS * scale)
            .y_label_area_size(SCALE_Y * scale)
            .build_cartesian_2d(x, y)
            .map_err(refused)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(ShapeStyle::from(INK).stroke_width(scale))
            .y_label_formatter(&|loss| format!("{loss:.2}"))
            .label_style(style(12, &INK, scale))
            .axis_desc_style(style(13, &INK, scale))
            .x_desc("steps of the phase, logarithmic")
            .y_desc("loss of old data, nats per token")
            .draw()
            .map_err(refused)?;
        draw_steps(&mut chart, &across, scale)?;
        let ends = [(across.start, self.before), (across.end, self.before)];
        let rule = ShapeStyle::from(INK).stroke_width(scale);
        let rule = DashedLineSeries::new(ends, 4 * scale, 4 * scale, rule);
        chart.draw_series(rule).map_err(refused)?;
        for (i, curve) in self.curves.iter().enumerate() {
            let points: Vec<_> = curve.points.iter().map(Point::at).collect();
            if points.len() > 1 {
                draw_line(&mut chart, &points, i, scale)?;
            }
            for point in &curve.points {
                draw_bar(&mut chart, point, i, scale)?;
                draw_marker(&mut chart, point.at(), i, scale)?;
                let text = Text::new(
                    point.label.clone(),
                    (8 * scale as i32, -16 * scale as i32),
                    style(NAME, &INK, scale),
                );
                chart
                    .draw_series([EmptyElement::at(point.at()) + text])
                    .map_err(refused)?;
            }
        }
        Ok(())
    }

    fn note(&self) -> Option<String> {
        let names = self.never.join(", ");
        (!self.never.is_empty()).then(|| format!("never reached it: {names}"))
    }
}

impl Point {
    fn at(&self) -> (f64, f64) {
        (self.steps.log10(), self.old.value)
    }
}

/// The marks of a logarithmic axis, at 1, 2 and 5 times powers of ten, with lines through the plot.
fn draw_steps<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    across: &Range<f64>,
    scale: u32,
) -> Result<(), FigureError> {
    let bottom = chart.y_range().start;
    let top = chart.y_range().end;
    let powers = across.start.floor() as i32..=across.end.ceil() as i32;
    let marks = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * 10_f64.powi(power)));
    for steps in marks.filter(|steps| across.contains(&steps.log10())) {
        let x = steps.log10();
        let line = PathElement::new(
            vec![(x, bottom), (x, top)],
            ShapeStyle::from(GRID).stroke_width(scale),
        );
        chart.draw_series([line]).map_err(refused)?;
        let text = human_count(steps as u64);
        let left = -(text_width(&text, NAME) as i32) / 2;
        let place = (left * scale as i32, 6 * scale as i32);
        let text = Text::new(text, place, style(NAME, &INK, scale));
        chart
            .draw_series([EmptyElement::at((x, bottom)) + text])
            .map_err(refused)?;
    }
    Ok(())
}

/// The interval of a point, upright.
fn draw_bar<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    point: &Point,
    index: usize,
    scale: u32,
) -> Result<(), FigureError> {
    let Some(interval) = point.old.interval else {
        return Ok(());
    };
    let (x, _) = point.at();
    let ends = vec![(x, interval.low), (x, interval.high)];
    let bar = ShapeStyle::from(colour(index)).stroke_width(scale);
    chart
        .draw_series([PathElement::new(ends, bar)])
        .map_err(refused)?;
    Ok(())
}

impl Picture for Speed {
    fn size(&self) -> (u32, u32) {
        let (width, height) = PLOT;
        let note = if self.note().is_some() { 24 } else { 0 };
        (width, TITLE + height + note + self.legend().height(width))
    }

    fn draw<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let (width, _) = self.size();
        let rest = draw_title(root, &self.title, width, scale)?;
        let (plot, mut below) = rest.split_vertically(PLOT.1 * scale);
        self.draw_plot(&plot, scale)?;
        if let Some(note) = self.note() {
            let (line, legend) = below.split_vertically(24 * scale);
            let left = (width.saturating_sub(text_width(&note, NAME)) / 2) as i32;
            write_text(&line, &note, (left, 4), NAME, &INK, scale)?;
            below = legend;
        }
        self.legend().draw(&below, width, scale)
    }
}

#[cfg(test)]
mod tests {
    use super::super::picture::svg;
    use super::*;
    use crate::run::fixture;

    /// Else the price of a low rate would be drawn among other arms, or a share be read as a coefficient.
    #[test]
    fn arms_that_differ_in_one_number_make_a_curve() {
        let mut state = fixture::state();
        assert!(Speed::of(&state).is_none(), "two arms of two kinds");
        let mut lower = state.arms[0].clone();
        lower.info.name = "none+lr=1e-3".into();
        lower.info.lr = 1e-3;
        state.arms.insert(1, lower);
        let mut larger = state.arms[0].clone();
        larger.info.name = "none+batch=48".into();
        state.arms.push(larger);
        for (at, coeff) in [(2, 0.0625), (3, 0.3)] {
            let mut arm = state.arms[2].clone();
            arm.info.name = format!("true-data:replace:{coeff}");
            arm.info.strategy = "true-data".into();
            arm.info.objective = "replace".into();
            arm.info.coeff = Some(coeff);
            state.arms.insert(at, arm);
        }
        let speed = Speed::of(&state).expect("a figure");
        let labels = |curve: &Curve| -> Vec<String> {
            curve
                .points
                .iter()
                .map(|point| point.label.clone())
                .collect()
        };
        let names: Vec<&str> = speed
            .curves
            .iter()
            .map(|curve| curve.name.as_str())
            .collect();
        assert_eq!(names[..2], ["none", "true-data:replace, lr 3e-3"]);
        assert_eq!(labels(&speed.curves[0]), ["lr 3e-3", "lr 1e-3"]);
        assert_eq!(labels(&speed.curves[1]), ["1/16", "30 %"]);
        let text = svg(&speed).expect("drawn");
        for word in ["lr 1e-3", "1/16", "loss of old data"] {
            assert!(text.contains(word), "{word}");
        }
    }
}

//! `regression`: the functions of a regression along the line, before the second phase and at its end, one panel an arm.
//!
//! A panel shows one seed, the first that has come to its end: its points and functions are its own.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::run::{ArmState, Curve, RunState};

use super::arms::arms;
use super::error::{FigureError, refused};
use super::legend::{Legend, Sample};
use super::picture::Picture;
use super::style::{
    FAINT, GRID, INK, Panel, TITLE, draw_band, draw_line, draw_title, fitted, style,
};

/// A panel: wide enough for a column of a paper, whose text stays legible at half its size.
const PANEL: (u32, u32) = (560, 270);
const CAPTION: u32 = 17;
const LABEL: u32 = 14;
/// Places of the palette: solid blue and dashed vermilion.
const AFTER: usize = 0;
const BEFORE: usize = 1;
/// Room above and below the targets, as a share of their span: what lies beyond is cut off.
const ROOM: f64 = 0.2;

/// The figure of a run.
pub(super) struct Regression<'a> {
    title: String,
    panels: Vec<(String, &'a [Curve])>,
}

impl<'a> Regression<'a> {
    /// The figure of a run; `None` where no arm has drawn its functions.
    pub(super) fn of(state: &'a RunState) -> Option<Self> {
        let several = state.has_several_seeds();
        let mut panels = Vec::new();
        for arm in arms(state) {
            let has_drawn = |own: &&&ArmState| find(&own.drawn, "after").is_some();
            if let Some(own) = arm.seeds.iter().find(has_drawn) {
                let seed = match several {
                    true => format!(", seed {}", own.info.seed),
                    false => String::new(),
                };
                panels.push((format!("{}{seed}", arm.name()), &*own.drawn));
            }
        }
        let title = format!("{}: before and after", state.title());
        (!panels.is_empty()).then_some(Self { title, panels })
    }

    /// Columns and rows of panels.
    fn layout(&self) -> (u32, u32) {
        let panels = self.panels.len() as u32;
        let columns = if panels > 3 { 2 } else { 1 };
        (columns, panels.div_ceil(columns))
    }

    fn legend() -> Legend {
        let mut legend = Legend::default();
        legend.add(Sample::Stroke(BEFORE), "before: median, quartiles");
        legend.add(Sample::Stroke(AFTER), "after: median, quartiles");
        legend.add(Sample::Rule, "targets");
        legend.add(Sample::Dot, "training points");
        legend
    }

    /// Ends of the axes, the same for all panels: all of the line; the targets and points, with room.
    fn ranges(&self) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
        let ends = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
                (f64::min(a, v), f64::max(b, v))
            })
        };
        let curves = || self.panels.iter().flat_map(|(_, curves)| curves.iter());
        let (from, to) = ends(&mut curves().flat_map(|curve| curve.x.iter().copied()));
        let fixed = curves().filter(|curve| !matches!(&*curve.name, "before" | "after"));
        let (least, most) = ends(&mut fixed.flat_map(|curve| curve.y.iter().copied()));
        let room = ROOM * (most - least).max(1e-3);
        (from..to, least - room..most + room)
    }

    fn draw_panel<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        (title, curves): &(String, &[Curve]),
        scale: u32,
    ) -> Result<(), FigureError> {
        let (x, y) = self.ranges();
        let (bottom, top) = (y.start, y.end);
        let title = fitted(title, CAPTION, PANEL.0 - 40);
        let mut chart = ChartBuilder::on(area)
            .caption(title, style(CAPTION, &INK, scale))
            .margin(6 * scale)
            .margin_right(16 * scale)
            .x_label_area_size(40 * scale)
            .y_label_area_size(52 * scale)
            .build_cartesian_2d(x, y)
            .map_err(refused)?;
        chart
            .configure_mesh()
            .x_labels(7)
            .y_labels(6)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(ShapeStyle::from(INK).stroke_width(scale))
            .x_label_formatter(&|x| format!("{:.0}", x + 0.0))
            .y_label_formatter(&|y| format!("{:.0}", y + 0.0))
            .label_style(style(LABEL, &INK, scale))
            .axis_desc_style(style(LABEL, &INK, scale))
            .x_desc("x")
            .y_desc("f(x)")
            .draw()
            .map_err(refused)?;
        let within = |y: f64| y.clamp(bottom, top);
        for (name, index) in [("before", BEFORE), ("after", AFTER)] {
            if let Some(curve) = find(curves, name) {
                let edges = curve.x.iter().zip(curve.low.iter().zip(&curve.high));
                let edges = edges.map(|(x, (low, high))| (*x, within(*low), within(*high)));
                draw_band(&mut chart, &edges.collect::<Vec<_>>(), index)?;
            }
        }
        for name in ["old points", "new points"] {
            let dot = |(x, y)| Circle::new((x, within(y)), 2 * scale, FAINT.filled());
            let points = find(curves, name).map_or_else(Vec::new, points);
            chart
                .draw_series(points.into_iter().map(dot))
                .map_err(refused)?;
        }
        for (name, index) in [("before", BEFORE), ("after", AFTER)] {
            for piece in find(curves, name).map_or_else(Vec::new, |c| inside(c, bottom, top)) {
                draw_line(&mut chart, &piece, index, scale)?;
            }
        }
        for name in ["old target", "new target"] {
            draw_target(&mut chart, find(curves, name), scale)?;
        }
        Ok(())
    }
}

fn find<'c>(curves: &'c [Curve], name: &str) -> Option<&'c Curve> {
    curves.iter().find(|curve| curve.name == name)
}

fn points(curve: &Curve) -> Vec<(f64, f64)> {
    curve
        .x
        .iter()
        .copied()
        .zip(curve.y.iter().copied())
        .collect()
}

/// The pieces of a curve that lie within the axes.
fn inside(curve: &Curve, bottom: f64, top: f64) -> Vec<Vec<(f64, f64)>> {
    let points = points(curve);
    let pieces = points.split(|(_, y)| !(bottom..=top).contains(y));
    let pieces = pieces.filter(|piece| piece.len() > 1);
    pieces.map(<[_]>::to_vec).collect()
}

/// Draws the target on its interval, over everything else.
fn draw_target<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    curve: Option<&Curve>,
    scale: u32,
) -> Result<(), FigureError> {
    let line = curve.map_or_else(Vec::new, points);
    let ink = ShapeStyle::from(INK).stroke_width(scale);
    let series = DashedLineSeries::new(line, 4 * scale, 4 * scale, ink);
    chart.draw_series(series).map_err(refused)?;
    Ok(())
}

impl Picture for Regression<'_> {
    fn size(&self) -> (u32, u32) {
        let (columns, rows) = self.layout();
        let width = columns * PANEL.0;
        (width, TITLE + rows * PANEL.1 + Self::legend().height(width))
    }

    fn draw<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let (columns, rows) = self.layout();
        let width = columns * PANEL.0;
        let rest = draw_title(root, &self.title, width, scale)?;
        let (panels, legend) = rest.split_vertically(rows * PANEL.1 * scale);
        let areas = panels.split_evenly((rows as usize, columns as usize));
        for (panel, area) in self.panels.iter().zip(&areas) {
            self.draw_panel(area, panel, scale)?;
        }
        Self::legend().draw(&legend, width, scale)
    }
}

#[cfg(test)]
mod tests {
    use super::super::picture::svg;
    use super::*;
    use crate::run::fixture;

    fn curve(name: &str, y: &[f64]) -> Curve {
        Curve {
            name: name.into(),
            x: (0..y.len()).map(|x| x as f64).collect(),
            y: y.to_vec(),
            low: y.iter().map(|y| y - 0.1).collect(),
            high: y.iter().map(|y| y + 0.1).collect(),
        }
    }

    /// Else a function that flies off would squeeze all others flat, or be drawn where it is not.
    #[test]
    fn axes_are_those_of_the_targets_and_what_leaves_them_is_cut() {
        let mut state = fixture::state();
        assert!(Regression::of(&state).is_none(), "nothing was drawn");
        state.arms[0].drawn = vec![
            curve("old target", &[-1.0, 1.0]),
            curve("before", &[0.0, 0.5, 0.2]),
            curve("after", &[0.0, 0.5, 900.0, 0.1, 0.3]),
        ];
        let figure = Regression::of(&state).unwrap();
        assert_eq!(figure.panels.len(), 1, "one arm has drawn");
        let (x, y) = figure.ranges();
        assert_eq!((x.start, x.end), (0.0, 4.0));
        assert!((y.start, y.end) == (-1.4, 1.4), "{y:?}");
        let pieces = inside(&state.arms[0].drawn[2], y.start, y.end);
        assert_eq!(
            pieces,
            [vec![(0.0, 0.0), (1.0, 0.5)], vec![(3.0, 0.1), (4.0, 0.3)]]
        );
        let text = svg(&figure).unwrap();
        for word in ["none", "before: median", "training points"] {
            assert!(text.contains(word), "{word}");
        }
    }
}

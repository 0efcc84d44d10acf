//! Drawing of figures, and `figures/accuracy`: every dataset's accuracy against the step, one panel per
//! arm.
//!
//! Each dataset has its own colour (Okabe-Ito, safe for colour-blind eyes), marker and dashes, so the
//! figure also works in print. The font is embedded: every machine draws the same picture.

use std::sync::OnceLock;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::run::{ArmState, RunState};

/// Failure to draw a figure.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// The drawing library refused.
    #[error("{0}")]
    Drawing(String),
    /// The picture could not be encoded.
    #[error("encoding the PNG: {0}")]
    Png(#[from] png::EncodingError),
}

pub(super) type Panel<'a, DB> = ChartContext<'a, DB, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

pub(super) const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];

/// Dash and gap, in pixels; no gap is a solid line.
const DASHES: [(u32, u32); 4] = [(1, 0), (12, 5), (3, 4), (7, 3)];

pub(super) const INK: RGBColor = RGBColor(40, 40, 40);
const GREY: RGBColor = RGBColor(90, 90, 90);
const FAINT: RGBColor = RGBColor(150, 150, 150);
const PANEL: (u32, u32) = (620, 330);
const TITLE: u32 = 46;
const LEGEND: u32 = 40;
/// Markers along a line, at most.
const MARKERS: usize = 10;

/// A picture that any backend can draw, at any scale.
pub(super) trait Picture {
    /// Width and height at scale 1.
    fn size(&self) -> (u32, u32);

    /// Draws the picture; the background is already white.
    fn draw<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError>;
}

/// A picture as SVG.
pub(super) fn svg(picture: &impl Picture) -> Result<String, FigureError> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, picture.size()).into_drawing_area();
        draw_on(&root, picture, 1)?;
    }
    Ok(text)
}

/// A picture as PNG, at twice the resolution of the SVG's nominal size.
pub(super) fn png(picture: &impl Picture) -> Result<Vec<u8>, FigureError> {
    const SCALE: u32 = 2;
    let (width, height) = picture.size();
    let (width, height) = (width * SCALE, height * SCALE);
    let mut pixels = vec![0; width as usize * height as usize * 3];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        draw_on(&root, picture, SCALE)?;
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(bytes)
}

fn draw_on<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    picture: &impl Picture,
    scale: u32,
) -> Result<(), FigureError> {
    font()?;
    root.fill(&WHITE).map_err(refused)?;
    picture.draw(root, scale)?;
    root.present().map_err(refused)
}

/// Every dataset's accuracy against the step, one panel per arm.
pub(super) struct Accuracy<'a>(pub &'a RunState);

impl Picture for Accuracy<'_> {
    fn size(&self) -> (u32, u32) {
        let (columns, rows) = layout(self.0);
        (columns * PANEL.0, TITLE + rows * PANEL.1 + LEGEND)
    }

    fn draw<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let state = self.0;
        let (columns, rows) = layout(state);
        let (title, rest) = root.split_vertically(TITLE * scale);
        let text = format!(
            "{} ({}): accuracy of every dataset",
            state.experiment, state.preset
        );
        write_text(&title, &text, (16, 14), 22, &INK, scale)?;
        let (panels, legend) = rest.split_vertically(rows * PANEL.1 * scale);
        let panels = panels.split_evenly((rows as usize, columns as usize));
        for (arm, area) in state.arms.iter().zip(&panels) {
            panel(area, state, arm, scale)?;
        }
        draw_legend(&legend, &state.datasets(), scale)
    }
}

fn layout(state: &RunState) -> (u32, u32) {
    let panels = state.arms.len().max(1) as u32;
    let columns = if panels == 1 { 1 } else { 2 };
    (columns, panels.div_ceil(columns))
}

fn panel<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    state: &RunState,
    arm: &ArmState,
    scale: u32,
) -> Result<(), FigureError> {
    let steps = state.total_steps().max(1) as f64;
    let seed = if state.has_several_seeds() {
        format!(", seed {}", arm.info.seed)
    } else {
        String::new()
    };
    let ended = if arm.status.is_over() || arm.evaluations.is_empty() {
        match arm.status.word() {
            "finished" => String::new(),
            word => format!(" ({word})"),
        }
    } else {
        format!(" (step {} of {steps})", arm.step)
    };
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("{}{seed}{ended}", arm.info.name),
            style(16, &INK, scale),
        )
        .margin(8 * scale)
        .margin_right(20 * scale)
        .x_label_area_size(40 * scale)
        .y_label_area_size(52 * scale)
        .build_cartesian_2d(0.0..steps, -4.0..116.0)
        .map_err(refused)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .y_labels(6)
        .x_labels(7)
        .bold_line_style(RGBColor(225, 225, 225))
        .light_line_style(TRANSPARENT)
        .axis_style(ShapeStyle::from(INK).stroke_width(scale))
        .y_label_formatter(&|y| {
            if *y > 100.5 {
                String::new()
            } else {
                format!("{y:.0}")
            }
        })
        .x_label_formatter(&|x| format!("{x:.0}"))
        .label_style(style(12, &INK, scale))
        .axis_desc_style(style(13, &INK, scale))
        .x_desc("optimizer step")
        .y_desc("accuracy, %")
        .draw()
        .map_err(refused)?;
    draw_phases(&mut chart, state, scale)?;
    for (index, dataset) in state.datasets().into_iter().enumerate() {
        let points: Vec<(f64, f64)> = arm
            .evaluations
            .iter()
            .filter_map(|e| Some((e.step as f64, e.score(dataset)?.accuracy? * 100.0)))
            .collect();
        draw_curve(&mut chart, &points, index, scale)?;
    }
    Ok(())
}

/// A vertical line where a phase begins, and above each phase the dataset it trains.
fn draw_phases<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    state: &RunState,
    scale: u32,
) -> Result<(), FigureError> {
    let mut start = 0.0;
    for (index, phase) in state.phases.iter().enumerate() {
        if index > 0 {
            let rule = [(start, -4.0), (start, 116.0)];
            let style = ShapeStyle::from(FAINT).stroke_width(scale);
            chart
                .draw_series(DashedLineSeries::new(rule, 4 * scale, 4 * scale, style))
                .map_err(refused)?;
        }
        let label = Text::new(
            phase.dataset.clone(),
            (start + phase.steps as f64 / 2.0, 109.0),
            style(12, &GREY, scale).pos(centred()),
        );
        chart.draw_series([label]).map_err(refused)?;
        start += phase.steps as f64;
    }
    Ok(())
}

fn draw_curve<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    points: &[(f64, f64)],
    index: usize,
    scale: u32,
) -> Result<(), FigureError> {
    draw_line(chart, points, index, scale)?;
    // Markers of different datasets stand at different steps where there are enough.
    let every = points.len().div_ceil(MARKERS).max(1);
    let marked = points.iter().skip(index * every / 4 % every).step_by(every);
    let colour = COLOURS[index % COLOURS.len()];
    let markers =
        marked.map(|&at| EmptyElement::at(at) + Polygon::new(marker(index, scale), colour));
    chart.draw_series(markers).map_err(refused)?;
    Ok(())
}

/// Draws a line in the colour and dashes of `index`.
pub(super) fn draw_line<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    points: &[(f64, f64)],
    index: usize,
    scale: u32,
) -> Result<(), FigureError> {
    let line = ShapeStyle::from(COLOURS[index % COLOURS.len()]).stroke_width(2 * scale);
    let (dash, gap) = DASHES[index % DASHES.len()];
    if gap == 0 {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), line))
            .map_err(refused)?;
    } else {
        let series = DashedLineSeries::new(points.iter().copied(), dash * scale, gap * scale, line);
        chart.draw_series(series).map_err(refused)?;
    }
    Ok(())
}

fn draw_legend<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    datasets: &[&str],
    scale: u32,
) -> Result<(), FigureError> {
    let k = scale as i32;
    let mut x = 24;
    for (index, dataset) in datasets.iter().enumerate() {
        let line = ShapeStyle::from(COLOURS[index % COLOURS.len()]).stroke_width(2 * scale);
        let (dash, gap) = DASHES[index % DASHES.len()];
        let (from, to, y) = (x, x + 44, 16);
        let mut at = from;
        while at < to {
            let end = if gap == 0 {
                to
            } else {
                (at + dash as i32).min(to)
            };
            let piece = PathElement::new(vec![(at * k, y * k), (end * k, y * k)], line);
            area.draw(&piece).map_err(refused)?;
            at = end + gap as i32;
        }
        let outline: Vec<_> = marker(index, scale)
            .into_iter()
            .map(|(dx, dy)| ((from + 22) * k + dx, y * k + dy))
            .collect();
        let colour = COLOURS[index % COLOURS.len()];
        area.draw(&Polygon::new(outline, colour)).map_err(refused)?;
        write_text(area, dataset, (to + 8, y - 6), 14, &INK, scale)?;
        x = to + 8 + 9 * dataset.chars().count() as i32 + 24;
    }
    Ok(())
}

/// Outline of a dataset's marker in pixels: circle, triangle, square, diamond, plus.
pub(super) fn marker(index: usize, scale: u32) -> Vec<(i32, i32)> {
    const CIRCLE: &[(i32, i32)] = &[
        (5, 0),
        (4, 3),
        (3, 4),
        (0, 5),
        (-3, 4),
        (-4, 3),
        (-5, 0),
        (-4, -3),
        (-3, -4),
        (0, -5),
        (3, -4),
        (4, -3),
    ];
    const TRIANGLE: &[(i32, i32)] = &[(0, -6), (6, 5), (-6, 5)];
    const SQUARE: &[(i32, i32)] = &[(-4, -4), (4, -4), (4, 4), (-4, 4)];
    const DIAMOND: &[(i32, i32)] = &[(0, -6), (6, 0), (0, 6), (-6, 0)];
    const PLUS: &[(i32, i32)] = &[
        (-2, -6),
        (2, -6),
        (2, -2),
        (6, -2),
        (6, 2),
        (2, 2),
        (2, 6),
        (-2, 6),
        (-2, 2),
        (-6, 2),
        (-6, -2),
        (-2, -2),
    ];
    let outline = [CIRCLE, TRIANGLE, SQUARE, DIAMOND, PLUS][index % 5];
    outline
        .iter()
        .map(|&(x, y)| (x * scale as i32, y * scale as i32))
        .collect()
}

pub(super) fn write_text<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    text: &str,
    (x, y): (i32, i32),
    height: u32,
    colour: &'static RGBColor,
    scale: u32,
) -> Result<(), FigureError> {
    let at = (x * scale as i32, y * scale as i32);
    area.draw(&Text::new(
        text.to_owned(),
        at,
        style(height, colour, scale),
    ))
    .map_err(refused)
}

pub(super) fn style(height: u32, colour: &'static RGBColor, scale: u32) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", height * scale).into_font()).color(colour)
}

fn centred() -> plotters::style::text_anchor::Pos {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    Pos::new(HPos::Center, VPos::Center)
}

/// Registers the embedded font, once.
fn font() -> Result<(), FigureError> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    const BYTES: &[u8] = include_bytes!("font/DejaVuSans.ttf");
    let good =
        REGISTERED.get_or_init(|| register_font("sans-serif", FontStyle::Normal, BYTES).is_ok());
    if *good {
        Ok(())
    } else {
        Err(FigureError::Drawing(
            "the embedded font is spoilt".to_owned(),
        ))
    }
}

pub(super) fn refused(error: impl std::fmt::Display) -> FigureError {
    FigureError::Drawing(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;

    /// A figure without its names says nothing.
    #[test]
    fn the_figure_names_arms_datasets_and_axes() {
        let svg = svg(&Accuracy(&fixture::state())).unwrap();
        for text in [
            "toy-continual (cpu)",
            "bos-prompted:kl:10",
            "sort",
            "optimizer step",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        let png = png(&Accuracy(&fixture::state())).unwrap();
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    }

    /// A run stopped at once, or with many datasets, must still have a figure.
    #[test]
    fn odd_runs_can_be_drawn() {
        svg(&Accuracy(&RunState::default())).unwrap();
        let mut state = fixture::state();
        for arm in &mut state.arms {
            arm.evaluations.truncate(1);
        }
        state.phases.extend((0..9).map(|i| crate::run::PhaseInfo {
            dataset: format!("dataset-{i}"),
            steps: 0,
        }));
        png(&Accuracy(&state)).unwrap();
    }
}

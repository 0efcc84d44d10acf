//! What figures have in common: colours, markers, lines, text.

use std::sync::OnceLock;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use super::error::{FigureError, refused};

/// A pair of axes, both linear.
pub(super) type Panel<'a, DB> = ChartContext<'a, DB, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

const COLOURS: [RGBColor; 7] = [
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

/// Lines of axes, and text.
pub(super) const INK: RGBColor = RGBColor(40, 40, 40);
/// Text of less weight.
pub(super) const GREY: RGBColor = RGBColor(90, 90, 90);
/// Rules behind the data.
pub(super) const FAINT: RGBColor = RGBColor(150, 150, 150);
/// Lines of the grid.
pub(super) const GRID: RGBColor = RGBColor(225, 225, 225);

/// Opacity of a band around a line.
const BAND: f64 = 0.16;
/// Opacity of single seeds.
const SEED: f64 = 0.45;

/// Height of a figure's title, which begins it.
pub(super) const TITLE: u32 = 46;

/// The colour of a dataset, or of an arm.
pub(super) fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// Draws a mean: a line in the colour and dashes of `index`.
pub(super) fn draw_line<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    points: &[(f64, f64)],
    index: usize,
    scale: u32,
) -> Result<(), FigureError> {
    let line = ShapeStyle::from(colour(index)).stroke_width(2 * scale);
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

/// Draws a single seed: a thin, pale line.
pub(super) fn draw_seed<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    points: &[(f64, f64)],
    index: usize,
    scale: u32,
) -> Result<(), FigureError> {
    let thin = ShapeStyle::from(colour(index).mix(SEED)).stroke_width(scale);
    let series = LineSeries::new(points.iter().copied(), thin);
    chart.draw_series(series).map_err(refused)?;
    Ok(())
}

/// Fills the band between two lines that run over the same x: (x, low, high).
pub(super) fn draw_band<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    edges: &[(f64, f64, f64)],
    index: usize,
) -> Result<(), FigureError> {
    let lower = edges.iter().map(|&(x, low, _)| (x, low));
    let upper = edges.iter().rev().map(|&(x, _, high)| (x, high));
    let fill = colour(index).mix(BAND).filled();
    let band = Polygon::new(lower.chain(upper).collect::<Vec<_>>(), fill);
    chart.draw_series([band]).map_err(refused)?;
    Ok(())
}

/// Draws the marker of `index`.
pub(super) fn draw_marker<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    at: (f64, f64),
    index: usize,
    scale: u32,
) -> Result<(), FigureError> {
    draw_shape(chart, at, (index, index), scale)
}

/// Draws the marker of one index in the colour of another.
pub(super) fn draw_shape<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    at: (f64, f64),
    (shape, of_colour): (usize, usize),
    scale: u32,
) -> Result<(), FigureError> {
    let shape = Polygon::new(marker(shape, scale), colour(of_colour));
    chart
        .draw_series([EmptyElement::at(at) + shape])
        .map_err(refused)?;
    Ok(())
}

/// Writes the title of a picture of some width, and returns the area below it.
pub(super) fn draw_title<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    text: &str,
    width: u32,
    scale: u32,
) -> Result<DrawingArea<DB, Shift>, FigureError> {
    let (title, rest) = root.split_vertically(TITLE * scale);
    let text = fitted(text, 22, width - 32);
    write_text(&title, &text, (16, 14), 22, &INK, scale)?;
    Ok(rest)
}

/// Draws what stands for a line in a legend, 44 pixels wide: the line itself, with its marker.
pub(super) fn draw_line_sample<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    at: (i32, i32),
    index: usize,
    scale: u32,
) -> Result<(), FigureError> {
    draw_stroke_sample(area, at, index, scale)?;
    draw_marker_sample(area, at, index, scale)
}

/// The same without a marker.
pub(super) fn draw_stroke_sample<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    (x, y): (i32, i32),
    index: usize,
    scale: u32,
) -> Result<(), FigureError> {
    let k = scale as i32;
    let line = ShapeStyle::from(colour(index)).stroke_width(2 * scale);
    let (dash, gap) = DASHES[index % DASHES.len()];
    let (mut at, to) = (x, x + 44);
    while at < to {
        let end = match gap {
            0 => to,
            _ => (at + dash as i32).min(to),
        };
        let piece = PathElement::new(vec![(at * k, y * k), (end * k, y * k)], line);
        area.draw(&piece).map_err(refused)?;
        at = end + gap as i32;
    }
    Ok(())
}

/// Draws what stands for a marker in a legend, in the middle of 44 pixels.
pub(super) fn draw_marker_sample<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    (x, y): (i32, i32),
    index: usize,
    scale: u32,
) -> Result<(), FigureError> {
    draw_shape_sample(area, (x, y), (index, colour(index)), scale)
}

/// The same of a marker in any colour.
pub(super) fn draw_shape_sample<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    (x, y): (i32, i32),
    (shape, colour): (usize, RGBColor),
    scale: u32,
) -> Result<(), FigureError> {
    let k = scale as i32;
    let outline: Vec<_> = marker(shape, scale)
        .into_iter()
        .map(|(dx, dy)| ((x + 22) * k + dx, y * k + dy))
        .collect();
    area.draw(&Polygon::new(outline, colour)).map_err(refused)
}

/// Outline of a marker in pixels: circle, triangle, square, diamond, plus.
fn marker(index: usize, scale: u32) -> Vec<(i32, i32)> {
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

/// The ring that marks the start of a phase.
pub(super) fn ring(at: (i32, i32), scale: u32) -> Circle<(i32, i32), u32> {
    Circle::new(at, 9 * scale, ShapeStyle::from(INK).stroke_width(2 * scale))
}

/// Writes text whose upper left corner is at a place of an area.
pub(super) fn write_text<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    text: &str,
    (x, y): (i32, i32),
    height: u32,
    colour: &'static RGBColor,
    scale: u32,
) -> Result<(), FigureError> {
    let at = (x * scale as i32, y * scale as i32);
    let style = style(height, colour, scale);
    area.draw(&Text::new(text.to_owned(), at, style))
        .map_err(refused)
}

/// A style of text.
pub(super) fn style(height: u32, colour: &'static RGBColor, scale: u32) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", height * scale).into_font()).color(colour)
}

/// Text centred at its place.
pub(super) fn centred() -> Pos {
    Pos::new(HPos::Center, VPos::Center)
}

/// Width of a text, in pixels at scale 1.
pub(super) fn text_width(text: &str, height: u32) -> u32 {
    let guess = text.chars().count() as u32 * height * 5 / 8;
    if font().is_err() {
        return guess;
    }
    let font = ("sans-serif", height).into_font();
    font.box_size(text).map_or(guess, |(width, _)| width)
}

/// A text that is no wider than `width` pixels: cut in its middle, since names of arms differ at their ends.
pub(super) fn fitted(text: &str, height: u32, width: u32) -> String {
    let letters: Vec<char> = text.chars().collect();
    let cut = |kept: usize| -> String {
        let (head, tail) = (kept.div_ceil(2), kept / 2);
        let head = letters[..head].iter();
        let tail = letters[letters.len() - tail..].iter();
        head.chain(&['…']).chain(tail).collect()
    };
    let fits = |text: &str| text_width(text, height) <= width;
    if fits(text) {
        return text.to_owned();
    }
    let kept = (1..letters.len()).rev().find(|&kept| fits(&cut(kept)));
    kept.map_or_else(String::new, cut)
}

/// Registers the embedded font, once.
pub(super) fn font() -> Result<(), FigureError> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    const BYTES: &[u8] = include_bytes!("../font/DejaVuSans.ttf");
    let good =
        REGISTERED.get_or_init(|| register_font("sans-serif", FontStyle::Normal, BYTES).is_ok());
    match good {
        true => Ok(()),
        false => Err(refused("the embedded font is spoilt")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else two arms that differ at the end of a long name would have one title.
    #[test]
    fn long_names_keep_their_ends() {
        let name = "self-generated:kl:10+buffer_batches=4+temperature=0.7+lr=0.001";
        let short = fitted(name, 16, 300);
        assert!(text_width(&short, 16) <= 300 && text_width(name, 16) > 300);
        assert!(
            short.starts_with("self-gen") && short.ends_with("lr=0.001"),
            "{short}"
        );
        assert_eq!(fitted("none", 16, 300), "none");
        assert_eq!(fitted("none", 16, 0), "");
    }
}

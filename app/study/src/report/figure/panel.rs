//! A panel with two axes, for figures as wide as a column of a paper: large text, few marks, room for intervals.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::super::mean::Mean;
use super::error::{FigureError, refused};
use super::legend::Legend;
use super::picture::Picture;
use super::style::{FAINT, GREY, GRID, INK, Panel, colour, style, text_width, write_text};

/// Width of the figures.
pub(super) const WIDTH: u32 = 430;
/// Height of marks and labels.
pub(super) const TEXT: u32 = 15;

/// Height of what stands above the first panel, a line.
const HEADING: u32 = 22;
const HEADING_TEXT: u32 = 17;
const NOTE: u32 = 14;
const MARGIN: u32 = 12;
/// Room for the marks and the words of the upright axis.
const LEFT: u32 = 60;
/// The same of the axis that lies.
const BELOW: u32 = 44;
/// Room above a panel for its title.
const ABOVE: u32 = 26;
const RIGHT: u32 = 16;
/// Values that differ by this factor or more stand on a logarithmic axis.
const LOGARITHMIC: f64 = 8.0;

/// An axis of a panel.
pub(super) struct Axis {
    words: String,
    is_log: bool,
    /// Ends, as they are drawn.
    low: f64,
    high: f64,
    /// Where there are marks, as they are drawn, and their texts.
    marks: Vec<(f64, String)>,
}

impl Axis {
    /// A linear axis over values, with some room at its ends; `None` without values.
    pub(super) fn linear(words: &str, values: impl Iterator<Item = f64>) -> Option<Self> {
        let (least, most) = ends(values)?;
        let room = 0.07 * (most - least).max(1e-3);
        let mut axis = Self {
            words: words.to_owned(),
            is_log: false,
            low: least - room,
            high: most + room,
            marks: Vec::new(),
        };
        axis.mark_round();
        Some(axis)
    }

    /// An axis of given values, each of which has a mark: logarithmic where they are positive and span a factor of 8.
    pub(super) fn of_places(words: &str, places: &[(f64, String)]) -> Option<Self> {
        let (least, most) = ends(places.iter().map(|&(at, _)| at))?;
        let is_log = least > 0.0 && most / least >= LOGARITHMIC;
        let place = |at: f64| if is_log { at.log10() } else { at };
        let (low, high) = (place(least), place(most));
        let room = match high > low {
            true => 0.06 * (high - low),
            false => 0.5,
        };
        Some(Self {
            words: words.to_owned(),
            is_log,
            low: low - room,
            high: high + room,
            marks: places
                .iter()
                .map(|(at, text)| (place(*at), text.clone()))
                .collect(),
        })
    }

    /// Where a value is drawn.
    pub(super) fn place(&self, value: f64) -> f64 {
        if self.is_log { value.log10() } else { value }
    }

    /// Its ends, as they are drawn.
    pub(super) fn ends(&self) -> [f64; 2] {
        [self.low, self.high]
    }

    /// Marks at about five round numbers.
    fn mark_round(&mut self) {
        let wide = self.high - self.low;
        let power = 10_f64.powf((wide / 5.0).log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|n| n * power);
        let Some(step) = steps.into_iter().find(|step| wide / step <= 6.0) else {
            return;
        };
        let digits = (0..8).find(|&digits| {
            let shifted = step * 10_f64.powi(digits);
            (shifted - shifted.round()).abs() < 1e-6 * shifted
        });
        let digits = digits.unwrap_or(8) as usize;
        let (first, last) = (
            (self.low / step).ceil() as i64,
            (self.high / step).floor() as i64,
        );
        let mark = |n: i64| {
            let at = n as f64 * step;
            (
                at,
                super::super::numbers::fixed(at, digits).replace('-', "−"),
            )
        };
        self.marks = (first..=last).map(mark).collect();
    }
}

/// The least and the most of values.
fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .filter(|value| value.is_finite())
        .map(|value| (value, value))
        .reduce(|(low, high), (other, _)| (low.min(other), high.max(other)))
}

/// A figure of one panel, with a heading above it, and a note and a legend below.
pub(super) trait OnePanel {
    /// Height of the panel.
    const HEIGHT: u32;

    /// Heading.
    fn title(&self) -> String;

    /// Note; none where it is empty.
    fn note(&self) -> String;

    /// Legend.
    fn legend(&self) -> Legend;

    /// Draws the panel.
    fn draw_panel<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError>;
}

impl<F: OnePanel> Picture for F {
    fn size(&self) -> (u32, u32) {
        let texts = heading_height(&self.title()) + note_height(&self.note());
        (WIDTH, texts + F::HEIGHT + self.legend().height(WIDTH))
    }

    fn draw<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let rest = heading(root, &self.title(), scale)?;
        let (panel, rest) = rest.split_vertically(F::HEIGHT * scale);
        self.draw_panel(&panel, scale)?;
        let rest = note(&rest, &self.note(), scale)?;
        self.legend().draw(&rest, WIDTH, scale)
    }
}

/// Draws the frame of a panel: title, axes, marks, and the lines of the grid.
pub(super) fn frame<'a, DB: DrawingBackend>(
    area: &'a DrawingArea<DB, Shift>,
    title: &str,
    (x, y): (&Axis, &Axis),
    scale: u32,
) -> Result<Panel<'a, DB>, FigureError> {
    let above = if title.is_empty() { 8 } else { ABOVE };
    write_text(
        area,
        title,
        (LEFT as i32 + MARGIN as i32, 6),
        TEXT,
        &INK,
        scale,
    )?;
    let mut chart = ChartBuilder::on(area)
        .margin_left(MARGIN * scale)
        .margin_right(RIGHT * scale)
        .margin_top(above * scale)
        .margin_bottom(8 * scale)
        .x_label_area_size(BELOW * scale)
        .y_label_area_size(LEFT * scale)
        .build_cartesian_2d(x.low..x.high, y.low..y.high)
        .map_err(refused)?;
    let grid = ShapeStyle::from(GRID).stroke_width(scale);
    let lines = y.marks.iter().map(|&(at, _)| [(x.low, at), (x.high, at)]);
    let lines = lines.chain(x.marks.iter().map(|&(at, _)| [(at, y.low), (at, y.high)]));
    let lines = lines.map(|line| PathElement::new(line.to_vec(), grid));
    chart.draw_series(lines).map_err(refused)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_labels(0)
        .y_labels(0)
        .axis_style(ShapeStyle::from(INK).stroke_width(scale))
        .label_style(style(TEXT, &INK, scale))
        .axis_desc_style(style(TEXT + 1, &INK, scale))
        .x_desc(x.words.as_str())
        .y_desc(y.words.as_str())
        .draw()
        .map_err(refused)?;
    write_marks(&mut chart, x, y, scale)?;
    Ok(chart)
}

/// Writes the texts of the marks, but for those that would touch the one before.
fn write_marks<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    x: &Axis,
    y: &Axis,
    scale: u32,
) -> Result<(), FigureError> {
    let k = scale as i32;
    let mut free = i32::MIN;
    for (at, text) in &x.marks {
        let half = text_width(text, TEXT) as i32 / 2;
        let (pixel, _) = chart.backend_coord(&(*at, y.low));
        if pixel - half * k < free {
            continue;
        }
        free = pixel + (half + 6) * k;
        let text = Text::new(text.clone(), (-half * k, 6 * k), style(TEXT, &INK, scale));
        let mark = EmptyElement::at((*at, y.low)) + text;
        chart.draw_series([mark]).map_err(refused)?;
    }
    for (at, text) in &y.marks {
        let wide = text_width(text, TEXT) as i32;
        let place = ((-wide - 6) * k, -(TEXT as i32) * k / 2);
        let text = Text::new(text.clone(), place, style(TEXT, &INK, scale));
        let mark = EmptyElement::at((x.low, *at)) + text;
        chart.draw_series([mark]).map_err(refused)?;
    }
    Ok(())
}

/// Draws the interval of a mean, upright at an x.
pub(super) fn upright<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    at: f64,
    mean: &Mean,
    index: usize,
    scale: u32,
) -> Result<(), FigureError> {
    let Some(interval) = mean.interval else {
        return Ok(());
    };
    let ends = vec![(at, interval.low), (at, interval.high)];
    let bar = ShapeStyle::from(colour(index)).stroke_width(scale);
    chart
        .draw_series([PathElement::new(ends, bar)])
        .map_err(refused)?;
    Ok(())
}

/// Draws the intervals of a point, upright and lying.
pub(super) fn cross<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    (x, y): (&Mean, &Mean),
    index: usize,
    scale: u32,
) -> Result<(), FigureError> {
    upright(chart, x.value, y, index, scale)?;
    let Some(interval) = x.interval else {
        return Ok(());
    };
    let ends = vec![(interval.low, y.value), (interval.high, y.value)];
    let bar = ShapeStyle::from(colour(index)).stroke_width(scale);
    chart
        .draw_series([PathElement::new(ends, bar)])
        .map_err(refused)?;
    Ok(())
}

/// Width of a label.
pub(super) fn label_width(text: &str) -> i32 {
    text_width(text, NOTE) as i32
}

/// Writes a text whose upper left corner lies so many pixels from a place.
pub(super) fn label<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    at: (f64, f64),
    text: &str,
    (right, down): (i32, i32),
    scale: u32,
) -> Result<(), FigureError> {
    let k = scale as i32;
    let text = Text::new(
        text.to_owned(),
        (right * k, down * k),
        style(NOTE, &GREY, scale),
    );
    chart
        .draw_series([EmptyElement::at(at) + text])
        .map_err(refused)?;
    Ok(())
}

/// Draws a dashed rule.
pub(super) fn rule<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    ends: [(f64, f64); 2],
    colour: RGBColor,
    scale: u32,
) -> Result<(), FigureError> {
    let line = ShapeStyle::from(colour).stroke_width(scale);
    let rule = DashedLineSeries::new(ends, 4 * scale, 4 * scale, line);
    chart.draw_series(rule).map_err(refused)?;
    Ok(())
}

/// The rule at zero, where it lies within an axis.
pub(super) fn zero<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    (x, y): (&Axis, &Axis),
    scale: u32,
) -> Result<(), FigureError> {
    if !(y.low..y.high).contains(&0.0) {
        return Ok(());
    }
    let [low, high] = x.ends();
    let line = ShapeStyle::from(FAINT).stroke_width(scale);
    let line = PathElement::new(vec![(low, 0.0), (high, 0.0)], line);
    chart.draw_series([line]).map_err(refused)?;
    Ok(())
}

/// Lines of text that are no wider than a figure, broken at spaces.
fn lines(text: &str, height: u32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let longer = lines.last().map(|line| format!("{line} {word}"));
        match longer.filter(|line| text_width(line, height) <= WIDTH - 2 * MARGIN) {
            Some(longer) => {
                lines.pop();
                lines.push(longer);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

/// Height of a heading.
pub(super) fn heading_height(text: &str) -> u32 {
    10 + HEADING * lines(text, HEADING_TEXT).len() as u32
}

/// Height of a note.
pub(super) fn note_height(text: &str) -> u32 {
    18 * lines(text, NOTE).len() as u32
}

/// Writes the heading of a figure, and returns the area below it.
pub(super) fn heading<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    text: &str,
    scale: u32,
) -> Result<DrawingArea<DB, Shift>, FigureError> {
    let (above, rest) = root.split_vertically(heading_height(text) * scale);
    for (i, line) in lines(text, HEADING_TEXT).iter().enumerate() {
        let y = 10 + i as i32 * HEADING as i32;
        write_text(&above, line, (MARGIN as i32, y), HEADING_TEXT, &INK, scale)?;
    }
    Ok(rest)
}

/// Writes a note at the top of an area, and returns the area below it.
pub(super) fn note<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    text: &str,
    scale: u32,
) -> Result<DrawingArea<DB, Shift>, FigureError> {
    let (above, rest) = area.split_vertically(note_height(text) * scale);
    for (i, line) in lines(text, NOTE).iter().enumerate() {
        let y = i as i32 * 18;
        write_text(&above, line, (MARGIN as i32, y), NOTE, &GREY, scale)?;
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.marks.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// Else values could not be read off a figure.
    #[test]
    fn marks_are_round_numbers_or_the_places_themselves() {
        let axis = Axis::linear("loss", [0.03, 1.9].into_iter()).expect("values");
        assert_eq!(texts(&axis), ["0.0", "0.5", "1.0", "1.5", "2.0"]);
        let axis = Axis::linear("loss", [3.915, 3.938].into_iter()).expect("values");
        assert_eq!(texts(&axis), ["3.915", "3.920", "3.925", "3.930", "3.935"]);
        assert!(Axis::linear("loss", [f64::NAN].into_iter()).is_none());
        let places = |all: &[f64]| -> Vec<(f64, String)> {
            all.iter().map(|at| (*at, at.to_string())).collect()
        };
        let axis = Axis::of_places("D", &places(&[10.0, 100.0])).expect("values");
        assert_eq!((axis.place(100.0), texts(&axis)), (2.0, vec!["10", "100"]));
        let axis = Axis::of_places("D", &places(&[32.0, 128.0])).expect("values");
        assert_eq!(axis.place(128.0), 128.0);
        let one = Axis::of_places("D", &places(&[32.0])).expect("a value");
        assert!(one.low < 32.0 && 32.0 < one.high);
    }
}

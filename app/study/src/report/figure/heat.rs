//! `heat`: the compute multiplier over two axes of a sweep, one map an arm.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontTransform;

use super::super::numbers::{fixed, nats};
use super::super::sweep::{HeatStudy, Map};
use super::error::{FigureError, refused};
use super::panel::{TEXT, WIDTH, heading, heading_height, note, note_height};
use super::picture::Picture;
use super::style::{GRID, INK, centred, style, text_width, write_text};

/// Margins of a map: room for the marks of its rows, its title, the colour bar, the marks and words below.
const LEFT: i32 = 74;
const ABOVE: i32 = 28;
const RIGHT: i32 = 80;
const BELOW: i32 = 54;
/// Width of the colour bar, and its distance from the map.
const BAR: i32 = 14;
const GAP: i32 = 14;

/// Stops of viridis, dark to light: equally far apart to the eye, colour-blind or not, and in grey.
const STOPS: [[f64; 3]; 9] = [
    [68.0, 1.0, 84.0],
    [71.0, 45.0, 123.0],
    [59.0, 82.0, 139.0],
    [44.0, 114.0, 142.0],
    [33.0, 145.0, 140.0],
    [40.0, 174.0, 128.0],
    [94.0, 201.0, 98.0],
    [173.0, 220.0, 48.0],
    [253.0, 231.0, 37.0],
];

/// The colour of a share of the scale, from 0 to 1.
fn colour_at(share: f64) -> RGBColor {
    let place = share.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let below = (place as usize).min(STOPS.len() - 2);
    let rest = place - below as f64;
    let mix =
        |i: usize| (STOPS[below][i] + rest * (STOPS[below + 1][i] - STOPS[below][i])).round() as u8;
    RGBColor(mix(0), mix(1), mix(2))
}

/// The figure of a study.
pub(super) struct HeatFigure(pub(super) HeatStudy);

impl HeatFigure {
    fn title(&self) -> String {
        let study = &self.0;
        let level = nats(study.level);
        format!(
            "{}: compute multiplier, {} at {level}",
            study.experiment, study.new
        )
    }

    /// Width and height of a cell.
    fn cell(&self) -> (i32, i32) {
        let [xs, ys] = &self.0.places;
        let wide = (WIDTH as i32 - LEFT - RIGHT) / xs.len().max(1) as i32;
        let high = (210 / ys.len().max(1) as i32).clamp(18, 42);
        (wide.max(2), high)
    }

    fn map_height(&self) -> u32 {
        let rows = self.0.places[1].len() as i32;
        (ABOVE + rows * self.cell().1 + BELOW) as u32
    }

    /// The lower end of the colours; the upper one is 1.
    fn least(&self) -> f64 {
        let cells = self.0.maps.iter().flat_map(|map| &map.cells);
        let least = cells
            .filter_map(|(_, values)| crate::stats::mean(values))
            .reduce(f64::min);
        let tenths = (least.unwrap_or(0.0) * 10.0 - 1e-9).floor() / 10.0;
        tenths.clamp(0.0, 0.9)
    }

    fn note(&self) -> String {
        let blank: usize = self.0.maps.iter().map(|map| map.missing.len()).sum();
        match blank {
            0 => String::new(),
            _ => "Blank: not measured, or not as much was learned with every seed; see the table."
                .into(),
        }
    }

    fn draw_map<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        map: &Map,
        scale: u32,
    ) -> Result<(), FigureError> {
        write_text(area, &map.arm, (LEFT, 8), TEXT, &INK, scale)?;
        let k = scale as i32;
        let (wide, high) = self.cell();
        let [xs, ys] = &self.0.places;
        let least = self.least();
        for (column, &x) in xs.iter().enumerate() {
            for (row, &y) in ys.iter().rev().enumerate() {
                let corner = (LEFT + column as i32 * wide, ABOVE + row as i32 * high);
                let corners = [
                    (corner.0 * k, corner.1 * k),
                    ((corner.0 + wide) * k, (corner.1 + high) * k),
                ];
                let cell = map.cells.iter().find(|(at, _)| *at == [x, y]);
                let Some(value) = cell.and_then(|(_, values)| crate::stats::mean(values)) else {
                    let frame = ShapeStyle::from(GRID).stroke_width(scale);
                    let frame = Rectangle::new(corners, frame);
                    area.draw(&frame).map_err(refused)?;
                    continue;
                };
                let fill = colour_at((value - least) / (1.0 - least));
                area.draw(&Rectangle::new(corners, fill.filled()))
                    .map_err(refused)?;
                self.write_value(area, value, (corner, fill), scale)?;
            }
        }
        self.write_axes(area, scale)?;
        self.draw_bar(area, scale)
    }

    /// Writes the value of a cell, where there is room.
    fn write_value<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        value: f64,
        (corner, fill): ((i32, i32), RGBColor),
        scale: u32,
    ) -> Result<(), FigureError> {
        let k = scale as i32;
        let (wide, high) = self.cell();
        let text = fixed(value, 2);
        let room = |height: &u32| {
            text_width(&text, *height) as i32 + 4 <= wide && *height as i32 + 4 <= high
        };
        let Some(height) = [TEXT, 13, 11].into_iter().find(room) else {
            return Ok(());
        };
        let RGBColor(r, g, b) = fill;
        let light = 0.3 * f64::from(r) + 0.59 * f64::from(g) + 0.11 * f64::from(b);
        let ink = if light > 125.0 { &BLACK } else { &WHITE };
        let at = ((corner.0 + wide / 2) * k, (corner.1 + high / 2) * k);
        let style = style(height, ink, scale).pos(centred());
        area.draw(&Text::new(text, at, style)).map_err(refused)
    }

    fn write_axes<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let k = scale as i32;
        let (wide, high) = self.cell();
        let ([across, upwards], [xs, ys]) = (&self.0.axes, &self.0.places);
        let bottom = ABOVE + ys.len() as i32 * high;
        let mut free = 0;
        for (i, &x) in xs.iter().enumerate() {
            let text = across.label(x);
            let half = text_width(&text, TEXT) as i32 / 2;
            let middle = LEFT + i as i32 * wide + wide / 2;
            if middle - half < free {
                continue;
            }
            free = middle + half + 6;
            write_text(area, &text, (middle - half, bottom + 6), TEXT, &INK, scale)?;
        }
        for (row, &y) in ys.iter().rev().enumerate() {
            let text = upwards.label(y);
            let left = LEFT - 6 - text_width(&text, TEXT) as i32;
            let top = ABOVE + row as i32 * high + high / 2 - TEXT as i32 / 2;
            write_text(area, &text, (left, top), TEXT, &INK, scale)?;
        }
        let words = style(TEXT + 1, &INK, scale).pos(centred());
        let middle = LEFT + xs.len() as i32 * wide / 2;
        let name = Text::new(
            across.name.clone(),
            (middle * k, (bottom + 36) * k),
            words.clone(),
        );
        area.draw(&name).map_err(refused)?;
        let turned = words.transform(FontTransform::Rotate270);
        let middle = (ABOVE + bottom) / 2;
        let name = Text::new(upwards.name.clone(), (14 * k, middle * k), turned);
        area.draw(&name).map_err(refused)
    }

    /// The bar that says what the colours mean.
    fn draw_bar<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let k = scale as i32;
        let (wide, high) = self.cell();
        let [xs, ys] = &self.0.places;
        let left = LEFT + xs.len() as i32 * wide + GAP;
        let tall = ys.len() as i32 * high;
        for y in 0..tall * k {
            let share = 1.0 - f64::from(y) / f64::from(tall * k);
            let corners = [
                (left * k, ABOVE * k + y),
                ((left + BAR) * k, ABOVE * k + y + 1),
            ];
            area.draw(&Rectangle::new(corners, colour_at(share).filled()))
                .map_err(refused)?;
        }
        let least = self.least();
        for part in [0.0, 0.5, 1.0] {
            let text = fixed(least + part * (1.0 - least), 2);
            let y = ABOVE + ((1.0 - part) * f64::from(tall)) as i32 - TEXT as i32 / 2;
            write_text(area, &text, (left + BAR + 6, y), TEXT, &INK, scale)?;
        }
        Ok(())
    }
}

impl Picture for HeatFigure {
    fn size(&self) -> (u32, u32) {
        let texts = heading_height(&self.title()) + note_height(&self.note());
        let maps = self.map_height() * self.0.maps.len() as u32;
        (WIDTH, texts + maps + 8)
    }

    fn draw<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let mut rest = heading(root, &self.title(), scale)?;
        for map in &self.0.maps {
            let (area, below) = rest.split_vertically(self.map_height() * scale);
            self.draw_map(&area, map, scale)?;
            rest = below;
        }
        note(&rest, &self.note(), scale)?;
        Ok(())
    }
}

//! `forgetting`: what each arm has lost of each old dataset at its last evaluation, beside the margin.
//!
//! One panel in accuracy, one in nats, where there are such scores; below each other the arms in their order,
//! within an arm the old datasets.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::run::RunState;

use super::super::measures::Metric;
use super::super::numbers::fixed;
use super::super::verdict::{self, Margins, Over, forgetting, margins};
use super::arms::{Arm, arms};
use super::error::{FigureError, refused};
use super::legend::{Legend, Sample};
use super::picture::Picture;
use super::style::{
    FAINT, GREY, GRID, INK, Panel, TITLE, colour, draw_marker, draw_title, fitted, style,
    text_width, write_text,
};

const PLOT: u32 = 470;
/// Height of a dataset's row, and the space between arms.
const ROW: u32 = 18;
const GAP: u32 = 12;
/// Above the rows and below them.
const CAPTION: u32 = 34;
const AXIS: u32 = 44;
/// Between the axes' words and the legend.
const BELOW: u32 = 12;
/// Widest column of arms' names.
const NAMES: u32 = 330;
const NAME: u32 = 14;
const REMARK: u32 = 11;

/// The figure of a run.
pub(super) struct Forgetting<'a> {
    state: &'a RunState,
    arms: Vec<Arm<'a>>,
    margins: Margins,
    /// Datasets that are old: place among all, and name.
    datasets: Vec<(usize, &'a str)>,
    panels: Vec<(Measure, Rows)>,
    single_seeds: bool,
}

/// What was forgotten, in the unit shown: one list an arm, in it one row a dataset where it is old.
type Rows = Vec<Vec<Option<Row>>>;

/// What an arm forgot of a dataset, as tables have it, in the unit shown.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    mean: f64,
    /// Ends of the interval, and what it is over.
    interval: Option<([f64; 2], Over)>,
    seeds: Vec<f64>,
}

/// What one panel measures.
#[derive(Clone, Copy)]
struct Measure {
    metric: Metric,
    title: &'static str,
    axis: &'static str,
    /// From a share or nats to what is shown.
    unit: f64,
}

const MEASURES: [Measure; 3] = [
    Measure {
        metric: Metric::Accuracy,
        title: "in accuracy",
        axis: "accuracy then − now, percentage points",
        unit: 100.0,
    },
    Measure {
        metric: Metric::Ntp,
        title: "in next-token loss",
        axis: "NTP now − then, nats per token",
        unit: 1.0,
    },
    Measure {
        metric: Metric::Error,
        title: "in error",
        axis: "root mean square error now − then",
        unit: 1.0,
    },
];

impl Row {
    fn of(forgetting: &verdict::Forgetting, measure: Measure) -> Self {
        let shown = |value: f64| measure.unit * value;
        Self {
            mean: shown(forgetting.mean),
            interval: forgetting
                .interval
                .map(|(interval, over)| ([interval.low, interval.high].map(shown), over)),
            seeds: forgetting.of_seeds.iter().copied().map(shown).collect(),
        }
    }

    /// All that is drawn of it: the mean, and the ends of its interval.
    fn extent(&self) -> impl Iterator<Item = f64> {
        let ends = self.interval.map(|(ends, _)| ends);
        std::iter::once(self.mean).chain(ends.into_iter().flatten())
    }
}

impl<'a> Forgetting<'a> {
    /// The figure of a run; `None` where nothing is old.
    pub(super) fn of(state: &'a RunState, single_seeds: bool) -> Option<Self> {
        let (arms, margins) = (arms(state), margins(state));
        let all: Vec<(usize, &str)> = state.datasets().into_iter().enumerate().collect();
        let row = |arm: &Arm<'_>, dataset: &str, measure: Measure| {
            let forgetting = forgetting(&arm.of, dataset, measure.metric, margins)?;
            Some(Row::of(&forgetting, measure))
        };
        let rows = |measure: Measure| -> Rows {
            let of = |arm| {
                all.iter()
                    .map(|(_, name)| row(arm, name, measure))
                    .collect()
            };
            arms.iter().map(of).collect()
        };
        let mut panels: Vec<(Measure, Rows)> = MEASURES
            .into_iter()
            .map(|measure| (measure, rows(measure)))
            .collect();
        let is_old: Vec<bool> = (0..all.len())
            .map(|at| {
                let mut arms = panels.iter().flat_map(|(_, rows)| rows);
                arms.any(|rows| rows[at].is_some())
            })
            .collect();
        panels.retain(|(_, rows)| rows.iter().flatten().any(Option::is_some));
        for rows in panels.iter_mut().flat_map(|(_, rows)| rows) {
            let mut old = is_old.iter();
            rows.retain(|_| old.next() == Some(&true));
        }
        let old = all.into_iter().zip(is_old);
        (!panels.is_empty()).then(|| Self {
            state,
            margins,
            datasets: old
                .filter(|(_, old)| *old)
                .map(|(dataset, _)| dataset)
                .collect(),
            arms,
            panels,
            single_seeds,
        })
    }

    /// The margin of a panel, in the unit shown.
    fn margin(&self, measure: Measure) -> f64 {
        measure.unit * self.margins.of(measure.metric)
    }

    /// Every row that is drawn.
    fn rows(&self) -> impl Iterator<Item = &Row> {
        let rows = self.panels.iter().flat_map(|(_, rows)| rows);
        rows.flatten().flatten()
    }

    fn names_width(&self) -> u32 {
        let names = self.arms.iter().map(|arm| {
            let remarks = arm.remarks(self.state);
            text_width(arm.name(), NAME).max(text_width(&remarks, REMARK))
        });
        names.max().unwrap_or(0).min(NAMES) + 32
    }

    /// Height of an arm's rows.
    fn group(&self) -> u32 {
        (self.datasets.len() as u32).max(2) * ROW + GAP
    }

    fn rows_height(&self) -> u32 {
        self.arms.len() as u32 * self.group()
    }

    /// Where the row of a dataset stands, in pixels from the top of the first arm.
    fn row(&self, arm: usize, dataset: usize) -> f64 {
        let rows = self.datasets.len() as u32 * ROW;
        let above = (self.group() - rows) as f64 / 2.0;
        (arm as u32 * self.group()) as f64 + above + (dataset as f64 + 0.5) * f64::from(ROW)
    }

    fn legend(&self) -> Legend {
        let mut legend = Legend::default();
        for (i, name) in &self.datasets {
            legend.add(Sample::Marker(*i), *name);
        }
        let has = |over: Over| {
            self.rows()
                .any(|row| row.interval.is_some_and(|i| i.1 == over))
        };
        if has(Over::Seeds) {
            legend.add(Sample::Whisker, "95 % interval of the mean over seeds (t)");
        }
        let words = match (has(Over::Rows), has(Over::SeedsAndRows)) {
            (true, false) => Some("1 seed: 95 % interval over the held-out rows (bootstrap)"),
            (false, true) => {
                Some("no spread over seeds: 95 % interval over seeds and rows (bootstrap)")
            }
            (true, true) => {
                Some("1 seed, or no spread: 95 % interval over the held-out rows (bootstrap)")
            }
            (false, false) => None,
        };
        if let Some(words) = words {
            legend.add(Sample::ThinWhisker, words);
        }
        if self.single_seeds && self.rows().any(|row| row.seeds.len() > 1) {
            legend.add(Sample::Dot, "single seeds");
        }
        // Without the noise of binary fractions: 100 × 0.07 is 7.000000000000001.
        let margin = |(measure, _): &(Measure, Rows)| {
            let margin = (self.margin(*measure) * 1e9).round() / 1e9;
            match measure.metric {
                Metric::Accuracy => format!("{margin} points"),
                Metric::Ntp => format!("{margin} nats"),
                Metric::Error => format!("{margin} in error"),
            }
        };
        let margins: Vec<String> = self.panels.iter().map(margin).collect();
        legend.add(Sample::Rule, format!("margin: {}", margins.join(", ")));
        legend
    }

    /// Ends of the x axis: all values and their intervals, 0 and the margin, with some room.
    fn range(&self, (measure, rows): &(Measure, Rows)) -> std::ops::Range<f64> {
        let ends = rows.iter().flatten().flatten().flat_map(Row::extent);
        let ends = ends.map(|end| bounded(end, *measure));
        let margin = self.margin(*measure);
        let (least, most) = ends.fold((0.0, 1.5 * margin), |(least, most), value| {
            (f64::min(least, value), f64::max(most, value))
        });
        // A margin of 0, and nothing changed.
        let most = if most > least {
            most
        } else {
            0.01 * measure.unit
        };
        let room = 0.04 * (most - least);
        least - room..most + room
    }

    fn draw_panel<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        panel: &(Measure, Rows),
        scale: u32,
    ) -> Result<(), FigureError> {
        let (measure, rows) = panel;
        let range = self.range(panel);
        let width = range.end - range.start;
        let digits = match width {
            width if width < 0.5 => 2,
            width if width < 5.0 => 1,
            _ => 0,
        };
        let height = f64::from(self.rows_height());
        let mut chart = ChartBuilder::on(area)
            .margin_left(12 * scale)
            .margin_right(20 * scale)
            .margin_bottom(BELOW * scale)
            .x_label_area_size(AXIS * scale)
            .build_cartesian_2d(range.clone(), height..0.0)
            .map_err(refused)?;
        for arm in (1..self.arms.len()).step_by(2) {
            let top = f64::from(arm as u32 * self.group());
            let corners = [
                (range.start, top),
                (range.end, top + f64::from(self.group())),
            ];
            let stripe = Rectangle::new(corners, RGBColor(245, 245, 245).filled());
            chart.draw_series([stripe]).map_err(refused)?;
        }
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(7)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(ShapeStyle::from(INK).stroke_width(scale))
            .x_label_formatter(&|x| fixed(*x, digits))
            .label_style(style(12, &INK, scale))
            .axis_desc_style(style(13, &INK, scale))
            .x_desc(measure.axis)
            .draw()
            .map_err(refused)?;
        let zero = ShapeStyle::from(FAINT).stroke_width(scale);
        let line = PathElement::new(vec![(0.0, 0.0), (0.0, height)], zero);
        chart.draw_series([line]).map_err(refused)?;
        let margin = self.margin(*measure);
        let ends = [(margin, 0.0), (margin, height)];
        let rule = ShapeStyle::from(INK).stroke_width(scale);
        let rule = DashedLineSeries::new(ends, 4 * scale, 4 * scale, rule);
        chart.draw_series(rule).map_err(refused)?;
        for (i, rows) in rows.iter().enumerate() {
            for (j, (row, (index, _))) in rows.iter().zip(&self.datasets).enumerate() {
                if let Some(row) = row {
                    let at = (self.row(i, j), *index);
                    self.draw_row(&mut chart, (row, *measure), at, scale)?;
                }
            }
        }
        Ok(())
    }

    /// Draws what was forgotten of one dataset: single seeds, interval, mean.
    fn draw_row<DB: DrawingBackend>(
        &self,
        chart: &mut Panel<'_, DB>,
        (row, measure): (&Row, Measure),
        (y, index): (f64, usize),
        scale: u32,
    ) -> Result<(), FigureError> {
        let from_zero = ShapeStyle::from(colour(index).mix(0.35)).stroke_width(scale);
        let stem = PathElement::new(vec![(0.0, y), (row.mean, y)], from_zero);
        chart.draw_series([stem]).map_err(refused)?;
        if let Some((ends, over)) = row.interval {
            let width = if over == Over::Seeds { 2 } else { 1 };
            let bar = ShapeStyle::from(colour(index)).stroke_width(width * scale);
            let ends = ends.map(|end| bounded(end, measure));
            let line = PathElement::new(ends.map(|end| (end, y)).to_vec(), bar);
            let cap = |end: f64| PathElement::new(vec![(end, y - 4.0), (end, y + 4.0)], bar);
            let parts = [line, cap(ends[0]), cap(ends[1])];
            chart.draw_series(parts).map_err(refused)?;
        }
        draw_marker(chart, (row.mean, y), index, scale)?;
        if self.single_seeds && row.seeds.len() > 1 {
            // Below their mean, which they would hide.
            let dot = |&value: &f64| {
                let dot = Circle::new((0, 8 * scale as i32), 2 * scale, colour(index).filled());
                EmptyElement::at((value, y)) + dot
            };
            chart
                .draw_series(row.seeds.iter().map(dot))
                .map_err(refused)?;
        }
        Ok(())
    }
}

/// An end of an interval, no further than a score can change.
fn bounded(end: f64, measure: Measure) -> f64 {
    match measure.metric {
        Metric::Accuracy => end.clamp(-measure.unit, measure.unit),
        Metric::Ntp | Metric::Error => end,
    }
}

impl Picture for Forgetting<'_> {
    fn size(&self) -> (u32, u32) {
        let width = self.names_width() + PLOT * self.panels.len() as u32;
        let rows = CAPTION + self.rows_height() + AXIS + BELOW;
        (width, TITLE + rows + self.legend().height(width))
    }

    fn draw<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let (width, _) = self.size();
        let text = format!(
            "{}: forgetting of old data at the last evaluation",
            self.state.title()
        );
        let rest = draw_title(root, &text, width, scale)?;
        let rows = CAPTION + self.rows_height() + AXIS + BELOW;
        let (body, legend) = rest.split_vertically(rows * scale);
        let (names, panels) = body.split_horizontally(self.names_width() * scale);
        for (i, arm) in self.arms.iter().enumerate() {
            let room = self.names_width() - 24;
            let middle = (CAPTION + i as u32 * self.group() + self.group() / 2) as i32;
            let remarks = arm.remarks(self.state);
            let top = if remarks.is_empty() { 7 } else { 15 };
            let name = fitted(arm.name(), NAME, room);
            write_text(&names, &name, (16, middle - top), NAME, &INK, scale)?;
            let remarks = fitted(&remarks, REMARK, room);
            write_text(&names, &remarks, (16, middle + 3), REMARK, &GREY, scale)?;
        }
        let areas = panels.split_evenly((1, self.panels.len()));
        for (panel, area) in self.panels.iter().zip(&areas) {
            let measure = panel.0;
            let (caption, plot) = area.split_vertically(CAPTION * scale);
            let left = (PLOT - text_width(measure.title, 16)) / 2;
            write_text(&caption, measure.title, (left as i32, 8), 16, &INK, scale)?;
            self.draw_panel(&plot, panel, scale)?;
        }
        self.legend().draw(&legend, width, scale)
    }
}

#[cfg(test)]
mod tests {
    use super::super::picture::svg;
    use super::*;
    use crate::run::fixture;

    /// Else the one figure that says which arm forgets would show other numbers than table and CSV.
    #[test]
    fn it_shows_the_numbers_of_the_verdicts() {
        let three = fixture::seeds(&[0.0, 0.02, 0.04]);
        let mut one = fixture::state();
        fixture::add_outcomes(&mut one);
        let mut no_spread = one.clone();
        for arm in &one.arms {
            let mut arm = arm.clone();
            arm.info.seed = 1;
            no_spread.arms.push(arm);
        }
        for state in [&three, &one, &no_spread] {
            let figure = Forgetting::of(state, true).unwrap();
            assert_eq!(figure.datasets, [(0, "reversal")]);
            let mut bytes = Vec::new();
            let all = crate::report::arms(&[("", state)]);
            crate::report::verdicts_csv(&all, margins(state), &mut bytes).unwrap();
            let mut csv = csv::Reader::from_reader(&bytes[..]);
            let head = csv.headers().unwrap().clone();
            let mut drawn = Vec::new();
            for arm in 0..figure.arms.len() {
                for (measure, rows) in &figure.panels {
                    let row = rows[arm][0].clone().unwrap();
                    drawn.push((measure.unit, row));
                }
            }
            let rows: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
            assert_eq!(rows.len(), drawn.len());
            for (row, (unit, drawn)) in rows.iter().zip(drawn) {
                let field = |name| &row[head.iter().position(|n| n == name).unwrap()];
                let number = |name| unit * field(name).parse::<f64>().unwrap();
                assert_eq!(drawn.mean, number("forgetting"));
                let interval = drawn.interval.map(|(ends, over)| (ends, over.name()));
                let ends = (!field("forgetting_low").is_empty())
                    .then(|| ["forgetting_low", "forgetting_high"].map(number));
                assert_eq!(interval, ends.map(|ends| (ends, field("interval_over"))));
            }
        }
        // From 100 % to 10, 8 and 6 %: by hand.
        let figure = Forgetting::of(&three, false).unwrap();
        let row = figure.panels[0].1[0][0].clone().unwrap();
        let ([low, high], _) = row.interval.unwrap();
        assert!((row.mean - 92.0).abs() < 1e-9 && (high - low - 2.0 * 4.968_275_4).abs() < 1e-6);
    }

    /// Else a bar of one seed would pass for one over seeds, and the line for another margin than the verdict's.
    #[test]
    fn the_legend_tells_intervals_and_the_margin_of_the_run() {
        let words = |state: &RunState| svg(&Forgetting::of(state, true).unwrap()).unwrap();
        let mut state = fixture::seeds(&[0.0, 0.02, 0.04]);
        let text = words(&state);
        let expected = [
            "none",
            "3 seeds",
            "reversal",
            "over seeds (t)",
            "single seeds",
            "margin: 5 points, 0.05 nats",
        ];
        for expected in expected {
            assert!(text.contains(expected), "{expected}");
        }
        assert!(!text.contains(">sort<"), "what is new cannot be forgotten");
        state = fixture::state();
        fixture::add_outcomes(&mut state);
        let verdict = serde_json::json!({"margin_accuracy": 0.07, "margin_ntp": 0.5});
        state.config = Some(serde_json::json!({"verdict": verdict}));
        let text = words(&state);
        for expected in ["1 seed: 95 % interval over", "margin: 7 points, 0.5 nats"] {
            assert!(text.contains(expected), "{expected}");
        }
        assert!(!text.contains("over seeds") && !text.contains("single seeds"));
    }

    /// Else a run that has only begun would have an empty figure.
    #[test]
    fn without_old_data_there_is_none() {
        let mut state = fixture::state();
        for arm in &mut state.arms {
            arm.evaluations.truncate(3);
        }
        assert!(Forgetting::of(&state, false).is_none());
        assert!(Forgetting::of(&RunState::default(), false).is_none());
    }
}

//! `accuracy`, `ntp` and `error`: every dataset's score against the step, one panel an arm.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::run::{RunState, Score};

use super::super::measures::Metric;
use super::arms::{Arm, Mean, arms};
use super::error::{FigureError, refused};
use super::legend::{Legend, Sample};
use super::picture::Picture;
use super::style::{
    FAINT, GREY, GRID, INK, Panel, TITLE, centred, draw_band, draw_line, draw_marker, draw_seed,
    draw_title, fitted, style,
};

pub(super) const PANEL: (u32, u32) = (620, 330);
/// Margins and the axis beside the plot of a panel.
const BESIDE: u32 = 80;
/// Markers along a line, at most.
const MARKERS: usize = 10;
const CAPTION: u32 = 16;
const PHASE: u32 = 12;

/// The figure of a run.
pub(super) struct Curves<'a> {
    state: &'a RunState,
    metric: Metric,
    arms: Vec<ArmCurves<'a>>,
    /// Ends of the y axis.
    range: (f64, f64),
    single_seeds: bool,
}

/// A panel.
struct ArmCurves<'a> {
    arm: Arm<'a>,
    /// One a dataset: its place among all, and its mean at every step.
    curves: Vec<(usize, Vec<(u64, Mean)>)>,
}

/// A score as shown: accuracy in percent.
fn shown(metric: Metric, score: &Score) -> Option<f64> {
    let value = metric.of(score)?;
    Some(match metric {
        Metric::Accuracy => 100.0 * value,
        Metric::Ntp | Metric::Error => value,
    })
}

fn title(metric: Metric) -> &'static str {
    match metric {
        Metric::Accuracy => "accuracy of every dataset",
        Metric::Ntp => "next-token loss of every dataset",
        Metric::Error => "error of every dataset",
    }
}

fn unit(metric: Metric) -> &'static str {
    match metric {
        Metric::Accuracy => "accuracy, %",
        Metric::Ntp => "NTP, nats per token",
        Metric::Error => "root mean square error",
    }
}

/// Least and greatest value there can be.
fn bounds(metric: Metric) -> (f64, f64) {
    match metric {
        Metric::Accuracy => (0.0, 100.0),
        Metric::Ntp | Metric::Error => (0.0, f64::INFINITY),
    }
}

impl<'a> Curves<'a> {
    /// The figure of a run; `None` where no dataset has the score.
    pub(super) fn of(state: &'a RunState, metric: Metric, single_seeds: bool) -> Option<Self> {
        let datasets = state.datasets();
        let of_arm = |arm: Arm<'a>| {
            let curve = |(i, name): (usize, &&str)| (i, arm.curve(name, |s| shown(metric, s)));
            let curves = datasets.iter().enumerate().map(curve);
            let curves = curves.filter(|(_, curve)| !curve.is_empty()).collect();
            ArmCurves { arm, curves }
        };
        let arms: Vec<ArmCurves<'_>> = arms(state).into_iter().map(of_arm).collect();
        let means = || arms.iter().flat_map(ArmCurves::means);
        means().next()?;
        let (least, most) = bounds(metric);
        let range = match metric {
            Metric::Accuracy => (least, most),
            Metric::Ntp | Metric::Error => {
                let ends = means().flat_map(Mean::extent);
                let ends = ends.map(|value| value.clamp(least, most));
                ends.fold((f64::INFINITY, 0.0), |(least, most), value| {
                    (f64::min(least, value), f64::max(most, value))
                })
            }
        };
        Some(Self {
            state,
            metric,
            arms,
            range,
            single_seeds,
        })
    }

    /// Columns and rows of panels.
    fn layout(&self) -> (u32, u32) {
        let panels = self.arms.len() as u32;
        let columns = panels.min(2);
        (columns, panels.div_ceil(columns))
    }

    fn legend(&self) -> Legend {
        let mut legend = Legend::default();
        for (i, dataset) in self.state.datasets().into_iter().enumerate() {
            let has = |panel: &ArmCurves<'_>| panel.curves.iter().any(|(at, _)| *at == i);
            if self.arms.iter().any(has) {
                legend.add(Sample::Line(i), dataset);
            }
        }
        if self.arms.iter().any(|panel| panel.arm.seeds.len() > 1) {
            legend.add(Sample::Band, "95 % interval of the mean over seeds (t)");
            if self.single_seeds {
                legend.add(Sample::Thin, "single seeds");
            }
        }
        legend
    }

    fn draw_panel<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        panel: &ArmCurves<'_>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let steps = self.state.total_steps().max(1) as f64;
        let (least, most) = self.range;
        let room = (most - least).max(1e-3);
        // Names of the phases stand above the data.
        let (bottom, top) = (least - 0.04 * room, most + 0.16 * room);
        let title = fitted(&panel.arm.title(self.state), CAPTION, PANEL.0 - 40);
        let mut chart = ChartBuilder::on(area)
            .caption(title, style(CAPTION, &INK, scale))
            .margin(8 * scale)
            .margin_right(20 * scale)
            .x_label_area_size(40 * scale)
            .y_label_area_size(52 * scale)
            .build_cartesian_2d(0.0..steps, bottom..top)
            .map_err(refused)?;
        let digits = match room {
            _ if self.metric == Metric::Accuracy => 0,
            room if room < 1.0 => 2,
            _ => 1,
        };
        let label = |y: &f64| match self.metric {
            Metric::Accuracy if *y > 100.5 => String::new(),
            _ => format!("{:.digits$}", y + 0.0),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .y_labels(6)
            .x_labels(7)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(ShapeStyle::from(INK).stroke_width(scale))
            .y_label_formatter(&label)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .label_style(style(12, &INK, scale))
            .axis_desc_style(style(13, &INK, scale))
            .x_desc("optimizer step")
            .y_desc(unit(self.metric))
            .draw()
            .map_err(refused)?;
        // No line of the grid runs through the names of the phases.
        let above = [(0.003 * steps, most + 0.01 * room), (steps, top)];
        let clear = Rectangle::new(above, WHITE.filled());
        chart.draw_series([clear]).map_err(refused)?;
        draw_phases(&mut chart, self.state, most + 0.09 * room, scale)?;
        self.draw_curves(&mut chart, panel, scale)
    }

    /// Draws bands, single seeds, means and markers, each over those before, so that none hides a mean.
    fn draw_curves<DB: DrawingBackend>(
        &self,
        chart: &mut Panel<'_, DB>,
        panel: &ArmCurves<'_>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let (least, most) = bounds(self.metric);
        for (i, curve) in &panel.curves {
            let edge = |(step, mean): &(u64, Mean)| {
                let band = mean.interval?;
                let clamped = |end: f64| end.clamp(least, most);
                Some((*step as f64, clamped(band.low), clamped(band.high)))
            };
            let edges: Vec<_> = curve.iter().filter_map(edge).collect();
            if edges.len() > 1 {
                draw_band(chart, &edges, *i)?;
            }
        }
        let datasets = self.state.datasets();
        if self.single_seeds && panel.arm.seeds.len() > 1 {
            for (i, _) in &panel.curves {
                for seed in &panel.arm.seeds {
                    let value = |score: &Score| shown(self.metric, score);
                    let points = seed.evaluations.iter();
                    let points = points
                        .filter_map(|e| Some((e.step as f64, value(e.score(datasets[*i])?)?)));
                    draw_seed(chart, &points.collect::<Vec<_>>(), *i, scale)?;
                }
            }
        }
        let points = |curve: &[(u64, Mean)]| -> Vec<(f64, f64)> {
            let points = curve.iter().map(|(step, mean)| (*step as f64, mean.value));
            points.collect()
        };
        for (i, curve) in &panel.curves {
            draw_line(chart, &points(curve), *i, scale)?;
        }
        for (i, curve) in &panel.curves {
            // Markers of different datasets stand at different steps where there are enough.
            let every = curve.len().div_ceil(MARKERS).max(1);
            let skipped = i * every / 4 % every;
            for at in points(curve).into_iter().skip(skipped).step_by(every) {
                draw_marker(chart, at, *i, scale)?;
            }
        }
        Ok(())
    }
}

impl ArmCurves<'_> {
    fn means(&self) -> impl Iterator<Item = &Mean> {
        let points = self.curves.iter().flat_map(|(_, curve)| curve);
        points.map(|(_, mean)| mean)
    }
}

impl Picture for Curves<'_> {
    fn size(&self) -> (u32, u32) {
        let (columns, rows) = self.layout();
        let width = columns * PANEL.0;
        let legend = self.legend().height(width);
        (width, TITLE + rows * PANEL.1 + legend)
    }

    fn draw<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let (columns, rows) = self.layout();
        let width = columns * PANEL.0;
        let text = format!("{}: {}", self.state.title(), title(self.metric));
        let rest = draw_title(root, &text, width, scale)?;
        let (panels, legend) = rest.split_vertically(rows * PANEL.1 * scale);
        let areas = panels.split_evenly((rows as usize, columns as usize));
        for (panel, area) in self.arms.iter().zip(&areas) {
            self.draw_panel(area, panel, scale)?;
        }
        self.legend().draw(&legend, width, scale)
    }
}

/// A vertical line where a phase begins, and above each phase the dataset it trains, if there is room.
fn draw_phases<DB: DrawingBackend>(
    chart: &mut Panel<'_, DB>,
    state: &RunState,
    height: f64,
    scale: u32,
) -> Result<(), FigureError> {
    let (bottom, top) = (chart.y_range().start, chart.y_range().end);
    let steps = state.total_steps().max(1) as f64;
    let mut start = 0.0;
    for phase in &state.phases {
        if start > 0.0 {
            let rule = [(start, bottom), (start, top)];
            let style = ShapeStyle::from(FAINT).stroke_width(scale);
            chart
                .draw_series(DashedLineSeries::new(rule, 4 * scale, 4 * scale, style))
                .map_err(refused)?;
        }
        let share = phase.steps as f64 / steps;
        let room = (f64::from(PANEL.0 - BESIDE) * share) as u32;
        let label = Text::new(
            fitted(&phase.dataset, PHASE, room.saturating_sub(6)),
            (start + phase.steps as f64 / 2.0, height),
            style(PHASE, &GREY, scale).pos(centred()),
        );
        chart.draw_series([label]).map_err(refused)?;
        start += phase.steps as f64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::picture::{png, svg};
    use super::*;
    use crate::run::{ArmStatus, PhaseInfo, fixture};

    fn figure(state: &RunState, metric: Metric) -> String {
        svg(&Curves::of(state, metric, false).unwrap()).unwrap()
    }

    /// A figure without its names says nothing.
    #[test]
    fn the_figure_names_arms_datasets_and_axes() {
        let state = fixture::state();
        for (metric, unit) in [
            (Metric::Accuracy, "accuracy, %"),
            (Metric::Ntp, "NTP, nats per token"),
        ] {
            let svg = figure(&state, metric);
            let texts = [
                "toy-continual (cpu)",
                "bos-prompted:kl:10",
                "sort",
                "optimizer step",
            ];
            for text in texts.into_iter().chain([unit]) {
                assert!(svg.contains(text), "{text}");
            }
            assert!(!svg.contains("seed"), "one seed has no interval");
        }
        let picture = Curves::of(&state, Metric::Accuracy, false).unwrap();
        assert_eq!(&png(&picture).unwrap().unwrap()[..8], b"\x89PNG\r\n\x1a\n");
    }

    /// Else three seeds would be three panels, and nobody could see whether arms differ by more than seeds do.
    #[test]
    fn seeds_are_one_panel_with_mean_and_interval() {
        let state = fixture::seeds(&[0.0, 0.02, 0.04]);
        let picture = Curves::of(&state, Metric::Accuracy, false).unwrap();
        assert_eq!(picture.arms.len(), 2);
        let (_, curve) = &picture.arms[0].curves[0];
        let (step, mean) = curve[3];
        // 20 %, 18 % and 16 % at step 30; t of 2 degrees of freedom is 4.3027, s is 2 points.
        let interval = mean.interval.unwrap();
        assert_eq!(step, 30);
        assert!((mean.value - 18.0).abs() < 1e-9, "{mean:?}");
        assert!((interval.half_width() - 4.968_275_4).abs() < 1e-6);
        let text = figure(&state, Metric::Accuracy);
        for expected in ["none, 3 seeds", "95 % interval of the mean over seeds"] {
            assert!(text.contains(expected), "{expected}");
        }
        let lines = |single| {
            let picture = Curves::of(&state, Metric::Accuracy, single).unwrap();
            let text = svg(&picture).unwrap();
            (
                text.matches("<polyline").count(),
                text.contains("single seeds"),
            )
        };
        assert_eq!((lines(false).1, lines(true).1), (false, true));
        assert!(lines(true).0 > lines(false).0);
    }

    /// Else one seed that failed at its first step would cut the curves of the others short.
    #[test]
    fn a_seed_that_failed_is_told_and_left_out() {
        let mut state = fixture::seeds(&[0.0, 0.02, 0.04]);
        state.arms[0].evaluations.truncate(1);
        state.arms[0].status = ArmStatus::Failed("NaN".into());
        let picture = Curves::of(&state, Metric::Accuracy, false).unwrap();
        assert_eq!(picture.arms[0].curves[0].1.len(), 5);
        assert!(figure(&state, Metric::Accuracy).contains("none, 2 seeds, 1 failed"));
    }

    /// A run stopped at once, or with many datasets, must still have a figure.
    #[test]
    fn odd_runs_can_be_drawn() {
        assert!(Curves::of(&RunState::default(), Metric::Accuracy, false).is_none());
        let mut state = fixture::state();
        for arm in &mut state.arms {
            arm.evaluations.truncate(1);
            arm.info.name = format!("{}+{}", arm.info.name, "buffer_batches=4+".repeat(9));
        }
        state.phases.extend((0..9).map(|i| PhaseInfo {
            dataset: format!("dataset-{i}"),
            steps: 0,
        }));
        png(&Curves::of(&state, Metric::Accuracy, true).unwrap()).unwrap();
        state.arms[0].evaluations[0].scores.clear();
        png(&Curves::of(&state, Metric::Ntp, true).unwrap()).unwrap();
    }
}

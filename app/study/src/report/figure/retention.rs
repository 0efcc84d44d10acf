//! `retention`: what is kept of old data against what is learned of new data, one curve an arm.
//!
//! x: accuracy on the data of the last phase. y: in one panel for each group of question sets that are
//! asked at the same evaluations, their mean accuracy (so that a mean is always over the same sets: large
//! ones are asked seldom, small ones often); in a last panel, the mean KL on old data. A point is an
//! evaluation; the first is that at the start of the phase. A curve is the mean over seeds, at the steps that
//! all of them have reached; the bar at its end is the 95 % interval over seeds by Student's t, of one seed the
//! 95 % interval over the questions.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::run::{ArmState, Evaluation, RunState, Score};
use crate::stats::Interval;

use super::arms::{Arm, Mean, arms};
use super::error::{FigureError, refused};
use super::legend::{Legend, Sample};
use super::picture::Picture;
use super::style::{
    GRID, INK, TITLE, colour, draw_line, draw_marker, draw_seed, draw_title, fitted, ring, style,
};

const PANEL: (u32, u32) = (620, 470);
const CAPTION: u32 = 16;
/// Maximum length of the list of names in a panel's title.
const TITLE_CHARS: usize = 50;
/// Maximum number of markers along a curve.
const MARKERS: usize = 12;
/// Half-width of a 95 % interval, in standard errors of a mean over many questions.
const NORMAL: f64 = 1.96;

/// The figure of a run.
pub(super) struct Retention {
    title: String,
    /// Names and remarks.
    arms: Vec<String>,
    panels: Vec<Panel>,
    /// What bars are of: seeds, questions.
    bars: (bool, bool),
    single_seeds: bool,
}

struct Panel {
    title: String,
    unit: &'static str,
    /// Least and greatest value there can be.
    bounds: (f64, f64),
    /// One curve an arm.
    curves: Vec<Curve>,
}

#[derive(Default)]
struct Curve {
    mean: Vec<Point>,
    /// One line a seed, where several are to be drawn.
    seeds: Vec<Vec<(f64, f64)>>,
}

#[derive(Clone, Copy)]
struct Point {
    x: f64,
    y: f64,
    /// 95 % interval of y.
    bar: Option<Interval>,
}

/// The quantity on a panel's y axis.
enum Measure {
    Questions(Vec<String>),
    Kl,
}

impl Retention {
    /// The figure of a run; `None` where there are no questions, or nothing was measured during the last phase.
    pub(super) fn of(state: &RunState, single_seeds: bool) -> Option<Self> {
        let phases = &state.phases;
        let new = &phases.last().filter(|_| phases.len() > 1)?.dataset;
        let arms = arms(state);
        let groups = groups(state);
        let mut measures: Vec<Measure> = groups.into_iter().map(Measure::Questions).collect();
        if measures.is_empty() {
            return None;
        }
        measures.push(Measure::Kl);
        let panel = |measure: Measure| {
            let curve = |arm| Curve::of(arm, state, new, &measure, single_seeds);
            let curves = arms.iter().map(curve).collect();
            Panel::new(&measure, curves)
        };
        let panels = measures.into_iter().map(panel);
        let drawn = |panel: &Panel| panel.curves.iter().any(|curve| curve.mean.len() > 1);
        let panels: Vec<Panel> = panels.filter(drawn).collect();
        (!panels.is_empty()).then(|| Self {
            title: format!("{}: what is kept against learning {new}", state.title()),
            bars: (
                arms.iter().any(|arm| arm.seeds.len() > 1),
                arms.iter().any(|arm| arm.seeds.len() == 1),
            ),
            arms: arms.iter().map(|arm| arm.title(state)).collect(),
            panels,
            single_seeds,
        })
    }

    fn legend(&self) -> Legend {
        let mut legend = Legend::default();
        for (i, name) in self.arms.iter().enumerate() {
            legend.add(Sample::Line(i), fitted(name, 14, PANEL.0 - 80));
        }
        legend.add(Sample::Ring, "start of the phase");
        let (seeds, questions) = self.bars;
        let words = match (seeds, questions) {
            (true, true) => {
                "95 % interval of the last mean over seeds (t); of one seed, over the questions"
            }
            (true, false) => "95 % interval of the last mean over seeds (t)",
            (false, _) => "95 % interval of the last accuracy over the questions",
        };
        legend.add(Sample::Bar, words);
        if seeds && self.single_seeds {
            legend.add(Sample::Thin, "single seeds");
        }
        legend
    }
}

/// Evaluations from the start of the last phase on.
fn of_last_phase<'a>(arm: &'a ArmState, state: &RunState) -> &'a [Evaluation] {
    let last = state.phases.len() - 1;
    let before = arm.evaluations.partition_point(|e| e.phase < last);
    &arm.evaluations[before.saturating_sub(1)..]
}

/// The evaluations of a dataset: pairs of arm and step.
type Times = Vec<(usize, u64)>;

/// Names of the question sets, grouped by the evaluations at which they are asked.
fn groups(state: &RunState) -> Vec<Vec<String>> {
    let mut asked: Vec<(String, Times)> = Vec::new();
    for (i, arm) in state.arms.iter().enumerate() {
        for evaluation in of_last_phase(arm, state) {
            for score in evaluation.scores.iter().filter(|s| s.choices.is_some()) {
                let at = (i, evaluation.step);
                match asked.iter_mut().find(|(name, _)| *name == score.dataset) {
                    Some((_, steps)) => steps.push(at),
                    None => asked.push((score.dataset.clone(), vec![at])),
                }
            }
        }
    }
    let mut groups: Vec<(Vec<String>, Times)> = Vec::new();
    for (name, steps) in asked {
        match groups.iter_mut().find(|(_, known)| *known == steps) {
            Some((names, _)) => names.push(name),
            None => groups.push((vec![name], steps)),
        }
    }
    // The group that is asked most often comes first.
    groups.sort_by_key(|(_, steps)| std::cmp::Reverse(steps.len()));
    groups.into_iter().map(|(names, _)| names).collect()
}

impl Measure {
    /// Value at an evaluation, and its standard error.
    fn of(&self, evaluation: &Evaluation, new: &str) -> Option<(f64, Option<f64>)> {
        match self {
            Self::Questions(names) => {
                let n = names.len() as f64;
                let (mut sum, mut squares) = (0.0, Some(0.0));
                for name in names {
                    let choices = evaluation.score(name)?.choices?;
                    let estimate = choices.accuracy_normalised.unwrap_or(choices.accuracy);
                    sum += estimate.mean;
                    squares = squares.zip(estimate.stderr).map(|(sum, e)| sum + e * e);
                }
                Some((100.0 * sum / n, squares.map(|sum| 100.0 * sum.sqrt() / n)))
            }
            Self::Kl => {
                let old = |score: &&Score| score.dataset != new && score.choices.is_none();
                let kl = evaluation.scores.iter().filter(old);
                let kl: Vec<f64> = kl.filter_map(|score| score.kl).collect();
                (!kl.is_empty()).then(|| (kl.iter().sum::<f64>() / kl.len() as f64, None))
            }
        }
    }
}

/// A seed at an evaluation.
struct Seen {
    step: u64,
    x: f64,
    y: f64,
    stderr: Option<f64>,
}

impl Curve {
    fn of(
        arm: &Arm<'_>,
        state: &RunState,
        new: &str,
        measure: &Measure,
        single_seeds: bool,
    ) -> Self {
        let last = state.phases.len() - 1;
        let seen = |evaluation: &Evaluation| {
            let x = 100.0 * evaluation.score(new)?.accuracy?;
            let (y, stderr) = match measure {
                // Before its phase the reference of the last phase is the student itself.
                Measure::Kl if evaluation.phase < last => (0.0, None),
                measure => measure.of(evaluation, new)?,
            };
            let step = evaluation.step;
            Some(Seen { step, x, y, stderr })
        };
        let line = |seed: &&ArmState| -> Vec<Seen> {
            of_last_phase(seed, state).iter().filter_map(seen).collect()
        };
        let lines: Vec<Vec<Seen>> = arm.seeds.iter().map(line).collect();
        let Some(first) = lines.first() else {
            return Self::default();
        };
        let mean = |at: &Seen| {
            let of = |line: &'_ Vec<Seen>| line.iter().position(|seen| seen.step == at.step);
            let points: Vec<&Seen> = lines
                .iter()
                .map(|line| Some(&line[of(line)?]))
                .collect::<Option<_>>()?;
            let xs: Vec<f64> = points.iter().map(|seen| seen.x).collect();
            let ys: Vec<f64> = points.iter().map(|seen| seen.y).collect();
            let y = Mean::of(&ys)?;
            let questions = at.stderr.map(|stderr| Interval {
                low: y.value - NORMAL * stderr,
                high: y.value + NORMAL * stderr,
            });
            let bar = match points.len() {
                1 => questions,
                _ => y.interval,
            };
            let (x, y) = (Mean::of(&xs)?.value, y.value);
            Some(Point { x, y, bar })
        };
        let mean = first.iter().filter_map(mean).collect();
        let line = |line: &Vec<Seen>| line.iter().map(|seen| (seen.x, seen.y)).collect();
        let seeds = match single_seeds && lines.len() > 1 {
            true => lines.iter().map(line).collect(),
            false => Vec::new(),
        };
        Self { mean, seeds }
    }

    /// The bar at its end.
    fn bar(&self) -> Option<(f64, Interval)> {
        let last = self.mean.last()?;
        Some((last.x, last.bar?))
    }

    /// Every point that is drawn.
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        let mean = self.mean.iter().map(|point| (point.x, point.y));
        mean.chain(self.seeds.iter().flatten().copied())
    }
}

impl Picture for Retention {
    fn size(&self) -> (u32, u32) {
        let width = self.panels.len() as u32 * PANEL.0;
        (width, TITLE + PANEL.1 + self.legend().height(width))
    }

    fn draw<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let (width, _) = self.size();
        let rest = draw_title(root, &self.title, width, scale)?;
        let (panels, legend) = rest.split_vertically(PANEL.1 * scale);
        let areas = panels.split_evenly((1, self.panels.len()));
        for (panel, area) in self.panels.iter().zip(&areas) {
            panel.draw(area, scale)?;
        }
        self.legend().draw(&legend, width, scale)
    }
}

impl Panel {
    fn new(measure: &Measure, curves: Vec<Curve>) -> Self {
        let (title, unit, bounds) = match measure {
            Measure::Questions(names) => {
                let joined = names.join(", ");
                let title = match names.len() {
                    n if n > 1 && joined.len() > TITLE_CHARS => {
                        format!("mean accuracy on {n} sets of questions")
                    }
                    1 => format!("accuracy on {joined}"),
                    _ => format!("mean accuracy on {joined}"),
                };
                (title, "accuracy, %", (0.0, 100.0))
            }
            Measure::Kl => (
                "drift on old data".to_owned(),
                "KL, nats per token",
                (0.0, f64::INFINITY),
            ),
        };
        Self {
            title,
            unit,
            bounds,
            curves,
        }
    }

    /// An interval, no further than values can go.
    fn bounded(&self, bar: Interval) -> [f64; 2] {
        let (least, most) = self.bounds;
        [bar.low, bar.high].map(|end| end.clamp(least, most))
    }

    fn draw<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let points = || self.curves.iter().flat_map(Curve::points);
        let bars = self.curves.iter().filter_map(Curve::bar);
        let bars = bars.flat_map(|(_, bar)| self.bounded(bar));
        let across = range(points().map(|(x, _)| x));
        let upwards = range(points().map(|(_, y)| y).chain(bars));
        let digits = if upwards.end - upwards.start < 2.0 {
            2
        } else {
            0
        };
        let mut chart = ChartBuilder::on(area)
            .caption(
                fitted(&self.title, CAPTION, PANEL.0 - 40),
                style(CAPTION, &INK, scale),
            )
            .margin(8 * scale)
            .margin_right(20 * scale)
            .x_label_area_size(40 * scale)
            .y_label_area_size(60 * scale)
            .build_cartesian_2d(across, upwards)
            .map_err(refused)?;
        chart
            .configure_mesh()
            .y_labels(7)
            .x_labels(7)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(ShapeStyle::from(INK).stroke_width(scale))
            .y_label_formatter(&|y| format!("{:.digits$}", y + 0.0))
            .x_label_formatter(&|x| format!("{x:.0}"))
            .label_style(style(12, &INK, scale))
            .axis_desc_style(style(13, &INK, scale))
            .x_desc("accuracy on the new data, %")
            .y_desc(self.unit)
            .draw()
            .map_err(refused)?;
        for (i, curve) in self.curves.iter().enumerate() {
            for seed in &curve.seeds {
                draw_seed(&mut chart, seed, i, scale)?;
            }
        }
        for (i, curve) in self.curves.iter().enumerate() {
            if let Some((x, bar)) = curve.bar() {
                let [low, high] = self.bounded(bar);
                let stroke = ShapeStyle::from(colour(i)).stroke_width(scale);
                let line = PathElement::new(vec![(x, low), (x, high)], stroke);
                chart.draw_series([line]).map_err(refused)?;
                let half = 5 * scale as i32;
                let cap = |y: f64| {
                    EmptyElement::at((x, y)) + PathElement::new(vec![(-half, 0), (half, 0)], stroke)
                };
                chart.draw_series([cap(low), cap(high)]).map_err(refused)?;
            }
        }
        for (i, curve) in self.curves.iter().enumerate() {
            let points: Vec<(f64, f64)> = curve.mean.iter().map(|p| (p.x, p.y)).collect();
            draw_line(&mut chart, &points, i, scale)?;
            let every = points.len().div_ceil(MARKERS).max(1);
            // The last always, the others at even distances before it.
            for &at in points.iter().rev().step_by(every) {
                draw_marker(&mut chart, at, i, scale)?;
            }
        }
        if let Some(start) = self.curves.iter().find_map(|curve| curve.mean.first()) {
            let element = EmptyElement::at((start.x, start.y)) + ring((0, 0), scale);
            chart.draw_series([element]).map_err(refused)?;
        }
        Ok(())
    }
}

/// Smallest and largest finite value, with some room around.
fn range(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let values = values.filter(|value| value.is_finite());
    let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| {
        (f64::min(least, v), f64::max(most, v))
    });
    let room = (0.06 * (most - least)).max(1e-3);
    least - room..most + room
}

#[cfg(test)]
mod tests {
    use super::super::picture::{png, svg};
    use super::*;
    use crate::experiment::ArmInfo;
    use crate::run::{ArmStatus, ChoiceScores, Cost, Estimate, PhaseInfo, Role};

    /// Two arms of two seeds; small question sets at every evaluation, a large one at start and end.
    fn state() -> RunState {
        let phase = |dataset: &str, steps| PhaseInfo {
            dataset: dataset.into(),
            steps,
        };
        let mut state = RunState {
            experiment: "instruct".into(),
            preset: "made-up".into(),
            phases: vec![phase("general", 0), phase("verilog", 100)],
            ..RunState::default()
        };
        for (seed, (name, lost)) in
            (0..2).flat_map(|s| [(s, ("none", 0.2)), (s, ("bos-prompted:kl:1", 0.03))])
        {
            let mut arm = ArmState::new(ArmInfo {
                name: name.into(),
                slug: format!("{seed}-{name}").replace(':', "-"),
                strategy: name.into(),
                objective: String::new(),
                coeff: None,
                lr: 1e-4,
                seed,
                steps: Vec::new(),
            });
            for step in (0..=100).step_by(10) {
                let done = step as f64 / 100.0;
                let role = if step == 0 { Role::New } else { Role::Old };
                let score = |dataset: &str, accuracy, kl| Score {
                    dataset: dataset.into(),
                    role,
                    ntp: Some(3.0),
                    kl,
                    accuracy,
                    fit: None,
                    choices: None,
                    outcomes: None,
                    rows_kept: false,
                };
                let wiggle = 0.01 * (step as f64 * (1.0 + seed as f64)).sin();
                let questions = |dataset: &str, n: usize, base: f64| {
                    let mean = base - lost * done + wiggle;
                    let stderr = Some((mean * (1.0 - mean) / n as f64).sqrt());
                    let estimate = Estimate { mean, stderr };
                    Score {
                        choices: Some(ChoiceScores {
                            questions: n,
                            accuracy: estimate,
                            accuracy_normalised: None,
                            chance: 0.25,
                        }),
                        ..score(dataset, Some(mean), None)
                    }
                };
                let mut scores = vec![
                    score("general", Some(0.4), Some(4.0 * lost * done + wiggle.abs())),
                    score(
                        "verilog",
                        Some(0.5 + 0.3 * done.sqrt() - lost * 0.1 * done),
                        Some(1.0),
                    ),
                    questions("arc_easy_200", 200, 0.55),
                    questions("csqa_200", 200, 0.45),
                ];
                if step % 100 == 0 {
                    scores.push(questions("arc_easy", 2000, 0.54));
                }
                arm.evaluations.push(Evaluation {
                    phase: usize::from(step > 0),
                    step,
                    cost: Cost::default(),
                    scores,
                });
            }
            arm.status = ArmStatus::Finished;
            state.arms.push(arm);
        }
        state
    }

    /// Else a mean over the small sets would be drawn into that over all, and the claim hang on a jump.
    #[test]
    fn means_are_over_questions_that_are_asked_together_and_over_seeds() {
        let figure = Retention::of(&state(), true).unwrap();
        let titles: Vec<&str> = figure.panels.iter().map(|p| p.title.as_str()).collect();
        let expected = [
            "mean accuracy on arc_easy_200, csqa_200",
            "accuracy on arc_easy",
            "drift on old data",
        ];
        assert_eq!(titles, expected);
        assert_eq!(figure.arms, ["none, 2 seeds", "bos-prompted:kl:1, 2 seeds"]);
        let [often, seldom, drift] = &figure.panels[..] else {
            panic!()
        };
        let none = &often.curves[0];
        assert_eq!((none.mean.len(), none.seeds.len()), (11, 2));
        assert_eq!(seldom.curves[0].mean.len(), 2);
        assert!((none.mean[0].x - 50.0).abs() < 1e-9 && (none.mean[0].y - 50.0).abs() < 1e-9);
        // Seeds agree at the start; at the end they are 2·0.01·|sin 100 − sin 200| apart, times half of 12.706.
        assert_eq!(none.mean[0].bar.unwrap().half_width(), 0.0);
        let apart = (100.0_f64.sin() - 200.0_f64.sin()).abs();
        let half = none.bar().unwrap().1.half_width();
        assert!((half - 12.706_2 * apart / 2.0).abs() < 1e-3, "{half}");
        assert_eq!(drift.curves[0].mean[0].y, 0.0);
        // √(0.55·0.45/200 + 0.45·0.55/200) / 2, in points, of a single seed.
        let mut one = state();
        one.arms.truncate(2);
        let one = Retention::of(&one, true).unwrap();
        let half = one.panels[0].curves[0].mean[0].bar.unwrap().half_width();
        assert!((half - 1.96 * 2.4875).abs() < 1e-3, "{half}");
        assert_eq!((figure.bars, one.bars), ((true, false), (false, true)));
        let last = drift.curves[0].mean[10].y;
        assert!((last - 0.8).abs() < 0.011, "{last}");
    }

    /// A figure that does not say which arm is which says nothing; a run just begun has none.
    #[test]
    fn the_figure_names_arms_and_start() {
        let figure = Retention::of(&state(), true).unwrap();
        let text = svg(&figure).unwrap();
        for expected in [
            "bos-prompted:kl:1",
            "start of the phase",
            "accuracy on the new data",
            "KL, nats",
        ] {
            assert!(text.contains(expected), "{expected}");
        }
        let bytes = png(&figure).unwrap().unwrap();
        assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
        if let Ok(path) = std::env::var("FORGETLAB_TEST_FIGURE") {
            std::fs::write(path, bytes).unwrap();
        }
        let mut begun = state();
        for arm in &mut begun.arms {
            arm.evaluations.truncate(1);
        }
        assert!(
            Retention::of(&begun, true).is_none()
                && Retention::of(&RunState::default(), true).is_none()
        );
    }
}

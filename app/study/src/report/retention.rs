//! `figures/retention`: what is kept of old data against what is learned of new data, one curve per arm.
//!
//! x: accuracy on the data of the last phase. y: in one panel for each group of question sets that are
//! asked at the same evaluations, their mean accuracy (so that a mean is always over the same sets: large
//! ones are asked seldom, small ones often); in a last panel, the mean KL on old data. A point is an
//! evaluation; the first is that at the start of the phase. The seeds of an arm are thin lines, their mean,
//! at the steps that all of them have reached, is a thick one. Bars are standard errors over the questions,
//! which the seeds share.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::run::{ArmState, Evaluation, RunState, Score};

use super::figure::{
    COLOURS, FigureError, INK, Picture, draw_line, marker, refused, style, write_text,
};

const PANEL: (u32, u32) = (620, 470);
const TITLE: u32 = 46;
const LEGEND_ROW: u32 = 26;
/// Maximum length of the list of names in a panel's title.
const TITLE_CHARS: usize = 50;
/// Maximum number of markers, with their bars, along a curve.
const MARKERS: usize = 12;

/// The retention figure of a run.
pub(super) struct Retention {
    title: String,
    arms: Vec<String>,
    panels: Vec<Panel>,
}

struct Panel {
    title: String,
    unit: &'static str,
    /// One curve per arm.
    curves: Vec<Curve>,
}

#[derive(Default)]
struct Curve {
    mean: Vec<Point>,
    /// One line per seed, where there are several.
    seeds: Vec<Vec<Point>>,
}

#[derive(Clone, Copy)]
struct Point {
    step: u64,
    x: f64,
    y: f64,
    error: Option<f64>,
}

/// The quantity on a panel's y axis.
enum Measure {
    Questions(Vec<String>),
    Kl,
}

impl Retention {
    /// The figure of a run; `None` where no old data was measured during the last phase.
    pub(super) fn of(state: &RunState) -> Option<Self> {
        let new = &state
            .phases
            .last()
            .filter(|_| state.phases.len() > 1)?
            .dataset;
        let mut arms: Vec<(String, Vec<&ArmState>)> = Vec::new();
        for arm in &state.arms {
            let same = |other: &ArmState| {
                other.info.name == arm.info.name
                    && other.info.lr == arm.info.lr
                    && other.info.seed != arm.info.seed
            };
            let known = arms
                .iter_mut()
                .find(|(_, seeds)| seeds.iter().all(|&s| same(s)));
            match known {
                Some((_, seeds)) => seeds.push(arm),
                None => arms.push((arm.info.name.clone(), vec![arm])),
            }
        }
        let mut measures: Vec<Measure> =
            groups(state).into_iter().map(Measure::Questions).collect();
        measures.push(Measure::Kl);
        let panels = measures.into_iter().map(|measure| {
            let curves = arms
                .iter()
                .map(|(_, seeds)| Curve::of(seeds, state, new, &measure));
            let (title, unit) = match &measure {
                Measure::Questions(names) => match names.join(", ") {
                    joined if names.len() == 1 || joined.len() <= TITLE_CHARS => {
                        (format!("accuracy on {joined}"), "accuracy, %")
                    }
                    _ => (
                        format!("mean accuracy on {} sets of questions", names.len()),
                        "accuracy, %",
                    ),
                },
                Measure::Kl => ("drift on old data".into(), "KL, nats per token"),
            };
            let curves = curves.collect();
            Panel {
                title,
                unit,
                curves,
            }
        });
        let drawn = |panel: &Panel| panel.curves.iter().any(|curve| curve.mean.len() > 1);
        let panels: Vec<Panel> = panels.filter(drawn).collect();
        (!panels.is_empty()).then(|| Self {
            title: format!(
                "{} ({}): what is kept against learning {new}",
                state.experiment, state.preset
            ),
            arms: arms.into_iter().map(|(name, _)| name).collect(),
            panels,
        })
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
    /// Value at an evaluation and its standard error.
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
                let kl: Vec<f64> = evaluation
                    .scores
                    .iter()
                    .filter(old)
                    .filter_map(|score| score.kl)
                    .collect();
                (!kl.is_empty()).then(|| (kl.iter().sum::<f64>() / kl.len() as f64, None))
            }
        }
    }
}

impl Curve {
    fn of(seeds: &[&ArmState], state: &RunState, new: &str, measure: &Measure) -> Self {
        let last = state.phases.len() - 1;
        let point = |evaluation: &Evaluation| {
            let x = 100.0 * evaluation.score(new)?.accuracy?;
            let (y, error) = match measure {
                // Before its phase the reference of the last phase is the student itself.
                Measure::Kl if evaluation.phase < last => (0.0, None),
                measure => measure.of(evaluation, new)?,
            };
            let step = evaluation.step;
            Some(Point { step, x, y, error })
        };
        let lines = seeds.iter().map(|arm| {
            of_last_phase(arm, state)
                .iter()
                .filter_map(point)
                .collect::<Vec<_>>()
        });
        let lines: Vec<Vec<Point>> = lines.filter(|line| !line.is_empty()).collect();
        let Some(first) = lines.first() else {
            return Self::default();
        };
        let n = lines.len() as f64;
        let mean = first.iter().filter_map(|point| {
            let at = |line: &Vec<Point>| line.iter().find(|p| p.step == point.step).copied();
            let points: Vec<Point> = lines.iter().map(at).collect::<Option<_>>()?;
            let mean = |of: fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / n;
            let errors: Option<Vec<f64>> = points.iter().map(|p| p.error).collect();
            Some(Point {
                step: point.step,
                x: mean(|p| p.x),
                y: mean(|p| p.y),
                error: errors.map(|errors| errors.iter().sum::<f64>() / n),
            })
        });
        let mean = mean.collect();
        let seeds = if lines.len() > 1 { lines } else { Vec::new() };
        Self { mean, seeds }
    }

    fn points(&self) -> impl Iterator<Item = &Point> {
        self.mean.iter().chain(self.seeds.iter().flatten())
    }
}

impl Picture for Retention {
    fn size(&self) -> (u32, u32) {
        let legend = (self.arms.len() + 1).div_ceil(2) as u32 * LEGEND_ROW + 14;
        (self.panels.len() as u32 * PANEL.0, TITLE + PANEL.1 + legend)
    }

    fn draw<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let (title, rest) = root.split_vertically(TITLE * scale);
        write_text(&title, &self.title, (16, 14), 22, &INK, scale)?;
        let (panels, legend) = rest.split_vertically(PANEL.1 * scale);
        let areas = panels.split_evenly((1, self.panels.len()));
        for (panel, area) in self.panels.iter().zip(&areas) {
            panel.draw(area, scale)?;
        }
        let (k, width) = (scale as i32, self.size().0 as i32 / 2);
        let place = |i: usize| {
            (
                24 + width * (i % 2) as i32,
                10 + LEGEND_ROW as i32 * (i / 2) as i32,
            )
        };
        for (i, name) in self.arms.iter().enumerate() {
            let (x, y) = place(i);
            let line = vec![(x * k, y * k), ((x + 44) * k, y * k)];
            let colour = COLOURS[i % COLOURS.len()];
            let stroke = ShapeStyle::from(colour).stroke_width(2 * scale);
            legend
                .draw(&PathElement::new(line, stroke))
                .map_err(refused)?;
            let outline = marker(i, scale)
                .into_iter()
                .map(|(dx, dy)| ((x + 22) * k + dx, y * k + dy))
                .collect::<Vec<_>>();
            legend
                .draw(&Polygon::new(outline, colour))
                .map_err(refused)?;
            write_text(&legend, name, (x + 52, y - 6), 14, &INK, scale)?;
        }
        let (x, y) = place(self.arms.len());
        legend
            .draw(&ring(((x + 22) * k, y * k), scale))
            .map_err(refused)?;
        write_text(
            &legend,
            "start of the phase",
            (x + 52, y - 6),
            14,
            &INK,
            scale,
        )
    }
}

/// The ring that marks the start of the phase.
fn ring(at: (i32, i32), scale: u32) -> Circle<(i32, i32), u32> {
    Circle::new(at, 9 * scale, ShapeStyle::from(INK).stroke_width(2 * scale))
}

impl Panel {
    /// Smallest and largest finite value of all points, with some room around.
    fn range(&self, of: impl Fn(&Point) -> [f64; 2]) -> std::ops::Range<f64> {
        let points = self.curves.iter().flat_map(Curve::points);
        let values = points.flat_map(of).filter(|value| value.is_finite());
        let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| {
            (f64::min(least, v), f64::max(most, v))
        });
        let room = (0.06 * (most - least)).max(1e-3);
        least - room..most + room
    }

    fn draw<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError> {
        let (across, upwards) = (
            self.range(|p| [p.x; 2]),
            self.range(|p| [p.y - p.error.unwrap_or(0.0), p.y + p.error.unwrap_or(0.0)]),
        );
        let digits = if upwards.end - upwards.start < 2.0 {
            2
        } else {
            0
        };
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, style(16, &INK, scale))
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
            .bold_line_style(RGBColor(225, 225, 225))
            .light_line_style(TRANSPARENT)
            .axis_style(ShapeStyle::from(INK).stroke_width(scale))
            .y_label_formatter(&|y| format!("{y:.digits$}"))
            .x_label_formatter(&|x| format!("{x:.0}"))
            .label_style(style(12, &INK, scale))
            .axis_desc_style(style(13, &INK, scale))
            .x_desc("accuracy on the new data, %")
            .y_desc(self.unit)
            .draw()
            .map_err(refused)?;
        for (i, curve) in self.curves.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let xy =
                |line: &[Point]| -> Vec<(f64, f64)> { line.iter().map(|p| (p.x, p.y)).collect() };
            for seed in &curve.seeds {
                let thin = ShapeStyle::from(colour.mix(0.4)).stroke_width(scale);
                chart
                    .draw_series(LineSeries::new(xy(seed), thin))
                    .map_err(refused)?;
            }
            draw_line(&mut chart, &xy(&curve.mean), i, scale)?;
            let every = curve.mean.len().div_ceil(MARKERS).max(1);
            // The last always, the others at even distances before it.
            let marked = curve.mean.iter().rev().step_by(every);
            for p in marked {
                if let Some(error) = p.error {
                    let bar = ShapeStyle::from(colour).stroke_width(scale);
                    let (low, high) = ((p.x, p.y - error), (p.x, p.y + error));
                    chart
                        .draw_series([PathElement::new(vec![low, high], bar)])
                        .map_err(refused)?;
                }
                let shape = EmptyElement::at((p.x, p.y)) + Polygon::new(marker(i, scale), colour);
                chart.draw_series([shape]).map_err(refused)?;
            }
        }
        if let Some(start) = self.curves.iter().find_map(|curve| curve.mean.first()) {
            let element = EmptyElement::at((start.x, start.y)) + ring((0, 0), scale);
            chart.draw_series([element]).map_err(refused)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::figure::{png, svg};
    use super::*;
    use crate::experiment::ArmInfo;
    use crate::run::{ChoiceScores, Cost, Estimate, PhaseInfo, Role};

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
                    choices: None,
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
            state.arms.push(arm);
        }
        state
    }

    /// Else a mean over the small sets would be drawn into that over all, and the claim hang on a jump.
    #[test]
    fn means_are_over_questions_that_are_asked_together_and_over_seeds() {
        let figure = Retention::of(&state()).unwrap();
        let titles: Vec<&str> = figure.panels.iter().map(|p| p.title.as_str()).collect();
        let expected = [
            "accuracy on arc_easy_200, csqa_200",
            "accuracy on arc_easy",
            "drift on old data",
        ];
        assert_eq!(titles, expected);
        assert_eq!(figure.arms, ["none", "bos-prompted:kl:1"]);
        let [often, seldom, drift] = &figure.panels[..] else {
            panic!()
        };
        let none = &often.curves[0];
        assert_eq!((none.mean.len(), none.seeds.len()), (11, 2));
        assert_eq!(seldom.curves[0].mean.len(), 2);
        assert!((none.mean[0].x - 50.0).abs() < 1e-9 && (none.mean[0].y - 50.0).abs() < 1e-9);
        // √(0.55·0.45/200 + 0.45·0.55/200) / 2, in points.
        assert!((none.mean[0].error.unwrap() - 2.4875).abs() < 1e-3);
        assert_eq!(
            (drift.curves[0].mean[0].y, drift.curves[0].mean[0].error),
            (0.0, None)
        );
        let last = drift.curves[0].mean[10].y;
        assert!((last - 0.8).abs() < 0.011, "{last}");
    }

    /// A figure that does not say which arm is which says nothing; a run just begun has none.
    #[test]
    fn the_figure_names_arms_and_start() {
        let figure = Retention::of(&state()).unwrap();
        let text = svg(&figure).unwrap();
        for expected in [
            "bos-prompted:kl:1",
            "start of the phase",
            "accuracy on the new data",
            "KL, nats",
        ] {
            assert!(text.contains(expected), "{expected}");
        }
        let bytes = png(&figure).unwrap();
        assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
        if let Ok(path) = std::env::var("FORGETLAB_TEST_FIGURE") {
            std::fs::write(path, bytes).unwrap();
        }
        let mut begun = state();
        for arm in &mut begun.arms {
            arm.evaluations.truncate(1);
        }
        assert!(Retention::of(&begun).is_none() && Retention::of(&RunState::default()).is_none());
    }
}

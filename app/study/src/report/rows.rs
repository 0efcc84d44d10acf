//! The rows of the CSVs. They are tidy: one row per measurement, each with the identity of its arm.
//!
//! Quoting follows RFC 4180; numbers are the shortest decimals that read back as the same number;
//! a field is empty where a value does not apply. The definitions of forgetting, learning, start
//! and best are those of [`crate::run::Change`]'s module.

use std::io::{self, Write};

use crate::experiment::{ArmInfo, said};
use crate::run::{ArmState, ArmStatus, Change, Cost, Evaluation, PhaseEnd, Role, RunState, Score};

use super::measures::{Metric, Worst, answers, kept, transfer};
use super::sweep::SweepPoint;

const IDENTITY: [&str; 7] = [
    "experiment",
    "arm",
    "strategy",
    "objective",
    "coeff",
    "lr",
    "seed",
];

const METRICS: [&str; 13] = [
    "phase",
    "step",
    "tokens_trained",
    "tokens_generated",
    "flops",
    "seconds",
    "dataset",
    "role",
    "ntp",
    "kl",
    "accuracy",
    "forgetting_ntp",
    "forgetting_accuracy",
];

const SUMMARY: [&str; 43] = [
    "dataset",
    "role",
    "start_ntp",
    "final_ntp",
    "best_ntp",
    "start_accuracy",
    "final_accuracy",
    "best_accuracy",
    "forgetting_ntp",
    "forgetting_accuracy",
    "learning_ntp",
    "learning_accuracy",
    "worst_ntp",
    "worst_ntp_step",
    "worst_accuracy",
    "worst_accuracy_step",
    "forgetting_best_ntp",
    "forgetting_best_accuracy",
    "retention_ntp",
    "retention_accuracy",
    "kl_old",
    "kl_new",
    "right_to_wrong",
    "wrong_to_right",
    "right_to_wrong_corrected",
    "wrong_to_right_corrected",
    "average_accuracy",
    "backward_transfer",
    "forward_transfer",
    "min_accuracy",
    "worst_case_accuracy",
    "tokens_trained",
    "tokens_generated",
    "seconds_train",
    "seconds_generate",
    "seconds_eval",
    "flops_train",
    "flops_reference",
    "flops_generate",
    "flops_eval",
    "replaced",
    "phase_end",
    "status",
];

/// Further columns of `metrics.csv` where a run has errors.
const METRICS_OF_FIT: [&str; 3] = ["error", "distance", "forgetting_error"];

/// Further columns of `summary.csv` where a run has errors.
const SUMMARY_OF_FIT: [&str; 9] = [
    "start_error",
    "final_error",
    "best_error",
    "forgetting_error",
    "learning_error",
    "worst_error",
    "worst_error_step",
    "forgetting_best_error",
    "distance",
];

const REPLAY: [&str; 10] = [
    "step",
    "rows",
    "nll",
    "distinct_1",
    "distinct_2",
    "distinct_3",
    "distinct_4",
    "duplicates",
    "nll_student",
    "scored",
];

const CHOICES: [&str; 9] = [
    "phase",
    "step",
    "dataset",
    "questions",
    "accuracy",
    "accuracy_stderr",
    "accuracy_normalised",
    "accuracy_normalised_stderr",
    "chance",
];

/// Columns that are there where something has them.
fn where_there<const N: usize>(there: bool, columns: &[&'static str; N]) -> Vec<&'static str> {
    columns.iter().copied().filter(|_| there).collect()
}

/// Writes `metrics.csv`: one row per (arm, step, dataset). `phase` counts from 0. A regression has more columns.
pub fn metrics_csv(state: &RunState, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    let has_fits = state.has_errors();
    let of_fit = where_there(has_fits, &METRICS_OF_FIT);
    csv.write_record(IDENTITY.iter().chain(&METRICS).chain(&of_fit))?;
    for arm in &state.arms {
        for evaluation in &arm.evaluations {
            for score in &evaluation.scores {
                let forgetting = arm.forgetting(&state.phases, &score.dataset, evaluation);
                let own = identity(state, &arm.info).into_iter().chain([
                    evaluation.phase.to_string(),
                    evaluation.step.to_string(),
                    evaluation.cost.tokens_trained.to_string(),
                    evaluation.cost.tokens_generated.to_string(),
                    optional(evaluation.cost.flops_without_evaluation()),
                    number(evaluation.cost.seconds()),
                    score.dataset.clone(),
                    role(score.role).to_owned(),
                    optional(score.ntp),
                    optional(score.kl),
                    optional(score.accuracy),
                    optional(forgetting.ntp),
                    optional(forgetting.accuracy),
                ]);
                let fit = [
                    optional(score.fit.map(|fit| fit.error)),
                    optional(score.fit.and_then(|fit| fit.distance)),
                    optional(forgetting.error),
                ];
                csv.write_record(own.chain(fit.into_iter().filter(|_| has_fits)))?;
            }
        }
    }
    csv.flush()
}

/// Writes `summary.csv`: one row per (arm, dataset), the role as of the last phase reached.
pub fn summary_csv(state: &RunState, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    let has_fits = state.has_errors();
    let of_fit = where_there(has_fits, &SUMMARY_OF_FIT);
    csv.write_record(IDENTITY.iter().chain(&SUMMARY).chain(&of_fit))?;
    for row in summary_rows(state, has_fits) {
        csv.write_record(row)?;
    }
    csv.flush()
}

/// Writes the summaries of several runs, each row preceded by the name of its run.
pub fn compare_csv<'a>(
    runs: impl IntoIterator<Item = (&'a str, &'a RunState)>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    let runs: Vec<_> = runs.into_iter().collect();
    let has_fits = runs.iter().any(|(_, state)| state.has_errors());
    let of_fit = where_there(has_fits, &SUMMARY_OF_FIT);
    let head = ["run"].iter().chain(&IDENTITY).chain(&SUMMARY);
    csv.write_record(head.chain(&of_fit))?;
    for (name, state) in runs {
        for row in summary_rows(state, has_fits) {
            csv.write_record(std::iter::once(name.to_owned()).chain(row))?;
        }
    }
    csv.flush()
}

/// Writes `points.csv` of a sweep: the rows of `summary.csv` of every point, each after its name, its grid and its place
/// on every axis of the sweep.
pub fn points_csv(points: &[SweepPoint], out: &mut dyn Write) -> io::Result<()> {
    let mut axes: Vec<&str> = Vec::new();
    for axis in points.iter().flat_map(|point| &point.place) {
        if !axes.contains(&axis.name.as_str()) {
            axes.push(&axis.name);
        }
    }
    let mut csv = csv::Writer::from_writer(out);
    let head = ["point", "grid"].iter().chain(&axes);
    csv.write_record(head.chain(&IDENTITY).chain(&SUMMARY))?;
    for point in points {
        let at = axes.iter().map(|name| {
            let axis = point.place.iter().find(|axis| axis.name == *name);
            axis.map_or_else(String::new, |axis| said(&axis.value))
        });
        let own: Vec<String> = [point.name.clone(), point.grid.clone()]
            .into_iter()
            .chain(at)
            .collect();
        for row in summary_rows(&point.state, false) {
            csv.write_record(own.iter().cloned().chain(row))?;
        }
    }
    csv.flush()
}

/// Writes `plugin_metrics.csv`: one row per number reported by a plugin.
pub fn plugin_metrics_csv(state: &RunState, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(IDENTITY.iter().chain(&["step", "name", "value"]))?;
    for arm in &state.arms {
        for (step, name, value) in &arm.plugin_metrics {
            let own = [step.to_string(), name.clone(), number(*value)];
            csv.write_record(identity(state, &arm.info).into_iter().chain(own))?;
        }
    }
    csv.flush()
}

/// Writes `replay.csv`: one row per replay sample. `rows`, `duplicates` (the share of rows that repeat an
/// earlier one), `distinct_N` (the share of N-grams that are distinct) and `scored` (the share of tokens that are trained
/// on) are of the whole batch; `nll` and `nll_student` are of its first rows, at most four.
pub fn replay_csv(state: &RunState, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(IDENTITY.iter().chain(&REPLAY))?;
    for arm in &state.arms {
        for look in &arm.replay {
            let quality = look.quality;
            let [one, two, three, four] = quality.distinct.map(number);
            let own = [
                look.step.to_string(),
                quality.rows.to_string(),
                optional(look.nll),
                one,
                two,
                three,
                four,
                number(quality.duplicate_rows as f64 / quality.rows.max(1) as f64),
                optional(look.nll_student),
                optional(look.scored),
            ];
            csv.write_record(identity(state, &arm.info).into_iter().chain(own))?;
        }
    }
    csv.flush()
}

/// Writes `choices.csv`: one row per (arm, step, dataset of questions).
pub fn choices_csv(state: &RunState, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(IDENTITY.iter().chain(&CHOICES))?;
    for arm in &state.arms {
        for evaluation in &arm.evaluations {
            for score in &evaluation.scores {
                let Some(choices) = &score.choices else {
                    continue;
                };
                let normalised = choices.accuracy_normalised;
                csv.write_record(identity(state, &arm.info).into_iter().chain([
                    evaluation.phase.to_string(),
                    evaluation.step.to_string(),
                    score.dataset.clone(),
                    choices.questions.to_string(),
                    number(choices.accuracy.mean),
                    optional(choices.accuracy.stderr),
                    optional(normalised.map(|n| n.mean)),
                    optional(normalised.and_then(|n| n.stderr)),
                    number(choices.chance),
                ]))?;
            }
        }
    }
    csv.flush()
}

fn summary_rows(state: &RunState, with_fits: bool) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for arm in &state.arms {
        for dataset in state.datasets() {
            let mut row: Vec<String> = identity(state, &arm.info).into();
            row.extend(summary_row(state, arm, dataset));
            if with_fits {
                row.extend(fit_fields(state, arm, dataset));
            }
            rows.push(row);
        }
    }
    rows
}

fn summary_row(state: &RunState, arm: &ArmState, dataset: &str) -> Vec<String> {
    let empty = Score {
        dataset: dataset.to_owned(),
        role: state.role(dataset, arm.phase),
        ntp: None,
        kl: None,
        accuracy: None,
        fit: None,
        choices: None,
        outcomes: None,
        rows_kept: false,
    };
    let last = arm.evaluations.last();
    let now = last.and_then(|e| e.score(dataset)).unwrap_or(&empty);
    let start = last.and_then(|e| arm.start(&state.phases, dataset, e));
    let then = start.and_then(|e| e.score(dataset)).unwrap_or(&empty);
    let since: Vec<&Score> = arm
        .evaluations
        .iter()
        .filter(|e| start.is_some_and(|start| e.step >= start.step))
        .filter_map(|e| e.score(dataset))
        .collect();
    let best_ntp = since.iter().filter_map(|s| s.ntp).reduce(f64::min);
    let best_accuracy = since.iter().filter_map(|s| s.accuracy).reduce(f64::max);
    let change = |of: fn(&ArmState, &[_], &str, &Evaluation) -> Change| {
        last.map_or_else(Change::default, |e| of(arm, &state.phases, dataset, e))
    };
    let forgetting = change(ArmState::forgetting);
    let learning = change(ArmState::learning);
    let mut row = vec![
        dataset.to_owned(),
        role(now.role).to_owned(),
        optional(then.ntp),
        optional(now.ntp),
        optional(best_ntp),
        optional(then.accuracy),
        optional(now.accuracy),
        optional(best_accuracy),
        optional(forgetting.ntp),
        optional(forgetting.accuracy),
        optional(learning.ntp),
        optional(learning.accuracy),
    ];
    row.extend(measure_fields(state, arm, now));
    row.extend(cost_fields(arm.cost()));
    row.push(optional(arm.cost().replaced));
    let end = state.phase_end(arm, dataset);
    row.push(end.map_or("", PhaseEnd::name).to_owned());
    row.push(status(state, arm).to_owned());
    row
}

/// Errors of a dataset, as `summary.csv` has the other metrics.
fn fit_fields(state: &RunState, arm: &ArmState, dataset: &str) -> [String; 9] {
    let Some(last) = arm.evaluations.last() else {
        return Default::default();
    };
    let metric = Metric::Error;
    let start = arm.start(&state.phases, dataset, last);
    let error = |e: &Evaluation| metric.of(e.score(dataset)?);
    let since = arm.evaluations.iter();
    let since = since.filter(|e| start.is_some_and(|start| e.step >= start.step));
    let kept = kept(state, arm, dataset, metric);
    let fit = last.score(dataset).and_then(|score| score.fit);
    [
        optional(start.and_then(error)),
        optional(error(last)),
        optional(since.filter_map(error).reduce(f64::min)),
        optional(arm.forgetting(&state.phases, dataset, last).error),
        optional(arm.learning(&state.phases, dataset, last).error),
        optional(kept.worst.map(|worst| worst.score)),
        kept.worst.map_or_else(String::new, |w| w.step.to_string()),
        optional(kept.forgetting_from_best),
        optional(fit.and_then(|fit| fit.distance)),
    ]
}

/// Writes `curves.csv`: one row per point of what an arm drew at its end, in the order in which it is drawn.
pub fn curves_csv(state: &RunState, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(IDENTITY.iter().chain(&["curve", "x", "y", "low", "high"]))?;
    for arm in &state.arms {
        for curve in &arm.drawn {
            for (i, (x, y)) in curve.x.iter().zip(&curve.y).enumerate() {
                let edge = |edge: &[f64]| optional(edge.get(i).copied());
                let own = [
                    curve.name.clone(),
                    number(*x),
                    number(*y),
                    edge(&curve.low),
                    edge(&curve.high),
                ];
                csv.write_record(identity(state, &arm.info).into_iter().chain(own))?;
            }
        }
    }
    csv.flush()
}

/// What the arm kept of a dataset, and over its tasks.
fn measure_fields(state: &RunState, arm: &ArmState, now: &Score) -> [String; 19] {
    let dataset = now.dataset.as_str();
    let [accuracy, ntp] =
        [Metric::Accuracy, Metric::Ntp].map(|metric| kept(state, arm, dataset, metric));
    let answers = answers(state, arm, dataset);
    let tasks = transfer(state, arm);
    let step = |worst: Option<Worst>| worst.map_or_else(String::new, |w| w.step.to_string());
    let kl = |role: Role| optional(now.kl.filter(|_| now.role == role));
    [
        optional(ntp.worst.map(|worst| worst.score)),
        step(ntp.worst),
        optional(accuracy.worst.map(|worst| worst.score)),
        step(accuracy.worst),
        optional(ntp.forgetting_from_best),
        optional(accuracy.forgetting_from_best),
        optional(ntp.retention),
        optional(accuracy.retention),
        kl(Role::Old),
        kl(Role::New),
        optional(answers.flips.map(|flips| flips.right_to_wrong)),
        optional(answers.flips.map(|flips| flips.wrong_to_right)),
        optional(answers.corrected.map(|flips| flips.right_to_wrong)),
        optional(answers.corrected.map(|flips| flips.wrong_to_right)),
        optional(tasks.average_accuracy),
        optional(tasks.backward),
        optional(tasks.forward),
        optional(tasks.min_accuracy),
        optional(tasks.worst_case_accuracy),
    ]
}

/// What the arm paid.
fn cost_fields(cost: Cost) -> [String; 9] {
    [
        cost.tokens_trained.to_string(),
        cost.tokens_generated.to_string(),
        number(cost.seconds_new + cost.seconds_replay),
        number(cost.seconds_generate),
        number(cost.seconds_eval),
        number(cost.flops_train),
        number(cost.flops_reference),
        number(cost.flops_generate),
        number(cost.flops_eval),
    ]
}

/// Status of an arm in one word; `interrupted` if it was running when the run was stopped cleanly.
pub(super) fn status(state: &RunState, arm: &ArmState) -> &'static str {
    match arm.status {
        ArmStatus::Running if state.interrupted.is_some() => "interrupted",
        _ => arm.status.word(),
    }
}

pub(super) fn identity(state: &RunState, arm: &ArmInfo) -> [String; 7] {
    [
        state.experiment.clone(),
        arm.name.clone(),
        arm.strategy.clone(),
        arm.objective.clone(),
        optional(arm.coeff),
        number(arm.lr),
        arm.seed.to_string(),
    ]
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Old => "old",
        Role::New => "new",
        Role::Future => "future",
    }
}

pub(super) fn optional(value: Option<f64>) -> String {
    value.map_or_else(String::new, number)
}

pub(super) fn number(value: f64) -> String {
    if value.is_finite() {
        value.to_string()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{ChoiceScores, Estimate, Event, Fit, Record, fixture};

    fn text(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Every notebook that reads these files breaks when a column moves or a figure changes.
    #[test]
    fn the_csvs_are_as_promised() {
        let state = fixture::state();
        // The three files one after another, an empty line between them; figures worked by hand.
        let golden = include_str!("golden.csv");
        let written = [
            text(|w| metrics_csv(&state, w)),
            text(|w| summary_csv(&state, w)),
            text(|w| compare_csv([("run-a", &state)], w)),
        ]
        .join("\n");
        if std::env::var_os("FORGETLAB_BLESS").is_some() {
            std::fs::write("src/report/golden.csv", &written).unwrap();
        }
        assert_eq!(written, golden, "\n{written}");
    }

    /// A name with a comma must not shift the columns; what is not a number must not stand as one.
    #[test]
    fn plugin_figures_are_quoted_and_nan_is_empty() {
        let mut state = fixture::state();
        for (name, value) in [("a,\"b\"", 0.1 + 0.2), ("c", f64::NAN)] {
            let event = Event::PluginMetric {
                arm: 1,
                step: 30,
                name: name.into(),
                value,
            };
            state.apply(&Record {
                v: 1,
                seq: 0,
                time: 0.0,
                event,
            });
        }
        assert_eq!(
            text(|w| plugin_metrics_csv(&state, w)),
            "experiment,arm,strategy,objective,coeff,lr,seed,step,name,value\n\
             toy-continual,bos-prompted:kl:10,bos-prompted,kl,10,0.003,0,30,\"a,\"\"b\"\"\",0.30000000000000004\n\
             toy-continual,bos-prompted:kl:10,bos-prompted,kl,10,0.003,0,30,c,\n"
        );
    }

    /// Replay of poor quality must show where it is looked for, and questions with their errors.
    #[test]
    fn looks_at_replay_and_questions_have_files_of_their_own() {
        let mut state = fixture::state();
        state.arms[1].replay.push(fixture::look(20));
        let identity = "toy-continual,bos-prompted:kl:10,bos-prompted,kl,10,0.003,0";
        let replay = text(|w| replay_csv(&state, w));
        let head = "step,rows,nll,distinct_1,distinct_2,distinct_3,distinct_4,duplicates,\
                    nll_student,scored";
        assert!(replay.lines().next().unwrap().ends_with(head), "{replay}");
        let row = format!("{identity},20,4,0.75,0.25,0.5,0.75,1,0.25,1.5,0.875");
        assert_eq!(replay.lines().skip(1).collect::<Vec<_>>(), [row]);

        state.arms[1].evaluations[4].scores[0].choices = Some(ChoiceScores {
            questions: 200,
            accuracy: Estimate {
                mean: 0.5,
                stderr: Some(0.035),
            },
            accuracy_normalised: None,
            chance: 0.25,
        });
        let choices = text(|w| choices_csv(&state, w));
        let head = "phase,step,dataset,questions,accuracy,accuracy_stderr,accuracy_normalised,\
                    accuracy_normalised_stderr,chance";
        assert!(choices.lines().next().unwrap().ends_with(head), "{choices}");
        let row = format!("{identity},1,40,reversal,200,0.5,0.035,,,0.25");
        assert_eq!(choices.lines().skip(1).collect::<Vec<_>>(), [row]);
    }

    /// Else the errors of a regression would be in no file, or other experiments would have columns for them.
    #[test]
    fn errors_have_columns_where_there_are_errors_and_read_back() {
        let mut state = fixture::state();
        let without = text(|w| metrics_csv(&state, w));
        assert!(!without.contains("error"), "{without}");
        for (i, evaluation) in state.arms[0].evaluations.iter_mut().enumerate() {
            for score in &mut evaluation.scores {
                let old = score.role == Role::Old;
                score.fit = Some(Fit {
                    error: 0.5 + i as f64,
                    distance: old.then_some(2.5),
                });
            }
        }
        let metrics = text(|w| metrics_csv(&state, w));
        let lines: Vec<&str> = metrics.lines().collect();
        assert!(lines[0].ends_with("forgetting_accuracy,error,distance,forgetting_error"));
        // The last evaluation of the first arm: `reversal` ended its phase at the third, with 2.5.
        let last = lines.iter().rfind(|line| line.contains(",none,")).unwrap();
        let old = lines
            .iter()
            .rfind(|line| line.contains(",reversal,old,") && line.contains(",none,"));
        assert!(old.unwrap().ends_with(",4.5,2.5,2"), "{old:?}");
        assert!(last.ends_with(",4.5,,"), "{last}");
        assert!(
            lines.last().unwrap().ends_with(",,,"),
            "the other arm has none"
        );
        let summary = text(|w| summary_csv(&state, w));
        let row = summary.lines().nth(1).unwrap();
        assert!(
            row.ends_with(",finished,2.5,4.5,2.5,2,,4.5,40,2,2.5"),
            "{row}"
        );
        let compared = text(|w| compare_csv([("a", &fixture::state()), ("b", &state)], w));
        let widths: Vec<usize> = compared
            .lines()
            .map(|line| line.split(',').count())
            .collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{compared}");
    }

    /// An arm that failed before its first evaluation must still be in the summary.
    #[test]
    fn an_arm_without_evaluations_has_its_rows() {
        let mut state = fixture::state();
        state.arms[0].evaluations.clear();
        state.arms[0].phase = 0;
        state.arms[0].status = ArmStatus::Failed("no such library".into());
        let summary = text(|w| summary_csv(&state, w));
        let row = summary.lines().nth(1).unwrap();
        assert_eq!(
            row,
            "toy-continual,none,none,,,0.003,0,reversal,new,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,0,0,0,0,0,0,0,0,0,,,failed"
        );
    }
}

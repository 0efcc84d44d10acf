//! The state of a run from its CSVs, where its events are gone: results folders that were committed.
//!
//! Columns are those that [`crate::run`]'s reports write, found by their names: files with fewer or more of
//! them read as well.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::experiment::{ArmInfo, position};

use super::csv_table::{CsvTable, Row};
use super::outcomes_file::OutcomesReader;
use super::state::told_apart;
use super::{
    ArmState, ArmStatus, ChoiceScores, Cost, Curve, Estimate, Evaluation, Fit, PhaseEnd, PhaseInfo,
    Role, RunError, RunState, Score,
};

/// File without which a folder holds no results.
const METRICS: &str = "metrics.csv";

/// Columns that tell which arm a row is about.
const IDENTITY: [&str; 4] = ["experiment", "arm", "lr", "seed"];

/// A run read from its CSVs.
#[derive(Clone, Debug)]
pub struct CsvRun {
    /// What tables, CSVs and figures are made from.
    pub state: RunState,
    /// What a run with its events would have besides, a line each.
    pub lacks: Vec<String>,
}

/// Whether a folder holds results that [`read_csvs`] can read.
pub fn holds_csvs(folder: &Path) -> bool {
    folder.join(METRICS).is_file()
}

/// Reads a folder of results without events: `metrics.csv`, and where they are there `summary.csv` (status,
/// seconds and FLOPs by kind), `choices.csv` (standard errors), `curves.csv` (what arms drew) and `config.toml` (phases, preset).
///
/// # Errors
/// A file that cannot be read, with line and column.
pub fn read_csvs(folder: &Path) -> Result<CsvRun, RunError> {
    let metrics = CsvTable::read(
        folder.join(METRICS),
        &[&IDENTITY[..], &["phase", "step", "dataset", "role"]].concat(),
    )?;
    let summary = CsvTable::read_if_there(
        folder.join("summary.csv"),
        &[&IDENTITY[..], &["status"]].concat(),
    )?;
    let choices = CsvTable::read_if_there(
        folder.join("choices.csv"),
        &[
            &IDENTITY[..],
            &["step", "dataset", "questions", "accuracy", "chance"],
        ]
        .concat(),
    )?;
    let mut state = RunState::default();
    // The summary has every arm, one that failed before its first evaluation too.
    for table in summary.iter().chain([&metrics]) {
        for row in table.rows() {
            add_arm(&mut state, row)?;
        }
    }
    read_metrics(&mut state, &metrics)?;
    if let Some(choices) = &choices {
        read_choices(&mut state, choices)?;
    }
    let curves = CsvTable::read_if_there(
        folder.join("curves.csv"),
        &[&IDENTITY[..], &["curve", "x", "y"]].concat(),
    )?;
    if let Some(curves) = &curves {
        read_curves(&mut state, curves)?;
    }
    let outline = read_outline(folder)?;
    let has_outline = outline.is_some();
    match outline {
        Some(outline) => {
            state.preset = outline.preset;
            let told = phases_of_rows(&state);
            state.phases = outline.phases;
            // A length that follows from other settings is not in the configuration.
            let unknown = state.phases.iter_mut().zip(told);
            for (phase, told) in unknown.filter(|(phase, _)| phase.steps == 0) {
                phase.steps = told.steps;
            }
        }
        None => state.phases = phases_of_rows(&state),
    }
    match &summary {
        Some(summary) => read_summary(&mut state, summary)?,
        None => guess_status(&mut state),
    }
    let infos: Vec<ArmInfo> = state.arms.iter().map(|arm| arm.info.clone()).collect();
    for (arm, info) in state.arms.iter_mut().zip(told_apart(&infos)) {
        arm.info = info;
    }
    state.finished = state.arms.iter().all(|arm| arm.status.is_over());
    let mut lacks = lacks(&state, summary.is_some(), choices.is_some(), has_outline);
    let mut outcomes = OutcomesReader::new(folder.join("outcomes.jsonl"));
    if !outcomes.attach_to(&mut state)? {
        let what = "no outcomes of single rows and questions: no interval within a seed";
        lacks.insert(1, what.to_owned());
    }
    Ok(CsvRun { state, lacks })
}

/// The arm that a row is about.
fn arm_info(row: Row<'_>) -> Result<ArmInfo, RunError> {
    let name: String = row.required("arm")?;
    let seed = row.required("seed")?;
    let strategy = match row.text("strategy") {
        "" => name.split([':', '+']).next().unwrap_or_default(),
        strategy => strategy,
    };
    Ok(ArmInfo {
        slug: format!("{name}-seed{seed}"),
        strategy: strategy.to_owned(),
        objective: row.text("objective").to_owned(),
        coeff: row.number("coeff")?,
        lr: row
            .number("lr")?
            .ok_or_else(|| row.error("lr", "is empty"))?,
        seed,
        name,
        steps: Vec::new(),
    })
}

fn add_arm(state: &mut RunState, row: Row<'_>) -> Result<(), RunError> {
    let experiment = row.text("experiment");
    if state.arms.is_empty() {
        state.experiment = experiment.to_owned();
    } else if experiment != state.experiment {
        let problem = format!(
            "is `{experiment}`, but rows before have `{}`: a folder holds one run",
            state.experiment
        );
        return Err(row.error("experiment", &problem));
    }
    let info = arm_info(row)?;
    if state.arms.iter().all(|arm| arm.info != info) {
        state.arms.push(ArmState::new(info));
    }
    Ok(())
}

/// The arm of a row, which [`add_arm`] or the metrics must have told of.
fn arm_of<'a>(state: &'a mut RunState, row: Row<'_>) -> Result<&'a mut ArmState, RunError> {
    let info = arm_info(row)?;
    let arm = state.arms.iter_mut().find(|arm| arm.info == info);
    arm.ok_or_else(|| {
        let problem = format!("`{}` has no rows in {METRICS}", info.name);
        row.error("arm", &problem)
    })
}

fn read_metrics(state: &mut RunState, metrics: &CsvTable) -> Result<(), RunError> {
    for row in metrics.rows() {
        let arm = arm_of(state, row)?;
        let (step, score): (u64, Score) = (row.required("step")?, score(row)?);
        let phase = row.required("phase")?;
        let at = arm.evaluations.partition_point(|e| e.step < step);
        match arm.evaluations.get_mut(at) {
            Some(evaluation) if evaluation.step == step => {
                if evaluation.phase != phase {
                    let problem = format!(
                        "is {phase}, but {} in other rows of step {step}",
                        evaluation.phase
                    );
                    return Err(row.error("phase", &problem));
                }
                if evaluation.score(&score.dataset).is_some() {
                    let problem = "arm, seed, step and dataset are those of a row before; the two \
                                   cannot be told apart";
                    return Err(row.error("dataset", problem));
                }
                evaluation.scores.push(score);
            }
            _ => arm.evaluations.insert(
                at,
                Evaluation {
                    phase,
                    step,
                    cost: cost(row)?,
                    scores: vec![score],
                },
            ),
        }
    }
    for arm in &mut state.arms {
        if let Some(last) = arm.evaluations.last() {
            (arm.phase, arm.step) = (last.phase, last.step);
        }
    }
    if state.arms.is_empty() {
        return Err(metrics.error("has no rows"));
    }
    Ok(())
}

fn score(row: Row<'_>) -> Result<Score, RunError> {
    let role = match row.text("role") {
        "old" => Role::Old,
        "new" => Role::New,
        "future" => Role::Future,
        other => {
            let problem = format!("is `{other}`, not old, new or future");
            return Err(row.error("role", &problem));
        }
    };
    Ok(Score {
        dataset: row.required("dataset")?,
        role,
        ntp: row.number("ntp")?,
        kl: row.number("kl")?,
        accuracy: row.number("accuracy")?,
        fit: fit(row)?,
        choices: None,
        outcomes: None,
        rows_kept: false,
    })
}

fn fit(row: Row<'_>) -> Result<Option<Fit>, RunError> {
    let distance = row.number("distance")?;
    let error = row.number("error")?;
    Ok(error.map(|error| Fit { error, distance }))
}

/// Reads what the arms drew.
fn read_curves(state: &mut RunState, curves: &CsvTable) -> Result<(), RunError> {
    for row in curves.rows() {
        let value = |column: &str| -> Result<f64, RunError> {
            let value = row.number(column)?;
            value.ok_or_else(|| row.error(column, "is empty"))
        };
        let (x, y, name) = (value("x")?, value("y")?, row.text("curve"));
        let edges = (row.number("low")?, row.number("high")?);
        let drawn = &mut arm_of(state, row)?.drawn;
        if drawn.last().is_none_or(|curve| curve.name != name) {
            let name = name.to_owned();
            drawn.push(Curve {
                name,
                ..Curve::default()
            });
        }
        if let Some(curve) = drawn.last_mut() {
            curve.x.push(x);
            curve.y.push(y);
            curve.low.extend(edges.0);
            curve.high.extend(edges.1);
        }
    }
    Ok(())
}

/// Cost of an evaluation. Seconds and FLOPs are one sum there; they stand with those of training.
fn cost(row: Row<'_>) -> Result<Cost, RunError> {
    Ok(Cost {
        tokens_trained: row.optional("tokens_trained")?.unwrap_or_default(),
        tokens_generated: row.optional("tokens_generated")?.unwrap_or_default(),
        seconds_new: row.number("seconds")?.unwrap_or_default(),
        flops_train: row.number("flops")?.unwrap_or(f64::NAN),
        ..Cost::default()
    })
}

fn read_choices(state: &mut RunState, choices: &CsvTable) -> Result<(), RunError> {
    let mean = |row: Row<'_>, column: &str| -> Result<f64, RunError> {
        let value = row.number(column)?;
        value.ok_or_else(|| row.error(column, "is empty"))
    };
    for row in choices.rows() {
        let arm = arm_of(state, row)?;
        let (step, dataset): (u64, String) = (row.required("step")?, row.required("dataset")?);
        let evaluation = arm.evaluations.iter_mut().find(|e| e.step == step);
        let scores = evaluation.map(|e| &mut e.scores).into_iter().flatten();
        let Some(score) = scores.into_iter().find(|score| score.dataset == dataset) else {
            let problem = format!("{METRICS} has no row of `{dataset}` at step {step}");
            return Err(row.error("dataset", &problem));
        };
        let normalised = row.number("accuracy_normalised")?;
        let normalised_stderr = row.number("accuracy_normalised_stderr")?;
        score.choices = Some(ChoiceScores {
            questions: row.required("questions")?,
            accuracy: Estimate {
                mean: mean(row, "accuracy")?,
                stderr: row.number("accuracy_stderr")?,
            },
            accuracy_normalised: normalised.map(|mean| Estimate {
                mean,
                stderr: normalised_stderr,
            }),
            chance: mean(row, "chance")?,
        });
    }
    Ok(())
}

/// Takes from the summary what the metrics do not have: status, and seconds and FLOPs by kind at the end.
fn read_summary(state: &mut RunState, summary: &CsvTable) -> Result<(), RunError> {
    for row in summary.rows() {
        let mut interrupted = false;
        let arm = arm_of(state, row)?;
        let reason = || "the reason is in events.jsonl, which is not here".to_owned();
        arm.status = match row.text("status") {
            "finished" => ArmStatus::Finished,
            "failed" => ArmStatus::Failed(reason()),
            "skipped" => ArmStatus::Skipped(reason()),
            "running" => ArmStatus::Running,
            "waiting" => ArmStatus::Waiting,
            "interrupted" => {
                interrupted = true;
                ArmStatus::Running
            }
            other => {
                let problem = format!("`{other}` is no status of an arm");
                return Err(row.error("status", &problem));
            }
        };
        read_phase_end(arm, row)?;
        let cost = arm.evaluations.last_mut().map(|last| &mut last.cost);
        if let Some(cost) = cost {
            let of = |column| row.number(column);
            cost.replaced = of("replaced")?;
            if let Some(train) = of("seconds_train")? {
                cost.seconds_new = train;
                cost.seconds_generate = of("seconds_generate")?.unwrap_or_default();
                cost.seconds_eval = of("seconds_eval")?.unwrap_or_default();
            }
            if let Some(train) = of("flops_train")? {
                cost.flops_train = train;
                cost.flops_reference = of("flops_reference")?.unwrap_or_default();
                cost.flops_generate = of("flops_generate")?.unwrap_or_default();
                cost.flops_eval = of("flops_eval")?.unwrap_or_default();
            }
        }
        if interrupted {
            state.interrupted = Some(reason());
        }
    }
    Ok(())
}

/// Takes how the last phase ended that trained the dataset of a row.
fn read_phase_end(arm: &mut ArmState, row: Row) -> Result<(), RunError> {
    let by = row.text("phase_end");
    if by.is_empty() {
        return Ok(());
    }
    let known = PhaseEnd::ALL.into_iter().find(|end| end.name() == by);
    let problem = format!("`{by}` is no end of a phase");
    let by = known.ok_or_else(|| row.error("phase_end", &problem))?;
    let dataset = row.text("dataset");
    let trains = |e: &&Evaluation| e.score(dataset).is_some_and(|s| s.role == Role::New);
    if let Some(last) = arm.evaluations.iter().rev().find(trains) {
        arm.ends.push((last.phase, last.step, by));
        arm.ends.sort_by_key(|&(phase, ..)| phase);
    }
    Ok(())
}

/// Without a summary, arms that have come furthest count as finished.
fn guess_status(state: &mut RunState) {
    let furthest = state.arms.iter().map(|arm| arm.step).max().unwrap_or(0);
    for arm in &mut state.arms {
        arm.status = if arm.step == furthest {
            ArmStatus::Finished
        } else {
            ArmStatus::Running
        };
    }
}

/// The part of `config.toml` that a run's state holds; settings of other versions are passed over.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    preset: String,
    phases: Vec<PhaseInfo>,
}

fn read_outline(folder: &Path) -> Result<Option<Outline>, RunError> {
    let path = folder.join("config.toml");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RunError::io("read", &path)(error)),
    };
    toml::from_str(&text).map(Some).map_err(|error| {
        let (line, column) = position(&text, error.span());
        let problem = format!("line {line}, column {column}: {}", error.message());
        RunError::Malformed { path, problem }
    })
}

/// Phases as the rows tell them: the dataset that is new, up to the last step.
fn phases_of_rows(state: &RunState) -> Vec<PhaseInfo> {
    let mut phases: Vec<PhaseInfo> = Vec::new();
    let mut ends: Vec<u64> = Vec::new();
    let evaluations = state.arms.iter().flat_map(|arm| &arm.evaluations);
    for evaluation in evaluations {
        while phases.len() <= evaluation.phase {
            let dataset = format!("phase {}", phases.len() + 1);
            phases.push(PhaseInfo { dataset, steps: 0 });
            ends.push(0);
        }
        let end = &mut ends[evaluation.phase];
        *end = evaluation.step.max(*end);
        if let Some(new) = evaluation.scores.iter().find(|s| s.role == Role::New) {
            phases[evaluation.phase].dataset.clone_from(&new.dataset);
        }
    }
    let mut before = 0;
    for (phase, end) in phases.iter_mut().zip(ends) {
        phase.steps = end.saturating_sub(before);
        before = end.max(before);
    }
    phases
}

fn lacks(state: &RunState, summary: bool, choices: bool, config: bool) -> Vec<String> {
    let mut lacks = vec!["no events: no log, no live status".to_owned()];
    if !summary {
        lacks.push(
            "no summary.csv: arms that came furthest count as finished, all time as training"
                .to_owned(),
        );
    }
    let evaluations = || state.arms.iter().flat_map(|arm| &arm.evaluations);
    if evaluations().all(|e| e.cost.flops().is_none()) {
        lacks.push("no FLOPs: they were not counted".to_owned());
    }
    let mut scores = evaluations().flat_map(|evaluation| &evaluation.scores);
    if !choices && scores.any(|s| s.ntp.is_none() && s.accuracy.is_some()) {
        lacks.push("no choices.csv: no standard errors of questions".to_owned());
    }
    if !config {
        lacks.push(
            "no config.toml: preset and settings are unknown, phases are those of the rows"
                .to_owned(),
        );
    }
    lacks
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::fixture;
    use super::*;
    use crate::report;

    type Csv = fn(&RunState, &mut dyn Write) -> io::Result<()>;

    const CSVS: [(&str, Csv); 3] = [
        ("metrics.csv", report::metrics_csv),
        ("summary.csv", report::summary_csv),
        ("choices.csv", report::choices_csv),
    ];

    fn written(state: &RunState, write: Csv) -> String {
        let mut bytes = Vec::new();
        write(state, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// A run with questions, an arm that was stopped and one that failed at once.
    fn state() -> RunState {
        let mut state = fixture::state();
        state.arms[0].evaluations[4].scores[0].choices = Some(ChoiceScores {
            questions: 200,
            accuracy: Estimate {
                mean: 0.1,
                stderr: Some(0.021),
            },
            accuracy_normalised: Some(Estimate {
                mean: 0.1,
                stderr: None,
            }),
            chance: 0.25,
        });
        state.arms[0].status = ArmStatus::Running;
        state.interrupted = Some("SIGINT".into());
        let mut failed = ArmState::new(ArmInfo {
            name: "mine:kl:0.1".into(),
            strategy: "mine".into(),
            ..state.arms[1].info.clone()
        });
        failed.status = ArmStatus::Failed("no such library".into());
        state.arms.push(failed);
        state
    }

    /// The folder of a run of which the CSVs alone were kept.
    fn folder(state: &RunState) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, write) in CSVS {
            fs::write(dir.path().join(name), written(state, write)).unwrap();
        }
        let config = "experiment = \"toy-continual\"\npreset = \"cpu\"\nunknown = 1\n\
                      [[phases]]\ndataset = \"reversal\"\nsteps = 20\n\
                      [[phases]]\ndataset = \"sort\"\nsteps = 20\nlr = 1\n";
        fs::write(dir.path().join("config.toml"), config).unwrap();
        dir
    }

    /// Else a comparison of committed results would show other numbers than the run it was made from.
    #[test]
    fn what_was_read_is_written_again_byte_for_byte() {
        let state = state();
        let dir = folder(&state);
        let read = read_csvs(dir.path()).unwrap();
        for (name, write) in CSVS {
            assert_eq!(
                written(&read.state, write),
                written(&state, write),
                "{name}"
            );
        }
        assert_eq!(
            (
                &read.state.preset,
                &read.state.phases,
                read.state.arms[1].step
            ),
            (&state.preset, &state.phases, 40)
        );
        assert_eq!(read.lacks.len(), 2, "{:?}", read.lacks);
    }

    /// Else the picture of a regression could not be drawn again from what was kept.
    #[test]
    fn errors_and_curves_come_back_and_a_length_that_is_not_in_the_configuration() {
        let mut state = state();
        for score in state.arms[0]
            .evaluations
            .iter_mut()
            .flat_map(|e| &mut e.scores)
        {
            let distance = (score.role == Role::Old).then_some(0.25);
            score.fit = Some(Fit {
                error: 0.1,
                distance,
            });
        }
        let curve = |name: &str, low: &[f64]| Curve {
            name: name.into(),
            x: vec![-1.5, 2.0],
            y: vec![0.1 + 0.2, -3.0],
            low: low.to_vec(),
            high: low.to_vec(),
        };
        state.arms[0].drawn = vec![curve("old points", &[]), curve("before", &[1.0, 2.0])];
        state.arms[1].drawn = vec![curve("before", &[0.0, 1.0])];
        let dir = folder(&state);
        let curves = written(&state, report::curves_csv);
        fs::write(dir.path().join("curves.csv"), &curves).unwrap();
        let path = dir.path().join("config.toml");
        let config = fs::read_to_string(&path).unwrap();
        fs::write(path, config.replacen("steps = 20", "steps = 0", 1)).unwrap();
        let read = read_csvs(dir.path()).unwrap().state;
        assert_eq!(read.arms[0].drawn, state.arms[0].drawn);
        assert_eq!(read.arms[1].drawn, state.arms[1].drawn);
        assert_eq!(written(&read, report::curves_csv), curves);
        for (name, write) in CSVS {
            assert_eq!(written(&read, write), written(&state, write), "{name}");
        }
        assert_eq!(read.phases, state.phases);
        let broken = curves.replacen("-1.5", "x", 1);
        fs::write(dir.path().join("curves.csv"), broken).unwrap();
        let error = read_csvs(dir.path()).unwrap_err().to_string();
        assert!(error.contains("line 2, column `x`"), "{error}");
    }

    /// Else `metrics.csv` alone, with the columns an older program wrote, would be good for nothing.
    #[test]
    fn a_few_columns_are_enough() {
        let dir = folder(&fixture::state());
        for name in ["summary.csv", "choices.csv", "config.toml"] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        let metrics = "seed,lr,arm,experiment,role,dataset,step,phase,accuracy,of_tomorrow\n\
                       0,1e-3,none,toy,new,a,0,0,0.0,x\n\
                       0,1e-3,none,toy,new,a,10,0,0.5,x\n\
                       0,1e-3,none,toy,old,a,30,1,0.25,x\n\
                       0,1e-3,none,toy,new,b,30,1,0.75,x\n";
        fs::write(dir.path().join(METRICS), metrics).unwrap();
        let CsvRun { state, lacks } = read_csvs(dir.path()).unwrap();
        let phase = |dataset: &str, steps| PhaseInfo {
            dataset: dataset.into(),
            steps,
        };
        assert_eq!(state.phases, [phase("a", 10), phase("b", 20)]);
        let arm = &state.arms[0];
        assert_eq!((&arm.status, arm.step), (&ArmStatus::Finished, 30));
        let lost = arm.forgetting(&state.phases, "a", &arm.evaluations[2]);
        assert_eq!((lost.accuracy, lost.ntp), (Some(0.25), None));
        for lack in [
            "no events",
            "no summary.csv",
            "no choices.csv",
            "no config.toml",
        ] {
            assert!(lacks.iter().any(|line| line.starts_with(lack)), "{lacks:?}");
        }
    }

    /// Else whoever edited a file by hand would search it for the field that cannot be read.
    #[test]
    fn errors_name_file_line_and_column() {
        let cases = [
            (
                "metrics.csv",
                ",0.6,",
                ",much,",
                "metrics.csv: line 4, column `accuracy`",
            ),
            ("metrics.csv", ",0.6,", ",inf,", "not a finite number"),
            (
                "metrics.csv",
                ",new,0.5,",
                ",young,0.5,",
                "line 4, column `role`",
            ),
            (
                "metrics.csv",
                ",0.6,",
                ",0.6,1,",
                "line 4: 21 fields, but 20 columns",
            ),
            (
                "metrics.csv",
                ",step,",
                ",stop,",
                "line 1: there is no column `step`",
            ),
            (
                "metrics.csv",
                ",ntp,",
                ",kl,",
                "line 1: two columns are called `kl`",
            ),
            ("metrics.csv", ",0,10,", ",0,0,", "cannot be told apart"),
            (
                "summary.csv",
                ",failed",
                ",faded",
                "summary.csv: line 6, column `status`",
            ),
            (
                "choices.csv",
                "reversal",
                "revers",
                "choices.csv: line 2, column `dataset`",
            ),
            (
                "config.toml",
                "steps = 20",
                "steps = x",
                "config.toml: line 6, column 9",
            ),
        ];
        for (file, from, to, says) in cases {
            let dir = folder(&state());
            let path = dir.path().join(file);
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{file}: {from}\n{text}");
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let error = read_csvs(dir.path()).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
    }
}

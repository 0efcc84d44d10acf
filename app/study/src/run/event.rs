//! The lines of `events.jsonl`, from which CSVs, figures and screens derive.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::experiment::{ArmInfo, Objective};

use super::nan::null_is_nan;
use super::{ChoiceScores, Outcomes, Quality, TrainingStretch};

/// Version of the event schema this program writes. From version 2 on every line has a checksum.
pub const EVENT_SCHEMA: u32 = 2;

/// One line of `events.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the event schema ([`EVENT_SCHEMA`]).
    pub v: u32,
    /// Number of the line, from 0, without gaps within one writer.
    pub seq: u64,
    /// Seconds since the Unix epoch.
    pub time: f64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What can happen in a run. `arm` is an index into [`Event::RunStarted::arms`], and behind them those of
/// [`Event::ArmAdded`] in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// First event of every run: what will be done.
    RunStarted {
        /// Experiment.
        experiment: String,
        /// Preset the run started from.
        preset: String,
        /// Every arm, seeds expanded, in the order of the screen and the CSVs.
        arms: Vec<ArmInfo>,
        /// Every phase in order.
        phases: Vec<PhaseInfo>,
        /// The configuration with which it was started; older runs have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        config: Option<serde_json::Value>,
    },
    /// A process took the run's lock, for the first time or to resume.
    WorkerStarted {
        /// Process id.
        pid: u32,
        /// Version of the binary.
        version: String,
        /// Device in words, e.g. `cpu, 2 threads, avx512f`.
        device: String,
        /// Whether the run had been started before.
        resumed: bool,
    },
    /// An arm entered a phase.
    PhaseStarted {
        /// Arm.
        arm: usize,
        /// Phase, from 0.
        phase: usize,
        /// Steps of the arm so far.
        step: u64,
    },
    /// An arm came to the end of a phase.
    PhaseEnded {
        /// Arm.
        arm: usize,
        /// Phase, from 0.
        phase: usize,
        /// Steps of the arm so far.
        step: u64,
        /// Which criterion ended it.
        by: PhaseEnd,
    },
    /// Live progress between evaluations; at most a few a second, never in the CSVs.
    Progress {
        /// Arm.
        arm: usize,
        /// Phase, from 0.
        phase: usize,
        /// Steps of the arm so far.
        step: u64,
        /// NTP loss of the last new batch, nats per token.
        #[serde(deserialize_with = "null_is_nan")]
        ntp: f64,
        /// Loss of the last replay batch before the coefficient, where there was one.
        replay: Option<f64>,
        /// Norm of the last gradient.
        #[serde(deserialize_with = "null_is_nan")]
        grad_norm: f64,
        /// Trained tokens per second since the last progress event.
        #[serde(deserialize_with = "null_is_nan")]
        tokens_per_second: f64,
    },
    /// The figures of a stretch of steps: at most [`TrainingStretch::MOST`] a phase, which end at steps that the length
    /// of the phase decides, where it ends early, and where the arm fails.
    Trained {
        /// Arm.
        arm: usize,
        /// The figures.
        #[serde(flatten)]
        stretch: TrainingStretch,
    },
    /// Every dataset was evaluated: at step 0, after every interval and at the end of every phase;
    /// never twice at the same step.
    Evaluated {
        /// Arm.
        arm: usize,
        /// Phase the arm is in, from 0.
        phase: usize,
        /// Steps of the arm so far.
        step: u64,
        /// Cost of the arm so far.
        cost: Cost,
        /// One entry a dataset.
        scores: Vec<Score>,
    },
    /// A named number reported by a plugin.
    PluginMetric {
        /// Arm.
        arm: usize,
        /// Steps of the arm so far.
        step: u64,
        /// Name given by the plugin.
        name: String,
        /// Value.
        #[serde(deserialize_with = "null_is_nan")]
        value: f64,
    },
    /// A replay batch was sampled for inspection: the first of a phase, then one per evaluation interval.
    ReplaySeen {
        /// Arm.
        arm: usize,
        /// The sample.
        #[serde(flatten)]
        seen: ReplayLook,
    },
    /// The student continued the run's prompts, as it does at every evaluation of a run that has prompts; follows that
    /// evaluation.
    Sampled {
        /// Arm.
        arm: usize,
        /// What it wrote.
        #[serde(flatten)]
        look: SampleLook,
    },
    /// What an arm draws at its end.
    Drawn {
        /// Arm.
        arm: usize,
        /// Steps of the arm so far.
        step: u64,
        /// The lines of the picture.
        curves: Vec<Curve>,
    },
    /// A log line for the researcher.
    Log {
        /// Severity.
        level: Level,
        /// Arm it is about, if it is about one.
        arm: Option<usize>,
        /// One line.
        message: String,
    },
    /// A checkpoint was written and synced.
    CheckpointSaved {
        /// Arm.
        arm: usize,
        /// Steps of the arm so far.
        step: u64,
        /// Path inside the run directory.
        path: String,
    },
    /// An arm went back to a checkpoint: what it reported after `step` is invalid.
    Rewound {
        /// Arm.
        arm: usize,
        /// Steps of the arm at the checkpoint (0: to the very start).
        step: u64,
        /// Why.
        reason: String,
    },
    /// An arm found no room in memory: it waits until another one is over, and then goes on.
    ArmWaits {
        /// Arm.
        arm: usize,
        /// For want of what, in few words.
        reason: String,
    },
    /// An arm reached the end of its last phase.
    ArmFinished {
        /// Arm.
        arm: usize,
        /// Steps of the arm.
        step: u64,
    },
    /// An arm failed; the others go on.
    ArmFailed {
        /// Arm.
        arm: usize,
        /// Steps of the arm so far.
        step: u64,
        /// What was wrong, where, and what to do.
        reason: String,
    },
    /// An arm was left out on resume, or stopped on request; the others go on.
    ArmSkipped {
        /// Arm.
        arm: usize,
        /// Steps of the arm so far.
        step: u64,
        /// Why.
        reason: String,
    },
    /// An arm was added on request, with every seed of the run.
    ArmAdded {
        /// The request.
        request: String,
        /// The arm as the configuration has it from now on.
        spec: serde_json::Value,
        /// One for each seed; their indices go on behind those of the arms that were there.
        arms: Vec<ArmInfo>,
    },
    /// A request was met, or refused.
    RequestAnswered {
        /// The request.
        request: String,
        /// Why it was refused, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
    /// The worker stopped cleanly before the end; the run is resumable.
    Interrupted {
        /// The signal or request that stopped it.
        reason: String,
    },
    /// Every arm finished, failed or was skipped.
    RunFinished {},
    /// An event of a newer version; readers ignore it.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// The arm it is about, if it is about one.
    pub fn arm(&self) -> Option<usize> {
        match *self {
            Self::PhaseStarted { arm, .. }
            | Self::PhaseEnded { arm, .. }
            | Self::Progress { arm, .. }
            | Self::Trained { arm, .. }
            | Self::Evaluated { arm, .. }
            | Self::PluginMetric { arm, .. }
            | Self::ReplaySeen { arm, .. }
            | Self::Sampled { arm, .. }
            | Self::Drawn { arm, .. }
            | Self::CheckpointSaved { arm, .. }
            | Self::Rewound { arm, .. }
            | Self::ArmWaits { arm, .. }
            | Self::ArmFinished { arm, .. }
            | Self::ArmFailed { arm, .. }
            | Self::ArmSkipped { arm, .. } => Some(arm),
            Self::Log { arm, .. } => arm,
            Self::RunStarted { .. }
            | Self::WorkerStarted { .. }
            | Self::ArmAdded { .. }
            | Self::RequestAnswered { .. }
            | Self::Interrupted { .. }
            | Self::RunFinished {}
            | Self::Unknown => None,
        }
    }
}

/// A sample of a replay batch, for inspection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayLook {
    /// Steps of the arm before the batch.
    pub step: u64,
    /// Its first rows as text, shortened, without control characters other than line breaks.
    pub rows: Vec<String>,
    /// What else is known of these rows, in their order; empty in runs of older versions.
    #[serde(default)]
    pub about: Vec<RowLook>,
    /// Mean cross entropy of these rows under the phase's reference, nats per token; `None` where they have
    /// no token to predict.
    pub nll: Option<f64>,
    /// The same under the student before the step; runs of older versions have none.
    #[serde(default)]
    pub nll_student: Option<f64>,
    /// Share of the batch's tokens, the first of each row left out, whose loss is trained on; runs of older versions
    /// have none.
    #[serde(default)]
    pub scored: Option<f64>,
    /// Diversity of the whole batch.
    pub quality: Quality,
}

/// What is known of a row of a replay batch beside its text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowLook {
    /// Parts of the text whose tokens are given and not trained on, in order: from which character up to which.
    pub masked: Vec<(usize, usize)>,
    /// How its tokens are used.
    pub objective: Option<Objective>,
    /// Whether a model wrote it; `None` where the strategy might have drawn it as well.
    pub generated: Option<bool>,
    /// Dataset of the row; of a written one, that whose rows begin like it. `None` where that is not known.
    pub dataset: Option<String>,
    /// Mean cross entropy under the phase's reference, nats per token; `None` where it has no token to predict.
    pub nll: Option<f64>,
    /// The same under the student before the step.
    pub nll_student: Option<f64>,
    /// Other rows of the batch with the same tokens.
    pub copies: usize,
}

/// What the student of an arm wrote at an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleLook {
    /// Steps of the arm so far.
    pub step: u64,
    /// How it continued the prompts of the run, which are the same at every evaluation.
    pub samples: Vec<Continuation>,
}

/// How a student continued a prompt: always with the most likely token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuation {
    /// Dataset of the prompt; `None` where it is of none, or of several.
    pub dataset: Option<String>,
    /// The prompt as text, without control characters other than line breaks.
    pub prompt: String,
    /// What follows it, up to the end of the row where it came to one, likewise.
    pub text: String,
}

/// Severity of an [`Event::Log`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Information.
    Info,
    /// Warning.
    Warn,
    /// Failure.
    Error,
}

/// The criterion that ended a phase: of several the first that held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseEnd {
    /// Its steps.
    Steps,
    /// The held-out loss that was wanted.
    TargetLoss,
    /// Too many evaluations without a lower held-out loss.
    EarlyStop,
    /// Its training time.
    Seconds,
}

impl PhaseEnd {
    /// Every criterion.
    pub const ALL: [Self; 4] = [
        Self::Steps,
        Self::TargetLoss,
        Self::EarlyStop,
        Self::Seconds,
    ];

    /// Name in events and CSVs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::TargetLoss => "target-loss",
            Self::EarlyStop => "early-stop",
            Self::Seconds => "seconds",
        }
    }

    /// Why a phase ended before it had its steps; `None` where it had them.
    pub fn early(self) -> Option<&'static str> {
        match self {
            Self::Steps => None,
            Self::TargetLoss => Some("its data have the loss that was wanted"),
            Self::EarlyStop => Some("the loss of its data has stopped falling"),
            Self::Seconds => Some("it has had its time"),
        }
    }
}

/// A phase in events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseInfo {
    /// Dataset trained on.
    pub dataset: String,
    /// Optimizer steps, at most.
    pub steps: u64,
}

/// Cost of an arm so far, shared phases included.
///
/// FLOPs are NaN where they were not counted, as in runs of older versions: no sum with them is a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Tokens trained on, new and replayed.
    pub tokens_trained: u64,
    /// Tokens sampled for replay.
    pub tokens_generated: u64,
    /// Seconds spent training on new data.
    pub seconds_new: f64,
    /// Seconds spent training on replayed data, the reference's forward included.
    pub seconds_replay: f64,
    /// Seconds spent in the strategy's calls, generation included.
    pub seconds_generate: f64,
    /// Seconds spent in evaluation.
    pub seconds_eval: f64,
    /// FLOPs of training the student, on new and replayed data.
    #[serde(default = "not_counted", deserialize_with = "null_is_nan")]
    pub flops_train: f64,
    /// FLOPs of the reference: its forwards for KL, and scores that a strategy asked of it.
    #[serde(default = "not_counted", deserialize_with = "null_is_nan")]
    pub flops_reference: f64,
    /// FLOPs of generation, and of scores that a strategy asked of the student.
    #[serde(default = "not_counted", deserialize_with = "null_is_nan")]
    pub flops_generate: f64,
    /// FLOPs of evaluation, of the student and of the reference.
    #[serde(default = "not_counted", deserialize_with = "null_is_nan")]
    pub flops_eval: f64,
    /// Share of the new rows of the phase that replay has replaced so far; `None` where none are to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<f64>,
}

fn not_counted() -> f64 {
    f64::NAN
}

impl Cost {
    /// Seconds in total.
    pub fn seconds(&self) -> f64 {
        self.seconds_new + self.seconds_replay + self.seconds_generate + self.seconds_eval
    }

    /// FLOPs of what an arm needs to learn and keep, evaluation apart; `None` where they were not counted.
    pub fn flops_without_evaluation(&self) -> Option<f64> {
        let all = self.flops_train + self.flops_reference + self.flops_generate;
        all.is_finite().then_some(all)
    }

    /// FLOPs in total; `None` where they were not counted.
    pub fn flops(&self) -> Option<f64> {
        let all = self.flops_train + self.flops_reference + self.flops_generate + self.flops_eval;
        all.is_finite().then_some(all)
    }
}

/// Role of a dataset in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Trained on in an earlier phase.
    Old,
    /// Being trained on.
    New,
    /// Trained on in a later phase.
    Future,
}

/// Held-out scores of one dataset. `None` where a score does not apply (or is not finite).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Dataset.
    pub dataset: String,
    /// Its role in the arm's current phase.
    pub role: Role,
    /// Next-token loss, nats per token: of digit tasks divided by all tokens, of text and chats by the targets.
    pub ntp: Option<f64>,
    /// KL(reference || student) against the phase's reference, nats per token.
    pub kl: Option<f64>,
    /// 0 to 1: of digit tasks the share of rows answered exactly, of text and chats the share of targets that are the
    /// most likely token, of multiple-choice questions the share answered correctly (length-normalised where they
    /// are asked in plain text).
    pub accuracy: Option<f64>,
    /// Regression: how well the functions fit, and how far they have moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// Multiple choice: the accuracies with their standard errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<ChoiceScores>,
    /// Scores of its single rows or questions, kept in a file of their own; older runs have none.
    #[serde(skip)]
    pub outcomes: Option<Arc<Outcomes>>,
    /// Whether that file has these scores: where it lacks them, it is damaged.
    #[serde(rename = "kept", default = "yes", skip_serializing_if = "is_yes")]
    pub rows_kept: bool,
}

/// Held-out figures of a regression on one interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Root mean square of the predictive mean minus the target.
    pub error: f64,
    /// Root mean square of each function minus what it was before the phase; `None` before the second phase, and
    /// where the data is not old.
    pub distance: Option<f64>,
}

/// A line of a picture that an arm draws at its end, or points of it. Numbers that a picture shows, to six decimals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// What it shows.
    pub name: String,
    /// Inputs.
    pub x: Vec<f64>,
    /// Values.
    pub y: Vec<f64>,
    /// Lower edge of a band around them; empty without one.
    pub low: Vec<f64>,
    /// Upper edge.
    pub high: Vec<f64>,
}

impl Score {
    /// Whether the scores of its single rows were kept and are lost.
    pub fn lacks_rows(&self) -> bool {
        self.rows_kept && self.outcomes.is_none()
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_yes(value: &bool) -> bool {
    *value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else runs from before there were questions could not be read any more.
    #[test]
    fn scores_of_older_runs_have_no_questions() {
        let old = r#"{"dataset":"add","role":"old","ntp":1.5,"kl":null,"accuracy":0.5}"#;
        let score: Score = serde_json::from_str(old).unwrap();
        assert_eq!(score.choices, None);
        assert_eq!(serde_json::to_string(&score).unwrap(), old);
    }

    /// Else the FLOPs of an older run would be taken for none, or be counted from its middle on.
    #[test]
    fn flops_of_older_runs_are_not_counted_and_stay_so() {
        let old = r#"{"tokens_trained":5,"tokens_generated":0,"seconds_new":1.0,
            "seconds_replay":0.0,"seconds_generate":0.0,"seconds_eval":0.5}"#;
        let mut cost: Cost = serde_json::from_str(old).unwrap();
        assert_eq!((cost.tokens_trained, cost.flops()), (5, None));
        cost.flops_train += 1e9;
        let written = serde_json::to_string(&cost).unwrap();
        let again: Cost = serde_json::from_str(&written).unwrap();
        assert_eq!(again.flops(), None);

        let counted = Cost {
            flops_train: 3.0,
            flops_reference: 0.1,
            flops_generate: 0.2,
            flops_eval: 1e300,
            ..Cost::default()
        };
        let written = serde_json::to_string(&counted).unwrap();
        assert_eq!(serde_json::from_str::<Cost>(&written).unwrap(), counted);
        assert_eq!(Cost::default().flops(), Some(0.0));
    }

    /// Else a look would be written and never read.
    #[test]
    fn a_look_at_replay_reads_back_as_it_was() {
        let seen = ReplayLook {
            step: 7,
            rows: vec!["a \"b\"\nc".into()],
            about: vec![RowLook {
                masked: vec![(0, 2)],
                objective: Some(Objective::Kl),
                generated: Some(true),
                dataset: Some("add".into()),
                nll: Some(0.1 + 0.2),
                nll_student: None,
                copies: 3,
            }],
            nll: Some(0.1 + 0.2),
            nll_student: Some(0.7),
            scored: Some(0.5),
            quality: Quality::of(&[&[1, 2, 1]]),
        };
        let record = Record {
            v: EVENT_SCHEMA,
            seq: 3,
            time: 1.5,
            event: Event::ReplaySeen { arm: 2, seen },
        };
        let line = serde_json::to_string(&record).unwrap();
        assert!(line.contains(r#""event":"replay_seen""#), "{line}");
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    }

    /// Else what a student wrote would be written and never read, or a run of an older version would not open.
    #[test]
    fn samples_read_back_and_looks_of_older_runs_know_less() {
        let sample = Continuation {
            dataset: None,
            prompt: "<bos>".into(),
            text: "add 1\n".into(),
        };
        let look = SampleLook {
            step: 20,
            samples: vec![sample],
        };
        let event = Event::Sampled { arm: 1, look };
        let line = serde_json::to_string(&event).unwrap();
        assert!(line.contains(r#""samples":[{"dataset":null,"#), "{line}");
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);

        let old = r#"{"step":7,"rows":["a"],"nll":0.5,
            "quality":{"rows":1,"tokens":3,"duplicate_rows":0,"distinct":[1.0,1.0,1.0,1.0]}}"#;
        let look: ReplayLook = serde_json::from_str(old).unwrap();
        assert_eq!((look.rows.len(), look.about), (1, Vec::new()));
        assert_eq!((look.nll_student, look.scored), (None, None));
    }
}

//! The state of a run, derived from its events; screens, CSVs and figures read it.

use serde::{Deserialize, Serialize};

use crate::experiment::{ArmInfo, shortest};

use super::TrainingStretch;
use super::dropped::Dropped;
use super::event::{
    Cost, Curve, Event, Level, PhaseEnd, PhaseInfo, Record, ReplayLook, Role, SampleLook, Score,
};
use super::nan::null_is_nan;

/// State of a run: the fold of its events so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Experiment; empty before the first event.
    pub experiment: String,
    /// Preset.
    pub preset: String,
    /// Phases in order.
    pub phases: Vec<PhaseInfo>,
    /// The configuration with which it was started and the arms that were added since, as JSON; older runs have none.
    pub config: Option<serde_json::Value>,
    /// Arms in order.
    pub arms: Vec<ArmState>,
    /// Device of the last worker, in words.
    pub device: String,
    /// Process id of the last worker.
    pub pid: Option<u32>,
    /// Log lines, oldest first.
    pub log: Vec<LogLine>,
    /// Times of the first and the last event, in seconds since the Unix epoch.
    pub times: Option<(f64, f64)>,
    /// Why the last worker stopped, if it stopped cleanly before the end.
    pub interrupted: Option<String>,
    /// Whether every arm has ended.
    pub finished: bool,
    /// Arms that were added since the start, in order.
    #[serde(default)]
    pub added: Vec<AddedArm>,
    /// Requests that were met or refused, in order.
    #[serde(default)]
    pub answers: Vec<Answer>,
}

/// An arm that was added to a run on request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddedArm {
    /// The request.
    pub request: String,
    /// The arm as the configuration has it.
    pub spec: serde_json::Value,
    /// Index of its first seed among the arms.
    pub first: usize,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The request.
    pub request: String,
    /// Why it was refused, if it was.
    pub refused: Option<String>,
}

/// An [`Event::Log`] with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// Seconds since the Unix epoch.
    pub time: f64,
    /// Severity.
    pub level: Level,
    /// Arm it is about, if it is about one.
    pub arm: Option<usize>,
    /// One line of text.
    pub message: String,
}

/// State of one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmState {
    /// Identity of the arm.
    pub info: ArmInfo,
    /// Status of the arm.
    pub status: ArmStatus,
    /// Why it waits until another arm is over, where it found no room in memory.
    #[serde(default)]
    pub waits: Option<String>,
    /// Current phase, from 0.
    pub phase: usize,
    /// Steps so far (live progress included).
    pub step: u64,
    /// Phases that are over: which, at which step, and why.
    #[serde(default)]
    pub ends: Vec<(usize, u64, PhaseEnd)>,
    /// The last live progress.
    pub progress: Option<Progress>,
    /// Losses, gradient norms and learning rates between evaluations, in order of steps; runs of older versions have
    /// none.
    #[serde(default)]
    pub training: Vec<TrainingStretch>,
    /// Evaluations in order of steps, the first at step 0.
    pub evaluations: Vec<Evaluation>,
    /// Numbers reported by the plugin: step, name, value.
    pub plugin_metrics: Vec<(u64, String, f64)>,
    /// Samples of its replay batches, in order of steps; only the latest keeps its rows.
    pub replay: Vec<ReplayLook>,
    /// What its student wrote at evaluations, in order of steps; only the first and the latest keep their texts.
    #[serde(default)]
    pub samples: Vec<SampleLook>,
    /// What it drew at its end.
    #[serde(default)]
    pub drawn: Vec<Curve>,
    /// What was dropped of its evaluations; nothing but where a state is kept thin.
    #[serde(skip)]
    pub dropped: Dropped,
}

/// Status of an arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ArmStatus {
    /// Not started.
    Waiting,
    /// Between its first and last step.
    Running,
    /// Reached the end of its last phase.
    Finished,
    /// Ended early, for this reason.
    Failed(String),
    /// Left out on resume or stopped on request, for this reason.
    Skipped(String),
}

/// Live figures of an [`Event::Progress`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// NTP loss of the last new batch.
    #[serde(deserialize_with = "null_is_nan")]
    pub ntp: f64,
    /// Replay loss before the coefficient.
    pub replay: Option<f64>,
    /// Norm of the last gradient.
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// Trained tokens per second.
    #[serde(deserialize_with = "null_is_nan")]
    pub tokens_per_second: f64,
}

/// One [`Event::Evaluated`] of an arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Phase, from 0.
    pub phase: usize,
    /// Steps so far.
    pub step: u64,
    /// Cost so far.
    pub cost: Cost,
    /// One entry a dataset.
    pub scores: Vec<Score>,
}

impl ArmStatus {
    /// The status in one word, as in `summary.csv`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed(_) => "failed",
            Self::Skipped(_) => "skipped",
        }
    }

    /// Whether the arm has ended.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Finished | Self::Failed(_) | Self::Skipped(_))
    }
}

impl ArmState {
    /// An arm that has not started.
    pub fn new(info: ArmInfo) -> Self {
        Self {
            info,
            status: ArmStatus::Waiting,
            waits: None,
            phase: 0,
            step: 0,
            ends: Vec::new(),
            progress: None,
            training: Vec::new(),
            evaluations: Vec::new(),
            plugin_metrics: Vec::new(),
            replay: Vec::new(),
            samples: Vec::new(),
            drawn: Vec::new(),
            dropped: Dropped::default(),
        }
    }

    /// Cost up to the last evaluation.
    pub fn cost(&self) -> Cost {
        self.evaluations.last().map(|e| e.cost).unwrap_or_default()
    }

    /// Whether something was reported that an arm at `step`, before the step that follows, has not done.
    ///
    /// A look at what is replayed belongs to the step that follows.
    pub fn is_beyond(&self, step: u64) -> bool {
        let looked = self.replay.last().is_some_and(|look| look.step >= step);
        self.step > step || looked
    }

    /// Discards everything reported after `step`.
    fn rewind(&mut self, step: u64) {
        self.evaluations.retain(|e| e.step <= step);
        self.training.retain(|stretch| stretch.step <= step);
        self.plugin_metrics.retain(|(at, _, _)| *at <= step);
        self.ends.retain(|&(_, at, _)| at <= step);
        // The batch of step `step` comes after the checkpoint.
        self.replay.retain(|look| look.step < step);
        self.samples.retain(|look| look.step <= step);
        if step < self.step {
            self.drawn.clear();
        }
        self.step = step;
        self.phase = self.evaluations.last().map_or(0, |e| e.phase);
        self.progress = None;
        self.status = if step == 0 {
            ArmStatus::Waiting
        } else {
            ArmStatus::Running
        };
    }

    /// Adds figures of training, in place of earlier ones at the same or a later step.
    fn trained(&mut self, stretch: TrainingStretch) {
        keep_while(&mut self.training, |known| known.step < stretch.step);
        self.step = stretch.step;
        self.phase = stretch.phase;
        self.training.push(stretch);
    }

    /// Adds an evaluation, in place of earlier ones at the same or a later step.
    fn evaluated(&mut self, evaluation: Evaluation) {
        keep_while(&mut self.evaluations, |e| e.step < evaluation.step);
        self.step = evaluation.step;
        self.phase = evaluation.phase;
        self.evaluations.push(evaluation);
    }

    /// Adds a number of the plugin, or replaces an earlier one of the same name and step, so that a
    /// plugin may report again after a resume what it reported at the checkpoint.
    fn plugin_metric(&mut self, step: u64, name: &str, value: f64) {
        let same = self
            .plugin_metrics
            .iter_mut()
            .rev()
            .take_while(|(at, _, _)| *at >= step)
            .find(|(at, other, _)| *at == step && other == name);
        match same {
            Some((_, _, old)) => *old = value,
            None => self.plugin_metrics.push((step, name.to_owned(), value)),
        }
    }

    /// Adds a replay sample, in place of earlier ones at the same or a later step.
    fn replay_seen(&mut self, seen: &ReplayLook) {
        keep_while(&mut self.replay, |look| look.step < seen.step);
        if let Some(last) = self.replay.last_mut() {
            (last.rows, last.about) = (Vec::new(), Vec::new());
        }
        self.replay.push(seen.clone());
    }

    /// Adds what the student wrote, in place of what it wrote at the same or a later step.
    fn sampled(&mut self, look: &SampleLook) {
        keep_while(&mut self.samples, |known| known.step < look.step);
        if let [_, .., last] = &mut self.samples[..] {
            last.samples = Vec::new();
        }
        self.samples.push(look.clone());
    }

    /// Takes in whether it waits: all that it does says that it waits no more, but not that it went back.
    fn take_wait(&mut self, event: &Event) {
        match event {
            Event::ArmWaits { reason, .. } => {
                self.waits = Some(reason.clone());
                self.progress = None;
            }
            Event::Rewound { .. } => {}
            _ => self.waits = None,
        }
    }

    /// Marks a waiting arm as running.
    fn mark_running(&mut self) {
        if self.status == ArmStatus::Waiting {
            self.status = ArmStatus::Running;
        }
    }
}

impl Evaluation {
    /// Whether it has the datasets of another one of its arm: in a phase, as many are the same ones.
    fn is_like(&self, other: &Self) -> bool {
        (self.phase, self.scores.len()) == (other.phase, other.scores.len())
    }

    /// The evaluation as an event of an arm.
    pub fn event(&self, arm: usize) -> Event {
        Event::Evaluated {
            arm,
            phase: self.phase,
            step: self.step,
            cost: self.cost,
            scores: self.scores.clone(),
        }
    }
}

impl SampleLook {
    /// What was written as an event of an arm.
    pub fn event(&self, arm: usize) -> Event {
        let look = self.clone();
        Event::Sampled { arm, look }
    }
}

impl TrainingStretch {
    /// The stretch as an event of an arm.
    pub fn event(self, arm: usize) -> Event {
        Event::Trained { arm, stretch: self }
    }
}

impl Progress {
    /// The progress as an event of an arm.
    pub fn event(&self, arm: usize, phase: usize, step: u64) -> Event {
        Event::Progress {
            arm,
            phase,
            step,
            ntp: self.ntp,
            replay: self.replay,
            grad_norm: self.grad_norm,
            tokens_per_second: self.tokens_per_second,
        }
    }
}

impl RunState {
    /// Applies one more event. Events about unknown arms are ignored.
    pub fn apply(&mut self, record: &Record) {
        let start = self.times.map_or(record.time, |(start, _)| start);
        self.times = Some((start, record.time));
        match &record.event {
            Event::RunStarted {
                experiment,
                preset,
                arms,
                phases,
                config,
            } => {
                self.experiment.clone_from(experiment);
                self.preset.clone_from(preset);
                self.phases.clone_from(phases);
                self.config.clone_from(config);
                self.arms = told_apart(arms).into_iter().map(ArmState::new).collect();
            }
            Event::WorkerStarted { pid, device, .. } => {
                self.pid = Some(*pid);
                self.device.clone_from(device);
                self.interrupted = None;
                self.finished = false;
                self.nobody_waits();
            }
            Event::Interrupted { reason } => {
                self.interrupted = Some(reason.clone());
                self.nobody_waits();
            }
            Event::RunFinished {} => self.finished = true,
            Event::Log {
                level,
                arm,
                message,
            } => {
                self.log.push(LogLine {
                    time: record.time,
                    level: *level,
                    arm: *arm,
                    message: message.clone(),
                });
            }
            Event::ArmAdded {
                request,
                spec,
                arms,
            } => self.add_arm(request, spec, arms),
            Event::RequestAnswered { request, refused } => self.answers.push(Answer {
                request: request.clone(),
                refused: refused.clone(),
            }),
            event => self.apply_to_arm(event),
        }
    }

    /// No arm waits any longer: what they waited for was a worker's that has ended.
    pub fn nobody_waits(&mut self) {
        self.arms.iter_mut().for_each(|arm| arm.waits = None);
    }

    fn add_arm(&mut self, request: &str, spec: &serde_json::Value, arms: &[ArmInfo]) {
        self.added.push(AddedArm {
            request: request.to_owned(),
            spec: spec.clone(),
            first: self.arms.len(),
        });
        let arms = arms.iter().cloned().map(ArmState::new);
        self.arms.extend(arms);
        let known = self.config.as_mut().and_then(|c| c.get_mut("arms"));
        if let Some(known) = known.and_then(serde_json::Value::as_array_mut) {
            known.push(spec.clone());
        }
    }

    /// What became of a request, where it was answered.
    pub fn answer(&self, request: &str) -> Option<&Answer> {
        self.answers.iter().find(|answer| answer.request == request)
    }

    fn apply_to_arm(&mut self, event: &Event) {
        let Some(arm) = event.arm().and_then(|arm| self.arms.get_mut(arm)) else {
            return;
        };
        arm.take_wait(event);
        match event {
            Event::PhaseStarted { phase, step, .. } => {
                arm.mark_running();
                arm.phase = *phase;
                arm.step = *step;
                arm.progress = None;
            }
            &Event::PhaseEnded {
                phase, step, by, ..
            } => {
                arm.ends.retain(|&(known, ..)| known < phase);
                arm.ends.push((phase, step, by));
            }
            &Event::Progress {
                phase,
                step,
                ntp,
                replay,
                grad_norm,
                tokens_per_second,
                ..
            } => {
                arm.mark_running();
                arm.phase = phase;
                arm.step = step;
                arm.progress = Some(Progress {
                    ntp,
                    replay,
                    grad_norm,
                    tokens_per_second,
                });
            }
            &Event::Trained { stretch, .. } => {
                arm.mark_running();
                arm.trained(stretch);
            }
            &Event::Evaluated {
                phase,
                step,
                cost,
                ref scores,
                ..
            } => {
                arm.mark_running();
                arm.evaluated(Evaluation {
                    phase,
                    step,
                    cost,
                    scores: scores.clone(),
                });
            }
            Event::PluginMetric {
                step, name, value, ..
            } => {
                arm.plugin_metric(*step, name, *value);
            }
            Event::ReplaySeen { seen, .. } => arm.replay_seen(seen),
            Event::Sampled { look, .. } => arm.sampled(look),
            Event::Drawn { curves, .. } => arm.drawn.clone_from(curves),
            Event::Rewound { step, .. } => {
                arm.rewind(*step);
                self.finished = false;
            }
            Event::ArmFinished { step, .. } => {
                arm.step = *step;
                arm.progress = None;
                arm.status = ArmStatus::Finished;
            }
            Event::ArmFailed { step, reason, .. } => {
                arm.step = *step;
                arm.status = ArmStatus::Failed(reason.clone());
            }
            Event::ArmSkipped { reason, .. } => arm.status = ArmStatus::Skipped(reason.clone()),
            _ => {}
        }
    }

    /// The same without what grows with a run: figures of training, metrics, replay samples, what students wrote, log,
    /// and all evaluations but the last of each arm.
    pub fn brief(&self) -> Self {
        let arms = self.arms.iter().map(|arm| ArmState {
            info: arm.info.clone(),
            status: arm.status.clone(),
            waits: arm.waits.clone(),
            ends: arm.ends.clone(),
            training: Vec::new(),
            evaluations: arm.evaluations.last().cloned().into_iter().collect(),
            plugin_metrics: Vec::new(),
            replay: Vec::new(),
            samples: Vec::new(),
            drawn: Vec::new(),
            dropped: Dropped::default(),
            ..*arm
        });
        Self {
            experiment: self.experiment.clone(),
            preset: self.preset.clone(),
            phases: self.phases.clone(),
            config: self.config.clone(),
            arms: arms.collect(),
            device: self.device.clone(),
            log: Vec::new(),
            interrupted: self.interrupted.clone(),
            added: self.added.clone(),
            answers: self.answers.clone(),
            ..*self
        }
    }

    /// Whether its data have errors: those of a regression.
    pub fn has_errors(&self) -> bool {
        let kind = self
            .config
            .as_ref()
            .and_then(|c| c.get("data")?.get("kind"));
        // Those of older runs do not say.
        let mut last = self.arms.iter().filter_map(|arm| arm.evaluations.last());
        match kind {
            Some(kind) => kind == "regression",
            None => last.any(|e| e.scores.iter().any(|score| score.fit.is_some())),
        }
    }

    /// Experiment and preset, for titles.
    pub fn title(&self) -> String {
        match self.preset.as_str() {
            "" => self.experiment.clone(),
            preset => format!("{} ({preset})", self.experiment),
        }
    }

    /// Makes the seed part of every arm's name, so that seeds are compared as arms.
    pub fn tell_seeds_apart(&mut self) {
        for arm in &mut self.arms {
            arm.info.name = format!("#{} {}", arm.info.seed, arm.info.name);
        }
    }

    /// Whether the arms differ in their seeds.
    pub fn has_several_seeds(&self) -> bool {
        let mut seeds = self.arms.iter().map(|arm| arm.info.seed);
        let first = seeds.next();
        seeds.any(|seed| Some(seed) != first)
    }

    /// Name of an arm of the run for tables and messages, preceded by `#SEED` where the run has several
    /// seeds.
    pub fn arm_label(&self, arm: &ArmState) -> String {
        let ArmInfo { name, seed, .. } = &arm.info;
        if self.has_several_seeds() {
            format!("#{seed} {name}")
        } else {
            name.clone()
        }
    }

    /// Steps over all phases of the arm that has most.
    pub fn total_steps(&self) -> u64 {
        let own = self.arms.iter().map(|arm| self.total_steps_of(arm));
        let run = self.phases.iter().map(|phase| phase.steps).sum();
        // An arm that has ended before its time, as phases with other criteria do, has no more.
        own.max().unwrap_or(run)
    }

    /// Steps of an arm in each phase: those it had where the phase is over, else those it has at most.
    pub fn phase_steps_of(&self, arm: &ArmState) -> Vec<u64> {
        let mut before = 0;
        let steps = self.phases.iter().enumerate().map(|(i, phase)| {
            let most = arm.info.steps.get(i).copied().unwrap_or(phase.steps);
            let end = arm.ends.iter().find(|&&(phase, ..)| phase == i);
            let steps = end.map_or(most, |&(_, step, _)| step.saturating_sub(before));
            before += steps;
            steps
        });
        steps.collect()
    }

    /// How the last phase of an arm that trained a dataset ended, if one is over.
    pub fn phase_end(&self, arm: &ArmState, dataset: &str) -> Option<PhaseEnd> {
        let trains = |phase: usize| self.phases.get(phase).is_some_and(|p| p.dataset == dataset);
        let mut ends = arm.ends.iter().rev();
        ends.find(|&&(phase, ..)| trains(phase)).map(|&(.., by)| by)
    }

    /// Steps of an arm over all phases.
    pub fn total_steps_of(&self, arm: &ArmState) -> u64 {
        self.phase_steps_of(arm).iter().sum()
    }

    /// Steps of an arm that need no more work: those done so far, or all once it has ended.
    pub fn steps_of(&self, arm: &ArmState) -> u64 {
        let total = self.total_steps_of(arm);
        if arm.status.is_over() {
            total
        } else {
            arm.step.min(total)
        }
    }

    /// Steps of all arms that need no more work, and the total steps of all arms.
    pub fn steps_done(&self) -> (u64, u64) {
        let done = self.arms.iter().map(|arm| self.steps_of(arm)).sum();
        let all = self.arms.iter().map(|arm| self.total_steps_of(arm)).sum();
        (done, all)
    }

    /// Names of the datasets in the order of their first phase.
    pub fn datasets(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for phase in &self.phases {
            if !names.contains(&phase.dataset.as_str()) {
                names.push(&phase.dataset);
            }
        }
        for arm in &self.arms {
            let mut before: Option<&Evaluation> = None;
            for evaluation in &arm.evaluations {
                // A long run evaluates the same ones over and over.
                if before.is_some_and(|before| before.is_like(evaluation)) {
                    continue;
                }
                before = Some(evaluation);
                for score in &evaluation.scores {
                    if !names.contains(&score.dataset.as_str()) {
                        names.push(&score.dataset);
                    }
                }
            }
        }
        names
    }

    /// Role of a dataset in a phase; one that no phase trains is old.
    pub fn role(&self, dataset: &str, phase: usize) -> Role {
        let trains = |p: &PhaseInfo| p.dataset == dataset;
        if self.phases.get(phase).is_some_and(trains) {
            Role::New
        } else if self.phases.iter().take(phase).any(trains)
            || !self.phases.iter().skip(phase).any(trains)
        {
            Role::Old
        } else {
            Role::Future
        }
    }
}

/// Drops what does not hold from the end of a list in order.
fn keep_while<T>(list: &mut Vec<T>, holds: impl Fn(&T) -> bool) {
    let dropped = list.iter().rev().take_while(|item| !holds(item)).count();
    list.truncate(list.len() - dropped);
}

/// Makes the names of arms unique but for the seed: those of older runs do not tell settings.
pub(super) fn told_apart(arms: &[ArmInfo]) -> Vec<ArmInfo> {
    let told = |arm: &ArmInfo| {
        let mut of_name = arms.iter().filter(|other| other.name == arm.name);
        let same = |other: &&ArmInfo| (other.lr, other.seed) == (arm.lr, arm.seed);
        let same = of_name.clone().filter(same).count();
        let mut arm = arm.clone();
        if of_name.any(|other| other.lr != arm.lr) {
            arm.name.push_str(&format!("+lr={}", shortest(arm.lr)));
        }
        if same > 1 {
            // What else sets it apart is in its configuration alone; its folder has a hash of it.
            let hash = arm.slug.rsplit('-').next().unwrap_or_default();
            arm.name.push_str(&format!("+settings={hash}"));
        }
        arm
    };
    arms.iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn apply(state: &mut RunState, event: Event) {
        state.apply(&Record {
            v: 1,
            seq: 0,
            time: 2.0,
            event,
        });
    }

    /// After a kill and a resume, what was reported past the checkpoint would count twice.
    #[test]
    fn going_back_takes_back_what_came_after() {
        let whole = fixture::state();
        let mut state = whole.clone();
        apply(
            &mut state,
            Event::ArmFailed {
                arm: 0,
                step: 40,
                reason: "NaN".into(),
            },
        );
        apply(
            &mut state,
            Event::PluginMetric {
                arm: 0,
                step: 30,
                name: "x".into(),
                value: 1.0,
            },
        );
        for step in [20, 30, 40] {
            apply(&mut state, fixture::trained(0, step));
        }
        let back = Event::Rewound {
            arm: 0,
            step: 20,
            reason: "resumed".into(),
        };
        apply(&mut state, back.clone());
        let arm = &state.arms[0];
        assert_eq!(
            (arm.step, arm.phase, &arm.status),
            (20, 0, &ArmStatus::Running)
        );
        assert_eq!(arm.evaluations, whole.arms[0].evaluations[..3]);
        assert!(arm.plugin_metrics.is_empty());
        let steps = |arm: &ArmState| arm.training.iter().map(|s| s.step).collect::<Vec<u64>>();
        assert_eq!(steps(arm), [20]);
        // The same step once more, after a kill before its checkpoint, counts once.
        apply(&mut state, fixture::trained(0, 20));
        assert_eq!(steps(&state.arms[0]), [20]);
        state.arms[0].training.clear();
        assert_eq!(state.arms[1], whole.arms[1], "other arms are not touched");
        assert!(!state.finished);
        // The same again gives the state of a run that was never interrupted.
        for e in &whole.arms[0].evaluations[3..] {
            apply(&mut state, fixture::evaluated(0, e));
        }
        apply(&mut state, Event::ArmFinished { arm: 0, step: 40 });
        apply(&mut state, Event::RunFinished {});
        assert_eq!(state.arms, whole.arms);
    }

    /// A run killed before its first checkpoint starts over and evaluates step 0 again.
    #[test]
    fn an_evaluation_at_the_same_step_replaces_the_first() {
        let mut state = fixture::state();
        let whole = state.clone();
        apply(
            &mut state,
            Event::Rewound {
                arm: 1,
                step: 0,
                reason: "resumed".into(),
            },
        );
        assert_eq!(state.arms[1].status, ArmStatus::Waiting);
        for e in &whole.arms[1].evaluations {
            apply(&mut state, fixture::evaluated(1, e));
        }
        assert_eq!(state.arms[1].evaluations, whole.arms[1].evaluations);
    }

    /// Else an arm that waits for memory would be taken for one that is stuck, or one that goes on for one that waits.
    #[test]
    fn an_arm_waits_from_when_it_found_no_room_until_it_goes_on() {
        let mut state = fixture::state();
        let waits = |arm| Event::ArmWaits {
            arm,
            reason: "no room".into(),
        };
        let rewound = || Event::Rewound {
            arm: 0,
            step: 20,
            reason: "the GPU's memory is full".into(),
        };
        let told = |state: &RunState| state.brief().arms[0].waits.clone();
        for goes_on in [
            fixture::trained(0, 30),
            Event::ArmFinished { arm: 0, step: 40 },
        ] {
            apply(&mut state, waits(0));
            apply(&mut state, rewound());
            assert_eq!(told(&state).as_deref(), Some("no room"));
            apply(&mut state, fixture::trained(1, 30));
            assert_eq!(told(&state).as_deref(), Some("no room"), "another goes on");
            apply(&mut state, goes_on);
            assert_eq!(told(&state), None);
        }
        apply(&mut state, waits(0));
        let worker = Event::WorkerStarted {
            pid: 1,
            version: String::new(),
            device: String::new(),
            resumed: true,
        };
        apply(&mut state, worker);
        assert_eq!(told(&state), None, "another process may have more");
    }

    /// A plugin that reports in `phase_started` reports again when resumed there.
    #[test]
    fn a_repeated_plugin_metric_counts_once() {
        let mut state = fixture::state();
        for (step, name, value) in [(20, "a", 1.0), (20, "b", 2.0), (20, "a", 3.0)] {
            apply(
                &mut state,
                Event::PluginMetric {
                    arm: 0,
                    step,
                    name: name.into(),
                    value,
                },
            );
        }
        assert_eq!(
            state.arms[0].plugin_metrics,
            [(20, "a".to_owned(), 3.0), (20, "b".to_owned(), 2.0)]
        );
    }

    /// The lab must show what is replayed now, and a long run must not fill its memory.
    #[test]
    fn the_latest_look_at_replay_keeps_its_rows_and_going_back_takes_it_back() {
        let mut state = fixture::state();
        for step in [20, 30, 30] {
            let seen = fixture::look(step);
            apply(&mut state, Event::ReplaySeen { arm: 1, seen });
        }
        let rows = |state: &RunState| -> Vec<(u64, usize)> {
            let looks = state.arms[1].replay.iter();
            looks.map(|look| (look.step, look.rows.len())).collect()
        };
        assert_eq!(rows(&state), [(20, 0), (30, 2)]);
        let (step, reason) = (30, "resumed".into());
        apply(
            &mut state,
            Event::Rewound {
                arm: 1,
                step,
                reason,
            },
        );
        assert_eq!(rows(&state), [(20, 0)]);
    }

    /// Else a long run would fill the memory of who looks at it, or a resumed one be shown with texts of steps that it
    /// went back behind.
    #[test]
    fn the_first_and_the_latest_samples_keep_their_texts_and_going_back_takes_them_back() {
        let mut state = fixture::state();
        for step in [0, 10, 20, 20] {
            apply(&mut state, fixture::sampled(step).event(1));
        }
        let texts = |state: &RunState| -> Vec<(u64, usize)> {
            let looks = state.arms[1].samples.iter();
            looks.map(|look| (look.step, look.samples.len())).collect()
        };
        assert_eq!(texts(&state), [(0, 2), (10, 0), (20, 2)]);
        let (step, reason) = (10, "resumed".into());
        apply(
            &mut state,
            Event::Rewound {
                arm: 1,
                step,
                reason,
            },
        );
        assert_eq!(texts(&state), [(0, 2), (10, 0)]);
        apply(&mut state, fixture::sampled(20).event(1));
        assert_eq!(texts(&state), [(0, 2), (10, 0), (20, 2)]);
        assert!(state.brief().arms[1].samples.is_empty());
    }

    /// Two arms of an older run that bear one name would be taken for two seeds of one.
    #[test]
    fn arms_of_older_runs_are_told_apart() {
        let before = fixture::state().arms[0].info.clone();
        let arm = |slug: &str, lr: f64, seed: u64| ArmInfo {
            slug: slug.into(),
            lr,
            seed,
            ..before.clone()
        };
        let mut state = RunState::default();
        let started = Event::RunStarted {
            experiment: "toy-continual".into(),
            preset: "cpu".into(),
            arms: vec![
                arm("none-seed0", 3e-3, 0),
                arm("none-seed0-0a1b2c", 1e-3, 0),
                arm("none-seed0-3d4e5f", 1e-3, 0),
                arm("none-seed1", 3e-3, 1),
            ],
            phases: Vec::new(),
            config: None,
        };
        apply(&mut state, started);
        let names: Vec<&str> = state
            .arms
            .iter()
            .map(|arm| arm.info.name.as_str())
            .collect();
        let expected = [
            "none+lr=0.003",
            "none+lr=0.001+settings=0a1b2c",
            "none+lr=0.001+settings=3d4e5f",
            "none+lr=0.003",
        ];
        let expected = expected.map(|name| name.replace("0.003", "3e-3").replace("0.001", "1e-3"));
        assert_eq!(names, expected);
    }

    /// Else an arm that was added would be shown as another, or a resumed run be refused for it.
    #[test]
    fn an_added_arm_follows_those_there_were_and_is_in_the_configuration() {
        let mut state = fixture::state();
        state.config = Some(serde_json::json!({ "arms": [{ "strategy": "none" }, {}] }));
        let spec = serde_json::json!({ "strategy": "true-data" });
        let seed = |seed| ArmInfo {
            name: "true-data:kl:1".into(),
            seed,
            ..state.arms[1].info.clone()
        };
        let (request, arms) = ("r".to_owned(), vec![seed(0), seed(1)]);
        apply(
            &mut state,
            Event::ArmAdded {
                request: request.clone(),
                spec: spec.clone(),
                arms,
            },
        );
        assert_eq!(state.arms.len(), 4);
        assert_eq!(state.arms[3].status, ArmStatus::Waiting);
        assert_eq!(state.config.as_ref().unwrap()["arms"][2], spec);
        apply(&mut state, Event::ArmFinished { arm: 3, step: 40 });
        assert_eq!(state.arms[3].status, ArmStatus::Finished);
        assert_eq!(state.answer("r"), None);
        let refused = Some("no room".to_owned());
        apply(&mut state, Event::RequestAnswered { request, refused });
        let brief = state.brief();
        assert_eq!(
            brief.answer("r").unwrap().refused.as_deref(),
            Some("no room")
        );
        assert_eq!((brief.added[0].first, &brief.added[0].spec), (2, &spec));
    }

    /// A damaged or newer file must not bring the lab down.
    #[test]
    fn events_about_unknown_arms_are_passed_over() {
        let mut state = fixture::state();
        let before = state.arms.clone();
        apply(&mut state, Event::ArmFinished { arm: 99, step: 1 });
        apply(&mut state, Event::Unknown);
        assert_eq!(state.arms, before);
    }
}

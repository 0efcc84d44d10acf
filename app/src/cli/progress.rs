//! What a headless run shows while it goes on: a bar an arm on a terminal, plain lines otherwise.
//!
//! Everything comes from events, so a run in this process and one watched from afar look alike.
//! Showing never fails: a terminal that went away must not end a run.

use std::io::Write;
use std::time::Duration;

use forgetlab_study::printed::one_line;
use forgetlab_study::report::human_seconds;
use forgetlab_study::run::{ArmState, ArmStatus, Evaluation, Event, Level, Record, RunState};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::out;

/// Shows a run as its events come in.
pub struct ProgressView {
    bars: Option<Bars>,
}

struct Bars {
    all: MultiProgress,
    arms: Vec<ProgressBar>,
}

impl ProgressView {
    /// Bars if standard output and error are terminals, else lines on standard output.
    pub fn new() -> Self {
        let terminal = out::is_terminal() && out::errors_on_terminal();
        let bars = terminal.then(|| Bars {
            all: MultiProgress::with_draw_target(out::bars()),
            arms: Vec::new(),
        });
        Self { bars }
    }

    /// Shows where a run stands that began before this view.
    pub fn catch_up(&mut self, state: &RunState) {
        match &mut self.bars {
            Some(bars) => bars.show_all(state),
            None => {
                for arm in state
                    .arms
                    .iter()
                    .filter(|arm| arm.status != ArmStatus::Waiting)
                {
                    line(&format!(
                        "{}: {}",
                        state.arm_label(arm),
                        standing(state, arm, false)
                    ));
                }
            }
        }
    }

    /// Shows one more event; `state` has taken it in already.
    pub fn update(&mut self, state: &RunState, record: &Record) {
        // Hundreds a phase and arm, which nothing here shows.
        if matches!(record.event, Event::Trained { .. }) {
            return;
        }
        let text = words(state, record);
        match &mut self.bars {
            Some(bars) => {
                bars.show_all(state);
                if let Some(text) = text.filter(|_| lasts(record)) {
                    out::line_above(&bars.all, &text);
                }
            }
            None => {
                if let Some(text) = text {
                    line(&text);
                }
            }
        }
    }

    /// Leaves what was shown standing and the cursor below it.
    pub fn finish(&mut self) {
        if let Some(bars) = &mut self.bars {
            for bar in &bars.arms {
                bar.abandon();
            }
        }
    }
}

impl Bars {
    fn show_all(&mut self, state: &RunState) {
        if self.arms.len() != state.arms.len() {
            let _ = self.all.clear();
            let total = state.total_steps();
            let style =
                ProgressStyle::with_template("{prefix:<22!} [{bar:10}] {pos:>5}/{len} {wide_msg}");
            let style = style
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> ");
            self.arms = state
                .arms
                .iter()
                .map(|arm| {
                    let bar = self.all.add(
                        ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden())
                            .with_style(style.clone()),
                    );
                    out::set_prefix(&bar, &state.arm_label(arm));
                    bar
                })
                .collect();
        }
        for (bar, arm) in self.arms.iter().zip(&state.arms) {
            bar.set_position(arm.step);
            out::set_message(bar, &standing(state, arm, true));
        }
    }
}

/// Whether an event is none of those that bars, or figures, show.
fn lasts(record: &Record) -> bool {
    !matches!(
        record.event,
        Event::Evaluated { .. } | Event::PhaseStarted { .. } | Event::ArmFinished { .. }
    )
}

/// An event as a line, if figures alone do not tell it.
pub fn lasting_words(state: &RunState, record: &Record) -> Option<String> {
    lasts(record).then(|| words(state, record)).flatten()
}

/// An event as a line, if it is worth one.
fn words(state: &RunState, record: &Record) -> Option<String> {
    let about = |arm: &usize| {
        let arm = state.arms.get(*arm)?;
        Some((state.arm_label(arm), arm))
    };
    Some(match &record.event {
        Event::RunStarted {
            experiment,
            preset,
            arms,
            ..
        } => {
            let s = if arms.len() == 1 { "" } else { "s" };
            format!("{experiment} ({preset}): {} arm{s}", arms.len())
        }
        Event::WorkerStarted {
            pid,
            device,
            resumed,
            ..
        } => {
            let verb = if *resumed { "resumed" } else { "started" };
            format!("{verb} on {device}, process {pid}")
        }
        Event::PhaseStarted { arm, phase, step } => {
            let (name, _) = about(arm)?;
            let dataset = &state.phases.get(*phase)?.dataset;
            format!("{name}: phase {phase} ({dataset}) begins at step {step}")
        }
        Event::PhaseEnded {
            arm,
            phase,
            step,
            by,
        } => {
            let (name, _) = about(arm)?;
            let why = by.early()?;
            format!("{name}: phase {phase} ends at step {step}: {why}")
        }
        Event::Evaluated { arm, step, .. } => {
            let (name, arm) = about(arm)?;
            // Later ones may have been taken in already.
            let found = arm.evaluations.iter().find(|e| e.step == *step)?;
            format!("{name}: {}", figures(state, arm, found, false))
        }
        Event::Log {
            level,
            arm,
            message,
        } => {
            let name = arm.as_ref().and_then(about).map(|(name, _)| name + ": ");
            format!("{}{}{message}", name.unwrap_or_default(), prefix(*level))
        }
        Event::Rewound { arm, step, reason } => {
            format!("{}: back to step {step} ({reason})", about(arm)?.0)
        }
        Event::ArmFinished { arm, .. } => {
            let (name, arm) = about(arm)?;
            format!(
                "{name}: finished after {}",
                human_seconds(arm.cost().seconds())
            )
        }
        Event::ArmFailed { arm, step, reason } => {
            format!("{}: failed at step {step}: {reason}", about(arm)?.0)
        }
        Event::ArmSkipped { arm, step, reason } => {
            format!("{}: skipped at step {step}: {reason}", about(arm)?.0)
        }
        event @ (Event::ArmAdded { .. } | Event::RequestAnswered { .. }) => of_request(event)?,
        Event::Interrupted { reason } => format!("interrupted: {reason}"),
        Event::Progress { .. }
        | Event::Trained { .. }
        | Event::PluginMetric { .. }
        | Event::CheckpointSaved { .. }
        | Event::ArmWaits { .. }
        | Event::RunFinished {}
        | Event::ReplaySeen { .. }
        | Event::Sampled { .. }
        | Event::Drawn { .. }
        | Event::Unknown => return None,
    })
}

/// What became of a request, where that is worth a line.
fn of_request(event: &Event) -> Option<String> {
    match event {
        Event::ArmAdded { arms, .. } => Some(format!("{}: added", arms.first()?.name)),
        Event::RequestAnswered { refused, .. } => {
            let why = refused.as_ref()?;
            Some(format!("a request was refused: {why}"))
        }
        _ => None,
    }
}

fn prefix(level: Level) -> &'static str {
    match level {
        Level::Info => "",
        Level::Warn => "warning: ",
        Level::Error => "error: ",
    }
}

/// Where an arm stands, e.g. `step 160, sort 95.0 % 0.231 nats, forgot 2.0 %`.
fn standing(state: &RunState, arm: &ArmState, brief: bool) -> String {
    if let Some(why) = &arm.waits {
        return format!("waits: {why}");
    }
    let found = match arm.evaluations.last() {
        Some(last) => figures(state, arm, last, brief),
        None => "starting".to_owned(),
    };
    match &arm.status {
        ArmStatus::Waiting => "waiting".to_owned(),
        ArmStatus::Running | ArmStatus::Finished => found,
        ArmStatus::Failed(_) | ArmStatus::Skipped(_) => format!("{}, {found}", arm.status.word()),
    }
}

/// What an evaluation found, in a line; a `brief` one fits beside a bar.
fn figures(state: &RunState, arm: &ArmState, now: &Evaluation, brief: bool) -> String {
    let mut text = if brief {
        String::new()
    } else {
        format!("step {}, ", now.step)
    };
    let new = state
        .phases
        .get(now.phase)
        .and_then(|phase| now.score(&phase.dataset));
    if let Some(score) = new {
        text += &score.dataset;
        if let Some(accuracy) = score.accuracy {
            text += &format!(" {:.1} %", accuracy * 100.0);
        }
        if let Some(ntp) = score.ntp.filter(|_| !brief || score.accuracy.is_none()) {
            text += &format!(" {ntp:.3} nats");
        }
        if let Some(fit) = score.fit {
            text += &format!(" error {:.3}", fit.error);
        }
    }
    let forgot = arm.mean_forgetting(&state.phases, now);
    match (forgot.accuracy, forgot.ntp, forgot.error) {
        (Some(accuracy), ..) => text += &format!(", forgot {:.1} %", accuracy * 100.0),
        (None, Some(ntp), _) => text += &format!(", forgot {ntp:.3} nats"),
        (None, None, Some(error)) => text += &format!(", forgot {error:.3}"),
        (None, None, None) => {}
    }
    text
}

fn line(text: &str) {
    let mut out = out::stdout();
    let _ = writeln!(out, "{}", one_line(text)).and_then(|()| out.flush());
}

/// How often a run that is watched from afar is looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use forgetlab_study::experiment::ArmInfo;
    use forgetlab_study::run::{Cost, PhaseInfo, Role, Score};

    /// Logs of headless runs are grepped: each line must name the arm and its figures.
    #[test]
    fn lines_name_the_arm_and_its_figures() {
        let mut state = RunState::default();
        let mut tell = |event| {
            let record = Record {
                v: 1,
                seq: 0,
                time: 0.0,
                event,
            };
            state.apply(&record);
            words(&state, &record)
        };
        let info = ArmInfo {
            name: "none".into(),
            slug: "none-seed0".into(),
            strategy: "none".into(),
            objective: String::new(),
            coeff: None,
            lr: 1e-3,
            seed: 0,
            steps: Vec::new(),
        };
        let phases = ["reversal", "sort"].map(|d| PhaseInfo {
            dataset: d.into(),
            steps: 10,
        });
        let started = Event::RunStarted {
            experiment: "toy-continual".into(),
            preset: "cpu".into(),
            arms: vec![info],
            phases: phases.into(),
            config: None,
        };
        assert_eq!(tell(started).unwrap(), "toy-continual (cpu): 1 arm");
        let mut evaluated = |phase: usize, step, accuracy: [f64; 2]| {
            let roles = [[Role::New, Role::Future], [Role::Old, Role::New]][phase];
            let scores = ["reversal", "sort"]
                .into_iter()
                .zip(roles)
                .zip(accuracy)
                .map(|((dataset, role), accuracy)| Score {
                    dataset: dataset.into(),
                    role,
                    ntp: Some(1.0 - accuracy),
                    kl: None,
                    accuracy: Some(accuracy),
                    fit: None,
                    choices: None,
                    outcomes: None,
                    rows_kept: false,
                })
                .collect();
            tell(Event::Evaluated {
                arm: 0,
                phase,
                step,
                cost: Cost::default(),
                scores,
            })
        };
        assert_eq!(
            evaluated(0, 10, [1.0, 0.0]).unwrap(),
            "none: step 10, reversal 100.0 % 0.000 nats"
        );
        assert_eq!(
            evaluated(1, 20, [0.25, 0.9]).unwrap(),
            "none: step 20, sort 90.0 % 0.100 nats, forgot 75.0 %"
        );
        let failed = Event::ArmFailed {
            arm: 0,
            step: 20,
            reason: "loss is NaN".into(),
        };
        assert_eq!(
            tell(failed).unwrap(),
            "none: failed at step 20: loss is NaN"
        );
        assert_eq!(tell(Event::ArmFinished { arm: 9, step: 1 }), None);
    }
}

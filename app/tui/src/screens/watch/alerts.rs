//! What a researcher must know at once: a run that cannot be read, has crashed or stands still, arms that wait for
//! memory, losses that leave the range of numbers or grow, a strategy's warnings.

use forgetlab_study::run::{ArmStatus, Level, LogLine, RunStatus, TrainingStretch};
use ratatui::style::Style;

use crate::theme::Theme;
use crate::widgets::text::{clip, seconds, wrap};

use super::{Watch, Watched};

/// Seconds without an event after which a live worker is said to stand still.
const STILL: f64 = 180.0;
/// Stretches of training whose mean loss is compared with the least before.
const RECENT: usize = 5;
/// By what a loss has grown that is said to diverge.
const DIVERGED: f64 = 2.0;

/// Something to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// What.
    pub text: String,
    /// Whether something is lost, rather than in danger.
    pub bad: bool,
}

impl Alert {
    /// It as it stands on the screen, in lines of so many columns.
    pub(super) fn lines(&self, width: u16) -> Vec<String> {
        wrap(&format!("! {}", self.text), width.into())
    }
}

/// Whether the training loss of a phase has grown far above what it was, and stayed there.
fn diverges(training: &[TrainingStretch]) -> bool {
    let Some(phase) = training.last().map(|last| last.phase) else {
        return false;
    };
    let from = training.partition_point(|stretch| stretch.phase < phase);
    let losses = training[from..].iter().map(|stretch| stretch.loss);
    let losses: Vec<f64> = losses.filter(|loss| loss.is_finite()).collect();
    let Some((before, recent)) = losses
        .len()
        .checked_sub(RECENT)
        .map(|at| losses.split_at(at))
    else {
        return false;
    };
    let least = before.iter().copied().fold(f64::INFINITY, f64::min);
    let first = before.first().copied().unwrap_or(f64::INFINITY);
    let lowest_now = recent.iter().copied().fold(f64::INFINITY, f64::min);
    lowest_now > DIVERGED * least && lowest_now > first
}

impl Watched {
    /// What is to be told of the run, the most important first; the log's warnings apart.
    pub(crate) fn alerts(&self, now: f64) -> Vec<Alert> {
        let mut alerts = Vec::new();
        let mut tell = |text: String, bad: bool| alerts.push(Alert { text, bad });
        if let Some(problem) = &self.problem {
            tell(format!("cannot be read: {problem}"), true);
        }
        match self.status {
            Some(RunStatus::Crashed) => {
                let why = self.why.as_deref();
                let why = why.unwrap_or("the worker vanished before the end");
                tell(format!("crashed: {why}; r resumes it"), true);
            }
            Some(RunStatus::Interrupted) => {
                let reason = self.state.interrupted.as_deref().unwrap_or("stopped");
                tell(format!("interrupted ({reason}); r resumes it"), false);
            }
            _ => {}
        }
        let failed = self.state.arms.iter().filter_map(|arm| match &arm.status {
            ArmStatus::Failed(reason) => Some((arm, reason)),
            _ => None,
        });
        for (arm, reason) in failed {
            tell(
                format!("{} failed: {reason}", self.state.arm_label(arm)),
                true,
            );
        }
        if let Some((_, last)) = self.state.times.filter(|_| self.is_live())
            && now - last > STILL
        {
            let text = format!("no word from the worker for {}", seconds(now - last));
            tell(text, false);
        }
        for arm in &self.state.arms {
            if let Some(why) = &arm.waits {
                tell(format!("{} waits: {why}", self.state.arm_label(arm)), false);
            }
        }
        let running = self.state.arms.iter().filter(|arm| !arm.status.is_over());
        for arm in running.filter(|arm| diverges(&arm.training)) {
            let label = self.state.arm_label(arm);
            tell(format!("{label}: the training loss grows"), false);
        }
        alerts
    }

    /// Warnings and errors of the log.
    pub(super) fn problems(&self) -> impl DoubleEndedIterator<Item = &LogLine> {
        self.state
            .log
            .iter()
            .filter(|line| line.level != Level::Info)
    }
}

impl Watch {
    /// The most important thing to be told, if there is one, and whether something is lost.
    pub(super) fn attention(&self, now: f64) -> Option<Alert> {
        let several = self.runs.len() > 1;
        let named = |run: &Watched, text: String| match several {
            true => format!("{}: {text}", run.name),
            false => text,
        };
        let of = |run: &Watched| -> Vec<Alert> {
            let alerts = run.alerts(now).into_iter();
            let named = |alert: Alert| Alert {
                text: named(run, alert.text),
                ..alert
            };
            alerts.map(named).collect()
        };
        let mut alerts: Vec<Alert> = self.runs.iter().flat_map(of).collect();
        alerts.sort_by_key(|alert| !alert.bad);
        let warnings: usize = self.runs.iter().map(|run| run.problems().count()).sum();
        let last = self
            .runs
            .iter()
            .find_map(|run| Some((run, run.problems().next_back()?)));
        if let Some(first) = alerts.first() {
            let more = match alerts.len() {
                1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            return Some(Alert {
                text: format!("{}{more}", first.text),
                bad: first.bad,
            });
        }
        let (run, line) = last?;
        let many = match warnings {
            1 => String::new(),
            count => format!(" ({count} such in the log)"),
        };
        let text = format!("{}{}", run.arm_prefix(line), line.message);
        let text = clip(&text, 100usize.saturating_sub(many.len()));
        Some(Alert {
            text: named(run, format!("{text}{many}")),
            bad: line.level == Level::Error,
        })
    }
}

impl Watched {
    /// Name of a log line's arm, followed by a colon; empty where it is about none.
    fn arm_prefix(&self, line: &LogLine) -> String {
        let arm = line.arm.and_then(|arm| self.state.arms.get(arm));
        arm.map_or_else(String::new, |arm| {
            format!("{}: ", self.state.arm_label(arm))
        })
    }

    /// Lines of the run's log, newest first: time since the start, level, arm and text; alerts before them.
    pub(super) fn log_lines(
        &self,
        theme: Theme,
        now: f64,
    ) -> impl Iterator<Item = (String, Style)> {
        let start = self.state.times.map_or(0.0, |times| times.0);
        let write = move |line: &LogLine| {
            let (word, style) = match line.level {
                Level::Info => ("", Style::new()),
                Level::Warn => ("warning: ", theme.warn()),
                Level::Error => ("error: ", theme.bad()),
            };
            let time = seconds(line.time - start);
            let text = format!("{time} {word}{}{}", self.arm_prefix(line), line.message);
            (text, style)
        };
        let lines = self.state.log.iter().rev().map(write);
        let alerts = self.alerts(now).into_iter().rev().map(move |alert| {
            let style = if alert.bad { theme.bad() } else { theme.warn() };
            (format!("! {}", alert.text), style)
        });
        alerts.chain(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(of: impl Fn(u64) -> f64) -> Vec<TrainingStretch> {
        let stretch = |step| TrainingStretch {
            phase: 0,
            step,
            steps: 1,
            loss: of(step),
            replay: None,
            grad_norm: 1.0,
            lr: 1e-3,
        };
        (1..40).map(stretch).collect()
    }

    /// A false alarm on every noisy curve is read by nobody; a loss that has run away must be.
    #[test]
    fn a_loss_that_runs_away_is_told_and_a_noisy_one_is_not() {
        let noisy =
            |step: u64| 2.0 + if step.is_multiple_of(3) { 1.0 } else { 0.0 } - step as f64 / 40.0;
        assert!(!diverges(&losses(noisy)));
        assert!(
            !diverges(&losses(|step| if step == 39 { 50.0 } else { 1.0 })),
            "one spike"
        );
        assert!(diverges(&losses(|step| if step > 30 { 9.0 } else { 2.0 })));
        assert!(!diverges(&losses(|step| if step > 30 {
            f64::NAN
        } else {
            2.0
        })));
        assert!(!diverges(&[]));
    }
}

//! How a run stands, in a line or as a JSON object.

use forgetlab_study::report::{ArmDigest, Digest, human_seconds};
use forgetlab_study::run::RunState;
use forgetlab_tui::Seen;
use serde_json::{Value, json};

/// More arms than these are counted by their verdicts.
const MANY: usize = 8;

/// The figures of a run's arms, computed anew once there are new scores: verdicts resample rows.
#[derive(Default)]
pub struct Figures {
    of: Option<(Vec<usize>, Digest)>,
}

impl Figures {
    fn of(&mut self, state: &RunState) -> &Digest {
        let seen: Vec<usize> = state.arms.iter().map(|a| a.evaluations.len()).collect();
        let known = self.of.take().filter(|(before, _)| *before == seen);
        let judged = match known {
            // What costs nothing is always of now.
            Some((_, judged)) => {
                let mut now = Digest::quick(state);
                for (arm, before) in now.arms.iter_mut().zip(judged.arms) {
                    arm.verdict = before.verdict;
                    arm.interval = before.interval;
                }
                now
            }
            None => Digest::of(state),
        };
        &self.of.insert((seen, judged)).1
    }

    /// A run in a line: status, share done, time left, and each arm in few words.
    pub fn words(&mut self, seen: &Seen, now: f64) -> String {
        let status = seen.status().map_or("", |status| status.word());
        let digest = self.of(seen.state());
        let mut text = format!("{status} {:.0} %", (100.0 * digest.done()).floor());
        if let Some(left) = seen.time_left() {
            text += &format!(", {} left", human_seconds(left));
        }
        let arms = match digest.arms.len() {
            0..=MANY => digest.arms.iter().map(arm).collect(),
            _ => counts(&digest.arms),
        };
        text += &format!(": {}", arms.join("; "));
        // What is lost has a line of its own when it happens.
        for alert in seen.alerts(now).iter().filter(|alert| !alert.bad) {
            text += &format!(" ! {}", alert.text);
        }
        text
    }

    /// A run as an object.
    pub fn json(&mut self, seen: &Seen, now: f64) -> Value {
        let alerts = seen.alerts(now).into_iter().map(|alert| alert.text);
        let alerts: Vec<String> = alerts.collect();
        let digest = self.of(seen.state());
        json!({
            "time": now,
            "run": seen.name(),
            "status": seen.status().map(|status| status.word()),
            "why": seen.why(),
            "done": digest.done(),
            "seconds_left": seen.time_left(),
            "experiment": digest.experiment,
            "preset": digest.preset,
            "device": digest.device,
            "alerts": alerts,
            "arms": digest.arms,
        })
    }
}

/// An arm in few words: `none kept 59.8%, learned 95.0%, FORGETS`.
fn arm(arm: &ArmDigest) -> String {
    let mut words = Vec::new();
    let mut add = |word: &str, metric: &Option<String>, value: Option<f64>| {
        if let Some(value) = value {
            words.push(format!("{word} {}", figure(metric.as_deref(), value)));
        }
    };
    add("kept", &arm.metric, arm.kept);
    add("learned", &arm.learned_metric, arm.learned);
    words.extend(arm.verdict.clone());
    // What goes on, or has come to its end, need not be told.
    let told = ["finished", "running"];
    words.extend(
        arm.status
            .iter()
            .filter(|s| !told.contains(&&***s))
            .cloned(),
    );
    format!("{} {}", arm.name, words.join(", "))
}

/// A value in its metric.
fn figure(metric: Option<&str>, value: f64) -> String {
    match metric {
        Some("accuracy") => format!("{:.1}%", 100.0 * value),
        _ => format!("{value:.3}"),
    }
}

/// How many arms have each verdict: `12 keeps; 3 FORGETS`.
fn counts(arms: &[ArmDigest]) -> Vec<String> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for arm in arms {
        let word = arm.verdict.as_deref().unwrap_or_default();
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    let words = counts.iter().map(|(word, count)| format!("{count} {word}"));
    words.collect()
}

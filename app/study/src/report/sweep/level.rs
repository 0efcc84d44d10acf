//! The loss of the new data at which the runs of a sweep are compared, and what their arms have there.

use serde_json::Value;

use crate::run::RunState;

use super::super::arms::{ArmSeeds, arms};
use super::super::equal_terms::{at_loss, course, level};
use super::SweepPoint;

/// A seed of an arm where the loss of its new data first is at a level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::report) struct Seen {
    /// Seed.
    pub(in crate::report) seed: u64,
    /// Steps of the last phase.
    pub(in crate::report) steps: f64,
    /// Mean loss of the old data before the phase.
    pub(in crate::report) before: f64,
    /// Mean loss of the old data now.
    pub(in crate::report) old: f64,
}

impl Seen {
    /// What it has forgotten.
    pub(in crate::report) fn forgot(&self) -> f64 {
        self.old - self.before
    }
}

/// The seeds of an arm that reach a level; all of them have if there are as many as [`ArmSeeds::counted`].
pub(in crate::report) fn seen(arm: &ArmSeeds, level: f64) -> Vec<Seen> {
    let seeds = arm.counted().into_iter().filter_map(|(state, own)| {
        let course = course(state, own);
        let (start, at) = (course.first()?, at_loss(&course, level)?);
        Some(Seen {
            seed: own.info.seed,
            steps: at.step - start.step,
            before: start.old,
            old: at.old,
        })
    });
    seeds.collect()
}

/// The level of a sweep: the one given, else the highest target of its runs, else where the runs can be compared
/// ([`level`]), the highest of them all.
pub(in crate::report) fn level_of(points: &[SweepPoint], given: Option<f64>) -> Option<f64> {
    let states = || points.iter().map(|point| &point.state);
    let comparable = |state: &RunState| {
        let arms = arms(&[("", state)]);
        level(&arms, arms.first()?)
    };
    let given = given.filter(|level| level.is_finite());
    given
        .or_else(|| states().filter_map(target).reduce(f64::max))
        .or_else(|| states().filter_map(comparable).reduce(f64::max))
}

/// The loss at which the last phase of a run ends, the highest over its arms; `None` where none has one.
fn target(state: &RunState) -> Option<f64> {
    let config = state.config.as_ref()?;
    let last = state.phases.last()?;
    let phases = config.get("phases")?.as_array()?;
    let of_run = phases.last()?.get("target_loss").and_then(Value::as_f64);
    let own = format!("phases.{}.target_loss", last.dataset);
    let of_arm = |arm: &Value| {
        let settings = arm.get("phases")?;
        let keys = [own.as_str(), "phases.target_loss"];
        keys.iter().find_map(|key| settings.get(key)?.as_f64())
    };
    let arms = config.get("arms").and_then(Value::as_array);
    let arms = arms.map_or(&[][..], Vec::as_slice);
    match arms {
        [] => of_run,
        arms => arms
            .iter()
            .filter_map(|arm| of_arm(arm).or(of_run))
            .reduce(f64::max),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::made_up::{self, Made};
    use super::*;

    /// Else arms would be compared where one of them has not been trained to.
    #[test]
    fn the_target_is_the_highest_that_an_arm_has() {
        let mut state = made_up::state(&[]);
        let of = |state: &RunState| target(state);
        assert_eq!(of(&state), None);
        let plain = json!({"strategy": "none"});
        let own = json!({"strategy": "none", "phases": {"phases.es.target_loss": 3.9, "phases.target_loss": 9.0}});
        for (arms, expected) in [
            (json!([]), 3.8),
            (json!([plain]), 3.8),
            (json!([own]), 3.9),
            (json!([own, plain]), 3.9),
        ] {
            state.config = Some(
                json!({"phases": [{"dataset": "en"}, {"dataset": "es", "target_loss": 3.8}], "arms": arms}),
            );
            assert_eq!(of(&state), Some(expected));
        }
    }

    /// Else a loss between two evaluations would be that of the later one, which has learned more.
    #[test]
    fn seeds_are_seen_where_they_cross_the_level() {
        let made = Made {
            before: 3.0,
            // At 3.5 half way from 4 to 3: 10 + 5 steps, 3.2 + 0.2 of old loss.
            course: vec![(0, 5.0, 3.0, 0.0), (10, 4.0, 3.2, 0.1), (20, 3.0, 3.6, 0.2)],
            ..Made::default()
        };
        let state = made_up::state(&[made]);
        let arms = arms(&[("", &state)]);
        let found = seen(&arms[0], 3.5);
        assert_eq!((found.len(), found[0].seed), (1, 0));
        assert!((found[0].steps - 15.0).abs() < 1e-9);
        assert!((found[0].old - 3.4).abs() < 1e-9 && (found[0].forgot() - 0.4).abs() < 1e-9);
        assert!(seen(&arms[0], 2.9).is_empty());
    }
}

//! How fast arms go, and how long they still take.

use forgetlab_study::run::{ArmState, ArmStatus, Evaluation, RunState};

use crate::arms::Group;

use super::{Watch, Watched};

/// Seconds a step that an arm took lately, evaluation and generation included.
fn pace(arm: &ArmState) -> Option<f64> {
    let last = arm.evaluations.last()?;
    // A few evaluations of the same phase: shorter ones are noise, older ones may be of another phase.
    let same = |e: &&Evaluation| e.phase == last.phase && e.step < last.step;
    let latest = arm.evaluations.len().saturating_sub(6);
    let before = arm.evaluations[latest..].iter().find(same);
    let before = before.or_else(|| arm.evaluations.iter().rev().nth(1))?;
    let steps = last.step.checked_sub(before.step)?;
    let seconds = last.cost.seconds() - before.cost.seconds();
    (steps > 0 && seconds.is_finite()).then(|| seconds / steps as f64)
}

/// Tokens a second that an arm generated lately.
fn generation(arm: &ArmState) -> Option<f64> {
    let [.., before, last] = &arm.evaluations[..] else {
        return None;
    };
    let tokens = last
        .cost
        .tokens_generated
        .checked_sub(before.cost.tokens_generated)?;
    let seconds = last.cost.seconds_generate - before.cost.seconds_generate;
    (tokens > 0 && seconds > 0.0).then(|| tokens as f64 / seconds)
}

/// Seconds that an arm still takes; of one that has not begun, at the pace of the others.
fn left(run: &RunState, arm: &ArmState) -> Option<f64> {
    if arm.status.is_over() {
        return Some(0.0);
    }
    let steps = run.total_steps_of(arm).saturating_sub(arm.step);
    let others = run.arms.iter().filter_map(pace);
    let others: Vec<f64> = others.collect();
    let mean = others.iter().sum::<f64>() / others.len() as f64;
    let pace = pace(arm).or((!others.is_empty()).then_some(mean))?;
    Some(pace * steps as f64)
}

impl Watched {
    /// Seconds that the run still takes: its arms advance in turn.
    pub(crate) fn time_left(&self) -> Option<f64> {
        let arms = self.state.arms.iter().map(|arm| left(&self.state, arm));
        arms.sum::<Option<f64>>().filter(|_| self.is_live())
    }

    /// Tokens a second in training and in generation lately, of the last arm that is not over.
    pub(super) fn speeds(&self) -> (Option<f64>, Option<f64>) {
        let running = || {
            let arms = self.state.arms.iter().rev();
            arms.filter(|arm| arm.status == ArmStatus::Running)
        };
        let mut training = running().filter_map(|arm| arm.progress);
        let training = training.next().map(|progress| progress.tokens_per_second);
        (
            training.filter(|rate| rate.is_finite() && *rate > 0.0),
            running().find_map(generation),
        )
    }
}

impl Watch {
    /// Seconds that the seeds of an arm still take, one after another; `None` where its run is not live.
    pub(super) fn time_left(&self, group: &Group) -> Option<f64> {
        let of_seed = |&(run, arm): &(usize, usize)| {
            let run = self.runs.get(run).filter(|run| run.is_live())?;
            left(&run.state, run.state.arms.get(arm)?)
        };
        group.members.iter().map(of_seed).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use forgetlab_study::run::RunStatus;

    /// A time that is wrong by a factor sends the researcher home or keeps them waiting.
    #[test]
    fn the_time_left_is_the_steps_left_at_the_pace_of_the_phase() {
        let arms = fake::four_arms();
        let state = fake::state(&fake::records(&arms, 450));
        let run = Watched {
            status: Some(RunStatus::Live),
            state,
            ..Watched::default()
        };
        let paces: Vec<f64> = run.state.arms.iter().filter_map(pace).collect();
        assert_eq!(paces.len(), 4);
        let expected: f64 = paces.iter().map(|pace| pace * 150.0).sum();
        let left = run.time_left().unwrap();
        assert!((left - expected).abs() < 1e-9, "{left} {expected}");
        assert!(run.speeds().0.is_some() && run.speeds().1.is_some());
        let over = Watched {
            status: Some(RunStatus::Crashed),
            ..run
        };
        assert_eq!(over.time_left(), None);
    }
}

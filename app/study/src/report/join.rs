//! Several runs of one experiment as one, for figures of all their arms.

use std::collections::BTreeSet;

use crate::run::{PhaseInfo, RunState};

use super::arms::arms;

/// Runs whose arms cannot stand in one figure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{first} and {other} cannot be drawn together: {difference}")]
pub struct JoinError {
    /// The first run.
    first: String,
    /// A run that differs from it.
    other: String,
    /// What differs.
    difference: String,
}

/// Arms of all runs as those of one, named as [`arms`] names them. Margins are those of the first run.
///
/// # Errors
/// Runs that differ in experiment, phases or datasets.
pub fn join(runs: &[(&str, &RunState)]) -> Result<RunState, JoinError> {
    let Some(&(name, first)) = runs.first() else {
        return Ok(RunState::default());
    };
    let mut joined = first.clone();
    for (other_name, other) in &runs[1..] {
        if let Some(difference) = difference(first, other) {
            return Err(JoinError {
                first: name.to_owned(),
                other: (*other_name).to_owned(),
                difference,
            });
        }
        if joined.preset != other.preset {
            joined.preset = String::new();
        }
        joined.finished &= other.finished;
        joined.interrupted = joined.interrupted.or(other.interrupted.clone());
    }
    joined.arms.clear();
    for arm in arms(runs) {
        for (_, own) in arm.seeds {
            let mut own = own.clone();
            own.info.name.clone_from(&arm.name);
            joined.arms.push(own);
        }
    }
    Ok(joined)
}

fn difference(a: &RunState, b: &RunState) -> Option<String> {
    if a.experiment != b.experiment {
        return Some(format!(
            "the experiments are {} and {}",
            a.experiment, b.experiment
        ));
    }
    if a.phases != b.phases {
        let phases = |phases: &[PhaseInfo]| -> String {
            let phases = phases.iter().map(|p| format!("{} {}", p.dataset, p.steps));
            phases.collect::<Vec<_>>().join(", ")
        };
        let (a, b) = (phases(&a.phases), phases(&b.phases));
        return Some(format!(
            "the phases, with their steps, are {a}, and there {b}"
        ));
    }
    let (a, b): (BTreeSet<&str>, BTreeSet<&str>) = (
        a.datasets().into_iter().collect(),
        b.datasets().into_iter().collect(),
    );
    let odd: Vec<&str> = a.symmetric_difference(&b).copied().collect();
    (!odd.is_empty()).then(|| format!("only one of them has {}", odd.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;

    /// Else a figure of several runs would tell other arms than their table.
    #[test]
    fn arms_are_those_of_the_tables() {
        let one = fixture::seeds(&[0.0, 0.1]);
        let mut other = fixture::seeds(&[0.3]);
        other.arms.truncate(1);
        other.preset = "gpu".into();
        let runs = [("a", &one), ("b", &other)];
        let joined = join(&runs).unwrap();
        let infos = joined.arms.iter().map(|arm| &arm.info);
        let told: Vec<_> = infos.map(|info| (info.name.as_str(), info.seed)).collect();
        let arm = "bos-prompted:kl:10";
        let expected = [
            ("a: none", 0),
            ("a: none", 1),
            ("b: none", 0),
            (arm, 0),
            (arm, 1),
        ];
        assert_eq!(told, expected);
        assert_eq!(joined.preset, "");
        let again: Vec<String> = arms(&[("", &joined)])
            .into_iter()
            .map(|arm| arm.name)
            .collect();
        let tables: Vec<String> = arms(&runs).into_iter().map(|arm| arm.name).collect();
        assert_eq!(again, tables);
    }

    /// Else curves over other steps, or of other data, would be laid over each other.
    #[test]
    fn what_differs_is_said() {
        let one = fixture::state();
        type Change = fn(&mut RunState);
        let refused = |change: Change| {
            let mut other = one.clone();
            change(&mut other);
            let joined = join(&[("a", &one), ("b", &other)]);
            joined.unwrap_err().to_string()
        };
        let cases: [(Change, &str); 3] = [
            (
                |run| run.experiment = "x".into(),
                "a and b cannot be drawn together: the experiments are toy-continual and x",
            ),
            (
                |run| run.phases[1].steps = 7,
                "reversal 20, sort 20, and there reversal 20, sort 7",
            ),
            (
                |run| run.arms[0].evaluations[0].scores[0].dataset = "arc".into(),
                "only one of them has arc",
            ),
        ];
        for (change, says) in cases {
            let error = refused(change);
            assert!(error.contains(says), "{error}");
        }
    }
}

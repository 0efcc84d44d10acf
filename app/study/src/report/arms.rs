//! Which arms are seeds of one arm: decided here, for tables, verdicts, figures and screens alike.

use crate::run::{ArmState, ArmStatus, Evaluation, RunState};

use super::settings::differing;

/// An arm with all its seeds.
#[derive(Clone, Debug)]
pub struct ArmSeeds<'a> {
    /// Name of the arm, preceded by its run where several runs have one of the name that is not the same.
    pub name: String,
    /// The arm with each seed, and the run it is from.
    pub seeds: Vec<Seed<'a>>,
}

/// An arm with one seed, and the run it is from.
pub(super) type Seed<'a> = (&'a RunState, &'a ArmState);

impl<'a> ArmSeeds<'a> {
    /// The seeds that count in a mean: all that have been evaluated, without those that failed or were skipped unless
    /// all were.
    pub fn counted(&self) -> Vec<Seed<'a>> {
        let lost = |(_, arm): &Seed<'_>| {
            matches!(arm.status, ArmStatus::Failed(_) | ArmStatus::Skipped(_))
        };
        let began = self.seeds.iter().copied();
        let began: Vec<Seed<'a>> = began
            .filter(|(_, arm)| !arm.evaluations.is_empty())
            .collect();
        match began.iter().all(lost) {
            true => began,
            false => began.into_iter().filter(|seed| !lost(seed)).collect(),
        }
    }
}

/// The arms of runs, each with its seeds, in the order in which their names first appear.
///
/// Arms of one name are seeds of one arm where their runs have the same experiment and phases, and the same settings as
/// far as these decide numbers; of runs that kept no settings, where their learning rates are the same. A seed that is
/// in two runs counts once if its numbers are the same; otherwise the arms stand apart, as those of other settings do,
/// and the name of the run stands before theirs.
pub fn arms<'a>(runs: &[(&str, &'a RunState)]) -> Vec<ArmSeeds<'a>> {
    let mut names: Vec<&str> = Vec::new();
    for arm in runs.iter().flat_map(|(_, state)| &state.arms) {
        if !names.contains(&arm.info.name.as_str()) {
            names.push(&arm.info.name);
        }
    }
    let alike: Vec<Vec<Alike>> = (0..runs.len())
        .map(|at| {
            (0..at)
                .map(|before| alike(runs[before].1, runs[at].1))
                .collect()
        })
        .collect();
    let groups = names
        .into_iter()
        .map(|name| (name, groups(runs, &alike, name)));
    let arms = groups.flat_map(|(name, groups)| {
        let several = groups.len() > 1;
        groups.into_iter().map(move |(of, seeds)| ArmSeeds {
            name: match (several, &of[..]) {
                (true, [run]) => format!("{}: {name}", runs[*run].0),
                (true, [first, other]) => {
                    format!("{} and {}: {name}", runs[*first].0, runs[*other].0)
                }
                (true, [first, more @ ..]) => {
                    format!("{} and {} more: {name}", runs[*first].0, more.len())
                }
                _ => name.to_owned(),
            },
            seeds,
        })
    });
    arms.collect()
}

/// Whether two runs are alike but for seeds and arms.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alike {
    Yes,
    No,
    /// As far as is known: one of them kept no settings.
    Unknown,
}

fn alike(a: &RunState, b: &RunState) -> Alike {
    if a.experiment != b.experiment || a.phases != b.phases {
        return Alike::No;
    }
    match differing(a, b) {
        Some(keys) if keys.is_empty() => Alike::Yes,
        Some(_) => Alike::No,
        None => Alike::Unknown,
    }
}

/// The arms of a name in groups of seeds of one arm, each with the places of its runs. All seeds of a run are in one
/// group. `alike` tells of every run how it is to each before it.
fn groups<'a>(
    runs: &[(&str, &'a RunState)],
    alike: &[Vec<Alike>],
    name: &str,
) -> Vec<(Vec<usize>, Vec<Seed<'a>>)> {
    let mut groups: Vec<(Vec<usize>, Vec<Seed>)> = Vec::new();
    for (at, &(_, state)) in runs.iter().enumerate() {
        let own = state.arms.iter().filter(|arm| arm.info.name == name);
        let own: Vec<Seed> = own.map(|arm| (state, arm)).collect();
        if own.is_empty() {
            continue;
        }
        let fits = |of: &[usize], known: &[Seed]| {
            let mut pairs = known.iter().flat_map(|a| own.iter().map(|b| (a.1, b.1)));
            let by_settings = of.iter().all(|&run| alike[at][run] == Alike::Yes);
            of.iter().all(|&run| alike[at][run] != Alike::No)
                && pairs.all(|(a, b)| {
                    (by_settings || a.info.lr == b.info.lr)
                        && (a.info.seed != b.info.seed || same_numbers(a, b))
                })
        };
        match groups.iter_mut().find(|(of, known)| fits(of, known)) {
            Some((of, known)) => {
                of.push(at);
                let is_new = |seed: &Seed| {
                    let mut known = known.iter();
                    known.all(|(_, arm)| arm.info.seed != seed.1.info.seed)
                };
                let new: Vec<Seed> = own.into_iter().filter(is_new).collect();
                known.extend(new);
            }
            None => groups.push((vec![at], own)),
        }
    }
    groups
}

/// Whether two arms scored the same at every evaluation, whatever time it took, and whatever was kept of single rows.
/// Of arms that are kept thin, at those evaluations that both still have.
fn same_numbers(a: &ArmState, b: &ArmState) -> bool {
    let numbers = |evaluation: &Evaluation| -> Vec<(String, [Option<u64>; 3])> {
        let scores = evaluation.scores.iter();
        let bits = |value: Option<f64>| value.map(f64::to_bits);
        scores
            .map(|s| (s.dataset.clone(), [s.ntp, s.kl, s.accuracy].map(bits)))
            .collect()
    };
    let seen = |arm: &ArmState| arm.evaluations.len() + arm.dropped.evaluations();
    let dropped = a.dropped.evaluations() + b.dropped.evaluations() > 0;
    let at = |step: u64| {
        let place = b.evaluations.binary_search_by_key(&step, |e| e.step);
        place.ok().map(|place| &b.evaluations[place])
    };
    let same = |e: &Evaluation| match at(e.step) {
        Some(other) => numbers(e) == numbers(other),
        None => dropped,
    };
    seen(a) == seen(b) && a.evaluations.iter().all(same)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::run::fixture;

    fn with_config(mut state: RunState, config: Value) -> RunState {
        state.config = Some(config);
        state
    }

    /// Names, and the seeds of each.
    fn told(runs: &[(&str, &RunState)]) -> Vec<(String, Vec<u64>)> {
        let seeds = |arm: &ArmSeeds| arm.seeds.iter().map(|(_, own)| own.info.seed).collect();
        let arms = arms(runs);
        arms.iter()
            .map(|arm| (arm.name.clone(), seeds(arm)))
            .collect()
    }

    fn expected(arms: &[(&str, &[u64])]) -> Vec<(String, Vec<u64>)> {
        let arms = arms.iter();
        arms.map(|&(name, seeds)| (name.to_owned(), seeds.to_vec()))
            .collect()
    }

    /// Else seeds run on two machines could not be one arm, or an arm that was run twice would count twice.
    #[test]
    fn seeds_of_equal_settings_are_one_arm_and_count_once() {
        let a = json!({"seeds": [0], "threads": 1, "arms": [{"strategy": "none"}]});
        let b = json!({"seeds": [0, 1, 2], "threads": 2, "arms": []});
        let (a, b) = (
            with_config(fixture::seeds(&[0.0]), a),
            with_config(fixture::seeds(&[0.0, 0.1, 0.2]), b),
        );
        let all: &[u64] = &[0, 1, 2];
        assert_eq!(
            told(&[("a", &a), ("b", &b)]),
            expected(&[("none", all), ("bos-prompted:kl:10", all)])
        );
    }

    /// Else arms that differ in the batch size, or in nothing but chance, would be averaged as if they were seeds.
    #[test]
    fn arms_of_other_settings_or_numbers_stand_apart() {
        let part = |from: u64, batch: u64| {
            let mut state = fixture::seeds(&[0.0, 0.1]);
            state.arms.retain(|arm| arm.info.name == "none");
            state.arms.iter_mut().for_each(|arm| arm.info.seed += from);
            with_config(state, json!({"batch": batch}))
        };
        let (a, b, c) = (part(0, 1), part(2, 1), part(4, 2));
        assert_eq!(
            told(&[("a", &a), ("c", &c), ("b", &b)]),
            expected(&[("a and b: none", &[0, 1, 2, 3]), ("c: none", &[4, 5])])
        );
        // Seed 1 with the numbers of another: none of its run's seeds are of the arm.
        let d = part(1, 1);
        assert_eq!(
            told(&[("a", &a), ("d", &d)]),
            expected(&[("a: none", &[0, 1]), ("d: none", &[1, 2])])
        );
        // Without settings the learning rate tells.
        let mut e = part(2, 1);
        e.config = None;
        assert_eq!(told(&[("a", &a), ("e", &e)]).len(), 1);
        e.arms.iter_mut().for_each(|arm| arm.info.lr *= 2.0);
        assert_eq!(told(&[("a", &a), ("e", &e)]).len(), 2);
    }

    /// Else a seed whose loss became no number would count as one that forgot nothing.
    #[test]
    fn seeds_that_failed_do_not_count_unless_all_did() {
        let mut state = fixture::seeds(&[0.0, 0.1, 0.2]);
        state.arms.retain(|arm| arm.info.name == "none");
        state.arms[1].status = ArmStatus::Failed("NaN".into());
        state.arms[2].evaluations.clear();
        let counted = |state: &RunState| {
            let seeds = arms(&[("", state)])[0].counted().into_iter();
            seeds.map(|(_, arm)| arm.info.seed).collect::<Vec<_>>()
        };
        assert_eq!(counted(&state), [0]);
        state.arms[0].status = ArmStatus::Failed("NaN".into());
        assert_eq!(counted(&state), [0, 1]);
    }
}

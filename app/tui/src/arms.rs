//! Arms over their seeds: which belong together, their mean, and the verdicts on them.
//!
//! Verdicts rest on bootstrap intervals, which take too long to compute while drawing or between two keys. They are
//! asked for when an arm has a new evaluation ([`Arms::update`]), computed on a thread of their own
//! ([`Question::judge`]), and kept here.

use std::collections::HashMap;

use forgetlab_study::report::{self, ArmSeeds, Judgement};
use forgetlab_study::run::{ArmState, ArmStatus, Cost, Evaluation, Fit, RunState, Score};
use forgetlab_study::stats;

/// One seed of an arm: index of its run, and of the arm in the run.
pub type Member = (usize, usize);

/// Runs that are shown together, each with its name.
pub type Runs<'a> = &'a [(&'a str, &'a RunState)];

/// Evaluations and step of the last one of every seed, and whether it counts: what a verdict was computed from.
type Stamp = Vec<(usize, u64, bool)>;

/// An arm over its seeds, or one seed of it.
#[derive(Debug)]
pub struct Group {
    /// Name of the arm; of one seed among several, preceded by `#SEED`.
    pub label: String,
    /// Its seeds.
    pub members: Vec<Member>,
    /// The mean over the seeds that count ([`ArmSeeds::counted`]), at the steps that all of them have reached.
    pub mean: ArmState,
    stamp: Stamp,
}

impl Group {
    /// Its seeds, with their runs.
    pub fn seeds<'a>(&self, runs: &[(&str, &'a RunState)]) -> ArmSeeds<'a> {
        let seeds = self.members.iter().filter_map(|&(run, arm)| {
            let (_, state) = runs.get(run)?;
            Some((*state, state.arms.get(arm)?))
        });
        ArmSeeds {
            name: self.label.clone(),
            seeds: seeds.collect(),
        }
    }
}

/// The arms of the runs on a screen, over their seeds or seed by seed.
#[derive(Debug, Default)]
pub struct Arms {
    /// Whether every seed is shown apart.
    pub apart: bool,
    groups: Vec<Group>,
    asked: HashMap<Vec<Member>, Stamp>,
    judgements: HashMap<Vec<Member>, Judgement>,
}

impl Arms {
    /// Nothing yet; `apart` as in the field.
    pub fn new(apart: bool) -> Self {
        Self {
            apart,
            ..Self::default()
        }
    }

    /// The arms in the order of the runs.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The latest verdict on an arm; `None` until it is known.
    pub fn judgement(&self, group: &Group) -> Option<&Judgement> {
        self.judgements.get(&group.members)
    }

    /// Takes up what is new in the runs. Returns the questions to be answered for the verdicts that it changes.
    pub fn update(&mut self, runs: Runs) -> Vec<Question> {
        let mut before = std::mem::take(&mut self.groups);
        for members in grouped(runs, self.apart) {
            let mut group = Group {
                label: String::new(),
                members,
                mean: ArmState::new(empty_info()),
                stamp: Stamp::new(),
            };
            let of_arm = group.seeds(runs);
            let seeds = &of_arm.seeds;
            let Some(&(run, first)) = seeds.first() else {
                continue;
            };
            group.label = match self.apart {
                true => run.arm_label(first),
                false => first.info.name.clone(),
            };
            group.stamp = seeds.iter().map(|(_, arm)| stamp(arm)).collect();
            let known = before
                .iter_mut()
                .find(|known| known.members == group.members);
            group.mean = match known.filter(|known| known.stamp == group.stamp) {
                Some(known) => std::mem::replace(&mut known.mean, ArmState::new(empty_info())),
                None => mean_of(first, &of_arm.counted()),
            };
            take_progress(&mut group.mean, seeds);
            self.groups.push(group);
        }
        let questions = self.groups.iter().filter_map(|group| {
            let new = self.asked.get(&group.members) != Some(&group.stamp);
            let seeds = group.seeds(runs);
            let any_old = new && !report::old_datasets(&seeds).is_empty();
            any_old.then(|| (group.stamp.clone(), Question::about(group, &seeds)))
        });
        let questions: Vec<(Stamp, Question)> = questions.collect();
        for (stamp, question) in &questions {
            self.asked.insert(question.members.clone(), stamp.clone());
        }
        questions
            .into_iter()
            .map(|(_, question)| question)
            .collect()
    }

    /// Keeps a verdict.
    pub fn judged(&mut self, members: Vec<Member>, judgement: Judgement) {
        self.judgements.insert(members, judgement);
    }

    /// Index of the arm that a seed belongs to.
    pub fn position(&self, member: Member) -> Option<usize> {
        let holds = |group: &Group| group.members.contains(&member);
        self.groups.iter().position(holds)
    }
}

/// What a verdict is to be computed from.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The seeds it is about.
    pub members: Vec<Member>,
    /// A run for every seed, with this arm alone.
    seeds: Vec<RunState>,
}

impl Question {
    fn about(group: &Group, seeds: &ArmSeeds) -> Self {
        let alone = |&(run, arm): &(&RunState, &ArmState)| RunState {
            experiment: run.experiment.clone(),
            preset: run.preset.clone(),
            phases: run.phases.clone(),
            config: run.config.clone(),
            arms: vec![ArmState {
                status: arm.status.clone(),
                phase: arm.phase,
                step: arm.step,
                evaluations: arm.evaluations.clone(),
                ..ArmState::new(arm.info.clone())
            }],
            ..RunState::default()
        };
        Self {
            members: group.members.clone(),
            seeds: seeds.seeds.iter().map(alone).collect(),
        }
    }

    /// Computes the verdict, which may take seconds.
    pub fn judge(&self) -> Judgement {
        let seeds = self.seeds.iter();
        let seeds: Vec<(&RunState, &ArmState)> = seeds
            .flat_map(|run| run.arms.iter().map(move |arm| (run, arm)))
            .collect();
        let margins = report::margins(self.seeds.first().unwrap_or(&RunState::default()));
        let name = String::new();
        report::judge(&ArmSeeds { name, seeds }, margins)
    }
}

/// The seeds of every arm.
fn grouped(runs: Runs, apart: bool) -> Vec<Vec<Member>> {
    if apart {
        let each = runs.iter().enumerate();
        return each
            .flat_map(|(run, (_, state))| (0..state.arms.len()).map(move |arm| vec![(run, arm)]))
            .collect();
    }
    let place = |run: &RunState, arm: &ArmState| -> Option<Member> {
        let at = runs
            .iter()
            .position(|(_, known)| std::ptr::eq(*known, run))?;
        let arms = &runs[at].1.arms;
        Some((at, arms.iter().position(|known| std::ptr::eq(known, arm))?))
    };
    let arms = report::arms(runs).into_iter();
    arms.map(|arm| {
        let seeds = arm.seeds.iter();
        seeds.filter_map(|(run, own)| place(run, own)).collect()
    })
    .collect()
}

fn stamp(arm: &ArmState) -> (usize, u64, bool) {
    let last = arm.evaluations.last().map_or(0, |e| e.step);
    let lost = matches!(arm.status, ArmStatus::Failed(_) | ArmStatus::Skipped(_));
    (arm.evaluations.len(), last, !lost)
}

fn empty_info() -> forgetlab_study::experiment::ArmInfo {
    forgetlab_study::experiment::ArmInfo {
        name: String::new(),
        slug: String::new(),
        strategy: String::new(),
        objective: String::new(),
        coeff: None,
        lr: 0.0,
        seed: 0,
        steps: Vec::new(),
    }
}

/// The mean of the seeds that count, at the steps that all of them have reached, under the name of the first.
fn mean_of(named: &ArmState, seeds: &[(&RunState, &ArmState)]) -> ArmState {
    let begun: Vec<&ArmState> = seeds.iter().map(|(_, arm)| *arm).collect();
    let mut mean = ArmState::new(named.info.clone());
    let Some((first, others)) = begun.split_first() else {
        return mean;
    };
    for evaluation in &first.evaluations {
        let there = others.iter().map(|arm| {
            let at = arm
                .evaluations
                .binary_search_by_key(&evaluation.step, |e| e.step);
            at.ok().map(|at| &arm.evaluations[at])
        });
        if let Some(mut all) = there.collect::<Option<Vec<&Evaluation>>>() {
            all.insert(0, evaluation);
            mean.evaluations.push(mean_evaluation(&all));
        }
    }
    // A phase ends where the last of the seeds ended it.
    for &(phase, step, by) in &first.ends {
        let ends = begun
            .iter()
            .map(|arm| arm.ends.iter().find(|e| e.0 == phase));
        if let Some(ends) = ends.collect::<Option<Vec<_>>>() {
            let last = ends.iter().map(|end| end.1).max().unwrap_or(step);
            mean.ends.push((phase, last, by));
        }
    }
    mean
}

/// The mean of evaluations at one step, of the datasets that all of them have.
fn mean_evaluation(all: &[&Evaluation]) -> Evaluation {
    let score = |first: &Score| -> Option<Score> {
        let scores = all.iter().map(|e| e.score(&first.dataset));
        let scores: Vec<&Score> = scores.collect::<Option<_>>()?;
        let of = |value: fn(&Score) -> Option<f64>| {
            let values: Option<Vec<f64>> = scores.iter().map(|score| value(score)).collect();
            stats::mean(&values?)
        };
        Some(Score {
            dataset: first.dataset.clone(),
            role: first.role,
            ntp: of(|score| score.ntp),
            kl: of(|score| score.kl),
            accuracy: of(|score| score.accuracy),
            fit: of(|score| score.fit.map(|fit| fit.error)).map(|error| Fit {
                error,
                distance: of(|score| score.fit.and_then(|fit| fit.distance)),
            }),
            choices: first.choices,
            outcomes: None,
            rows_kept: false,
        })
    };
    let costs: Vec<&Cost> = all.iter().map(|e| &e.cost).collect();
    Evaluation {
        phase: all[0].phase,
        step: all[0].step,
        cost: mean_cost(&costs),
        scores: all[0].scores.iter().filter_map(score).collect(),
    }
}

fn mean_cost(costs: &[&Cost]) -> Cost {
    let count = costs.len().max(1);
    let tokens = |of: fn(&Cost) -> u64| {
        let sum: u128 = costs.iter().map(|cost| u128::from(of(cost))).sum();
        u64::try_from(sum / count as u128).unwrap_or(u64::MAX)
    };
    let number =
        |of: fn(&Cost) -> f64| costs.iter().map(|cost| of(cost)).sum::<f64>() / count as f64;
    Cost {
        tokens_trained: tokens(|cost| cost.tokens_trained),
        tokens_generated: tokens(|cost| cost.tokens_generated),
        seconds_new: number(|cost| cost.seconds_new),
        seconds_replay: number(|cost| cost.seconds_replay),
        seconds_generate: number(|cost| cost.seconds_generate),
        seconds_eval: number(|cost| cost.seconds_eval),
        flops_train: number(|cost| cost.flops_train),
        flops_reference: number(|cost| cost.flops_reference),
        flops_generate: number(|cost| cost.flops_generate),
        flops_eval: number(|cost| cost.flops_eval),
        replaced: stats::mean(
            &costs
                .iter()
                .filter_map(|cost| cost.replaced)
                .collect::<Vec<_>>(),
        ),
    }
}

/// Sets what changes between evaluations.
fn take_progress(mean: &mut ArmState, seeds: &[(&RunState, &ArmState)]) {
    let arms = || seeds.iter().map(|(_, arm)| *arm);
    mean.step = arms().map(|arm| arm.step).min().unwrap_or(0);
    mean.phase = mean.evaluations.last().map_or(0, |e| e.phase);
    mean.progress = arms()
        .next()
        .filter(|_| seeds.len() == 1)
        .and_then(|arm| arm.progress);
    // A reason is shown in place of the curves only where no seed goes on.
    let going = arms().find(|arm| !arm.status.is_over());
    let ended = arms().find(|arm| arm.status == ArmStatus::Finished);
    let shown = going.or(ended).or_else(|| arms().next());
    mean.status = shown.map_or(ArmStatus::Waiting, |arm| arm.status.clone());
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    /// A mean over other seeds at every step would bend where a seed ends, and show forgetting that is none.
    #[test]
    fn a_mean_ends_where_its_shortest_seed_does() {
        let infos: Vec<_> = (0..3).map(|seed| fake::arm_info("none", seed)).collect();
        let mut run = fake::state(&fake::records(&infos, 300));
        run.arms[1].evaluations.retain(|e| e.step <= 200);
        run.arms[2].evaluations.clear();
        let mut arms = Arms::default();
        let asked = arms.update(&[("run", &run)]);
        assert_eq!(asked.len(), 1);
        let [group] = arms.groups() else {
            panic!("{:?}", arms.groups());
        };
        assert_eq!((group.label.as_str(), group.members.len()), ("none", 3));
        let last = group.mean.evaluations.last().unwrap();
        assert_eq!(last.step, 200, "the seed that has not begun does not count");
        let score = |arm: usize| run.arms[arm].evaluations[20].score("reversal").unwrap();
        let mean = (score(0).accuracy.unwrap() + score(1).accuracy.unwrap()) / 2.0;
        assert_eq!(last.score("reversal").unwrap().accuracy, Some(mean));
        arms.apart = true;
        arms.update(&[("run", &run)]);
        let labels: Vec<&str> = arms.groups().iter().map(|g| g.label.as_str()).collect();
        assert_eq!(labels, ["#0 none", "#1 none", "#2 none"]);
    }
}

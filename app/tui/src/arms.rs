//! Arms over their seeds: which belong together, their mean, what is drawn of them, and the verdicts on them.
//!
//! Verdicts rest on bootstrap intervals, which take too long to compute while drawing or between two keys. They are
//! asked for when an arm has a new evaluation ([`Arms::update`]), computed on a thread of their own
//! ([`Question::judge`]), and kept here.

use std::collections::HashMap;

use forgetlab_study::report::{self, ArmSeeds, Judgement, Verdict};
use forgetlab_study::run::{ArmState, ArmStatus, Cost, Evaluation, Fit, Role, RunState, Score};
use forgetlab_study::stats;

use super::figures::{Figures, Metric, mean_over};
use super::track::{At, Track, Value};
use super::widgets::names::end_of;

/// The verdict where there is no old data yet.
static EARLY: Judgement = Judgement {
    verdict: Verdict::TooEarly,
    by: None,
};

/// Index of a run, and of an arm in it.
pub type Member = (usize, usize);

/// Runs that are shown together, each with its name.
pub type Runs<'a> = &'a [(&'a str, &'a RunState)];

/// Evaluations of a seed, step of the last one, and whether it counts.
type Seen = (usize, u64, bool);

/// What was seen of every seed: what a verdict was computed from.
type Stamp = Vec<Seen>;

/// Names of the old data of a phase over which a mean is taken, in each metric.
type Kept = [Vec<String>; Metric::ALL.len()];

/// Data whose score is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The mean over the old data of the phase.
    Old,
    /// The data being learned.
    New,
    /// A dataset, by its index in [`Arms::datasets`].
    Dataset(usize),
}

/// Index of a score in the track of an arm.
pub fn line_of(of: Of, metric: Metric) -> usize {
    let of = match of {
        Of::Old => 0,
        Of::New => 1,
        Of::Dataset(index) => 2 + index,
    };
    of * Metric::ALL.len() + metric as usize
}

/// An arm over its seeds, or one seed of it.
#[derive(Debug)]
pub struct Group {
    /// Name of the arm; of one seed among several, preceded by `#SEED`.
    pub label: String,
    /// Index of its colour and marker, which stays whatever else is shown.
    pub index: usize,
    /// Its seeds.
    pub members: Vec<Member>,
    /// The mean over the seeds that count ([`ArmSeeds::counted`]), at the steps that all of them have reached.
    pub mean: ArmState,
    /// The scores of this mean, for drawing, with intervals over the seeds.
    pub track: Track,
    /// The figures of the table, in every metric.
    figures: [Figures; Metric::ALL.len()],
    kept: Vec<Kept>,
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
    /// Names of the datasets of all runs.
    pub datasets: Vec<String>,
    groups: Vec<Group>,
    asked: HashMap<Vec<Member>, Stamp>,
    judgements: HashMap<Vec<Member>, Judgement>,
    quantiles: Quantiles,
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
        match self.asked.contains_key(&group.members) {
            true => self.judgements.get(&group.members),
            false => Some(&EARLY),
        }
    }

    /// Takes up what is new in the runs. Returns the questions to be answered for the verdicts that it changes.
    pub fn update(&mut self, runs: Runs) -> Vec<Question> {
        for name in runs.iter().flat_map(|(_, run)| run.datasets()) {
            if !self.datasets.iter().any(|known| known == name) {
                self.datasets.push(name.to_owned());
            }
        }
        let mut before = std::mem::take(&mut self.groups);
        for members in grouped(runs, self.apart) {
            let known = before.iter().position(|group| group.members == members);
            let mut group = match known {
                Some(at) => before.swap_remove(at),
                None => Group::new(members),
            };
            group.index = self.groups.len();
            if group.take_up(runs, self.apart, &self.datasets, &mut self.quantiles) {
                self.groups.push(group);
            }
        }
        self.tell_apart(runs);
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

    /// Takes up everything anew at the next update: what was seen of the runs may not hold any more.
    pub fn restart(&mut self) {
        self.groups.iter_mut().for_each(|group| group.stamp.clear());
    }

    /// Puts the end of its run's name before the name of an arm that others have, too.
    fn tell_apart(&mut self, runs: Runs) {
        let names: Vec<String> = self
            .groups
            .iter()
            .map(|group| group.label.clone())
            .collect();
        for (at, group) in self.groups.iter_mut().enumerate() {
            let twin = |other: usize| other != at && names[other] == names[at];
            let run = group.members.first().and_then(|(run, _)| runs.get(*run));
            if let Some((run, _)) = run.filter(|_| (0..names.len()).any(twin)) {
                group.label = format!("{}: {}", end_of(run), names[at]);
            }
        }
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

/// By what the standard error of a mean is multiplied for half the width of its 95 % interval, by the number of values.
#[derive(Debug, Default)]
struct Quantiles(Vec<Option<f64>>);

impl Quantiles {
    fn of(&mut self, count: usize) -> f64 {
        if self.0.len() <= count {
            self.0.resize(count + 1, None);
        }
        *self.0[count].get_or_insert_with(|| {
            // Of values whose standard error is known to be 1 / count.
            let mut values = vec![0.0; count];
            if let Some(first) = values.first_mut() {
                *first = 1.0;
            }
            let interval = stats::t_interval(&values, stats::LEVEL);
            interval.map_or(f64::NAN, |interval| interval.half_width() * count as f64)
        })
    }

    /// The mean of values and half the width of its 95 % interval, as [`stats::t_interval`] has it.
    fn value(&mut self, values: &[f64]) -> Option<Value> {
        let mean = stats::mean(values)?;
        let count = values.len();
        if count < 2 {
            return Some(Value {
                mean,
                half: f64::NAN,
            });
        }
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let error = (squares / (count - 1) as f64 / count as f64).sqrt();
        Some(Value {
            mean,
            half: error * self.of(count),
        })
    }
}

impl Group {
    fn new(members: Vec<Member>) -> Self {
        Self {
            label: String::new(),
            index: 0,
            members,
            mean: ArmState::new(empty_info()),
            track: Track::default(),
            figures: Default::default(),
            kept: Vec::new(),
            stamp: Stamp::new(),
        }
    }

    /// Takes up what is new of its seeds; `false` where it has none.
    fn take_up(
        &mut self,
        runs: Runs,
        apart: bool,
        datasets: &[String],
        quantiles: &mut Quantiles,
    ) -> bool {
        let of_arm = ArmSeeds {
            name: String::new(),
            ..self.seeds(runs)
        };
        let seeds = &of_arm.seeds;
        let Some(&(run, first)) = seeds.first() else {
            return false;
        };
        self.label = match apart {
            true => run.arm_label(first),
            false => first.info.name.clone(),
        };
        let stamp: Stamp = seeds.iter().map(|(_, arm)| stamp(arm)).collect();
        let grown = self.has_only_grown(seeds, &stamp);
        if !grown {
            self.mean = ArmState::new(first.info.clone());
            self.track = Track::default();
            self.kept = Vec::new();
        }
        let changed = !grown || stamp != self.stamp;
        self.stamp = stamp;
        if changed {
            self.extend(&of_arm.counted(), datasets, quantiles);
            self.mean.thin();
            let phase = self.mean.evaluations.last().map_or(0, |e| e.phase);
            self.figures = Metric::ALL.map(|metric| {
                let kept = self.kept(phase, metric);
                Figures::of(&self.mean, kept, self.spread(metric), &of_arm, metric)
            });
        }
        take_progress(&mut self.mean, seeds);
        true
    }

    /// Half the width of the interval of what is kept now; NaN of one seed.
    fn spread(&self, metric: Metric) -> f64 {
        let last = self.track.last(line_of(Of::Old, metric));
        last.map_or(f64::NAN, |point| point.half)
    }

    /// The figures of the table in a metric.
    pub fn figures(&self, metric: Metric) -> &Figures {
        &self.figures[metric as usize]
    }

    /// Whether it is an arm of a run, by the run's place.
    pub fn is_of(&self, run: usize) -> bool {
        self.members.iter().any(|(own, _)| *own == run)
    }

    /// The old data of a phase over which a mean in a metric is taken.
    pub fn kept(&self, phase: usize, metric: Metric) -> &[String] {
        let kept = self.kept.get(phase);
        kept.map_or(&[][..], |kept| kept[metric as usize].as_slice())
    }

    /// Whether every seed has what it had, and perhaps more.
    fn has_only_grown(&self, seeds: &[(&RunState, &ArmState)], now: &Stamp) -> bool {
        let same = |((was, now), (_, arm)): ((&Seen, &Seen), &(_, &ArmState))| {
            let last = arm.evaluations.binary_search_by_key(&was.1, |e| e.step);
            was.2 == now.2 && was.0 <= now.0 && (was.0 == 0 || last.is_ok())
        };
        // A seed that begins counts from then on: the mean is another one.
        let begun = |stamp: &Stamp| stamp.iter().filter(|seed| seed.0 > 0).count();
        self.stamp.len() == now.len()
            && begun(&self.stamp) == begun(now)
            && self.stamp.iter().zip(now).zip(seeds).all(same)
    }

    /// Adds to the mean, and to the track, the evaluations that all seeds have and that are not in it yet.
    fn extend(
        &mut self,
        seeds: &[(&RunState, &ArmState)],
        datasets: &[String],
        quantiles: &mut Quantiles,
    ) {
        let begun: Vec<&ArmState> = seeds.iter().map(|(_, arm)| *arm).collect();
        let Some((first, others)) = begun.split_first() else {
            return;
        };
        let kept = kept(&first.evaluations);
        if kept[..self.kept.len().min(kept.len())] != self.kept[..] {
            // What was taken for the old data of a phase is not all asked as often as the rest.
            self.mean = ArmState::new(self.mean.info.clone());
            self.track = Track::default();
        }
        self.kept = kept;
        let done = self.mean.evaluations.last().map(|e| e.step);
        let new = first.evaluations.partition_point(|e| Some(e.step) <= done);
        for evaluation in &first.evaluations[new..] {
            let there = others.iter().map(|arm| {
                let at = arm
                    .evaluations
                    .binary_search_by_key(&evaluation.step, |e| e.step);
                at.ok().map(|at| &arm.evaluations[at])
            });
            if let Some(mut all) = there.collect::<Option<Vec<&Evaluation>>>() {
                all.insert(0, evaluation);
                self.add(&all, datasets, quantiles);
            }
        }
        // A phase ends where the last of the seeds ended it.
        self.mean.ends.clear();
        for &(phase, step, by) in &first.ends {
            let ends = begun
                .iter()
                .map(|arm| arm.ends.iter().find(|e| e.0 == phase));
            if let Some(ends) = ends.collect::<Option<Vec<_>>>() {
                let last = ends.iter().map(|end| end.1).max().unwrap_or(step);
                self.mean.ends.push((phase, last, by));
            }
        }
    }

    /// Adds one evaluation of all seeds.
    fn add(&mut self, all: &[&Evaluation], datasets: &[String], quantiles: &mut Quantiles) {
        let mean = mean_evaluation(all);
        let mut values: Vec<(usize, Value)> = Vec::new();
        let mut take = |of: Of, metric: Metric, of_seeds: Option<Vec<f64>>| {
            if let Some(value) = of_seeds.and_then(|values| quantiles.value(&values)) {
                values.push((line_of(of, metric), value));
            }
        };
        for metric in Metric::ALL {
            for score in &mean.scores {
                let index = datasets.iter().position(|name| *name == score.dataset);
                let one = |e: &&Evaluation| metric.of(e.score(&score.dataset)?);
                let of_seeds = || all.iter().map(one).collect::<Option<Vec<f64>>>();
                if let Some(index) = index {
                    take(Of::Dataset(index), metric, of_seeds());
                }
                if score.role == Role::New {
                    take(Of::New, metric, of_seeds());
                }
            }
            let kept = self.kept(mean.phase, metric);
            let old = |e: &&Evaluation| mean_over(e, kept, metric);
            take(Of::Old, metric, all.iter().map(old).collect());
        }
        self.track.push(at(&mean), values.into_iter());
        self.mean.evaluations.push(mean);
    }
}

/// The old data of each phase over which a mean is taken: those in both of its first two evaluations, as large sets of
/// questions are asked at the ends of a phase alone. Of accuracies of questions and of other data, those of questions.
fn kept(evaluations: &[Evaluation]) -> Vec<Kept> {
    let phases = evaluations.last().map_or(0, |e| e.phase + 1);
    let of_phase = |phase: usize| {
        let from = evaluations.partition_point(|e| e.phase < phase);
        let first: Vec<&Evaluation> = evaluations[from..]
            .iter()
            .take_while(|e| e.phase == phase)
            .take(2)
            .collect();
        let Some((start, second)) = first.split_first() else {
            return Kept::default();
        };
        let there = |score: &&Score| {
            score.role == Role::Old && second.iter().all(|e| e.score(&score.dataset).is_some())
        };
        let old: Vec<&Score> = start.scores.iter().filter(there).collect();
        let any_asked = old.iter().any(|score| score.choices.is_some());
        Metric::ALL.map(|metric| {
            let asked = any_asked && metric == Metric::Accuracy;
            let kept = old.iter().filter(|score| !asked || score.choices.is_some());
            let kept = kept.filter(|score| metric.of(score).is_some());
            kept.map(|score| score.dataset.clone()).collect()
        })
    };
    (0..phases).map(of_phase).collect()
}

/// Where an evaluation is on every x axis.
pub fn at(evaluation: &Evaluation) -> At {
    let cost = &evaluation.cost;
    At {
        steps: evaluation.step as f64,
        tokens: cost.tokens_trained as f64,
        seconds: cost.seconds(),
        flops: cost.flops_without_evaluation().unwrap_or(f64::NAN),
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

fn stamp(arm: &ArmState) -> Seen {
    let last = arm.evaluations.last().map_or(0, |e| e.step);
    let lost = matches!(arm.status, ArmStatus::Failed(_) | ArmStatus::Skipped(_));
    let seen = arm.evaluations.len() + arm.dropped.evaluations();
    (seen, last, !lost)
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

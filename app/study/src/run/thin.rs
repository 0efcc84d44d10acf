//! A state of bounded size, however long its run is: what screens show of one, and what lists keep of it.
//!
//! An arm of up to [`WHOLE`] evaluations is kept whole. Of a longer one those stay from which the same figures and
//! verdicts follow: the first two and the last of each phase, the latest ones, and of every dataset in each phase the
//! first and last that have it and the first of the worst in each measure. How many were dropped is counted, so that
//! the worst of K evaluations is still of K. Between them, evaluations stay at even distances; a mean over the steps
//! of a phase (`retention`) is over those. Scores of single rows stay where intervals are computed from them: at the
//! first, the last two and the three worst of a dataset in a phase.
//!
//! Going back to a checkpoint takes back what overtook what was dropped. Who keeps a state thin therefore reads the
//! events anew then; [`ArmState::is_thinned`] tells.

use std::collections::{HashMap, HashSet};

use super::dropped::Dropped;
use super::{ArmState, Evaluation, RunState, Score};

/// Evaluations of an arm that are kept whole.
pub const WHOLE: usize = 1024;
/// At least half as many, at most as many evaluations of a longer one stay at even distances.
const EVEN: u64 = 512;
/// The latest ones all stay: seeds of one arm may be a few apart.
const LATEST: usize = 32;
/// So many of the latest may have the scores of their rows before those are dropped where nothing is computed from them.
const WITH_ROWS: usize = 64;
/// Numbers of a plugin, looks at replay batches and at what a student writes, of an arm that are kept whole.
const FEW: usize = 4096;
/// Numbers of a plugin under all names.
const MOST: usize = 1 << 16;
/// Lines of the log that stay; twice as many are kept whole.
pub const LINES: usize = 2000;

/// Counts an evaluation that is dropped.
fn count(dropped: &mut Dropped, evaluation: &Evaluation) {
    dropped.any = true;
    dropped.evaluations += 1;
    for score in &evaluation.scores {
        let [accuracy, ntp, error, _] = badness(score);
        let had = [accuracy, ntp, error].map(|value| value.is_some());
        dropped.count(evaluation.phase, &score.dataset, had);
    }
}

/// How bad a score is in accuracy, NTP, error and KL.
fn badness(score: &Score) -> [Option<f64>; 4] {
    let all = [
        score.accuracy.map(|accuracy| -accuracy),
        score.ntp,
        score.fit.map(|fit| fit.error),
        score.kl,
    ];
    all.map(|value| value.filter(|value| value.is_finite()))
}

/// A dataset in a phase.
type Place<'a> = (usize, &'a str);

/// Which evaluations stay.
fn staying(all: &[Evaluation]) -> Vec<bool> {
    let mut stay = vec![false; all.len()];
    let from = all.len().saturating_sub(LATEST);
    stay[from..].fill(true);
    let mut spaced = Spaced::new(all.last().map_or(0, |e| e.step));
    // Places with what is missing there, and numbers of datasets, that were seen before.
    let mut lacking: HashSet<(Place, usize)> = HashSet::new();
    let mut sizes: HashSet<(usize, usize)> = HashSet::new();
    let mut last: HashMap<Place, usize> = HashMap::new();
    let mut in_phase = (usize::MAX, 0);
    for (at, e) in all.iter().enumerate() {
        in_phase = if in_phase.0 == e.phase {
            (e.phase, in_phase.1 + 1)
        } else {
            (e.phase, 1)
        };
        let ends = all.get(at + 1).is_none_or(|next| next.phase != e.phase);
        stay[at] |= spaced.takes(e.step)
            | ends
            | (in_phase.1 <= 2)
            | sizes.insert((e.phase, e.scores.len()));
        for score in &e.scores {
            let place = (e.phase, score.dataset.as_str());
            stay[at] |= last.insert(place, at).is_none();
            for (measure, _) in badness(score)
                .iter()
                .enumerate()
                .filter(|(_, value)| value.is_none())
            {
                stay[at] |= lacking.insert((place, measure));
            }
        }
    }
    last.into_values().for_each(|at| stay[at] = true);
    let mut worst: HashMap<(Place, usize), (f64, usize)> = HashMap::new();
    for (at, e) in all.iter().enumerate().filter(|(at, _)| !stay[*at]) {
        for score in &e.scores {
            for (measure, value) in badness(score).into_iter().enumerate() {
                let Some(value) = value else { continue };
                let key = ((e.phase, score.dataset.as_str()), measure);
                let known = worst.entry(key).or_insert((value, at));
                if value > known.0 {
                    *known = (value, at);
                }
            }
        }
    }
    worst.into_values().for_each(|(_, at)| stay[at] = true);
    stay
}

/// Drops texts between others where there are many.
fn thin_texts<T>(looks: &mut Vec<T>, step: impl Fn(&T) -> u64) {
    let Some(last) = looks.last().map(&step).filter(|_| looks.len() > FEW) else {
        return;
    };
    let mut spaced = Spaced::new(last);
    looks.retain(|look| spaced.takes(step(look)) || step(look) == last);
}

/// Takes the first of what comes in each of at most [`EVEN`] stretches of equal length, which of runs of other lengths
/// end at the same steps or are parts of them.
struct Spaced {
    width: u64,
    last: Option<u64>,
}

impl Spaced {
    fn new(last_step: u64) -> Self {
        Self {
            width: (last_step / EVEN + 1).next_power_of_two(),
            last: None,
        }
    }

    fn takes(&mut self, step: u64) -> bool {
        let stretch = Some(step / self.width);
        let first = self.last != stretch;
        self.last = stretch;
        first
    }
}

/// The places in a list of those whose scores of single rows are needed: the first, the last two and the three worst of
/// a dataset in a phase. Two of the worst may be its start and its end.
#[derive(Default)]
struct Needed {
    first: Option<usize>,
    last: [Option<usize>; 2],
    worst: [Vec<(f64, usize)>; 2],
}

impl Needed {
    fn see(&mut self, at: usize, score: &Score) {
        self.first.get_or_insert(at);
        self.last = [self.last[1], Some(at)];
        for (worst, value) in self.worst.iter_mut().zip(badness(score)) {
            let Some(value) = value else { continue };
            // Of several as bad, the first.
            let place = worst.partition_point(|&(known, _)| known >= value);
            worst.insert(place, (value, at));
            worst.truncate(3);
        }
    }

    fn has(&self, at: usize) -> bool {
        let at = Some(at);
        let mut worst = self.worst.iter().flatten();
        self.first == at || self.last.contains(&at) || worst.any(|known| Some(known.1) == at)
    }
}

fn has_rows(evaluation: &Evaluation) -> bool {
    evaluation
        .scores
        .iter()
        .any(|score| score.outcomes.is_some())
}

impl ArmState {
    /// Whether something was dropped that going back to a checkpoint could make wanted again.
    pub fn is_thinned(&self) -> bool {
        self.dropped.any
    }

    /// Drops what nothing on a screen follows from, where there is much of it.
    pub fn thin(&mut self) {
        let latest = self.evaluations.iter().rev();
        if latest.take_while(|e| has_rows(e)).count() > WITH_ROWS {
            self.thin_rows();
        }
        // Where many must stay, not at every one that comes.
        let left = self.dropped.left;
        if self.evaluations.len() > WHOLE.max(left + left / 4) {
            self.thin_rows();
            self.thin_evaluations();
            self.dropped.left = self.evaluations.len();
        }
        self.thin_metrics();
        thin_texts(&mut self.replay, |look| look.step);
        thin_texts(&mut self.samples, |look| look.step);
    }

    fn thin_evaluations(&mut self) {
        let mut stay = staying(&self.evaluations).into_iter();
        let dropped = &mut self.dropped;
        self.evaluations.retain(|evaluation| {
            let stays = stay.next().unwrap_or(true);
            if !stays {
                count(dropped, evaluation);
            }
            stays
        });
    }

    fn thin_rows(&mut self) {
        let mut needed: HashMap<Place, Needed> = HashMap::new();
        for (at, e) in self.evaluations.iter().enumerate() {
            for score in &e.scores {
                needed
                    .entry((e.phase, &score.dataset))
                    .or_default()
                    .see(at, score);
            }
        }
        let spare = |(at, e): (usize, &Evaluation)| -> Vec<bool> {
            let scores = e.scores.iter();
            let needed = |score: &Score| {
                needed
                    .get(&(e.phase, score.dataset.as_str()))
                    .is_some_and(|n| n.has(at))
            };
            scores
                .map(|score| score.outcomes.is_some() && !needed(score))
                .collect()
        };
        let spare: Vec<Vec<bool>> = self.evaluations.iter().enumerate().map(spare).collect();
        for (e, spare) in self.evaluations.iter_mut().zip(spare) {
            for (score, _) in e.scores.iter_mut().zip(spare).filter(|(_, spare)| *spare) {
                score.outcomes = None;
                self.dropped.any = true;
            }
        }
    }

    fn thin_metrics(&mut self) {
        if self.plugin_metrics.len() <= FEW {
            return;
        }
        let last_step = self.plugin_metrics.last().map_or(0, |(step, ..)| *step);
        let last: HashMap<String, usize> = self
            .plugin_metrics
            .iter()
            .enumerate()
            .map(|(at, (_, name, _))| (name.clone(), at))
            .collect();
        let mut spaced: HashMap<String, Spaced> = HashMap::new();
        let mut at = 0;
        self.plugin_metrics.retain(|(step, name, _)| {
            let is_last = last.get(name) == Some(&at);
            at += 1;
            if !spaced.contains_key(name) {
                spaced.insert(name.clone(), Spaced::new(last_step));
            }
            spaced
                .get_mut(name)
                .is_some_and(|spaced| spaced.takes(*step))
                || is_last
        });
        // A plugin that gives every number a name of its own.
        let over = self.plugin_metrics.len().saturating_sub(MOST);
        self.plugin_metrics.drain(..over);
    }
}

impl RunState {
    /// Drops what nothing on a screen follows from, where there is much of it (see the module). A screen that is kept
    /// up to date calls this after what it applies.
    pub fn thin(&mut self) {
        self.arms.iter_mut().for_each(ArmState::thin);
        if self.log.len() > 2 * LINES {
            self.log.drain(..self.log.len() - LINES);
        }
    }
}

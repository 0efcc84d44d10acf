//! What an arm forgot over its seeds, with its interval and the noise floor, and the verdict on it.
//!
//! An arm is judged against its own start, an old dataset at a time. Over several seeds the interval of its forgetting
//! is a t interval of the seeds' differences; with one seed, or where the seeds agree to the bit, it is a bootstrap
//! over the same held-out rows (or questions), which says nothing about other seeds.

use crate::experiment::MARGIN_ERROR;
use crate::run::{ArmState, Change, Outcomes, Role, RunState, Score};
use crate::stats::{Bootstrap, Interval, LEVEL, mean, t_interval};

use super::arms::ArmSeeds;
use super::measures::{Metric, Worst, kept, since_trained};

/// Forgetting above which old data counts as lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margins {
    /// As a share.
    pub accuracy: f64,
    /// Nats per token.
    pub ntp: f64,
    /// Error of a regression.
    pub error: f64,
}

impl Default for Margins {
    fn default() -> Self {
        Self {
            accuracy: 0.05,
            ntp: 0.05,
            error: MARGIN_ERROR,
        }
    }
}

impl Margins {
    /// The margin in a metric.
    pub fn of(self, metric: Metric) -> f64 {
        match metric {
            Metric::Accuracy => self.accuracy,
            Metric::Ntp => self.ntp,
            Metric::Error => self.error,
        }
    }
}

/// What an interval is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Seeds: a t interval.
    Seeds,
    /// Held-out rows or questions: a bootstrap.
    Rows,
    /// Both together: a bootstrap.
    SeedsAndRows,
}

impl Over {
    /// Name in the CSVs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seeds => "seeds",
            Self::Rows => "rows",
            Self::SeedsAndRows => "seeds and rows",
        }
    }
}

/// Whether an arm keeps a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// No old dataset has been measured yet.
    TooEarly,
    /// All of the interval of forgetting is within the margin.
    Keeps,
    /// The interval reaches over the margin's both sides, or there is none.
    Unclear,
    /// All of the interval is above the margin, or so was a loss on the way.
    Forgets,
}

impl Verdict {
    /// The word shown, which is clear without colour.
    pub fn word(self) -> &'static str {
        match self {
            Self::TooEarly => "·",
            Self::Keeps => "keeps",
            Self::Unclear => "unclear",
            Self::Forgets => "FORGETS",
        }
    }
}

/// Forgetting of one old dataset by an arm over its seeds, in one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Forgetting {
    /// Dataset.
    pub dataset: String,
    /// Metric.
    pub metric: Metric,
    /// Seeds that have it.
    pub seeds: usize,
    /// Mean score when it was last trained.
    pub start: f64,
    /// Mean score now.
    pub now: f64,
    /// Forgetting of each seed.
    pub of_seeds: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Its 95 % interval, and what that is over.
    pub interval: Option<(Interval, Over)>,
    /// Half-width of the bootstrap interval, over rows, of the difference between start and now: mean over the seeds.
    pub floor: Option<f64>,
    /// The largest loss since it was last trained.
    pub worst: Option<WorstLoss>,
    /// The verdict.
    pub verdict: Verdict,
}

/// The largest loss of old data on the way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorstLoss {
    /// Mean over the seeds of each one's largest loss.
    pub loss: f64,
    /// The same without the last evaluation, which forgetting itself is about.
    pub before_last: f64,
    /// Steps of the arm there, of the seed that lost most.
    pub step: u64,
    /// Evaluations of which it is the worst, K.
    pub evaluations: usize,
    /// The noise floor there, corrected for K evaluations (its level is 1 − 0.05/K): the larger of that of the rows, a
    /// mean over the seeds, and half the width of the t interval of the seeds' largest losses.
    pub floor: Option<f64>,
    /// Whether it turned the verdict.
    pub decides: bool,
}

/// The verdict on an arm: that of its worst old dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// What it rests on; `None` where no old dataset has been measured.
    pub by: Option<Forgetting>,
}

impl Judgement {
    /// What is told of it besides the word: `1 seed`, the dataset and the step of a loss on the way.
    pub fn notes(&self) -> Vec<String> {
        let Some(by) = &self.by else {
            return Vec::new();
        };
        let mut notes = Vec::new();
        if by.seeds == 1 {
            notes.push("1 seed".to_owned());
        }
        if by.interval.is_none() {
            notes.push("no interval".to_owned());
        }
        if let Some(worst) = by.worst.filter(|worst| worst.decides) {
            notes.push(format!("worst at step {}", worst.step));
        }
        notes
    }
}

/// The margins of a run: those of its configuration, else the default.
pub fn margins(state: &RunState) -> Margins {
    let own = |key: &str| state.config.as_ref()?.get("verdict")?.get(key)?.as_f64();
    let default = Margins::default();
    Margins {
        accuracy: own("margin_accuracy").unwrap_or(default.accuracy),
        ntp: own("margin_ntp").unwrap_or(default.ntp),
        error: own("margin_error").unwrap_or(default.error),
    }
}

/// Names of the datasets that are old at an arm's last evaluation.
pub fn old_datasets<'a>(arm: &ArmSeeds<'a>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for (state, own) in arm.counted() {
        let old = state.datasets().into_iter().filter(|dataset| {
            since_trained(own, &state.phases, dataset).is_some()
                && state.role(dataset, own.phase) == Role::Old
        });
        for dataset in old {
            if !names.contains(&dataset) {
                names.push(dataset);
            }
        }
    }
    names
}

/// Learning of the new dataset by each seed, in the metric by which it is judged.
pub(super) fn learning(arm: &ArmSeeds) -> (Metric, Vec<f64>) {
    let seeds = arm.counted().into_iter();
    let changes = seeds
        .filter_map(|(state, own)| Some(own.new_learning(&state.phases, own.evaluations.last()?)));
    let changes: Vec<Change> = changes.collect();
    let of = |metric: Metric| -> Vec<f64> {
        let values = changes.iter().map(|change| match metric {
            Metric::Accuracy => change.accuracy,
            Metric::Ntp => change.ntp,
            Metric::Error => change.error,
        });
        values.flatten().collect()
    };
    let new = arm
        .counted()
        .first()
        .and_then(|(state, own)| Some(state.phases.get(own.phase)?.dataset.clone()));
    let mut metrics = metrics_of(arm, &new.unwrap_or_default()).into_iter();
    let has = |metric: &Metric| !of(*metric).is_empty();
    let metric = metrics.find(has).unwrap_or(Metric::Ntp);
    (metric, of(metric))
}

/// Values of one seed that forgetting is computed from.
struct Seed<'a> {
    then: f64,
    now: f64,
    rows: Option<Rows>,
    state: &'a RunState,
    arm: &'a ArmState,
}

/// Differences between two evaluations, a row each, and the rows' weights.
pub(super) struct Rows {
    pub losses: Vec<f64>,
    pub weights: Option<Vec<f64>>,
}

impl Rows {
    /// What is lost on each row from one evaluation to another; `None` where outcomes were not kept of both.
    pub fn between(metric: Metric, then: &Outcomes, now: &Outcomes) -> Option<Self> {
        let values = |outcomes: &Outcomes| match metric {
            Metric::Accuracy => outcomes.accuracies(),
            Metric::Ntp => outcomes.ntp.iter().map(|&ntp| f64::from(ntp)).collect(),
            // No scores of single points are kept.
            Metric::Error => Vec::new(),
        };
        let (before, after) = (values(then), values(now));
        let same = !before.is_empty() && before.len() == after.len() && then.weights == now.weights;
        same.then(|| Self {
            losses: before
                .iter()
                .zip(&after)
                .map(|(then, now)| metric.loss(*then, *now))
                .collect(),
            weights: now.weights(),
        })
    }

    /// The bootstrap interval of the mean loss. Where all rows agree, what the bootstrap cannot see: as many changes
    /// as none of so many rows is still likely to show (Clopper and Pearson 1934), for answers that are right or wrong.
    pub fn interval(&self, level: f64) -> Option<Interval> {
        let interval = Bootstrap::default().paired(&self.losses, self.weights.as_deref(), level)?;
        Some(self.widened(interval, level))
    }

    fn widened(&self, interval: Interval, level: f64) -> Interval {
        let answers = self.weights.is_none() && self.losses.iter().all(|loss| loss.fract() == 0.0);
        if interval.half_width() > 0.0 || !answers {
            return interval;
        }
        let unseen = 1.0 - (0.5 * (1.0 - level)).powf(1.0 / self.losses.len() as f64);
        Interval {
            low: (interval.low - unseen).max(-1.0),
            high: (interval.high + unseen).min(1.0),
        }
    }

    /// The bootstrap interval over several seeds and their rows together; `None` where the rows are not the same.
    pub fn over_seeds(seeds: &[&Self]) -> Option<Interval> {
        let first = seeds.first()?;
        if seeds.iter().any(|own| own.weights != first.weights) {
            return None;
        }
        let losses: Vec<Vec<f64>> = seeds.iter().map(|rows| rows.losses.clone()).collect();
        let weights = first.weights.as_deref();
        let interval = Bootstrap::default().seeds_and_items(&losses, weights, LEVEL)?;
        Some(first.widened(interval, LEVEL))
    }
}

/// Forgetting of an old dataset by an arm over its seeds; `None` where no seed has it.
pub fn forgetting(
    arm: &ArmSeeds,
    dataset: &str,
    metric: Metric,
    margins: Margins,
) -> Option<Forgetting> {
    let seeds: Vec<Seed> = arm
        .counted()
        .into_iter()
        .filter_map(|(state, own)| seed(state, own, dataset, metric))
        .collect();
    let of = |value: fn(&Seed) -> f64| mean(&seeds.iter().map(value).collect::<Vec<f64>>());
    let losses: Vec<f64> = seeds.iter().map(|s| metric.loss(s.then, s.now)).collect();
    let average = mean(&losses)?;
    let within: Vec<Interval> = seeds
        .iter()
        .filter_map(|s| s.rows.as_ref()?.interval(LEVEL))
        .collect();
    let floor = mean(&within.iter().map(Interval::half_width).collect::<Vec<_>>());
    let over_seeds = t_interval(&losses, LEVEL).map(|interval| (interval, Over::Seeds));
    let interval = match over_seeds {
        Some((interval, _)) if interval.half_width() > 0.0 => over_seeds,
        _ => over_rows(&seeds, &within),
    };
    let start = of(|s| s.then)?;
    let little =
        metric == Metric::Accuracy && start <= margins.of(metric) + chance(&seeds, dataset);
    let mut verdict = match interval {
        // What was never known cannot be forgotten.
        _ if little => Verdict::TooEarly,
        Some((interval, _)) if interval.high <= margins.of(metric) => Verdict::Keeps,
        Some((interval, _)) if interval.low > margins.of(metric) => Verdict::Forgets,
        _ => Verdict::Unclear,
    };
    let mut worst = worst(&seeds, dataset, metric);
    if let Some(worst) = &mut worst
        && matches!(verdict, Verdict::Keeps | Verdict::Unclear)
        && worst.before_last > margins.of(metric)
        && worst.floor.is_some_and(|floor| worst.before_last > floor)
    {
        worst.decides = true;
        verdict = Verdict::Forgets;
    }
    Some(Forgetting {
        dataset: dataset.to_owned(),
        metric,
        seeds: seeds.len(),
        start,
        now: of(|s| s.now)?,
        mean: average,
        of_seeds: losses,
        interval,
        floor,
        worst,
        verdict,
    })
}

fn seed<'a>(
    state: &'a RunState,
    arm: &'a ArmState,
    dataset: &str,
    metric: Metric,
) -> Option<Seed<'a>> {
    let (start, now) = since_trained(arm, &state.phases, dataset)?;
    let (then, now) = (start.score(dataset)?, now.score(dataset)?);
    let outcomes = then.outcomes.as_ref().zip(now.outcomes.as_ref());
    Some(Seed {
        then: metric.of(then)?,
        now: metric.of(now)?,
        rows: outcomes.and_then(|(then, now)| Rows::between(metric, then, now)),
        state,
        arm,
    })
}

/// The interval of seeds whose losses are all the same: over seeds and rows together where they have the same rows,
/// else within the first.
fn over_rows(seeds: &[Seed], within: &[Interval]) -> Option<(Interval, Over)> {
    let rows: Option<Vec<&Rows>> = seeds.iter().map(|seed| seed.rows.as_ref()).collect();
    let several = rows.filter(|rows| rows.len() > 1);
    let joint = several.and_then(|rows| Rows::over_seeds(&rows));
    let joint = joint.map(|interval| (interval, Over::SeedsAndRows));
    joint.or_else(|| Some((*within.first()?, Over::Rows)))
}

/// The largest loss of every seed on the way, and the mean over them.
fn worst(seeds: &[Seed], dataset: &str, metric: Metric) -> Option<WorstLoss> {
    let (mut all, mut before_last, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    for seed in seeds {
        let of = kept(seed.state, seed.arm, dataset, metric);
        let worst = of.worst?;
        all.push((metric.loss(seed.then, worst.score), worst));
        // Of no evaluation before the last there is nothing that could turn a verdict.
        let before = of.worst_before_last.unwrap_or(Worst {
            score: seed.then,
            ..worst
        });
        before_last.push(metric.loss(seed.then, before.score));
        floors.push(floor_at(seed, dataset, metric, before));
    }
    let losses: Vec<f64> = all.iter().map(|(loss, _)| *loss).collect();
    let (_, most) = all.iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    let of_rows = floors
        .into_iter()
        .collect::<Option<Vec<f64>>>()
        .and_then(|floors| mean(&floors));
    let of_seeds = t_interval(&before_last, LEVEL).map_or(0.0, |interval| interval.half_width());
    Some(WorstLoss {
        loss: mean(&losses)?,
        before_last: mean(&before_last)?,
        step: most.step,
        evaluations: most.evaluations,
        floor: of_rows.map(|floor| floor.max(of_seeds)),
        decides: false,
    })
}

/// The noise floor of the rows at an evaluation that is the worst of K.
fn floor_at(seed: &Seed, dataset: &str, metric: Metric, worst: Worst) -> Option<f64> {
    let (start, _) = since_trained(seed.arm, &seed.state.phases, dataset)?;
    let there = seed.arm.evaluations.iter().find(|e| e.step == worst.step)?;
    let outcomes = |score: &Score| score.outcomes.clone();
    let (then, there) = (
        outcomes(start.score(dataset)?)?,
        outcomes(there.score(dataset)?)?,
    );
    let level = 1.0 - (1.0 - LEVEL) / worst.evaluations as f64;
    Some(
        Rows::between(metric, &then, &there)?
            .interval(level)?
            .half_width(),
    )
}

/// The chance of guessing, of questions; 0 of other data.
fn chance(seeds: &[Seed], dataset: &str) -> f64 {
    let of = |seed: &Seed| {
        let mut evaluations = seed.arm.evaluations.iter().rev();
        evaluations.find_map(|e| Some(e.score(dataset)?.choices.as_ref()?.chance))
    };
    seeds.iter().find_map(of).unwrap_or(0.0)
}

/// Forgetting of an old dataset in the metric by which it is judged.
pub fn forgetting_judged(arm: &ArmSeeds, dataset: &str, margins: Margins) -> Option<Forgetting> {
    let mut metrics = metrics_of(arm, dataset).into_iter();
    metrics.find_map(|metric| forgetting(arm, dataset, metric, margins))
}

/// The metrics, the one by which a dataset is judged first, where it has that: text by its next-token loss, which tells
/// more than whether the likeliest token is right; answers by their accuracy.
pub(super) fn metrics_of(arm: &ArmSeeds, dataset: &str) -> [Metric; 3] {
    let is_text = arm
        .seeds
        .first()
        .is_some_and(|(state, _)| is_text(state, dataset));
    match is_text {
        true => [Metric::Ntp, Metric::Accuracy, Metric::Error],
        false => Metric::ALL,
    }
}

/// Whether a dataset is of running text or chats, by the run's configuration.
fn is_text(state: &RunState, dataset: &str) -> bool {
    let of = || {
        let data = state.config.as_ref()?.get("data")?;
        let texts = data.get("datasets")?.as_array()?;
        Some(
            texts
                .iter()
                .any(|text| text.get("name").and_then(|name| name.as_str()) == Some(dataset)),
        )
    };
    of().unwrap_or(false)
}

/// The verdict on an arm over its seeds: that of its worst old dataset.
pub fn judge(arm: &ArmSeeds, margins: Margins) -> Judgement {
    let all = old_datasets(arm)
        .into_iter()
        .filter_map(|dataset| forgetting_judged(arm, dataset, margins));
    // Of equal verdicts the one with the larger loss, in units of the margin.
    let size = |f: &Forgetting| {
        let loss = f
            .worst
            .filter(|worst| worst.decides)
            .map_or(f.mean, |worst| worst.loss);
        loss / margins.of(f.metric).max(f64::MIN_POSITIVE)
    };
    let by = all.reduce(|worst, next| {
        let order = (next.verdict.cmp(&worst.verdict)).then(size(&next).total_cmp(&size(&worst)));
        if order.is_gt() { next } else { worst }
    });
    Judgement {
        verdict: by.as_ref().map_or(Verdict::TooEarly, |by| by.verdict),
        by,
    }
}

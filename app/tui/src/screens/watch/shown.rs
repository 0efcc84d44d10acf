//! What curves can show: any metric of any data, what training reports, and what plugins report.

use forgetlab_study::run::TrainingStretch;

use crate::arms::{Arms, Group, Of, Runs, line_of};
use crate::figures::Metric;
use crate::track::{Axis, Columns, Point};

/// What curves show.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// A score of held-out data.
    Score(Of, Metric),
    /// What training reports.
    Training(Training),
    /// A number of the plugin, by its name.
    Plugin(String),
}

/// What training reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Training {
    /// Loss of the new batches.
    Loss,
    /// Loss of the replay batches, before the coefficient.
    Replay,
    /// Norm of the gradient.
    Gradient,
    /// Learning rate.
    Rate,
}

impl Training {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Loss, Self::Replay, Self::Gradient, Self::Rate];

    /// Name on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss => "training loss",
            Self::Replay => "replay loss",
            Self::Gradient => "gradient norm",
            Self::Rate => "learning rate",
        }
    }

    fn of(self, stretch: &TrainingStretch) -> Option<f64> {
        let value = match self {
            Self::Loss => Some(stretch.loss),
            Self::Replay => stretch.replay,
            Self::Gradient => Some(stretch.grad_norm),
            Self::Rate => Some(stretch.lr),
        };
        value.filter(|value| value.is_finite())
    }

    /// The points of an arm, a mean over its seeds, over steps.
    pub fn points(self, group: &Group, runs: Runs) -> Vec<Point> {
        let seeds = group.seeds(runs).counted();
        let Some(((_, first), others)) = seeds.split_first() else {
            return Vec::new();
        };
        let point = |stretch: &TrainingStretch| {
            let mut sum = self.of(stretch)?;
            for (_, arm) in others {
                let at = arm.training.binary_search_by_key(&stretch.step, |s| s.step);
                sum += self.of(&arm.training[at.ok()?])?;
            }
            let mean = sum / seeds.len() as f64;
            Some(Point::single(stretch.step as f64, mean))
        };
        first.training.iter().filter_map(point).collect()
    }
}

impl Shown {
    /// Everything that the runs have, in the order of the picker; `plugin` are the names of the plugins' numbers.
    pub fn all(arms: &Arms, runs: Runs, plugin: &[String]) -> Vec<Self> {
        let metrics = runs.first().map_or(&[][..], |(_, run)| Metric::of_run(run));
        let datasets = (0..arms.datasets.len()).map(Of::Dataset);
        let of: Vec<Of> = [Of::Old, Of::New].into_iter().chain(datasets).collect();
        let scores = of
            .iter()
            .flat_map(|&of| metrics.iter().map(move |&metric| Self::Score(of, metric)));
        let mut all: Vec<Self> = scores.collect();
        all.extend(Training::ALL.map(Self::Training));
        all.extend(plugin.iter().cloned().map(Self::Plugin));
        all
    }

    /// Its name, in the picker, on the command line and in titles.
    pub fn name(&self, arms: &Arms) -> String {
        match self {
            Self::Score(of, metric) => {
                let of = match of {
                    Of::Old => "old data",
                    Of::New => "new data",
                    Of::Dataset(index) => arms.datasets.get(*index).map_or("", String::as_str),
                };
                format!("{} of {of}", metric.word())
            }
            Self::Training(training) => training.name().to_owned(),
            Self::Plugin(name) => format!("plugin {name}"),
        }
    }

    /// The title of its curves.
    pub fn title(&self, arms: &Arms) -> String {
        let name = self.name(arms);
        match self {
            Self::Score(_, Metric::Kl) => format!("{}, nats", name.replacen("kl", "KL", 1)),
            Self::Score(_, Metric::Ntp) => format!("{}, nats", name.replacen("ntp", "NTP", 1)),
            Self::Training(Training::Loss | Training::Replay) => format!("{name}, nats"),
            _ => name,
        }
    }

    /// The metric of its scores; that of other curves is `None`.
    pub fn metric(&self) -> Option<Metric> {
        match self {
            Self::Score(_, metric) => Some(*metric),
            _ => None,
        }
    }

    /// Whether its values are shares.
    pub fn is_share(&self) -> bool {
        self.metric() == Some(Metric::Accuracy)
    }

    /// The last value of an arm up to a place on an axis.
    pub fn value_at(&self, group: &Group, runs: Runs, axis: Axis, place: f64) -> Option<f64> {
        if let Self::Score(of, metric) = self {
            return group.track.value_at(line_of(*of, *metric), axis, place);
        }
        let points = self.points(group, runs, axis, Columns::ONE);
        let before = points.partition_point(|point| point.x <= place);
        Some(points[before.checked_sub(1)?].mean)
    }

    /// The points of an arm on an axis, for a drawing in these columns.
    pub fn points(&self, group: &Group, runs: Runs, axis: Axis, columns: Columns) -> Vec<Point> {
        match self {
            Self::Score(of, metric) => group.track.drawn(line_of(*of, *metric), axis, columns),
            Self::Training(training) => on(axis, group, training.points(group, runs)),
            Self::Plugin(name) => {
                let seeds = group.seeds(runs).counted();
                // Of an arm over its seeds, what the first one reports.
                let first = seeds.first().map(|(_, arm)| &arm.plugin_metrics);
                let own = first
                    .into_iter()
                    .flatten()
                    .filter(|(_, own, _)| own == name);
                let own = own.filter(|(.., value)| value.is_finite());
                let points = own.map(|&(step, _, value)| Point::single(step as f64, value));
                on(axis, group, points.collect())
            }
        }
    }
}

/// Points over steps on another axis, by the evaluations round them.
fn on(axis: Axis, group: &Group, mut points: Vec<Point>) -> Vec<Point> {
    if axis == Axis::Steps {
        return points;
    }
    let places = group.track.places();
    points.retain_mut(|point| {
        let next = places.partition_point(|at| at.steps < point.x);
        let (Some(after), before) = (places.get(next), next.checked_sub(1)) else {
            return false;
        };
        let before = before.map_or(*after, |before| places[before]);
        let wide = after.steps - before.steps;
        let share = if wide > 0.0 {
            (point.x - before.steps) / wide
        } else {
            1.0
        };
        point.x = before.on(axis) + (after.on(axis) - before.on(axis)) * share;
        point.x.is_finite()
    });
    points
}

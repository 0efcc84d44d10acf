//! Means over seeds.

use crate::stats::{self, Interval, LEVEL};

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mean {
    /// The mean.
    pub(super) value: f64,
    /// Its 95 % interval by Student's t, of two or more seeds.
    pub(super) interval: Option<Interval>,
}

impl Mean {
    /// The mean of values, one a seed.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        Some(Self {
            value: stats::mean(values)?,
            interval: stats::t_interval(values, LEVEL),
        })
    }

    /// All that is drawn of it: the value, and the ends of its interval.
    pub(super) fn extent(&self) -> impl Iterator<Item = f64> + use<> {
        let ends = self.interval.map(|interval| [interval.low, interval.high]);
        std::iter::once(self.value).chain(ends.into_iter().flatten())
    }
}

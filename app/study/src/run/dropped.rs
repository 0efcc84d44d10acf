//! What was dropped of an arm's evaluations where a state is kept thin.

use serde::{Deserialize, Serialize};

/// What was dropped of an arm's evaluations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Whether anything was, scores of single rows included.
    pub(super) any: bool,
    /// Evaluations.
    pub(super) evaluations: usize,
    /// Evaluations that were left the last time.
    pub(super) left: usize,
    /// Phase, dataset, and how many had its accuracy, NTP and error.
    counts: Vec<(usize, String, [usize; 3])>,
}

impl Dropped {
    /// Counts a dropped score of a dataset in a phase: whether it had accuracy, NTP and error.
    pub(super) fn count(&mut self, phase: usize, dataset: &str, had: [bool; 3]) {
        let had = had.map(usize::from);
        let here =
            |known: &&mut (usize, String, _)| (known.0, known.1.as_str()) == (phase, dataset);
        match self.counts.iter_mut().find(here) {
            Some((_, _, counts)) => {
                let counts = counts.iter_mut().zip(had);
                counts.for_each(|(count, had)| *count += had);
            }
            None => self.counts.push((phase, dataset.to_owned(), had)),
        }
    }

    /// How many evaluations were dropped.
    pub fn evaluations(&self) -> usize {
        self.evaluations
    }

    /// How many evaluations that had a dataset's accuracy (0), NTP (1) or error (2) were dropped, from a phase on.
    pub fn since(&self, phase: usize, dataset: &str, measure: usize) -> usize {
        let there = self
            .counts
            .iter()
            .filter(|known| known.0 >= phase && known.1 == dataset);
        there.filter_map(|(.., counts)| counts.get(measure)).sum()
    }
}

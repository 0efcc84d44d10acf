//! Which runs pass the filter, and what values its fields have.

use std::slice;

use forgetlab_study::filter::{Filter, Record};
use forgetlab_study::report::RunRecord;

use crate::lab::RunSummary;

use super::Runs;

impl RunSummary {
    /// The run as a filter asks of it.
    fn record(&self) -> RunRecord<'_> {
        RunRecord {
            name: &self.name,
            experiment: &self.experiment,
            preset: &self.preset,
            status: match self.queued {
                Some(_) => "queued",
                None => self.status.word(),
            },
            done: self.progress,
            labels: &self.labels,
            digests: slice::from_ref(&*self.digest),
            configs: slice::from_ref(&*self.config),
        }
    }

    /// Whether a filter lets it pass.
    pub(super) fn passes(&self, filter: &Filter) -> bool {
        filter.matches(&self.record())
    }
}

impl Runs {
    /// Values that a field of a filter has among the runs.
    pub fn values_of(&self, field: &str) -> Vec<String> {
        let records: Vec<RunRecord> = self.list().iter().map(RunSummary::record).collect();
        let values = records.iter().flat_map(|record| record.texts(field));
        values.map(std::borrow::Cow::into_owned).collect()
    }
}

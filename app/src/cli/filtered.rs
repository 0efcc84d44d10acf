//! Runs and sweeps as `--filter` asks of them.

use std::cell::Cell;
use std::time::{Duration, Instant};

use forgetlab_study::filter::Filter;
use forgetlab_study::report::{Digest, RunRecord, digest, digest_made};
use forgetlab_study::run::{Labels, RunDir, RunFound, RunState, SweepDir};
use toml::{Table, Value};

use super::warn;

/// Figures that resample rows, or take every evaluation of a run.
const SLOW: [&str; 5] = ["verdict", "forgot", "learned", "worst", "kept"];
/// Time after which it is told what takes so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// A filter, and what it took to answer it.
pub struct Asked {
    filter: Filter,
    /// Whether it asks for one of [`SLOW`].
    slow: bool,
    took: Cell<Duration>,
}

/// What is told of a run or a sweep whatever the filter asks.
pub struct Told<'a> {
    pub name: &'a str,
    pub status: &'a str,
    pub done: f64,
    pub labels: &'a Labels,
}

impl Asked {
    pub fn new(filter: Filter) -> Self {
        Self {
            slow: SLOW.iter().any(|field| filter.asks_for(field)),
            filter,
            took: Cell::default(),
        }
    }

    /// Whether a run passes.
    pub fn run(&self, told: &Told, dir: &RunDir, live: bool, found: &RunFound) -> bool {
        let digest = self.digest(dir, live, &found.state);
        let configs = std::slice::from_ref(&found.settings);
        self.passes(told, std::slice::from_ref(&digest), configs)
    }

    /// Whether a sweep passes: with the arms of all of its points.
    pub fn sweep(&self, told: &Told, sweep: &SweepDir) -> anyhow::Result<bool> {
        let (mut digests, mut configs) = (Vec::new(), Vec::new());
        for point in sweep.spec()?.points {
            // Points that cannot be read are told by `list SWEEP`.
            let config = sweep.config(&point.name).ok();
            configs.extend(config.and_then(|config| Table::try_from(config).ok()));
            let Some(run) = sweep.run(&point.name) else {
                continue;
            };
            let live = run.is_live();
            let stored = digest(&run).filter(|_| !live);
            let made = || Some(self.digest(&run, live, &run.brief_state(live).ok()?));
            digests.extend(stored.or_else(made));
        }
        Ok(self.passes(told, &digests, &configs))
    }

    fn passes(&self, told: &Told, digests: &[Digest], configs: &[Table]) -> bool {
        let setting = |key: &str| configs.first()?.get(key).and_then(Value::as_str);
        self.filter.matches(&RunRecord {
            name: told.name,
            experiment: setting("experiment").unwrap_or_default(),
            preset: setting("preset").unwrap_or_default(),
            status: told.status,
            done: told.done,
            labels: told.labels,
            digests,
            configs,
        })
    }

    /// The digest that is kept, else what the filter asks for, worked out.
    fn digest(&self, dir: &RunDir, live: bool, state: &RunState) -> Digest {
        if live || !self.slow {
            return quick(dir, live, state);
        }
        if let Some(digest) = digest(dir) {
            return digest;
        }
        let start = Instant::now();
        // What is damaged has no verdict.
        let digest = digest_made(dir).unwrap_or_else(|_| Digest::quick(state));
        let before = self.took.get();
        self.took.set(before + start.elapsed());
        if before < PATIENCE && self.took.get() >= PATIENCE {
            warn(
                "note: verdicts and figures of runs that keep none are worked out; the next time they are at hand",
            );
        }
        digest
    }
}

/// What is known of a run at once: the digest that is kept, else one without verdicts.
pub fn quick(dir: &RunDir, live: bool, state: &RunState) -> Digest {
    let stored = digest(dir).filter(|_| !live);
    stored.unwrap_or_else(|| Digest::quick(state))
}

//! Which runs here begin with which first phase.

use std::collections::BTreeMap;

use forgetlab_study::experiment::first_phase_hash;
use forgetlab_study::run::{Results, RunDir};
use forgetlab_worker::train::numerics_in_words;

/// A run that begins with an entry.
pub struct User {
    /// Its name; of a point, that of its sweep and its own.
    pub run: String,
    pub seed: u64,
    /// The dataset of its first phase.
    pub dataset: String,
}

/// The runs under the results folder by the content hashes of their first phases. A run of another version may have
/// had another; one that cannot be read has none.
pub fn users(results: &Results) -> BTreeMap<String, Vec<User>> {
    let mut users: BTreeMap<String, Vec<User>> = BTreeMap::new();
    for (name, dir) in runs(results) {
        let (Ok(config), Ok(Some(environment))) = (dir.read_config(), dir.read_environment())
        else {
            continue;
        };
        let numerics = numerics_in_words(&environment);
        for &seed in &config.seeds {
            let hash = first_phase_hash(&config, seed, &numerics);
            users.entry(hash).or_default().push(User {
                run: name.clone(),
                seed,
                dataset: config
                    .phases
                    .first()
                    .map_or_else(String::new, |phase| phase.dataset.clone()),
            });
        }
    }
    users
}

/// All runs, and those of the points of sweeps; none where the folder cannot be read.
fn runs(results: &Results) -> Vec<(String, RunDir)> {
    let mut all: Vec<(String, RunDir)> = results.run_dirs().unwrap_or_default();
    for sweep in results.sweeps().unwrap_or_default() {
        let points = sweep.spec().map(|spec| spec.points).unwrap_or_default();
        let begun = points.iter().filter_map(|point| {
            let name = format!("{}/{}", sweep.name(), point.name);
            Some((name, sweep.run(&point.name)?))
        });
        all.extend(begun);
    }
    all
}

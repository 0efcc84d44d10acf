//! Arms that were added to a run: its configuration follows what the events tell.

use crate::experiment::{ArmSpec, RunConfig};

use super::{RunDir, RunError, RunLock, RunState};

/// How many arms, seeds apart, a run has by its events; `None` where none was added.
fn told(state: &RunState, config: &RunConfig) -> Option<usize> {
    let before = state.added.first()?.first / config.seeds.len().max(1);
    Some(before + state.added.len())
}

impl RunDir {
    /// Writes arms into the configuration that only the events tell of: their worker was killed in between.
    ///
    /// # Errors
    /// Where the configuration cannot be read or written. Events that cannot be read are another's business.
    pub fn complete_config(&self, _lock: &RunLock) -> Result<(), RunError> {
        let Ok(state) = self.brief_state(true) else {
            return Ok(());
        };
        let mut config = self.read_config()?;
        let have = config.arms.len();
        let Some(missing) = told(&state, &config).and_then(|told| told.checked_sub(have)) else {
            return Ok(());
        };
        let missing = missing.min(state.added.len());
        if missing == 0 {
            return Ok(());
        }
        for added in &state.added[state.added.len() - missing..] {
            let spec = serde_json::from_value::<ArmSpec>(added.spec.clone());
            config.arms.push(spec.map_err(|error| RunError::Malformed {
                path: self.events_path(),
                problem: format!(
                    "the arm that was added by request {}: {error}",
                    added.request
                ),
            })?);
        }
        self.write_config(&config)
    }

    /// Takes arms out of the configuration whose events were cut off as damaged; their names.
    pub(super) fn forget_added(&self, state: &RunState) -> Result<Vec<String>, RunError> {
        let Ok(mut config) = self.read_config() else {
            return Ok(Vec::new());
        };
        let seeds = config.seeds.len().max(1);
        let known = told(state, &config).unwrap_or(state.arms.len() / seeds);
        if state.arms.is_empty() || known >= config.arms.len() {
            return Ok(Vec::new());
        }
        let gone = config.arms.split_off(known);
        self.write_config(&config)?;
        Ok(gone.iter().map(ArmSpec::name).collect())
    }
}

//! The arms of a run, and what its events say of the run as a whole: how it begins and ends, whatever is trained.

use std::fmt::Display;

use forgetlab_study::experiment::{
    Arm, ArmInfo, Difference, RunConfig, arms_named, differences, expand, expand_added,
};
use forgetlab_study::printed::one_line;
use forgetlab_study::run::{
    ArmStatus, Ask, Event, Level, Opened, PhaseInfo, Request, Requests, RunDir, RunError, RunLock,
    RunState,
};
use serde_json::Value;

use super::error::TrainError;
use super::journal::{Journal, Listener};
use super::options::Outcome;

/// The arms of a run and its events.
pub(super) struct Roll {
    /// The run's configuration, with the arms that were added.
    pub config: RunConfig,
    pub arms: Vec<Arm>,
    /// Place of each arm in the configuration.
    pub places: Vec<usize>,
    pub journal: Journal,
    dir: RunDir,
    requests: Requests,
    /// Whether it was told that requests cannot be read.
    complained: bool,
    /// Whether the run had been started before.
    resumed: bool,
}

/// Refuses a configuration that is not the one the run was started with; what decides no numbers may differ, and is
/// told in words. Gives the arms the names that the events have.
fn unchanged(
    state: &RunState,
    config: &RunConfig,
    arms: &mut [Arm],
) -> Result<Option<String>, TrainError> {
    let changes = match &state.config {
        Some(before) => differences(&as_today(before), &as_json(config)),
        None => Vec::new(),
    };
    let (refused, told): (Vec<_>, Vec<_>) =
        changes.iter().partition(|change| change.decides_numbers);
    let words = |changes: &[&Difference]| {
        let words = changes.iter().map(|change| {
            let value = |value: &str| {
                if value.is_empty() {
                    "not set".into()
                } else {
                    value.to_owned()
                }
            };
            format!(
                "{} was {}, is {}",
                change.key,
                value(&change.first),
                value(&change.second)
            )
        });
        words.collect::<Vec<_>>().join("; ")
    };
    if !refused.is_empty() {
        return Err(TrainError::Changed {
            what: words(&refused),
        });
    }
    let same = |arm: &Arm, before: &ArmInfo| {
        let now = &arm.info;
        (&now.strategy, &now.objective, now.coeff, now.lr, now.seed)
            == (
                &before.strategy,
                &before.objective,
                before.coeff,
                before.lr,
                before.seed,
            )
    };
    let before = || state.arms.iter().map(|arm| &arm.info);
    if arms.len() != state.arms.len()
        || !arms.iter().zip(before()).all(|(arm, info)| same(arm, info))
    {
        return Err(TrainError::Changed {
            what: "its arms".into(),
        });
    }
    for (arm, before) in arms.iter_mut().zip(before()) {
        arm.info.clone_from(before);
    }
    if phases(config) != state.phases {
        return Err(TrainError::Changed {
            what: "its phases".into(),
        });
    }
    let told = (!told.is_empty()).then(|| format!("changed since the start: {}", words(&told)));
    Ok(told)
}

/// The configuration as the events have it.
fn as_json(config: &RunConfig) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

/// A configuration of the events as this version writes it: what an older one did not write has its default.
fn as_today(config: &Value) -> Value {
    let read: Result<RunConfig, _> = serde_json::from_value(config.clone());
    read.map_or_else(|_| config.clone(), |config| as_json(&config))
}

fn phases(config: &RunConfig) -> Vec<PhaseInfo> {
    let phases = config.phases.iter().zip(config.all_steps());
    let phases = phases.map(|(phase, steps)| PhaseInfo {
        dataset: phase.dataset.clone(),
        steps,
    });
    phases.collect()
}

impl Roll {
    /// Opens the events of a run; refuses a configuration that is not the one it was started with. What is worth a
    /// warning is added to `warnings`.
    pub(super) fn open(
        (dir, lock): (&RunDir, &RunLock),
        config: &RunConfig,
        listener: Listener,
        warnings: &mut Vec<String>,
    ) -> Result<Self, TrainError> {
        dir.remove_leftovers(lock);
        let Opened { writer, state, .. } = dir.writer(lock)?;
        let arms = expand_added(config, state.added.len());
        let (places, mut arms): (Vec<usize>, Vec<Arm>) = arms.into_iter().unzip();
        let resumed = !state.arms.is_empty();
        if resumed {
            warnings.extend(unchanged(&state, config, &mut arms)?);
        }
        Ok(Self {
            config: config.clone(),
            arms,
            places,
            journal: Journal::new(dir.path(), writer, state, listener),
            dir: dir.clone(),
            requests: dir.requests(),
            complained: false,
            resumed,
        })
    }

    /// Tells what the run is, and who works on it.
    pub(super) fn announce(&self, device: String, warnings: Vec<String>) -> Result<(), RunError> {
        let (config, journal) = (&self.config, &self.journal);
        if !self.resumed {
            journal.emit(Event::RunStarted {
                experiment: config.experiment.clone(),
                preset: config.preset.clone(),
                arms: self.arms.iter().map(|arm| arm.info.clone()).collect(),
                phases: phases(config),
                config: Some(as_json(config)),
            })?;
        }
        journal.emit(Event::WorkerStarted {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            device,
            resumed: self.resumed,
        })?;
        for warning in warnings {
            journal.log(Level::Warn, None, warning)?;
        }
        Ok(())
    }

    /// Tells that the run is stopped, to be gone on with.
    pub(super) fn interrupted(&self, reason: Option<String>) -> Result<Outcome, TrainError> {
        let reason = reason.unwrap_or_else(|| "asked to stop".into());
        let journal = &self.journal;
        journal.emit(Event::Interrupted {
            reason: reason.clone(),
        })?;
        journal.close()?;
        Ok(Outcome::Interrupted(reason))
    }

    /// Tells that all arms are over.
    pub(super) fn finished(&self) -> Result<Outcome, TrainError> {
        let journal = &self.journal;
        journal.emit(Event::RunFinished {})?;
        journal.close()?;
        let failed = journal.state(|state| {
            let mut arms = state.arms.iter().map(|arm| &arm.status);
            arms.by_ref()
                .filter(|status| **status != ArmStatus::Finished)
                .count()
        });
        Ok(Outcome::Finished { failed })
    }

    /// Arms that each of the names to skip stands for.
    pub(super) fn named(&self, names: &[String]) -> Result<Vec<usize>, TrainError> {
        let infos: Vec<&ArmInfo> = self.arms.iter().map(|arm| &arm.info).collect();
        let mut all = Vec::new();
        for name in names {
            let named = arms_named(&infos, name, self.config.replay.coeff);
            if named.is_empty() {
                let arms: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
                return Err(TrainError::NoSuchArm {
                    name: name.clone(),
                    arms: arms.join(", "),
                });
            }
            all.extend(named);
        }
        Ok(all)
    }

    /// Leaves out arms that are not over yet.
    pub(super) fn skip(&self, arms: &[usize]) -> Result<(), TrainError> {
        for &arm in arms {
            if !self.is_over(arm) {
                let journal = &self.journal;
                let step = journal.state(|s| s.arms[arm].step);
                let reason = "left out with --skip-arm".into();
                journal.emit(Event::ArmSkipped { arm, step, reason })?;
            }
        }
        Ok(())
    }

    /// Whether an arm finished, failed or was skipped.
    pub(super) fn is_over(&self, arm: usize) -> bool {
        self.journal.state(|state| state.arms[arm].status.is_over())
    }

    /// Ends an arm before its time; the others go on.
    pub(super) fn fail(&self, arm: usize, step: u64, error: &dyn Display) -> Result<(), RunError> {
        self.journal.emit(Event::ArmFailed {
            arm,
            step,
            reason: error.to_string(),
        })
    }
    /// Requests that wait. Those that were answered before are removed.
    pub(super) fn requests(&mut self) -> Result<Vec<Request>, RunError> {
        let pending = match self.requests.pending() {
            Ok(pending) => pending,
            Err(_) if self.complained => return Ok(Vec::new()),
            Err(error) => {
                self.complained = true;
                let message = format!("requests to this run are not heard: {error}");
                self.journal.log(Level::Warn, None, message)?;
                return Ok(Vec::new());
            }
        };
        let (answered, open): (Vec<Request>, _) = pending.into_iter().partition(|request| {
            let is_answered = |state: &RunState| state.answer(&request.id).is_some();
            self.journal.state(is_answered)
        });
        for request in answered {
            // One that stays is not heard again.
            let _ = self.requests.remove(&request.id);
        }
        Ok(open)
    }

    /// Tells what became of a request.
    pub(super) fn answer(
        &self,
        request: &Request,
        refused: Option<String>,
    ) -> Result<(), RunError> {
        let id = &request.id;
        // Others who watch see who did what.
        if let (Ok(ask), Some(by)) = (&request.ask, &request.by) {
            let what = match (ask, refused.is_some()) {
                (Ask::AddArm(spec), false) => format!("added {}", spec.name()),
                (Ask::AddArm(spec), true) => format!("did not add {}", spec.name()),
                (Ask::StopArm(slug), false) => format!("stopped {slug}"),
                (Ask::StopArm(slug), true) => format!("did not stop {slug}"),
            };
            let message = format!("{what}, as {by} asked");
            self.journal.log(Level::Info, None, message)?;
        }
        let event = Event::RequestAnswered {
            request: id.clone(),
            refused,
        };
        self.journal.emit(event)?;
        self.journal.sync()?;
        let _ = self.requests.remove(id);
        Ok(())
    }

    /// Whether the arm that a request asks for was added before its worker was killed.
    pub(super) fn has_added(&self, id: &str) -> bool {
        let is_there = |state: &RunState| state.added.iter().any(|added| added.request == id);
        self.journal.state(is_there)
    }

    /// The arm that is to be stopped on request: `Ok(None)` where it is stopped already, an error in words where it
    /// cannot be.
    pub(super) fn to_stop(&self, slug: &str) -> Result<Option<usize>, String> {
        let Some(arm) = self.arms.iter().position(|arm| arm.info.slug == slug) else {
            return Err(format!("the run has no arm `{}`", one_line(slug)));
        };
        self.journal.state(|state| match &state.arms[arm].status {
            ArmStatus::Skipped(_) => Ok(None),
            status if status.is_over() => Err(format!("arm {slug} is over: {}", status.word())),
            _ => Ok(Some(arm)),
        })
    }

    /// Ends an arm on request, at the step where it stands.
    pub(super) fn stopped(&self, arm: usize) -> Result<(), RunError> {
        let step = self.journal.state(|state| state.arms[arm].step);
        let reason = "stopped on request".into();
        self.journal.emit(Event::ArmSkipped { arm, step, reason })
    }

    /// Adds the last arm of a configuration to the run, with every seed: to its events, its arms, and `config.toml`.
    /// Their indices.
    pub(super) fn add(&mut self, id: &str, config: RunConfig) -> Result<Vec<usize>, RunError> {
        let first = self.arms.len();
        let all = config.arms.len();
        let own = expand(&config).into_iter().skip(all - 1).step_by(all);
        let own: Vec<Arm> = own.collect();
        let spec = config.arms.last().map(serde_json::to_value);
        self.journal.emit(Event::ArmAdded {
            request: id.to_owned(),
            spec: spec.and_then(Result::ok).unwrap_or_default(),
            arms: own.iter().map(|arm| arm.info.clone()).collect(),
        })?;
        // The events first: a worker that finds an arm there that the file lacks writes it.
        self.journal.sync()?;
        self.dir.write_config(&config)?;
        self.places.extend(own.iter().map(|_| all - 1));
        self.arms.extend(own);
        self.config = config;
        Ok((first..self.arms.len()).collect())
    }
}

#[cfg(test)]
mod tests {
    use forgetlab_study::experiment::{GENERATION_BYTES, Overrides, resolve};
    use forgetlab_study::run::ArmState;

    use super::*;

    /// Else who resumes a run of an older version would be told of a change that nobody made.
    #[test]
    fn what_an_older_version_did_not_write_was_as_it_is_by_default() {
        let config = resolve("toy-continual", &Overrides::default()).unwrap();
        let mut before = as_json(&config);
        let training = before["training"].as_object_mut().unwrap();
        training.remove("generation_bytes").unwrap();
        let arms = expand(&config).into_iter();
        let state = RunState {
            config: Some(before),
            arms: arms.map(|arm| ArmState::new(arm.info)).collect(),
            phases: phases(&config),
            ..RunState::default()
        };
        let told = |config: &RunConfig| unchanged(&state, config, &mut expand(config)).unwrap();
        assert_eq!(told(&config), None);
        let mut other = config.clone();
        other.training.generation_bytes = 1;
        let words = format!(
            "changed since the start: training.generation_bytes was {GENERATION_BYTES}, is 1"
        );
        assert_eq!(told(&other), Some(words));
    }
}

//! The arms of a run, and what its events say of the run as a whole: how it begins and ends, whatever is trained.

use std::fmt::Display;

use forgetlab_study::experiment::{
    Arm, ArmInfo, ArmSpec, Difference, RunConfig, differences, expand,
};
use forgetlab_study::run::{
    ArmStatus, Event, Level, Opened, PhaseInfo, RunDir, RunError, RunLock, RunState,
};
use serde_json::Value;

use super::error::TrainError;
use super::journal::{Journal, Listener};
use super::options::Outcome;

/// The arms of a run and its events.
pub(super) struct Roll<'a> {
    pub config: &'a RunConfig,
    pub arms: Vec<Arm>,
    pub journal: Journal,
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
        Some(before) => differences(before, &as_json(config)),
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

fn phases(config: &RunConfig) -> Vec<PhaseInfo> {
    let phases = config.phases.iter().zip(config.all_steps());
    let phases = phases.map(|(phase, steps)| PhaseInfo {
        dataset: phase.dataset.clone(),
        steps,
    });
    phases.collect()
}

impl<'a> Roll<'a> {
    /// Opens the events of a run; refuses a configuration that is not the one it was started with. What is worth a
    /// warning is added to `warnings`.
    pub(super) fn open(
        (dir, lock): (&RunDir, &RunLock),
        config: &'a RunConfig,
        listener: Listener,
        warnings: &mut Vec<String>,
    ) -> Result<Self, TrainError> {
        let mut arms = expand(config);
        dir.remove_leftovers(lock);
        let Opened { writer, state, .. } = dir.writer(lock)?;
        let resumed = !state.arms.is_empty();
        if resumed {
            warnings.extend(unchanged(&state, config, &mut arms)?);
        }
        Ok(Self {
            config,
            arms,
            journal: Journal::new(dir.path(), writer, state, listener),
            resumed,
        })
    }

    /// Tells what the run is, and who works on it.
    pub(super) fn announce(&self, device: String, warnings: Vec<String>) -> Result<(), RunError> {
        let (config, journal) = (self.config, &self.journal);
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
        let mut all = Vec::new();
        for name in names {
            let spelt = ArmSpec::parse(name, self.config.replay.coeff);
            let spelt = spelt.map_or_else(|_| name.clone(), |spec| spec.name());
            let is_named = |arm: &Arm| {
                let ArmInfo {
                    name: own,
                    slug,
                    seed,
                    ..
                } = &arm.info;
                own == name || slug == name || *own == spelt || format!("#{seed} {own}") == *name
            };
            let mut named: Vec<usize> = (0..self.arms.len())
                .filter(|&arm| is_named(&self.arms[arm]))
                .collect();
            if named.is_empty() {
                named = self.named_without_settings(&spelt);
            }
            let before = all.len();
            all.extend(named);
            if all.len() == before {
                let arms: Vec<&str> = self.arms.iter().map(|a| a.info.name.as_str()).collect();
                return Err(TrainError::NoSuchArm {
                    name: name.clone(),
                    arms: arms.join(", "),
                });
            }
        }
        Ok(all)
    }

    /// The arm, with every seed, whose name goes on with settings after this; none where several do.
    fn named_without_settings(&self, head: &str) -> Vec<usize> {
        let name = |arm: usize| self.arms[arm].info.name.as_str();
        let rest = |arm: usize| name(arm).strip_prefix(head).unwrap_or_default();
        let all: Vec<usize> = (0..self.arms.len())
            .filter(|&arm| rest(arm).starts_with('+'))
            .collect();
        match all.iter().all(|&arm| name(arm) == name(all[0])) {
            true => all,
            false => Vec::new(),
        }
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
}

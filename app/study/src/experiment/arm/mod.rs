//! Arms: their grammar, their names, and the expansion of a configuration into them.

mod grammar;
mod named;
mod settings;

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ArmSpec, Objective, RunConfig, SpecError};

pub(super) use grammar::{insert, parse_value};
pub use grammar::{shortest, split_outside_quotes};
pub use named::arms_named;
pub use settings::{PHASE_SETTINGS, PhaseSetting};

/// Identity of an arm in events and CSVs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmInfo {
    /// As written on the command line: `STRATEGY[:OBJECTIVE[:COEFF]][+KEY=VALUE]…`. Unique but for the seed.
    pub name: String,
    /// Name for files and folders, unique within the run.
    pub slug: String,
    /// Name of the strategy plugin.
    pub strategy: String,
    /// Objective; empty for plain finetuning.
    pub objective: String,
    /// Coefficient; `None` for plain finetuning.
    pub coeff: Option<f64>,
    /// Peak learning rate of the phases after the first.
    pub lr: f64,
    /// Seed.
    pub seed: u64,
    /// Steps of each phase, where they are not the run's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<u64>,
}

/// One training run under comparison: an arm's specification with one seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// Identity in events and CSVs.
    pub info: ArmInfo,
    /// Strategy, objective, coefficient, and settings of its own.
    pub spec: ArmSpec,
    /// The run's configuration with the arm's own settings, which hold in the phases after the first.
    pub config: RunConfig,
}

impl Objective {
    /// Every objective.
    pub const ALL: [Self; 4] = [Self::Kl, Self::Ntp, Self::Replace, Self::KlNew];

    /// Name on the command line and in the CSVs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kl => "kl",
            Self::Ntp => "ntp",
            Self::KlNew => "kl-new",
            Self::Replace => "replace",
        }
    }

    /// Whether it uses replayed tokens.
    pub fn needs_replay(self) -> bool {
        self != Self::KlNew
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Objective {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        Self::ALL
            .into_iter()
            .find(|o| o.name() == text)
            .ok_or_else(|| SpecError::unknown("objective", text, Self::ALL.map(Self::name)))
    }
}

impl ArmSpec {
    /// Plain finetuning, without a strategy that replays.
    pub fn plain() -> Self {
        Self {
            strategy: "none".to_owned(),
            objective: None,
            coeff: None,
            phases: toml::Table::new(),
            settings: toml::Table::new(),
            defaults: toml::Table::new(),
            bare: Vec::new(),
        }
    }

    /// The settings its strategy is given: its own, and the defaults of the others.
    pub fn strategy_settings(&self) -> toml::Table {
        let mut settings = self.defaults.clone();
        settings.extend(self.settings.clone());
        settings
    }

    /// Whether its objective has a replay batch of its own.
    fn has_replay_batch(&self) -> bool {
        matches!(self.objective, Some(Objective::Kl | Objective::Ntp))
    }

    /// Checks strategy, objective and coefficient, alone and together.
    pub(super) fn check(&self) -> Result<(), String> {
        let none = self.strategy == "none";
        match (self.objective, self.coeff) {
            (None, _) if !none => Err(format!("needs an objective, e.g. {}:kl", self.strategy)),
            (None, Some(_)) => Err("a coefficient needs an objective, e.g. none:kl-new:1".into()),
            (_, _) if self.phases.contains_key("replay.batch_size") && !self.has_replay_batch() => {
                Err(match self.objective {
                    Some(Objective::Replace) => {
                        "replace takes a share of the new batch: there is no replay \
                                                 batch whose rows `replay_batch` could set"
                            .into()
                    }
                    _ => "replays nothing: there is no batch whose rows `replay_batch` could set"
                        .into(),
                })
            }
            (None, None) => Ok(()),
            (Some(objective), _) if none && objective.needs_replay() => Err(format!(
                "`none` replays nothing, and {objective} needs replay: write `none`, \
                 `none:kl-new` or another strategy"
            )),
            (Some(Objective::KlNew), _) if !none => Err(format!(
                "kl-new is a penalty on the new batch and replays nothing: write `none:kl-new` or \
                 `{}:kl`",
                self.strategy
            )),
            (Some(objective), None) => Err(format!("{objective} needs a coefficient")),
            (Some(_), Some(coeff)) if !coeff.is_finite() || coeff < 0.0 => Err(format!(
                "coefficient {coeff} must be a finite number, 0 or more"
            )),
            (Some(Objective::Replace), Some(coeff)) if coeff > 1.0 => Err(format!(
                "replace takes a share of the rows, 0 to 1, not {coeff}, e.g. {}:replace:0.1",
                self.strategy
            )),
            (Some(_), Some(_)) => Ok(()),
        }
    }
}

/// Every arm of a checked configuration, seed by seed.
pub fn expand(config: &RunConfig) -> Vec<Arm> {
    let mut slugs = HashSet::new();
    let mut arms = Vec::new();
    for &seed in &config.seeds {
        for spec in &config.arms {
            let own = config.of_arm(spec).unwrap_or_else(|_| config.clone());
            let objective = spec.objective.map_or("", Objective::name);
            let own_steps = Some(own.all_steps()).filter(|own| *own != config.all_steps());
            arms.push(Arm {
                info: ArmInfo {
                    name: spec.name(),
                    slug: slug(&spec.name(), seed, &mut slugs),
                    strategy: spec.strategy.clone(),
                    objective: objective.to_owned(),
                    coeff: spec.coeff,
                    lr: own
                        .in_phase(1.min(own.phases.len().saturating_sub(1)))
                        .optimizer
                        .lr,
                    seed,
                    steps: own_steps.unwrap_or_default(),
                },
                spec: spec.clone(),
                config: own,
            });
        }
    }
    arms
}

/// The arms in the order of a run to which the last `added` arms of the configuration came one by one: those it began
/// with seed by seed, then each of the others with all its seeds; with the place of each in the configuration.
pub fn expand_added(config: &RunConfig, added: usize) -> Vec<(usize, Arm)> {
    let all = config.arms.len();
    let began = all.saturating_sub(added);
    let arms = expand(config).into_iter().enumerate();
    let mut arms: Vec<(usize, Arm)> = arms.map(|(at, arm)| (at % all, arm)).collect();
    arms.sort_by_key(|(place, _)| (place + 1).saturating_sub(began));
    arms
}

/// A unique file name for an arm: its name, and a hash where a file cannot bear that name.
fn slug(name: &str, seed: u64, taken: &mut HashSet<String>) -> String {
    const LONGEST: usize = 80;
    let plain = format!("{}-seed{seed}", name.replace(':', "-"));
    let safe = |c: char| match c.is_ascii_alphanumeric() || "-_.+=".contains(c) {
        true => c,
        false => '_',
    };
    let mut safe: String = plain.chars().map(safe).take(LONGEST).collect();
    if safe.starts_with('.') {
        safe.insert(0, '_');
    }
    let mut slug = safe.clone();
    let mut salt = 0_u32;
    // Also without regard to case: some file systems have none.
    while (safe != plain && slug == safe) || !taken.insert(slug.to_lowercase()) {
        let hash = blake3::hash(format!("{name}{salt}").as_bytes()).to_hex();
        slug = format!("{safe}-{}", &hash[..6]);
        salt += 1;
    }
    slug
}

#[cfg(test)]
mod tests;

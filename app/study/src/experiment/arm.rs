//! Arms: their grammar, their names, and the expansion of a configuration into them.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ArmSpec, Objective, OptimizerSpec, RunConfig, SpecError};

/// Identity of an arm in events and CSVs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmInfo {
    /// As written on the command line: `STRATEGY[:OBJECTIVE[:COEFF]]`.
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
}

/// One training run under comparison: an arm's specification with one seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// Identity in events and CSVs.
    pub info: ArmInfo,
    /// Strategy, settings, objective, coefficient and learning rate.
    pub spec: ArmSpec,
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
    /// Parses `STRATEGY[:OBJECTIVE[:COEFF]]`. The objective defaults to `kl` (to none for the strategy
    /// `none`), the coefficient to `default_coeff`; the share of `replace` must be given.
    pub fn parse(text: &str, default_coeff: f64) -> Result<Self, SpecError> {
        let bad = |problem: String| SpecError::Arm {
            arm: text.to_owned(),
            problem,
        };
        let mut parts = text.trim().split(':');
        let strategy = parts.next().unwrap_or_default();
        if strategy.is_empty() || strategy.contains(char::is_whitespace) {
            return Err(bad(
                "write STRATEGY[:OBJECTIVE[:COEFF]], e.g. self-generated:kl:10".into(),
            ));
        }
        let objective = match parts.next() {
            Some(name) => Some(
                name.parse::<Objective>()
                    .map_err(|error| bad(error.to_string()))?,
            ),
            None if strategy == "none" => None,
            None => Some(Objective::Kl),
        };
        let given_coeff = match parts.next() {
            Some(number) => Some(number.parse::<f64>().map_err(|_| {
                bad(format!(
                    "coefficient `{number}` is not a number, e.g. {strategy}:kl:10"
                ))
            })?),
            None => None,
        };
        if let Some(rest) = parts.next() {
            return Err(bad(format!(
                "`{rest}` is one part too many: write STRATEGY[:OBJECTIVE[:COEFF]]"
            )));
        }
        let coeff = match objective {
            None => None,
            Some(Objective::Replace) if given_coeff.is_none() => {
                return Err(bad(format!(
                    "replace needs the share of rows to replace, 0 to 1, e.g. {strategy}:replace:0.1"
                )));
            }
            Some(_) => Some(given_coeff.unwrap_or(default_coeff)),
        };
        let spec = Self {
            strategy: strategy.to_owned(),
            objective,
            coeff,
            lr: None,
            settings: toml::Table::new(),
        };
        spec.check().map_err(bad)?;
        Ok(spec)
    }

    /// Plain finetuning, without a strategy that replays.
    pub fn plain() -> Self {
        Self {
            strategy: "none".to_owned(),
            objective: None,
            coeff: None,
            lr: None,
            settings: toml::Table::new(),
        }
    }

    /// Peak learning rate of the phases after the first.
    pub fn peak_lr(&self, optimizer: &OptimizerSpec) -> f64 {
        self.lr.unwrap_or(optimizer.lr)
    }

    /// `STRATEGY[:OBJECTIVE:COEFF]`.
    pub fn name(&self) -> String {
        match (self.objective, self.coeff) {
            (Some(objective), Some(coeff)) => format!("{}:{objective}:{coeff}", self.strategy),
            (Some(objective), None) => format!("{}:{objective}", self.strategy),
            (None, _) => self.strategy.clone(),
        }
    }

    /// Checks strategy, objective, coefficient and learning rate, alone and together.
    pub(super) fn check(&self) -> Result<(), String> {
        let none = self.strategy == "none";
        match (self.objective, self.coeff) {
            (None, _) if !none => Err(format!("needs an objective, e.g. {}:kl", self.strategy)),
            (None, Some(_)) => Err("a coefficient needs an objective, e.g. none:kl-new:1".into()),
            (None, None) => self.check_lr(),
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
            (Some(_), Some(_)) => self.check_lr(),
        }
    }

    fn check_lr(&self) -> Result<(), String> {
        match self.lr {
            Some(lr) if !lr.is_finite() || lr <= 0.0 => Err(format!(
                "learning rate {lr} must be a finite number above 0"
            )),
            _ => Ok(()),
        }
    }
}

/// Every arm of a configuration, seed by seed.
pub fn expand(config: &RunConfig) -> Vec<Arm> {
    let mut slugs = HashSet::new();
    let mut arms = Vec::new();
    for &seed in &config.seeds {
        for spec in &config.arms {
            arms.push(Arm {
                info: ArmInfo {
                    name: spec.name(),
                    slug: slug(spec, seed, &mut slugs),
                    strategy: spec.strategy.clone(),
                    objective: spec
                        .objective
                        .map_or_else(String::new, |o| o.name().to_owned()),
                    coeff: spec.coeff,
                    lr: spec.peak_lr(&config.optimizer),
                    seed,
                },
                spec: spec.clone(),
            });
        }
    }
    arms
}

/// A unique file name for the arm: a readable part, and a hash where that alone may be ambiguous.
fn slug(spec: &ArmSpec, seed: u64, taken: &mut HashSet<String>) -> String {
    const LONGEST: usize = 80;
    let plain = format!("{}-seed{seed}", spec.name());
    let safe: String = plain
        .replace(':', "-")
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(LONGEST)
        .collect();
    let safe = if safe.starts_with('.') {
        format!("_{safe}")
    } else {
        safe
    };
    let unambiguous =
        safe == plain.replace(':', "-") && spec.settings.is_empty() && spec.lr.is_none();
    let mut slug = safe.clone();
    let mut salt = 0_u32;
    // Also without regard to case: some file systems have none.
    while (!unambiguous && slug == safe) || !taken.insert(slug.to_lowercase()) {
        let hash = blake3::hash(format!("{spec:?}{salt}").as_bytes()).to_hex();
        slug = format!("{safe}-{}", &hash[..6]);
        salt += 1;
    }
    slug
}

#[cfg(test)]
mod tests {
    use super::super::{Overrides, resolve};
    use super::*;

    /// An arm that means something else than was typed would be a wrong result.
    #[test]
    fn arms_are_read_as_written() {
        let parse = |text| ArmSpec::parse(text, 10.0).map(|a| (a.objective, a.coeff));
        assert_eq!(parse("none").unwrap(), (None, None));
        assert_eq!(
            parse("true-data").unwrap(),
            (Some(Objective::Kl), Some(10.0))
        );
        assert_eq!(
            parse("mine:ntp").unwrap(),
            (Some(Objective::Ntp), Some(10.0))
        );
        assert_eq!(
            parse("none:kl-new:1").unwrap(),
            (Some(Objective::KlNew), Some(1.0))
        );
        assert_eq!(
            parse("a:replace:0.25").unwrap(),
            (Some(Objective::Replace), Some(0.25))
        );
        assert_eq!(ArmSpec::parse("a:kl:0.1", 10.0).unwrap().name(), "a:kl:0.1");
        assert_eq!(ArmSpec::parse("a", 10.0).unwrap().name(), "a:kl:10");
    }

    /// Each senseless arm gets one clear message.
    #[test]
    fn senseless_arms_say_what_to_write() {
        for (arm, expected) in [
            ("", "STRATEGY[:OBJECTIVE[:COEFF]]"),
            (":kl", "STRATEGY[:OBJECTIVE[:COEFF]]"),
            ("a:kll", "did you mean `kl`"),
            ("a:kl:ten", "`ten` is not a number"),
            ("a:kl:nan", "finite"),
            ("a:kl:inf", "finite"),
            ("a:kl:-1", "0 or more"),
            ("a:kl:1:2", "one part too many"),
            ("a:replace", "needs the share"),
            ("a:replace:10", "0 to 1"),
            ("none:kl", "`none` replays nothing"),
            ("none:replace:0.5", "`none` replays nothing"),
            ("true-data:kl-new", "`none:kl-new`"),
        ] {
            let error = ArmSpec::parse(arm, 10.0).unwrap_err().to_string();
            assert!(error.contains(expected), "{arm}: {error}");
        }
    }

    /// Two arms in one folder would overwrite each other's checkpoints.
    #[test]
    fn slugs_are_unique_and_safe() {
        let mut config = resolve("toy-continual", &Overrides::default()).unwrap();
        config.seeds = vec![0, 1];
        config.arms = [
            "none",
            "a:kl:1",
            "a:kl:1",
            "A:kl:1",
            "a/../b:kl:1",
            "a_.._b:kl:1",
        ]
        .map(|arm| ArmSpec::parse(arm, 1.0).unwrap())
        .into();
        config.arms[2].lr = Some(1e-5);
        config
            .arms
            .push(ArmSpec::parse(&format!("{}:kl", "x".repeat(300)), 1.0).unwrap());
        let arms = expand(&config);
        assert_eq!(arms.len(), 14);
        let slugs: HashSet<_> = arms.iter().map(|a| a.info.slug.to_lowercase()).collect();
        assert_eq!(slugs.len(), 14, "{slugs:?}");
        assert!(
            slugs
                .iter()
                .all(|s| s.len() < 100 && !s.contains('/') && !s.starts_with('.'))
        );
        assert_eq!(arms[0].info.slug, "none-seed0");
        assert_eq!(arms[1].info.slug, "a-kl-1-seed0");
        assert_eq!(arms[2].info.lr, 1e-5);
        assert_eq!(arms[1].info.lr, config.optimizer.lr);
    }
}

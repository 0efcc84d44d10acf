//! Runs, sweeps and arms as a filter asks of them.

use std::borrow::Cow;

use crate::filter::{Config, Record};
use crate::run::Labels;

use super::digest::{ArmDigest, Digest};

/// A run, or a sweep of several: of what is an arm's (verdict, figures), it has that of every arm.
#[derive(Clone, Copy, Debug)]
pub struct RunRecord<'a> {
    /// Name of its folder.
    pub name: &'a str,
    /// Experiment.
    pub experiment: &'a str,
    /// Preset.
    pub preset: &'a str,
    /// Status in one word.
    pub status: &'a str,
    /// Share of its steps that is done, 0 to 1.
    pub done: f64,
    /// What somebody wrote to it.
    pub labels: &'a Labels,
    /// Of each of its runs, as far as they have begun.
    pub digests: &'a [Digest],
    /// The configuration of each of its runs.
    pub configs: &'a [toml::Table],
}

/// An arm of a run. Bare words are looked for in its name alone.
#[derive(Clone, Copy, Debug)]
pub struct ArmRecord<'a> {
    /// Its run.
    pub run: RunRecord<'a>,
    /// The arm.
    pub arm: &'a ArmDigest,
}

impl RunRecord<'_> {
    fn arms(&self) -> impl Iterator<Item = &ArmDigest> {
        self.digests.iter().flat_map(|digest| &digest.arms)
    }

    /// Texts that are the run's, not an arm's.
    fn own_texts(&self, field: &str) -> Vec<Cow<'_, str>> {
        let labels = self.labels;
        let texts: Vec<&str> = match field {
            "name" => [self.name]
                .into_iter()
                .chain(labels.name.as_deref())
                .collect(),
            "tag" => labels.tags.iter().map(String::as_str).collect(),
            "note" => vec![&labels.note],
            "experiment" => vec![self.experiment],
            "preset" => vec![self.preset],
            "device" => {
                let configs = self.configs.iter();
                let asked = configs.filter_map(|config| config.get("device")?.as_str());
                let had = self.digests.iter().map(|digest| digest.device.as_str());
                asked.chain(had).collect()
            }
            _ => Vec::new(),
        };
        let texts = texts.into_iter().filter(|text| !text.is_empty());
        texts.map(Cow::from).collect()
    }
}

impl Record for RunRecord<'_> {
    fn words(&self) -> Vec<Cow<'_, str>> {
        let labels = self.labels.name.as_deref();
        let own = [self.name, self.experiment, self.preset]
            .into_iter()
            .chain(labels);
        let arms = self.arms().map(|arm| arm.name.as_str());
        let tags = self.labels.tags.iter().map(|tag| format!("#{tag}").into());
        own.chain(arms).map(Cow::from).chain(tags).collect()
    }

    fn texts(&self, field: &str) -> Vec<Cow<'_, str>> {
        match field {
            "status" => vec![self.status.into()],
            "arm" | "strategy" | "verdict" => {
                self.arms().flat_map(|arm| texts_of(arm, field)).collect()
            }
            _ => self.own_texts(field),
        }
    }

    fn numbers(&self, field: &str) -> Vec<f64> {
        match field {
            "done" => vec![self.done],
            "arms" => self
                .digests
                .iter()
                .map(|digest| digest.arms.len() as f64)
                .collect(),
            _ => self.arms().flat_map(|arm| numbers_of(arm, field)).collect(),
        }
    }

    fn configs(&self) -> Vec<Config<'_>> {
        self.configs.iter().map(Config::Toml).collect()
    }
}

impl Record for ArmRecord<'_> {
    fn words(&self) -> Vec<Cow<'_, str>> {
        vec![self.arm.name.as_str().into()]
    }

    fn texts(&self, field: &str) -> Vec<Cow<'_, str>> {
        match field {
            "status" | "arm" | "strategy" | "verdict" => texts_of(self.arm, field),
            _ => self.run.own_texts(field),
        }
    }

    fn numbers(&self, field: &str) -> Vec<f64> {
        match field {
            "done" | "arms" => self.run.numbers(field),
            _ => numbers_of(self.arm, field),
        }
    }

    fn configs(&self) -> Vec<Config<'_>> {
        self.run.configs()
    }
}

fn texts_of<'a>(arm: &'a ArmDigest, field: &str) -> Vec<Cow<'a, str>> {
    match field {
        "arm" => vec![arm.name.as_str().into()],
        "strategy" => vec![arm.strategy.as_str().into()],
        "status" => arm.status.iter().map(|word| word.as_str().into()).collect(),
        // A verdict that is still to come is none.
        "verdict" => {
            let verdict = arm
                .verdict
                .as_deref()
                .filter(|word| *word != super::Verdict::TooEarly.word());
            verdict.map(Cow::from).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn numbers_of(arm: &ArmDigest, field: &str) -> Vec<f64> {
    let one = match field {
        "seed" => return arm.seeds.iter().map(|&seed| seed as f64).collect(),
        "forgot" => arm.forgot,
        "learned" => arm.learned,
        "worst" => arm.worst,
        "kept" => arm.kept,
        "kl_old" => arm.kl_old,
        "kl_new" => arm.kl_new,
        "tokens" => arm.tokens,
        "flops" => arm.flops,
        "seconds" => arm.seconds,
        "lr" => Some(arm.lr),
        "coeff" => arm.coeff,
        _ => None,
    };
    one.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{FIELDS, FieldKind, Filter};
    use crate::run::fixture;

    /// A field that a filter knows and no run has would find nothing, and nobody would know why.
    #[test]
    fn a_run_and_its_arms_answer_to_every_field() {
        let mut state = fixture::seeds(&[0.0, 0.1]);
        fixture::add_outcomes(&mut state);
        let digest = Digest::of(&state);
        let labels = Labels {
            name: Some("My run".into()),
            note: "of a Sunday".into(),
            tags: ["paper".into()].into(),
        };
        let configs = ["device = 'cpu'\n[optimizer]\nlr = 0.003".parse().unwrap()];
        let run = RunRecord {
            name: "20260101T-x",
            experiment: &digest.experiment,
            preset: &digest.preset,
            status: "finished",
            done: 1.0,
            labels: &labels,
            digests: std::slice::from_ref(&digest),
            configs: &configs,
        };
        for field in FIELDS {
            let has = match field.kind {
                FieldKind::Text => !run.texts(field.name).is_empty(),
                FieldKind::Figure => !run.numbers(field.name).is_empty(),
            };
            // The fixture has no drift on new data.
            assert!(has || field.name == "kl_new", "{}", field.name);
        }
        let passes = |text: &str| Filter::parse(text).unwrap().matches(&run);
        for text in [
            "my run",
            "name=\"my run\"",
            "note:sunday tag=paper",
            "forgot>90% verdict:forgets verdict:unclear",
            "bos-prompted coeff=10 arms=2 seed=1 done=1",
            "cfg.optimizer.lr=0.003 device:cpu",
        ] {
            assert!(passes(text), "{text}");
        }
        assert!(!passes("coeff=11") && !passes("seed=2") && !passes("arm=bos"));
        let kept: Vec<&str> = digest
            .arms
            .iter()
            .filter(|&arm| {
                Filter::parse("forgot<0.2 tag:paper status:fin lr=3e-3")
                    .unwrap()
                    .matches(&ArmRecord { run, arm })
            })
            .map(|arm| arm.name.as_str())
            .collect();
        assert_eq!(kept, ["bos-prompted:kl:10"]);
    }
}

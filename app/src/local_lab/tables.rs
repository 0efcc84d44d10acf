//! Tables of runs, as `compare` writes them, and the settings in which runs differ.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, bail};
use forgetlab_study::experiment::differences;
use forgetlab_study::report::{Format, Glyphs, settings_sheet};
use forgetlab_study::run::{RunDir, RunState, readable_utc, write_atomically};

use super::LocalLab;

impl LocalLab {
    /// The folder of a run, or of a sweep's point.
    pub(super) fn folder(&self, run: &str) -> anyhow::Result<String> {
        let dir = self.run_dir(run)?;
        let path = dir
            .path()
            .to_str()
            .context("the folder's name is not UTF-8")?;
        Ok(path.to_owned())
    }

    /// What `compare` writes of these runs.
    pub(super) fn compared(&self, runs: &[String], format: &str) -> anyhow::Result<String> {
        let folders: Vec<String> = runs
            .iter()
            .map(|run| self.folder(run))
            .collect::<Result<_, _>>()?;
        let mut arguments = vec!["compare"];
        arguments.extend(folders.iter().map(String::as_str));
        match format {
            "csv" => arguments.extend(["--csv", "-"]),
            "markdown" | "latex" => arguments.extend(["--format", format]),
            other => bail!("a table is written as markdown, latex or csv, not as {other}"),
        }
        self.call_self(&arguments)
    }

    /// Writes a table in such a format to the folder of the results.
    pub(super) fn write_a_table(&self, text: &str, format: &str) -> anyhow::Result<PathBuf> {
        let ending = match format {
            "markdown" => "md",
            "latex" => "tex",
            _ => "csv",
        };
        let root = self.results.runs();
        let folder = root.parent().unwrap_or(&root);
        let path = folder.join(format!("table-{}.{ending}", stamp()));
        write_atomically(&path, |out| out.write_all(text.as_bytes()))?;
        Ok(path)
    }

    /// The settings in which runs differ, as a text.
    pub(super) fn told_differences(&self, runs: &[String]) -> anyhow::Result<String> {
        let states: Vec<(&str, RunState)> = runs
            .iter()
            .map(|run| {
                let dir = self.run_dir(run)?;
                anyhow::Ok((run.as_str(), dir.brief_state(dir.is_live())?))
            })
            .collect::<Result<_, _>>()?;
        let states: Vec<(&str, &RunState)> =
            states.iter().map(|(name, state)| (*name, state)).collect();
        let sheet = settings_sheet(&states);
        let text = sheet.map(|sheet| sheet.write(Format::Text(Glyphs::Unicode)));
        let arms = arms_apart(&states);
        Ok(match (text, arms) {
            (Some(text), Some(arms)) => format!("{text}\n{arms}"),
            (Some(text), None) => text,
            (None, Some(arms)) => format!("They differ in their arms alone.\n\n{arms}"),
            (None, None) => "They differ in no setting that decides numbers.".to_owned(),
        })
    }

    /// The run of the same experiment before this one, and the settings that differ, as `key=value`.
    pub(super) fn differs(&self, name: &str, dir: &RunDir) -> Option<(String, Vec<String>)> {
        let (_, own) = self.known.get(name)?;
        let started = own.started?;
        let earlier = self.known.values().map(|(_, run)| run).filter(|run| {
            run.experiment == own.experiment && run.started.is_some_and(|other| other < started)
        });
        let before = earlier.max_by(|a, b| {
            a.started
                .unwrap_or(0.0)
                .total_cmp(&b.started.unwrap_or(0.0))
        })?;
        let config = |dir: &RunDir| serde_json::to_value(dir.read_config().ok()?).ok();
        let other = self.run_dir(&before.name).ok()?;
        let mut all = differences(&config(&other)?, &config(dir)?);
        let settings = all.len();
        all.retain(|d| !(d.key == "arms" || d.key.starts_with("arms.")));
        let arms = (all.len() < settings).then(|| "other arms".to_owned());
        let written = all.into_iter().map(|d| match d.second.as_str() {
            "" => format!("no {}", d.key),
            value => format!("{}={value}", d.key),
        });
        Some((before.name.clone(), written.chain(arms).collect()))
    }
}

/// The arms of each run that not all of them have, with their seeds.
fn arms_apart(runs: &[(&str, &RunState)]) -> Option<String> {
    let of = |run: &RunState| -> BTreeMap<String, BTreeSet<u64>> {
        let mut arms: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for arm in &run.arms {
            let seeds = arms.entry(arm.info.name.clone()).or_default();
            seeds.insert(arm.info.seed);
        }
        arms
    };
    let all: Vec<_> = runs.iter().map(|(name, run)| (*name, of(run))).collect();
    let shared = |name: &String, seeds: &BTreeSet<u64>| {
        all.iter().all(|(_, arms)| arms.get(name) == Some(seeds))
    };
    let mut lines = Vec::new();
    for (run, arms) in &all {
        for (name, seeds) in arms.iter().filter(|(name, seeds)| !shared(name, seeds)) {
            let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
            lines.push(format!("{run}  {name}  (seeds {})", seeds.join(", ")));
        }
    }
    let lines = lines.join("\n");
    (!lines.is_empty())
        .then(|| format!("Arms that not all of them have, with these seeds:\n{lines}\n"))
}

/// The time now, for the name of a file.
pub(super) fn stamp() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let digit = |c: char| if c.is_ascii_digit() { c } else { '-' };
    readable_utc(now).chars().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use forgetlab_study::experiment::ArmInfo;
    use forgetlab_study::run::ArmState;

    fn run(arms: &[(&str, u64)]) -> RunState {
        let arm = |&(name, seed): &(&str, u64)| {
            ArmState::new(ArmInfo {
                name: name.to_owned(),
                slug: name.to_owned(),
                strategy: name.to_owned(),
                objective: String::new(),
                coeff: None,
                lr: 1e-3,
                seed,
                steps: Vec::new(),
            })
        };
        RunState {
            arms: arms.iter().map(arm).collect(),
            ..RunState::default()
        }
    }

    /// Two runs that differ in their arms alone would be said not to differ.
    #[test]
    fn arms_that_one_run_alone_has_are_told() {
        let first = run(&[("none", 0), ("none", 1), ("true-data:kl:10", 0)]);
        let second = run(&[("none", 1), ("none", 0), ("true-data:kl:5", 0)]);
        let told = arms_apart(&[("a", &first), ("b", &second)]).unwrap();
        assert!(told.contains("\na  true-data:kl:10  (seeds 0)\nb  true-data:kl:5  (seeds 0)\n"));
        assert!(!told.contains("none"), "{told}");
        let fewer = run(&[("none", 0), ("true-data:kl:10", 0)]);
        let told = arms_apart(&[("a", &first), ("b", &fewer)]).unwrap();
        assert!(told.contains("a  none  (seeds 0, 1)\nb  none  (seeds 0)\n"));
        assert_eq!(arms_apart(&[("a", &first), ("b", &first)]), None);
    }
}

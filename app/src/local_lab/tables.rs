//! Tables of runs, as `compare` writes them, and the settings in which runs differ.

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

    /// Writes such a table to the folder of the results.
    pub(super) fn write_compared(&self, runs: &[String], format: &str) -> anyhow::Result<PathBuf> {
        let text = self.compared(runs, format)?;
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
        let same =
            "They differ in no setting that decides numbers, but for seeds and arms.".to_owned();
        Ok(text.unwrap_or(same))
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
        let all = differences(&config(&other)?, &config(dir)?);
        let written = all.into_iter().map(|d| match d.second.as_str() {
            "" => format!("no {}", d.key),
            value => format!("{}={value}", d.key),
        });
        Some((before.name.clone(), written.collect()))
    }
}

/// The time now, for the name of a file.
pub(super) fn stamp() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let digit = |c: char| if c.is_ascii_digit() { c } else { '-' };
    readable_utc(now).chars().map(digit).collect()
}

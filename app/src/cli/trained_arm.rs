//! What commands take as MODEL: a pretrained model, or an arm of a run (RUN/ARM).

use std::path::Path;

use anyhow::{Context, bail, ensure};
use forgetlab_engine::model::{Layout, Params};
use forgetlab_engine::pretrained::{self, DownloadProgress, Hub, Pretrained};
use forgetlab_study::experiment::{ModelSpec, RunConfig};
use forgetlab_study::run::{Checkpoint, Results, RunDir, RunError, shell_word};
use forgetlab_worker::train::read_student;

use super::warn;

/// A model that a command was given.
pub struct Model {
    /// The pretrained model; of an arm, the one that it began as.
    pub pretrained: Pretrained,
    /// The arm, where it is one.
    pub arm: Option<TrainedArm>,
}

impl Model {
    /// Opens what MODEL stands for.
    pub fn open(name: &str, progress: &dyn DownloadProgress) -> anyhow::Result<Self> {
        let hub = Hub::from_env();
        let Some(arm) = find(name)? else {
            let pretrained = pretrained::open(name, &hub, progress)?;
            tell(&pretrained.warnings);
            let arm = None;
            return Ok(Self { pretrained, arm });
        };
        let Some(began_as) = arm.began_as() else {
            bail!(
                "{name} is a model of one of the lab's small kinds, which have no tokenizer; only arms that \
                 began as a pretrained model can be taken here"
            );
        };
        let pretrained = pretrained::open(began_as, &hub, progress)
            .with_context(|| format!("cannot open the model that {name} began as"))?;
        tell(&pretrained.warnings);
        let arm = Some(arm);
        Ok(Self { pretrained, arm })
    }

    /// Opens what MODEL stands for, and fetches its weights, which alone tell whether its embeddings are tied.
    pub fn open_whole(name: &str, progress: &dyn DownloadProgress) -> anyhow::Result<Self> {
        let mut given = Self::open(name, progress)?;
        if given.arm.is_none() {
            let told = given.pretrained.warnings.len();
            given.pretrained.fetch(progress)?;
            tell(&given.pretrained.warnings[told..]);
        }
        Ok(given)
    }

    /// Its weights; of an arm, those at its last checkpoint.
    pub fn params(&self, progress: &dyn DownloadProgress) -> anyhow::Result<Params> {
        match &self.arm {
            Some(arm) => arm.student(&self.pretrained),
            None => Ok(self.pretrained.load(progress)?),
        }
    }
}

/// Says what is odd about a model.
fn tell(warnings: &[String]) {
    for warning in warnings {
        warn(format_args!("warning: {warning}"));
    }
}

/// An arm of a run on disk.
pub struct TrainedArm {
    /// Configuration of the run.
    config: RunConfig,
    dir: RunDir,
    slug: String,
}

/// The arm that RUN/ARM stands for, by its name or its slug; `None` where RUN is no run.
pub fn find(name: &str) -> anyhow::Result<Option<TrainedArm>> {
    find_in(&Results::from_env(), name.trim_end_matches('/'))
}

fn find_in(results: &Results, name: &str) -> anyhow::Result<Option<TrainedArm>> {
    let found = candidates(results, name)?;
    let mut missing = None;
    for (dir, arm) in &found {
        match arm_of(dir, arm) {
            Ok(arm) => return Ok(Some(arm)),
            Err(error) => missing = missing.or(Some(error)),
        }
    }
    match missing {
        // A model that somebody put into the folder of a run.
        Some(_) if Path::new(name).exists() => Ok(None),
        Some(error) => Err(error),
        None => Ok(None),
    }
}

/// Every way to read a text as RUN/ARM. What follows the run is the arm, whose name may hold slashes.
fn candidates<'a>(results: &Results, name: &'a str) -> anyhow::Result<Vec<(RunDir, &'a str)>> {
    let splits = || name.match_indices('/').map(|(at, _)| name.split_at(at));
    let exactly = |run: &str| {
        let path = Path::new(run);
        let named = (!run.contains('/')).then(|| results.runs().join(run));
        let named = named.and_then(|named| RunDir::open(&named).ok());
        named.or_else(|| RunDir::open(path).ok())
    };
    let found: Vec<(RunDir, &str)> = splits()
        .filter(|(run, _)| !run.is_empty())
        .filter_map(|(run, arm)| Some((exactly(run)?, &arm[1..])))
        .collect();
    if !found.is_empty() || Path::new(name).exists() {
        return Ok(found);
    }
    let Some((run, arm)) = name.split_once('/').filter(|(run, _)| !run.is_empty()) else {
        return Ok(found);
    };
    match results.find(run) {
        Ok(dir) => Ok(vec![(dir, arm)]),
        Err(RunError::Ambiguous { name, matches }) => {
            Err(RunError::Ambiguous { name, matches }.into())
        }
        // Then it is no run, but a folder or a hub id.
        Err(_) => Ok(found),
    }
}

/// An arm of a run by its name, its slug, or the path of its folder within the run.
fn arm_of(dir: &RunDir, arm: &str) -> anyhow::Result<TrainedArm> {
    let state = dir.load_state()?;
    let slug = arm.strip_prefix("arms/").unwrap_or(arm);
    let infos = state.arms.iter().map(|arm| &arm.info);
    let found: Vec<&str> = infos
        .filter(|info| info.slug == slug || info.name == arm)
        .map(|info| info.slug.as_str())
        .collect();
    match found[..] {
        [slug] => Ok(TrainedArm {
            config: dir.read_config()?,
            slug: slug.to_owned(),
            dir: dir.clone(),
        }),
        [] => {
            let all: Vec<&str> = state.arms.iter().map(|a| a.info.slug.as_str()).collect();
            let all = all.join(", ");
            bail!("{} has no arm `{arm}`; it has {all}", dir.name())
        }
        _ => bail!(
            "{} has several arms {}; name one of {}",
            dir.name(),
            shell_word(arm),
            found.join(", ")
        ),
    }
}

impl TrainedArm {
    /// Name of the pretrained model that it began as; `None` for a model of the lab's small kind.
    pub fn began_as(&self) -> Option<&str> {
        match &self.config.model {
            ModelSpec::Pretrained(model) => Some(&model.pretrained),
            ModelSpec::Mini(_) | ModelSpec::Bayesian(_) => None,
        }
    }

    /// What it is, in words.
    pub fn in_words(&self) -> anyhow::Result<String> {
        let step = self.checkpoint()?.info.step;
        let (slug, run) = (&self.slug, self.dir.name());
        Ok(format!("arm {slug} of {run} at step {step}"))
    }

    /// Its weights at its last checkpoint.
    pub fn student(&self, model: &Pretrained) -> anyhow::Result<Params> {
        let checkpoint = self.checkpoint()?;
        warn(format_args!(
            "{} at step {}",
            self.slug, checkpoint.info.step
        ));
        ensure!(
            !model.config.tied_embeddings || checkpoint.f32("student.embed_out").is_err(),
            "arm {} has an output embedding of its own, as the weights of {} have, which are not in the cache any \
             more; fetch them first: forgetlab sample {}",
            self.slug,
            model.name,
            shell_word(&model.name)
        );
        Ok(read_student(&Layout::new(model.config), &checkpoint)?)
    }

    fn checkpoint(&self) -> anyhow::Result<Checkpoint> {
        let latest = self.dir.checkpoints(&self.slug).latest_valid()?;
        for problem in latest.problems {
            warn(format_args!("warning: {problem}"));
        }
        let Some(checkpoint) = latest.checkpoint else {
            bail!(
                "arm {} of {} has no checkpoint: it was not trained yet, or its checkpoints were removed",
                self.slug,
                self.dir.name()
            );
        };
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forgetlab_study::experiment::{ArmInfo, Overrides, expand, resolve};
    use forgetlab_study::run::Event;

    /// Else an arm whose settings name a file or a text with a slash could not be sampled or exported.
    #[test]
    fn what_follows_the_run_is_the_arm_slashes_and_all() {
        let dir = tempfile::tempdir().unwrap();
        let results = Results::new(dir.path().join("results"));
        let config = resolve("toy-continual", &Overrides::default()).unwrap();
        let run = results.create("toy-continual").unwrap();
        run.write_config(&config).unwrap();
        let names = ["none", r#"bos-prompted:kl:10+prompt="a/b""#];
        let arms = expand(&config).into_iter().zip(names);
        let arms = arms.map(|(arm, name)| ArmInfo {
            name: name.into(),
            ..arm.info
        });
        let started = Event::RunStarted {
            experiment: config.experiment,
            preset: config.preset,
            arms: arms.collect(),
            phases: Vec::new(),
            config: None,
        };
        let lock = run.lock().unwrap();
        run.writer(&lock).unwrap().writer.append(started).unwrap();
        let slugs: Vec<String> = run
            .load_state()
            .unwrap()
            .arms
            .into_iter()
            .map(|a| a.info.slug)
            .collect();
        let find = |text: &str| find_in(&results, text).map(|arm| arm.map(|arm| arm.slug));
        let (name, path) = (run.name(), run.path().display().to_string());
        for run in [&name, &path, &name[..name.len() - 2].to_owned()] {
            for (arm, slug) in names.iter().zip(&slugs) {
                assert_eq!(find(&format!("{run}/{arm}")).unwrap().as_ref(), Some(slug));
                assert_eq!(find(&format!("{run}/{slug}")).unwrap().as_ref(), Some(slug));
                assert_eq!(
                    find(&format!("{run}/arms/{slug}")).unwrap().as_ref(),
                    Some(slug)
                );
            }
        }
        let error = find(&format!("{name}/other")).err().unwrap().to_string();
        assert!(error.contains("has no arm `other`; it has none"), "{error}");
        // A model, and one that was exported into the run's folder.
        assert_eq!(find("org/model").unwrap(), None);
        std::fs::create_dir(run.join("exported")).unwrap();
        assert_eq!(find(&format!("{path}/exported")).unwrap(), None);
    }
}

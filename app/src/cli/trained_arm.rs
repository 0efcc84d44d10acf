//! An arm of a run on disk, for commands that take RUN/ARM.

use anyhow::bail;
use forgetlab_engine::model::{Layout, Params};
use forgetlab_engine::pretrained::Pretrained;
use forgetlab_study::experiment::{ArmInfo, RunConfig};
use forgetlab_study::run::{Results, RunDir, RunError};
use forgetlab_worker::train::read_student;

/// An arm of a run on disk.
pub struct TrainedArm {
    /// Configuration of the run.
    pub config: RunConfig,
    dir: RunDir,
    slug: String,
}

/// The arm that RUN/ARM stands for, by its name or its slug; `None` where RUN is no run.
pub fn find(name: &str) -> anyhow::Result<Option<TrainedArm>> {
    let Some((run, arm)) = name.rsplit_once('/') else {
        return Ok(None);
    };
    let dir = match Results::from_env().find(run) {
        Ok(dir) => dir,
        // Then it is no run, but a folder or a hub id.
        Err(RunError::Ambiguous { name, matches }) => {
            return Err(RunError::Ambiguous { name, matches }.into());
        }
        Err(_) => return Ok(None),
    };
    let state = dir.load_state()?;
    let arms = || state.arms.iter().map(|arm| &arm.info);
    let found: Vec<_> = arms().filter(|a| a.slug == arm || a.name == arm).collect();
    let slugs = |infos: &[&ArmInfo]| -> String {
        let slugs: Vec<&str> = infos.iter().map(|info| info.slug.as_str()).collect();
        slugs.join(", ")
    };
    match found[..] {
        [info] => Ok(Some(TrainedArm {
            config: dir.read_config()?,
            slug: info.slug.clone(),
            dir,
        })),
        [] => {
            let all: Vec<_> = arms().collect();
            bail!("{} has no arm `{arm}`; it has {}", dir.name(), slugs(&all))
        }
        ref several => bail!(
            "{} has several arms `{arm}`; name one of {}",
            dir.name(),
            slugs(several)
        ),
    }
}

impl TrainedArm {
    /// Its weights at its last checkpoint.
    pub fn student(&self, model: &Pretrained) -> anyhow::Result<Params> {
        let latest = self.dir.checkpoints(&self.slug).latest_valid()?;
        for problem in latest.problems {
            eprintln!("warning: {problem}");
        }
        let Some(checkpoint) = latest.checkpoint else {
            bail!(
                "arm {} of {} has no checkpoint yet: it is still what it was",
                self.slug,
                self.dir.name()
            );
        };
        eprintln!("{} at step {}", self.slug, checkpoint.info.step);
        Ok(read_student(&Layout::new(model.config), &checkpoint)?)
    }
}

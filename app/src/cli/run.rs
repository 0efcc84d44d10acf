//! `forgetlab run`.

use std::path::PathBuf;

use forgetlab_study::experiment::{Overrides, resolve, split_outside_quotes};
use forgetlab_study::run::RunStatus;

use super::new_run::NewRun;
use super::resume;
use super::supervise::Parent;
use super::work::{self, Work};
use super::worker::WorkerArgs;

/// Arguments of `run`.
#[derive(clap::Args)]
pub struct Args {
    /// Experiment, or the path of an earlier run or its config.toml
    pub experiment: String,
    /// Preset to start from
    #[arg(long)]
    pub preset: Option<String>,
    /// Arms to compare, each `STRATEGY[:OBJECTIVE[:COEFF]][+KEY=VALUE]...`, e.g.
    /// self-generated:kl:10+lr=1e-3+buffer_batches=4
    #[arg(long, value_name = "ARM,...")]
    pub arms: Vec<String>,
    /// Change a setting, e.g. optimizer.lr=1e-3 or bos-prompted.prompt=text
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Seed; several train every arm once for each
    #[arg(long = "seed", value_name = "N")]
    pub seeds: Vec<u64>,
    /// cpu, cuda or cuda:N
    #[arg(long)]
    pub device: Option<String>,
    /// CPU threads of the engine
    #[arg(long)]
    pub threads: Option<usize>,
    /// Exactly this folder instead of one under results/runs
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How the run is worked on
    #[command(flatten)]
    pub worker: WorkerArgs,
}

impl Args {
    /// What the arguments change about the experiment.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            preset: self.preset.clone(),
            arms: self.arms.iter().flat_map(|list| arms(list)).collect(),
            set: self.set.clone(),
            seeds: self.seeds.clone(),
            device: self.device.clone(),
            threads: self.threads,
        }
    }
}

/// Splits a list of arms at its commas, those in quotes or brackets apart.
pub fn arms(list: &str) -> impl Iterator<Item = String> {
    let arms = split_outside_quotes(list, ',').into_iter();
    arms.map(|arm| arm.trim().to_owned())
        .collect::<Vec<_>>()
        .into_iter()
}

/// Splits `key=value`.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write KEY=VALUE, e.g. optimizer.lr=1e-3".to_owned()),
    }
}

/// Runs the experiment, in this process or in one that it leaves in the background.
pub fn work(args: &Args, parent: &Parent) -> anyhow::Result<u8> {
    let config = resolve(&args.experiment, &args.overrides())?;
    let prepared = work::prepare(config, &args.worker)?;
    let mut run = NewRun::create(&prepared.config, args.out.as_deref())?;
    let lock = run.lock.take();
    if lock.is_none() {
        match run.dir.status()? {
            RunStatus::Finished | RunStatus::Failed => return resume::already_over(&run.dir),
            // Says who has it.
            RunStatus::Live => drop(run.dir.lock()?),
            RunStatus::Interrupted | RunStatus::Crashed => {}
        }
    }
    let work = Work {
        dir: &run.dir,
        skip_arms: &[],
        args: &args.worker,
        parent,
    };
    work.start(lock, prepared).inspect_err(|_| run.undo())
}

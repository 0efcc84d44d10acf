//! `forgetlab run`.

use std::path::PathBuf;
use std::process::ExitCode;

use forgetlab_study::experiment::{Overrides, resolve};
use forgetlab_study::run::RunStatus;

use super::resume;
use super::worker::{self, WorkerArgs};

/// Arguments of `run`.
#[derive(clap::Args)]
pub struct Args {
    /// Experiment, or the path of an earlier run or its config.toml
    pub experiment: String,
    /// Preset to start from
    #[arg(long)]
    pub preset: Option<String>,
    /// Arms to compare, each `STRATEGY[:OBJECTIVE[:COEFF]]`
    #[arg(long, value_delimiter = ',', value_name = "ARM,...")]
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
            arms: self.arms.clone(),
            set: self.set.clone(),
            seeds: self.seeds.clone(),
            device: self.device.clone(),
            threads: self.threads,
        }
    }
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

/// Runs the experiment.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = resolve(&args.experiment, &args.overrides())?;
    let prepared = worker::prepare(config, &args.worker)?;
    let dir = worker::create(&prepared.config, args.out.as_deref())?;
    if dir.status()? == RunStatus::Live {
        // Says who has it.
        dir.lock()?;
    }
    if matches!(dir.status()?, RunStatus::Finished | RunStatus::Failed) {
        return resume::already_over(&dir);
    }
    worker::start(&dir, prepared, &args.worker)
}

//! `forgetlab run`.

use std::path::PathBuf;
use std::process::ExitCode;

use forgetlab_study::experiment::{self, AxisSpec, Overrides, resolve, split_outside_quotes};
use forgetlab_study::run::RunStatus;

use super::new_run::NewRun;
use super::resume;
use super::supervise::{self, Parent};
use super::work::{self, Work};
use super::worker::{WorkerArgs, workers};
use super::{Usage, predict, sweep};

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
    /// Make it a sweep with a run for each of these values of a setting (may be given again), e.g.
    /// model.d_model=32,64; of an axis that the preset has, take a part
    #[arg(long = "axis", value_name = "KEY=VALUE,...", value_parser = AxisSpec::parse)]
    pub axes: Vec<AxisSpec>,
    /// Points of a sweep worked on at a time [default: on the CPU one for each core, on a GPU one]
    #[arg(long, value_name = "N", value_parser = workers())]
    pub workers: Option<usize>,
    /// Tell what it would do, how long and in how much memory, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: as one JSON object a run
    #[arg(long, requires = "dry_run")]
    pub json: bool,
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
            axes: self.axes.clone(),
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

/// Runs the experiment in a process that this one waits for; a sweep in one for each point.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut overrides = args.overrides();
    let Some(mut points) = experiment::points(&args.experiment, &overrides)? else {
        if args.dry_run {
            let config = resolve(&args.experiment, &overrides)?;
            let only = sweep::only(config);
            let code = match args.json {
                true => predict::json(vec![only], &args.worker),
                false => predict::tables(only, &args.worker),
            };
            return code.map(ExitCode::from);
        }
        if args.workers.is_some() {
            return Err(Usage(format!(
                "--workers is for sweeps, and {} is one run; --axis makes it a sweep, e.g. --axis optimizer.lr=1e-3,1e-2",
                args.experiment
            ))
            .into());
        }
        return supervise::run(&args.worker);
    };
    let device = points.first().map_or("cpu", |point| &point.config.device);
    let workers = sweep::workers(args, device).clamp(1, points.len().max(1));
    if overrides.threads.is_none() && device == "cpu" {
        overrides.threads = Some(sweep::threads(workers));
        points = experiment::points(&args.experiment, &overrides)?.unwrap_or_default();
    }
    let code = match args.dry_run {
        true if args.json => predict::json(points, &args.worker),
        true => sweep::dry_run(points, args, workers),
        false => sweep::begin(points, args, workers),
    };
    code.map(ExitCode::from)
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

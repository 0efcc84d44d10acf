//! The beginning of a sweep: its points, each checked, in a new folder.

use std::io::Write;
use std::thread;

use anyhow::bail;
use forgetlab_engine::human_bytes;
use forgetlab_engine::memory::available_memory;
use forgetlab_study::experiment::{Point, RunConfig};
use forgetlab_study::printed::path_in_line;
use forgetlab_study::run::{Results, SweepDir};

use super::super::run::Args;
use super::super::worker::registry;
use super::super::{out, resume, unless_gone, warn, work};
use super::work::device_and_threads;
use super::{Work, gpus, start_detached};

/// Makes a sweep of the points, and works on it.
pub fn begin(points: Vec<Point>, args: &Args, workers: usize) -> anyhow::Result<u8> {
    let (points, most) = prepared(points, args)?;
    let device = points.first().map_or("cpu", |point| &point.config.device);
    let workers = match device {
        "cpu" => fitting(workers, most),
        gpu => gpus::fitting(workers, gpu),
    };
    let sweep = match &args.out {
        Some(path) if SweepDir::holds_sweep(path) => same(SweepDir::open(path)?, &points)?,
        Some(path) => SweepDir::create(path, &points)?,
        None => {
            let experiment = points.first().map_or("sweep", |p| &p.config.experiment);
            let folder = Results::from_env().create_folder(experiment)?;
            SweepDir::create(&folder, &points)?
        }
    };
    let told = writeln!(
        out::stdout(),
        "sweep of {} points, {workers} at a time: {}",
        points.len(),
        path_in_line(sweep.path())
    );
    unless_gone(told)?;
    let work = Work {
        sweep: &sweep,
        workers,
        retry: false,
        args: &args.worker,
    };
    match args.worker.in_background() {
        true => start_detached(&work),
        false => work.run(),
    }
}

/// Goes on with a sweep.
pub fn resume(sweep: &SweepDir, args: &resume::Args) -> anyhow::Result<u8> {
    let points = sweep.spec()?.points;
    let (device, threads) = device_and_threads(sweep, &points);
    let workers = match (args.workers, &*device) {
        (Some(workers), _) => workers,
        (None, "cpu") => cores() / threads.max(1),
        (None, _) => 1,
    };
    let work = Work {
        sweep,
        workers: gpus::fitting(workers.clamp(1, points.len().max(1)), &device),
        retry: args.retry,
        args: &args.worker,
    };
    match args.worker.in_background() {
        true => start_detached(&work),
        false => work.run(),
    }
}

/// How many points are to be worked on at a time. Where nobody says: on the CPU one for each core, on one thread each,
/// which gets more done than one on all of them; on a GPU one.
pub fn workers(args: &Args, device: &str) -> usize {
    let here = match (device, args.threads) {
        ("cpu", threads) => cores() / threads.unwrap_or(1).max(1),
        _ => 1,
    };
    args.workers.unwrap_or(here)
}

/// Threads of each of so many workers.
pub fn threads(workers: usize) -> usize {
    (cores() / workers.max(1)).max(1)
}

/// A run that is no sweep, as its only point.
pub fn only(config: RunConfig) -> Point {
    Point {
        name: config.experiment.clone(),
        grid: String::new(),
        place: Vec::new(),
        config,
    }
}

/// Cores of this machine.
fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Checks every point against this machine, its data and its strategies, and fills in what these say; with the most
/// memory that any takes.
fn prepared(points: Vec<Point>, args: &Args) -> anyhow::Result<(Vec<Point>, f64)> {
    let registry = registry(&args.worker);
    let mut most = 0.0_f64;
    let mut all = Vec::with_capacity(points.len());
    for point in points {
        let prepared = work::prepare_with(point.config, &registry)?;
        most = most.max(prepared.memory());
        all.push(Point {
            config: prepared.config,
            ..point
        });
    }
    Ok((all, most))
}

/// As many workers as there is memory for.
fn fitting(workers: usize, most: f64) -> usize {
    let Some(free) = available_memory() else {
        return workers;
    };
    let fit = ((free / most.max(1.0)) as usize).max(1);
    if fit < workers {
        warn(format_args!(
            "note: {fit} at a time, not {workers}: a point takes up to {}, and {} are free",
            human_bytes(most),
            human_bytes(free)
        ));
    }
    workers.min(fit)
}

/// The sweep that a folder holds, if it is the one that is asked for.
fn same(sweep: SweepDir, points: &[Point]) -> anyhow::Result<SweepDir> {
    let spec = sweep.spec()?;
    let config = |name: &str| sweep.config(name).ok();
    let is_same = spec.points.len() == points.len()
        && spec.points.iter().zip(points).all(|(known, point)| {
            known.name == point.name && config(&known.name).as_ref() == Some(&point.config)
        });
    if !is_same {
        bail!(
            "{} holds a sweep of other points; give another folder to --out, or go on with that one: forgetlab \
             resume {}",
            sweep.path().display(),
            forgetlab_study::run::shell_path(sweep.path())
        );
    }
    Ok(sweep)
}

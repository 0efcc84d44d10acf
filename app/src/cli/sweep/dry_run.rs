//! What a sweep would do, before anything is written: points, arms, tokens, memory, and time.

use std::io::Write;
use std::time::Duration;

use forgetlab_engine::human_bytes;
use forgetlab_study::experiment::{DataSpec, Point, RunConfig};
use forgetlab_study::report::{Format, Sheet, human_count, human_seconds};
use forgetlab_study::run::Cost;
use forgetlab_worker::bench::Speeds;
use forgetlab_worker::train::{Prepared, predict};

use super::super::run::Args;
use super::super::worker::registry;
use super::super::{exit, glyphs, out, unless_gone, warn, work};

/// Time for which each kind of work is tried out.
const TIME: Duration = Duration::from_millis(500);

/// What is known of a point.
struct Known {
    name: String,
    config: RunConfig,
    /// What reading its data and strategies told, where they are there.
    prepared: Option<Prepared>,
    /// What it will pay, where that can be told.
    paid: Option<Cost>,
}

/// Prints what each point comes to.
pub fn dry_run(points: Vec<Point>, args: &Args, workers: usize) -> anyhow::Result<u8> {
    let registry = registry(&args.worker);
    let mut problem = None;
    let known: Vec<Known> = points
        .into_iter()
        .map(|point| {
            let prepared = work::prepare_with(point.config.clone(), &registry);
            let prepared = prepared.map_err(|error| problem = Some(error)).ok();
            let predicted = prepared
                .as_ref()
                .and_then(|prepared| predict(prepared).ok()?);
            Known {
                paid: predicted.map(|prediction| prediction.total()),
                name: point.name,
                config: prepared.as_ref().map_or(point.config, |p| p.config.clone()),
                prepared,
            }
        })
        .collect();
    if let Some(problem) = &problem {
        warn(format_args!(
            "note: not all of it can be told here: {problem}"
        ));
    }
    let speeds = speeds(&known);
    let mut sheet = Sheet::new(
        format!("{} points, {workers} at a time", known.len()),
        &[
            "point", "arms", "seeds", "steps", "tokens", "memory", "time",
        ],
    );
    let mut total = Some(0.0);
    for point in &known {
        let seconds = speeds.as_ref().and_then(|speeds| seconds(point, speeds));
        total = total.zip(seconds).map(|(sum, own)| sum + own);
        sheet.rows.push(row(point, seconds));
    }
    sheet.notes.push(
        "Steps and tokens of new data are those of the longest arm of a seed, and at most: a target may end a phase \
         before."
            .into(),
    );
    if let Some(total) = total {
        sheet.notes.push(format!(
            "Predicted from a few seconds of training here, with nothing else going on: about {} in all.",
            human_seconds(total / workers.max(1) as f64)
        ));
    }
    let text = sheet.write(Format::Text(glyphs()));
    unless_gone(write!(out::stdout(), "{text}"))?;
    Ok(exit::DONE)
}

/// How fast this machine is at models from the smallest of the points' to the largest.
fn speeds(known: &[Known]) -> Option<Speeds> {
    let demands: Vec<_> = known
        .iter()
        .map(|point| point.prepared.as_ref().and_then(Prepared::demand))
        .collect::<Option<_>>()?;
    let device = &known.first()?.config.device;
    match Speeds::measure(&demands, device, TIME) {
        Ok(speeds) => Some(speeds),
        Err(error) => {
            warn(format_args!("note: no time is predicted: {error}"));
            None
        }
    }
}

fn seconds(point: &Known, speeds: &Speeds) -> Option<f64> {
    let demand = point.prepared.as_ref()?.demand()?;
    Some(speeds.seconds(point.paid.as_ref()?, demand))
}

fn row(point: &Known, seconds: Option<f64>) -> Vec<String> {
    let config = &point.config;
    let steps = config.all_steps();
    let unknown = || "?".to_owned();
    let known = steps.iter().all(|&steps| steps > 0);
    let tokens = tokens(config).filter(|_| known);
    vec![
        point.name.clone(),
        config.arms.len().to_string(),
        config.seeds.len().to_string(),
        match known {
            true => human_count(steps.iter().sum()),
            false => unknown(),
        },
        tokens.map_or_else(unknown, human_count),
        point
            .prepared
            .as_ref()
            .map_or_else(unknown, |prepared| human_bytes(prepared.memory())),
        seconds.map_or_else(unknown, human_seconds),
    ]
}

/// Tokens of new data of all phases, where rows have one length.
fn tokens(config: &RunConfig) -> Option<u64> {
    let DataSpec::Tokens(data) = &config.data else {
        return None;
    };
    let of = |phase: usize| {
        let settings = config.in_phase(phase);
        settings.steps * (settings.batch_size * data.seq_len) as u64
    };
    Some((0..config.phases.len()).map(of).sum())
}

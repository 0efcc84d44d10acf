//! What a single run would do, before anything is written: tokens, FLOPs, memory, time.

use std::io::Write;
use std::time::Duration;

use forgetlab_engine::memory::cpu_model;
use forgetlab_engine::{Demand, Memory, human_bytes};
use forgetlab_plugin_host::Registry;
use forgetlab_study::experiment::{Point, RunConfig};
use forgetlab_study::report::{Format, Sheet, human_count, human_seconds};
use forgetlab_study::run::{Cost, Results, RunDir};
use forgetlab_worker::bench::Speeds;
use forgetlab_worker::train::{ArmPrediction, Prediction, Prepared, predict};
use serde_json::{Value, json};
use toml::Table;

use super::disk::{self, Fit};
use super::worker::{WorkerArgs, registry};
use super::{exit, glyphs, out, unless_gone, warn, work};

/// Past runs by whose speed a time is predicted, at most, and those that are looked at.
const PAST: usize = 3;
const LOOKED_AT: usize = 200;
/// FLOPs of training on a row that is tried out for a prediction at once; more take too long.
const MOST_FLOPS: f64 = 2e9;
/// Time for which each kind of work is tried out: at once, and where there is time.
const AT_ONCE: Duration = Duration::from_millis(60);
const CALMLY: Duration = Duration::from_millis(500);

/// What is known of a run before it starts.
struct Known {
    name: String,
    config: RunConfig,
    /// Nothing where it cannot be run here.
    prepared: Option<Prepared>,
    prediction: Option<Prediction>,
    seconds: Option<f64>,
    /// Where the time is from, or why there is none.
    from: String,
    problem: Option<String>,
}

/// Prints an object for each run, and does nothing.
pub fn json(points: Vec<Point>, args: &WorkerArgs) -> anyhow::Result<u8> {
    let registry = registry(args);
    let mut out = out::stdout();
    for point in points {
        let known = Known::of(point, &registry, AT_ONCE);
        unless_gone(out.json(&known.json()))?;
    }
    Ok(exit::DONE)
}

/// Prints tables of what a run will pay, and does nothing.
pub fn tables(point: Point, args: &WorkerArgs) -> anyhow::Result<u8> {
    let known = Known::of(point, &registry(args), CALMLY);
    if let Some(problem) = &known.problem {
        warn(format_args!(
            "note: not all of it can be told here: {problem}"
        ));
    }
    for warning in known.warnings().iter().flatten() {
        warn(format_args!("warning: {warning}"));
    }
    let text = known.sheet().write(Format::Text(glyphs()));
    unless_gone(write!(out::stdout(), "{text}"))?;
    Ok(exit::DONE)
}

impl Known {
    fn of(point: Point, registry: &Registry, time: Duration) -> Self {
        let mut known = Self {
            name: point.name,
            config: point.config.clone(),
            prepared: None,
            prediction: None,
            seconds: None,
            from: "unknown".into(),
            problem: None,
        };
        let prepared = work::prepare_with(point.config, registry);
        let predicted = prepared.and_then(|prepared| {
            let prediction = predict(&prepared)?;
            Ok((prepared, prediction))
        });
        match predicted {
            Ok((prepared, prediction)) => {
                known.config = prepared.config.clone();
                (known.prepared, known.prediction) = (Some(prepared), prediction);
                (known.seconds, known.from) = known.time(time);
            }
            Err(error) => known.problem = Some(error.to_string()),
        }
        known
    }

    /// The time it will take, and where that is from: past runs of the model on this machine, else some work tried out.
    fn time(&self, time: Duration) -> (Option<f64>, String) {
        let (Some(prepared), Some(prediction)) = (&self.prepared, &self.prediction) else {
            return (None, "unknown: it trains on no tokens".into());
        };
        let total = prediction.total();
        let past = Past::of(prepared);
        if let Some(seconds) = past.seconds(&total) {
            let s = if past.names.len() == 1 { "" } else { "s" };
            let from = format!(
                "from the speed of {} past run{s} of this model here: {}",
                past.names.len(),
                past.names.join(", ")
            );
            return (Some(seconds), from);
        }
        let Some(demand) = prepared.demand() else {
            return (None, "unknown".into());
        };
        let row = demand.model.forward_flops(demand.seq_len, demand.seq_len);
        if time < CALMLY && (3.0 * row > MOST_FLOPS || demand.gpu.is_some()) {
            let why = "unknown: no past run of this model here, and too large to try out at once";
            return (None, why.into());
        }
        match Speeds::measure(&[demand], &self.config.device, time) {
            Ok(speeds) => {
                let tried = human_seconds(3.6 * time.as_secs_f64());
                let from = format!(
                    "from about {tried} of work tried out here, with nothing else going on"
                );
                (Some(speeds.seconds(&total, demand)), from)
            }
            Err(error) => (None, format!("unknown: {error}")),
        }
    }

    fn memory(&self) -> Option<f64> {
        self.prepared.as_ref().map(Prepared::memory)
    }

    /// What its checkpoints will take, where it has some.
    fn disk(&self) -> Option<Memory> {
        let disk = self.prepared.as_ref()?.disk();
        (disk.total() > 0.0).then_some(disk)
    }

    /// What its user should hear of before it starts.
    fn warnings(&self) -> Option<Vec<String>> {
        let mut warnings = self.prepared.as_ref()?.warnings.clone();
        let free = disk::free(&Results::from_env().runs());
        if let (Some(disk), Some(free)) = (self.disk(), free)
            && Fit::of(disk.total(), 0.0, free) != Fit::Easily
        {
            warnings.push(disk::words(&disk, free));
        }
        Some(warnings)
    }

    fn json(&self) -> Value {
        let config = &self.config;
        let demand = self.prepared.as_ref().and_then(Prepared::demand);
        let memory = demand.map(|demand| by_purpose(&demand.memory()));
        let host = demand.and_then(Demand::on_host);
        let disk = self.disk();
        let arms = self
            .prediction
            .iter()
            .flat_map(|prediction| &prediction.arms);
        let arms: Vec<Value> = arms.map(arm_json).collect();
        let total = self.prediction.as_ref().map(Prediction::total);
        let all = |exact: fn(&ArmPrediction) -> bool| {
            self.prediction
                .as_ref()
                .map(|p| !p.at_most && p.arms.iter().all(exact))
        };
        json!({
            "name": self.name,
            "experiment": config.experiment,
            "preset": config.preset,
            "device": config.device,
            "seeds": config.seeds,
            "tokens": total.as_ref().map(|cost| cost.tokens_trained),
            "tokens_generated": total.as_ref().map(|cost| cost.tokens_generated),
            "tokens_exact": all(|arm| arm.exact_tokens),
            "flops": total.as_ref().and_then(Cost::flops),
            "flops_exact": all(|arm| arm.exact_flops),
            "at_most": self.prediction.as_ref().map(|prediction| prediction.at_most),
            "samples": config.training.samples,
            "memory_bytes": self.memory().map(|bytes| bytes as u64),
            "memory": memory,
            "host_memory_bytes": host.map(|host| host.to_save as u64),
            "host_memory_to_resume_bytes": host.map(|host| host.to_resume as u64),
            "disk_bytes": disk.as_ref().map(|disk| disk.total() as u64),
            "disk": disk.as_ref().map(by_purpose),
            "disk_free_bytes": disk::free(&Results::from_env().runs()).map(|free| free as u64),
            "arms_at_a_time": demand.map(|demand| demand.learners),
            "seconds": self.seconds,
            "seconds_from": self.from,
            "warnings": self.warnings(),
            "problem": self.problem,
            "arms": arms,
        })
    }

    fn sheet(&self) -> Sheet {
        let config = &self.config;
        let title = format!("{} ({})", config.experiment, config.preset);
        let head = ["arm", "seed", "steps", "tokens", "generated", "FLOPs"];
        let mut sheet = Sheet::new(title, &head);
        let flops = |cost: &Cost| {
            cost.flops()
                .map_or_else(String::new, |f| format!("{f:.2e}"))
        };
        let Some(prediction) = &self.prediction else {
            let arms = config.arms.iter().map(|arm| arm.name());
            let unknown = |name: String| [name].into_iter().chain((1..6).map(|_| "?".to_owned()));
            sheet
                .rows
                .extend(arms.map(|name| unknown(name).collect::<Vec<String>>()));
            sheet.notes.extend(self.notes());
            return sheet;
        };
        let cells = |cost: &Cost, exact: [bool; 2]| {
            let about = |text: String, exact: bool| if exact { text } else { format!("~{text}") };
            [
                about(human_count(cost.tokens_trained), exact[0]),
                about(
                    human_count(cost.tokens_generated),
                    exact[1] || cost.tokens_generated == 0,
                ),
                about(flops(cost), exact[1]),
            ]
        };
        for arm in &prediction.arms {
            let info = &arm.info;
            let mut row = vec![
                info.name.clone(),
                info.seed.to_string(),
                human_count(arm.steps),
            ];
            row.extend(cells(&arm.cost, [arm.exact_tokens, arm.exact_flops]));
            sheet.rows.push(row);
        }
        let all = |exact: fn(&ArmPrediction) -> bool| prediction.arms.iter().all(exact);
        let mut row = vec!["in all".to_owned(), String::new(), String::new()];
        row.extend(cells(
            &prediction.total(),
            [all(|arm| arm.exact_tokens), all(|arm| arm.exact_flops)],
        ));
        sheet.rows.push(row);
        sheet.notes.push(
            "The first phase is part of every arm, and counts once a seed in all; from the cache it takes nothing."
                .into(),
        );
        if prediction.at_most {
            sheet
                .notes
                .push("At most: a phase may end before its last step.".into());
        }
        sheet.notes.extend(self.notes());
        sheet
    }

    /// Memory and time.
    fn notes(&self) -> Vec<String> {
        let demand = self.prepared.as_ref().and_then(Prepared::demand);
        let parts = demand.map(|demand| format!(": {}", demand.memory()));
        let memory = self.memory().map(|bytes| {
            format!(
                "Memory: about {}{}.",
                human_bytes(bytes),
                parts.unwrap_or_default()
            )
        });
        let host = demand.and_then(Demand::on_host).map(|host| {
            format!(
                "Memory of the machine: about {} to save a checkpoint, {} to go on from one.",
                human_bytes(host.to_save),
                human_bytes(host.to_resume)
            )
        });
        let disk = self.disk().map(|disk| {
            let free = disk::free(&Results::from_env().runs());
            let free = free.map_or(String::new(), |free| {
                format!("; {} free", human_bytes(free))
            });
            format!(
                "Disk: checkpoints take up to {}{free}: {disk}.",
                human_bytes(disk.total())
            )
        });
        let time = match self.seconds {
            Some(seconds) => format!("Time: about {}, {}.", human_seconds(seconds), self.from),
            None => format!("Time: {}.", self.from),
        };
        let room = memory.into_iter().chain(host).chain(disk);
        room.chain([time]).collect()
    }
}

fn by_purpose(memory: &Memory) -> serde_json::Map<String, Value> {
    let parts = memory.0.iter();
    let parts = parts.map(|(purpose, bytes)| ((*purpose).to_owned(), json!(*bytes as u64)));
    parts.collect()
}

fn arm_json(arm: &ArmPrediction) -> Value {
    json!({
        "name": arm.info.name,
        "seed": arm.info.seed,
        "steps": arm.steps,
        "tokens": arm.cost.tokens_trained,
        "tokens_generated": arm.cost.tokens_generated,
        "tokens_exact": arm.exact_tokens,
        "flops": arm.cost.flops(),
        "flops_train": arm.cost.flops_train,
        "flops_reference": arm.cost.flops_reference,
        "flops_generate": arm.cost.flops_generate,
        "flops_eval": arm.cost.flops_eval,
        "flops_exact": arm.exact_flops,
    })
}

/// What past runs of a model paid, and in which time.
#[derive(Default)]
struct Past {
    names: Vec<String>,
    paid: Cost,
}

impl Past {
    /// The newest runs of the same model, on the same device of this machine.
    fn of(prepared: &Prepared) -> Self {
        let mut past = Self::default();
        let Ok(own) = Table::try_from(&prepared.config) else {
            return past;
        };
        let dirs = Results::from_env().run_dirs().unwrap_or_default();
        for (name, dir) in dirs.into_iter().rev().take(LOOKED_AT) {
            if past.names.len() == PAST {
                break;
            }
            if let Some(paid) = paid_by(&dir, prepared, &own) {
                past.names.push(name);
                past.add(&paid);
            }
        }
        past
    }

    fn add(&mut self, cost: &Cost) {
        let paid = &mut self.paid;
        paid.seconds_new += cost.seconds_new + cost.seconds_replay;
        paid.flops_train += cost.flops_train + cost.flops_reference;
        // Strategies that generate nothing take time for their calls, too.
        if cost.flops_generate > 0.0 {
            paid.seconds_generate += cost.seconds_generate;
            paid.flops_generate += cost.flops_generate;
        }
        paid.seconds_eval += cost.seconds_eval;
        paid.flops_eval += cost.flops_eval;
    }

    /// Time for other work; `None` where a kind of it was not done before.
    fn seconds(&self, cost: &Cost) -> Option<f64> {
        let paid = &self.paid;
        let of = |flops: f64, before: f64, seconds: f64| match flops {
            0.0 => Some(0.0),
            flops => Some(flops / before * seconds).filter(|s| s.is_finite() && *s > 0.0),
        };
        let trained = cost.flops_train + cost.flops_reference;
        let training = of(trained, paid.flops_train, paid.seconds_new)?;
        let generation = of(
            cost.flops_generate,
            paid.flops_generate,
            paid.seconds_generate,
        )?;
        let evaluation = of(cost.flops_eval, paid.flops_eval, paid.seconds_eval)?;
        Some(training + generation + evaluation)
    }
}

/// What the arms of a run paid, if it is one of this model on this device.
fn paid_by(dir: &RunDir, prepared: &Prepared, own: &Table) -> Option<Cost> {
    let config: Table = std::fs::read_to_string(dir.config_path())
        .ok()?
        .parse()
        .ok()?;
    let same = ["model", "device", "threads", "precision"];
    let kind = |config: &Table| config.get("data")?.get("kind").cloned();
    if same.iter().any(|key| config.get(*key) != own.get(*key)) || kind(&config) != kind(own) {
        return None;
    }
    let then = dir.read_environment().ok()??;
    let now = &prepared.environment;
    if then.device != now.device
        || then.instruction_set != now.instruction_set
        || then.cpu != cpu_model()
    {
        return None;
    }
    let state = dir.brief_state(dir.is_live()).ok()?;
    let mut all = Past::default();
    for arm in &state.arms {
        let cost = arm.cost();
        cost.flops()?;
        all.add(&cost);
    }
    let paid = all.paid;
    (paid.flops_train > 0.0 && paid.seconds_new > 0.0).then_some(paid)
}

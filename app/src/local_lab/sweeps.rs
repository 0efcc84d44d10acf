//! Sweeps, for the lab: what became of their points, read again only where something has changed.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::Context;
use forgetlab_study::experiment::{self, ArmSpec, GridSpec, Overrides, said};
use forgetlab_study::run::{
    Labels, PointSpec, PointStatus, Results, RunDir, RunError, RunStatus, SweepCounts, SweepDir,
};
use forgetlab_tui::lab::{Points, RunSummary, StartRequest, Sweep, SweepPoint, point_run};

use super::{LocalLab, background, progress};

/// What a name that the screens give stands for.
pub enum Place {
    Run(RunDir),
    Sweep(SweepDir),
    /// A point of a sweep, by its name.
    Point(SweepDir, String),
}

impl Place {
    /// Finds a run, a sweep, or a point by the name of its run.
    pub fn find(results: &Results, name: &str) -> anyhow::Result<Self> {
        let open = |sweep: &str| SweepDir::open(&results.runs().join(sweep));
        if let Ok(sweep) = open(name) {
            return Ok(Self::Sweep(sweep));
        }
        if let Some((sweep, point)) = name.split_once('/')
            && let Ok(sweep) = open(sweep)
        {
            let point = sweep.find(point)?.name;
            return Ok(Self::Point(sweep, point));
        }
        Ok(Self::Run(results.find(name)?))
    }
}

/// What is known of the points of a sweep, by their names.
#[derive(Default)]
pub struct Known(HashMap<String, (Seen, Looked)>);

/// Whether the run of a point has changed: length of its events, and whether it is live.
type Seen = (u64, bool);

/// What was read of a point whose run has begun.
#[derive(Clone)]
struct Looked {
    status: PointStatus,
    progress: f64,
    started: Option<f64>,
    told: String,
}

impl Known {
    /// The sweep as it is now.
    pub fn look(&mut self, name: &str, dir: &SweepDir) -> Sweep {
        self.try_look(name, dir).unwrap_or_else(|error| Sweep {
            summary: RunSummary {
                problem: Some(error.to_string()),
                ..summary(name, SweepCounts::default())
            },
            points: Vec::new(),
        })
    }

    fn try_look(&mut self, name: &str, dir: &SweepDir) -> Result<Sweep, RunError> {
        let spec = dir.spec()?;
        let mut statuses: Vec<(PointSpec, PointStatus)> = Vec::new();
        let mut points = Vec::new();
        let mut started: Option<f64> = None;
        for point in spec.points {
            let run = dir.run(&point.name);
            let looked = match &run {
                Some(run) => self.point(dir, &point.name, run),
                None => Looked::without_run(dir, &point.name),
            };
            started = match (started, looked.started) {
                (Some(first), Some(other)) => Some(first.min(other)),
                (first, other) => first.or(other),
            };
            points.push(SweepPoint {
                run: run.map(|_| point_run(name, &point.name)),
                name: point.name.clone(),
                status: looked.status.clone(),
                progress: looked.progress,
                told: looked.told,
            });
            statuses.push((point, looked.status));
        }
        let done: f64 = points.iter().map(|point| point.progress).sum();
        let counts = dir.counts(&statuses)?;
        Ok(Sweep {
            summary: RunSummary {
                labels: dir.labels().unwrap_or_default(),
                experiment: spec.experiment,
                preset: spec.preset,
                started: started.or_else(|| made(dir)),
                progress: done / points.len().max(1) as f64,
                ..summary(name, counts)
            },
            points,
        })
    }

    /// A point whose run has begun.
    fn point(&mut self, sweep: &SweepDir, name: &str, run: &RunDir) -> Looked {
        let length = fs::metadata(run.events_path()).map_or(0, |data| data.len());
        let known = self.0.get(name);
        // Nobody works any more on one that is finished.
        if let Some(((seen, _), looked)) = known
            && *seen == length
            && looked.status == PointStatus::Finished
        {
            return looked.clone();
        }
        let lease = sweep.lease_of(name).ok().flatten();
        let live = run.is_live() || lease.is_some_and(|holder| holder.is_live());
        if let Some((seen, looked)) = known
            && *seen == (length, live)
        {
            return looked.clone();
        }
        let looked = Looked::at(run, live);
        let known = ((length, live), looked.clone());
        self.0.insert(name.to_owned(), known);
        looked
    }
}

impl Looked {
    fn without_run(sweep: &SweepDir, name: &str) -> Self {
        let status = sweep.status(name);
        Self {
            status: status.unwrap_or_else(|error| PointStatus::Refused(error.to_string())),
            progress: 0.0,
            started: None,
            told: String::new(),
        }
    }

    fn at(run: &RunDir, live: bool) -> Self {
        let state = match run.brief_state(live) {
            Ok(state) => state,
            Err(error) => {
                return Self {
                    status: PointStatus::Refused(error.to_string()),
                    progress: 0.0,
                    started: None,
                    told: String::new(),
                };
            }
        };
        let status = match RunDir::status_of(live, &state) {
            RunStatus::Live => PointStatus::Live,
            RunStatus::Finished => PointStatus::Finished,
            RunStatus::Failed => PointStatus::Failed,
            RunStatus::Interrupted | RunStatus::Crashed => PointStatus::Unfinished,
        };
        let over = matches!(status, PointStatus::Finished | PointStatus::Failed);
        Self {
            progress: if over { 1.0 } else { progress(&state) },
            started: state.times.map(|(start, _)| start),
            told: match status {
                PointStatus::Finished => told(run),
                _ => String::new(),
            },
            status,
        }
    }
}

/// What the first arm of a finished run forgot.
fn told(run: &RunDir) -> String {
    let Some(first) = run.first_arm() else {
        return String::new();
    };
    let nats = first.forgetting.ntp.map(|nats| format!("{nats:.3} nats"));
    let points = first.forgetting.accuracy;
    let points = points.map(|share| format!("{:.1} points", share * 100.0));
    let told: Vec<String> = nats.into_iter().chain(points).collect();
    match told.is_empty() {
        true => String::new(),
        false => format!("{}: {}", told.join(", "), first.name),
    }
}

/// A line of a sweep of which its name and counts are known.
fn summary(name: &str, counts: SweepCounts) -> RunSummary {
    RunSummary {
        name: name.to_owned(),
        experiment: String::new(),
        preset: String::new(),
        status: counts.status(),
        arms: 0,
        started: None,
        progress: 0.0,
        problem: None,
        points: Some(counts),
        queued: None,
        labels: Labels::default(),
        digest: Arc::default(),
        config: Arc::default(),
    }
}

/// When a sweep was made, seconds since the Unix epoch: its list of points is never written again.
fn made(dir: &SweepDir) -> Option<f64> {
    let modified = fs::metadata(dir.join("sweep.toml")).ok()?.modified().ok()?;
    let since = modified.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64())
}

/// The points of a preset, where it is a sweep.
pub fn points(known: &experiment::Experiment, preset: &str) -> anyhow::Result<Option<Points>> {
    let overrides = Overrides {
        preset: Some(preset.to_owned()),
        ..Overrides::default()
    };
    let points = experiment::points(known.name, &overrides)?;
    let grids = known.preset(preset)?.grids;
    Ok(points.map(|points| Points {
        count: points.len(),
        grids: grids.iter().map(in_words).collect(),
    }))
}

/// The axes of a grid with their values, and the arms it has for itself.
fn in_words(grid: &GridSpec) -> String {
    let values = |values: &[toml::Value]| {
        let values: Vec<String> = values.iter().map(said).collect();
        values.join(", ")
    };
    let axes = grid.axes.iter().map(|axis| {
        let last = axis.key.rsplit('.').next().unwrap_or_default();
        let name = axis.name.as_deref().unwrap_or(last);
        format!("{name} {}", values(&axis.values))
    });
    let mut parts: Vec<String> = axes.collect();
    if parts.is_empty() {
        parts.push("one point".into());
    }
    if !grid.arms.is_empty() {
        parts.push(format!("arms {}", grid.arms.join(", ")));
    }
    let parts = parts.join("; ");
    match grid.name.as_str() {
        "" => parts,
        name => format!("{name}: {parts}"),
    }
}

impl LocalLab {
    /// Starts a sweep in the background; its name.
    pub(super) fn start_sweep(&self, request: &StartRequest) -> anyhow::Result<String> {
        let folder = self.results.create_folder(&request.experiment)?;
        let path = folder.to_str().context("the folder's name is not UTF-8")?;
        let started = arguments(request).and_then(|mut arguments| {
            arguments.extend([format!("--out={path}"), background(request).to_owned()]);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            self.call_self(&arguments)
        });
        if started.is_err() {
            // Only where there is nothing in it.
            let _ = fs::remove_dir(Path::new(path));
        }
        started?;
        Ok(RunDir::name_of(&folder))
    }
}

/// Whether a form asks for a sweep.
pub fn is_sweep(request: &StartRequest) -> anyhow::Result<bool> {
    let overrides = Overrides {
        preset: Some(request.preset.clone()),
        ..Overrides::default()
    };
    Ok(experiment::points(&request.experiment, &overrides)?.is_some())
}

/// The command line of what a form asks for.
pub fn arguments(request: &StartRequest) -> anyhow::Result<Vec<String>> {
    let overrides = Overrides {
        preset: Some(request.preset.clone()),
        ..Overrides::default()
    };
    let own = experiment::resolve(&request.experiment, &overrides)?.arms;
    let mut arguments: Vec<String> = vec!["run".into(), request.experiment.clone()];
    let mut give = |flag: &str, value: String| arguments.push(format!("{flag}={value}"));
    give("--preset", request.preset.clone());
    give("--device", request.device.clone());
    for seed in &request.seeds {
        give("--seed", seed.to_string());
    }
    for (key, value) in &request.set {
        give("--set", format!("{key}={value}"));
    }
    // Else they would replace those that a grid has for itself.
    if request.arms != own {
        for arm in &request.arms {
            give("--arms", ArmSpec::name(arm));
        }
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> StartRequest {
        let overrides = Overrides {
            preset: Some("smoke".into()),
            ..Overrides::default()
        };
        StartRequest {
            experiment: "model-capacity".into(),
            preset: "smoke".into(),
            device: "cpu".into(),
            seeds: vec![3, 4],
            arms: experiment::resolve("model-capacity", &overrides)
                .unwrap()
                .arms,
            set: Vec::new(),
            queue: false,
        }
    }

    /// Else the arms of a grid would be those of the form, which nobody chose.
    #[test]
    fn arms_replace_those_of_the_grids_only_where_they_were_changed() {
        let mut request = request();
        let unchanged = arguments(&request).unwrap();
        assert_eq!(
            unchanged[..],
            [
                "run",
                "model-capacity",
                "--preset=smoke",
                "--device=cpu",
                "--seed=3",
                "--seed=4"
            ]
        );
        request.arms = vec![ArmSpec::parse("self-generated:kl:3+lr=1e-3", 10.0).unwrap()];
        let changed = arguments(&request).unwrap();
        let arms: Vec<&String> = changed.iter().filter(|a| a.starts_with("--arms")).collect();
        assert_eq!(arms, ["--arms=self-generated:kl:3+lr=1e-3"]);
    }

    /// Else the form would promise another sweep than it starts.
    #[test]
    fn the_form_is_told_the_points_of_a_preset() {
        let known = |name: &str| experiment::experiment(name).unwrap();
        assert_eq!(points(known("toy-continual"), "smoke").unwrap(), None);
        let told = points(known("model-capacity"), "smoke").unwrap().unwrap();
        assert_eq!(told.count, 5);
        assert_eq!(
            told.grids,
            [
                "frontier: share 0.0625, 0.5, 0.9375; arms none",
                "overtrained: one point; arms self-generated:kl:1, self-generated:kl:10",
                "undertrained: one point; arms self-generated:kl:1, self-generated:kl:10",
            ]
        );
    }

    /// Else a list that is read every two seconds would read every event of every point.
    #[test]
    fn a_finished_point_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let results = Results::new(dir.path().join("results"));
        let overrides = Overrides {
            axes: vec![experiment::AxisSpec::parse("model.d_model=32,64").unwrap()],
            ..Overrides::default()
        };
        let all = experiment::points("toy-continual", &overrides)
            .unwrap()
            .unwrap();
        let folder = results.create_folder("toy-continual").unwrap();
        let sweep = SweepDir::create(&folder, &all).unwrap();
        let name = sweep.name();
        let mut lab = LocalLab::new(results, Vec::new(), Vec::new());
        use forgetlab_study::run::{Event, OutFolder};
        use forgetlab_tui::lab::Lab;
        let row = lab.runs().unwrap().remove(0);
        assert_eq!((row.name.as_str(), row.progress), (name.as_str(), 0.0));
        assert_eq!(row.status, RunStatus::Interrupted);
        let path = sweep.point_path(&all[0].name);
        let OutFolder::Fresh(run) = RunDir::out(&path).unwrap() else {
            panic!()
        };
        run.write_config(&all[0].config).unwrap();
        let lock = run.lock().unwrap();
        let mut writer = run.writer(&lock).unwrap().writer;
        writer.append(Event::RunFinished {}).unwrap();
        drop(lock);
        // A process that another test is just starting may hold a copy of the lock for a moment.
        let looked = loop {
            let looked = lab.sweep(&name).unwrap();
            if looked.points[0].status != PointStatus::Live {
                break looked;
            }
        };
        assert_eq!(looked.points[0].status, PointStatus::Finished);
        assert_eq!(
            looked.points[0].run,
            Some(format!("{name}/{}", all[0].name))
        );
        assert_eq!(looked.points[1].status, PointStatus::Waiting);
        assert_eq!(looked.summary.progress, 0.5);
        // The same length, and no events: nobody reads them.
        let length = fs::metadata(run.events_path()).unwrap().len();
        fs::write(run.events_path(), vec![b'x'; length as usize]).unwrap();
        assert_eq!(lab.sweep(&name).unwrap(), looked);
        assert!(lab.open(looked.points[0].run.as_deref().unwrap()).is_ok());
        assert!(lab.open(&point_run(&name, &all[1].name)).is_err());
        fs::write(sweep.join("sweep.toml"), "spoilt").unwrap();
        assert!(lab.sweep(&name).is_err());
        assert!(lab.runs().unwrap()[0].problem.is_some());
    }
}

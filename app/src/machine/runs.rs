//! Live runs of a results folder, and the arm that each of them works on.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use forgetlab_study::run::{Results, RunDir, Ticket};
use forgetlab_tui::lab::point_run;
use serde_json::Value;

/// All runs are looked through for live ones at most this often.
const SCAN_EVERY: Duration = Duration::from_secs(1);
/// Looking through all runs takes at most one part in so many of the time, however slow the disk.
const SCAN_SHARE: u32 = 100;
/// Bytes of the end of a run's events that are looked at for the arm of the last one.
const TAIL: u64 = 256 << 10;

/// The live runs of a results folder.
pub struct LiveRuns {
    results: Results,
    known: Vec<Known>,
    next_scan: Instant,
}

/// A run that was live when it was looked at last.
struct Known {
    name: String,
    dir: RunDir,
    device: String,
    arms: Vec<String>,
}

/// A live run.
pub struct LiveRun {
    pub name: String,
    pub device: String,
    /// Whether its worker only waits in line.
    pub queued: bool,
    /// Process of its worker, where that is known.
    pub pid: Option<u32>,
    /// The arm of its last event.
    pub arm: Option<String>,
}

impl LiveRuns {
    pub fn new(results: Results) -> Self {
        Self {
            results,
            known: Vec::new(),
            next_scan: Instant::now(),
        }
    }

    /// The live runs, by name; one that has begun just now may be missing once.
    pub fn look(&mut self) -> Vec<LiveRun> {
        let now = Instant::now();
        if now >= self.next_scan {
            self.scan();
            self.next_scan = Instant::now() + SCAN_EVERY.max(now.elapsed() * SCAN_SHARE);
        }
        let mut live = Vec::new();
        self.known.retain_mut(|run| match run.dir.live() {
            Some(pid) => {
                live.push(LiveRun {
                    name: run.name.clone(),
                    device: run.device.clone(),
                    queued: Ticket::of(run.dir.path()).is_some(),
                    pid,
                    arm: run.arm(),
                });
                true
            }
            None => false,
        });
        live
    }

    /// Looks for live runs that are not known yet. What cannot be read is left out.
    fn scan(&mut self) {
        let mut runs = self.results.run_dirs().unwrap_or_default();
        for sweep in self.results.sweeps().unwrap_or_default() {
            let points = sweep.spec().map_or_else(|_| Vec::new(), |spec| spec.points);
            runs.extend(points.into_iter().filter_map(|point| {
                let name = point_run(&sweep.name(), &point.name);
                Some((name, sweep.run(&point.name)?))
            }));
        }
        for (name, dir) in runs {
            if self.known.iter().all(|run| run.name != name) && dir.is_live() {
                let device = dir.read_config().map(|config| config.device);
                self.known.push(Known {
                    name,
                    dir,
                    device: device.unwrap_or_default(),
                    arms: Vec::new(),
                });
            }
        }
        self.known.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

impl Known {
    /// The arm of the run's last event.
    fn arm(&mut self) -> Option<String> {
        let arm = last_arm(&self.dir)?;
        if arm >= self.arms.len() {
            let state = self.dir.brief_state(true).ok()?;
            self.arms = state.arms.iter().map(|arm| state.arm_label(arm)).collect();
        }
        self.arms.get(arm).cloned()
    }
}

/// Index of the arm that a run's last event is about, of those that are about one.
fn last_arm(dir: &RunDir) -> Option<usize> {
    let mut events = File::open(dir.events_path()).ok()?;
    let length = events.metadata().ok()?.len();
    events
        .seek(SeekFrom::Start(length.saturating_sub(TAIL)))
        .ok()?;
    let mut tail = Vec::new();
    events.take(TAIL).read_to_end(&mut tail).ok()?;
    // The first line may have lost its beginning, the last may lack its end.
    tail.rsplit(|&byte| byte == b'\n').find_map(|line| {
        let event: Value = serde_json::from_slice(line).ok()?;
        event["arm"].as_u64().map(|arm| arm as usize)
    })
}

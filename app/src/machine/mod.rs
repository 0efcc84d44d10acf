//! What this machine has, and what uses it now: GPUs, processor, memory, disk, and the workers of live runs.

mod gpus;
mod runs;

use std::path::{Path, PathBuf};

use anyhow::Context;
use forgetlab_study::run::Results;
use forgetlab_tui::lab::{Cpu, Machine, Room, WorkerUse};
use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessesToUpdate, System};

use gpus::{Driver, Gpus};
use runs::{LiveRun, LiveRuns};

/// Reads the machine again and again.
pub struct Reader {
    gpus: Box<dyn Gpus>,
    system: System,
    runs: LiveRuns,
    results: PathBuf,
    /// Whether what is counted over time was counted before.
    counted: bool,
}

impl Reader {
    /// A reader of this machine and of the runs of a results folder.
    ///
    /// # Errors
    /// Where the system tells nothing of itself.
    pub fn new(results: Results) -> anyhow::Result<Self> {
        Self::with_gpus(results, Box::new(Driver::load()))
    }

    fn with_gpus(results: Results, gpus: Box<dyn Gpus>) -> anyhow::Result<Self> {
        Ok(Self {
            gpus,
            system: System::new().context("cannot read what this machine has")?,
            results: results.runs(),
            runs: LiveRuns::new(results),
            counted: false,
        })
    }

    /// The machine as it is now. What is counted over time is counted since the last reading.
    pub fn read(&mut self) -> Machine {
        let (mut gpus, gpu_problem) = match self.gpus.read() {
            Ok(gpus) => (gpus, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        let live = self.runs.look();
        let workers = live.iter().filter_map(|run| run.pid);
        let on_gpus = gpus.iter().flat_map(|gpu| &gpu.processes);
        let pids: Vec<Pid> = workers
            .chain(on_gpus.map(|process| process.pid))
            .chain([std::process::id()])
            .map(Pid::from_u32)
            .collect();
        self.system.refresh_memory();
        self.system.refresh_cpu_usage();
        let seen = |pid: &Pid| self.system.process(*pid).is_some();
        let seen_before: Vec<Pid> = pids.iter().copied().filter(seen).collect();
        let wanted = ProcessRefreshKind::nothing().with_cpu().with_memory();
        self.system.refresh_processes_specifics(
            ProcessesToUpdate::Some(&pids),
            true,
            wanted.without_tasks(),
        );
        for process in gpus.iter_mut().flat_map(|gpu| &mut gpu.processes) {
            let here = self.system.process(Pid::from_u32(process.pid));
            process.name = here.map(|here| here.name().to_string_lossy().into_owned());
            let run = live.iter().find(|run| run.pid == Some(process.pid));
            process.run = run.map(|run| run.name.clone());
        }
        let workers = live.into_iter().map(|run| {
            let process = run.pid.and_then(|pid| self.worker(pid));
            let on_gpus = gpus.iter().flat_map(|gpu| &gpu.processes);
            let own = on_gpus.filter(|on| process.is_some() && Some(on.pid) == run.pid);
            let gpu_memory = own.filter_map(|on| on.memory).reduce(|a, b| a + b);
            worker_use(run, process, &seen_before, gpu_memory)
        });
        let workers = workers.collect();
        let cpu = self.cpu();
        self.counted = true;
        Machine {
            gpus,
            gpu_problem,
            cpu,
            memory: self.memory(),
            disk: disk(&self.results),
            workers,
        }
    }

    /// The process of a worker. An id that was read from a lock may be that of another machine: here it is nobody's, or
    /// another program's.
    fn worker(&self, pid: u32) -> Option<&Process> {
        let own = self.system.process(Pid::from_u32(std::process::id()))?;
        let process = self.system.process(Pid::from_u32(pid))?;
        (process.name() == own.name()).then_some(process)
    }

    fn cpu(&self) -> Cpu {
        let load = System::load_average().unwrap_or_default();
        let share = |percent: f32| f64::from(percent / 100.0).clamp(0.0, 1.0);
        let cores = self.system.cpus();
        Cpu {
            used: self.counted.then(|| share(self.system.global_cpu_usage())),
            count: cores.len(),
            cores: match self.counted {
                true => cores.iter().map(|core| share(core.usage())).collect(),
                false => Vec::new(),
            },
            load: [load.one, load.five, load.fifteen],
        }
    }

    /// Memory that is used and cannot be had back, and all there is; of a control group with a limit, its own.
    fn memory(&self) -> Room {
        let (total, available) = (self.system.total_memory(), self.system.available_memory());
        let this = self.system.process(Pid::from_u32(std::process::id()));
        match this.and_then(Process::cgroup_limits) {
            Some(limits) if limits.total_memory < total => Room {
                used: limits.rss.min(limits.total_memory),
                total: limits.total_memory,
            },
            _ => Room {
                used: total.saturating_sub(available),
                total,
            },
        }
    }
}

fn worker_use(
    run: LiveRun,
    process: Option<&Process>,
    seen_before: &[Pid],
    gpu_memory: Option<u64>,
) -> WorkerUse {
    let counted = process.filter(|process| seen_before.contains(&process.pid()));
    WorkerUse {
        run: run.name,
        arm: run.arm,
        queued: run.queued,
        device: run.device,
        pid: run.pid,
        cores: counted.map(|process| f64::from(process.cpu_usage()) / 100.0),
        memory: process.map(Process::memory),
        gpu_memory,
    }
}

/// The disk that holds a folder, or would.
pub fn disk(folder: &Path) -> Option<Room> {
    let disk = rustix::fs::statvfs(nearest_folder(folder)).ok()?;
    let total = disk.f_blocks * disk.f_frsize;
    Some(Room {
        used: total.saturating_sub(disk.f_bavail * disk.f_frsize),
        total,
    })
}

/// The folder itself where it is there, else the nearest one above it.
pub fn nearest_folder(folder: &Path) -> &Path {
    let found = folder.ancestors().find(|folder| folder.is_dir());
    let found = found.filter(|folder| !folder.as_os_str().is_empty());
    found.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests;

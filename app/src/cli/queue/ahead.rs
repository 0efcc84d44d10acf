//! Who is ahead of a run or sweep that waits for a device.

use std::path::{Path, PathBuf};

use forgetlab_study::printed::one_line;
use forgetlab_study::run::{Queue, Results, RunDir, SweepDir, Ticket, Waiting, is_worked_on};

use super::super::{devices, neighbours};

/// Runs and sweeps that work on a device, as far as they can be seen from a folder: under the results folder, beside
/// the folder, and what came out of the line. What waits itself is none of them.
pub fn working_on(device: &str, folder: &Path) -> Vec<PathBuf> {
    let results = Results::from_env();
    let waits = |folder: &Path| Ticket::of(folder).is_some();
    let runs = neighbours::live_beside(folder).into_iter();
    let runs = runs.filter(|run| !waits(run.path()) && on(device, run));
    let mut all: Vec<PathBuf> = runs.map(|run| run.path().to_owned()).collect();
    // Between two of its points, too.
    let sweeps = results.sweeps().unwrap_or_default().into_iter();
    let sweeps = sweeps.filter(|sweep| {
        let works = is_worked_on(sweep.path()) && !waits(sweep.path());
        works && device_of(sweep).as_deref() == Some(device)
    });
    all.extend(sweeps.map(|sweep| sweep.path().to_owned()));
    all.extend(Queue::of(&results).working_on(device).unwrap_or_default());
    let own = neighbours::whole(folder);
    all.retain(|other| neighbours::whole(other) != own);
    all
}

fn on(device: &str, run: &RunDir) -> bool {
    devices::of_run(run).as_deref() == Some(device)
}

/// The device that a sweep is to be worked on, by this process: that of its first point.
pub fn device_of(sweep: &SweepDir) -> Option<String> {
    let spec = sweep.spec().ok()?;
    let config = sweep.config(&spec.points.first()?.name).ok()?;
    Some(devices::own(&config.device))
}

/// The place of a run or sweep in the line; `None` where it is in none.
pub fn place(folder: &Path) -> Option<Waiting> {
    let ticket = Ticket::of(folder)?;
    let line = Queue::of(&Results::from_env()).line().ok()?;
    line.into_iter().find(|waiting| waiting.ticket == ticket)
}

/// Whether a run or sweep in line is behind another one, or somebody works on its device: else its turn comes at once.
pub fn is_held_up(folder: &Path) -> bool {
    place(folder).is_some_and(|Waiting { ticket, place, .. }| {
        place > 1 || !working_on(&ticket.device, folder).is_empty()
    })
}

/// What a run or sweep waits for, in words; `None` where it is not in line.
pub fn words(folder: &Path) -> Option<String> {
    let Waiting { ticket, place, .. } = self::place(folder)?;
    let device = &ticket.device;
    let behind = match place {
        1 => working_on(device, folder).into_iter().next(),
        _ => {
            let line = Queue::of(&Results::from_env()).line().ok()?;
            let before = |w: &&Waiting| w.ticket.device == *device && w.place + 1 == place;
            line.iter().find(before).map(|before| before.folder.clone())
        }
    };
    let behind = behind.map_or(String::new(), |other| {
        format!(", behind {}", one_line(&RunDir::name_of(&other)))
    });
    Some(format!("waits for {device}, place {place} in line{behind}"))
}

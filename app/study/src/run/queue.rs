//! The line of runs and sweeps that wait for a device on which others work.
//!
//! ```text
//! results/queue/lock        held while somebody decides whose turn it is
//! results/queue/00000007    a place: the device, and the folder of the run or sweep
//! RUN/queued.json           its ticket, while its worker waits
//! ```
//!
//! A worker that waits holds its run's lock (of a sweep, the lease of who works through it), so a ticket counts while
//! that is held: one of a worker that was killed is void at once. Its turn has come where nobody stands before it and
//! nobody works on the device. Then it gives up its ticket, under the lock of the line, and from there on counts as
//! working. The place stays until the run is not worked on any more, so that runs in other folders are known, too.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::file::{create_folder, read_small, remove_if_there};
use super::{Results, RunDir, RunError, SweepDir, write_atomically};

/// The ticket in the folder of a run or sweep.
const TICKET: &str = "queued.json";
const LOCK: &str = "lock";
/// Bytes of a ticket or a place, at most.
const LONGEST: u64 = 64 << 10;

/// The line of a results folder.
#[derive(Clone, Debug)]
pub struct Queue {
    folder: PathBuf,
}

/// The right to a place in the line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// Number in the line, of all devices: the lowest is next.
    pub number: u64,
    /// Device, as `cpu` or `cuda:N`.
    pub device: String,
    /// Since when it waits, seconds since the Unix epoch.
    pub since: f64,
}

/// A run or sweep that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Its folder.
    pub folder: PathBuf,
    /// Its ticket.
    pub ticket: Ticket,
    /// Its place among those that wait for the same device, from 1.
    pub place: usize,
}

/// Whether a turn has come.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    /// Yes: from here on the run counts as working.
    Come,
    /// No: this run or sweep works on the device, or stands before it.
    Behind(PathBuf),
    /// Never: the ticket is gone, and with it the folder.
    Gone,
}

/// A place that counts.
struct Place {
    device: String,
    folder: PathBuf,
    /// `None` where it works.
    ticket: Option<Ticket>,
}

impl Ticket {
    /// The ticket of a run or sweep: its worker waits, or was killed while it did.
    pub fn of(folder: &Path) -> Option<Self> {
        let bytes = read_small(&folder.join(TICKET), LONGEST).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Removes what a worker that was killed in the line has left; only who works on the run may.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn discard(folder: &Path) -> Result<(), RunError> {
        remove_if_there(&folder.join(TICKET))
    }
}

impl Queue {
    /// The line of a results folder.
    pub fn of(results: &Results) -> Self {
        Self {
            folder: results.queue_folder(),
        }
    }

    /// Who waits, in order.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn line(&self) -> Result<Vec<Waiting>, RunError> {
        let mut line: Vec<Waiting> = Vec::new();
        for place in self.places(|_| Ok(()))? {
            let Some(ticket) = place.ticket else { continue };
            let before = line.iter().filter(|w| w.ticket.device == ticket.device);
            let before = before.count();
            line.push(Waiting {
                folder: place.folder,
                ticket,
                place: before + 1,
            });
        }
        Ok(line)
    }

    /// Runs and sweeps that came out of the line and now work on a device.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn working_on(&self, device: &str) -> Result<Vec<PathBuf>, RunError> {
        let places = self.places(|_| Ok(()))?.into_iter();
        let working = places.filter(|place| place.ticket.is_none() && place.device == device);
        Ok(working.map(|place| place.folder).collect())
    }

    /// Takes a place at the end of the line for a run or sweep, which this process must hold.
    ///
    /// # Errors
    /// Where the disk fails, or has no locks.
    pub fn join(&self, folder: &Path, device: &str) -> Result<Ticket, RunError> {
        let _deciding = self.decide()?;
        self.places(remove_if_there)?;
        let last = numbers(&self.folder)?.last().copied().unwrap_or(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let ticket = Ticket {
            number: last + 1,
            device: device.to_owned(),
            since: now.map_or(0.0, |since| since.as_secs_f64()),
        };
        let whole = fs::canonicalize(folder).map_err(RunError::io("find", folder))?;
        write_atomically(&self.path(ticket.number), |w| {
            writeln!(w, "{device}")?;
            w.write_all(whole.as_os_str().as_bytes())
        })?;
        write_atomically(&folder.join(TICKET), |w| {
            serde_json::to_writer(&mut *w, &ticket)?;
            w.write_all(b"\n")
        })?;
        Ok(ticket)
    }

    /// Whether the turn of a run or sweep has come: nobody stands before it, and `working` finds nobody on the device.
    /// Only one process decides at a time.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn turn(
        &self,
        folder: &Path,
        ticket: &Ticket,
        working: impl FnOnce() -> Option<PathBuf>,
    ) -> Result<Turn, RunError> {
        let _deciding = self.decide()?;
        if Ticket::of(folder).as_ref() != Some(ticket) {
            return Ok(Turn::Gone);
        }
        let places = self.places(remove_if_there)?;
        let before = places.iter().rev().find(|place| {
            let other = place.ticket.as_ref();
            let before = other.is_some_and(|other| other.number < ticket.number);
            before && place.device == ticket.device
        });
        if let Some(before) = before {
            return Ok(Turn::Behind(before.folder.clone()));
        }
        if let Some(working) = working() {
            return Ok(Turn::Behind(working));
        }
        Ticket::discard(folder)?;
        Ok(Turn::Come)
    }

    /// Gives up a place.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn leave(&self, folder: &Path, ticket: &Ticket) -> Result<(), RunError> {
        let _deciding = self.decide()?;
        Ticket::discard(folder)?;
        remove_if_there(&self.path(ticket.number))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:08}"))
    }

    /// The right to change the line, until it is dropped.
    fn decide(&self) -> Result<File, RunError> {
        create_folder(&self.folder)?;
        let path = self.folder.join(LOCK);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let file = file.open(&path).map_err(RunError::io("open", &path))?;
        file.lock().map_err(RunError::io("lock", &path))?;
        Ok(file)
    }

    /// Every place that counts, in order; what is done with the file of one that does not.
    fn places(&self, void: impl Fn(&Path) -> Result<(), RunError>) -> Result<Vec<Place>, RunError> {
        let mut places = Vec::new();
        for number in numbers(&self.folder)? {
            let path = self.path(number);
            match place(&path, number) {
                Some(place) => places.push(place),
                None => void(&path)?,
            }
        }
        Ok(places)
    }
}

/// The numbers of the line's files, in order.
fn numbers(folder: &Path) -> Result<Vec<u64>, RunError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(RunError::io("read", folder))?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(RunError::io("read", folder))?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// What a file of the line stands for; `None` where nobody works on its run, or that has another ticket by now.
fn place(path: &Path, number: u64) -> Option<Place> {
    let bytes = read_small(path, LONGEST).ok()??;
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let device = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let folder = PathBuf::from(OsString::from_vec(bytes[end + 1..].to_vec()));
    if !is_worked_on(&folder) {
        return None;
    }
    let ticket = Ticket::of(&folder);
    let counts = ticket.as_ref().is_none_or(|own| own.number == number);
    counts.then_some(Place {
        device,
        folder,
        ticket,
    })
}

/// Whether a process works on a run or through a sweep, or waits to.
pub fn is_worked_on(folder: &Path) -> bool {
    match SweepDir::open(folder) {
        Ok(sweep) => sweep.counts(&[]).is_ok_and(|counts| counts.is_live()),
        Err(_) => RunDir::open(folder).is_ok_and(|run| run.is_live()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Overrides, resolve};
    use crate::run::RunLock;

    struct Line {
        _dir: tempfile::TempDir,
        results: Results,
        queue: Queue,
    }

    impl Line {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let results = Results::new(dir.path().join("results"));
            let queue = Queue::of(&results);
            Self {
                _dir: dir,
                results,
                queue,
            }
        }

        fn run(&self) -> (RunDir, RunLock) {
            let run = self.results.create("toy-continual").unwrap();
            let config = resolve("toy-continual", &Overrides::default()).unwrap();
            run.write_config(&config).unwrap();
            let lock = run.lock().unwrap();
            (run, lock)
        }

        fn turn(&self, run: &RunDir, ticket: &Ticket) -> Turn {
            self.queue.turn(run.path(), ticket, || None).unwrap()
        }

        fn places(&self) -> Vec<(String, usize)> {
            let line = self.queue.line().unwrap().into_iter();
            line.map(|waiting| (RunDir::name_of(&waiting.folder), waiting.place))
                .collect()
        }
    }

    /// Else a later run would overtake an earlier one, or two would share a device.
    #[test]
    fn turns_come_in_order_and_each_device_has_its_own() {
        let line = Line::new();
        assert_eq!(line.places(), []);
        let (first, _first) = line.run();
        let (second, _second) = line.run();
        let (gpu, _gpu) = line.run();
        let join = |run: &RunDir, device| line.queue.join(run.path(), device).unwrap();
        let tickets = [
            join(&first, "cpu"),
            join(&second, "cpu"),
            join(&gpu, "cuda:0"),
        ];
        let expected = [(first.name(), 1), (second.name(), 2), (gpu.name(), 1)];
        assert_eq!(line.places(), expected);
        assert_eq!(line.turn(&gpu, &tickets[2]), Turn::Come);
        let first_path = fs::canonicalize(first.path()).unwrap();
        assert_eq!(
            line.turn(&second, &tickets[1]),
            Turn::Behind(first_path.clone())
        );
        // Somebody works on the device who has never stood in line.
        let other = PathBuf::from("/elsewhere");
        let busy = || Some(other.clone());
        let turn = line.queue.turn(first.path(), &tickets[0], busy).unwrap();
        assert_eq!(turn, Turn::Behind(other.clone()));
        assert_eq!(line.turn(&first, &tickets[0]), Turn::Come);
        assert_eq!(line.queue.working_on("cpu").unwrap(), [first_path]);
        assert_eq!(line.places(), [(second.name(), 1)]);
    }

    /// Else a worker that was killed would keep everybody behind it waiting for ever.
    #[test]
    fn a_ticket_of_nobody_is_void() {
        let line = Line::new();
        let (first, lock) = line.run();
        let (second, _second) = line.run();
        line.queue.join(first.path(), "cpu").unwrap();
        let ticket = line.queue.join(second.path(), "cpu").unwrap();
        drop(lock);
        assert_eq!(line.places(), [(second.name(), 1)]);
        // What it was doing when it was killed is known all the same.
        assert_eq!(Ticket::of(first.path()).unwrap().device, "cpu");
        assert_eq!(line.turn(&second, &ticket), Turn::Come);
        let _again = first.lock().unwrap();
        let ticket = line.queue.join(first.path(), "cpu").unwrap();
        assert_eq!(line.places(), [(first.name(), 1)]);
        line.queue.leave(first.path(), &ticket).unwrap();
        assert_eq!((line.places(), Ticket::of(first.path())), (vec![], None));
        // A run whose folder was taken away must not wait for ever.
        assert_eq!(line.turn(&first, &ticket), Turn::Gone);
    }

    /// Two that see the device free at the same moment must not both begin.
    #[test]
    fn of_many_that_decide_at_once_one_begins() {
        let line = Line::new();
        let runs: Vec<(RunDir, RunLock)> = (0..6).map(|_| line.run()).collect();
        let tickets: Vec<Ticket> = std::thread::scope(|scope| {
            let joins = runs.iter().map(|(run, _)| {
                let queue = &line.queue;
                scope.spawn(move || queue.join(run.path(), "cpu").unwrap())
            });
            let joins: Vec<_> = joins.collect();
            joins.into_iter().map(|join| join.join().unwrap()).collect()
        });
        let turns: Vec<Turn> = std::thread::scope(|scope| {
            let turns = runs.iter().zip(&tickets).map(|((run, _), ticket)| {
                let queue = &line.queue;
                let working = move || queue.working_on("cpu").unwrap().into_iter().next();
                scope.spawn(move || queue.turn(run.path(), ticket, working).unwrap())
            });
            let turns: Vec<_> = turns.collect();
            turns.into_iter().map(|turn| turn.join().unwrap()).collect()
        });
        let come = turns.iter().filter(|turn| **turn == Turn::Come).count();
        assert!(come <= 1, "{turns:?}");
        let next = tickets.iter().position(|ticket| ticket.number == 1);
        assert_eq!(turns[next.unwrap()], Turn::Come);
    }
}

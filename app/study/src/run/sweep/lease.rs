//! Leases: who works on which point, told by files alone, since network file systems may lack locks.
//!
//! A point's leases are `POINT.1`, `POINT.2`, …; the last one holds. It is made under a name of its own and linked to
//! its number, which only one process can do. Its holder writes a growing number into it every few seconds. It ends
//! when its holder says so, or is gone: on the same machine that is known at once, on another it is when the number
//! has not grown for a minute. A holder that finds a lease after its own has lost it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::file::{random_hex, read_small};
use super::super::{RunError, write_atomically};

/// Time between two signs of life.
const BEAT_EVERY: Duration = Duration::from_secs(5);
/// Without a sign of life for so long, a holder on another machine is gone.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// Bytes of a lease, at most.
const LONGEST: u64 = 4096;

/// Who has, or had, the lease of a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Name of the machine.
    pub host: String,
    /// Process.
    pub pid: u32,
    /// The machine, whatever its name.
    #[serde(default)]
    machine: String,
    /// The machine's boot, which a process id does not outlive.
    boot: String,
    /// Whose process ids they are: those of a container are its own.
    #[serde(default)]
    processes: String,
    /// Start of the process, in clock ticks since the boot: ids are used again.
    started: u64,
    /// Grows while the holder lives.
    beat: u64,
    /// The holder has given it back.
    released: bool,
    /// How long ago it was written, by this machine's clock.
    #[serde(skip)]
    age: Duration,
}

/// The right to work on a point; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    beats: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    next: PathBuf,
    lost: AtomicBool,
    when_lost: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    over: Mutex<bool>,
    wake: Condvar,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What became of an attempt to take a lease.
#[derive(Debug)]
pub enum Taken {
    /// It is this process'.
    Own(Lease),
    /// Somebody else has it, as far as can be told by now.
    Busy(Holder),
}

impl Holder {
    fn this_process() -> Self {
        Self {
            host: read_trimmed("/proc/sys/kernel/hostname"),
            pid: std::process::id(),
            machine: read_trimmed("/etc/machine-id"),
            boot: boot(),
            processes: process_ids(),
            started: start_of(std::process::id()).unwrap_or(0),
            beat: 0,
            released: false,
            age: Duration::ZERO,
        }
    }

    /// Whether the holder still works on the point, as far as can be told in passing.
    pub fn is_live(&self) -> bool {
        match self.known() {
            Some(lives) => lives,
            // A clock that is wrong by minutes must not make it gone.
            None => self.age < 3 * GONE_AFTER,
        }
    }

    /// Number of its signs of life.
    pub fn beat(&self) -> u64 {
        self.beat
    }

    /// Whether it lives, where that can be seen from here; of another machine, or another container of this one, it
    /// is only known by watching.
    pub fn known(&self) -> Option<bool> {
        let this = Self::this_process();
        let known = |own: &str, other: &str| !own.is_empty() && own == other;
        let here = known(&self.boot, &this.boot) && known(&self.processes, &this.processes);
        // The machine has been started again since.
        let restarted = known(&self.host, &this.host)
            && known(&self.machine, &this.machine)
            && !self.boot.is_empty()
            && self.boot != this.boot;
        match (self.released || restarted, here) {
            (true, _) => Some(false),
            (false, true) => Some(start_of(self.pid) == Some(self.started)),
            (false, false) => None,
        }
    }
}

impl Lease {
    /// Takes the lease of a point, unless somebody has it. Of a holder on another machine it is known that it is gone
    /// only a minute after the first attempt: try again now and then.
    pub(super) fn take(leases: &Path, point: &str) -> Result<Taken, RunError> {
        let number = match last(leases, point)? {
            Some((number, holder)) => {
                if !is_gone(&path(leases, point, number), &holder) {
                    return Ok(Taken::Busy(holder));
                }
                number + 1
            }
            None => 1,
        };
        let own = Holder::this_process();
        let target = path(leases, point, number);
        if !link(leases, &target, &own)? {
            let holder = last(leases, point)?.map_or(own, |(_, holder)| holder);
            return Ok(Taken::Busy(holder));
        }
        // The last one tells the number of the next: only those before it may go.
        for old in (1..number).rev().map(|number| path(leases, point, number)) {
            if fs::remove_file(old).is_err() {
                break;
            }
        }
        let shared = Arc::new(Shared {
            path: target,
            next: path(leases, point, number + 1),
            lost: AtomicBool::new(false),
            when_lost: Mutex::new(None),
            over: Mutex::new(false),
            wake: Condvar::new(),
        });
        let beating = Arc::clone(&shared);
        let beats = thread::Builder::new()
            .name("lease".into())
            .spawn(move || beating.beat(own))
            .map_err(RunError::io("watch", &shared.path))?;
        Ok(Taken::Own(Self {
            shared,
            beats: Some(beats),
        }))
    }

    /// Whether somebody else took it, thinking that this process was gone.
    pub fn is_lost(&self) -> bool {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Has this done, on another thread, when the lease is found to be lost.
    pub fn when_lost(&self, act: impl FnOnce() + Send + 'static) {
        *lock(&self.shared.when_lost) = Some(Box::new(act));
    }
}

impl Shared {
    /// Gives signs of life until the lease is given back or lost.
    fn beat(&self, mut own: Holder) {
        let mut over = lock(&self.over);
        loop {
            if !*over {
                let waited = self.wake.wait_timeout(over, BEAT_EVERY);
                over = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if self.next.symlink_metadata().is_ok() {
                self.lost.store(true, Ordering::Relaxed);
                if let Some(act) = lock(&self.when_lost).take() {
                    act();
                }
                return;
            }
            own.beat += 1;
            own.released = *over;
            // A disk that is full now may have room at the next beat.
            let _ = write(&self.path, &own);
            if *over {
                return;
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *lock(&self.shared.over) = true;
        self.shared.wake.notify_all();
        if let Some(beats) = self.beats.take() {
            let _ = beats.join();
        }
    }
}

/// The last lease of a point.
pub(super) fn holder(leases: &Path, point: &str) -> Result<Option<Holder>, RunError> {
    Ok(last(leases, point)?.map(|(_, holder)| holder))
}

fn path(leases: &Path, point: &str, number: u64) -> PathBuf {
    leases.join(format!("{point}.{number}"))
}

/// The last lease of a point, with its number.
fn last(leases: &Path, point: &str) -> Result<Option<(u64, Holder)>, RunError> {
    let entries = match fs::read_dir(leases) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(RunError::io("read", leases))?,
    };
    let mut most = None;
    for entry in entries {
        let entry = entry.map_err(RunError::io("read", leases))?.file_name();
        let number = entry.to_str().and_then(|name| {
            let (of, number) = name.rsplit_once('.')?;
            number.parse::<u32>().ok().filter(|_| of == point)
        });
        most = most.max(number);
    }
    let Some(number) = most.map(u64::from) else {
        return Ok(None);
    };
    let path = path(leases, point, number);
    let bytes = read_small(&path, LONGEST)?.unwrap_or_default();
    // A spoilt one is that of a holder that gives no sign of life.
    let holder = serde_json::from_slice(&bytes).unwrap_or_else(|_| Holder {
        host: "an unknown machine".into(),
        pid: 0,
        machine: String::new(),
        boot: String::new(),
        processes: String::new(),
        started: 0,
        beat: 0,
        released: false,
        age: Duration::ZERO,
    });
    let written = fs::metadata(&path).and_then(|data| data.modified()).ok();
    let age = written.and_then(|written| written.elapsed().ok());
    Ok(Some((
        number,
        Holder {
            age: age.unwrap_or_default(),
            ..holder
        },
    )))
}

/// Writes a lease and gives it its number; `false` where another process has it.
fn link(leases: &Path, target: &Path, own: &Holder) -> Result<bool, RunError> {
    let temporary = leases.join(format!(".tmp-{}", random_hex(8)));
    write(&temporary, own)?;
    let linked = match fs::hard_link(&temporary, target) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(RunError::io("link", target)(error)),
    };
    // Nobody reads it.
    let _ = fs::remove_file(&temporary);
    linked
}

fn write(path: &Path, holder: &Holder) -> Result<(), RunError> {
    write_atomically(path, |w| {
        serde_json::to_writer(&mut *w, holder)?;
        w.write_all(b"\n")
    })
}

/// Whether the holder of a lease is gone for sure.
fn is_gone(path: &Path, holder: &Holder) -> bool {
    match holder.known() {
        Some(lives) => !lives,
        None => seen(path, holder).is_some_and(|first| first.elapsed() >= GONE_AFTER),
    }
}

/// When this process first saw a lease as it is now.
fn seen(path: &Path, holder: &Holder) -> Option<Instant> {
    static SEEN: OnceLock<Mutex<BTreeMap<PathBuf, (u64, Instant)>>> = OnceLock::new();
    let seen = SEEN.get_or_init(Mutex::default);
    let mut seen = lock(seen);
    let entry = seen.entry(path.to_owned());
    let known = entry.or_insert_with(|| (holder.beat, Instant::now()));
    if known.0 != holder.beat {
        *known = (holder.beat, Instant::now());
    }
    Some(known.1)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names the process ids that this process sees.
fn process_ids() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().into_owned()
}

fn boot() -> String {
    read_trimmed("/proc/sys/kernel/random/boot_id")
}

/// Start of a process that lives, in clock ticks since the boot (field 22 of its `stat`).
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name, in parentheses, may hold anything.
    let mut after_name = stat.rsplit_once(')')?.1.split_whitespace();
    let state = after_name.next()?;
    let started = after_name.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

fn read_trimmed(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn own(taken: Taken) -> Lease {
        match taken {
            Taken::Own(lease) => lease,
            Taken::Busy(holder) => panic!("{holder:?}"),
        }
    }

    /// Two processes on one point would do its work twice, or ruin its run.
    #[test]
    fn one_process_has_a_point_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let take = || Lease::take(dir.path(), "a").unwrap();
        let lease = own(take());
        let Taken::Busy(holder) = take() else {
            panic!("taken twice");
        };
        assert_eq!(holder.pid, std::process::id());
        assert!(holder.is_live() && !lease.is_lost());
        let _other = own(Lease::take(dir.path(), "b").unwrap());
        drop(lease);
        assert!(!super::holder(dir.path(), "a").unwrap().unwrap().is_live());
        let again = own(take());
        let names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(names.contains(&"a.2".into()) && !names.contains(&"a.1".into()));
        drop(again);
    }

    /// Of many that try at once, one must win, whether or not there was a holder before.
    #[test]
    fn of_many_at_once_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let all: Vec<Taken> = thread::scope(|scope| {
                let attempts: Vec<_> = (0..8)
                    .map(|_| scope.spawn(|| Lease::take(dir.path(), "a").unwrap()))
                    .collect();
                attempts.into_iter().map(|t| t.join().unwrap()).collect()
            });
            let won = all.iter().filter(|taken| matches!(taken, Taken::Own(_)));
            assert_eq!(won.count(), 1);
        }
    }

    /// A killed worker must not hold its point until somebody deletes a file.
    #[test]
    fn a_holder_that_is_gone_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut holder = Holder {
            pid: child.id(),
            started: start_of(child.id()).unwrap(),
            ..Holder::this_process()
        };
        write(&path(dir.path(), "a", 7), &holder).unwrap();
        assert!(matches!(
            Lease::take(dir.path(), "a").unwrap(),
            Taken::Busy(_)
        ));
        child.kill().unwrap();
        // Also before anybody has waited for it.
        while start_of(child.id()).is_some() {
            thread::sleep(Duration::from_millis(5));
        }
        let lease = own(Lease::take(dir.path(), "a").unwrap());
        child.wait().unwrap();
        assert!(dir.path().join("a.8").exists());
        drop(lease);
        // The same id, used again by another process.
        holder.pid = std::process::id();
        holder.started += 1;
        write(&path(dir.path(), "b", 1), &holder).unwrap();
        drop(own(Lease::take(dir.path(), "b").unwrap()));
        // On another machine, or in another container, it is not known yet.
        for (point, change) in [("c", "host"), ("d", "processes"), ("e", "spoilt")] {
            let mut other = holder.clone();
            match change {
                "host" => (other.host, other.boot) = ("another".into(), "another".into()),
                _ => other.processes = "another".into(),
            }
            write(&path(dir.path(), point, 1), &other).unwrap();
            if change == "spoilt" {
                fs::write(path(dir.path(), point, 1), "{").unwrap();
            }
            let Taken::Busy(found) = Lease::take(dir.path(), point).unwrap() else {
                panic!("{change}");
            };
            assert!(found.is_live() && found.known().is_none(), "{change}");
            let silent = Holder {
                age: 4 * GONE_AFTER,
                ..found
            };
            assert!(!silent.is_live(), "{change}");
        }
        // This machine, started again since.
        if !holder.machine.is_empty() {
            holder.boot = "the one before".into();
            write(&path(dir.path(), "f", 1), &holder).unwrap();
            drop(own(Lease::take(dir.path(), "f").unwrap()));
        }
    }

    /// A machine that was asleep for an hour must notice that others went on without it.
    #[test]
    fn a_holder_finds_out_that_it_was_followed() {
        let dir = tempfile::tempdir().unwrap();
        let lease = own(Lease::take(dir.path(), "a").unwrap());
        let told = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&told);
        lease.when_lost(move || tell.store(true, Ordering::Relaxed));
        write(&path(dir.path(), "a", 2), &Holder::this_process()).unwrap();
        lease.shared.wake.notify_all();
        while !lease.is_lost() {
            lease.shared.wake.notify_all();
            thread::sleep(Duration::from_millis(5));
        }
        let before = fs::read(path(dir.path(), "a", 2)).unwrap();
        drop(lease);
        assert!(told.load(Ordering::Relaxed));
        assert_eq!(fs::read(path(dir.path(), "a", 2)).unwrap(), before);
    }
}

//! The results folder, which holds all runs and the cache.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::file::{create_folder, random_hex};
use super::{Labels, PhaseCache, RunDir, RunError, RunState, RunStatus, SweepDir};

/// The results folder: `results/`, or the folder in `FORGETLAB_RESULTS`.
#[derive(Clone, Debug)]
pub struct Results {
    root: PathBuf,
}

/// What a name on the command line stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A run.
    Run(RunDir),
    /// A sweep.
    Sweep(SweepDir),
}

/// A run in the list.
#[derive(Debug)]
pub struct RunSummary {
    /// Directory of the run.
    pub dir: RunDir,
    /// Name of the run.
    pub name: String,
    /// What its files say, or why they cannot be read.
    pub found: Result<RunFound, RunError>,
}

/// What the files of a run say.
#[derive(Clone, Debug)]
pub struct RunFound {
    /// Status of the run.
    pub status: RunStatus,
    /// State derived from its events; where it is brief, a long run's has the last evaluation of every arm alone, no
    /// metrics, replay samples and log.
    pub state: RunState,
    /// Its `config.toml`, whichever version wrote it.
    pub settings: toml::Table,
}

impl RunFound {
    /// Reads the files of a run whole, and as far as they are whole.
    ///
    /// # Errors
    /// Where they cannot be read or are damaged.
    pub fn whole(dir: &RunDir) -> Result<Self, RunError> {
        let live = dir.is_live();
        let state = dir.load_state()?;
        Ok(Self {
            status: RunDir::status_of(live, &state),
            state,
            settings: dir.read_toml()?,
        })
    }

    /// Reads what a list shows of a run.
    ///
    /// # Errors
    /// Where its files cannot be read or are damaged.
    pub fn brief(dir: &RunDir) -> Result<Self, RunError> {
        // The lock before the events: a run that ends in between is not called crashed.
        let live = dir.is_live();
        let state = dir.brief_state(live)?;
        Ok(Self {
            status: RunDir::status_of(live, &state),
            state,
            settings: dir.read_toml()?,
        })
    }
}

impl RunSummary {
    /// Compact time of the run's first event to the microsecond, else its name, which mostly begins with a time.
    pub fn start(&self) -> String {
        let times = self.found.as_ref().ok().and_then(|found| found.state.times);
        times.map_or_else(|| self.name.clone(), |(start, _)| precise_utc(start))
    }
}

impl Results {
    /// `FORGETLAB_RESULTS`, or `results` under the current folder.
    pub fn from_env() -> Self {
        match env::var_os("FORGETLAB_RESULTS") {
            Some(root) if !root.is_empty() => Self::new(root.into()),
            _ => Self::new("results".into()),
        }
    }

    /// Results under a given folder.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder of the runs.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// Folder of what is kept for later runs.
    pub fn cache_folder(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Folder of the line of runs that wait for a device.
    pub fn queue_folder(&self) -> PathBuf {
        self.root.join("queue")
    }

    /// Folder of texts that were tokenized for runs.
    pub fn tokens(&self) -> PathBuf {
        self.cache_folder().join("tokens")
    }

    /// The cache of phases shared between runs.
    pub fn cache(&self) -> PhaseCache {
        PhaseCache::new(self.cache_folder())
    }

    /// Creates an empty run directory `<UTC>-<experiment>-<4 hex>`.
    pub fn create(&self, experiment: &str) -> Result<RunDir, RunError> {
        match RunDir::out(&self.create_folder(experiment)?)? {
            super::OutFolder::Fresh(run) | super::OutFolder::Existing(run) => Ok(run),
        }
    }

    /// Creates an empty folder of that name for a run or a sweep.
    pub fn create_folder(&self, experiment: &str) -> Result<PathBuf, RunError> {
        let runs = self.runs();
        create_folder(&runs)?;
        loop {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs();
            let path = runs.join(format!(
                "{}-{experiment}-{}",
                compact_utc(now),
                random_hex(4)
            ));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(RunError::io("create", &path)(error)),
            }
        }
    }

    /// Finds a run by its path, its name, a unique beginning of its name or its display name.
    ///
    /// # Errors
    /// Where there is none, more than one, or it is a sweep.
    pub fn find(&self, run: &str) -> Result<RunDir, RunError> {
        match self.find_any(run)? {
            Found::Run(dir) => Ok(dir),
            Found::Sweep(sweep) => Err(RunError::IsSweep {
                path: sweep.path().to_owned(),
            }),
        }
    }

    /// Finds a run or a sweep by its path, its name, a unique beginning of its name or the display name that somebody
    /// gave it; the run of a point as `SWEEP/POINT`.
    ///
    /// # Errors
    /// Where there is none, or more than one.
    pub fn find_any(&self, name: &str) -> Result<Found, RunError> {
        let names = self.names(holds_either)?;
        if names.iter().any(|known| known == name) {
            return open_either(&self.runs().join(name));
        }
        let path = Path::new(name);
        if holds_either(path) {
            return open_either(path);
        }
        let matches: Vec<&String> = names
            .iter()
            .filter(|known| known.starts_with(name))
            .collect();
        match matches[..] {
            [found] if !name.is_empty() => return open_either(&self.runs().join(found)),
            [] => {
                if let Some(found) = self.by_display_name(name, &names)? {
                    return open_either(&self.runs().join(found));
                }
            }
            _ => {
                let matches = matches.into_iter().cloned().collect();
                return Err(RunError::Ambiguous {
                    name: name.to_owned(),
                    matches,
                });
            }
        }
        if path.is_dir() {
            return open_either(path);
        }
        // A point of a sweep, `SWEEP/POINT` or `SWEEP/points/POINT`.
        if let Some((sweep, point)) = name.rsplit_once('/') {
            match self.find_any(sweep.strip_suffix("/points").unwrap_or(sweep)) {
                Ok(Found::Sweep(sweep)) => {
                    let point = sweep.find(point)?.name;
                    return RunDir::open(&sweep.point_path(&point)).map(Found::Run);
                }
                Err(error @ RunError::Ambiguous { .. }) => return Err(error),
                _ => {}
            }
        }
        Err(RunError::NotFound {
            name: name.to_owned(),
            runs: self.runs(),
            near: near(name, &names),
        })
    }

    /// The run or sweep that somebody called so; `None` where nobody did.
    ///
    /// # Errors
    /// Where there are several.
    fn by_display_name(&self, wanted: &str, names: &[String]) -> Result<Option<String>, RunError> {
        let is_called = |name: &&String| {
            let path = self.runs().join(name);
            let labels = Labels::read(&path).unwrap_or_default();
            labels.name.is_some_and(|name| name == wanted)
        };
        let mut called: Vec<String> = names.iter().filter(is_called).cloned().collect();
        match called.len() {
            0 | 1 => Ok(called.pop()),
            _ => Err(RunError::Ambiguous {
                name: wanted.to_owned(),
                matches: called,
            }),
        }
    }

    /// Every sweep by its name, which begins with its start.
    ///
    /// # Errors
    /// Where the folder of the runs cannot be read.
    pub fn sweeps(&self) -> Result<Vec<SweepDir>, RunError> {
        let names = self.names(SweepDir::holds_sweep)?.into_iter();
        // One that was removed just now is none.
        Ok(names
            .filter_map(|name| SweepDir::open(&self.runs().join(name)).ok())
            .collect())
    }

    /// Every run by its start, oldest first; also those that cannot be read.
    pub fn list(&self) -> Result<Vec<RunSummary>, RunError> {
        let runs = self
            .names(RunDir::holds_run)?
            .into_iter()
            .filter_map(|name| {
                // One that was removed just now is none.
                let dir = RunDir::open(&self.runs().join(&name)).ok()?;
                let found = RunFound::brief(&dir);
                let gone = found.is_err() && !RunDir::holds_run(dir.path());
                (!gone).then_some(RunSummary { dir, name, found })
            });
        let mut runs: Vec<RunSummary> = runs.collect();
        runs.sort_by_cached_key(|run| (run.start(), run.name.clone()));
        Ok(runs)
    }

    /// The folder of every run by its name, unread.
    ///
    /// # Errors
    /// Where the folder of the runs cannot be read.
    pub fn run_dirs(&self) -> Result<Vec<(String, RunDir)>, RunError> {
        let names = self.names(RunDir::holds_run)?.into_iter();
        let open = |name: String| {
            let dir = RunDir::open(&self.runs().join(&name)).ok()?;
            Some((name, dir))
        };
        Ok(names.filter_map(open).collect())
    }

    fn names(&self, holds: fn(&Path) -> bool) -> Result<Vec<String>, RunError> {
        let runs = self.runs();
        let entries = match fs::read_dir(&runs) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(RunError::io("read", &runs)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(RunError::io("read", &runs))?;
            if holds(&entry.path()) {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    }
}

fn holds_either(path: &Path) -> bool {
    RunDir::holds_run(path) || SweepDir::holds_sweep(path)
}

fn open_either(path: &Path) -> Result<Found, RunError> {
    match SweepDir::holds_sweep(path) {
        true => SweepDir::open(path).map(Found::Sweep),
        false => RunDir::open(path).map(Found::Run),
    }
}

/// Runs to suggest for an unknown name: those that contain it, begin with something similar, or are
/// similar as a whole; three at most.
fn near(run: &str, names: &[String]) -> Vec<String> {
    let mut scored: Vec<(f64, &String)> = names
        .iter()
        .map(|name| {
            let score = if !run.is_empty() && name.contains(run) {
                1.0
            } else {
                let head = name.get(..run.len()).unwrap_or(name);
                strsim::jaro_winkler(run, name).max(strsim::normalized_levenshtein(run, head))
            };
            (score, name)
        })
        .filter(|(score, _)| *score > 0.8)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored
        .into_iter()
        .take(3)
        .map(|(_, name)| name.clone())
        .collect()
}

/// Seconds since the epoch as `YYYYMMDDTHHMMSSZ`.
fn compact_utc(seconds: u64) -> String {
    let [year, month, day, hour, minute, second] = civil(seconds);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Seconds since the epoch as `YYYYMMDDTHHMMSSZ`, a point and six digits of the second: sorts as time does.
fn precise_utc(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    let micros = (seconds.fract() * 1e6) as u32;
    format!("{}.{micros:06}", compact_utc(seconds as u64))
}

/// Seconds since the epoch as `YYYY-MM-DD HH:MM:SS`, in UTC.
pub fn readable_utc(seconds: u64) -> String {
    let [year, month, day, hour, minute, second] = civil(seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Year, month, day, hour, minute, second in UTC.
fn civil(seconds: u64) -> [u64; 6] {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, in eras of 400 years (Hinnant, "chrono-compatible low-level
    // date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    [year, month, day, rest / 3600, rest / 60 % 60, rest % 60]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Overrides, resolve};

    fn results() -> (tempfile::TempDir, Results) {
        let dir = tempfile::tempdir().unwrap();
        let results = Results::new(dir.path().join("results"));
        (dir, results)
    }

    fn add(results: &Results, name: &str) {
        let path = results.runs().join(name);
        let super::super::OutFolder::Fresh(run) = RunDir::out(&path).unwrap() else {
            panic!()
        };
        run.write_config(&resolve("toy-continual", &Overrides::default()).unwrap())
            .unwrap();
    }

    /// Runs sort by time because their names do.
    #[test]
    fn names_are_utc_experiment_and_hex() {
        assert_eq!(compact_utc(1_795_439_107), "20261123T130507Z");
        assert_eq!(compact_utc(951_827_696), "20000229T123456Z");
        assert_eq!(readable_utc(0), "1970-01-01 00:00:00");
        // Two runs that start within a second stand in the order they started in.
        assert_eq!(precise_utc(1_795_439_107.25), "20261123T130507Z.250000");
        assert!(precise_utc(1_795_439_107.25) < precise_utc(1_795_439_107.5));
        let (_dir, results) = results();
        let run = results.create("toy-continual").unwrap();
        let name = run.name();
        let parts: Vec<_> = name.split('-').collect();
        assert_eq!(parts.len(), 4, "{name}");
        assert!(parts[3].len() == 4 && parts[3].chars().all(|c| c.is_ascii_hexdigit()));
        // Not a run before it has a configuration.
        assert!(results.list().unwrap().is_empty());
    }

    /// Nobody types a whole run name; a wrong one must lead to the right one.
    #[test]
    fn a_run_is_found_by_path_prefix_or_near_miss() {
        let (_dir, results) = results();
        add(&results, "20261123T130507Z-toy-continual-ab12");
        add(&results, "20261124T090000Z-toy-continual-cd34");
        assert_eq!(results.list().unwrap().len(), 2);
        let name = |run: &str| {
            results
                .find(run)
                .map(|r| r.name())
                .map_err(|e| e.to_string())
        };
        let first = "20261123T130507Z-toy-continual-ab12";
        assert_eq!(name(first).unwrap(), first);
        assert_eq!(name("20261123").unwrap(), first);
        assert_eq!(
            name(results.runs().join(first).to_str().unwrap()).unwrap(),
            first
        );
        let ambiguous = name("2026112").unwrap_err();
        assert!(
            ambiguous.contains("ab12") && ambiguous.contains("cd34"),
            "{ambiguous}"
        );
        let missed = name("20261123T130507Z-toy-continual-ab13").unwrap_err();
        assert!(
            missed.contains("did you mean") && missed.contains("ab12"),
            "{missed}"
        );
        // What somebody called it, where it is one alone.
        let called = |run: &str| {
            let run = results.find(run).unwrap();
            let mut labels = run.labels().unwrap();
            labels.name = Some("the good one".into());
            run.set_labels(&labels).unwrap();
        };
        called("20261123");
        assert_eq!(name("the good one").unwrap(), first);
        assert!(name("the good").is_err());
        called("20261124");
        let ambiguous = name("the good one").unwrap_err();
        assert!(
            ambiguous.contains("ab12") && ambiguous.contains("cd34"),
            "{ambiguous}"
        );
        let missed = name("cd34").unwrap_err();
        assert!(missed.contains("did you mean 20261124"), "{missed}");
        let nothing = name("zzz").unwrap_err();
        assert!(nothing.contains("forgetlab list"), "{nothing}");
    }
}

//! The results folder, which holds all runs and the cache.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::file::{create_folder, random_hex};
use super::{PhaseCache, RunDir, RunError, RunState, RunStatus};

/// The results folder: `results/`, or the folder in `FORGETLAB_RESULTS`.
#[derive(Clone, Debug)]
pub struct Results {
    root: PathBuf,
}

/// A line of `forgetlab list`.
#[derive(Clone, Debug)]
pub struct RunSummary {
    /// Directory of the run.
    pub dir: RunDir,
    /// Name of the run.
    pub name: String,
    /// Status of the run.
    pub status: RunStatus,
    /// State derived from its events.
    pub state: RunState,
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

    /// The cache of phases shared between runs.
    pub fn cache(&self) -> PhaseCache {
        PhaseCache::new(self.root.join("cache"))
    }

    /// Creates an empty run directory `<UTC>-<experiment>-<4 hex>`.
    pub fn create(&self, experiment: &str) -> Result<RunDir, RunError> {
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
                Ok(()) => match RunDir::out(&path)? {
                    super::OutFolder::Fresh(run) | super::OutFolder::Existing(run) => {
                        return Ok(run);
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(RunError::io("create", &path)(error)),
            }
        }
    }

    /// Finds a run by its path, its name or a unique beginning of its name.
    pub fn find(&self, run: &str) -> Result<RunDir, RunError> {
        let names = self.names()?;
        if names.iter().any(|name| name == run) {
            return RunDir::open(&self.runs().join(run));
        }
        let path = Path::new(run);
        if RunDir::holds_run(path) {
            return RunDir::open(path);
        }
        let matches: Vec<&String> = names.iter().filter(|name| name.starts_with(run)).collect();
        match matches[..] {
            [name] if !run.is_empty() => return RunDir::open(&self.runs().join(name)),
            [] => {}
            _ => {
                let matches = matches.into_iter().cloned().collect();
                return Err(RunError::Ambiguous {
                    name: run.to_owned(),
                    matches,
                });
            }
        }
        if path.is_dir() {
            return RunDir::open(path);
        }
        Err(RunError::NotFound {
            name: run.to_owned(),
            runs: self.runs(),
            near: near(run, &names),
        })
    }

    /// Every run, oldest first.
    pub fn list(&self) -> Result<Vec<RunSummary>, RunError> {
        self.names()?
            .into_iter()
            .map(|name| {
                let dir = RunDir::open(&self.runs().join(&name))?;
                // The lock before the events: a run that ends in between is not called crashed.
                let live = dir.is_live();
                let state = dir.load_state()?;
                Ok(RunSummary {
                    status: RunDir::status_of(live, &state),
                    dir,
                    name,
                    state,
                })
            })
            .collect()
    }

    fn names(&self) -> Result<Vec<String>, RunError> {
        let runs = self.runs();
        let entries = match fs::read_dir(&runs) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(RunError::io("read", &runs)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(RunError::io("read", &runs))?;
            if RunDir::holds_run(&entry.path()) {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
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
        let missed = name("cd34").unwrap_err();
        assert!(missed.contains("did you mean 20261124"), "{missed}");
        let nothing = name("zzz").unwrap_err();
        assert!(nothing.contains("forgetlab list"), "{nothing}");
    }
}

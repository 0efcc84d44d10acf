//! A sweep on disk: a folder with an ordinary run for each point.
//!
//! ```text
//! sweep.toml            the points, in order; written last, it makes the folder a sweep
//! configs/POINT.toml    the configuration of each point, complete
//! points/POINT/         its run, once somebody has begun with it
//! leases/               who works on which point
//! refused/POINT.txt     why a point could not begin
//! logs/POINT.log        what was printed while it was worked on
//! ```
//!
//! What has become of a point is told by its run and its lease alone, so nothing has to be kept in step.

mod counts;
mod first_arm;
mod lease;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::experiment::{AxisValue, Point, RunConfig, differences};

use super::directory::read_toml;
use super::file::{create_folder, read_small};
use super::{RunDir, RunError, RunStatus, StopRequest, write_atomically};

pub use counts::SweepCounts;
pub use first_arm::FirstArm;
pub use lease::{Holder, Lease, Taken};

const SWEEP: &str = "sweep.toml";
/// The lease of who works through the points; no point is called so.
const THROUGH: &str = ".sweep";
/// Bytes that are read of why a point could not begin.
const LONGEST_REASON: u64 = 64 << 10;

/// The folder of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepDir {
    path: PathBuf,
}

/// What `sweep.toml` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepSpec {
    /// Experiment.
    pub experiment: String,
    /// Preset.
    pub preset: String,
    /// Points, in the order in which they are worked on.
    pub points: Vec<PointSpec>,
}

/// A point in `sweep.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointSpec {
    /// Name, of its files and folders.
    pub name: String,
    /// Its grid; empty where the sweep has one alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub grid: String,
    /// Its place on each axis.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub place: Vec<AxisValue>,
}

/// What has become of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointStatus {
    /// Nobody has begun with it.
    Waiting,
    /// Somebody works on it.
    Live,
    /// Its run has begun, and can be gone on with.
    Unfinished,
    /// Its run is whole.
    Finished,
    /// Its run is over, but an arm has failed.
    Failed,
    /// It could not begin, for this reason.
    Refused(String),
}

impl PointStatus {
    /// The status in one word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Live => "live",
            Self::Unfinished => "unfinished",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether somebody may begin, or go on, with it without being asked to.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Waiting | Self::Unfinished)
    }
}

impl SweepDir {
    /// Opens a sweep.
    ///
    /// # Errors
    /// Where the folder is none.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        match Self::holds_sweep(path) {
            true => Ok(Self {
                path: path.to_owned(),
            }),
            false => Err(RunError::NotARun {
                path: path.to_owned(),
            }),
        }
    }

    /// Whether a folder holds a sweep.
    pub fn holds_sweep(path: &Path) -> bool {
        path.join(SWEEP).is_file()
    }

    /// Writes a new sweep into a folder, which is made if missing and must be empty.
    ///
    /// # Errors
    /// Where it holds something else, or cannot be written.
    pub fn create(path: &Path, points: &[Point]) -> Result<Self, RunError> {
        create_folder(path)?;
        let sweep = Self {
            path: path.to_owned(),
        };
        // One that was killed before it was whole leaves only these.
        must_hold_only(path, |entry| entry == "configs")?;
        if sweep.join("configs").is_dir() {
            must_hold_only(&sweep.join("configs"), |entry| {
                let mut own = points.iter();
                own.any(|point| entry == &*format!("{}.toml", point.name))
            })?;
        }
        create_folder(&sweep.join("configs"))?;
        for point in points {
            write_toml(&sweep.config_path(&point.name), &point.config)?;
        }
        let first = points.first().map(|point| &point.config);
        let spec = SweepSpec {
            experiment: first.map_or_else(String::new, |config| config.experiment.clone()),
            preset: first.map_or_else(String::new, |config| config.preset.clone()),
            points: points
                .iter()
                .map(|point| PointSpec {
                    name: point.name.clone(),
                    grid: point.grid.clone(),
                    place: point.place.clone(),
                })
                .collect(),
        };
        write_toml(&sweep.join(SWEEP), &spec)?;
        Ok(sweep)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder's name.
    pub fn name(&self) -> String {
        RunDir::name_of(&self.path)
    }

    /// Path of a file or folder of the sweep.
    pub fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.path.join(relative)
    }

    /// Reads `sweep.toml`.
    ///
    /// # Errors
    /// Where it cannot be read, or names a point twice or with what no file can be called.
    pub fn spec(&self) -> Result<SweepSpec, RunError> {
        let path = self.join(SWEEP);
        let spec: SweepSpec = read_toml(&path)?;
        let malformed = |problem: String| RunError::Malformed {
            path: path.clone(),
            problem,
        };
        let mut seen = BTreeSet::new();
        for PointSpec { name, .. } in &spec.points {
            let is_plain = Path::new(name)
                .file_name()
                .is_some_and(|file| file == &**name);
            if !is_plain {
                return Err(malformed(format!("`{name}` is no name of a point")));
            }
            if !seen.insert(name) {
                return Err(malformed(format!("point {name} stands there twice")));
            }
        }
        Ok(spec)
    }

    /// A point of the sweep by its name, or a unique beginning of it.
    ///
    /// # Errors
    /// Where there is none, or more than one.
    pub fn find(&self, name: &str) -> Result<PointSpec, RunError> {
        let spec = self.spec()?;
        if let Some(point) = spec.points.iter().find(|point| point.name == name) {
            return Ok(point.clone());
        }
        let near: Vec<&PointSpec> = spec
            .points
            .iter()
            .filter(|point| !name.is_empty() && point.name.starts_with(name))
            .collect();
        match near[..] {
            [point] => Ok(point.clone()),
            [] => Err(RunError::NotFound {
                name: name.to_owned(),
                runs: self.join("points"),
                near: Vec::new(),
            }),
            _ => Err(RunError::Ambiguous {
                name: name.to_owned(),
                matches: near.iter().map(|point| point.name.clone()).collect(),
            }),
        }
    }

    /// The configuration of a point.
    ///
    /// # Errors
    /// Where it is missing or spoilt.
    pub fn config(&self, point: &str) -> Result<RunConfig, RunError> {
        read_toml(&self.config_path(point))
    }

    fn config_path(&self, point: &str) -> PathBuf {
        self.join("configs").join(format!("{point}.toml"))
    }

    /// Folder of a point's run.
    pub fn point_path(&self, point: &str) -> PathBuf {
        self.join("points").join(point)
    }

    /// Whether a folder is that of a point of the sweep in another, if there is one.
    pub(super) fn is_point(sweep: &Path, folder: &Path) -> bool {
        let points = sweep.join("points");
        Self::holds_sweep(sweep) && folder.parent() == Some(&points)
    }

    /// A point's run, once somebody has begun with it.
    pub fn run(&self, point: &str) -> Option<RunDir> {
        RunDir::open(&self.point_path(point)).ok()
    }

    /// Refuses a run that stands in the place of a point's and is another.
    ///
    /// # Errors
    /// [`RunError::ForeignRun`] names the first setting that differs.
    pub fn check_run(&self, point: &str) -> Result<(), RunError> {
        let Some(run) = self.run(point) else {
            return Ok(());
        };
        let json = |config: RunConfig| serde_json::to_value(config).unwrap_or_default();
        let (wanted, found) = (json(self.config(point)?), json(run.read_config()?));
        match differences(&wanted, &found).into_iter().next() {
            Some(setting) => Err(RunError::ForeignRun {
                path: run.path().to_owned(),
                key: setting.key,
                wanted: setting.first,
                found: setting.second,
            }),
            None => Ok(()),
        }
    }

    /// Refuses a run that is surely another's. Where the two configurations cannot be compared, its point alone is
    /// the worse for it.
    ///
    /// # Errors
    /// [`RunError::ForeignRun`].
    pub fn refuse_foreign(&self, point: &str) -> Result<(), RunError> {
        match self.check_run(point) {
            Err(error @ RunError::ForeignRun { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// What has become of a point.
    ///
    /// # Errors
    /// Where its run cannot be read.
    pub fn status(&self, point: &str) -> Result<PointStatus, RunError> {
        if self.lease_of(point)?.is_some_and(|holder| holder.is_live()) {
            return Ok(PointStatus::Live);
        }
        if let Some(run) = self.run(point) {
            return Ok(match run.status()? {
                RunStatus::Live => PointStatus::Live,
                RunStatus::Finished => PointStatus::Finished,
                RunStatus::Failed => PointStatus::Failed,
                RunStatus::Interrupted | RunStatus::Crashed => PointStatus::Unfinished,
            });
        }
        Ok(match self.refusal(point)? {
            Some(reason) => PointStatus::Refused(reason),
            None => PointStatus::Waiting,
        })
    }

    /// Why a point could not begin, where it was tried.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub fn refusal(&self, point: &str) -> Result<Option<String>, RunError> {
        let reason = read_small(&self.refused_path(point), LONGEST_REASON)?;
        Ok(reason.map(|reason| String::from_utf8_lossy(&reason).trim().to_owned()))
    }

    /// Every point with what has become of it.
    ///
    /// # Errors
    /// Where the sweep cannot be read; a run that cannot is told as refused.
    pub fn statuses(&self) -> Result<Vec<(PointSpec, PointStatus)>, RunError> {
        let points = self.spec()?.points.into_iter();
        let all = points.map(|point| {
            let status = self.status(&point.name);
            let status = status.unwrap_or_else(|error| PointStatus::Refused(error.to_string()));
            (point, status)
        });
        Ok(all.collect())
    }

    /// Refuses to make a folder anew that was moved away.
    fn must_be_there(&self) -> Result<(), RunError> {
        Self::open(&self.path).map(drop)
    }

    fn refused_path(&self, point: &str) -> PathBuf {
        self.join("refused").join(format!("{point}.txt"))
    }

    /// Notes why a point could not begin.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn refuse(&self, point: &str, reason: &str) -> Result<(), RunError> {
        self.must_be_there()?;
        create_folder(&self.join("refused"))?;
        write_atomically(&self.refused_path(point), |w| writeln!(w, "{reason}"))
    }

    /// Lets a point that was refused or has failed begin anew; its run is set aside.
    ///
    /// # Errors
    /// Where files cannot be moved.
    pub fn retry(&self, point: &str, _lease: &Lease) -> Result<(), RunError> {
        super::remove_if_there(&self.refused_path(point))?;
        let Some(run) = self
            .run(point)
            .filter(|run| run.status().is_ok_and(|status| status == RunStatus::Failed))
        else {
            return Ok(());
        };
        let aside = self.join("set-aside");
        create_folder(&aside)?;
        let free = (1..).map(|n| aside.join(format!("{point}.{n}")));
        for path in free {
            if path.symlink_metadata().is_err() {
                return fs::rename(run.path(), &path)
                    .map_err(RunError::io("set aside", run.path()));
            }
        }
        Ok(())
    }

    /// Folder of what was printed while points were worked on.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn log_path(&self, point: &str) -> Result<PathBuf, RunError> {
        self.must_be_there()?;
        let logs = self.join("logs");
        create_folder(&logs)?;
        Ok(logs.join(format!("{point}.log")))
    }

    /// The request to stop, to make, check or clear.
    pub fn stop_request(&self) -> StopRequest {
        StopRequest::new(&self.path)
    }

    /// Who has worked last on a point, or does so now.
    ///
    /// # Errors
    /// Where leases cannot be read.
    pub fn lease_of(&self, point: &str) -> Result<Option<Holder>, RunError> {
        lease::holder(&self.join("leases"), point)
    }

    /// How the sweep stands, given how its points do.
    ///
    /// # Errors
    /// Where leases cannot be read.
    pub fn counts(&self, statuses: &[(PointSpec, PointStatus)]) -> Result<SweepCounts, RunError> {
        Ok(SweepCounts {
            worked_on: self
                .lease_of(THROUGH)?
                .is_some_and(|holder| holder.is_live()),
            ..SweepCounts::of(statuses.iter().map(|(_, status)| status))
        })
    }

    /// Says, while it is kept, that a process works through the points: then the sweep is live also between two of
    /// them. `None` where another process says so.
    ///
    /// # Errors
    /// Where leases cannot be read or written.
    pub fn work_through(&self) -> Result<Option<Lease>, RunError> {
        match self.take(THROUGH)? {
            Taken::Own(lease) => Ok(Some(lease)),
            Taken::Busy(_) => Ok(None),
        }
    }

    /// Takes the lease of a point, unless somebody has it. That a holder on another machine is gone is known a minute
    /// after the first attempt.
    ///
    /// # Errors
    /// Where leases cannot be read or written.
    pub fn take(&self, point: &str) -> Result<Taken, RunError> {
        self.must_be_there()?;
        let leases = self.join("leases");
        create_folder(&leases)?;
        Lease::take(&leases, point)
    }
}

/// Refuses a folder with other entries than these, and what a killed process had begun to write.
fn must_hold_only(folder: &Path, is_own: impl Fn(&OsStr) -> bool) -> Result<(), RunError> {
    for entry in fs::read_dir(folder).map_err(RunError::io("read", folder))? {
        let entry = entry.map_err(RunError::io("read", folder))?.file_name();
        if !is_own(&entry) && !entry.as_encoded_bytes().starts_with(b".tmp-") {
            let entry = entry.to_string_lossy().into_owned();
            return Err(RunError::OccupiedOut {
                path: folder.to_owned(),
                entry,
            });
        }
    }
    Ok(())
}

fn write_toml(path: &Path, value: &impl Serialize) -> Result<(), RunError> {
    let text = toml::to_string(value).map_err(|error| RunError::Malformed {
        path: path.to_owned(),
        problem: error.to_string(),
    })?;
    write_atomically(path, |w| w.write_all(text.as_bytes()))
}

#[cfg(test)]
mod tests;

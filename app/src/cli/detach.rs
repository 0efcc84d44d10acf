//! Runs in the background: a worker in a session of its own, and the process that waits until it has begun.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use forgetlab_study::printed::path_in_line;
use forgetlab_study::run::{RunDir, RunStatus};

use super::worker::WorkerArgs;
use super::{advice, exit, out, unless_gone};
use crate::last_words::{LOG, heading};

/// Time a detached worker may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a worker in a session of its own and waits until it has begun.
pub fn start(dir: &RunDir, skip_arms: &[String], args: &WorkerArgs) -> anyhow::Result<u8> {
    // Where another process has it, says so before that one's log is touched.
    drop(dir.lock()?);
    let log = Log::begin(dir.join(LOG))?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command
        .args(["worker", "detached"])
        .arg(absolute(dir.path())?);
    for arm in skip_arms {
        command.arg("--skip-arm").arg(arm);
    }
    for plugin_dir in &args.plugin_dir {
        command.arg("--plugin-dir").arg(absolute(plugin_dir)?);
    }
    if args.no_cache {
        command.arg("--no-cache");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(log.share()?)
        .stderr(log.share()?)
        .spawn()
        .context("cannot start a worker process")?;
    wait_for_begin(dir, &mut child, &log)?;
    let (attach, path) = (advice::attach(dir), path_in_line(dir.path()));
    let mut out = out::stdout();
    unless_gone(write!(
        out,
        "running in the background; watch it with `{attach}`\n{path}\n"
    ))?;
    Ok(exit::DONE)
}

/// Waits until a worker has said in the run's events that it has begun.
fn wait_for_begin(dir: &RunDir, child: &mut Child, log: &Log) -> anyhow::Result<()> {
    let patience = Instant::now();
    let mut follow = dir.follow();
    loop {
        follow.poll()?;
        if follow.state.pid == Some(child.id()) {
            return Ok(());
        }
        if let Some(status) = child.try_wait().context("cannot watch the worker")? {
            if matches!(dir.status()?, RunStatus::Finished | RunStatus::Failed) {
                return Ok(());
            }
            match log.said().trim() {
                "" => bail!("the worker ended at once ({status}) without a word"),
                said => bail!(
                    "the worker ended at once ({status}): {}",
                    said.strip_prefix("error: ").unwrap_or(said)
                ),
            }
        }
        if patience.elapsed() > PATIENCE {
            // It may be reading large files.
            if dir.is_live() {
                return Ok(());
            }
            bail!(
                "the worker has not begun after {PATIENCE:?}; see {}",
                log.path.display()
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The log of a run's detached workers, to which one more writes.
struct Log {
    path: PathBuf,
    file: File,
    /// Where that one's output begins.
    from: u64,
}

impl Log {
    fn begin(path: PathBuf) -> anyhow::Result<Self> {
        let open = OpenOptions::new().create(true).append(true).open(&path);
        let begun = open.and_then(|mut file| {
            file.write_all(heading().as_bytes())?;
            let from = file.metadata()?.len();
            Ok((file, from))
        });
        let (file, from) = begun.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, file, from })
    }

    fn share(&self) -> anyhow::Result<File> {
        let file = self.file.try_clone();
        file.context("cannot share the worker's log")
    }

    /// What the worker has said.
    fn said(&self) -> String {
        let mut said = Vec::new();
        if let Ok(mut file) = File::open(&self.path)
            && file.seek(SeekFrom::Start(self.from)).is_ok()
        {
            // As much as can be had.
            let _ = file.read_to_end(&mut said);
        }
        String::from_utf8_lossy(&said).into_owned()
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))
}

//! Runs in the background: a worker in a session of its own, and the process that waits until it has begun.

use std::io::Write;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use forgetlab_study::printed::path_in_line;
use forgetlab_study::run::{RunDir, RunStatus};

use super::process_log::{ProcessLog, command};
use super::worker::WorkerArgs;
use super::{advice, exit, out, queue, unless_gone};
use crate::last_words::LOG;

/// Time a detached worker may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a worker in a session of its own and waits until it has begun.
pub fn start(dir: &RunDir, skip_arms: &[String], args: &WorkerArgs) -> anyhow::Result<u8> {
    // Where another process has it, says so before that one's log is touched.
    drop(dir.lock()?);
    let log = ProcessLog::begin(dir.join(LOG))?;
    let mut command = command(&["worker", "detached"], dir.path(), args)?;
    for arm in skip_arms {
        command.arg("--skip-arm").arg(arm);
    }
    let mut child = log.start(&mut command)?;
    wait_for_begin(dir, &mut child, &log)?;
    let (attach, path) = (advice::attach(dir), path_in_line(dir.path()));
    let how = queue::words(dir.path()).unwrap_or_else(|| "running in the background".into());
    let mut out = out::stdout();
    unless_gone(write!(out, "{how}; watch it with `{attach}`\n{path}\n"))?;
    Ok(exit::DONE)
}

/// Waits until a worker has said in the run's events that it has begun, or waits in line for others.
fn wait_for_begin(dir: &RunDir, child: &mut Child, log: &ProcessLog) -> anyhow::Result<()> {
    let patience = Instant::now();
    let mut follow = dir.follow();
    loop {
        follow.poll()?;
        let waits = || dir.live() == Some(Some(child.id())) && queue::is_held_up(dir.path());
        if follow.state.pid == Some(child.id()) || waits() {
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

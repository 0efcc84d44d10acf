//! The body of a point: one command that starts its run, or goes on with it, and can be given to any scheduler.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use forgetlab_study::run::{Lease, OutFolder, PointStatus, RunDir, RunStatus, SweepDir, Taken};
use rustix::process::Signal;

use super::super::new_run::{NewRun, has_begun};
use super::super::supervise::{self, Parent};
use super::super::work::{self, Work};
use super::super::{exit, out, resume, unless_gone, warn};
use super::complete;

/// Takes the lease of a point, and has its work done by a process that this one waits for.
pub fn run(sweep: &SweepDir, name: &str, args: &resume::Args) -> anyhow::Result<ExitCode> {
    if let Some(parent) = args.with_parent {
        end_with(parent)?;
    }
    let point = sweep.find(name)?.name;
    let lease = take(sweep, &point)?;
    lease.when_lost(|| {
        warn("error: another process took this point over, since this one gave no sign of life for a minute");
        // The worker ends with this process.
        signal_hook::low_level::exit(i32::from(exit::FAILED));
    });
    if args.retry {
        sweep.retry(&point, &lease)?;
    }
    sweep.check_run(&point)?;
    // Not whether somebody has the lease: it is this process.
    let over = match (sweep.run(&point), sweep.refusal(&point)?) {
        (None, Some(reason)) => {
            bail!("{point} was refused before: {reason}; try it again with --retry")
        }
        (None, None) => None,
        (Some(run), _) => match run.status() {
            // It goes back to what is whole before that is read.
            Err(_) if args.go_back => None,
            status => match status? {
                RunStatus::Finished => Some(PointStatus::Finished),
                RunStatus::Failed => Some(PointStatus::Failed),
                _ => None,
            },
        },
    };
    if let Some(status) = over {
        complete(sweep, &point, &status)?;
        unless_gone(writeln!(out::stdout(), "{point} is {}", status.word()))?;
        return Ok(ExitCode::from(match status {
            PointStatus::Failed => exit::ARM_FAILED,
            _ => exit::DONE,
        }));
    }
    let code = supervise::run(&args.worker);
    drop(lease);
    code
}

/// Takes the lease of a point. A holder that cannot be seen from here is watched, until it gives a sign of life or has
/// given none for long enough.
fn take(sweep: &SweepDir, point: &str) -> anyhow::Result<Lease> {
    let mut first = None;
    loop {
        let holder = match sweep.take(point)? {
            Taken::Own(lease) => return Ok(lease),
            Taken::Busy(holder) => holder,
        };
        let who = format!("process {} on {}", holder.pid, holder.host);
        if holder.known().is_some() || first.is_some_and(|beat| beat != holder.beat()) {
            bail!("{point} is being worked on by {who}");
        }
        if first.is_none() {
            first = Some(holder.beat());
            warn(format_args!(
                "{point} was taken by {who}; waiting a minute for a sign of life"
            ));
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// Whether the system had no room, or would not write: another time it may.
fn is_passing(error: &anyhow::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let mut kinds = error
        .chain()
        .filter_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
    kinds.any(|kind| matches!(kind, QuotaExceeded | ReadOnlyFilesystem | StorageFull))
}

/// Ends with the process that started this one: what it worked on stops with a checkpoint.
fn end_with(parent: u32) -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
        .context("cannot follow the end of the parent process")?;
    // It may have ended before that: then another process is this one's parent.
    if std::os::unix::process::parent_id() != parent {
        bail!("the process that works on the sweep is gone");
    }
    Ok(())
}

/// What the process of a point does: starts its run, or goes on with it.
pub fn body(
    sweep: &SweepDir,
    point: &str,
    args: &resume::Args,
    parent: &Parent,
) -> anyhow::Result<u8> {
    let point = sweep.find(point)?.name;
    let path = sweep.point_path(&point);
    let work = |dir: &RunDir| -> anyhow::Result<u8> {
        let work = Work {
            dir,
            skip_arms: &args.skip_arm,
            args: &args.worker,
            parent,
        };
        work.go_on(None, None)
    };
    if let OutFolder::Existing(dir) = RunDir::out(&path)? {
        if args.go_back {
            for line in dir.go_back(&dir.lock()?)? {
                warn(line);
            }
        }
        return work(&dir);
    }
    let started = start(sweep, &point, args, parent);
    if let Err(error) = &started
        && !is_passing(error)
        && !RunDir::open(&path).is_ok_and(|dir| has_begun(&dir))
    {
        let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
        // The error is told in any case.
        let _ = sweep.refuse(&point, &causes.join("; "));
    }
    started
}

fn start(
    sweep: &SweepDir,
    point: &str,
    args: &resume::Args,
    parent: &Parent,
) -> anyhow::Result<u8> {
    let prepared = work::prepare(sweep.config(point)?, &args.worker)?;
    let mut run = NewRun::create(&prepared.config, Some(&sweep.point_path(point)))?;
    let lock = run.lock.take();
    let work = Work {
        dir: &run.dir,
        skip_arms: &args.skip_arm,
        args: &args.worker,
        parent,
    };
    work.start(lock, prepared).inspect_err(|_| run.undo())
}

//! `forgetlab runs`: makes room.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use forgetlab_engine::human_bytes;
use forgetlab_study::printed::{one_line, path_in_line};
use forgetlab_study::run::{Results, RunDir, RunError, RunFound, RunStatus, shell_path};

use super::confirm::confirmed;
use super::{Usage, WhileRead, exit, out, unless_gone, warn};

/// Runs on disk.
#[derive(clap::Args)]
pub struct RunsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Remove runs that hold nothing of use, or those that are named; shows them and asks first
    Prune(Prune),
    /// Remove runs with everything in them; shows them and asks first
    Delete(Delete),
}

#[derive(clap::Args)]
struct Delete {
    /// Paths, names, unique beginnings of names or display names
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Without RUN and --failed: runs that ended before anything was measured, and those whose every arm failed.
#[derive(clap::Args)]
struct Prune {
    /// These runs instead, whatever they hold: paths, names or unique beginnings of names
    #[arg(value_name = "RUN", conflicts_with = "failed")]
    runs: Vec<String>,
    /// Also runs that ended with an arm failed or skipped
    #[arg(long)]
    failed: bool,
    /// Only runs whose last event is that long ago
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u32>,
    /// Of runs that have come to their end remove the checkpoints alone; figures stay, weights do not
    #[arg(long)]
    checkpoints_only: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// A run that could go.
struct Candidate {
    dir: RunDir,
    /// Time of its last event when it was looked at.
    last: Option<f64>,
    bytes: u64,
    why: String,
}

/// Runs `forgetlab runs`.
pub fn run(args: RunsArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Prune(args) => prune(&args),
        Command::Delete(Delete { runs, yes }) => prune(&Prune {
            runs,
            yes,
            failed: false,
            older_than: None,
            checkpoints_only: false,
        }),
    }
}

fn prune(args: &Prune) -> anyhow::Result<ExitCode> {
    let results = Results::from_env();
    let candidates = match args.runs[..] {
        [] => unneeded(args, &results)?,
        _ => named(args, &results)?,
    };
    let mut out = WhileRead(out::stdout());
    let what = if args.checkpoints_only {
        "the checkpoints of"
    } else {
        ""
    };
    if candidates.is_empty() {
        let runs = results.runs();
        writeln!(out, "nothing to remove under {}", path_in_line(&runs))?;
        return Ok(ExitCode::SUCCESS);
    }
    show(&mut out, &candidates)?;
    let question = format!("remove {what} these runs? [y/N] ").replace("  ", " ");
    if !args.yes && !confirmed(&mut out, &question)? {
        return Ok(ExitCode::SUCCESS);
    }
    let (mut removed, mut bytes) = (0, 0);
    for candidate in &candidates {
        match remove(candidate, args.checkpoints_only) {
            Ok(()) => {
                removed += 1;
                bytes += candidate.bytes;
            }
            Err(error) => warn(format_args!("error: {error}")),
        }
    }
    let told = format!("removed {what} {}", runs_and_bytes(removed, bytes)).replace("  ", " ");
    unless_gone(writeln!(out, "{told}"))?;
    Ok(match removed == candidates.len() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit::FAILED),
    })
}

/// Runs under the results folder that nobody would miss, or that have come to their end with checkpoints left.
fn unneeded(args: &Prune, results: &Results) -> anyhow::Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    for run in results.list()? {
        // Nothing goes on the word of an index.
        let found = match run.found.and_then(|_| RunFound::whole(&run.dir)) {
            Ok(found) => found,
            Err(error) => {
                warn(format_args!(
                    "{} is unreadable and stays: {error}",
                    run.name
                ));
                continue;
            }
        };
        let failed = args.failed && found.status == RunStatus::Failed;
        let why = if args.checkpoints_only {
            let over = match args.failed {
                true => failed,
                false => is_over(found.status),
            };
            over.then(|| found.status.word())
        } else {
            let failed = failed.then_some("an arm failed or was skipped");
            found.useless(&run.dir).or(failed)
        };
        let is_link = run.dir.path().is_symlink();
        if let Some(why) = why.filter(|_| !is_link && run.dir.is_certain()) {
            candidates.extend(candidate(run.dir, &found, why, args));
        }
    }
    Ok(candidates)
}

/// The runs that are named.
fn named(args: &Prune, results: &Results) -> anyhow::Result<Vec<Candidate>> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for name in &args.runs {
        let dir = results.find(name)?;
        if dir.path().is_symlink() || !dir.is_certain() {
            return Err(Usage(format!("{name} is no run, and stays")).into());
        }
        if dir.is_live() {
            return Err(Usage(format!("{name} is live, and stays")).into());
        }
        // What cannot be read can still go.
        let found = RunFound::whole(&dir).unwrap_or_else(|_| RunFound {
            status: RunStatus::Crashed,
            state: Default::default(),
            settings: Default::default(),
        });
        if args.checkpoints_only && !is_over(found.status) {
            let why = format!("{name} can still be resumed from its checkpoints, which stay");
            return Err(Usage(why).into());
        }
        if candidates.iter().all(|other| other.dir != dir) {
            candidates.extend(candidate(dir, &found, found.status.word(), args));
        }
    }
    Ok(candidates)
}

fn is_over(status: RunStatus) -> bool {
    matches!(status, RunStatus::Finished | RunStatus::Failed)
}

/// A run that is old enough and takes room.
fn candidate(dir: RunDir, found: &RunFound, why: &str, args: &Prune) -> Option<Candidate> {
    let days = args.older_than.unwrap_or(0);
    let age = Duration::from_secs(u64::from(days) * 24 * 60 * 60);
    let bytes = match args.checkpoints_only {
        true => dir.checkpoints_size(),
        false => dir.size(),
    };
    let nothing = args.checkpoints_only && bytes == 0;
    if nothing || (days > 0 && found.age(&dir) < age) {
        return None;
    }
    let mut why = why.to_owned();
    let foreign = dir.foreign();
    if !args.checkpoints_only && !foreign.is_empty() {
        why += &format!("; also holds {}", foreign.join(", "));
    }
    Some(Candidate {
        last: found.state.times.map(|(_, last)| last),
        dir,
        bytes,
        why,
    })
}

fn show(out: &mut impl Write, candidates: &[Candidate]) -> io::Result<()> {
    let path = |candidate: &Candidate| shell_path(candidate.dir.path());
    let width = candidates.iter().map(|c| path(c).chars().count()).max();
    let width = width.unwrap_or(0);
    for candidate in candidates {
        writeln!(
            out,
            "{:<width$}  {:>9}  {}",
            path(candidate),
            human_bytes(candidate.bytes as f64),
            one_line(&candidate.why)
        )?;
    }
    let bytes = candidates.iter().map(|candidate| candidate.bytes).sum();
    writeln!(out, "{}", runs_and_bytes(candidates.len(), bytes))
}

fn runs_and_bytes(runs: usize, bytes: u64) -> String {
    let s = if runs == 1 { "" } else { "s" };
    format!("{runs} run{s}, {}", human_bytes(bytes as f64))
}

/// Removes a run that is still what it was when it was shown.
fn remove(candidate: &Candidate, checkpoints_only: bool) -> Result<(), RunError> {
    let dir = &candidate.dir;
    let lock = dir.lock()?;
    let last = dir.load_state().ok().and_then(|state| state.times);
    if last.map(|(_, last)| last) != candidate.last {
        return Err(RunError::Malformed {
            path: dir.path().to_owned(),
            problem: "it was worked on meanwhile, and stays".into(),
        });
    }
    match checkpoints_only {
        true => dir.remove_checkpoints(&lock),
        false => dir.remove(&lock),
    }
}

//! `forgetlab add`, and what it has in common with `forgetlab stop --arm`: requests to the worker of a run.

use std::io::Write;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use forgetlab_study::experiment::ArmSpec;
use forgetlab_study::printed::one_line;
use forgetlab_study::run::{Ask, Results, RunDir};
use forgetlab_worker::train::with_arm;

use super::progress::LOOK_EVERY;
use super::worker::{WorkerArgs, folder, registry};
use super::{advice, exit, out, unless_gone, warn};

/// Arguments of `add`.
#[derive(clap::Args)]
pub struct Args {
    /// Run: a path, a name or the unique beginning of a name
    run: String,
    /// Arms, as `run --arms` takes them: `STRATEGY[:OBJECTIVE[:COEFF]][+KEY=VALUE]...`
    #[arg(required = true, value_name = "ARM")]
    arms: Vec<String>,
    /// Also look for strategies in this folder (may be given again)
    #[arg(long, value_name = "DIR", value_parser = folder())]
    plugin_dir: Vec<std::path::PathBuf>,
}

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for more arms; they begin with the weights at the end of the run's first phase.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let dir = Results::from_env().find(&args.run)?;
    // Until the worker has answered: a command that others give at the same time could be one against this one.
    let _command = dir.command()?;
    let requests = dir.requests();
    requests.may_add()?;
    let mut plugin_dir = args.plugin_dir;
    plugin_dir.extend(advice::loaded_from(&dir));
    let registry = registry(&WorkerArgs {
        plugin_dir,
        ..WorkerArgs::default()
    });
    let mut config = dir.read_config()?;
    for request in requests.pending()? {
        // What waits is as good as there; whether it can be met is told to who asked for it.
        if let Ok(Ask::AddArm(arm)) = request.ask
            && let Ok((with, _)) = with_arm(&config, &arm, &registry)
        {
            config = with;
        }
    }
    let mut arms = Vec::new();
    for text in &args.arms {
        let spec = ArmSpec::parse(text, config.replay.coeff)?;
        config = with_arm(&config, &spec, &registry)?.0;
        arms.extend(config.arms.last().cloned());
    }
    let mut asked = Vec::new();
    for arm in arms {
        asked.push(Asked {
            id: requests.add_arm(&arm)?,
            what: format!("add {}", arm.name()),
        });
    }
    wait(&dir, &asked)
}

/// A request that was made.
pub struct Asked {
    pub id: String,
    /// What it asks for, e.g. `add none+lr=1e-3`.
    pub what: String,
}

/// Waits a while for the answers of a live run, and tells what became of each request.
pub fn wait(dir: &RunDir, asked: &[Asked]) -> anyhow::Result<ExitCode> {
    let mut out = out::stdout();
    let since = Instant::now();
    let mut follow = dir.follow_quickly()?;
    let mut open: Vec<&Asked> = asked.iter().collect();
    let mut refused = false;
    loop {
        // The lock before the events: what a worker answered before it ended is read below.
        let live = dir.is_live();
        follow.catch_up()?;
        let mut waiting = Vec::new();
        for asked in open {
            let what = one_line(&asked.what).into_owned();
            match follow.state.answer(&asked.id).map(|a| &a.refused) {
                None => waiting.push(asked),
                Some(None) => unless_gone(writeln!(out, "done: {what}"))?,
                Some(Some(why)) => {
                    refused = true;
                    warn(format_args!("error: refused to {what}: {}", one_line(why)));
                }
            }
        }
        open = waiting;
        if open.is_empty() || !live || since.elapsed() >= PATIENCE {
            for asked in open {
                let what = one_line(&asked.what);
                let when = match live {
                    true => "the worker takes it up when the arm at its turn comes to its next evaluation; \
                             `forgetlab attach` shows it"
                        .to_owned(),
                    false => format!("taken up by `{}`", advice::resume(dir, &[])),
                };
                unless_gone(writeln!(out, "waits: {what}: {when}"))?;
            }
            return Ok(match refused {
                true => ExitCode::from(exit::FAILED),
                false => ExitCode::SUCCESS,
            });
        }
        thread::sleep(LOOK_EVERY);
    }
}

//! The command line: one file a subcommand, each an `Args` for clap and a `run` that does it.

mod attach;
mod bench;
mod compare;
mod data;
mod doctor;
mod experiments;
mod lab;
mod list;
mod model;
mod plugins;
mod progress;
mod resume;
mod run;
mod sample;
mod stop;
mod trained_arm;
mod verify;
mod worker;

use std::io;
use std::panic;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use forgetlab_study::experiment::SpecError;
use forgetlab_study::report::Glyphs;
use forgetlab_study::run::{RunError, RunStatus};
use forgetlab_worker::train::PrepareError;

/// Measures how much a language model forgets when finetuned, and which replay stops it.
///
/// Without a command it opens the lab on this terminal.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run an experiment in this process, or in the background with --detach
    Run(run::Args),
    /// Go on with a run that was interrupted or crashed
    Resume(resume::Args),
    /// Watch a run that goes on elsewhere; Ctrl-C leaves it going
    Attach(attach::Args),
    /// Stop a live run at its next step, with a checkpoint
    Stop(stop::Args),
    /// List all runs, newest last
    List(list::Args),
    /// Compare the arms of one or more runs
    Compare(compare::Args),
    /// List experiments, or show the presets of one
    Experiments(experiments::Args),
    /// List, check or start writing replay strategies
    Plugins(plugins::PluginsArgs),
    /// Look at training data as tokens, or make a file of them
    Data(data::DataArgs),
    /// Inspect pretrained models, or export one for others to load
    Model(model::ModelArgs),
    /// Show what a pretrained model writes, and how likely it finds it
    Sample(sample::Args),
    /// Check what works on this machine and what does not
    Doctor(doctor::Args),
    /// Check this machine's numerics against a parity fixture
    Verify(verify::Args),
    /// Measure training, generation and evaluation on this machine
    Bench(bench::Args),
    #[command(hide = true)]
    Worker(worker::Args),
}

/// The exit codes scripts may rely on.
pub mod exit {
    /// Failed.
    pub const FAILED: u8 = 1;
    /// The command line asks for something that does not exist or makes no sense.
    pub const USAGE: u8 = 2;
    /// The run finished, but at least one arm failed.
    pub const ARM_FAILED: u8 = 3;
    /// Interrupted; the run can be resumed.
    pub const INTERRUPTED: u8 = 130;
}

/// Runs the command line of this process. Errors become one message and an exit code, panics too.
pub fn main() -> ExitCode {
    panic::set_hook(Box::new(|info| {
        eprintln!("error: {info}\n  this is a bug in forgetlab; a run in progress can be resumed");
    }));
    let result = panic::catch_unwind(|| dispatch(Cli::parse()));
    match result {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => report(&error),
        Err(_) => ExitCode::from(exit::FAILED),
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Some(Command::Run(args)) => run::run(args),
        Some(Command::Resume(args)) => resume::run(args),
        Some(Command::Attach(args)) => attach::run(args),
        Some(Command::Stop(args)) => stop::run(args),
        Some(Command::List(args)) => list::run(args),
        Some(Command::Compare(args)) => compare::run(args),
        Some(Command::Experiments(args)) => experiments::run(args),
        Some(Command::Plugins(args)) => plugins::run(args),
        Some(Command::Data(args)) => data::run(args),
        Some(Command::Model(args)) => model::run(args),
        Some(Command::Sample(args)) => sample::run(args),
        Some(Command::Doctor(args)) => doctor::run(args),
        Some(Command::Verify(args)) => verify::run(args),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::Worker(args)) => worker::run(args),
        None => lab::run(),
    }
}

/// Prints an error with its causes; the exit code it calls for.
fn report(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(is_broken_pipe) {
        // Somebody who has seen enough, e.g. `head`.
        return ExitCode::SUCCESS;
    }
    let mut told = error.to_string();
    eprintln!("error: {told}");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many errors quote their cause; nobody needs it twice.
        if !told.contains(&cause) {
            eprintln!("  because: {cause}");
        }
        told = cause;
    }
    let usage = error.chain().any(|cause| {
        cause.is::<SpecError>()
            || cause.downcast_ref().is_some_and(PrepareError::is_usage)
            || matches!(
                cause.downcast_ref(),
                Some(RunError::NotFound { .. } | RunError::Ambiguous { .. })
            )
    });
    ExitCode::from(if usage { exit::USAGE } else { exit::FAILED })
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// The exit code that tells how a run stands.
pub fn code_of(status: RunStatus) -> ExitCode {
    match status {
        RunStatus::Live | RunStatus::Finished => ExitCode::SUCCESS,
        RunStatus::Failed => ExitCode::from(exit::ARM_FAILED),
        RunStatus::Interrupted => ExitCode::from(exit::INTERRUPTED),
        RunStatus::Crashed => ExitCode::from(exit::FAILED),
    }
}

/// What tables may be drawn with here: the locale decides, as for other programs.
pub fn glyphs() -> Glyphs {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_default()
        .to_uppercase();
    if locale.contains("UTF-8") || locale.contains("UTF8") {
        Glyphs::Unicode
    } else {
        Glyphs::Ascii
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// A mistake in the declarations would be a panic at the first start.
    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}

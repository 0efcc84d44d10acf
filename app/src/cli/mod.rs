//! The command line: one file a subcommand, each an `Args` for clap and a `run` that does it.

mod add;
mod advice;
mod attach;
mod bench;
mod cache;
mod child;
mod compare;
mod confirm;
mod data;
mod detach;
mod devices;
mod differing;
mod disk;
mod doctor;
mod experiments;
mod export;
mod figure;
mod filtered;
mod lab;
mod label;
mod list;
mod load;
mod model;
mod neighbours;
mod new_run;
mod out;
mod plugins;
mod predict;
mod process_log;
mod progress;
mod queue;
mod resume;
mod run;
mod runs;
mod sample;
mod shell;
mod signals;
mod stop;
mod supervise;
mod sweep;
mod tokens;
mod top;
mod trained_arm;
mod verify;
mod watch;
mod work;
mod worker;

use std::fmt::{self, Display};
use std::io;
use std::panic;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use forgetlab_plugin_host::CHILD_COMMAND;
use forgetlab_study::experiment::SpecError;
use forgetlab_study::report::Glyphs;
use forgetlab_study::run::{RunError, RunStatus};
use forgetlab_worker::train::PrepareError;
use signal_hook::consts::SIGXFSZ;

use out::{WhileRead, nobody_reads, unless_gone, warn};

/// Version of the binary and the commit it was built from.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    ", commit ",
    env!("FORGETLAB_COMMIT")
);

/// Measures how much a language model forgets when finetuned, and which replay stops it.
///
/// Without a command it opens the lab on this terminal.
#[derive(Parser)]
#[command(version = VERSION, max_term_width = 100)]
struct Cli<C: Subcommand> {
    #[command(subcommand)]
    command: Option<C>,
}

/// Commands of users, and of this program's own processes.
#[derive(Subcommand)]
enum AnyCommand {
    #[command(flatten)]
    User(Command),
    #[command(hide = true)]
    Worker(child::Args),
    #[command(hide = true, name = CHILD_COMMAND)]
    PluginChild(plugins::ChildArgs),
}

#[derive(Subcommand)]
enum Command {
    /// Run an experiment or a sweep, in the background with --detach
    Run(run::Args),
    /// Go on with a run or a sweep that was interrupted or crashed
    Resume(resume::Args),
    /// Follow a run or sweep that goes on elsewhere; Ctrl-C leaves it going
    Attach(attach::Args),
    /// Print a line a few seconds apart on how runs stand, or one frame of the watch screen
    Watch(watch::Args),
    /// Stop a live run or sweep at its next step, with a checkpoint; or one arm of a run
    Stop(stop::Args),
    /// Add arms to a run, also while it is live; they share its first phase
    Add(add::Args),
    /// List all runs and sweeps, newest last, and what tells them apart
    List(list::Args),
    /// Show what this machine's GPUs, cores, memory and disk are used for, and by which run
    Top(top::Args),
    /// List the runs that wait until their device is free, in order
    Queue(queue::Args),
    /// Name, tag or annotate a run or a sweep, or print what was
    Label(label::Args),
    /// Remove runs that nobody needs, or those that are named
    Runs(runs::RunsArgs),
    /// List what was kept for later runs, or remove it
    Cache(cache::CacheArgs),
    /// Compare the arms of one or more runs
    Compare(compare::Args),
    /// Draw the figures of one or more runs again
    Figure(figure::Args),
    /// Write what runs measured for another program
    Export(export::Args),
    /// List experiments, or show the presets of one
    Experiments(experiments::Args),
    /// List, check or start writing replay strategies
    Plugins(plugins::PluginsArgs),
    /// Look at training data as tokens, or make a file of them
    Data(data::DataArgs),
    /// Inspect pretrained models, or export one for others to load
    Model(model::ModelArgs),
    /// Show what a pretrained model writes, and how likely it finds it; compare what texts begin with
    Sample(sample::Args),
    /// Check what works on this machine and what does not
    Doctor(doctor::Args),
    /// Check this machine's numerics against a fixture, or a model's against another implementation
    Verify(verify::Args),
    /// Measure training, generation and evaluation on this machine
    Bench(bench::Args),
    /// Print completions for a shell
    Completions(shell::CompletionsArgs),
    /// Print the manual page
    Man(shell::ManArgs),
}

/// The exit codes scripts may rely on.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// Failed.
    pub const FAILED: u8 = 1;
    /// The command line asks for something that does not exist or makes no sense.
    pub const USAGE: u8 = 2;
    /// The run finished, but at least one arm failed.
    pub const ARM_FAILED: u8 = 3;
    /// A limit of `compare --fail-if` does not hold.
    pub const GATE_FAILED: u8 = 4;
    /// Interrupted; the run can be resumed.
    pub const INTERRUPTED: u8 = 130;
}

/// Runs the command line of this process. Errors become one message and an exit code, panics too.
pub fn main() -> ExitCode {
    panic::set_hook(Box::new(|info| {
        if forgetlab_worker::data::panics_are_caught() {
            return;
        }
        warn(format_args!(
            "error: {info}\n  this is a bug in forgetlab; a run in progress can be resumed"
        ));
    }));
    // A limit on the size of files is told as an error of the file that has met it.
    let _ = signals::let_pass(SIGXFSZ);
    let result = panic::catch_unwind(|| match Cli::<AnyCommand>::try_parse() {
        Ok(cli) => dispatch(cli),
        Err(error) => {
            let code = error.exit_code();
            out::usage(error);
            Ok(ExitCode::from(u8::try_from(code).unwrap_or(exit::USAGE)))
        }
    });
    match result {
        Ok(Ok(code)) => code,
        // Somebody who has seen enough, e.g. `head`.
        Ok(Err(error)) if error.chain().any(is_broken_pipe) && nobody_reads() => ExitCode::SUCCESS,
        Ok(Err(error)) => ExitCode::from(report(&error)),
        Err(_) => ExitCode::from(exit::FAILED),
    }
}

fn dispatch(cli: Cli<AnyCommand>) -> anyhow::Result<ExitCode> {
    let command = match cli.command {
        Some(AnyCommand::User(command)) => command,
        Some(AnyCommand::PluginChild(args)) => return plugins::child(&args),
        Some(AnyCommand::Worker(args)) => return child::run(args),
        None => return lab::run(),
    };
    match command {
        Command::Run(args) => run::run(&args),
        Command::Resume(args) => resume::run(&args),
        Command::Attach(args) => attach::run(args),
        Command::Watch(args) => watch::run(args),
        Command::Stop(args) => stop::run(args),
        Command::Add(args) => add::run(args),
        Command::List(args) => list::run(args),
        Command::Top(args) => top::run(args),
        Command::Queue(args) => queue::run(args),
        Command::Label(args) => label::run(args),
        Command::Runs(args) => runs::run(args),
        Command::Cache(args) => cache::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Figure(args) => figure::run(args),
        Command::Export(args) => export::run(args),
        Command::Experiments(args) => experiments::run(args),
        Command::Plugins(args) => plugins::run(args),
        Command::Data(args) => data::run(args),
        Command::Model(args) => model::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Completions(args) => shell::completions(&args, Cli::<Command>::command()),
        Command::Man(args) => shell::man(&args, Cli::<Command>::command()),
    }
}

/// Prints an error with its causes; the exit code it calls for.
fn report(error: &anyhow::Error) -> u8 {
    let mut told = error.to_string();
    warn(format_args!("error: {told}"));
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many errors quote their cause; nobody needs it twice.
        if !told.contains(&cause) {
            warn(format_args!("  because: {cause}"));
        }
        told = cause;
    }
    let usage = error.chain().any(|cause| {
        cause.is::<SpecError>()
            || cause.is::<Usage>()
            || cause.downcast_ref().is_some_and(PrepareError::is_usage)
            || matches!(
                cause.downcast_ref(),
                Some(RunError::NotFound { .. } | RunError::Ambiguous { .. })
            )
    });
    if usage { exit::USAGE } else { exit::FAILED }
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// The command line asks for something that makes no sense; in words.
#[derive(Debug)]
pub struct Usage(pub String);

impl Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The exit code that tells how a run stands.
pub fn code_of(status: RunStatus) -> u8 {
    match status {
        RunStatus::Live | RunStatus::Finished => exit::DONE,
        RunStatus::Failed => exit::ARM_FAILED,
        RunStatus::Interrupted => exit::INTERRUPTED,
        RunStatus::Crashed => exit::FAILED,
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
    use super::*;

    /// A mistake in the declarations would be a panic at the first start.
    #[test]
    fn the_command_line_is_well_formed() {
        Cli::<AnyCommand>::command().debug_assert();
    }
}

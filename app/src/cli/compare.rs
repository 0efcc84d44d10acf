//! `forgetlab compare`.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use forgetlab_study::report;
use forgetlab_study::run::{Results, RunState, write_atomically};

/// Arguments of `compare`.
#[derive(clap::Args)]
pub struct Args {
    /// Runs: paths, names or unique beginnings of names
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<String>,
    /// Write the joined summaries here as CSV (`-`: standard output)
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

/// Prints a table of all arms on a terminal, the joined summaries as CSV in a pipe; writes the CSV
/// where asked.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let results = Results::from_env();
    let mut loaded: Vec<(String, RunState)> = Vec::new();
    for run in &args.runs {
        let dir = results.find(run)?;
        let mut name = dir.name();
        if loaded.iter().any(|(other, _)| *other == name) {
            // Folders of the same name in different places.
            name = dir.path().display().to_string();
        }
        loaded.push((name, dir.load_state()?));
    }
    let runs: Vec<(&str, &RunState)> = loaded.iter().map(|(n, s)| (n.as_str(), s)).collect();
    let mut out = io::stdout().lock();
    match &args.csv {
        Some(path) if path.as_os_str() != "-" => {
            if is_special(path) {
                let mut file = File::create(path)
                    .with_context(|| format!("cannot open {}", path.display()))?;
                report::compare_csv(runs.iter().copied(), &mut file)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            } else {
                write_atomically(path, |w| report::compare_csv(runs.iter().copied(), w))?;
            }
            write!(out, "{}", report::table(&runs, super::glyphs()))?;
            writeln!(out, "\nwrote {}", path.display())?;
        }
        None if out.is_terminal() => write!(out, "{}", report::table(&runs, super::glyphs()))?,
        _ => report::compare_csv(runs, &mut out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A pipe or device (`/dev/stdout`, a process substitution) cannot be replaced, only written to.
fn is_special(path: &std::path::Path) -> bool {
    path.metadata().is_ok_and(|data| !data.is_file())
}

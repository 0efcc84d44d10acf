//! `forgetlab list`.

use std::io::{self, Write};
use std::process::ExitCode;

use forgetlab_study::run::{Results, RunState, readable_utc};

/// Arguments of `list`.
#[derive(clap::Args)]
pub struct Args {}

/// Prints a line a run.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    let results = Results::from_env();
    let runs = results.list()?;
    let mut out = io::stdout().lock();
    if runs.is_empty() {
        writeln!(
            out,
            "no runs under {}; start one with `forgetlab run toy-continual`",
            results.runs().display()
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let width = runs
        .iter()
        .map(|run| run.name.chars().count())
        .max()
        .unwrap_or(0);
    writeln!(
        out,
        "{:<width$}  {:<11}  arms  done  started (UTC)",
        "run", "status"
    )?;
    for run in &runs {
        let started = run.state.times.map_or_else(String::new, |(start, _)| {
            readable_utc(start.max(0.0) as u64)[..16].to_owned()
        });
        writeln!(
            out,
            "{:<width$}  {:<11}  {:>4}  {:>3}%  {started}",
            run.name,
            run.status.word(),
            run.state.arms.len(),
            percent_done(&run.state)
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Share of all arms' steps that need no more work.
fn percent_done(state: &RunState) -> u64 {
    let (done, total) = state.steps_done();
    (done * 100).checked_div(total).unwrap_or(0)
}

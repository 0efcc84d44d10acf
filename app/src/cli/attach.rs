//! `forgetlab attach`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;

use forgetlab_study::printed::path_in_line;
use forgetlab_study::report;
use forgetlab_study::run::{Event, Found, Record, Results, RunDir, RunState, RunStatus};

use super::progress::{LOOK_EVERY, ProgressView};
use super::{advice, out, queue, signals, sweep, unless_gone};

/// Arguments of `attach`.
#[derive(clap::Args)]
pub struct Args {
    /// Run or sweep: a path, a name or the unique beginning of a name
    run: String,
}

/// Shows a run until it ends, then its table. The exit code is the run's.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let found = Results::from_env().find_any(&args.run)?;
    let leave = signals::leaving()?;
    let dir = match found {
        Found::Run(dir) => dir,
        Found::Sweep(sweep) => return sweep::attach(&sweep, &leave).map(ExitCode::from),
    };
    // At once, however long the run is.
    let mut follow = dir.follow_quickly()?;
    let mut view = ProgressView::new();
    view.catch_up(&follow.state);
    let mut told = queue::Told::default();
    loop {
        // The lock before the events: whatever a worker wrote before it ended is read below.
        let live = dir.is_live();
        told.look(dir.path())?;
        let records = follow.poll()?;
        for record in &records {
            view.update(&follow.state, record);
        }
        let goes_back = |record: &Record| matches!(record.event, Event::Rewound { .. });
        if records.iter().any(goes_back) {
            follow = dir.follow_quickly()?;
        }
        if !live {
            view.finish();
            let state = &follow.state;
            let status = RunDir::status_of(live, state);
            let mut out = out::stdout();
            let name = dir.name();
            let table = report::table(&[(name.as_str(), state)], super::glyphs());
            unless_gone(write!(
                out,
                "\n{table}\n{}\n",
                farewell(&dir, state, status)
            ))?;
            return Ok(ExitCode::from(super::code_of(status)));
        }
        if leave.load(Ordering::Relaxed) {
            view.finish();
            unless_gone(writeln!(out::stdout(), "{}", left_going(&dir)))?;
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// What can be done about a run that nobody looks at any more.
pub fn left_going(dir: &RunDir) -> String {
    let (attach, stop) = (advice::attach(dir), advice::stop(dir));
    format!("the run goes on; `{attach}` shows it again, `{stop}` stops it")
}

/// How a run stands that nobody works on, and what can be done about it.
pub fn farewell(dir: &RunDir, state: &RunState, status: RunStatus) -> String {
    match status {
        RunStatus::Finished | RunStatus::Failed | RunStatus::Live => {
            format!(
                "{}: {}",
                status.word(),
                path_in_line(&dir.join("summary.csv"))
            )
        }
        RunStatus::Interrupted => {
            format!("interrupted; go on with `{}`", advice::resume(dir, &[]))
        }
        RunStatus::Crashed => advice::after_crash(dir, state),
    }
}

//! The terminal lab: choose what to run, watch arms side by side, compare runs.
//!
//! One loop takes one closed set of events (`event::Event`). `App::update` changes the state and may
//! give commands (`event::Command`); drawing takes `&App`. The module `backend` carries out commands on a
//! thread of its own, through the [`lab::Lab`] trait. Runs are worker processes: leaving the lab, by a
//! key, a signal or a lost connection, never stops one.
//!
//! In reading order:
//! - [`lab`]: what the screens ask of the rest of the program;
//! - `arms`: arms over their seeds, and what verdicts on them are computed from;
//! - `event`: what can happen, and what can be asked for;
//! - `backend`: the thread that calls the lab, and the one that computes verdicts;
//! - `terminal`: keys, signals, the terminal's end and its restoration;
//! - `theme`: colours, markers, and what stands in for them;
//! - `keymap`: every key, as data;
//! - `view`: how an experiment is looked at;
//! - `track`: what is drawn of an arm, however long it runs;
//! - `figures`: the few numbers that are read first;
//! - `widgets`: parts that several screens draw with;
//! - `screens`: one file a screen;
//! - `app`: the state of the lab, changed by events, drawn as it is;
//! - `shot`: runs that are watched without a screen.

#![forbid(unsafe_code)]

mod app;
mod arms;
mod backend;
mod event;
#[cfg(test)]
mod fake;
mod figures;
mod keymap;
pub mod lab;
mod probe;
mod screens;
mod shot;
mod terminal;
#[cfg(test)]
mod tests;
mod theme;
mod track;
mod view;
mod widgets;

use std::io::IsTerminal;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use app::{App, Exit};
use event::Event;
use lab::Lab;
use theme::Theme;

pub use probe::Probe;
pub use screens::watch::Alert;
pub use shot::{Lines, Seen, Shot, frame};
pub use view::Pane;

/// Shortest time between two frames, for at most 20 frames a second.
const FRAME: Duration = Duration::from_millis(50);
/// Time between two clock events while a run is live.
const CLOCK: Duration = Duration::from_secs(1);

/// Opens the lab on this terminal and returns when the user leaves it, with the runs that go on. With `watch`, opens
/// on that run.
///
/// # Errors
/// When standard input or output is not a terminal, or the terminal cannot be set up.
pub fn run(lab: Box<dyn Lab>, watch: Option<String>) -> anyhow::Result<Vec<String>> {
    if !has_terminal() {
        anyhow::bail!(
            "the lab needs a terminal on standard input and output; \
             without one, use `forgetlab run EXPERIMENT` and `forgetlab list`"
        );
    }
    let (events, inbox) = mpsc::channel();
    let (commands, requests) = mpsc::channel();
    terminal::watch_signals(events.clone()).context("cannot watch for signals")?;
    let mut screen = ratatui::try_init().context("cannot set up the terminal")?;
    let restore = terminal::Restore;
    terminal::watch_mouse(screen.backend_mut()).context("cannot watch the mouse")?;
    terminal::read_keys(events.clone()).context("cannot read the keyboard")?;
    terminal::watch_hangup(events.clone()).context("cannot watch the terminal")?;
    backend::spawn(lab, requests, events).context("cannot start the lab's thread")?;

    let size = screen.size().context("cannot tell the terminal's size")?;
    let mut app = App::new(Theme::from_env(), size, now(), watch);
    let exit = main_loop(&mut screen, &mut app, &inbox, &commands);
    drop(restore);
    match exit {
        Exit::TerminalGone => {
            // Dropped, it would write an error about the cursor to the terminal that is gone.
            std::mem::forget(screen);
            Ok(Vec::new())
        }
        Exit::Fault(fault) => anyhow::bail!("the lab stopped: {fault}"),
        Exit::Quit => Ok(app.runs_left_going().to_vec()),
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing is printed")]
fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

fn main_loop(
    screen: &mut ratatui::DefaultTerminal,
    app: &mut App,
    inbox: &mpsc::Receiver<Event>,
    commands: &mpsc::Sender<event::Command>,
) -> Exit {
    let mut last_frame: Option<Instant> = None;
    let mut last_clock = Instant::now();
    loop {
        for command in app.take_commands() {
            // If the receiving thread has ended, it has sent an event that says so.
            let _ = commands.send(command);
        }
        if let Some(exit) = app.exit() {
            return exit;
        }
        if app.take_dirty() {
            if screen.draw(|frame| app.draw(frame)).is_err() {
                return Exit::TerminalGone;
            }
            last_frame = Some(Instant::now());
        }
        if let Some(text) = app.take_clipboard()
            && terminal::copy(screen.backend_mut(), &text).is_err()
        {
            return Exit::TerminalGone;
        }
        let event = if app.wants_clock() {
            let due = (last_clock + CLOCK).saturating_duration_since(Instant::now());
            inbox.recv_timeout(due)
        } else {
            inbox
                .recv()
                .map_err(|_| mpsc::RecvTimeoutError::Disconnected)
        };
        match event {
            // Times are told as they are whenever something happens.
            Ok(event) => {
                app.update(Event::Clock(now()));
                app.update(event);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                last_clock = Instant::now();
                app.update(Event::Clock(now()));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Exit::TerminalGone,
        }
        // Events that arrive before the next frame is due are applied before it is drawn.
        let next_frame = last_frame.map(|at| at + FRAME);
        while app.exit().is_none() {
            let wait = next_frame.map_or(Duration::ZERO, |at| {
                at.saturating_duration_since(Instant::now())
            });
            match inbox.recv_timeout(wait) {
                Ok(event) => app.update(event),
                Err(_) => break,
            }
        }
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

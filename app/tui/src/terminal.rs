//! The terminal: reading keys, watching for signals and hangup, and restoring it.

use std::io::Write;
use std::panic;
use std::sync::mpsc::Sender;
use std::thread;

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{Event as TerminalEvent, KeyEventKind, MouseButton, MouseEventKind};
use ratatui::layout::{Position, Size};
use rustix::event::{PollFd, PollFlags};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::event::Event;

/// Asks the terminal for clicks and turns of the wheel, by cell (SGR), but not for every move: those would cost more
/// on a slow link than all frames. With Shift, most terminals select text as before.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";

/// Restores the terminal when dropped (on a panic, the hooks that `ratatui` and [`watch_mouse`] install do).
pub struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        mouse_off();
        // On a terminal that is gone there is nothing to restore.
        let _ = ratatui::try_restore();
    }
}

/// Has the terminal send clicks, unless `FORGETLAB_MOUSE` is `0`.
///
/// # Errors
/// When the terminal is gone.
pub fn watch_mouse(terminal: &mut impl Write) -> std::io::Result<()> {
    if std::env::var_os("FORGETLAB_MOUSE").is_some_and(|value| value == "0") {
        return Ok(());
    }
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        mouse_off();
        hook(info);
    }));
    terminal.write_all(MOUSE_ON.as_bytes())?;
    terminal.flush()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a sequence of our own, to the terminal that the lab is on"
)]
fn mouse_off() {
    // On a terminal that is gone there is nothing to turn off.
    let mut terminal = std::io::stdout();
    let _ = terminal
        .write_all(MOUSE_OFF.as_bytes())
        .and_then(|()| terminal.flush());
}

/// Sends a text to the clipboard of the terminal (OSC 52), which may be that of another machine, over SSH.
///
/// # Errors
/// When the terminal is gone.
pub fn copy(terminal: &mut impl std::io::Write, text: &str) -> std::io::Result<()> {
    crossterm::execute!(terminal, CopyToClipboard::to_clipboard_from(text))
}

/// Turns SIGINT, SIGTERM and SIGHUP into [`Event::Signal`].
pub fn watch_signals(events: Sender<Event>) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for _ in signals.forever() {
                if events.send(Event::Signal).is_err() {
                    return;
                }
            }
        })?;
    Ok(())
}

/// Sends key presses and new sizes of the terminal as events.
pub fn read_keys(events: Sender<Event>) -> std::io::Result<()> {
    thread::Builder::new().name("keys".into()).spawn(move || {
        loop {
            let event = match crossterm::event::read() {
                Ok(TerminalEvent::Key(key)) if key.kind != KeyEventKind::Release => Event::Key(key),
                Ok(TerminalEvent::Resize(columns, rows)) => Event::Resize(Size::new(columns, rows)),
                Ok(TerminalEvent::Mouse(mouse)) => match mouse.kind {
                    MouseEventKind::Down(MouseButton::Left) => {
                        Event::Click(Position::new(mouse.column, mouse.row))
                    }
                    MouseEventKind::ScrollUp => Event::Wheel(-1),
                    MouseEventKind::ScrollDown => Event::Wheel(1),
                    _ => continue,
                },
                Ok(_) => continue,
                Err(_) => Event::TerminalGone,
            };
            let gone = matches!(event, Event::TerminalGone);
            if events.send(event).is_err() || gone {
                return;
            }
        }
    })?;
    Ok(())
}

/// Sends [`Event::TerminalGone`] when the other end of the terminal is closed. [`read_keys`] does not
/// notice: it takes the endless "end of file" of a closed terminal for no input.
pub fn watch_hangup(events: Sender<Event>) -> std::io::Result<()> {
    thread::Builder::new()
        .name("hangup".into())
        .spawn(move || {
            let stdin = std::io::stdin();
            loop {
                // No events are asked for: only a hangup or an error ends the wait.
                let mut fds = [PollFd::new(&stdin, PollFlags::empty())];
                match rustix::event::poll(&mut fds, None) {
                    Err(rustix::io::Errno::INTR) => continue,
                    Ok(_) if fds[0].revents().is_empty() => continue,
                    _ => break,
                }
            }
            // Nobody receives it when the lab has been left already.
            let _ = events.send(Event::TerminalGone);
        })?;
    Ok(())
}

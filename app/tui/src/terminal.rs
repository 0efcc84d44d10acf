//! The terminal: reading keys, watching for signals and hangup, and restoring it.

use std::sync::mpsc::Sender;
use std::thread;

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{Event as TerminalEvent, KeyEventKind, MouseButton, MouseEventKind};
use ratatui::layout::{Position, Size};
use rustix::event::{PollFd, PollFlags};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::event::Event;

/// Restores the terminal when dropped (on a panic, the hook that `ratatui` installs does).
pub struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // On a terminal that is gone there is nothing to restore.
        let _ = ratatui::try_restore();
    }
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

//! The only way to the terminal: everything printed passes through here, and does nothing to it.
//!
//! A file that the user names keeps the bytes that were asked for. Standard output and standard error do not,
//! wherever they lead: what goes into a pipe comes out on somebody's terminal. Clippy refuses every other way
//! (`.clippy.toml`), so that a new command cannot forget.

use std::fmt::Display;
use std::io::{self, IsTerminal, StdoutLock, Write};

use clap::error::{ContextValue, Error};
use crossterm::cursor::MoveTo;
use crossterm::queue;
use crossterm::style::{Print, StyledContent};
use crossterm::terminal::{self, Clear, ClearType};
use forgetlab_study::printed::{harmless, harmless_json, is_harmless, one_line};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

/// Writes what does nothing to a terminal, a line at a time.
pub struct Harmless<W: Write> {
    to: W,
    /// The beginning of a line that has not come to its end.
    line: Vec<u8>,
}

/// Standard output.
pub type Out = Harmless<StdoutLock<'static>>;

/// Standard output, for this thread alone.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn stdout() -> Out {
    Harmless::new(io::stdout().lock())
}

impl<W: Write> Harmless<W> {
    /// Passes on what is written to it.
    pub fn new(to: W) -> Self {
        Self {
            to,
            line: Vec::new(),
        }
    }

    /// Writes a text in a style of ours: the only escape sequences that pass.
    pub fn styled(&mut self, text: StyledContent<&str>) -> io::Result<()> {
        self.pass_on(self.line.len())?;
        let safe = harmless(text.content());
        write!(self.to, "{}", StyledContent::new(*text.style(), safe))
    }

    /// Passes on the first bytes that were kept.
    fn pass_on(&mut self, bytes: usize) -> io::Result<()> {
        let lines: Vec<u8> = self.line.drain(..bytes).collect();
        let text = String::from_utf8_lossy(&lines);
        self.to.write_all(harmless(&text).as_bytes())
    }
}

impl Out {
    /// Draws a frame over the one before, cut to the terminal's size.
    pub fn redraw(&mut self, frame: &str) -> io::Result<()> {
        self.flush()?;
        // Some terminals do not tell.
        let size = terminal::size().ok().filter(|size| *size > (0, 0));
        let (columns, rows) = size.unwrap_or((80, 24));
        queue!(self.to, MoveTo(0, 0))?;
        for line in frame.lines().take(usize::from(rows).saturating_sub(1)) {
            let line: String = harmless(line).chars().take(columns.into()).collect();
            queue!(
                self.to,
                Clear(ClearType::UntilNewLine),
                Print(line),
                Print("\n")
            )?;
        }
        queue!(self.to, Clear(ClearType::FromCursorDown))?;
        self.to.flush()
    }

    /// Writes JSON on a line of its own. It means the same as before.
    pub fn json(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self, "{}", harmless_json(&value.to_string()))
    }
}

impl<W: Write> Write for Harmless<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if let Some(end) = self.line.iter().rposition(|&b| b == b'\n') {
            self.pass_on(end + 1)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on(self.line.len())?;
        self.to.flush()
    }
}

impl<W: Write> Drop for Harmless<W> {
    fn drop(&mut self) {
        // Whoever wants to know of a failure ends the line, or flushes.
        let _ = self.flush();
    }
}

/// A message on standard error, its later lines indented, so that none passes for another message. One that
/// nobody can read is no reason to end.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn warn(message: impl Display) {
    let text = indented(&message.to_string());
    let _ = io::stderr().write_all(format!("{}\n", harmless(&text)).as_bytes());
}

/// The text with its later lines indented, all alike.
fn indented(text: &str) -> String {
    match text.lines().skip(1).all(|line| line.starts_with("  ")) {
        true => text.to_owned(),
        false => text.trim_end().replace('\n', "\n  "),
    }
}

/// Prints what clap has to say, help or an error, which may repeat anything that was typed.
#[expect(clippy::disallowed_methods, reason = "what it prints is harmless")]
pub fn usage(mut error: Error) {
    let typed: Vec<_> = error
        .context()
        .map(|(kind, value)| (kind, value.clone()))
        .collect();
    for (kind, value) in typed {
        let safe = |text: &String| one_line(text).into_owned();
        let value = match &value {
            ContextValue::String(text) => ContextValue::String(safe(text)),
            ContextValue::Strings(texts) => ContextValue::Strings(texts.iter().map(safe).collect()),
            _ => continue,
        };
        error.insert(kind, value);
    }
    let plain = error.render().to_string();
    if is_harmless(&plain) {
        // In colour where there is one.
        let _ = error.print();
    } else {
        warn(plain.trim_end());
    }
}

/// Whether the reader of standard output is gone. Other pipes and sockets break, too.
#[expect(clippy::disallowed_methods, reason = "nothing is printed")]
pub fn nobody_reads() -> bool {
    let stdout = io::stdout();
    let mut ends = [PollFd::new(&stdout, PollFlags::OUT)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut ends, Some(&now)).is_ok()
        && ends[0]
            .revents()
            .intersects(PollFlags::ERR | PollFlags::HUP)
}

/// What a write to standard output came to; a reader who has left is no failure.
pub fn unless_gone(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Passes on what is written for as long as somebody reads: a command comes to its real exit code, whether or not its
/// reader has seen enough.
pub struct WhileRead<W>(pub W);

impl<W: Write> Write for WhileRead<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        unless_gone(self.0.flush())
    }
}

/// Whether standard output is a terminal.
#[expect(clippy::disallowed_methods, reason = "nothing is printed")]
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether standard error is a terminal.
#[expect(clippy::disallowed_methods, reason = "nothing is printed")]
pub fn errors_on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Where progress bars are drawn. Slow links: five frames a second are plenty.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn bars() -> ProgressDrawTarget {
    ProgressDrawTarget::stderr_with_hz(5)
}

/// A progress bar's first text.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn set_prefix(bar: &ProgressBar, text: &str) {
    bar.set_prefix(one_line(text).into_owned());
}

/// A progress bar's last text.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn set_message(bar: &ProgressBar, text: &str) {
    bar.set_message(one_line(text).into_owned());
}

/// A line above progress bars.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn line_above(bars: &MultiProgress, text: &str) {
    let _ = bars.println(one_line(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossterm::style::Stylize;

    fn written(write: impl FnOnce(&mut Harmless<&mut Vec<u8>>)) -> String {
        let mut bytes = Vec::new();
        write(&mut Harmless::new(&mut bytes));
        String::from_utf8(bytes).unwrap()
    }

    /// However a text comes in pieces, even in half a character, none of it reaches the terminal as a command.
    #[test]
    fn what_is_written_in_pieces_is_harmless() {
        let text = "a\u{1b}[2J\u{202e}é\n\u{9b}31m";
        let shown = "a\\u{1b}[2J\\u{202e}é\n\\u{9b}31m";
        for size in 1..text.len() {
            let pieces = |out: &mut Harmless<&mut Vec<u8>>| {
                for piece in text.as_bytes().chunks(size) {
                    out.write_all(piece).unwrap();
                }
            };
            assert_eq!(written(pieces), shown, "{size} bytes at a time");
        }
    }

    /// The preview's colours tell targets from the rest; those of the data tell nothing.
    #[test]
    fn our_own_colours_pass_and_no_others() {
        let shown = written(|out| {
            write!(out, "\u{1b}[1m").unwrap();
            out.styled("x\u{1b}[2J".dim()).unwrap();
        });
        assert_eq!(shown, "\\u{1b}[1m\u{1b}[2mx\\u{1b}[2J\u{1b}[0m");
    }

    /// A file's name must not be able to say `error: disk full` of its own.
    #[test]
    fn later_lines_of_a_message_are_indented() {
        assert_eq!(indented("error: a\nerror: b\n"), "error: a\n  error: b");
        assert_eq!(indented("error: a\n  because: b"), "error: a\n  because: b");
        let marked = "error: bad\n  |\n1 | x\n  | ^";
        assert_eq!(indented(marked), "error: bad\n    |\n  1 | x\n    | ^");
    }
}

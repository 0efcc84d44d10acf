//! The question before something is removed.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;

use super::{Usage, out};

/// Asks on the terminal whether what was shown is to be removed, and takes a yes alone.
///
/// # Errors
/// Where there is no terminal to ask on.
pub fn confirmed(out: &mut impl Write, question: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() || !out::is_terminal() {
        let why =
            "nothing was removed: there is no terminal to ask on; --yes removes without asking";
        return Err(Usage(why.into()).into());
    }
    write!(out, "{question}")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    let yes = matches!(answer.trim(), "y" | "Y" | "yes");
    if !yes {
        writeln!(out, "nothing was removed")?;
    }
    Ok(yes)
}

//! Signals that ask a worker to stop.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::exit;

/// Signals that ask this process to stop at the next step.
pub struct Signals {
    /// Number of the signal caught; 0: none.
    caught: Arc<AtomicUsize>,
}

impl Signals {
    /// Watches for signals from now on. A detached worker has no terminal to lose, nor a parent that would end it.
    pub fn watch(detached: bool) -> anyhow::Result<Self> {
        let caught = Arc::new(AtomicUsize::new(0));
        let mut signals = vec![SIGINT, SIGTERM];
        if detached {
            ends_at_the_second(SIGINT)?;
        } else if !is_ignored(SIGHUP) {
            signals.push(SIGHUP);
        }
        for signal in signals {
            flag::register_usize(signal, Arc::clone(&caught), signal as usize)
                .context("cannot watch for signals")?;
        }
        Ok(Self { caught })
    }

    /// Name of the signal that asks to stop, if there was one.
    pub fn caught(&self) -> Option<&'static str> {
        match self.caught.load(Ordering::Relaxed) as i32 {
            SIGINT => Some("SIGINT"),
            SIGTERM => Some("SIGTERM"),
            SIGHUP => Some("SIGHUP"),
            _ => None,
        }
    }
}

/// Ends this process at once where a signal comes twice, from somebody who cannot wait for the step to end: a killed
/// run is resumable too. Not for SIGTERM and SIGHUP, which some senders repeat by themselves.
fn ends_at_the_second(signal: i32) -> anyhow::Result<()> {
    let insists = Arc::new(AtomicBool::new(false));
    let code = i32::from(exit::INTERRUPTED);
    flag::register_conditional_shutdown(signal, code, Arc::clone(&insists))
        .and_then(|_| flag::register(signal, insists))
        .context("cannot watch for signals")?;
    Ok(())
}

/// Ends this process at once with the exit code of an interruption when a signal comes, for work that leaves nothing
/// behind before its end. A signal that whoever started this process had it ignore is ignored.
pub fn ends_at_once(signal: i32) -> anyhow::Result<()> {
    if !is_ignored(signal) {
        let always = Arc::new(AtomicBool::new(true));
        flag::register_conditional_shutdown(signal, i32::from(exit::INTERRUPTED), always)
            .context("cannot watch for signals")?;
    }
    Ok(())
}

/// Set once somebody wants to leave what only shows something, by Ctrl-C or SIGTERM.
pub fn leaving() -> anyhow::Result<Arc<AtomicBool>> {
    let leave = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&leave)).context("cannot watch for Ctrl-C")?;
    }
    Ok(leave)
}

/// Lets a signal pass without effect from now on. Unlike one that is ignored, programs that this one starts do not
/// inherit that.
pub fn let_pass(signal: i32) -> anyhow::Result<()> {
    flag::register(signal, Arc::new(AtomicBool::new(false))).context("cannot watch for signals")?;
    Ok(())
}

/// Whether whoever started this process had it ignore a signal, as `nohup` does; not known without `/proc`.
pub fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

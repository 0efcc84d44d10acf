//! The screens, one file each: state, keys, drawing.

pub mod arm;
pub mod arm_form;
pub mod compare;
pub mod live;
pub mod new_run;
pub mod overlay;
mod phase_settings;
pub mod plugins;
pub mod replay;
pub mod runs;
pub mod sweep;

use super::event::Command;

/// A screen of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// Form of a new run.
    NewRun,
    /// Run being watched.
    Live,
    /// One arm of that run.
    Arm,
    /// List of runs.
    Runs,
    /// Points of a sweep.
    Sweep,
    /// Comparison of runs.
    Compare,
    /// List of plugins.
    Plugins,
}

/// What a screen asks the lab to do after a key press.
#[derive(Debug, Default)]
pub struct Effects {
    /// Commands for the lab.
    pub commands: Vec<Command>,
    /// Screen to show.
    pub go: Option<Screen>,
    /// Run to open.
    pub open: Option<String>,
    /// Sweep to open.
    pub open_sweep: Option<String>,
    /// Run or sweep to stop if the user confirms.
    pub ask_stop: Option<String>,
    /// Text to show in the footer until the next key.
    pub hint: Option<String>,
    /// Message to show until it is closed.
    pub notice: Option<String>,
    /// Show the log.
    pub log: bool,
    /// Show what the arm under the cursor replays.
    pub replay: bool,
}

impl Effects {
    fn hint(&mut self, text: impl Into<String>) {
        self.hint = Some(text.into());
    }

    fn ask(&mut self, command: Command, hint: &str) {
        self.commands.push(command);
        self.hint(hint);
    }
}

/// `cursor` moved by `by`, inside a list of `len`.
fn step(cursor: usize, by: isize, len: usize) -> usize {
    cursor.saturating_add_signed(by).min(len.saturating_sub(1))
}

//! One file a screen: its state, what keys do to it, how it is drawn.

pub mod arm;
pub mod arm_form;
pub mod compare;
pub mod live;
pub mod new_run;
pub mod overlay;
pub mod plugins;
pub mod replay;
pub mod runs;

use super::event::Command;

/// The screens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// Form of a new run.
    NewRun,
    /// Run being watched.
    Live,
    /// One arm of it.
    Arm,
    /// List of runs.
    Runs,
    /// Comparison of runs.
    Compare,
    /// Plugins.
    Plugins,
}

/// What a screen asks for when a key was pressed.
#[derive(Debug, Default)]
pub struct Effects {
    /// Commands for the lab.
    pub commands: Vec<Command>,
    /// Screen to show.
    pub go: Option<Screen>,
    /// Run to open.
    pub open: Option<String>,
    /// Run about which to ask whether to stop it.
    pub ask_stop: Option<String>,
    /// Words for the footer, until the next key.
    pub hint: Option<String>,
    /// Something that has to be read.
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

//! The screens, one file or folder each: state, keys, drawing.

pub mod arm_form;
pub mod compose;
pub mod machine;
pub mod overlay;
mod phase_settings;
pub mod picker;
pub mod runs;
mod setting_help;
pub mod strategies;
pub mod sweep;
pub mod typed;
pub mod watch;

use super::event::Command;
use super::keymap::Action;

/// A screen of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// List of runs.
    Runs,
    /// Points of a sweep.
    Sweep,
    /// Runs being watched.
    Watch,
    /// Form of a new run.
    Compose,
    /// Strategies.
    Strategies,
    /// The machine.
    Machine,
}

/// A line that is typed, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A command.
    Command,
    /// A filter of what is shown, as it is now.
    Filter(String),
    /// An arm to add to this run.
    AddArm(String),
    /// A display name of this run, as it is now.
    Name(String, String),
    /// A note on this run, as it is now.
    Note(String, String),
    /// Tags of this run.
    Tag(String),
    /// A value of this setting, as it is now.
    Setting(String, String),
    /// A file to write the configuration to.
    Write,
}

/// A question to be answered by yes or no.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Its title.
    pub title: String,
    /// The question.
    pub text: String,
    /// What happens on yes.
    pub then: Command,
    /// What is said meanwhile.
    pub hint: String,
}

/// A list to choose from.
#[derive(Clone, Debug, PartialEq)]
pub struct Choices {
    /// Its title.
    pub title: String,
    /// What is done with the one that is chosen, as its argument.
    pub action: Action,
    /// The names.
    pub names: Vec<String>,
    /// The one that is chosen now.
    pub now: String,
}

/// What a screen asks the lab to do after a key press.
#[derive(Debug, Default)]
pub struct Effects {
    /// Commands for the lab.
    pub commands: Vec<Command>,
    /// Screen to show.
    pub go: Option<Screen>,
    /// Runs to open.
    pub open: Vec<String>,
    /// Sweep to open.
    pub open_sweep: Option<String>,
    /// A question.
    pub ask: Option<Ask>,
    /// Text to show in the footer until the next key.
    pub hint: Option<String>,
    /// Message to show until it is closed.
    pub notice: Option<String>,
    /// A line to be typed.
    pub prompt: Option<Prompt>,
    /// A list to choose from.
    pub choices: Option<Choices>,
    /// A title, and a text to be shown.
    pub text: Option<(String, String)>,
    /// Text for the clipboard.
    pub copy: Option<String>,
    /// Whether the view of the watched runs has changed.
    pub keep_view: bool,
}

impl Effects {
    fn hint(&mut self, text: impl Into<String>) {
        self.hint = Some(text.into());
    }

    /// Gives a command, and says so meanwhile.
    pub fn ask(&mut self, command: Command, hint: &str) {
        self.commands.push(command);
        self.hint(hint);
    }

    fn ask_stop(&mut self, run: String) {
        self.ask = Some(Ask {
            title: "Stop the run?".into(),
            text: format!("{run}: stop it at the next step? It can be resumed later."),
            then: Command::Stop(run),
            hint: "asking the worker to stop…".into(),
        });
    }

    fn ask_stop_sweep(&mut self, sweep: String) {
        self.ask = Some(Ask {
            title: "Stop the sweep?".into(),
            text: format!("{sweep}: stop it at the next steps? It can be resumed later."),
            then: Command::Stop(sweep),
            hint: "asking the workers to stop…".into(),
        });
    }

    fn ask_stop_arm(&mut self, run: String, label: String, slugs: Vec<String>) {
        self.ask = Some(Ask {
            title: "Stop the arm?".into(),
            text: format!("{label} of {run}: stop it? The others go on; it is not resumed."),
            then: Command::StopArm(run, slugs),
            hint: "asking the worker to stop the arm…".into(),
        });
    }

    fn pick(&mut self, title: &str, action: Action, names: Vec<String>, now: &str) {
        self.choices = Some(Choices {
            title: title.to_owned(),
            action,
            names,
            now: now.to_owned(),
        });
    }
}

/// `cursor` moved by `by`, inside a list of `len`.
fn step(cursor: usize, by: isize, len: usize) -> usize {
    cursor.saturating_add_signed(by).min(len.saturating_sub(1))
}

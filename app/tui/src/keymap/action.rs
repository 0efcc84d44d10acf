//! What a key, or a word on the command line, can do.

use strsim::jaro_winkler;

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a key can do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action {
            $($(#[$doc])* $variant,)*
        }

        impl Action {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name on the command line and in the file of keys.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

actions! {
    /// Show the list of runs.
    GoRuns = "runs",
    /// Show the runs being watched; of this name, where one is given.
    GoWatch = "watch",
    /// Show the form of a new run.
    GoCompose = "compose",
    /// Show the strategies.
    GoStrategies = "strategies",
    /// Show the machine.
    GoMachine = "machine",
    /// Show the keys of this screen.
    Help = "help",
    /// Type a command.
    CommandLine = "command",
    /// Leave the lab.
    Quit = "quit",
    /// Cursor up.
    Up = "up",
    /// Cursor down.
    Down = "down",
    /// Previous choice, or an earlier step.
    Left = "left",
    /// Next choice, or a later step.
    Right = "right",
    /// One page up.
    PageUp = "page-up",
    /// One page down.
    PageDown = "page-down",
    /// To the first line.
    First = "first",
    /// To the last line.
    Last = "last",
    /// Open or accept what is under the cursor.
    Enter = "open",
    /// Come out one layer.
    Back = "back",
    /// Give the next pane the focus.
    NextPane = "next-pane",
    /// Give the pane before the focus.
    PreviousPane = "previous-pane",
    /// Filter what is shown.
    Filter = "filter",
    /// Complete what is typed.
    Complete = "complete",
    /// Erase the last character.
    Erase = "erase",
    /// Erase the field.
    EraseAll = "erase-all",
    /// Add an arm.
    Add = "add-arm",
    /// Remove an arm.
    Remove = "remove",
    /// Copy an arm.
    Copy = "duplicate",
    /// Start the run.
    Start = "start",
    /// Start the run as soon as its device is free.
    Queue = "queue",
    /// Show the configuration as TOML.
    Toml = "toml",
    /// Write to a file.
    Write = "write",
    /// Copy to the clipboard.
    Yank = "copy",
    /// Choose what the curves show.
    Metric = "metric",
    /// Choose what the x axis counts.
    Axis = "x-axis",
    /// Linear or logarithmic values.
    LogScale = "log-scale",
    /// Linear or logarithmic x axis.
    LogAxis = "log-axis",
    /// Smooth the curves more.
    Smoother = "smoother",
    /// Smooth the curves less.
    Rougher = "rougher",
    /// Read every arm at one step.
    Cursor = "cursor",
    /// Show less of the x axis, round the cursor.
    ZoomIn = "zoom-in",
    /// Show more of the x axis.
    ZoomOut = "zoom-out",
    /// The phase of the picture of what was kept.
    Phase = "phase",
    /// Keep an arm on top.
    Pin = "pin",
    /// Hide an arm.
    Hide = "hide",
    /// Show hidden arms again.
    ShowAll = "show-all",
    /// Sort the table by the next column.
    Sort = "sort",
    /// Turn the order of the table.
    Reverse = "reverse",
    /// Put the next pane first.
    Arrange = "arrange",
    /// Choose the pane that is put first.
    Panes = "panes",
    /// Show one pane alone.
    Zoom = "zoom",
    /// Show or hide tasks that are still to come.
    Future = "future",
    /// Show single seeds apart, or arms over their seeds.
    Seeds = "seeds",
    /// Write CSVs and figures.
    Export = "export",
    /// Stop a run.
    Stop = "stop",
    /// Stop one arm of a live run.
    StopArm = "stop-arm",
    /// Resume a run.
    Resume = "resume",
    /// Compose a run from this one.
    Again = "again",
    /// Mark a run.
    Mark = "mark",
    /// Give a run another display name.
    Rename = "rename",
    /// Write a note on a run.
    Note = "note",
    /// Tag a run.
    Tag = "tag",
    /// Delete a run.
    Delete = "delete",
    /// What differs between the settings of two runs.
    Diff = "diff",
    /// Check a strategy.
    Check = "check",
    /// Leave the lab without stopping the runs.
    LeaveGoing = "leave",
    /// Stop the runs and leave the lab.
    StopAndLeave = "stop-and-leave",
    /// Answer yes.
    Yes = "yes",
}

impl Action {
    /// The action of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|action| action.name() == name)
    }

    /// The name that is most like a wrong one, of those that are much like it.
    pub fn like(name: &str) -> Option<&'static str> {
        let names = Self::ALL.iter().map(|action| action.name());
        let best = names.max_by(|a, b| jaro_winkler(a, name).total_cmp(&jaro_winkler(b, name)))?;
        (jaro_winkler(best, name) > 0.8).then_some(best)
    }
}

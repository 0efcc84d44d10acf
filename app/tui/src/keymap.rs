//! The keymap, as data: what each key does where, and its texts in the footer and the help.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Show the form of a new run.
    GoNewRun,
    /// Show the run being watched.
    GoLive,
    /// Show the list of runs.
    GoRuns,
    /// Show the plugins.
    GoPlugins,
    /// Show the next of these screens.
    NextScreen,
    /// Show the previous one.
    PreviousScreen,
    /// Show the help.
    Help,
    /// Leave the lab.
    Quit,
    /// Cursor up.
    Up,
    /// Cursor down.
    Down,
    /// Previous choice or arm.
    Left,
    /// Next choice or arm.
    Right,
    /// One page up.
    PageUp,
    /// One page down.
    PageDown,
    /// To the first line.
    First,
    /// To the last line.
    Last,
    /// Open or accept what is under the cursor.
    Enter,
    /// Go back without effect.
    Back,
    /// Erase the last character.
    Erase,
    /// Erase the field.
    EraseAll,
    /// Add an arm.
    Add,
    /// Remove an arm.
    Remove,
    /// Copy an arm.
    Copy,
    /// Start the run.
    Start,
    /// Show the next metric.
    Metric,
    /// Sort the table in the next order.
    Sort,
    /// Show or hide tasks that are still to come.
    Future,
    /// Show single seeds apart, or arms over their seeds.
    Seeds,
    /// Show the run's log.
    Log,
    /// Show what the arm replays.
    Replay,
    /// Write CSVs and figures.
    Export,
    /// Stop a run.
    Stop,
    /// Resume a run.
    Resume,
    /// Mark a run.
    Mark,
    /// Compare marked runs.
    Compare,
    /// Leave the lab without stopping the runs.
    LeaveGoing,
    /// Stop the runs and leave the lab.
    StopAndLeave,
    /// Answer yes.
    Yes,
}

/// Where a key binding applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On every screen, unless a text, a message or a question lies over it.
    Everywhere,
    /// Form of a new run.
    NewRun,
    /// Form of an arm.
    ArmForm,
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
    /// Help, log and other texts over a screen.
    Text,
    /// Message over a screen.
    Notice,
    /// Question whether to stop a run.
    AskStop,
    /// Question what to do with live runs when leaving.
    AskQuit,
}

impl Place {
    /// Every place, in the order of the help.
    pub const ALL: [Place; 13] = [
        Place::Everywhere,
        Place::NewRun,
        Place::ArmForm,
        Place::Live,
        Place::Arm,
        Place::Runs,
        Place::Sweep,
        Place::Compare,
        Place::Plugins,
        Place::Text,
        Place::Notice,
        Place::AskStop,
        Place::AskQuit,
    ];

    /// Heading of the place in the help.
    pub fn title(self) -> &'static str {
        match self {
            Place::Everywhere => "Everywhere",
            Place::NewRun => "New run",
            Place::ArmForm => "Editing an arm",
            Place::Live => "Run",
            Place::Arm => "One arm",
            Place::Runs => "Runs",
            Place::Sweep => "Sweep",
            Place::Compare => "Comparison",
            Place::Plugins => "Plugins",
            Place::Text => "Help, log and replay",
            Place::Notice => "Messages",
            Place::AskStop => "Stopping a run or sweep",
            Place::AskQuit => "Leaving with runs going",
        }
    }

    /// Whether the bindings of [`Place::Everywhere`] apply here too.
    pub fn open(self) -> bool {
        !matches!(
            self,
            Place::ArmForm | Place::Text | Place::Notice | Place::AskStop | Place::AskQuit
        )
    }
}

/// A binding of keys to an action.
pub struct Binding {
    /// Where it applies.
    pub place: Place,
    /// Keys of the action; the first one is shown in the footer.
    pub keys: &'static [Key],
    /// What the keys do.
    pub action: Action,
    /// One or two words for the footer; empty to leave it out there.
    pub short: &'static str,
    /// Description in the help.
    pub long: &'static str,
}

/// A key on the keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// A character with Ctrl.
    Ctrl(char),
    /// A key with a name.
    Named(KeyCode, &'static str),
}

impl Key {
    /// Name of the key in the footer and the help.
    pub fn name(self) -> String {
        match self {
            Key::Char(' ') => "space".into(),
            Key::Char(c) => c.into(),
            Key::Ctrl(c) => format!("^{}", c.to_ascii_uppercase()),
            Key::Named(_, name) => name.into(),
        }
    }

    fn matches(self, event: KeyEvent) -> bool {
        let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
        match self {
            Key::Char(c) => event.code == KeyCode::Char(c) && !ctrl,
            Key::Ctrl(c) => event.code == KeyCode::Char(c) && ctrl,
            Key::Named(code, _) => event.code == code,
        }
    }
}

const UP: Key = Key::Named(KeyCode::Up, "↑");
const DOWN: Key = Key::Named(KeyCode::Down, "↓");
const LEFT: Key = Key::Named(KeyCode::Left, "←");
const RIGHT: Key = Key::Named(KeyCode::Right, "→");
const PAGE_UP: Key = Key::Named(KeyCode::PageUp, "PgUp");
const PAGE_DOWN: Key = Key::Named(KeyCode::PageDown, "PgDn");
const HOME: Key = Key::Named(KeyCode::Home, "Home");
const END: Key = Key::Named(KeyCode::End, "End");
const ENTER: Key = Key::Named(KeyCode::Enter, "Enter");
const ESC: Key = Key::Named(KeyCode::Esc, "Esc");
const TAB: Key = Key::Named(KeyCode::Tab, "Tab");
const BACK_TAB: Key = Key::Named(KeyCode::BackTab, "S-Tab");
const BACKSPACE: Key = Key::Named(KeyCode::Backspace, "Bksp");
const DELETE: Key = Key::Named(KeyCode::Delete, "Del");
const F1: Key = Key::Named(KeyCode::F(1), "F1");

const J: Key = Key::Char('j');
const K: Key = Key::Char('k');
const Q: Key = Key::Char('q');

const fn bind(
    place: Place,
    keys: &'static [Key],
    action: Action,
    short: &'static str,
    long: &'static str,
) -> Binding {
    Binding {
        place,
        keys,
        action,
        short,
        long,
    }
}

/// The keymap. Footers list a place's own keys in this order, then those of [`Place::Everywhere`].
#[rustfmt::skip]
pub static KEYMAP: &[Binding] = {
    use Action as A;
    use Place as P;
    &[
        bind(P::Everywhere, &[Key::Char('1')], A::GoNewRun, "", "new run"),
        bind(P::Everywhere, &[Key::Char('2')], A::GoLive, "", "the run being watched"),
        bind(P::Everywhere, &[Key::Char('3')], A::GoRuns, "", "list of runs"),
        bind(P::Everywhere, &[Key::Char('4')], A::GoPlugins, "", "strategy plugins"),
        bind(P::Everywhere, &[TAB], A::NextScreen, "", "next screen"),
        bind(P::Everywhere, &[BACK_TAB], A::PreviousScreen, "", "screen before"),
        bind(P::Everywhere, &[Key::Char('?'), F1], A::Help, "help", "this help"),
        bind(P::Everywhere, &[Q, Key::Ctrl('c')], A::Quit, "quit", "leave; asks what to do with live runs"),

        bind(P::NewRun, &[Key::Char('s')], A::Start, "start", "start the run or sweep"),
        bind(P::NewRun, &[UP, K], A::Up, "", "field above"),
        bind(P::NewRun, &[DOWN, J], A::Down, "", "field below"),
        bind(P::NewRun, &[LEFT], A::Left, "change", "choice before"),
        bind(P::NewRun, &[RIGHT], A::Right, "", "next choice"),
        bind(P::NewRun, &[ENTER], A::Enter, "edit", "edit the arm, add one, or start: what the cursor is on"),
        bind(P::NewRun, &[Key::Char('a')], A::Add, "add arm", "add an arm"),
        bind(P::NewRun, &[Key::Char('c')], A::Copy, "copy", "copy the arm"),
        bind(P::NewRun, &[Key::Char('d'), DELETE], A::Remove, "remove", "remove the arm"),
        bind(P::NewRun, &[BACKSPACE], A::Erase, "", "erase a character of the seeds"),
        bind(P::NewRun, &[Key::Ctrl('u')], A::EraseAll, "", "erase the seeds"),
        bind(P::NewRun, &[PAGE_UP], A::PageUp, "", "scroll the description up"),
        bind(P::NewRun, &[PAGE_DOWN], A::PageDown, "scroll", "scroll the description down"),

        bind(P::ArmForm, &[ENTER], A::Enter, "accept", "keep the arm"),
        bind(P::ArmForm, &[ESC, Key::Ctrl('c')], A::Back, "cancel", "go back, change nothing"),
        bind(P::ArmForm, &[UP, BACK_TAB], A::Up, "", "field above"),
        bind(P::ArmForm, &[DOWN, TAB], A::Down, "next field", "field below"),
        bind(P::ArmForm, &[LEFT], A::Left, "change", "choice before"),
        bind(P::ArmForm, &[RIGHT], A::Right, "", "next choice"),
        bind(P::ArmForm, &[BACKSPACE], A::Erase, "", "erase a character; other keys type"),
        bind(P::ArmForm, &[Key::Ctrl('u')], A::EraseAll, "clear", "erase the field: back to its default"),

        bind(P::Live, &[ENTER], A::Enter, "open", "the arm under the cursor, full screen"),
        bind(P::Live, &[Key::Char('m')], A::Metric, "metric", "curves of accuracy, NTP or KL"),
        bind(P::Live, &[Key::Char('s')], A::Sort, "sort", "sort the table by forgetting or as the run has it"),
        bind(P::Live, &[Key::Char('o')], A::Seeds, "seeds", "open the single seeds of every arm, or close them again"),
        bind(P::Live, &[Key::Char('l')], A::Log, "log", "the run's log"),
        bind(P::Live, &[Key::Char('e')], A::Export, "export", "write CSVs and figures"),
        bind(P::Live, &[Key::Char('x')], A::Stop, "stop", "stop the run, with a checkpoint"),
        bind(P::Live, &[Key::Char('r')], A::Resume, "", "go on with an interrupted or crashed run"),
        bind(P::Live, &[Key::Char('f')], A::Future, "", "show or hide tasks still to come"),
        bind(P::Live, &[UP, K], A::Up, "", "arm above"),
        bind(P::Live, &[DOWN, J], A::Down, "", "arm below"),
        bind(P::Live, &[PAGE_UP, LEFT], A::PageUp, "", "page of panels before"),
        bind(P::Live, &[PAGE_DOWN, RIGHT], A::PageDown, "", "next page of panels"),
        bind(P::Live, &[ESC], A::Back, "", "list of runs, or the sweep it is of"),

        bind(P::Arm, &[ESC], A::Back, "back", "all arms"),
        bind(P::Arm, &[LEFT], A::Left, "other arm", "arm before"),
        bind(P::Arm, &[RIGHT], A::Right, "", "next arm"),
        bind(P::Arm, &[Key::Char('m')], A::Metric, "metric", "curves of accuracy, NTP or KL"),
        bind(P::Arm, &[Key::Char('o')], A::Seeds, "seeds", "open the single seeds of every arm, or close them again"),
        bind(P::Arm, &[Key::Char('f')], A::Future, "", "show or hide tasks still to come"),
        bind(P::Arm, &[Key::Char('r')], A::Replay, "replay", "what the arm replays: the latest texts, how likely and how varied"),
        bind(P::Arm, &[Key::Char('l')], A::Log, "log", "the run's log"),
        bind(P::Arm, &[UP, K, PAGE_UP], A::Up, "", "older log lines"),
        bind(P::Arm, &[DOWN, J, PAGE_DOWN], A::Down, "", "newer log lines"),

        bind(P::Runs, &[ENTER], A::Enter, "open", "open the run; a live one is followed; of a sweep its points"),
        bind(P::Runs, &[Key::Char(' ')], A::Mark, "mark", "mark for comparison"),
        bind(P::Runs, &[Key::Char('c')], A::Compare, "compare", "compare the marked runs"),
        bind(P::Runs, &[Key::Char('e')], A::Export, "export", "write CSVs and figures of the marked runs, or this one"),
        bind(P::Runs, &[Key::Char('r')], A::Resume, "resume", "go on with an interrupted or crashed run, or with a sweep"),
        bind(P::Runs, &[Key::Char('x')], A::Stop, "stop", "stop the run or sweep, with checkpoints"),
        bind(P::Runs, &[UP, K], A::Up, "", "run above"),
        bind(P::Runs, &[DOWN, J], A::Down, "", "run below"),
        bind(P::Runs, &[PAGE_UP], A::PageUp, "", "page up"),
        bind(P::Runs, &[PAGE_DOWN], A::PageDown, "", "page down"),
        bind(P::Runs, &[HOME], A::First, "", "newest run"),
        bind(P::Runs, &[END], A::Last, "", "oldest run"),

        bind(P::Sweep, &[ENTER], A::Enter, "open", "open the point's run; why a refused one was"),
        bind(P::Sweep, &[ESC], A::Back, "back", "list of runs"),
        bind(P::Sweep, &[Key::Char('r')], A::Resume, "resume", "go on with the sweep, in the background"),
        bind(P::Sweep, &[Key::Char('x')], A::Stop, "stop", "stop the sweep, with checkpoints"),
        bind(P::Sweep, &[UP, K], A::Up, "", "point above"),
        bind(P::Sweep, &[DOWN, J], A::Down, "", "point below"),
        bind(P::Sweep, &[PAGE_UP], A::PageUp, "", "page up"),
        bind(P::Sweep, &[PAGE_DOWN], A::PageDown, "", "page down"),
        bind(P::Sweep, &[HOME], A::First, "", "first point"),
        bind(P::Sweep, &[END], A::Last, "", "last point"),

        bind(P::Compare, &[ESC], A::Back, "back", "list of runs"),
        bind(P::Compare, &[ENTER], A::Enter, "open run", "open the run under the cursor"),
        bind(P::Compare, &[Key::Char('s')], A::Sort, "sort", "sort by forgetting or by run"),
        bind(P::Compare, &[Key::Char('m')], A::Metric, "metric", "figures in accuracy or NTP"),
        bind(P::Compare, &[Key::Char('o')], A::Seeds, "seeds", "open the single seeds of every arm, or close them again"),
        bind(P::Compare, &[Key::Char('e')], A::Export, "export", "write the comparison as CSV"),
        bind(P::Compare, &[UP, K], A::Up, "", "row above"),
        bind(P::Compare, &[DOWN, J], A::Down, "", "row below"),
        bind(P::Compare, &[PAGE_UP], A::PageUp, "", "page up"),
        bind(P::Compare, &[PAGE_DOWN], A::PageDown, "", "page down"),

        bind(P::Plugins, &[UP, K], A::Up, "", "plugin above"),
        bind(P::Plugins, &[DOWN, J], A::Down, "next", "plugin below"),
        bind(P::Plugins, &[PAGE_UP], A::PageUp, "", "scroll its description up"),
        bind(P::Plugins, &[PAGE_DOWN], A::PageDown, "scroll", "scroll its description down"),

        bind(P::Text, &[ESC, Q, ENTER, Key::Char('?'), Key::Char('l'), Key::Char('r'), Key::Ctrl('c')], A::Back, "close", "close"),
        bind(P::Text, &[UP, K], A::Up, "scroll", "line up"),
        bind(P::Text, &[DOWN, J], A::Down, "", "line down"),
        bind(P::Text, &[PAGE_UP], A::PageUp, "page", "page up"),
        bind(P::Text, &[PAGE_DOWN, Key::Char(' ')], A::PageDown, "", "page down"),
        bind(P::Text, &[HOME], A::First, "", "to the top"),
        bind(P::Text, &[END], A::Last, "", "to the end"),

        bind(P::Notice, &[ENTER, ESC, Key::Char(' '), Q, Key::Ctrl('c')], A::Back, "close", "close the message"),

        bind(P::AskStop, &[Key::Char('y'), Key::Char('x')], A::Yes, "stop it", "stop it; it can be resumed"),
        bind(P::AskStop, &[ESC, Key::Char('n'), Q, Key::Ctrl('c')], A::Back, "let it run", "let it run"),

        bind(P::AskQuit, &[Key::Char('l'), ENTER, Key::Ctrl('c')], A::LeaveGoing, "leave it running", "leave; the runs go on"),
        bind(P::AskQuit, &[Key::Char('s')], A::StopAndLeave, "stop it", "stop the runs with a checkpoint, then leave"),
        bind(P::AskQuit, &[ESC, Q], A::Back, "stay", "stay in the lab"),
    ]
};

/// The action of a key press at `place`.
pub fn action(place: Place, event: KeyEvent) -> Option<Action> {
    let at = |place: Place| {
        KEYMAP
            .iter()
            .find(|b| b.place == place && b.keys.iter().any(|key| key.matches(event)))
            .map(|binding| binding.action)
    };
    at(place).or_else(|| at(Place::Everywhere).filter(|_| place.open()))
}

/// Bindings of the footer at `place`.
pub fn footer(place: Place) -> impl Iterator<Item = &'static Binding> {
    let own = KEYMAP.iter().filter(move |b| b.place == place);
    let common = KEYMAP
        .iter()
        .filter(move |b| b.place == Place::Everywhere && place.open());
    own.chain(common).filter(|b| !b.short.is_empty())
}

/// The key of a binding as the footer shows it: directions in pairs.
pub fn footer_key(binding: &Binding) -> String {
    match binding.action {
        Action::Up | Action::Down => "↑↓".into(),
        Action::Left | Action::Right => "←→".into(),
        Action::PageUp | Action::PageDown => "PgUp/Dn".into(),
        _ => binding.keys[0].name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_means_two_things_on_one_screen() {
        for place in Place::ALL {
            let mut seen: Vec<Key> = Vec::new();
            let here =
                |b: &&Binding| b.place == place || (place.open() && b.place == Place::Everywhere);
            for key in KEYMAP.iter().filter(here).flat_map(|b| b.keys) {
                assert!(!seen.contains(key), "{key:?} is bound twice on {place:?}");
                seen.push(*key);
            }
        }
    }

    #[test]
    fn every_key_is_explained_and_every_place_can_be_left() {
        for binding in KEYMAP {
            assert!(!binding.long.is_empty(), "{:?} has no help", binding.action);
        }
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        for place in Place::ALL {
            assert!(
                action(place, ctrl_c).is_some(),
                "Ctrl-C is dead on {place:?}"
            );
        }
    }
}

//! Every key of the lab.

use crossterm::event::KeyCode;

use super::{Action, Key, Place};

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
    /// Description in the help and beside the command line.
    pub long: &'static str,
}

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

const UP: Key = Key::Named(KeyCode::Up);
const DOWN: Key = Key::Named(KeyCode::Down);
const LEFT: Key = Key::Named(KeyCode::Left);
const RIGHT: Key = Key::Named(KeyCode::Right);
const PAGE_UP: Key = Key::Named(KeyCode::PageUp);
const PAGE_DOWN: Key = Key::Named(KeyCode::PageDown);
const HOME: Key = Key::Named(KeyCode::Home);
const END: Key = Key::Named(KeyCode::End);
const ENTER: Key = Key::Named(KeyCode::Enter);
const ESC: Key = Key::Named(KeyCode::Esc);
const TAB: Key = Key::Named(KeyCode::Tab);
const BACK_TAB: Key = Key::Named(KeyCode::BackTab);
const BACKSPACE: Key = Key::Named(KeyCode::Backspace);
const DELETE: Key = Key::Named(KeyCode::Delete);
const F1: Key = Key::Named(KeyCode::F(1));
const CTRL_C: Key = Key::Ctrl('c');
const CTRL_U: Key = Key::Ctrl('u');

const fn c(char: char) -> Key {
    Key::Char(char)
}

/// The keymap. Footers list a place's own keys in this order, then those of [`Place::Everywhere`].
#[rustfmt::skip]
pub static KEYMAP: &[Binding] = {
    use Action as A;
    use Place as P;
    &[
        bind(P::Everywhere, &[c('1')], A::GoRuns, "", "runs"),
        bind(P::Everywhere, &[c('2')], A::GoWatch, "", "watch: the arms of one run or several"),
        bind(P::Everywhere, &[c('3')], A::GoCompose, "", "compose a run"),
        bind(P::Everywhere, &[c('4')], A::GoStrategies, "", "strategies"),
        bind(P::Everywhere, &[c('5')], A::GoMachine, "", "machine"),
        bind(P::Everywhere, &[c(':')], A::CommandLine, "", "type a command; Tab completes it"),
        bind(P::Everywhere, &[c('?'), F1], A::Help, "keys", "keys of this screen, and how figures are to be read"),
        bind(P::Everywhere, &[c('q'), CTRL_C], A::Quit, "quit", "leave; asks what to do with live runs"),

        bind(P::Runs, &[ENTER], A::Enter, "open", "open the run; of a sweep its points; marked ones together"),
        bind(P::Runs, &[c(' ')], A::Mark, "mark", "mark, to open several as one comparison"),
        bind(P::Runs, &[c('/')], A::Filter, "filter", "filter the list: words, status:live, forgot>0.1, cfg.PATH=VALUE"),
        bind(P::Runs, &[c('d')], A::Diff, "diff", "settings that differ from the run below, or between marked runs"),
        bind(P::Runs, &[c('e')], A::Export, "export", "write CSVs and figures of the marked runs, or this one"),
        bind(P::Runs, &[c('r')], A::Resume, "resume", "go on with an interrupted or crashed run, or with a sweep"),
        bind(P::Runs, &[c('X')], A::Stop, "", "stop the run or sweep, with checkpoints; r goes on with it"),
        bind(P::Runs, &[c('g')], A::Again, "again", "compose a run with the settings of this one"),
        bind(P::Runs, &[c('R')], A::Rename, "", "give the run a display name"),
        bind(P::Runs, &[c('n')], A::Note, "", "write a note on the run"),
        bind(P::Runs, &[c('t')], A::Tag, "", "tag the run: words; -word takes one away"),
        bind(P::Runs, &[c('D')], A::Delete, "", "delete the run; asks, and says how much disk that frees"),
        bind(P::Runs, &[UP, c('k')], A::Up, "", "run above"),
        bind(P::Runs, &[DOWN, c('j')], A::Down, "", "run below"),
        bind(P::Runs, &[PAGE_UP], A::PageUp, "", "page up"),
        bind(P::Runs, &[PAGE_DOWN], A::PageDown, "", "page down"),
        bind(P::Runs, &[HOME], A::First, "", "first run"),
        bind(P::Runs, &[END], A::Last, "", "last run"),
        bind(P::Runs, &[ESC], A::Back, "", "take the filter away, then the marks"),

        bind(P::Sweep, &[ENTER], A::Enter, "open", "open the point's run; why a refused one was"),
        bind(P::Sweep, &[ESC], A::Back, "back", "list of runs"),
        bind(P::Sweep, &[c(' ')], A::Mark, "mark", "mark, to open several points as one comparison"),
        bind(P::Sweep, &[c('e')], A::Export, "export", "write CSVs and figures of the marked points, or this one"),
        bind(P::Sweep, &[c('r')], A::Resume, "resume", "go on with the sweep, in the background"),
        bind(P::Sweep, &[c('X')], A::Stop, "stop", "stop the sweep, with checkpoints"),
        bind(P::Sweep, &[UP, c('k')], A::Up, "", "point above"),
        bind(P::Sweep, &[DOWN, c('j')], A::Down, "", "point below"),
        bind(P::Sweep, &[PAGE_UP], A::PageUp, "", "page up"),
        bind(P::Sweep, &[PAGE_DOWN], A::PageDown, "", "page down"),
        bind(P::Sweep, &[HOME], A::First, "", "first point"),
        bind(P::Sweep, &[END], A::Last, "", "last point"),

        bind(P::Watch, &[c('m')], A::Metric, "metric", "what the curves show, by name"),
        bind(P::Watch, &[c('x')], A::Axis, "x axis", "x axis in steps, tokens, seconds or FLOPs"),
        bind(P::Watch, &[c('y')], A::LogScale, "log", "linear or logarithmic values"),
        bind(P::Watch, &[c('L')], A::LogAxis, "", "linear or logarithmic x axis"),
        bind(P::Watch, &[c('+'), c('=')], A::Smoother, "smooth", "smooth the curves more; the raw ones stay, faint"),
        bind(P::Watch, &[c('-')], A::Rougher, "", "smooth less"),
        bind(P::Watch, &[c('c')], A::Cursor, "cursor", "read every arm at one step; ← → move it, :cursor 420 puts it there"),
        bind(P::Watch, &[c('v')], A::Arrange, "arrange", "put the next pane first: kept, curves, losses, replay, matrix, log, panels, arm"),
        bind(P::Watch, &[c('z')], A::Zoom, "zoom", "show the pane with the focus alone"),
        bind(P::Watch, &[c('s')], A::Sort, "sort", "sort the table by the next column"),
        bind(P::Watch, &[c('p')], A::Pin, "pin", "keep the arm on top of the table and of the curves"),
        bind(P::Watch, &[c('/')], A::Filter, "filter", "filter the arms: words, verdict:FORGETS, forgot>0.1"),
        bind(P::Watch, &[c('e')], A::Export, "export", "write this table, CSVs and figures, or all tables"),
        bind(P::Watch, &[c('Y')], A::Yank, "copy table", "copy the table, as Markdown, to the clipboard"),
        bind(P::Watch, &[c('V')], A::Panes, "", "put a pane first, by name"),
        bind(P::Watch, &[TAB], A::NextPane, "", "next pane"),
        bind(P::Watch, &[BACK_TAB], A::PreviousPane, "", "pane before"),
        bind(P::Watch, &[c('S')], A::Reverse, "", "turn the order of the table"),
        bind(P::Watch, &[c('[')], A::ZoomIn, "", "show less of the x axis, round the cursor"),
        bind(P::Watch, &[c(']')], A::ZoomOut, "", "show more of the x axis"),
        bind(P::Watch, &[c('H')], A::Hide, "", "hide the arm; means and verdicts stay as they are"),
        bind(P::Watch, &[c('A')], A::ShowAll, "", "show hidden arms again, and all of the x axis"),
        bind(P::Watch, &[c('o')], A::Seeds, "", "open the single seeds of every arm, or close them again"),
        bind(P::Watch, &[c('P')], A::Phase, "", "the phase whose keeping and learning is shown: the one before"),
        bind(P::Watch, &[c('f')], A::Future, "", "show or hide tasks still to come"),
        bind(P::Watch, &[c('X')], A::Stop, "", "stop the run, with a checkpoint; r goes on with it"),
        bind(P::Watch, &[c('r')], A::Resume, "", "go on with an interrupted or crashed run"),
        bind(P::Watch, &[c('a')], A::Add, "", "add an arm to the run: its name, as on the command line"),
        bind(P::Watch, &[DELETE], A::StopArm, "", "stop the arm under the cursor; the others go on"),
        bind(P::Watch, &[c('g')], A::Again, "", "compose a run with the settings of this one"),
        bind(P::Watch, &[c('d')], A::Diff, "", "settings that differ between the runs"),
        bind(P::Watch, &[ENTER], A::Enter, "", "everything about the arm under the cursor"),
        bind(P::Watch, &[UP, c('k')], A::Up, "", "arm above; with the focus on a text, up"),
        bind(P::Watch, &[DOWN, c('j')], A::Down, "", "arm below; with the focus on a text, down"),
        bind(P::Watch, &[LEFT, c('h')], A::Left, "", "cursor to an earlier step"),
        bind(P::Watch, &[RIGHT, c('l')], A::Right, "", "cursor to a later step"),
        bind(P::Watch, &[PAGE_UP], A::PageUp, "", "page of arms or of text before"),
        bind(P::Watch, &[PAGE_DOWN], A::PageDown, "", "next page of arms or of text"),
        bind(P::Watch, &[HOME], A::First, "", "first arm, or top of the text"),
        bind(P::Watch, &[END], A::Last, "", "last arm, or end of the text"),
        bind(P::Watch, &[ESC], A::Back, "", "out of the zoomed pane, the cursor, the filter; then the list of runs, or the sweep"),

        bind(P::Compose, &[c('s')], A::Start, "start", "start the run or sweep"),
        bind(P::Compose, &[c('u')], A::Queue, "queue", "start it as soon as nobody works on its device"),
        bind(P::Compose, &[ENTER], A::Enter, "edit", "edit the seeds, the arm or the setting, add an arm, or start: what the cursor is on"),
        bind(P::Compose, &[LEFT, c('h')], A::Left, "change", "choice before"),
        bind(P::Compose, &[RIGHT, c('l')], A::Right, "", "next choice"),
        bind(P::Compose, &[c('a')], A::Add, "add arm", "add an arm"),
        bind(P::Compose, &[c('c')], A::Copy, "copy", "copy the arm"),
        bind(P::Compose, &[c('d'), DELETE], A::Remove, "remove", "remove the arm; a setting back to the preset's"),
        bind(P::Compose, &[c('/')], A::Filter, "search", "search the settings"),
        bind(P::Compose, &[c('w')], A::Write, "write", "write the configuration to a file"),
        bind(P::Compose, &[c('T')], A::Toml, "TOML", "show the configuration as TOML"),
        bind(P::Compose, &[c('Y')], A::Yank, "copy command", "copy the command line to the clipboard"),
        bind(P::Compose, &[UP, c('k')], A::Up, "", "field above"),
        bind(P::Compose, &[DOWN, c('j')], A::Down, "", "field below"),
        bind(P::Compose, &[PAGE_UP], A::PageUp, "", "scroll the description up"),
        bind(P::Compose, &[PAGE_DOWN], A::PageDown, "", "scroll the description down"),
        bind(P::Compose, &[HOME], A::First, "", "first field"),
        bind(P::Compose, &[END], A::Last, "", "last field"),
        bind(P::Compose, &[ESC], A::Back, "", "take the search away"),

        bind(P::ArmForm, &[ENTER], A::Enter, "accept", "keep the arm"),
        bind(P::ArmForm, &[ESC, CTRL_C], A::Back, "cancel", "go back, change nothing"),
        bind(P::ArmForm, &[UP, BACK_TAB], A::Up, "", "field above"),
        bind(P::ArmForm, &[DOWN, TAB], A::Down, "next field", "field below"),
        bind(P::ArmForm, &[LEFT], A::Left, "change", "choice before"),
        bind(P::ArmForm, &[RIGHT], A::Right, "", "next choice"),
        bind(P::ArmForm, &[BACKSPACE], A::Erase, "", "erase a character; other keys type"),
        bind(P::ArmForm, &[CTRL_U], A::EraseAll, "clear", "erase the field: back to its default"),

        bind(P::Strategies, &[UP, c('k')], A::Up, "", "strategy above"),
        bind(P::Strategies, &[DOWN, c('j')], A::Down, "next", "strategy below"),
        bind(P::Strategies, &[c('c')], A::Check, "check", "check that the library keeps the contract"),
        bind(P::Strategies, &[PAGE_UP], A::PageUp, "", "scroll its description up"),
        bind(P::Strategies, &[PAGE_DOWN], A::PageDown, "scroll", "scroll its description down"),

        bind(P::Machine, &[PAGE_UP, UP, c('k')], A::PageUp, "", "scroll up"),
        bind(P::Machine, &[PAGE_DOWN, DOWN, c('j')], A::PageDown, "scroll", "scroll down"),

        bind(P::Text, &[ESC, c('q'), ENTER, c('?'), CTRL_C], A::Back, "close", "close"),
        bind(P::Text, &[UP, c('k')], A::Up, "scroll", "line up"),
        bind(P::Text, &[DOWN, c('j')], A::Down, "", "line down"),
        bind(P::Text, &[PAGE_UP], A::PageUp, "page", "page up"),
        bind(P::Text, &[PAGE_DOWN, c(' ')], A::PageDown, "", "page down"),
        bind(P::Text, &[HOME], A::First, "", "to the top"),
        bind(P::Text, &[END], A::Last, "", "to the end"),

        bind(P::Picker, &[ENTER], A::Enter, "choose", "take the line under the cursor"),
        bind(P::Picker, &[ESC, CTRL_C], A::Back, "cancel", "change nothing"),
        bind(P::Picker, &[UP, BACK_TAB], A::Up, "", "line above"),
        bind(P::Picker, &[DOWN, TAB], A::Down, "next", "line below"),
        bind(P::Picker, &[BACKSPACE], A::Erase, "", "erase a character; other keys type"),
        bind(P::Picker, &[CTRL_U], A::EraseAll, "clear", "erase what was typed"),

        bind(P::Prompt, &[ENTER], A::Enter, "accept", "do it"),
        bind(P::Prompt, &[ESC, CTRL_C], A::Back, "cancel", "change nothing"),
        bind(P::Prompt, &[TAB], A::Complete, "complete", "complete the word, or the next completion"),
        bind(P::Prompt, &[UP], A::Up, "", "what was typed before"),
        bind(P::Prompt, &[DOWN], A::Down, "", "what was typed after"),
        bind(P::Prompt, &[LEFT], A::Left, "", "cursor left"),
        bind(P::Prompt, &[RIGHT], A::Right, "", "cursor right"),
        bind(P::Prompt, &[HOME], A::First, "", "to the beginning"),
        bind(P::Prompt, &[END], A::Last, "", "to the end"),
        bind(P::Prompt, &[BACKSPACE], A::Erase, "", "erase a character"),
        bind(P::Prompt, &[CTRL_U], A::EraseAll, "clear", "erase the line"),

        bind(P::Notice, &[ENTER, ESC, c(' '), c('q'), CTRL_C], A::Back, "close", "close the message"),

        bind(P::Ask, &[c('y')], A::Yes, "yes", "do it"),
        bind(P::Ask, &[ESC, c('n'), c('q'), CTRL_C], A::Back, "no", "leave it as it is"),

        bind(P::AskQuit, &[c('l'), ENTER, CTRL_C], A::LeaveGoing, "leave it running", "leave; the runs go on"),
        bind(P::AskQuit, &[c('s')], A::StopAndLeave, "stop it", "stop the runs with a checkpoint, then leave"),
        bind(P::AskQuit, &[ESC, c('q')], A::Back, "stay", "stay in the lab"),
    ]
};

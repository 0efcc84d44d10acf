//! The state of the terminal lab: events change it, drawing reads it.

mod command_line;
mod draw;
mod overlays;
mod replies;

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use forgetlab_study::report::{self, Margins};
use forgetlab_study::run::{RunState, RunStatus};
use ratatui::layout::{Position, Rect, Size};

use super::event::{Command, Event};
use super::keymap::{Action, Keymap, Place};
use super::screens::compose::Compose;
use super::screens::machine::MachineScreen;
use super::screens::overlay::{Overlay, Text};
use super::screens::picker::Picker;
use super::screens::runs::Runs;
use super::screens::strategies::Strategies;
use super::screens::sweep::SweepScreen;
use super::screens::typed::Typed;
use super::screens::watch::Watch;
use super::screens::{Effects, Prompt, Screen};
use super::theme::Theme;
use super::view::{self, Views};

/// Size of the smallest terminal the lab is drawn on.
const SMALLEST: Size = Size::new(80, 24);
/// How often the machine is read while its screen is shown, and while its line in the header is.
const MACHINE_EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// Why the lab is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A key or a signal asked for it.
    Quit,
    /// The terminal is gone.
    TerminalGone,
    /// An internal error.
    Fault(String),
}

/// What is said of a text for the clipboard: tmux takes it for itself alone unless told otherwise, and says nothing.
const SENT: &str = "sent to the terminal's clipboard; in tmux that needs `set -s set-clipboard on`; e writes it to a file";

/// State of the terminal lab.
pub struct App {
    theme: Theme,
    keymap: Keymap,
    size: Size,
    /// Seconds since the Unix epoch.
    now: f64,
    screen: Screen,
    /// Whether a key, a command or the first list of runs has decided which screen is shown.
    settled: bool,
    /// Whether experiments, strategies and devices were asked for.
    has_catalog: bool,
    runs: Runs,
    /// The sweep whose points are shown.
    sweep: Option<SweepScreen>,
    watch: Watch,
    compose: Compose,
    strategies: Strategies,
    machine: MachineScreen,
    /// How often the machine is being read.
    machine_every: Option<Duration>,
    /// How experiments are looked at.
    views: Views,
    overlay: Option<Overlay>,
    /// Command lines and filters that were typed, the latest last.
    typed: Vec<String>,
    /// Messages to show, one after the other: title and text.
    notices: VecDeque<(String, String)>,
    /// Text shown in the footer until the next key.
    hint: Option<String>,
    /// Runs started or attached here whose last known status is live.
    mine: Vec<String>,
    /// Runs that are being asked to stop before the lab is left.
    stopping: Vec<String>,
    /// Commands for the lab's thread, not sent yet.
    commands: Vec<Command>,
    /// Text for the clipboard, not sent yet.
    clipboard: Option<String>,
    /// Whether the screen has to be redrawn.
    dirty: bool,
    /// Reason to leave, once there is one.
    exit: Option<Exit>,
}

impl App {
    /// A lab with nothing loaded, which asks for the catalog and the runs. With `watch`, opens on that run.
    pub fn new(theme: Theme, size: Size, now: f64, watch: Option<String>) -> Self {
        let mut app = Self {
            theme,
            keymap: Keymap::default(),
            size,
            now,
            screen: Screen::Runs,
            settled: watch.is_some(),
            has_catalog: false,
            runs: Runs::default(),
            sweep: None,
            watch: Watch::default(),
            compose: Compose::default(),
            strategies: Strategies::default(),
            machine: MachineScreen::default(),
            machine_every: None,
            views: Views::new(),
            overlay: None,
            typed: Vec::new(),
            notices: VecDeque::new(),
            hint: None,
            mine: Vec::new(),
            stopping: Vec::new(),
            commands: vec![Command::LoadKept],
            clipboard: None,
            dirty: true,
            exit: None,
        };
        match watch {
            Some(run) => app.open(vec![run]),
            None => app.commands.push(Command::FollowRuns(true)),
        }
        app.commands.push(Command::LoadRuns);
        app
    }

    /// Asks for experiments, strategies and devices, once somebody may want them and what is shown is there: to load
    /// every strategy takes longer than to read a run.
    fn want_catalog(&mut self) {
        if !self.has_catalog {
            self.has_catalog = true;
            self.commands.push(Command::LoadCatalog);
        }
    }

    /// Takes the commands given since the last call.
    pub fn take_commands(&mut self) -> Vec<Command> {
        mem::take(&mut self.commands)
    }

    /// Takes the text for the clipboard, if there is one.
    pub fn take_clipboard(&mut self) -> Option<String> {
        self.clipboard.take()
    }

    /// Whether the screen has to be redrawn since the last call.
    pub fn take_dirty(&mut self) -> bool {
        mem::take(&mut self.dirty)
    }

    /// Whether the screen shows an elapsed time, which needs clock events.
    pub fn wants_clock(&self) -> bool {
        self.screen == Screen::Watch && self.watch.is_live()
    }

    /// Reason to leave the lab, once there is one.
    pub fn exit(&self) -> Option<Exit> {
        self.exit.clone()
    }

    /// Live runs started or attached here that were not asked to stop.
    pub fn runs_left_going(&self) -> &[String] {
        &self.mine
    }

    /// Applies an event.
    pub fn update(&mut self, event: Event) {
        match event {
            Event::Key(key) => {
                self.dirty = true;
                self.settled = true;
                self.key(key);
            }
            Event::Click(at) => {
                self.dirty = true;
                self.settled = true;
                self.click(at);
            }
            Event::Wheel(down) => {
                self.dirty = true;
                let action = if down < 0 { Action::Up } else { Action::Down };
                self.act(action, None);
            }
            Event::Resize(size) => {
                self.size = size;
                self.dirty = true;
            }
            Event::Clock(now) => {
                self.now = now;
                self.watch.now = now;
                self.dirty |= self.wants_clock();
            }
            Event::Reply(reply) => self.reply(reply),
            Event::Signal => self.exit = Some(Exit::Quit),
            Event::TerminalGone => self.exit = Some(Exit::TerminalGone),
        }
        self.follow_machine();
        self.ask_for_what_is_shown();
    }

    /// Asks for what a screen wants to show and does not have.
    fn ask_for_what_is_shown(&mut self) {
        let wanted = match self.screen {
            Screen::Watch => self.watch.wanted_texts(self.body()),
            Screen::Runs => self.runs.wanted_preview(),
            Screen::Compose => self.compose.wanted_prediction(self.strategies.found()),
            _ => None,
        };
        // Once only: an answer, also a bad one, is kept.
        if let Some(command) = wanted.filter(|command| !self.commands.contains(command)) {
            self.commands.push(command);
        }
    }

    /// Reads the machine as often as what is shown of it needs.
    fn follow_machine(&mut self) {
        let every = match self.screen {
            Screen::Machine => Some(MACHINE_EVERY[0]),
            Screen::Watch if self.watch.is_live() => Some(MACHINE_EVERY[1]),
            _ => None,
        };
        if every != self.machine_every {
            self.machine_every = every;
            self.commands.push(Command::FollowMachine(every));
        }
    }

    /// The place whose key bindings apply now.
    fn place(&self) -> Place {
        match &self.overlay {
            Some(Overlay::Text(..)) => return Place::Text,
            Some(Overlay::Picker(_)) => return Place::Picker,
            Some(Overlay::Line(_)) => return Place::Prompt,
            Some(Overlay::Ask(_)) => return Place::Ask,
            Some(Overlay::AskQuit(_)) => return Place::AskQuit,
            None => {}
        }
        // Messages wait until what is being typed or asked is done with.
        match self.notices.is_empty() {
            true => self.screen_place(),
            false => Place::Notice,
        }
    }

    /// The place of the screen itself.
    fn screen_place(&self) -> Place {
        match self.screen {
            Screen::Runs => Place::Runs,
            Screen::Sweep => Place::Sweep,
            Screen::Watch => Place::Watch,
            Screen::Compose if self.compose.form.is_some() => Place::ArmForm,
            Screen::Compose => Place::Compose,
            Screen::Strategies => Place::Strategies,
            Screen::Machine => Place::Machine,
        }
    }

    /// The screen between header and footer.
    fn body(&self) -> Rect {
        Rect::new(0, 1, self.size.width, self.size.height.saturating_sub(2))
    }

    fn key(&mut self, key: KeyEvent) {
        self.hint = None;
        let place = self.place();
        let plain = !key
            .modifiers
            .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
        if let (KeyCode::Char(c), true) = (key.code, plain) {
            let taken = match (place, &mut self.overlay) {
                (Place::ArmForm, _) => {
                    self.compose.typed_in_form(c);
                    true
                }
                (Place::Picker, Some(Overlay::Picker(picker))) => {
                    picker.typed(c);
                    true
                }
                (Place::Prompt, Some(Overlay::Line(line))) => {
                    line.typed(c);
                    true
                }
                _ => false,
            };
            if taken {
                return self.filter_as_typed();
            }
        }
        if let Some(action) = self.keymap.action(place, key) {
            self.act(action, None);
        }
    }

    /// A click on a tab of the header shows its screen.
    fn click(&mut self, at: Position) {
        if let Some(screen) = draw::tab_at(at.x).filter(|_| at.y == 0 && self.place().open()) {
            self.go(screen);
        }
    }

    /// Applies an action, with what a command line says behind its name.
    fn act(&mut self, action: Action, argument: Option<&str>) {
        let mut effects = Effects::default();
        let (place, body) = (self.place(), self.body());
        match action {
            Action::GoRuns if place.open() => effects.go = Some(Screen::Runs),
            Action::GoWatch if place.open() => match argument {
                Some(runs) => effects.open = runs.split_whitespace().map(str::to_owned).collect(),
                None => effects.go = Some(Screen::Watch),
            },
            Action::GoCompose if place.open() => effects.go = Some(Screen::Compose),
            Action::GoStrategies if place.open() => effects.go = Some(Screen::Strategies),
            Action::GoMachine if place.open() => effects.go = Some(Screen::Machine),
            Action::Help if place.open() => {
                self.overlay = Some(Overlay::Text(Text::Help(place), 0));
            }
            Action::CommandLine if place.open() => effects.prompt = Some(Prompt::Command),
            Action::Quit if place.open() => self.ask_quit(),
            action => match place {
                Place::Everywhere => {}
                Place::Runs => self.runs.act(action, argument, body.height, &mut effects),
                Place::Sweep => match &mut self.sweep {
                    Some(sweep) => sweep.act(action, body.height, &mut effects),
                    None => effects.go = Some(Screen::Runs),
                },
                Place::Watch => self.watch.act(action, argument, body, &mut effects),
                Place::Compose => {
                    self.compose
                        .act(action, argument, self.strategies.found(), &mut effects);
                }
                Place::ArmForm => self.compose.act_in_form(action),
                Place::Strategies => self.strategies.act(action, body.as_size(), &mut effects),
                Place::Machine => self.machine.act(action),
                Place::Notice => drop(self.notices.pop_front()),
                _ => self.act_on_overlay(action, &mut effects),
            },
        }
        self.apply(effects);
    }

    /// Does what a screen asks for.
    fn apply(&mut self, effects: Effects) {
        self.commands.extend(effects.commands);
        self.hint = effects.hint.or(self.hint.take());
        if let Some(screen) = effects.go {
            self.go(screen);
        }
        if !effects.open.is_empty() {
            self.open(effects.open);
        }
        if let Some(sweep) = effects.open_sweep {
            self.open_sweep(sweep);
        }
        if let Some(text) = effects.notice {
            self.notices.push_back(("Message".to_owned(), text));
        }
        if let Some((title, text)) = effects.text {
            self.overlay = Some(Overlay::Text(Text::Told(title, text), 0));
        }
        if effects.copy.is_some() {
            self.clipboard = effects.copy;
            self.hint = Some(SENT.into());
        }
        if effects.keep_view {
            self.keep_view();
        }
        if let Some(ask) = effects.ask {
            self.overlay = Some(Overlay::Ask(ask));
        }
        if let Some(prompt) = effects.prompt {
            self.overlay = Some(Overlay::Line(Typed::new(prompt)));
        }
        if let Some(choices) = effects.choices {
            self.overlay = Some(Overlay::Picker(Picker::new(choices)));
        }
    }

    /// Keeps how the watched experiment is looked at.
    fn keep_view(&mut self) {
        let Some(experiment) = self.watch.experiment().map(str::to_owned) else {
            return;
        };
        let view = self.watch.view.clone();
        if self.views.get(&experiment) != Some(&view) {
            self.views.insert(experiment, view);
            self.commands
                .push(Command::KeepViews(view::write(&self.views)));
        }
    }

    fn go(&mut self, screen: Screen) {
        self.settled = true;
        match (self.screen == Screen::Sweep, &self.sweep) {
            (false, Some(sweep)) if screen == Screen::Sweep => {
                let name = Some(sweep.name.clone());
                self.commands.push(Command::FollowSweep(name));
            }
            // A live one is followed to its end: leaving the lab asks about it.
            (true, Some(sweep)) if screen != Screen::Sweep && !sweep.is_live() => {
                self.commands.push(Command::FollowSweep(None));
            }
            _ => {}
        }
        if (self.screen == Screen::Runs) != (screen == Screen::Runs) {
            self.commands
                .push(Command::FollowRuns(screen == Screen::Runs));
        }
        if matches!(screen, Screen::Compose | Screen::Strategies) {
            self.want_catalog();
        }
        self.screen = screen;
    }

    /// Watches runs, as their experiment was looked at before.
    fn open(&mut self, runs: Vec<String>) {
        if self.watch.names() != runs {
            self.watch = Watch::new(runs.clone());
            self.watch.now = self.now;
            self.watch.entitle(self.runs.list());
        }
        let of_sweep = self
            .sweep
            .as_ref()
            .filter(|sweep| runs.iter().any(|run| sweep.has_run(run)));
        self.watch.sweep = of_sweep.map(|sweep| sweep.name.clone());
        self.commands.push(Command::Watch(runs));
        self.go(Screen::Watch);
    }

    /// Shows the points of a sweep.
    fn open_sweep(&mut self, name: String) {
        if self.sweep.as_ref().is_none_or(|sweep| sweep.name != name) {
            self.sweep = Some(SweepScreen::new(name));
            // Another one than that whose points may be shown just now.
            self.go(Screen::Runs);
        }
        self.go(Screen::Sweep);
    }

    /// Whether a name is that of a sweep.
    fn is_sweep(&self, name: &str) -> bool {
        let shown = self.sweep.as_ref().is_some_and(|sweep| sweep.name == name);
        shown || self.runs.is_sweep(name)
    }

    /// Whether a name is that of the run of a point of the sweep that is, or was, shown.
    fn is_point(&self, run: &str) -> bool {
        let sweep = self.sweep.as_ref();
        sweep.is_some_and(|sweep| sweep.has_run(run))
    }

    fn ask_quit(&mut self) {
        match self.mine.is_empty() {
            true => self.exit = Some(Exit::Quit),
            false => self.overlay = Some(Overlay::AskQuit(self.mine.clone())),
        }
    }

    /// The margins of the verdicts on the screen.
    fn margins(&self) -> Margins {
        let watched = self.watch.first().map(|run| &run.state);
        report::margins(watched.unwrap_or(&RunState::default()))
    }

    /// Records whether a run started or attached here is live.
    fn note_status(&mut self, run: &str, status: RunStatus) {
        self.mine.retain(|name| name != run);
        if status == RunStatus::Live {
            self.mine.push(run.to_string());
        }
    }

    /// Shows a message.
    fn notify(&mut self, title: &str, text: String) {
        self.notices.push_back((title.to_owned(), text));
    }
}

/// The tab that a screen belongs to.
fn tab_of(screen: Screen) -> Screen {
    match screen {
        Screen::Sweep => Screen::Runs,
        other => other,
    }
}

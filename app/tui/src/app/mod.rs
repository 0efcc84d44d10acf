//! The state of the terminal lab: events change it, drawing reads it.

mod draw;
mod replies;

use std::collections::VecDeque;
use std::mem;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use forgetlab_study::report::{self, Margins};
use forgetlab_study::run::{RunState, RunStatus};
use ratatui::layout::Size;
use ratatui::style::Style;

use super::event::{Command, Event};
use super::keymap::{self, Action, Place};
use super::screens::compare::Compare;
use super::screens::live::Live;
use super::screens::new_run::NewRun;
use super::screens::overlay::{self, Overlay, Text};
use super::screens::plugins::Plugins;
use super::screens::runs::Runs;
use super::screens::sweep::SweepScreen;
use super::screens::{Effects, Screen, arm, replay};
use super::theme::Theme;

/// Size of the smallest terminal the lab is drawn on.
const SMALLEST: Size = Size::new(80, 24);

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

/// State of the terminal lab.
pub struct App {
    theme: Theme,
    size: Size,
    /// Seconds since the Unix epoch.
    now: f64,
    screen: Screen,
    new_run: NewRun,
    live: Option<Live>,
    runs: Runs,
    /// The sweep whose points are shown.
    sweep: Option<SweepScreen>,
    compare: Compare,
    plugins: Plugins,
    overlay: Option<Overlay>,
    /// Messages to show, one after the other: title and text.
    notices: VecDeque<(&'static str, String)>,
    /// Text shown in the footer until the next key.
    hint: Option<String>,
    /// Runs started or attached here whose last known status is live.
    mine: Vec<String>,
    /// Runs that are being asked to stop before the lab is left.
    stopping: Vec<String>,
    /// Commands for the lab's thread, not sent yet.
    commands: Vec<Command>,
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
            size,
            now,
            screen: Screen::NewRun,
            new_run: NewRun::default(),
            live: None,
            runs: Runs::default(),
            sweep: None,
            compare: Compare::default(),
            plugins: Plugins::default(),
            overlay: None,
            notices: VecDeque::new(),
            hint: None,
            mine: Vec::new(),
            stopping: Vec::new(),
            commands: Vec::new(),
            dirty: true,
            exit: None,
        };
        if let Some(run) = watch {
            app.open(run);
        }
        app.commands.push(Command::LoadCatalog);
        app.commands.push(Command::LoadRuns);
        app
    }

    /// Takes the commands given since the last call.
    pub fn take_commands(&mut self) -> Vec<Command> {
        mem::take(&mut self.commands)
    }

    /// Whether the screen has to be redrawn since the last call.
    pub fn take_dirty(&mut self) -> bool {
        mem::take(&mut self.dirty)
    }

    /// Whether the screen shows an elapsed time, which needs clock events.
    pub fn wants_clock(&self) -> bool {
        self.screen == Screen::Live && self.live.as_ref().is_some_and(Live::is_live)
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
                self.key(key);
            }
            Event::Resize(size) => {
                self.size = size;
                self.dirty = true;
            }
            Event::Clock(now) => {
                self.now = now;
                self.dirty |= self.wants_clock();
            }
            Event::Reply(reply) => self.reply(reply),
            Event::Signal => self.exit = Some(Exit::Quit),
            Event::TerminalGone => self.exit = Some(Exit::TerminalGone),
        }
    }

    /// The place whose key bindings apply now.
    fn place(&self) -> Place {
        if !self.notices.is_empty() {
            return Place::Notice;
        }
        match (&self.overlay, self.screen) {
            (Some(Overlay::Text(..)), _) => Place::Text,
            (Some(Overlay::AskStop(_)), _) => Place::AskStop,
            (Some(Overlay::AskQuit(_)), _) => Place::AskQuit,
            (None, Screen::NewRun) if self.new_run.form.is_some() => Place::ArmForm,
            (None, Screen::NewRun) => Place::NewRun,
            (None, Screen::Live) => Place::Live,
            (None, Screen::Arm) => Place::Arm,
            (None, Screen::Runs) => Place::Runs,
            (None, Screen::Sweep) => Place::Sweep,
            (None, Screen::Compare) => Place::Compare,
            (None, Screen::Plugins) => Place::Plugins,
        }
    }

    /// Size of the screen between header and footer.
    fn body(&self) -> Size {
        Size::new(self.size.width, self.size.height.saturating_sub(2))
    }

    fn key(&mut self, key: KeyEvent) {
        self.hint = None;
        let place = self.place();
        let plain = !key
            .modifiers
            .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
        if let (KeyCode::Char(c), true) = (key.code, plain) {
            if place == Place::NewRun && self.new_run.types(c) {
                return self.new_run.typed(c);
            }
            if let (Place::ArmForm, Some(form)) = (place, &mut self.new_run.form) {
                return form.typed(c);
            }
        }
        let Some(action) = keymap::action(place, key) else {
            return;
        };
        let mut effects = Effects::default();
        let body = self.body();
        match action {
            Action::GoNewRun => effects.go = Some(Screen::NewRun),
            Action::GoLive => effects.go = Some(Screen::Live),
            Action::GoRuns => effects.go = Some(Screen::Runs),
            Action::GoPlugins => effects.go = Some(Screen::Plugins),
            Action::NextScreen => effects.go = Some(self.neighbour(1)),
            Action::PreviousScreen => effects.go = Some(self.neighbour(3)),
            Action::Help => self.overlay = Some(Overlay::Text(Text::Help(place), 0)),
            Action::Quit => self.ask_quit(),
            action => match place {
                Place::Everywhere => {}
                Place::NewRun => self.new_run.act(action, self.plugins.found(), &mut effects),
                Place::ArmForm => self.new_run.act_in_form(action),
                Place::Live => match &mut self.live {
                    Some(live) => live.act(action, body, &mut effects),
                    None => effects.go = (action == Action::Back).then_some(Screen::Runs),
                },
                Place::Arm => match &mut self.live {
                    Some(live) => arm::act(live, action, &mut effects),
                    None => effects.go = Some(Screen::Live),
                },
                Place::Runs => self.runs.act(action, body.height, &mut effects),
                Place::Sweep => match &mut self.sweep {
                    Some(sweep) => sweep.act(action, body.height, &mut effects),
                    None => effects.go = Some(Screen::Runs),
                },
                Place::Compare => self.compare.act(action, body.height, &mut effects),
                Place::Plugins => self.plugins.act(action, body),
                Place::Notice => drop(self.notices.pop_front()),
                Place::Text | Place::AskStop | Place::AskQuit => self.act_on_overlay(action),
            },
        }
        self.apply(effects);
    }

    /// The tab `by` places after the current one, in a circle.
    fn neighbour(&self, by: usize) -> Screen {
        const TABS: [Screen; 4] = [Screen::NewRun, Screen::Live, Screen::Runs, Screen::Plugins];
        let at = TABS.iter().position(|tab| *tab == tab_of(self.screen));
        TABS[(at.unwrap_or(0) + by) % TABS.len()]
    }

    fn apply(&mut self, effects: Effects) {
        self.commands.extend(effects.commands);
        self.hint = effects.hint.or(self.hint.take());
        if let Some(screen) = effects.go {
            self.go(screen);
        }
        if let Some(run) = effects.open {
            self.open(run);
        }
        if let Some(sweep) = effects.open_sweep {
            self.open_sweep(sweep);
        }
        if let Some(run) = effects.ask_stop {
            self.overlay = Some(Overlay::AskStop(run));
        }
        if let Some(text) = effects.notice {
            self.notices.push_back(("Message", text));
        }
        if effects.log {
            self.overlay = Some(Overlay::Text(Text::Log, usize::MAX));
            self.scroll_text(0);
        }
        if effects.replay {
            self.overlay = Some(Overlay::Text(Text::Replay, 0));
        }
    }

    fn go(&mut self, screen: Screen) {
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
        self.screen = screen;
    }

    fn open(&mut self, run: String) {
        if self.live.as_ref().is_none_or(|live| live.run != run) {
            self.live = Some(Live::new(run.clone()));
        }
        if let Some(live) = &mut self.live {
            let sweep = self.sweep.as_ref().filter(|sweep| sweep.has_run(&run));
            live.sweep = sweep.map(|sweep| sweep.name.clone());
        }
        self.commands.push(Command::Watch(run));
        self.go(Screen::Live);
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
        if self.mine.is_empty() {
            self.exit = Some(Exit::Quit);
        } else {
            self.overlay = Some(Overlay::AskQuit(self.mine.clone()));
        }
    }

    fn act_on_overlay(&mut self, action: Action) {
        let page = isize::from(self.body().height.saturating_sub(3) as i16);
        match (action, self.overlay.clone()) {
            (Action::Back, _) => self.overlay = None,
            (Action::Up, _) => self.scroll_text(-1),
            (Action::Down, _) => self.scroll_text(1),
            (Action::PageUp, _) => self.scroll_text(-page),
            (Action::PageDown, _) => self.scroll_text(page),
            (Action::First, _) => self.scroll_text(isize::MIN),
            (Action::Last, _) => self.scroll_text(isize::MAX),
            (Action::Yes, Some(Overlay::AskStop(run))) => {
                self.overlay = None;
                self.commands.push(Command::Stop(run));
                self.hint = Some("asking the worker to stop…".into());
            }
            (Action::LeaveGoing, _) => self.exit = Some(Exit::Quit),
            (Action::StopAndLeave, Some(Overlay::AskQuit(runs))) => {
                self.overlay = None;
                self.commands
                    .extend(runs.iter().cloned().map(Command::Stop));
                self.stopping = runs;
                self.hint = Some("asking the workers to stop…".into());
            }
            _ => {}
        }
    }

    fn scroll_text(&mut self, by: isize) {
        let body = self.body();
        let height = usize::from(body.height);
        let lines = match &self.overlay {
            Some(Overlay::Text(text, _)) => self.text_lines(text, body.width.into()).len(),
            _ => return,
        };
        let most = lines.saturating_sub(height.saturating_sub(2));
        if let Some(Overlay::Text(_, scroll)) = &mut self.overlay {
            *scroll = scroll.saturating_add_signed(by).min(most);
        }
    }

    fn text_lines(&self, text: &Text, width: usize) -> Vec<(String, Style)> {
        let width = width.saturating_sub(2);
        match text {
            Text::Help(from) => overlay::help_lines(self.theme, *from, self.margins(*from), width),
            Text::Replay => {
                // Of an arm over its seeds, what the first one replays.
                let first = self.live.as_ref().and_then(|live| {
                    let &(_, arm) = live.group()?.members.first()?;
                    Some((live, live.state.arms.get(arm)?))
                });
                first.map_or_else(Vec::new, |(live, arm)| {
                    replay::lines(&live.state.arm_label(arm), arm, self.theme, width)
                })
            }
            Text::Log => {
                let lines = self
                    .live
                    .iter()
                    .flat_map(|live| live.log_lines(self.theme, None));
                let wrapped = lines.flat_map(|(line, style)| {
                    let lines = super::widgets::text::wrap(&line, width);
                    lines.into_iter().map(move |line| (line, style))
                });
                let lines: Vec<_> = wrapped.collect();
                if lines.is_empty() {
                    return vec![("nothing was logged".into(), self.theme.dim())];
                }
                lines
            }
        }
    }

    /// The margins of the verdicts on the screen.
    fn margins(&self, from: Place) -> Margins {
        let watched = self.live.as_ref().map(|live| &live.state);
        let run = match from {
            Place::Compare => self.compare.first(),
            _ => watched,
        };
        report::margins(run.unwrap_or(&RunState::default()))
    }

    /// Records whether a run started or attached here is live.
    fn note_status(&mut self, run: &str, status: RunStatus) {
        self.mine.retain(|name| name != run);
        if status == RunStatus::Live {
            self.mine.push(run.to_string());
        }
    }

    /// Shows a message.
    fn notify(&mut self, title: &'static str, text: String) {
        self.notices.push_back((title, text));
    }
}

/// The tab that a screen belongs to.
fn tab_of(screen: Screen) -> Screen {
    match screen {
        Screen::Arm => Screen::Live,
        Screen::Compare | Screen::Sweep => Screen::Runs,
        other => other,
    }
}

//! The lab without a terminal, for measuring how quickly it answers.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use forgetlab_study::run::{Record, RunStatus};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::Size;

use super::app::App;
use super::event::{Event, Reply};
use super::lab::FeedUpdate;
use super::theme::{Colours, Theme};

/// The lab on a screen in memory, watching one live run.
pub struct Probe {
    app: App,
    terminal: Terminal<TestBackend>,
    run: String,
    begun: bool,
}

impl Probe {
    /// The lab on a screen of a size in cells, opened on a run of which nothing is known yet.
    pub fn new(width: u16, height: u16, run: &str) -> Self {
        let theme = Theme {
            colours: Colours::Many,
            ascii: false,
            light: false,
        };
        let size = Size::new(width, height);
        let Ok(terminal) = Terminal::new(TestBackend::new(width, height));
        Self {
            app: App::new(theme, size, 0.0, Some(run.to_owned())),
            terminal,
            run: run.to_owned(),
            begun: false,
        }
    }

    /// Gives new events of the run.
    pub fn feed(&mut self, records: Vec<Record>) {
        let first = !std::mem::replace(&mut self.begun, true);
        let update = FeedUpdate {
            before: None,
            records,
            status: RunStatus::Live,
            why: None,
        };
        let run = self.run.clone();
        let update = Ok(update);
        self.app
            .update(Event::Reply(Reply::Feed { run, first, update }));
        self.app.take_commands();
    }

    /// Types characters; a line's end is Enter, `\x1b` is Esc.
    pub fn press(&mut self, keys: &str) {
        for c in keys.chars() {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                c => KeyCode::Char(c),
            };
            let key = KeyEvent::new(code, KeyModifiers::NONE);
            self.app.update(Event::Key(key));
        }
        self.app.take_commands();
    }

    /// Draws a frame.
    pub fn draw(&mut self) {
        let Ok(_) = self.terminal.draw(|frame| self.app.draw(frame));
    }

    /// What the screen shows.
    pub fn screen(&self) -> String {
        self.terminal.backend().to_string()
    }
}

//! Drawing of the lab around its screens: header, footer, and the overlay over the screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};

use super::super::keymap::{self, Place};
use super::super::screens::overlay::{self, Overlay, Text};
use super::super::screens::{Screen, arm};
use super::super::widgets::text::{clip, wrap};
use super::{App, SMALLEST, tab_of};

impl App {
    /// Draws the whole terminal.
    pub fn draw(&self, frame: &mut Frame) {
        let area = frame.area();
        if area.width < SMALLEST.width || area.height < SMALLEST.height {
            self.draw_too_small(frame, area);
        } else {
            self.draw_lab(frame, area);
        }
        self.theme.finish(frame.buffer_mut());
    }

    fn draw_too_small(&self, frame: &mut Frame, area: Rect) {
        let text = format!(
            "The lab needs {}×{}, this terminal has {}×{}. Make it larger, or leave with q. \
             Runs go on either way.",
            SMALLEST.width, SMALLEST.height, area.width, area.height
        );
        let lines = wrap(&text, area.width.into());
        for (row, line) in area.rows().zip(lines) {
            frame.render_widget(Line::raw(line), row);
        }
    }

    fn draw_lab(&self, frame: &mut Frame, area: Rect) {
        let theme = self.theme;
        let [head, body, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(1),
        ])
        .areas(area);
        frame.render_widget(self.header(), head);
        match (self.screen, &self.live) {
            (Screen::NewRun, _) => self.new_run.draw(frame, body, theme, self.plugins.found()),
            (Screen::Live, Some(live)) => live.draw(frame, body, theme, self.now),
            (Screen::Arm, Some(live)) => arm::draw(live, frame, body, theme),
            (Screen::Live | Screen::Arm, None) => {
                let text = "no run is being watched: 1 starts one, 3 lists those there are";
                let [_, middle] =
                    Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(body);
                frame.render_widget(Line::styled(text, theme.dim()).centered(), middle);
            }
            (Screen::Runs, _) => self.runs.draw(frame, body, theme, self.now),
            (Screen::Sweep, _) => {
                if let Some(sweep) = &self.sweep {
                    sweep.draw(frame, body, theme);
                }
            }
            (Screen::Compare, _) => self.compare.draw(frame, body, theme),
            (Screen::Plugins, _) => self.plugins.draw(frame, body, theme),
        }
        self.draw_overlay(frame, body);
        frame.render_widget(self.footer(foot.width.into()), foot);
    }

    fn draw_overlay(&self, frame: &mut Frame, body: Rect) {
        let theme = self.theme;
        let keys_of = |place: Place| -> Vec<(String, &str)> {
            let bindings = keymap::KEYMAP.iter().filter(|b| b.place == place);
            bindings.map(|b| (b.keys[0].name(), b.long)).collect()
        };
        match &self.overlay {
            Some(Overlay::Text(text, scroll)) => {
                let title = match text {
                    Text::Help(_) => "Help",
                    Text::Log => "Log",
                    Text::Replay => "Replay",
                };
                let lines = self.text_lines(text, body.width.into());
                overlay::draw_text(frame, body, theme, title, &lines, *scroll);
            }
            Some(Overlay::AskStop(run)) => {
                let (what, when) = match self.is_sweep(run) {
                    true => ("Stop the sweep?", "the next steps"),
                    false => ("Stop the run?", "the next step"),
                };
                let text = format!("{run}: stop it at {when}? It can be resumed later.");
                let keys = keys_of(Place::AskStop);
                overlay::draw_box(frame, body, theme, what, &text, &keys);
            }
            Some(Overlay::AskQuit(runs)) => {
                let text = format!("Still running:\n{}", runs.join("\n"));
                let keys = keys_of(Place::AskQuit);
                overlay::draw_box(frame, body, theme, "Leave the lab", &text, &keys);
            }
            None => {}
        }
        if let Some((title, text)) = self.notices.front() {
            let keys = keys_of(Place::Notice);
            overlay::draw_box(frame, body, theme, title, text, &keys);
        }
    }

    fn header(&self) -> Line<'_> {
        let theme = self.theme;
        let mut spans = vec![Span::styled("forgetlab ", theme.heading())];
        let tabs = [
            (Screen::NewRun, " 1 New run "),
            (Screen::Live, " 2 Run "),
            (Screen::Runs, " 3 Runs "),
            (Screen::Plugins, " 4 Plugins "),
        ];
        for (screen, title) in tabs {
            let style = if tab_of(self.screen) == screen {
                theme.selected()
            } else {
                theme.dim()
            };
            spans.push(Span::styled(title, style));
        }
        let elsewhere = self.screen != Screen::Live && self.screen != Screen::Arm;
        if elsewhere && !self.mine.is_empty() {
            let text = format!("   {} live", self.mine.len());
            spans.push(Span::styled(text, theme.good()));
        }
        Line::from(spans)
    }

    fn footer(&self, width: usize) -> Line<'_> {
        let theme = self.theme;
        if let Some(hint) = &self.hint {
            let style = if hint.starts_with('!') {
                theme.bad()
            } else {
                theme.warn()
            };
            return Line::styled(clip(hint, width), style);
        }
        let mut spans: Vec<Span> = Vec::new();
        let mut used = 0;
        for binding in keymap::footer(self.place()) {
            let key = keymap::footer_key(binding);
            let words = format!(" {}  ", binding.short);
            used += key.chars().count() + words.chars().count();
            if used > width + 2 {
                break;
            }
            spans.push(Span::styled(key, theme.key()));
            spans.push(Span::raw(words));
        }
        Line::from(spans)
    }
}

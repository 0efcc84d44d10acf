//! Drawing of the lab around its screens: header, footer, and the overlay over the screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};

use unicode_width::UnicodeWidthStr;

use super::super::keymap::{Key, Place};
use super::super::screens::overlay::{self, Overlay, Text};
use super::super::screens::{Prompt, Screen};
use super::super::widgets::text::{clip, wrap};
use super::{App, SMALLEST, command_line, tab_of};

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
        frame.render_widget(self.header(usize::from(head.width)), head);
        match self.screen {
            Screen::Runs => self.runs.draw(frame, body, theme, self.now),
            Screen::Sweep => {
                if let Some(sweep) = &self.sweep {
                    sweep.draw(frame, body, theme);
                }
            }
            Screen::Watch => self.watch.draw(frame, body, theme),
            Screen::Compose => {
                let newcomer = self.runs.has_none();
                self.compose
                    .draw(frame, body, theme, self.strategies.found(), newcomer);
            }
            Screen::Strategies => self.strategies.draw(frame, body, theme),
            Screen::Machine => self.machine.draw(frame, body, theme),
        }
        frame.render_widget(self.footer(foot.width.into()), foot);
        self.draw_overlay(frame, body, foot);
    }

    fn draw_overlay(&self, frame: &mut Frame, body: Rect, foot: Rect) {
        let theme = self.theme;
        let keys_of = |place: Place| -> Vec<(String, &str)> {
            let bindings = self.keymap.of(place);
            let key = |keys: &[Key]| keys.first().map_or(String::new(), |key| key.name());
            bindings.map(|(b, keys)| (key(keys), b.long)).collect()
        };
        match &self.overlay {
            Some(Overlay::Text(text, scroll)) => {
                let title = match text {
                    Text::Help(_) => "Help",
                    Text::Told(title, _) => title,
                };
                let lines = self.text_lines(text, body.width.into());
                overlay::draw_text(frame, body, theme, title, &lines, *scroll);
            }
            Some(Overlay::Picker(picker)) => picker.draw(frame, body, theme),
            Some(Overlay::Line(line)) => {
                let about = match line.prompt {
                    Prompt::Command => command_line::about(self.screen_place(), line.line.text()),
                    Prompt::Filter(_) if self.screen == Screen::Compose => {
                        "words of a setting's name"
                    }
                    Prompt::Filter(_) => "words, field:text, forgot>10%, AND OR NOT; Tab completes",
                    Prompt::AddArm(_) => "STRATEGY[:OBJECTIVE[:COEFF]][+KEY=VALUE]…",
                    Prompt::Tag(_) => "words; -word takes one away",
                    Prompt::Name(..) | Prompt::Note(..) => "empty takes it away",
                    Prompt::Setting(..) | Prompt::Write => "",
                };
                line.draw(frame, body, foot, theme, about);
            }
            Some(Overlay::Ask(ask)) => {
                let keys = keys_of(Place::Ask);
                overlay::draw_box(frame, body, theme, &ask.title, &ask.text, &keys);
            }
            Some(Overlay::AskQuit(runs)) => {
                let text = format!("Still running:\n{}", runs.join("\n"));
                let keys = keys_of(Place::AskQuit);
                overlay::draw_box(frame, body, theme, "Leave the lab", &text, &keys);
            }
            None => {}
        }
        if let Some((title, text)) = self.notices.front()
            && self.overlay.is_none()
        {
            let keys = keys_of(Place::Notice);
            overlay::draw_box(frame, body, theme, title, text, &keys);
        }
    }

    fn header(&self, width: usize) -> Line<'_> {
        let theme = self.theme;
        let mut spans = vec![Span::styled(NAME, theme.heading())];
        for (screen, title) in TABS {
            let style = match tab_of(self.screen) == screen {
                true => theme.selected(),
                false => theme.dim(),
            };
            spans.push(Span::styled(title, style));
        }
        let elsewhere = self.screen != Screen::Watch;
        if elsewhere && !self.mine.is_empty() {
            let text = format!("   {} live", self.mine.len());
            spans.push(Span::styled(text, theme.good()));
        }
        let used: usize = spans.iter().map(Span::width).sum();
        let room = width.saturating_sub(used + 2);
        let (text, style) = match self.machine.alert() {
            Some(alert) => (format!("! {alert}"), theme.bad()),
            None => (self.machine.line(), theme.dim()),
        };
        let shown = elsewhere || self.machine_every.is_some();
        if room >= 24 && shown && self.machine_every.is_some() && !text.is_empty() {
            let text = clip(&text, room);
            let gap = " ".repeat(width.saturating_sub(used + text.width()));
            spans.push(Span::raw(gap));
            spans.push(Span::styled(text, style));
        }
        Line::from(spans)
    }

    fn footer(&self, width: usize) -> Line<'_> {
        let theme = self.theme;
        if let Some(hint) = &self.hint {
            let style = match hint.starts_with('!') {
                true => theme.bad(),
                false => theme.warn(),
            };
            return Line::styled(clip(hint, width), style);
        }
        let mut spans: Vec<Span> = Vec::new();
        let mut used = 0;
        let mut all: Vec<(String, &str)> = self.keymap.footer(self.place()).collect();
        if self.place() == Place::Watch {
            all.splice(0..0, self.watch.ways_out());
        }
        // How to find the rest is always there.
        let last = all.len().saturating_sub(2);
        let reserved: usize = all[last..]
            .iter()
            .map(|(key, words)| key.width() + words.width() + 3)
            .sum();
        let size = |(key, words): &(String, &str)| key.width() + words.width() + 3;
        let fits = all[..last].iter().take_while(|entry| {
            used += size(entry);
            used + reserved <= width + 2
        });
        let shown: Vec<&(String, &str)> = fits.chain(&all[last..]).collect();
        for (key, words) in shown {
            spans.push(Span::styled(key.clone(), theme.key()));
            spans.push(Span::raw(format!(" {words}  ")));
        }
        Line::from(spans)
    }
}

/// What the header begins with.
const NAME: &str = "forgetlab ";
/// The screens of the header.
const TABS: [(Screen, &str); 5] = [
    (Screen::Runs, " 1 Runs "),
    (Screen::Watch, " 2 Watch "),
    (Screen::Compose, " 3 Compose "),
    (Screen::Strategies, " 4 Strategies "),
    (Screen::Machine, " 5 Machine "),
];

/// The screen whose tab is at a column of the header.
pub(super) fn tab_at(column: u16) -> Option<Screen> {
    let mut end = NAME.len();
    let at = usize::from(column);
    TABS.into_iter().find_map(|(screen, title)| {
        let start = end;
        end += title.len();
        (start..end).contains(&at).then_some(screen)
    })
}

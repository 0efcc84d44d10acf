//! The strategies: where each was loaded from, its settings, what it needs; what was refused, and why.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect, Size};
use ratatui::style::Style;
use ratatui::text::Line;

use crate::event::Command;
use crate::keymap::Action;
use crate::lab::Plugin;
use crate::theme::Theme;
use crate::widgets::form;
use crate::widgets::text::{clip, scroll_to, wrap};

use super::{Effects, step};

/// State of the list.
#[derive(Debug, Default)]
pub struct Strategies {
    /// Plugins found; `None` until they are loaded.
    pub list: Option<Result<Vec<Plugin>, String>>,
    cursor: usize,
    scroll: usize,
}

impl Strategies {
    /// The plugins found.
    pub fn found(&self) -> &[Plugin] {
        match &self.list {
            Some(Ok(list)) => list,
            _ => &[],
        }
    }

    /// Applies a key's action; `body` is the screen's size.
    pub fn act(&mut self, action: Action, body: Size, effects: &mut Effects) {
        let len = self.found().len();
        match action {
            Action::Up => (self.cursor, self.scroll) = (step(self.cursor, -1, len), 0),
            Action::Down => (self.cursor, self.scroll) = (step(self.cursor, 1, len), 0),
            Action::PageUp => self.scroll = self.scroll.saturating_sub(5),
            Action::PageDown => {
                let width = usize::from(body.width.saturating_sub(LIST + 1));
                let plugin = self.found().get(self.cursor);
                let lines = plugin.map_or(0, |p| about(p, Theme::PLAIN, width).len());
                self.scroll = (self.scroll + 5).min(lines.saturating_sub(body.height.into()));
            }
            Action::Check => match self.found().get(self.cursor) {
                Some(plugin) => {
                    effects.ask(Command::Check(plugin.path.clone()), "checking the library…")
                }
                None => effects.hint("there is no strategy here"),
            },
            _ => {}
        }
    }

    /// Draws the list, and the description of the plugin under the cursor.
    pub fn draw(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let text = match &self.list {
            None => Some(("looking for plugins…", theme.dim())),
            Some(Err(problem)) => Some((problem.as_str(), theme.bad())),
            Some(Ok(list)) if list.is_empty() => Some((
                "No strategy plugins were found. They are looked for beside the binary, in the \
                 folders of FORGETLAB_PLUGINS and in ~/.local/share/forgetlab/strategies; \
                 `forgetlab doctor` shows where.",
                theme.warn(),
            )),
            Some(Ok(_)) => None,
        };
        if let Some((text, style)) = text {
            let lines = wrap(text, usize::from(area.width));
            for (row, line) in area.rows().zip(&lines) {
                frame.render_widget(Line::styled(line.as_str(), style), row);
            }
            return;
        }
        let [list, _, details] = Layout::horizontal([
            Constraint::Length(LIST),
            Constraint::Length(1),
            Constraint::Fill(1),
        ])
        .areas(area);
        let first = scroll_to(self.cursor, self.found().len(), list.height.into());
        let plugins = self.found().iter().enumerate().skip(first);
        for (row, (index, plugin)) in list.rows().zip(plugins) {
            let mut style = if plugin.error.is_some() {
                theme.bad()
            } else {
                Style::new()
            };
            if index == self.cursor {
                style = style.patch(theme.selected());
            }
            let bad = if plugin.error.is_some() { "! " } else { "" };
            let width = usize::from(row.width);
            let text = format!("{:<width$}", clip(&format!("{bad}{}", plugin.name), width));
            frame.render_widget(Line::styled(text, style), row);
        }
        if let Some(plugin) = self.found().get(self.cursor) {
            let lines = about(plugin, theme, details.width.into());
            for (row, (line, style)) in details.rows().zip(lines.into_iter().skip(self.scroll)) {
                frame.render_widget(Line::styled(line, style), row);
            }
        }
    }
}

/// Columns of the list.
const LIST: u16 = 24;

/// Description of a plugin, as lines.
fn about(plugin: &Plugin, theme: Theme, width: usize) -> Vec<(String, Style)> {
    let mut lines: Vec<(String, Style)> = Vec::new();
    let mut say = |text: &str, style: Style, indent: usize| {
        let wrapped = wrap(text, width.saturating_sub(indent));
        lines.extend(
            wrapped
                .into_iter()
                .map(|l| (format!("{:indent$}{l}", ""), style)),
        );
    };
    say(
        &format!("{} {}", plugin.name, plugin.version),
        theme.heading(),
        0,
    );
    if let Some(error) = &plugin.error {
        say("could not be loaded:", theme.bad(), 0);
        say(error, theme.bad(), 0);
    }
    say(&plugin.summary, Style::new(), 0);
    say(&plugin.path.display().to_string(), theme.dim(), 0);
    if plugin.error.is_none() {
        for capability in &plugin.capabilities {
            say(&format!("• {capability}"), Style::new(), 0);
        }
        say("\n", Style::new(), 0);
        let settings = form::settings(&plugin.schema);
        let title = if settings.is_empty() {
            "No settings"
        } else {
            "Settings"
        };
        say(title, theme.heading(), 0);
        for setting in settings {
            say(
                &format!("{}: {}", setting.name, setting.takes()),
                Style::new(),
                0,
            );
            if !setting.description().is_empty() {
                say(setting.description(), theme.dim(), 4);
            }
        }
    }
    lines
}

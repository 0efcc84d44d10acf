//! What keys do in what lies over a screen: texts, lists, lines being typed, questions.

use forgetlab_study::filter::Filter;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

use super::super::event::Command;
use super::super::keymap::{Action, Place};
use super::super::lab::LabelChange;
use super::super::screens::overlay::{self, Overlay, Text};
use super::super::screens::typed::Typed;
use super::super::screens::{Effects, Prompt};
use super::super::widgets::text::StyledLines;
use super::{App, Exit, command_line};

/// Lines that were typed and are kept.
const KEPT: usize = 100;

/// Whether it is the line of a filter.
fn is_filter(overlay: &mut Overlay) -> bool {
    matches!(overlay, Overlay::Line(line) if matches!(line.prompt, Prompt::Filter(_)))
}

impl App {
    /// Applies an action to what lies over the screen.
    pub(super) fn act_on_overlay(&mut self, action: Action, effects: &mut Effects) {
        let Some(overlay) = self.overlay.take() else {
            return;
        };
        match (action, overlay) {
            (Action::Back, Overlay::Line(line)) => {
                if let Prompt::Filter(before) = &line.prompt {
                    self.act(Action::Filter, Some(before));
                }
            }
            (Action::Back, _) => {}
            (action, text @ Overlay::Text(..)) => {
                self.overlay = Some(text);
                self.scroll(action);
            }
            (action, Overlay::Picker(mut picker)) => match picker.act(action) {
                Some((action, chosen)) => self.act(action, Some(&chosen)),
                None => self.overlay = Some(Overlay::Picker(picker)),
            },
            (Action::Enter, Overlay::Line(line)) => self.accept(line, effects),
            (Action::Complete, Overlay::Line(mut line)) => {
                let prompt = line.prompt.clone();
                line.complete(|before| self.completions(&prompt, before));
                self.overlay = Some(Overlay::Line(line));
            }
            (action, Overlay::Line(mut line)) => {
                line.act(action, &self.typed);
                self.overlay = Some(Overlay::Line(line));
                self.filter_as_typed();
            }
            (Action::Yes, Overlay::Ask(ask)) => effects.ask(ask.then, &ask.hint),
            (Action::LeaveGoing, Overlay::AskQuit(_)) => self.exit = Some(Exit::Quit),
            (Action::StopAndLeave, Overlay::AskQuit(runs)) => {
                self.commands
                    .extend(runs.iter().cloned().map(Command::Stop));
                self.stopping = runs;
                self.hint = Some("asking the workers to stop…".into());
            }
            (_, other) => self.overlay = Some(other),
        }
    }

    /// Shows what passes the filter that is being typed, where it is one already.
    pub(super) fn filter_as_typed(&mut self) {
        let Some(Overlay::Line(line)) = self.overlay.take_if(is_filter) else {
            return;
        };
        let text = line.line.text().trim().to_owned();
        if Filter::parse(&text).is_ok() || self.screen_place() == Place::Compose {
            self.act(Action::Filter, Some(&text));
        }
        self.overlay = Some(Overlay::Line(line));
    }

    /// Does what was typed.
    fn accept(&mut self, mut line: Typed, effects: &mut Effects) {
        let text = line.line.text().trim().to_owned();
        if matches!(line.prompt, Prompt::Command | Prompt::Filter(_)) && !text.is_empty() {
            self.typed.retain(|known| *known != text);
            self.typed.push(text.clone());
            let old = self.typed.len().saturating_sub(KEPT);
            self.typed.drain(..old);
        }
        match &line.prompt {
            Prompt::Command => {
                let place = self.screen_place();
                let parsed = command_line::parse(&text);
                let known = parsed.and_then(|(action, argument)| {
                    match command_line::is_known(place, action) {
                        true => Ok((action, argument)),
                        false => Err(format!("`{}` means nothing on this screen", action.name())),
                    }
                });
                match known {
                    _ if text.is_empty() => {}
                    Ok((action, argument)) => self.act(action, argument.as_deref()),
                    Err(problem) => {
                        line.problem = Some(problem);
                        self.overlay = Some(Overlay::Line(line));
                    }
                }
            }
            Prompt::Filter(_) => {
                if let Err(error) = Filter::parse(&text)
                    && self.screen_place() != Place::Compose
                {
                    line.problem = Some(error.to_string());
                    self.overlay = Some(Overlay::Line(line));
                    return;
                }
                self.act(Action::Filter, Some(&text));
            }
            Prompt::Write => self.act(Action::Write, Some(&text)),
            Prompt::Setting(key, _) => {
                if let Err(problem) = self.compose.set(key, &text) {
                    line.problem = Some(problem);
                    self.overlay = Some(Overlay::Line(line));
                }
            }
            Prompt::AddArm(run) if !text.is_empty() => {
                effects.ask(Command::AddArm(run.clone(), text), "asking for the arm…");
            }
            Prompt::AddArm(_) => {}
            Prompt::Name(run, _) => self.label(run, LabelChange::Name(text), effects),
            Prompt::Note(run, _) => self.label(run, LabelChange::Note(text), effects),
            Prompt::Tag(run) => {
                let tags = text.split_whitespace().map(str::to_owned).collect();
                self.label(run, LabelChange::Tags(tags), effects);
            }
        }
    }

    fn label(&self, run: &str, change: LabelChange, effects: &mut Effects) {
        effects.ask(Command::Label(run.to_owned(), change), "writing it down…");
    }

    /// What may stand in place of what is typed before the cursor.
    fn completions(&self, prompt: &Prompt, before: &str) -> Vec<String> {
        match prompt {
            Prompt::Command => {
                let runs = self.runs.list().iter().map(|run| run.name.clone());
                let runs: Vec<String> = runs.collect();
                let metrics = self.watch.metric_names();
                command_line::complete(self.screen_place(), before, &metrics, &runs)
            }
            Prompt::Filter(_) => {
                let settings = self.settings_paths();
                forgetlab_study::filter::complete(before, &settings, |field| self.values_of(field))
            }
            Prompt::AddArm(_) => {
                let names = self.strategies.found().iter();
                let names = names.filter(|plugin| plugin.error.is_none());
                let names = names.map(|plugin| plugin.name.clone());
                names.filter(|name| name.starts_with(before)).collect()
            }
            Prompt::Tag(_) => {
                let (done, last) = match before.rsplit_once(' ') {
                    Some((done, last)) => (format!("{done} "), last),
                    None => (String::new(), before),
                };
                let tags = self.values_of("tag").into_iter();
                let tags = tags.filter(|tag| tag.starts_with(last));
                tags.map(|tag| format!("{done}{tag}")).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Paths of the settings of the runs that can be filtered.
    fn settings_paths(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let configs = self.runs.list().iter().map(|run| &run.config);
        for config in configs.take(50) {
            all.extend(forgetlab_study::filter::Config::Toml(config).fields());
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Values that a field of a filter is known to have.
    fn values_of(&self, field: &str) -> Vec<String> {
        let mut values = self.runs.values_of(field);
        values.extend(self.watch.values_of(field));
        values.sort_unstable();
        values.dedup();
        values
    }

    /// Scrolls the text that is shown.
    pub(super) fn scroll(&mut self, action: Action) {
        let body = self.body();
        let page = isize::from(body.height.saturating_sub(3) as i16);
        let by = match action {
            Action::Up => -1,
            Action::Down => 1,
            Action::PageUp => -page,
            Action::PageDown => page,
            Action::First => isize::MIN,
            Action::Last => isize::MAX,
            _ => return,
        };
        let lines = match &self.overlay {
            Some(Overlay::Text(text, _)) => self.text_lines(text, body.width.into()).len(),
            _ => return,
        };
        let most = lines.saturating_sub(usize::from(body.height.saturating_sub(2)));
        if let Some(Overlay::Text(_, scroll)) = &mut self.overlay {
            *scroll = scroll.saturating_add_signed(by).min(most);
        }
    }

    /// The lines of a text.
    pub(super) fn text_lines(&self, text: &Text, width: usize) -> Vec<(String, Style)> {
        let width = width.saturating_sub(2);
        match text {
            Text::Help(from) => {
                overlay::help_lines(self.theme, &self.keymap, *from, self.margins(), width)
            }
            Text::Told(_, text) => {
                let mut lines = StyledLines::new(width);
                for line in text.lines() {
                    // A table stays one where it fits.
                    match line.width() <= width {
                        true => lines.add_line(line, Style::new()),
                        false => lines.add(line, Style::new()),
                    }
                }
                lines.finish()
            }
        }
    }
}

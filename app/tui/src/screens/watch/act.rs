//! What keys do on the watch screen.

use forgetlab_study::report::Format;
use forgetlab_study::run::RunStatus;
use ratatui::layout::Rect;

use crate::event::Command;
use crate::keymap::Action;
use crate::screens::{Effects, Prompt, Screen, step};
use crate::theme::Theme;
use crate::track::Axis;
use crate::view::Pane;
use crate::widgets::plot::Range;

use super::layout::Places;
use super::{Column, Shown, Watch};

/// Rows of a screen that has two for the most important message.
const TALL: u16 = 26;

impl Watch {
    /// Applies an action; `argument` is what a command line says behind its name, `body` the screen's area.
    pub fn act(
        &mut self,
        action: Action,
        argument: Option<&str>,
        body: Rect,
        effects: &mut Effects,
    ) {
        match action {
            Action::Up => self.go_down(-1),
            Action::Down => self.go_down(1),
            Action::PageUp => self.go_down(-8),
            Action::PageDown => self.go_down(8),
            Action::First => self.go_down(isize::MIN),
            Action::Last => self.go_down(isize::MAX),
            Action::Left => self.move_cursor(-1, effects),
            Action::Right => self.move_cursor(1, effects),
            Action::Cursor => self.toggle_cursor(argument, effects),
            Action::NextPane => self.move_focus(1, body),
            Action::PreviousPane => self.move_focus(-1, body),
            Action::Enter => self.show_arm(),
            Action::Back => self.back(effects),
            Action::Export => self.export(argument, body.width, effects),
            Action::Yank => self.copy_table(argument, body.width, effects),
            _ if self.act_on_run(action, argument, effects) => {}
            _ => self.change_view(action, argument, body, effects),
        }
    }

    /// Actions that change how the runs are looked at; the view is kept.
    fn change_view(
        &mut self,
        action: Action,
        argument: Option<&str>,
        body: Rect,
        effects: &mut Effects,
    ) {
        match action {
            Action::Metric => self.choose_metric(argument, effects),
            Action::Axis => self.choose_axis(argument, effects),
            Action::LogScale => self.view.log = !self.view.log,
            Action::LogAxis => {
                self.view.log_axis = !self.view.log_axis;
                self.window = None;
            }
            Action::Smoother => {
                let typed = argument.and_then(|text| text.parse::<f64>().ok());
                let typed = typed.map(|weight| (weight.clamp(0.0, 0.9) * 10.0).round() as u8);
                self.view.smoothing = typed.unwrap_or((self.view.smoothing + 2).min(9));
            }
            Action::Rougher => self.view.smoothing = self.view.smoothing.saturating_sub(2),
            Action::ZoomIn => self.zoom_axis(0.5),
            Action::ZoomOut => self.zoom_axis(2.0),
            Action::Arrange => self.arrange(argument, effects),
            Action::Panes => {
                let names = Pane::ALL.map(|pane| pane.name().to_owned()).into();
                return effects.pick("Put first", Action::Arrange, names, self.view.first.name());
            }
            Action::Zoom => self.zoom_pane(body),
            Action::Sort => self.sort_by(argument, effects),
            Action::Reverse => self.view.reversed = !self.view.reversed,
            Action::Pin => self.toggle(|watch| &mut watch.view.pinned),
            Action::Hide => self.hide(effects),
            Action::ShowAll => {
                self.view.hidden.clear();
                self.window = None;
            }
            Action::Seeds => self.toggle_seeds(effects),
            Action::Future => self.view.future = !self.view.future,
            Action::Phase => {
                self.phases_back = (self.phases_back + 1) % self.phases_with_old().max(1)
            }
            Action::Filter => match argument {
                Some(text) => self.set_filter(text),
                None => effects.prompt = Some(Prompt::Filter(self.view.filter.clone())),
            },
            _ => return,
        }
        effects.keep_view = true;
    }

    /// Actions on the run; whether this is one.
    fn act_on_run(
        &mut self,
        action: Action,
        argument: Option<&str>,
        effects: &mut Effects,
    ) -> bool {
        let Some(run) = self.runs.first() else {
            return false;
        };
        let (name, live, status) = (run.name.clone(), run.is_live(), run.status);
        match action {
            Action::Stop if live => effects.ask_stop(name),
            Action::Stop => effects.hint("this run is not live"),
            Action::Resume if status.is_some_and(RunStatus::is_resumable) => {
                effects.ask(Command::Resume(name), "resuming…");
            }
            Action::Resume => effects.hint("only an interrupted or crashed run can be resumed"),
            Action::Again => effects.ask(Command::Again(name), "reading its configuration…"),
            Action::Add => match argument {
                Some(arm) => {
                    effects.ask(Command::AddArm(name, arm.to_owned()), "asking for the arm…");
                }
                None => effects.prompt = Some(Prompt::AddArm(name)),
            },
            Action::StopArm => self.stop_arm(effects),
            Action::Diff if self.runs.len() > 1 => {
                effects.ask(Command::Diff(self.names()), "comparing their settings…");
            }
            Action::Diff => {
                effects.hint("one run is watched; d in the list compares it with another")
            }
            _ => return false,
        }
        true
    }

    fn stop_arm(&mut self, effects: &mut Effects) {
        let member = self
            .group()
            .and_then(|group| group.members.first().copied());
        let Some((run, arm)) = member else {
            return effects.hint("there is no arm here");
        };
        let label = self
            .group()
            .map_or(String::new(), |group| group.label.clone());
        let Some(run) = self.runs.get(run).filter(|run| run.is_live()) else {
            return effects.hint("this run is not live");
        };
        let Some(arm) = run.state.arms.get(arm) else {
            return;
        };
        let all = self.group().map_or(&[][..], |group| &group.members);
        let slugs = all.iter().filter_map(|&(_, arm)| run.state.arms.get(arm));
        let slugs: Vec<String> = slugs
            .filter(|arm| !arm.status.is_over())
            .map(|arm| arm.info.slug.clone())
            .collect();
        if slugs.is_empty() {
            return effects.hint(format!("{label} has {} already", arm.status.word()));
        }
        effects.ask_stop_arm(run.name.clone(), label, slugs);
    }

    /// Moves the cursor of the table, or scrolls the text that has the focus.
    fn go_down(&mut self, by: isize) {
        if let Some(pane @ (Pane::Log | Pane::Replay | Pane::Samples | Pane::Arm)) = self.focus {
            // The log is scrolled from its end.
            let by = if pane == Pane::Log {
                by.saturating_neg()
            } else {
                by
            };
            self.scroll = self
                .scroll
                .saturating_add_signed(by)
                .min(self.longest_scroll(pane));
            return;
        }
        let order: Vec<usize> = self.rows().iter().map(|row| row.group.index).collect();
        let at = order.iter().position(|arm| *arm == self.arm).unwrap_or(0);
        self.arm = order
            .get(step(at, by, order.len()))
            .copied()
            .unwrap_or(self.arm);
        if self.focus != Some(Pane::Log) {
            self.scroll = 0;
        }
    }

    fn move_focus(&mut self, by: isize, body: Rect) {
        let places = self.places(body);
        let table = (places.table.height > 0).then_some(None);
        let panes = places.panes.iter().map(|(pane, _)| Some(*pane));
        let all: Vec<Option<Pane>> = panes.chain(table).collect();
        let at = all.iter().position(|focus| *focus == self.focus);
        let at = at.map_or(0, |at| {
            (at as isize + by).rem_euclid(all.len() as isize) as usize
        });
        self.focus = all.get(at).copied().flatten();
        self.scroll = 0;
    }

    /// Where everything is on a screen of this size.
    pub(super) fn places(&self, body: Rect) -> Places {
        let most = if body.height >= TALL { 2 } else { 1 };
        let attention = self.attention(self.now);
        let lines = attention.map_or(0, |alert| alert.lines(body.width).len());
        let attention = lines.min(most) as u16;
        Places::of(body, &self.view, self.focus, self.rows().len(), attention)
    }

    /// Shows everything about the arm under the cursor.
    fn show_arm(&mut self) {
        self.focus = Some(Pane::Arm);
        self.view.zoomed = true;
        self.scroll = 0;
    }

    fn back(&mut self, effects: &mut Effects) {
        if self.view.zoomed {
            self.view.zoomed = false;
            self.focus = None;
        } else if self.cursor.is_some() {
            self.cursor = None;
        } else if self.window.is_some() {
            self.window = None;
        } else if !self.view.filter.is_empty() {
            self.set_filter("");
            effects.keep_view = true;
        } else if self.focus.is_some() {
            self.focus = None;
        } else {
            match &self.sweep {
                Some(sweep) => effects.open_sweep = Some(sweep.clone()),
                None => effects.go = Some(Screen::Runs),
            }
        }
    }

    /// Names of everything that curves can show.
    pub fn metric_names(&self) -> Vec<String> {
        let all = Shown::all(&self.arms, &self.states(), &self.plugin_names);
        all.iter().map(|shown| shown.name(&self.arms)).collect()
    }

    fn choose_metric(&mut self, argument: Option<&str>, effects: &mut Effects) {
        let names = self.metric_names();
        let Some(argument) = argument else {
            let now = self.shown().name(&self.arms);
            return effects.pick("What the curves show", Action::Metric, names, &now);
        };
        let words: Vec<String> = argument.split_whitespace().map(str::to_lowercase).collect();
        let fits = |name: &&String| {
            let name = name.to_lowercase();
            words.iter().all(|word| name.contains(word.as_str()))
        };
        let exact = names.iter().find(|name| *name == argument);
        match exact.or_else(|| names.iter().find(fits)) {
            Some(name) => self.view.shown.clone_from(name),
            None => effects.hint(format!("! there is no metric `{argument}`; m lists them")),
        }
    }

    fn choose_axis(&mut self, argument: Option<&str>, effects: &mut Effects) {
        let named = |name: &str| {
            let mut all = Axis::ALL.into_iter();
            all.find(|axis| axis.name().eq_ignore_ascii_case(name))
        };
        let axis = match argument {
            None => Some(self.view.axis.next()),
            Some(name) => named(name),
        };
        let Some(axis) = axis else {
            return effects.hint("! the x axis counts steps, tokens, seconds or flops");
        };
        // The cursor stays at its step, as far as one arm tells where that is.
        let step = self.cursor_step;
        let places = self.group().map(|group| group.track.places());
        let moved = step.zip(places).and_then(|(step, places)| {
            let index = places.partition_point(|place| place.steps < step);
            places
                .get(index.min(places.len().checked_sub(1)?))
                .map(|place| place.on(axis))
        });
        self.cursor = moved.filter(|at| at.is_finite());
        self.window = None;
        self.view.axis = axis;
    }

    fn arrange(&mut self, argument: Option<&str>, effects: &mut Effects) {
        self.view.zoomed = false;
        self.scroll = 0;
        let Some(name) = argument else {
            self.view.first = self.view.first.next();
            self.focus = None;
            return;
        };
        match Pane::ALL.into_iter().find(|pane| pane.name() == name) {
            Some(pane) => self.view.first = pane,
            None => {
                let names: Vec<&str> = Pane::ALL.iter().map(|pane| pane.name()).collect();
                effects.hint(format!("! panes are {}", names.join(", ")));
            }
        }
    }

    fn zoom_pane(&mut self, body: Rect) {
        if self.view.zoomed {
            self.view.zoomed = false;
        } else {
            let first = self.places(body).panes.first().map(|(pane, _)| *pane);
            self.focus = self.focus.or(first);
            self.view.zoomed = true;
        }
    }

    fn sort_by(&mut self, argument: Option<&str>, effects: &mut Effects) {
        let now = self.sort().0;
        let at = Column::ALL
            .iter()
            .position(|column| *column == now)
            .unwrap_or(0);
        let column = match argument {
            None => Some(Column::ALL[(at + 1) % Column::ALL.len()]),
            Some(name) => Column::named(name),
        };
        match column {
            Some(column) => {
                self.view.sort = column.name().to_owned();
                self.view.reversed = false;
            }
            None => {
                let names: Vec<&str> = Column::ALL.iter().map(|column| column.name()).collect();
                effects.hint(format!("! columns are {}", names.join(", ")));
            }
        }
    }

    fn toggle(&mut self, of: impl Fn(&mut Self) -> &mut std::collections::BTreeSet<String>) {
        let Some(label) = self.group().map(|group| group.label.clone()) else {
            return;
        };
        let names = of(self);
        if !names.remove(&label) {
            names.insert(label);
        }
    }

    fn hide(&mut self, effects: &mut Effects) {
        if self.rows().len() < 2 {
            return effects.hint("the last arm is not hidden; A shows the others again");
        }
        let label = self
            .group()
            .map(|group| group.label.clone())
            .unwrap_or_default();
        self.toggle(|watch| &mut watch.view.hidden);
        self.go_down(0);
        effects.hint(format!("{label} is hidden; A shows it again"));
    }

    /// Opens the single seeds of every arm, or closes them; the cursor stays on the arm.
    fn toggle_seeds(&mut self, effects: &mut Effects) {
        let at = self
            .group()
            .and_then(|group| group.members.first().copied());
        self.view.apart = !self.view.apart;
        effects.commands.extend(self.update_arms());
        self.arm = at
            .and_then(|member| self.arms.position(member))
            .unwrap_or(0);
        if self.runs.iter().all(|run| !run.state.has_several_seeds()) {
            effects.hint("every arm here has one seed");
        }
    }

    fn toggle_cursor(&mut self, argument: Option<&str>, effects: &mut Effects) {
        let end = self.extent(&self.rows()).high;
        let cursor = match argument.map(str::parse::<f64>) {
            Some(Ok(at)) if at.is_finite() => Some(at.clamp(0.0, end)),
            Some(_) => {
                effects.hint("! the cursor goes to a number on the x axis");
                self.cursor
            }
            None if self.cursor.is_some() => None,
            None => {
                let last = self.group().and_then(|group| group.track.end());
                Some(last.map_or(end, |at| at.on(self.view.axis)))
            }
        };
        self.set_cursor(cursor);
    }

    /// Puts the cursor somewhere on the x axis, and keeps the step there.
    fn set_cursor(&mut self, cursor: Option<f64>) {
        let axis = self.view.axis;
        let places = self.group().map(|group| group.track.places());
        let step = cursor.zip(places).and_then(|(at, places)| {
            let before = places.iter().rfind(|place| place.on(axis) <= at);
            before.or(places.first()).map(|place| place.steps)
        });
        self.cursor = cursor;
        self.cursor_step = match axis {
            Axis::Steps => cursor,
            _ => step,
        };
    }

    /// Moves the cursor to the next place of the arm under the table's cursor.
    fn move_cursor(&mut self, by: isize, effects: &mut Effects) {
        let Some(at) = self.cursor else {
            return self.toggle_cursor(None, effects);
        };
        let axis = self.view.axis;
        let Some(group) = self.group() else {
            return;
        };
        let places = group.track.places().iter().map(|place| place.on(axis));
        let next = match by < 0 {
            true => places.rev().find(|place| *place < at),
            false => { places }.find(|place| *place > at),
        };
        let moved = next.or(self.cursor);
        self.set_cursor(moved);
        // The cursor stays in sight.
        if let (Some(at), Some(window)) = (self.cursor, &mut self.window) {
            let shift = (at - window.high).max(0.0) - (window.low - at).max(0.0);
            *window = Range {
                low: window.low + shift,
                high: window.high + shift,
            };
        }
    }

    fn zoom_axis(&mut self, by: f64) {
        let all = self.extent(&self.rows());
        let shown = self.window.unwrap_or(all);
        let width = (shown.high - shown.low) * by;
        if width >= all.high - all.low {
            self.window = None;
            return;
        }
        if width < (all.high - all.low) * 1e-4 {
            return;
        }
        let middle = self.cursor.unwrap_or(shown.high - width / 2.0);
        let low = (middle - width / 2.0).clamp(all.low, all.high - width);
        self.window = Some(Range {
            low,
            high: low + width,
        });
    }

    /// The table as it is shown in so many columns, in a format.
    fn written_table(&self, format: &str, width: u16) -> Result<String, String> {
        let sheet = self.table(self.rows(), 0, Theme::PLAIN, width).sheet(width);
        Ok(match format {
            "markdown" => sheet.write(Format::Markdown),
            "latex" => sheet.write(Format::Latex),
            "csv" => sheet.csv(),
            _ => return Err("! a table is written as markdown, latex or csv".into()),
        })
    }

    fn export(&mut self, argument: Option<&str>, width: u16, effects: &mut Effects) {
        const KINDS: [&str; 7] = [
            "CSVs and figures",
            "this table as LaTeX",
            "this table as Markdown",
            "this table as CSV",
            "all of compare as LaTeX",
            "all of compare as Markdown",
            "all of compare as CSV",
        ];
        let Some(argument) = argument else {
            let kinds = KINDS.map(str::to_owned).into();
            return effects.pick("Write", Action::Export, kinds, "");
        };
        let wanted = argument.to_lowercase();
        let has = |wanted_word: &str| wanted.split_whitespace().any(|word| word == wanted_word);
        let mut formats = ["markdown", "latex", "csv"].into_iter();
        match formats.find(|format| has(format)) {
            Some(format) if has("all") => {
                let command = Command::WriteTable(self.names(), format.to_owned());
                effects.ask(command, "writing the tables…");
            }
            Some(format) => match self.written_table(format, width) {
                Ok(text) => {
                    let command = Command::WriteText(text, format.to_owned());
                    effects.ask(command, "writing the table…");
                }
                Err(problem) => effects.hint(problem),
            },
            None => effects.ask(Command::Export(self.names()), "writing CSVs and figures…"),
        }
    }

    fn copy_table(&mut self, argument: Option<&str>, width: u16, effects: &mut Effects) {
        let format = argument.unwrap_or("markdown").to_lowercase();
        match self.written_table(&format, width) {
            Ok(text) => effects.copy = Some(text),
            Err(problem) => effects.hint(problem),
        }
    }
}

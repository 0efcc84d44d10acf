//! The form of one arm: strategy, objective, coefficient, the strategy's own settings, and those of the finetuning
//! phases that the arm may have for itself.

use forgetlab_study::experiment::{ArmSpec, Objective, PHASE_SETTINGS, RunConfig};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::Line;

use crate::keymap::Action;
use crate::lab::Plugin;
use crate::theme::Theme;
use crate::widgets::form::{self, Field, Input, Setting};
use crate::widgets::text::{StyledLines, scroll_to};

use super::phase_settings::{of_run, phase_field, phase_value, settled};

const STRATEGY: usize = 0;
const OBJECTIVE: usize = 1;
const COEFF: usize = 2;
/// Fields before the strategy's own.
const COMMON: usize = 3;

/// Objectives of a strategy that replays, or does not.
fn objectives(replays: bool) -> &'static [Option<Objective>] {
    if replays {
        &[
            Some(Objective::Kl),
            Some(Objective::Ntp),
            Some(Objective::Replace),
        ]
    } else {
        &[None, Some(Objective::KlNew)]
    }
}

/// State of the form.
#[derive(Debug)]
pub struct ArmForm {
    /// Index of the arm being edited; `None` for a new one.
    pub index: Option<usize>,
    plugins: Vec<Plugin>,
    /// What is run, but for the arms.
    run: RunConfig,
    settings: Vec<Setting>,
    /// Keys of the phases' settings that have a field, behind those of the strategy.
    phases: Vec<String>,
    fields: Vec<Field>,
    focus: usize,
}

impl ArmForm {
    /// The form of `arm` in a run; `plugins` are those that loaded, at least one.
    pub fn new(index: Option<usize>, arm: &ArmSpec, plugins: Vec<Plugin>, run: RunConfig) -> Self {
        let at = plugins
            .iter()
            .position(|p| p.name == arm.strategy)
            .unwrap_or(0);
        let strategy = Field {
            label: "strategy".into(),
            help: String::new(),
            input: Input::Choice {
                options: plugins.iter().map(|p| p.name.clone()).collect(),
                at,
            },
            error: None,
        };
        let mut form = Self {
            index,
            plugins,
            run,
            settings: Vec::new(),
            phases: Vec::new(),
            fields: vec![strategy],
            focus: 0,
        };
        form.rebuild(arm);
        form
    }

    fn plugin(&self) -> Option<&Plugin> {
        self.plugins.get(chosen(&self.fields[STRATEGY]))
    }

    /// Sets the fields that depend on the strategy, filled in from `arm`.
    fn rebuild(&mut self, arm: &ArmSpec) {
        let Some(plugin) = self.plugin() else {
            return;
        };
        let choices = objectives(plugin.replays);
        let at = choices.iter().position(|choice| *choice == arm.objective);
        let options = choices
            .iter()
            .map(|choice| choice.map_or("none", Objective::name));
        let objective = Field {
            label: "objective".into(),
            help: if plugin.replays {
                "kl: stay near the starting model on replayed data. ntp: train on it. \
                 replace: replayed rows take the place of new ones."
            } else {
                "none: plain finetuning. kl-new: stay near the starting model on the new data."
            }
            .into(),
            input: Input::Choice {
                options: options.map(String::from).collect(),
                at: at.unwrap_or(0),
            },
            error: None,
        };
        let coeff = Field {
            label: "coefficient".into(),
            help: "Weight of the replay loss; for replace, the share of rows replaced.".into(),
            input: Input::Text {
                value: arm
                    .coeff
                    .filter(|coeff| {
                        // The share of `replace` has no default.
                        let replaces = arm.objective == Some(Objective::Replace);
                        replaces || *coeff != self.run.replay.coeff
                    })
                    .map(|coeff| coeff.to_string())
                    .unwrap_or_default(),
                default: self.run.replay.coeff.to_string(),
            },
            error: None,
        };
        self.settings = form::settings(&plugin.schema);
        self.fields.truncate(1);
        self.fields.extend([objective, coeff]);
        let settings = self.settings.iter();
        self.fields
            .extend(settings.map(|setting| setting.field(&arm.settings)));
        let known = PHASE_SETTINGS.iter().map(|setting| setting.key);
        let offered = known.filter(|key| !of_run(&self.run, key).is_empty());
        self.phases = offered.map(str::to_owned).collect();
        // Steps of a single phase have no field but where the arm has them.
        let more = arm.phases.keys().filter(|key| !self.phases.contains(key));
        let more: Vec<String> = more.cloned().collect();
        self.phases.extend(more);
        let run = &self.run;
        let own = self.phases.iter().map(|key| phase_field(run, key, arm));
        self.fields.extend(own);
    }

    fn objective(&self) -> Option<Objective> {
        let choices = objectives(self.plugin().is_some_and(|plugin| plugin.replays));
        choices
            .get(chosen(&self.fields[OBJECTIVE]))
            .copied()
            .flatten()
    }

    /// Whether the objective has a coefficient.
    fn has_coeff(&self) -> bool {
        self.objective().is_some()
    }

    /// Applies a key's action; returns the arm when it is accepted.
    pub fn act(&mut self, action: Action) -> Option<ArmSpec> {
        match action {
            Action::Up => self.move_focus(-1),
            Action::Down => self.move_focus(1),
            Action::Enter => return self.accept(),
            other => {
                if self.fields[self.focus].act(other) {
                    self.changed();
                }
            }
        }
        None
    }

    /// Applies a typed character.
    pub fn typed(&mut self, c: char) {
        if self.fields[self.focus].typed(c) {
            self.changed();
        }
    }

    fn move_focus(&mut self, by: isize) {
        let len = self.fields.len() as isize;
        let mut focus = (self.focus as isize + by).rem_euclid(len) as usize;
        if focus == COEFF && !self.has_coeff() {
            focus = (focus as isize + by).rem_euclid(len) as usize;
        }
        self.focus = focus;
    }

    fn changed(&mut self) {
        if self.focus == STRATEGY {
            // The settings of the phases are not the strategy's: they stay.
            let kept = ArmSpec {
                phases: self.read_phases().0,
                ..ArmSpec::plain()
            };
            self.rebuild(&kept);
        }
        let _ = self.check();
    }

    /// The settings of the phases as filled in, and whether all are right; invalid fields are marked.
    fn read_phases(&mut self) -> (toml::Table, bool) {
        let (mut values, mut right) = (toml::Table::new(), true);
        let fields = self.fields[COMMON + self.settings.len()..].iter_mut();
        for (key, field) in self.phases.iter().zip(fields) {
            let Input::Text { value, .. } = &field.input else {
                continue;
            };
            let value = phase_value(&self.run, key, value.trim());
            field.error = value.as_ref().err().cloned();
            match value {
                Ok(Some(value)) => drop(values.insert(key.clone(), value)),
                Ok(None) => {}
                Err(_) => right = false,
            }
        }
        (values, right)
    }

    /// The arm as filled in; `None`, with the invalid fields marked, if there are such.
    fn check(&mut self) -> Option<ArmSpec> {
        let strategy = self.plugin()?.name.clone();
        self.fields.iter_mut().for_each(|field| field.error = None);
        let objective = self.objective();
        let coeff = match objective {
            Some(objective) => parse_coeff(&self.fields[COEFF], objective),
            None => Ok(None),
        };
        self.fields[COEFF].error = coeff.as_ref().err().cloned();
        let mut values = toml::Table::new();
        let mut right = coeff.is_ok();
        for (setting, field) in self.settings.iter().zip(&mut self.fields[COMMON..]) {
            let value = setting.value(field);
            field.error = value.as_ref().err().cloned();
            match value {
                Ok(Some(value)) => drop(values.insert(setting.name.clone(), value)),
                Ok(None) => {}
                Err(_) => right = false,
            }
        }
        let (phases, phases_right) = self.read_phases();
        let coeff = coeff.ok().flatten().unwrap_or(self.run.replay.coeff);
        let arm = ArmSpec {
            strategy,
            objective,
            coeff: objective.map(|_| coeff),
            settings: values,
            phases,
            ..ArmSpec::plain()
        };
        if !right || !phases_right {
            return None;
        }
        match settled(&self.run, &arm) {
            Ok(arm) => Some(arm),
            Err(problem) => {
                // Only together the values are wrong.
                self.fields[self.focus].error = Some(problem);
                None
            }
        }
    }

    fn accept(&mut self) -> Option<ArmSpec> {
        let arm = self.check();
        if arm.is_none() {
            let wrong = self.fields.iter().position(|field| field.error.is_some());
            self.focus = wrong.unwrap_or(self.focus);
        }
        arm
    }

    /// Draws the form.
    pub fn draw(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let [title, fields, help] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Fill(1),
            Constraint::Length((area.height / 2).min(9)),
        ])
        .areas(area);
        let text = match self.index {
            Some(index) => format!("Arm {}", index + 1),
            None => "New arm".into(),
        };
        frame.render_widget(Line::styled(text, theme.heading()), title);
        let labels = self.fields.iter().map(|field| field.label.chars().count());
        let label_width = labels.max().unwrap_or(0).min(28);
        let width = usize::from(fields.width);
        let (mut lines, mut at) = (Vec::new(), 0);
        for (index, field) in self.fields.iter().enumerate() {
            if index == COEFF && !self.has_coeff() {
                continue;
            }
            if index == COMMON + self.settings.len() {
                let title = "  phases after the first, this arm alone";
                lines.push(Line::styled(title, theme.dim()));
            }
            if index == self.focus {
                at = lines.len();
            }
            lines.push(field.line(theme, index == self.focus, label_width, width));
        }
        let first = scroll_to(at, lines.len(), usize::from(fields.height));
        for (row, line) in fields.rows().zip(lines.into_iter().skip(first)) {
            frame.render_widget(line, row);
        }
        frame.render_widget(HelpText(self, theme), help);
    }
}

/// Description of the focused field, and its error if it is invalid.
struct HelpText<'a>(&'a ArmForm, Theme);

impl ratatui::widgets::Widget for HelpText<'_> {
    fn render(self, area: Rect, buf: &mut ratatui::buffer::Buffer) {
        let HelpText(form, theme) = self;
        let width = usize::from(area.width);
        let field = &form.fields[form.focus];
        let mut lines = StyledLines::new(width);
        if let Some(error) = &field.error {
            lines.add(error, theme.bad());
        }
        let help = match (form.focus, form.plugin()) {
            (STRATEGY, Some(plugin)) => plugin.summary.as_str(),
            _ => field.help.as_str(),
        };
        lines.add(help, Style::new());
        if form.settings.is_empty() && form.focus == STRATEGY {
            lines.add("It has no settings of its own.", theme.dim());
        }
        for (row, (line, style)) in area.rows().zip(lines.finish()) {
            buf.set_string(row.x, row.y, line, style);
        }
    }
}

/// Index of the chosen option of a field.
fn chosen(field: &Field) -> usize {
    match &field.input {
        Input::Choice { at, .. } => *at,
        Input::Text { .. } => 0,
    }
}

fn parse_coeff(field: &Field, objective: Objective) -> Result<Option<f64>, String> {
    let Input::Text { value, .. } = &field.input else {
        return Ok(None);
    };
    let text = value.trim();
    if text.is_empty() && objective != Objective::Replace {
        return Ok(None);
    }
    let most = if objective == Objective::Replace {
        1.0
    } else {
        f64::INFINITY
    };
    match text.parse::<f64>() {
        Ok(coeff) if coeff.is_finite() && coeff >= 0.0 && coeff <= most => Ok(Some(coeff)),
        _ if objective == Objective::Replace => {
            Err("coefficient: the share of rows replaced, from 0 to 1".into())
        }
        _ => Err(format!("coefficient: `{text}` is no number of at least 0")),
    }
}

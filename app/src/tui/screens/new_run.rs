//! The form of a new run: experiment, preset, device, seeds, arms.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::arm_form::{ArmForm, arm_words};
use super::{Effects, step};
use crate::tui::event::Command;
use crate::tui::figures::total_steps;
use crate::tui::keymap::Action;
use crate::tui::lab::{ArmChoice, Device, Experiment, Plugin, Preset, StartRequest};
use crate::tui::theme::Theme;
use crate::tui::widgets::text::{clip, count, plural, scroll_to, wrap};

/// Rows of the form before the arms.
const ARMS: usize = 4;
const SEEDS: usize = 3;

/// What the cursor can be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowKind {
    Experiment,
    Preset,
    Device,
    Seeds,
    Arm(usize),
    AddArm,
    Start,
}

/// The form.
#[derive(Debug, Default)]
pub struct NewRun {
    experiments: Option<Result<Vec<Experiment>, String>>,
    devices: Option<Result<Vec<Device>, String>>,
    experiment: usize,
    preset: usize,
    device: usize,
    seeds: String,
    arms: Vec<ArmChoice>,
    focus: usize,
    scroll: usize,
    /// The arm being edited.
    pub form: Option<ArmForm>,
    /// Whether a worker is on its way.
    pub starting: bool,
}

impl NewRun {
    /// Takes the experiments; the first one is chosen.
    pub fn set_experiments(&mut self, experiments: Result<Vec<Experiment>, String>) {
        self.experiments = Some(experiments);
        (self.experiment, self.preset) = (0, 0);
        self.take_preset();
    }

    /// Takes the devices; the first usable one is chosen.
    pub fn set_devices(&mut self, devices: Result<Vec<Device>, String>) {
        let usable = |devices: &Vec<Device>| devices.iter().position(|d| d.error.is_none());
        self.device = devices.as_ref().ok().and_then(usable).unwrap_or(0);
        self.devices = Some(devices);
    }

    fn experiment(&self) -> Option<&Experiment> {
        let experiments = self.experiments.as_ref()?.as_ref().ok()?;
        experiments.get(self.experiment)
    }

    fn preset(&self) -> Option<&Preset> {
        self.experiment()?.presets.get(self.preset)
    }

    fn device(&self) -> Option<&Device> {
        self.devices.as_ref()?.as_ref().ok()?.get(self.device)
    }

    /// Starts afresh from the preset's arms and seeds.
    fn take_preset(&mut self) {
        let Some(preset) = self.preset().cloned() else {
            return;
        };
        let seeds: Vec<String> = preset.seeds.iter().map(u64::to_string).collect();
        self.seeds = seeds.join(",");
        self.arms = preset.arms;
        self.scroll = 0;
    }

    fn row(&self, index: usize) -> RowKind {
        match index {
            0 => RowKind::Experiment,
            1 => RowKind::Preset,
            2 => RowKind::Device,
            SEEDS => RowKind::Seeds,
            index if index - ARMS < self.arms.len() => RowKind::Arm(index - ARMS),
            index if index - ARMS == self.arms.len() => RowKind::AddArm,
            _ => RowKind::Start,
        }
    }

    fn rows(&self) -> usize {
        ARMS + self.arms.len() + 2
    }

    /// Whether this character is typed into a field rather than being a key of its own.
    pub fn types(&self, c: char) -> bool {
        self.row(self.focus) == RowKind::Seeds && (c.is_ascii_digit() || c == ',' || c == ' ')
    }

    /// Takes a typed character.
    pub fn typed(&mut self, c: char) {
        self.seeds.push(c);
    }

    /// Takes a key.
    pub fn act(&mut self, action: Action, plugins: &[Plugin], effects: &mut Effects) {
        let row = self.row(self.focus);
        let lines = self.rows();
        match (action, row) {
            (Action::Up, _) => (self.focus, self.scroll) = (step(self.focus, -1, lines), 0),
            (Action::Down, _) => (self.focus, self.scroll) = (step(self.focus, 1, lines), 0),
            (Action::PageUp, _) => self.scroll = self.scroll.saturating_sub(5),
            (Action::PageDown, _) => {
                let lines = self.about(Theme::PLAIN, plugins, 30).len();
                self.scroll = (self.scroll + 5).min(lines.saturating_sub(8));
            }
            (Action::Left, row) => self.turn(row, -1),
            (Action::Right, row) => self.turn(row, 1),
            (Action::Enter, RowKind::Arm(index)) => self.edit(Some(index), plugins, effects),
            (Action::Enter, RowKind::AddArm) | (Action::Add, _) => {
                self.edit(None, plugins, effects)
            }
            (Action::Enter, RowKind::Start) | (Action::Start, _) => self.start(plugins, effects),
            (Action::Enter, _) => self.focus = step(self.focus, 1, lines),
            (Action::Erase, RowKind::Seeds) => drop(self.seeds.pop()),
            (Action::EraseAll, RowKind::Seeds) => self.seeds.clear(),
            (Action::Copy, RowKind::Arm(index)) => {
                self.arms.insert(index + 1, self.arms[index].clone());
                self.focus += 1;
                effects.hint("copied; Enter changes it");
            }
            (Action::Remove, RowKind::Arm(index)) => drop(self.arms.remove(index)),
            (Action::Copy | Action::Remove, _) => effects.hint("move to an arm first"),
            _ => {}
        }
    }

    /// Takes a key of the arm's form.
    pub fn act_in_form(&mut self, action: Action) {
        let Some(form) = &mut self.form else {
            return;
        };
        let index = form.index;
        if action == Action::Back {
            self.form = None;
        } else if let Some(arm) = form.act(action) {
            self.form = None;
            match index.and_then(|index| self.arms.get_mut(index)) {
                Some(old) => *old = arm,
                None => {
                    self.arms.push(arm);
                    self.focus = ARMS + self.arms.len() - 1;
                }
            }
        }
    }

    fn turn(&mut self, row: RowKind, by: isize) {
        let turned = |at: usize, len: usize| {
            let len = len.max(1) as isize;
            (at as isize + by).rem_euclid(len) as usize
        };
        match row {
            RowKind::Experiment => {
                let len = self
                    .experiments
                    .as_ref()
                    .and_then(|e| e.as_ref().ok())
                    .map_or(0, Vec::len);
                (self.experiment, self.preset) = (turned(self.experiment, len), 0);
                self.take_preset();
            }
            RowKind::Preset => {
                let len = self.experiment().map_or(0, |e| e.presets.len());
                self.preset = turned(self.preset, len);
                self.take_preset();
            }
            RowKind::Device => {
                let len = self
                    .devices
                    .as_ref()
                    .and_then(|d| d.as_ref().ok())
                    .map_or(0, Vec::len);
                self.device = turned(self.device, len);
            }
            _ => {}
        }
    }

    fn edit(&mut self, index: Option<usize>, plugins: &[Plugin], effects: &mut Effects) {
        let loaded: Vec<Plugin> = plugins
            .iter()
            .filter(|p| p.error.is_none())
            .cloned()
            .collect();
        if loaded.is_empty() {
            effects.hint("no strategy plugin could be loaded: 4 shows why");
            return;
        }
        let arm = index.and_then(|index| self.arms.get(index)).cloned();
        let fresh = || {
            let replaying = loaded.iter().find(|p| p.replays).unwrap_or(&loaded[0]);
            ArmChoice {
                strategy: replaying.name.clone(),
                objective: None,
                coeff: None,
                settings: Default::default(),
            }
        };
        let arm = arm.unwrap_or_else(fresh);
        if !loaded.iter().any(|p| p.name == arm.strategy) {
            effects.hint(format!(
                "`{}` is not loaded: choose another strategy",
                arm.strategy
            ));
        }
        let coeff = self.preset().map_or(1.0, |preset| preset.coeff);
        self.form = Some(ArmForm::new(index, &arm, loaded, coeff));
    }

    fn parse_seeds(&self) -> Result<Vec<u64>, String> {
        let mut seeds: Vec<u64> = Vec::new();
        for text in self.seeds.split([',', ' ']).filter(|text| !text.is_empty()) {
            match text.parse() {
                Ok(seed) if seeds.contains(&seed) => {
                    return Err(format!("seed {seed} is given twice"));
                }
                Ok(seed) => seeds.push(seed),
                Err(_) => return Err(format!("`{text}` is no seed: 0 to {}", u64::MAX)),
            }
        }
        if seeds.is_empty() {
            return Err("give at least one seed, e.g. 0 or 0,1,2".into());
        }
        Ok(seeds)
    }

    /// What to start, or what stands in the way and the row where.
    fn request(&self, plugins: &[Plugin]) -> Result<StartRequest, (usize, String)> {
        let (Some(experiment), Some(preset)) = (self.experiment(), self.preset()) else {
            return Err((0, "no experiment to run".into()));
        };
        let Some(device) = self.device() else {
            return Err((2, "still looking for devices".into()));
        };
        if let Some(error) = &device.error {
            return Err((2, format!("{} cannot be used here: {error}", device.spec)));
        }
        let seeds = self.parse_seeds().map_err(|error| (SEEDS, error))?;
        if self.arms.is_empty() {
            return Err((ARMS, "add at least one arm (a)".into()));
        }
        for (index, arm) in self.arms.iter().enumerate() {
            let wrong = |text: String| Err((ARMS + index, format!("arm {}: {text}", index + 1)));
            match plugins.iter().find(|plugin| plugin.name == arm.strategy) {
                None => return wrong(format!("there is no strategy `{}`", arm.strategy)),
                Some(Plugin {
                    error: Some(error), ..
                }) => {
                    return wrong(format!("`{}` could not be loaded: {error}", arm.strategy));
                }
                Some(_) => {}
            }
            if let Some(twin) = self.arms[..index].iter().position(|other| other == arm) {
                return wrong(format!("the same as arm {}: change or remove it", twin + 1));
            }
        }
        Ok(StartRequest {
            experiment: experiment.name.clone(),
            preset: preset.name.clone(),
            device: device.spec.clone(),
            seeds,
            arms: self.arms.clone(),
        })
    }

    fn start(&mut self, plugins: &[Plugin], effects: &mut Effects) {
        if self.starting {
            effects.hint("already starting…");
            return;
        }
        match self.request(plugins) {
            Ok(request) => {
                self.starting = true;
                effects.ask(Command::Start(request), "starting a worker…");
            }
            Err((row, problem)) => {
                self.focus = row;
                effects.hint(format!("! {problem}"));
            }
        }
    }

    /// Draws the form, or the one of the arm being edited.
    pub fn draw(&self, frame: &mut Frame, area: Rect, theme: Theme, plugins: &[Plugin]) {
        let form_width = (area.width / 2 + 4).min(76);
        let [left, _, right] = Layout::horizontal([
            Constraint::Length(form_width),
            Constraint::Length(2),
            Constraint::Fill(1),
        ])
        .areas(area);
        if let Some(form) = &self.form {
            form.draw(frame, left, theme);
        } else {
            self.draw_form(frame, left, theme, plugins);
        }
        let about = self.about(theme, plugins, right.width.into());
        let most = about.len().saturating_sub(right.height.into());
        let about = about.into_iter().skip(self.scroll.min(most));
        for (row, (line, style)) in right.rows().zip(about) {
            frame.render_widget(Line::styled(line, style), row);
        }
    }

    fn draw_form(&self, frame: &mut Frame, area: Rect, theme: Theme, plugins: &[Plugin]) {
        let rows = self.rows();
        let mut lines: Vec<Line> = Vec::new();
        // Headings and gaps stand between the rows; the cursor's line is found while writing.
        let mut at = 0;
        let width = usize::from(area.width);
        for index in 0..rows {
            let row = self.row(index);
            match row {
                RowKind::AddArm if self.arms.is_empty() => {}
                RowKind::Start => lines.push(Line::default()),
                _ if index == ARMS => {
                    lines.push(Line::default());
                    let title = format!("Arms ({})", self.arms.len());
                    lines.push(Line::styled(title, theme.heading()));
                }
                _ => {}
            }
            if index == self.focus {
                at = lines.len();
            }
            lines.push(self.line(row, index == self.focus, theme, plugins, width));
        }
        let first = scroll_to(at, lines.len(), area.height.into());
        for (row, line) in area.rows().zip(lines.into_iter().skip(first)) {
            frame.render_widget(line, row);
        }
    }

    fn line(
        &self,
        row: RowKind,
        focused: bool,
        theme: Theme,
        plugins: &[Plugin],
        width: usize,
    ) -> Line<'static> {
        let style = if focused {
            theme.selected()
        } else {
            Style::new()
        };
        let cursor = Span::raw(if focused { "▸ " } else { "  " });
        let choice = |label: &str, value: &str| {
            let value = clip(value, width.saturating_sub(18));
            let value = if focused {
                format!("◂ {value} ▸")
            } else {
                value
            };
            let label = Span::styled(format!("{label:<11} "), theme.heading());
            Line::from(vec![cursor.clone(), label, Span::styled(value, style)])
        };
        match row {
            RowKind::Experiment => {
                let name = match &self.experiments {
                    None => "loading…",
                    Some(_) => self.experiment().map_or("none", |e| &e.name),
                };
                choice("experiment", name)
            }
            RowKind::Preset => choice("preset", self.preset().map_or("", |p| &p.name)),
            RowKind::Device => {
                let device = match (&self.devices, self.device()) {
                    (None, _) => "looking…".into(),
                    (_, None) => "none".into(),
                    (_, Some(d)) if d.error.is_some() => format!("{} ! unusable", d.spec),
                    (_, Some(d)) => d.spec.clone(),
                };
                choice("device", &device)
            }
            RowKind::Seeds => {
                let mut spans = vec![
                    cursor,
                    Span::styled(format!("{:<11} ", "seeds"), theme.heading()),
                    Span::raw(clip(&self.seeds, width.saturating_sub(26))),
                ];
                if focused {
                    spans.push(Span::styled(" ", style));
                }
                if self.parse_seeds().is_err() {
                    spans.push(Span::styled(" ! wrong", theme.bad()));
                }
                Line::from(spans)
            }
            RowKind::Arm(index) => {
                let arm = &self.arms[index];
                let known = plugins.iter().find(|p| p.name == arm.strategy);
                let bad = known.is_none_or(|p| p.error.is_some());
                let number = Span::styled(format!("{:>2} ", index + 1), theme.dim());
                let words = clip(&arm_words(arm), width.saturating_sub(18));
                let mut spans = vec![cursor, number, Span::styled(words, style)];
                if bad && !plugins.is_empty() {
                    spans.push(Span::styled(" ! not loaded", theme.bad()));
                }
                Line::from(spans)
            }
            RowKind::AddArm => Line::from(vec![cursor, Span::styled(" + add an arm", style)]),
            RowKind::Start => {
                let text = if self.starting {
                    " starting… "
                } else {
                    " Start "
                };
                let style = theme.heading().patch(style);
                Line::from(vec![cursor, Span::styled(format!("[{text}]"), style)])
            }
        }
    }

    /// What the right half says: the row's own words, then what would be run.
    fn about(&self, theme: Theme, plugins: &[Plugin], width: usize) -> Vec<(String, Style)> {
        let mut lines: Vec<(String, Style)> = Vec::new();
        let mut say = |text: &str, style: Style| {
            lines.extend(wrap(text, width).into_iter().map(|line| (line, style)));
        };
        if let Some(Err(error)) = &self.experiments {
            say(error, theme.bad());
        }
        let normal = Style::new();
        match self.row(self.focus) {
            RowKind::Experiment => {
                if let Some(experiment) = self.experiment() {
                    say(&experiment.summary, normal);
                }
            }
            RowKind::Preset | RowKind::Start | RowKind::AddArm => {}
            RowKind::Device => match (&self.devices, self.device()) {
                (Some(Err(error)), _) => say(error, theme.bad()),
                (_, Some(device)) => {
                    say(&device.summary, normal);
                    if let Some(error) = &device.error {
                        say(error, theme.bad());
                    }
                }
                _ => {}
            },
            RowKind::Seeds => {
                say(
                    "Every arm is trained once for each seed. Type numbers, e.g. 0,1,2.",
                    normal,
                );
                if let Err(error) = self.parse_seeds() {
                    say(&error, theme.bad());
                }
            }
            RowKind::Arm(index) => {
                let strategy = &self.arms[index].strategy;
                say(&arm_words(&self.arms[index]), theme.heading());
                match plugins.iter().find(|plugin| plugin.name == *strategy) {
                    Some(plugin) => {
                        say(&plugin.summary, normal);
                        say(plugin.error.as_deref().unwrap_or_default(), theme.bad());
                    }
                    None => say("No such strategy is loaded.", theme.bad()),
                }
            }
        }
        let Some(preset) = self.preset() else {
            return lines;
        };
        let gap = if lines.is_empty() { "" } else { "\n" };
        let mut say = |text: &str, style: Style| {
            lines.extend(wrap(text, width).into_iter().map(|line| (line, style)));
        };
        say(gap, normal);
        say(&format!("Preset {}", preset.name), theme.heading());
        say(&preset.summary, normal);
        say("\n", normal);
        say("What will be run", theme.heading());
        let seeds = self.parse_seeds().map_or(0, |seeds| seeds.len());
        let runs = self.arms.len() * seeds;
        let steps = total_steps(&preset.phases);
        let phases: Vec<&str> = preset.phases.iter().map(|p| p.dataset.as_str()).collect();
        say(&phases.join(" → "), normal);
        let all = steps.saturating_mul(runs as u64);
        say(
            &format!(
                "{} × {}, {} steps each, {} in all; the first phase is trained once a seed and \
                 shared",
                plural(self.arms.len(), "arm"),
                plural(seeds, "seed"),
                count(steps),
                count(all),
            ),
            normal,
        );
        if !preset.expectation.is_empty() {
            say("\n", normal);
            say("What to expect", theme.heading());
            say(&preset.expectation, normal);
        }
        lines
    }
}

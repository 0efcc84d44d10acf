//! The form of a new run: experiment, preset, device, seeds, arms.

mod draw;

use forgetlab_study::experiment::{ArmSpec, RunConfig, settle_arms};

use crate::event::Command;
use crate::keymap::Action;
use crate::lab::{Device, Experiment, Plugin, Preset, StartRequest};
use crate::theme::Theme;

use super::arm_form::ArmForm;
use super::{Effects, step};

/// Rows of the form before the arms.
const ARMS: usize = 4;
const SEEDS: usize = 3;

/// A row of the form.
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

/// State of the form.
#[derive(Debug, Default)]
pub struct NewRun {
    experiments: Option<Result<Vec<Experiment>, String>>,
    devices: Option<Result<Vec<Device>, String>>,
    experiment: usize,
    preset: usize,
    device: usize,
    seeds: String,
    arms: Vec<ArmSpec>,
    focus: usize,
    scroll: usize,
    /// The form of the arm being edited.
    pub form: Option<ArmForm>,
    /// Whether a start was requested and not answered yet.
    pub starting: bool,
}

impl NewRun {
    /// Sets the experiments and chooses the first one.
    pub fn set_experiments(&mut self, experiments: Result<Vec<Experiment>, String>) {
        self.experiments = Some(experiments);
        (self.experiment, self.preset) = (0, 0);
        self.take_preset();
    }

    /// Sets the devices and chooses the first usable one.
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

    /// Resets arms and seeds to the preset's.
    fn take_preset(&mut self) {
        let Some(preset) = self.preset().cloned() else {
            return;
        };
        let seeds: Vec<String> = preset.config.seeds.iter().map(u64::to_string).collect();
        self.seeds = seeds.join(",");
        self.arms = preset.config.arms;
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

    /// Whether this character is typed into the seeds rather than being a key of the screen.
    pub fn types(&self, c: char) -> bool {
        self.row(self.focus) == RowKind::Seeds && (c.is_ascii_digit() || c == ',' || c == ' ')
    }

    /// Appends a typed character to the seeds.
    pub fn typed(&mut self, c: char) {
        self.seeds.push(c);
    }

    /// Applies a key's action.
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

    /// Applies a key's action in the form of an arm.
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
            ArmSpec {
                strategy: replaying.name.clone(),
                ..ArmSpec::plain()
            }
        };
        let arm = arm.unwrap_or_else(fresh);
        if !loaded.iter().any(|p| p.name == arm.strategy) {
            effects.hint(format!(
                "`{}` is not loaded: choose another strategy",
                arm.strategy
            ));
        }
        if let Some(preset) = self.preset() {
            let run = preset.config.clone();
            self.form = Some(ArmForm::new(index, &arm, loaded, run));
        }
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

    /// What would be run.
    fn config(&self, preset: &Preset, seeds: &[u64]) -> RunConfig {
        RunConfig {
            seeds: seeds.to_vec(),
            arms: self.arms.clone(),
            ..preset.config.clone()
        }
    }

    /// The run to start; the error has the row that is invalid, and why.
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
            let twin = |other: &ArmSpec| other.name() == arm.name();
            if let Some(twin) = self.arms[..index].iter().position(twin) {
                return wrong(format!("the same as arm {}: change or remove it", twin + 1));
            }
        }
        let mut config = self.config(preset, &seeds);
        settle_arms(&mut config).map_err(|error| (ARMS, error.to_string()))?;
        Ok(StartRequest {
            experiment: experiment.name.clone(),
            preset: preset.name.clone(),
            device: device.spec.clone(),
            seeds,
            arms: self.arms.clone(),
            queue: false,
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
}

//! The form of a new run: experiment, preset, device, seeds, arms, and every other setting.

mod draw;
mod settings;

use forgetlab_study::experiment::{ArmSpec, RunConfig, settle_arms};
use forgetlab_study::run::shell_word;

use crate::event::Command;
use crate::keymap::Action;
use crate::lab::{Device, Experiment, Plugin, Prediction, Preset, StartRequest};
use crate::theme::Theme;

use super::arm_form::ArmForm;
use super::{Effects, Prompt, step};
use settings::Settings;

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
    /// A setting, by its place among those that are shown.
    Setting(usize),
}

/// State of the form.
#[derive(Debug, Default)]
pub struct Compose {
    experiments: Option<Result<Vec<Experiment>, String>>,
    devices: Option<Result<Vec<Device>, String>>,
    experiment: usize,
    preset: usize,
    device: usize,
    seeds: String,
    arms: Vec<ArmSpec>,
    settings: Settings,
    focus: usize,
    scroll: usize,
    /// The form of the arm being edited.
    pub form: Option<ArmForm>,
    /// What was asked about last, and what it will take, once that is known.
    prediction: Option<(StartRequest, Option<Result<Prediction, String>>)>,
    /// Whether a start was requested and not answered yet.
    pub starting: bool,
}

impl Compose {
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
        self.settings = Settings::new(&preset.config);
        self.arms = preset.config.arms;
        self.scroll = 0;
    }

    /// Fills the form in with the configuration of a run.
    pub fn take(&mut self, config: RunConfig) {
        let experiments = self.experiments.as_ref().and_then(|all| all.as_ref().ok());
        let at = experiments
            .into_iter()
            .flatten()
            .position(|e| e.name == config.experiment);
        let Some(at) = at else {
            return;
        };
        self.experiment = at;
        let presets = self.experiment().map_or(&[][..], |e| &e.presets);
        self.preset = presets
            .iter()
            .position(|p| p.name == config.preset)
            .unwrap_or(0);
        self.take_preset();
        if let Some(preset) = self.preset().cloned() {
            self.settings.take(&preset.config, &config);
        }
        let devices = self.devices.as_ref().and_then(|all| all.as_ref().ok());
        let device = devices
            .into_iter()
            .flatten()
            .position(|d| d.spec == config.device);
        self.device = device.unwrap_or(self.device);
        let seeds: Vec<String> = config.seeds.iter().map(u64::to_string).collect();
        self.seeds = seeds.join(",");
        self.arms = config.arms;
        self.focus = ARMS;
    }

    /// Gives a setting another value, written as TOML; an empty one is the preset's.
    ///
    /// # Errors
    /// Why it cannot have this value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let (Some(experiment), Some(preset)) = (self.experiment(), self.preset()) else {
            return Err("no experiment is chosen".into());
        };
        if key == "seeds" {
            let before = std::mem::replace(&mut self.seeds, value.to_owned());
            let wrong = self.parse_seeds().err();
            return match wrong {
                Some(problem) => {
                    self.seeds = before;
                    Err(problem)
                }
                None => Ok(()),
            };
        }
        let (experiment, preset) = (experiment.name.clone(), preset.name.clone());
        self.settings.set(&experiment, &preset, key, value)
    }

    /// The command that asks what the form's run will take, where that is not asked yet.
    pub fn wanted_prediction(&mut self, plugins: &[Plugin]) -> Option<Command> {
        let request = self.request(plugins).ok().filter(|_| self.form.is_none())?;
        if self
            .prediction
            .as_ref()
            .is_some_and(|(asked, _)| *asked == request)
        {
            return None;
        }
        self.prediction = Some((request.clone(), None));
        Some(Command::Predict(request))
    }

    /// Keeps what a run will take, if it is still what is asked about.
    pub fn predicted(&mut self, request: StartRequest, prediction: Result<Prediction, String>) {
        if let Some((asked, known)) = &mut self.prediction
            && *asked == request
        {
            *known = Some(prediction);
        }
    }

    /// Types a character in the form of an arm.
    pub fn typed_in_form(&mut self, c: char) {
        if let Some(form) = &mut self.form {
            form.typed(c);
        }
    }

    fn row(&self, index: usize) -> RowKind {
        match index {
            0 => RowKind::Experiment,
            1 => RowKind::Preset,
            2 => RowKind::Device,
            SEEDS => RowKind::Seeds,
            index if index - ARMS < self.arms.len() => RowKind::Arm(index - ARMS),
            index if index - ARMS == self.arms.len() => RowKind::AddArm,
            index if index - ARMS == self.arms.len() + 1 => RowKind::Start,
            index => RowKind::Setting(index - ARMS - self.arms.len() - 2),
        }
    }

    fn rows(&self) -> usize {
        ARMS + self.arms.len() + 2 + self.settings.shown().len()
    }

    /// The row of the first setting that is shown.
    fn first_setting(&self) -> usize {
        ARMS + self.arms.len() + 2
    }

    /// Applies a key's action.
    pub fn act(
        &mut self,
        action: Action,
        argument: Option<&str>,
        plugins: &[Plugin],
        effects: &mut Effects,
    ) {
        let row = self.row(self.focus);
        let lines = self.rows();
        match (action, row) {
            (Action::First, _) => (self.focus, self.scroll) = (0, 0),
            (Action::Last, _) => (self.focus, self.scroll) = (lines - 1, 0),
            (Action::Filter, _) => self.search(argument, effects),
            (Action::Back, _) => self.search(Some(""), effects),
            (Action::Write, _) => self.write(argument, plugins, effects),
            (Action::Toml, _) => self.show_toml(plugins, effects),
            (Action::Yank, _) => match self.request(plugins) {
                Ok(request) => effects.copy = Some(command(&request)),
                Err((row, problem)) => self.wrong(row, &problem, effects),
            },
            (Action::Enter, RowKind::Seeds) => {
                effects.prompt = Some(Prompt::Setting("seeds".into(), self.seeds.clone()));
            }
            (Action::Enter, RowKind::Setting(index)) => {
                if let Some(setting) = self.settings.shown().get(index) {
                    let prompt = Prompt::Setting(setting.key.clone(), setting.value.clone());
                    effects.prompt = Some(prompt);
                }
            }
            (Action::Remove, RowKind::Setting(index)) => {
                if let Some(key) = self.settings.shown().get(index).map(|s| s.key.clone()) {
                    let back = self.set(&key, "");
                    effects.hint(back.err().unwrap_or(format!("{key} is the preset's again")));
                }
            }
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
            (Action::Enter, RowKind::Start) | (Action::Start, _) => {
                self.start(false, plugins, effects);
            }
            (Action::Queue, _) => self.start(true, plugins, effects),
            (Action::Enter, _) => self.focus = step(self.focus, 1, lines),
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
            effects.hint("no strategy could be loaded: 4 shows why");
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
            let run = self.settings.config().unwrap_or(&preset.config).clone();
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
            ..self.settings.config().unwrap_or(&preset.config).clone()
        }
    }

    /// Searches the settings for words; the cursor goes to the first one found.
    fn search(&mut self, argument: Option<&str>, effects: &mut Effects) {
        let Some(words) = argument else {
            effects.prompt = Some(Prompt::Filter(self.settings.search.clone()));
            return;
        };
        words.clone_into(&mut self.settings.search);
        let none = self.settings.shown().is_empty();
        self.focus = match (words.is_empty(), none) {
            (false, false) => self.first_setting(),
            _ => self.focus.min(self.rows() - 1),
        };
        if none {
            effects.hint(format!("no setting has `{words}`; Esc shows all of them"));
        }
    }

    /// Shows the configuration.
    fn show_toml(&mut self, plugins: &[Plugin], effects: &mut Effects) {
        match (self.request(plugins), self.preset()) {
            (Err((row, problem)), _) => self.wrong(row, &problem, effects),
            (Ok(request), Some(preset)) => {
                let text = toml::to_string(&self.config(preset, &request.seeds));
                let title = "Configuration (w writes it to a file)".to_owned();
                effects.text = Some((title, text.unwrap_or_default()));
            }
            (Ok(_), None) => {}
        }
    }

    /// Writes the configuration to a file.
    fn write(&mut self, argument: Option<&str>, plugins: &[Plugin], effects: &mut Effects) {
        match (self.request(plugins), argument) {
            (Err((row, problem)), _) => self.wrong(row, &problem, effects),
            (Ok(_), None) => effects.prompt = Some(Prompt::Write),
            (Ok(request), Some(file)) => {
                let command = Command::WriteConfig(request, file.to_owned());
                effects.ask(command, "writing the configuration…");
            }
        }
    }

    fn wrong(&mut self, row: usize, problem: &str, effects: &mut Effects) {
        self.focus = row;
        effects.hint(format!("! {problem}"));
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
            set: self.settings.changed(),
            queue: false,
            arms: self.arms.clone(),
        })
    }

    fn start(&mut self, queue: bool, plugins: &[Plugin], effects: &mut Effects) {
        if self.starting {
            effects.hint("already starting…");
            return;
        }
        match self.request(plugins) {
            Ok(request) => {
                self.starting = true;
                let request = StartRequest { queue, ..request };
                let hint = match queue {
                    true => "putting it in line…",
                    false => "starting a worker…",
                };
                effects.ask(Command::Start(request), hint);
            }
            Err((row, problem)) => self.wrong(row, &problem, effects),
        }
    }
}

/// The command line that does the same as the form.
pub fn command(request: &StartRequest) -> String {
    let mut words = vec![
        "forgetlab run".to_owned(),
        shell_word(&request.experiment),
        format!("--preset {}", shell_word(&request.preset)),
    ];
    let arms: Vec<String> = request.arms.iter().map(ArmSpec::name).collect();
    words.push(format!("--arms {}", shell_word(&arms.join(","))));
    for (key, value) in &request.set {
        words.push(format!("--set {}", shell_word(&format!("{key}={value}"))));
    }
    words.extend(request.seeds.iter().map(|seed| format!("--seed {seed}")));
    if request.device != "cpu" {
        words.push(format!("--device {}", shell_word(&request.device)));
    }
    words.join(" ")
}

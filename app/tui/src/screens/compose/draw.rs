//! Drawing of the form of a new run, and of the description in its right half.

use forgetlab_study::experiment::ArmSpec;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::lab::{Plugin, Points, Preset};
use crate::screens::machine::bytes;
use crate::screens::overlay::TOUR;
use crate::screens::setting_help::about;
use crate::theme::Theme;
use crate::widgets::names::distinct;
use crate::widgets::text::{StyledLines, clip, count, plural, scroll_to, seconds};

use super::command;

use super::{ARMS, Compose, RowKind};

/// Mark behind an arm whose strategy is not loaded.
const NOT_LOADED: &str = " ! not loaded";

/// Whether the strategy of an arm is loaded, or not known not to be.
fn is_loaded(arm: &ArmSpec, plugins: &[Plugin]) -> bool {
    let known = plugins.iter().find(|plugin| plugin.name == arm.strategy);
    plugins.is_empty() || known.is_some_and(|plugin| plugin.error.is_none())
}

impl Compose {
    /// Draws the form, or the one of the arm being edited.
    pub fn draw(
        &self,
        frame: &mut Frame,
        area: Rect,
        theme: Theme,
        plugins: &[Plugin],
        newcomer: bool,
    ) {
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
        let mut about = self.about(theme, plugins, right.width.into());
        if newcomer && self.form.is_none() {
            let mut tour = StyledLines::new(right.width.into());
            tour.add(
                "Welcome. The lab in six lines (? brings them back)",
                theme.heading(),
            );
            TOUR.iter().for_each(|line| tour.add(line, Style::new()));
            tour.add("\n", Style::new());
            about.splice(0..0, tour.finish());
        }
        let most = about.len().saturating_sub(right.height.into());
        let scrolled = about.into_iter().skip(self.scroll.min(most));
        for (row, (line, style)) in right.rows().zip(scrolled) {
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
                RowKind::Setting(0) => {
                    let title = match self.settings.search.as_str() {
                        "" => "Settings (/ searches)".to_owned(),
                        words => format!("Settings with `{words}`"),
                    };
                    lines.push(Line::default());
                    lines.push(Line::styled(title, theme.heading()));
                }
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

    /// Names of the arms, told apart in a form of this width.
    fn names(&self, plugins: &[Plugin], width: usize) -> Vec<String> {
        let names: Vec<String> = self.arms.iter().map(ArmSpec::name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let all_loaded = self.arms.iter().all(|arm| is_loaded(arm, plugins));
        let beside = if all_loaded { 5 } else { 5 + NOT_LOADED.len() };
        distinct(&names, width.saturating_sub(beside))
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
                    Span::styled(clip(&self.seeds, width.saturating_sub(26)), style),
                ];
                if self.experiments.is_some() && self.parse_seeds().is_err() {
                    spans.push(Span::styled(" ! wrong", theme.bad()));
                }
                Line::from(spans)
            }
            RowKind::Arm(index) => {
                let number = Span::styled(format!("{:>2} ", index + 1), theme.dim());
                let name = self.names(plugins, width).swap_remove(index);
                let mut spans = vec![cursor, number, Span::styled(name, style)];
                if !is_loaded(&self.arms[index], plugins) {
                    spans.push(Span::styled(NOT_LOADED, theme.bad()));
                }
                Line::from(spans)
            }
            RowKind::AddArm => Line::from(vec![cursor, Span::styled(" + add an arm", style)]),
            RowKind::Setting(index) => self.setting(index, cursor, style, theme, width),
            RowKind::Start => {
                let points = self.preset().and_then(|preset| preset.points.as_ref());
                let text = match (self.starting, points) {
                    (true, _) => " starting… ".to_owned(),
                    (false, None) => " Start ".to_owned(),
                    (false, Some(points)) => {
                        format!(" Start a sweep of {} ", plural(points.count, "point"))
                    }
                };
                let style = theme.heading().patch(style);
                Line::from(vec![cursor, Span::styled(format!("[{text}]"), style)])
            }
        }
    }

    /// The line of a setting: its key, and its value, marked where that is not the preset's.
    fn setting(
        &self,
        index: usize,
        cursor: Span<'static>,
        style: Style,
        theme: Theme,
        width: usize,
    ) -> Line<'static> {
        let shown = self.settings.shown();
        let Some(setting) = shown.get(index) else {
            return Line::default();
        };
        let mark = if setting.changed { "* " } else { "  " };
        let half = width.saturating_sub(6) / 2;
        let key = clip(&setting.key, half);
        let value = clip(&setting.value, half);
        Line::from(vec![
            cursor,
            Span::styled(mark, theme.warn()),
            Span::raw(format!("{key:<half$} ")),
            Span::styled(value, style),
        ])
    }

    /// Lines of the right half: about the focused row, then about the run as a whole.
    pub(super) fn about(
        &self,
        theme: Theme,
        plugins: &[Plugin],
        width: usize,
    ) -> Vec<(String, Style)> {
        let mut lines = StyledLines::new(width);
        if let Some(Err(error)) = &self.experiments {
            lines.add(error, theme.bad());
        }
        self.add_row(&mut lines, theme, plugins);
        if let Some(preset) = self.preset() {
            self.add_preset(&mut lines, theme, preset);
        }
        lines.finish()
    }

    /// Adds the description of the focused row.
    fn add_row(&self, lines: &mut StyledLines, theme: Theme, plugins: &[Plugin]) {
        let normal = Style::new();
        match self.row(self.focus) {
            RowKind::Experiment => {
                if let Some(experiment) = self.experiment() {
                    lines.add(&experiment.summary, normal);
                }
            }
            RowKind::Preset | RowKind::Start | RowKind::AddArm => {}
            RowKind::Setting(index) => {
                if let Some(setting) = self.settings.shown().get(index) {
                    lines.add(&setting.key, theme.heading());
                    lines.add(about(&setting.key), normal);
                    lines.add("Enter types a value; d takes the preset's.", theme.dim());
                }
            }
            RowKind::Device => match (&self.devices, self.device()) {
                (Some(Err(error)), _) => lines.add(error, theme.bad()),
                (_, Some(device)) => {
                    lines.add(&device.summary, normal);
                    if let Some(error) = &device.error {
                        lines.add(error, theme.bad());
                    }
                }
                _ => {}
            },
            RowKind::Seeds => {
                lines.add(
                    "Every arm is trained once for each seed. Enter types them, e.g. 0,1,2.",
                    normal,
                );
                if let Err(error) = self.parse_seeds() {
                    lines.add(&error, theme.bad());
                }
            }
            RowKind::Arm(index) => {
                let arm = &self.arms[index];
                lines.add(&arm.name(), theme.heading());
                match plugins.iter().find(|plugin| plugin.name == arm.strategy) {
                    Some(plugin) => {
                        lines.add(&plugin.summary, normal);
                        lines.add(plugin.error.as_deref().unwrap_or_default(), theme.bad());
                    }
                    None => lines.add("No such strategy is loaded.", theme.bad()),
                }
            }
        }
    }

    /// Adds what a sweep is, and what its grids have.
    fn add_points(&self, lines: &mut StyledLines, preset: &Preset, points: &Points) {
        let text = format!(
            "A sweep of {}, in the background: a run for each.",
            plural(points.count, "point")
        );
        lines.add(&text, Style::new());
        for grid in &points.grids {
            lines.add(grid, Style::new());
        }
        let arms = match self.arms == preset.config.arms {
            true => {
                "Device and seeds are those of all points. Arms that you change replace those of every grid."
            }
            false => "Device, seeds and arms are those of all points.",
        };
        lines.add(arms, Style::new());
        lines.add(
            "The preset's own settings, which points change:",
            Style::new(),
        );
    }

    /// Adds what the run will take, and the command line that starts it.
    fn add_prediction(&self, lines: &mut StyledLines, theme: Theme) {
        let Some((request, prediction)) = &self.prediction else {
            return;
        };
        lines.add("\n", Style::new());
        lines.add("What it will take", theme.heading());
        match prediction {
            None => lines.add("being worked out…", theme.dim()),
            Some(Err(problem)) => lines.add(problem, theme.bad()),
            Some(Ok(prediction)) => {
                let most = if prediction.at_most { "at most " } else { "" };
                let time = prediction
                    .seconds
                    .map_or("a time that is not known".to_owned(), |time| {
                        format!("about {}", seconds(time))
                    });
                let from = match prediction.seconds_from.as_str() {
                    "" => String::new(),
                    from => format!(" ({from})"),
                };
                let memory = prediction.memory.map_or(String::new(), |memory| {
                    format!("; {} of memory", bytes(memory))
                });
                let text = format!(
                    "{most}{time}{from}{memory}; {} tokens, {} of them generated; {:.1e} FLOPs",
                    count(prediction.tokens + prediction.generated),
                    count(prediction.generated),
                    prediction.flops
                );
                lines.add(&text, Style::new());
                for note in &prediction.notes {
                    lines.add(&format!("! {note}"), theme.warn());
                }
            }
        }
        lines.add("\n", Style::new());
        lines.add(&command(request), theme.dim());
    }

    /// Adds the description of the preset and of the run that would be started.
    fn add_preset(&self, lines: &mut StyledLines, theme: Theme, preset: &Preset) {
        let normal = Style::new();
        if !lines.is_empty() {
            lines.add("\n", normal);
        }
        lines.add(&format!("Preset {}", preset.name), theme.heading());
        lines.add(&preset.summary, normal);
        lines.add("\n", normal);
        lines.add("What will be run", theme.heading());
        if let Some(points) = &preset.points {
            self.add_points(lines, preset, points);
        }
        let seeds = self.parse_seeds().map_or(0, |seeds| seeds.len());
        let config = self.settings.config().unwrap_or(&preset.config);
        let phases: Vec<&str> = config.phases.iter().map(|p| p.dataset.as_str()).collect();
        lines.add(&phases.join(" → "), normal);
        // Lengths that depend on files are known when these are read.
        let unknown = config
            .phases
            .iter()
            .enumerate()
            .filter(|(i, phase)| config.in_phase(*i).steps == 0 && phase.length() != "0 steps");
        let unknown = unknown.map(|(_, phase)| format!("{} of {}", phase.length(), phase.dataset));
        let beside = match unknown.collect::<Vec<_>>() {
            none if none.is_empty() => String::new(),
            lengths => format!(" beside {}", lengths.join(", ")),
        };
        // An arm may have steps of its own.
        let steps = self.arms.iter().map(|arm| {
            let own = config.of_arm(arm).unwrap_or_else(|_| config.clone());
            own.all_steps().iter().sum::<u64>()
        });
        let steps: Vec<u64> = steps.collect();
        let total = steps.iter().sum::<u64>().saturating_mul(seeds as u64);
        let (least, most) = (steps.iter().min(), steps.iter().max());
        let each = match (least, most) {
            (Some(least), Some(most)) if least != most => {
                format!("{} to {}", count(*least), count(*most))
            }
            (least, _) => count(least.copied().unwrap_or(0)),
        };
        lines.add(
            &format!(
                "{} × {}, {each} steps each, {} in all{beside}; the first phase is trained once a seed \
                 and shared",
                plural(self.arms.len(), "arm"),
                plural(seeds, "seed"),
                count(total),
            ),
            normal,
        );
        self.add_prediction(lines, theme);
        if !preset.expectation.is_empty() {
            lines.add("\n", normal);
            lines.add("What to expect", theme.heading());
            lines.add(&preset.expectation, normal);
        }
    }
}

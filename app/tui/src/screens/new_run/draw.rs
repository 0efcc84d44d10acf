//! How the form of a new run is drawn, and what its right half says.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::lab::Plugin;
use crate::theme::Theme;
use crate::widgets::text::{clip, count, plural, scroll_to, wrap};

use super::super::arm_form::arm_words;
use super::{ARMS, NewRun, RowKind};

impl NewRun {
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
                if self.experiments.is_some() && self.parse_seeds().is_err() {
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
    pub(super) fn about(
        &self,
        theme: Theme,
        plugins: &[Plugin],
        width: usize,
    ) -> Vec<(String, Style)> {
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
        let steps = preset.phases.iter().map(|phase| phase.steps).sum::<u64>();
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

//! Everything about the arm under the cursor: curves and figures of every dataset, why it failed, its cost.

use forgetlab_study::report::ArmSeeds;
use forgetlab_study::run::{ArmState, ArmStatus, Cost, PhaseInfo, Role};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Row, Table};
use unicode_width::UnicodeWidthStr;

use crate::arms::Group;
use crate::figures::{self, Metric};
use crate::theme::Theme;
use crate::view::Pane;
use crate::widgets::text::{clip, count, nats, percent, plural, seconds, wrap};
use crate::widgets::verdict;

use super::super::Watch;
use super::super::draw::{draw_lines, under_title};
use super::super::table::{figure, worst};
use super::replay::batch;

/// Rows of curves below which they cannot be read.
const CURVES: u16 = 7;

impl Watch {
    pub(in super::super) fn draw_arm(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let (title, body) = under_title(area);
        let Some(group) = self.group() else {
            return;
        };
        let seeds = self.seeds(group);
        let info = &group.mean.info;
        let of = match group.members.len() {
            1 => format!("seed {}", info.seed),
            seeds => plural(seeds, "seed"),
        };
        let words = [
            group.label.clone(),
            of,
            format!("lr {}", info.lr),
            info.strategy.clone(),
        ];
        frame.render_widget(
            self.pane_title(theme, Pane::Arm, &words, title.width),
            title,
        );
        let judgement = self.arms.judgement(group);
        let sentence = verdict::sentence(judgement);
        let width = usize::from(body.width);
        let mut texts: Vec<(String, Style)> = Vec::new();
        for line in wrap(&sentence, width) {
            texts.push((line, verdict::style(theme, judgement)));
        }
        texts.extend(facts(group, &seeds, theme, width));
        let table_height = self.arms.datasets.len() as u16 + 2;
        let needed = table_height + texts.len() as u16;
        let curves = match body.height.checked_sub(needed) {
            Some(free) if free > CURVES => free,
            _ if body.height >= needed.min(14) + CURVES => CURVES,
            _ => 0,
        };
        let legend = u16::from(curves > 0);
        let [curves, legend, table, below] = Layout::vertical([
            Constraint::Length(curves.saturating_sub(legend)),
            Constraint::Length(legend),
            Constraint::Length(table_height),
            Constraint::Fill(1),
        ])
        .areas(body);
        if curves.height > 0 {
            let row = self
                .rows()
                .into_iter()
                .find(|row| row.group.index == group.index);
            if let Some(row) = row {
                let rows = std::slice::from_ref(&row);
                let range = self.panels_range(rows);
                let name = Line::styled(self.metric().name(), theme.dim());
                frame.render_widget(
                    self.panel(&row, rows, theme, name, (range, curves.width)),
                    curves,
                );
                frame.render_widget(self.legend(theme, usize::from(legend.width)), legend);
            }
        }
        frame.render_widget(
            dataset_table(self, group, &seeds, theme, table.width),
            table,
        );
        let most = texts.len().saturating_sub(usize::from(below.height));
        let first = if self.focus == Some(Pane::Arm) {
            self.scroll.min(most)
        } else {
            0
        };
        draw_lines(&texts, first, frame, below);
    }

    /// How far the text of a pane can be scrolled.
    pub(in super::super) fn longest_scroll(&self, pane: Pane) -> usize {
        match pane {
            Pane::Log => self.log_length().saturating_sub(1),
            // Where it is drawn it stops at its end.
            _ => 200,
        }
    }
}

/// Widths of the columns behind the datasets' names.
const WIDTHS: [u16; 9] = [6, 6, 6, 7, 7, 10, 5, 6, 6];
/// Which of them are shown first where not all have room: role, now, forgot, was, worst, from the best, kept, the rest.
const FIRST: [usize; 9] = [0, 1, 3, 2, 5, 4, 6, 7, 8];

/// The columns that have room beside names of a width, in their order.
fn fitting(width: u16, names: Option<usize>) -> Vec<usize> {
    let names = 2 + names.unwrap_or(0).clamp(6, 20);
    let mut room = usize::from(width).saturating_sub(names);
    let fits = |column: &usize| {
        let needed = usize::from(WIDTHS[*column]) + 1;
        let fits = needed <= room;
        room = if fits { room - needed } else { 0 };
        fits
    };
    let mut columns: Vec<usize> = FIRST.into_iter().filter(fits).collect();
    columns.sort_unstable();
    columns
}

/// The scores of every dataset in the screen's metric, then in the other one, and what was lost of old data.
fn dataset_table<'a>(
    watch: &Watch,
    group: &Group,
    seeds: &ArmSeeds,
    theme: Theme,
    width: u16,
) -> Table<'a> {
    let phases = seeds.seeds.first().map(|(run, _)| run.phases.as_slice());
    let (phases, arm) = (phases.unwrap_or_default(), &group.mean);
    let metric = watch.metric().of_change();
    let other = match metric {
        Metric::Accuracy => Metric::Ntp,
        _ => Metric::Accuracy,
    };
    let short = |metric| match metric {
        Metric::Accuracy => "acc",
        Metric::Error => "RMSE",
        Metric::Ntp | Metric::Kl => "NTP",
    };
    let right = |text: String| Text::from(text).right_aligned();
    let mut header = vec![Text::raw("dataset"), Text::raw("role")];
    let titles = [
        format!("{}\nnow", short(metric)),
        format!("{}\nwas", short(metric)),
        "forgot\nvs end".into(),
        "forgot\nvs best".into(),
        "worst\nat step".into(),
        "mean\nkept".into(),
        short(other).into(),
        "KL".into(),
    ];
    header.extend(titles.map(right));
    let rows = watch.arms.datasets.iter().enumerate().map(|(index, name)| {
        let label = format!("{} {name}", theme.marker(index));
        let label = Text::from(Line::styled(label, theme.series(index)));
        let Some((last, score)) = figures::last_of(arm, name) else {
            return vec![label, Text::raw("·")];
        };
        let start = arm.start(phases, name, last).and_then(|e| e.score(name));
        let (role, old) = match score.role {
            Role::Old => ("old", true),
            Role::New => ("new", false),
            Role::Future => ("future", false),
        };
        let old_alone = |value: Option<f64>| right(figure(metric, value.filter(|_| old)));
        let lost = figures::worst_of(seeds, name, metric);
        let kept = figures::retention(seeds, name, metric);
        vec![
            label,
            Text::raw(role),
            right(figure(metric, metric.of(score))),
            right(figure(metric, start.and_then(|s| metric.of(s)))),
            old_alone(figures::change(arm, phases, last, name, metric)),
            old_alone(figures::from_best(seeds, name, metric)),
            right(worst(metric, lost)),
            right(kept.map_or("·".into(), |kept| format!("{:.0}%", 100.0 * kept))),
            right(figure(other, other.of(score))),
            right(figure(Metric::Kl, Metric::Kl.of(score))),
        ]
    });
    let fitting = fitting(
        width,
        watch.arms.datasets.iter().map(|name| name.width()).max(),
    );
    let of = |row: Vec<Text<'a>>| {
        let cells = row.into_iter().enumerate();
        let shown = cells.filter(|(column, _)| *column == 0 || fitting.contains(&(column - 1)));
        Row::new(shown.map(|(_, cell)| cell))
    };
    let header = of(header).style(theme.heading()).height(2);
    let widths = fitting
        .iter()
        .map(|column| Constraint::Length(WIDTHS[*column]));
    let widths = [Constraint::Fill(1)].into_iter().chain(widths);
    Table::new(rows.map(of), widths)
        .header(header)
        .column_spacing(1)
}

/// Why the arm failed, live progress, phases that ended early, measures over datasets, cost and plugin metrics, as lines.
fn facts(group: &Group, seeds: &ArmSeeds, theme: Theme, width: usize) -> Vec<(String, Style)> {
    let mut lines = Vec::new();
    for (_, arm) in &seeds.seeds {
        if let ArmStatus::Failed(reason) | ArmStatus::Skipped(reason) = &arm.status {
            let text = match seeds.seeds.len() {
                1 => reason.clone(),
                _ => format!("seed {}: {reason}", arm.info.seed),
            };
            let reason = wrap(&text, width).into_iter();
            lines.extend(reason.map(|line| (line, theme.bad())));
        }
    }
    let mut texts = Vec::new();
    texts.extend(progress(&group.mean).map(|text| clip(&text, width)));
    texts.extend(ends(seeds));
    texts.extend(drift(group, seeds));
    texts.extend(transfers(seeds));
    texts.extend(flips(group, seeds));
    if let Some(cost) = group.mean.evaluations.last().map(|e| &e.cost) {
        let each = if seeds.seeds.len() > 1 {
            "a seed: "
        } else {
            ""
        };
        texts.push(format!("{each}{}", costs(cost)));
        texts.extend(flops(cost));
    }
    let replayed = seeds.seeds.first().and_then(|(_, arm)| arm.replay.last());
    texts.extend(replayed.map(|look| format!("replayed at step {}: {}", look.step, batch(look))));
    if let [(_, arm)] = seeds.seeds[..] {
        texts.extend(plugin_metrics(arm));
    }
    let wrapped = texts.iter().flat_map(|text| wrap(text, width));
    lines.extend(wrapped.map(|line| (line, Style::new())));
    lines
}

fn progress(arm: &ArmState) -> Option<String> {
    let progress = arm.progress.filter(|_| arm.status == ArmStatus::Running)?;
    if progress.ntp.is_nan() {
        return Some(format!("step {}", arm.step));
    }
    let replay = progress.replay.map_or("none".into(), nats);
    Some(format!(
        "step {}  loss {}  replay loss {replay}  gradient {}  {} tokens/s",
        arm.step,
        nats(progress.ntp),
        nats(progress.grad_norm),
        count(progress.tokens_per_second.max(0.0) as u64),
    ))
}

/// Phases that something else than their steps ended.
fn ends(seeds: &ArmSeeds) -> Vec<String> {
    let phases = seeds.seeds.first().map(|(run, _)| &run.phases);
    let line = |(index, phase): (usize, &PhaseInfo)| {
        let ends = seeds.seeds.iter().flat_map(|(_, arm)| &arm.ends);
        let early = ends.filter(|end| end.0 == index);
        let early = early.filter_map(|&(_, step, by)| Some((step, by.early()?)));
        let early: Vec<(u64, &str)> = early.collect();
        let steps = early.iter().map(|&(step, _)| step);
        let (first, last) = (steps.clone().min()?, steps.max()?);
        let at = match first == last {
            true => format!("at step {first}"),
            false => format!("at step {first} to {last}"),
        };
        let of_seeds = match seeds.seeds.len() {
            1 => String::new(),
            all => format!(" in {} of {all} seeds", early.len()),
        };
        let mut why: Vec<&str> = early.iter().map(|&(_, why)| why).collect();
        why.sort_unstable();
        why.dedup();
        let why = why.join("; ");
        Some(format!("{} ended {at}{of_seeds}: {why}", phase.dataset))
    };
    let phases = phases.into_iter().flatten().enumerate();
    phases.filter_map(line).collect()
}

/// What was learned, and KL on new data apart from that on old data.
fn drift(group: &Group, seeds: &ArmSeeds) -> Option<String> {
    let (run, _) = *seeds.seeds.first()?;
    let mean = &group.mean;
    let mut scores = mean.evaluations.last()?.scores.iter();
    let new = scores.find(|score| score.role == Role::New);
    let learned = new.and_then(|new| {
        let metrics = [Metric::Accuracy, Metric::Ntp, Metric::Error].into_iter();
        let mut learned = metrics.filter_map(|metric| {
            let learned = figures::learning(mean, &run.phases, metric)?;
            Some(figure(metric, Some(learned)))
        });
        Some(format!("{} learned {}", new.dataset, learned.next()?))
    });
    let of = |role, words: &str| Some(format!("{} {words}", nats(figures::kl(mean, role)?)));
    let kl = [of(Role::Old, "on old data"), of(Role::New, "on new")];
    let kl: Vec<String> = kl.into_iter().flatten().collect();
    let kl = (!kl.is_empty()).then(|| format!("KL to the reference {}", kl.join(", ")));
    let parts: Vec<String> = [learned, kl].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Accuracies over the tasks of the run, by the names they are published under.
fn transfers(seeds: &ArmSeeds) -> Option<String> {
    let of = figures::transfer(seeds);
    let parts = [
        ("ACC", of.average_accuracy),
        ("BWT", of.backward),
        ("FWT", of.forward),
        ("min-ACC", of.min_accuracy),
        ("WC-ACC", of.worst_case_accuracy),
    ];
    let known = parts.into_iter();
    let known = known.filter_map(|(name, value)| Some(format!("{name} {}", percent(value?))));
    let known: Vec<String> = known.collect();
    (!known.is_empty()).then(|| known.join(" · "))
}

/// Questions that are answered otherwise than at the start.
fn flips(group: &Group, seeds: &ArmSeeds) -> Vec<String> {
    let asked = group.mean.evaluations.first().into_iter();
    let asked = asked
        .flat_map(|e| &e.scores)
        .filter(|score| score.choices.is_some());
    let line = |dataset: &str| {
        let (counted, corrected) = figures::flips(seeds, dataset)?;
        let mut text = format!(
            "{dataset}: {} right to wrong, {} wrong to right",
            percent(counted.right_to_wrong),
            percent(counted.wrong_to_right)
        );
        if let Some(flips) = corrected {
            let (lost, gained) = (flips.right_to_wrong, flips.wrong_to_right);
            text += &format!(
                "; without guesses {} and {}",
                percent(lost),
                percent(gained)
            );
        }
        Some(text)
    };
    asked.filter_map(|score| line(&score.dataset)).collect()
}

fn costs(cost: &Cost) -> String {
    format!(
        "{} tokens, {} generated; {} new, {} replay, {} generation, {} eval",
        count(cost.tokens_trained),
        count(cost.tokens_generated),
        seconds(cost.seconds_new),
        seconds(cost.seconds_replay),
        seconds(cost.seconds_generate),
        seconds(cost.seconds_eval),
    )
}

fn flops(cost: &Cost) -> Option<String> {
    let of = |flops: f64| match flops {
        0.0 => "0".to_owned(),
        some => format!("{some:.2e}"),
    };
    Some(format!(
        "{} FLOPs: {} training, {} reference, {} generation, {} evaluation",
        of(cost.flops()?),
        of(cost.flops_train),
        of(cost.flops_reference),
        of(cost.flops_generate),
        of(cost.flops_eval),
    ))
}

/// The latest of every figure that the strategy reported.
fn plugin_metrics(arm: &ArmState) -> Option<String> {
    let mut latest: Vec<(&str, f64)> = Vec::new();
    for (_, name, value) in &arm.plugin_metrics {
        match latest.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = *value,
            None => latest.push((name, *value)),
        }
    }
    let latest = latest.iter();
    let metrics = latest.map(|(name, value)| format!("{name} {}", nats(*value)));
    let metrics: Vec<String> = metrics.collect();
    (!metrics.is_empty()).then(|| format!("plugin: {}", metrics.join("  ")))
}

//! One arm, full screen: curves, numbers of every dataset, measures, costs, plugin metrics, log.

use forgetlab_study::report::ArmSeeds;
use forgetlab_study::run::{ArmState, ArmStatus, Cost, PhaseInfo, Role};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Row, Table};
use unicode_width::UnicodeWidthStr;

use crate::arms::Group;
use crate::figures::{self, Metric};
use crate::keymap::Action;
use crate::theme::Theme;
use crate::widgets::arm_table::{self, figure};
use crate::widgets::names::distinct;
use crate::widgets::text::{clip, count, nats, percent, plural, seconds, wrap};
use crate::widgets::verdict;

use super::live::Live;
use super::{Effects, Screen};

/// Applies a key's action.
pub fn act(live: &mut Live, action: Action, effects: &mut Effects) {
    let arms = live.arms.groups().len().max(1);
    match action {
        Action::Back => effects.go = Some(Screen::Live),
        Action::Left => (live.arm, live.log_back) = ((live.arm + arms - 1) % arms, 0),
        Action::Right => (live.arm, live.log_back) = ((live.arm + 1) % arms, 0),
        Action::Metric => live.metric = live.metric.next_of(&live.state),
        Action::Future => live.future = !live.future,
        Action::Seeds => live.toggle_seeds(effects),
        Action::Log => effects.log = true,
        Action::Replay => effects.replay = true,
        Action::Up => {
            let lines = live.log_lines(Theme::PLAIN, live.group()).len();
            live.log_back = (live.log_back + 1).min(lines.saturating_sub(1));
        }
        Action::Down => live.log_back = live.log_back.saturating_sub(1),
        _ => {}
    }
}

/// Draws the arm under the cursor.
pub fn draw(live: &Live, frame: &mut Frame, area: Rect, theme: Theme) {
    let Some(group) = live.group() else {
        let text = "this run has no arms yet";
        frame.render_widget(Line::styled(text, theme.dim()).centered(), area);
        return;
    };
    let seeds = live.seeds(group);
    let wide = area.width >= 150;
    let names = live.state.datasets();
    let table_height = names.len() as u16 + 2;
    let [head, below, body] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(1),
    ])
    .areas(area);
    frame.render_widget(headline(live, group, theme, usize::from(head.width)), head);
    frame.render_widget(answer(live, group, theme), below);
    let numbers_width = if wide {
        (area.width * 2 / 5).max(80)
    } else {
        area.width
    };
    let facts = facts(group, &seeds, theme, usize::from(numbers_width));
    let (curves, numbers) = if wide {
        let halves = [
            Constraint::Fill(1),
            Constraint::Length(1),
            Constraint::Length(numbers_width),
        ];
        let [left, _, right] = Layout::horizontal(halves).areas(body);
        (left, right)
    } else {
        // Below that, curves cannot be read.
        let most = body.height.saturating_sub(7);
        let lines = table_height + facts.len() as u16 + 2;
        Layout::vertical([Constraint::Fill(1), Constraint::Length(lines.min(most))])
            .areas::<2>(body)
            .into()
    };
    let [curves, legend] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(curves);
    let title = Line::styled(live.metric.name(), theme.dim());
    let range = live.range(std::iter::once(&group.mean));
    frame.render_widget(live.chart(theme, group, title, range), curves);
    frame.render_widget(live.legend(theme, usize::from(legend.width)), legend);

    let [table, facts_area, log] = Layout::vertical([
        Constraint::Length(table_height),
        Constraint::Length(facts.len() as u16),
        Constraint::Fill(1),
    ])
    .areas(numbers);
    frame.render_widget(dataset_table(live, group, &seeds, theme), table);
    for (row, line) in facts_area.rows().zip(facts) {
        frame.render_widget(line, row);
    }
    draw_log(live, group, frame, log, theme);
}

fn headline<'a>(live: &Live, group: &Group, theme: Theme, width: usize) -> Line<'a> {
    let (status, status_style) = arm_table::status(theme, &live.seeds(group));
    let groups = live.arms.groups();
    let info = &group.mean.info;
    let seed = match group.members.len() {
        1 => format!("seed {}", info.seed),
        seeds => plural(seeds, "seed"),
    };
    let place = format!(
        "  arm {} of {} · {seed} · lr {}",
        live.arm + 1,
        groups.len(),
        info.lr
    );
    let labels: Vec<&str> = groups.iter().map(|group| group.label.as_str()).collect();
    let room = width.saturating_sub(place.width() + status.width() + 2);
    let name = distinct(&labels, room).swap_remove(live.arm);
    Line::from(vec![
        Span::styled(name, theme.heading()),
        Span::raw("  "),
        Span::styled(status, status_style),
        Span::styled(place, theme.dim()),
    ])
}

/// The verdict.
fn answer<'a>(live: &Live, group: &Group, theme: Theme) -> Line<'a> {
    let judgement = live.arms.judgement(group);
    let sentence = verdict::sentence(&live.seeds(group), judgement);
    Line::styled(sentence, verdict::style(theme, judgement))
}

/// The scores of every dataset in the screen's metric, then in the other one, and what was lost of old data.
fn dataset_table<'a>(live: &Live, group: &Group, seeds: &ArmSeeds, theme: Theme) -> Table<'a> {
    let (phases, arm) = (&live.state.phases, &group.mean);
    let metric = live.metric.of_change();
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
    let header = Row::new(header).style(theme.heading()).height(2);
    let rows = live
        .state
        .datasets()
        .into_iter()
        .enumerate()
        .map(|(index, name)| {
            let label = format!("{} {name}", theme.marker(index));
            let label = Text::from(Line::styled(label, theme.series(index)));
            let Some((last, score)) = figures::last_of(arm, name) else {
                return Row::new(vec![label, Text::raw("·")]);
            };
            let start = arm.start(phases, name, last).and_then(|e| e.score(name));
            let (role, old) = match score.role {
                Role::Old => ("old", true),
                Role::New => ("new", false),
                Role::Future => ("future", false),
            };
            let lost = |value: Option<f64>| right(figure(metric, value.filter(|_| old)));
            let worst = figures::worst_of(seeds, name, metric);
            let kept = figures::retention(seeds, name, metric);
            Row::new(vec![
                label,
                Text::raw(role),
                right(figure(metric, metric.of(score))),
                right(figure(metric, start.and_then(|s| metric.of(s)))),
                lost(figures::change(arm, phases, last, name, metric)),
                lost(figures::from_best(seeds, name, metric)),
                right(arm_table::worst(metric, worst)),
                right(kept.map_or("·".into(), |kept| format!("{:.0}%", 100.0 * kept))),
                right(figure(other, other.of(score))),
                right(figure(Metric::Kl, Metric::Kl.of(score))),
            ])
        });
    let widths = [6, 6, 6, 7, 7, 10, 5, 6, 6].map(Constraint::Length);
    let widths = [Constraint::Fill(1)].into_iter().chain(widths);
    Table::new(rows, widths).header(header).column_spacing(1)
}

/// Why the arm failed, live progress, phases that ended early, measures over datasets, cost and plugin metrics, as lines.
fn facts<'a>(group: &Group, seeds: &ArmSeeds, theme: Theme, width: usize) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for (_, arm) in &seeds.seeds {
        if let ArmStatus::Failed(reason) | ArmStatus::Skipped(reason) = &arm.status {
            let text = match seeds.seeds.len() {
                1 => reason.clone(),
                _ => format!("seed {}: {reason}", arm.info.seed),
            };
            let reason = wrap(&text, width).into_iter();
            lines.extend(reason.map(|line| Line::styled(line, theme.bad())));
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
    if let [(_, arm)] = seeds.seeds[..] {
        texts.extend(plugin_metrics(arm));
    }
    let wrapped = texts.iter().flat_map(|text| wrap(text, width));
    lines.extend(wrapped.map(Line::raw));
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

fn draw_log(live: &Live, group: &Group, frame: &mut Frame, area: Rect, theme: Theme) {
    let lines = live.log_lines(theme, Some(group));
    if area.height == 0 || lines.is_empty() {
        return;
    }
    let width = usize::from(area.width);
    let wrapped: Vec<_> = lines[..lines.len().saturating_sub(live.log_back)]
        .iter()
        .flat_map(|(text, style)| wrap(text, width).into_iter().map(|line| (line, *style)))
        .collect();
    let first = wrapped.len().saturating_sub(usize::from(area.height));
    for (row, (text, style)) in area.rows().zip(&wrapped[first..]) {
        frame.render_widget(Line::styled(text.as_str(), *style), row);
    }
}

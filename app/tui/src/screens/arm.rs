//! One arm, full screen: curves, numbers of every dataset, costs, plugin metrics, log.

use forgetlab_study::report::verdict;
use forgetlab_study::run::{ArmState, ArmStatus, Role};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Row, Table};

use crate::figures::{self, Metric};
use crate::keymap::Action;
use crate::theme::Theme;
use crate::widgets::arm_table::{self, figure};
use crate::widgets::text::{clip, count, nats, seconds, wrap};

use super::live::Live;
use super::{Effects, Screen};

/// Applies a key's action.
pub fn act(live: &mut Live, action: Action, effects: &mut Effects) {
    let arms = live.state.arms.len().max(1);
    match action {
        Action::Back => effects.go = Some(Screen::Live),
        Action::Left => (live.arm, live.log_back) = ((live.arm + arms - 1) % arms, 0),
        Action::Right => (live.arm, live.log_back) = ((live.arm + 1) % arms, 0),
        Action::Metric => live.metric = live.metric.next(),
        Action::Future => live.future = !live.future,
        Action::Log => effects.log = true,
        Action::Replay => effects.replay = true,
        Action::Up => {
            let lines = live.log_lines(Theme::PLAIN, Some(live.arm)).len();
            live.log_back = (live.log_back + 1).min(lines.saturating_sub(1));
        }
        Action::Down => live.log_back = live.log_back.saturating_sub(1),
        _ => {}
    }
}

/// Draws the arm under the cursor.
pub fn draw(live: &Live, frame: &mut Frame, area: Rect, theme: Theme) {
    let Some(arm) = live.state.arms.get(live.arm) else {
        let text = "this run has no arms yet";
        frame.render_widget(Line::styled(text, theme.dim()).centered(), area);
        return;
    };
    let wide = area.width >= 130;
    let names = live.state.datasets();
    let table_height = names.len() as u16 + 1;
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    frame.render_widget(headline(live, arm, theme), head);
    let (curves, numbers) = if wide {
        let halves = [
            Constraint::Fill(3),
            Constraint::Length(1),
            Constraint::Fill(2),
        ];
        let [left, _, right] = Layout::horizontal(halves).areas(body);
        (left, right)
    } else {
        let below = (table_height + 6).min(body.height * 3 / 5);
        Layout::vertical([Constraint::Fill(1), Constraint::Length(below)])
            .areas::<2>(body)
            .into()
    };
    let [curves, legend] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(curves);
    let title = Line::styled(live.metric.name(), theme.dim());
    let range = live.range(std::iter::once(arm));
    frame.render_widget(live.chart(theme, arm, title, range), curves);
    frame.render_widget(live.legend(theme, usize::from(legend.width)), legend);

    let facts = facts(arm, theme, usize::from(numbers.width));
    let [table, facts_area, log] = Layout::vertical([
        Constraint::Length(table_height),
        Constraint::Length(facts.len() as u16),
        Constraint::Fill(1),
    ])
    .areas(numbers);
    frame.render_widget(dataset_table(live, arm, theme, &names), table);
    for (row, line) in facts_area.rows().zip(facts) {
        frame.render_widget(line, row);
    }
    draw_log(live, frame, log, theme);
}

fn headline<'a>(live: &Live, arm: &ArmState, theme: Theme) -> Line<'a> {
    let verdict = verdict(arm, &live.state.phases);
    let (status, status_style) = arm_table::status(theme, &live.state, arm);
    let place = format!("arm {} of {}", live.arm + 1, live.state.arms.len());
    Line::from(vec![
        Span::styled(clip(&arm.info.name, 40), theme.heading()),
        Span::raw("  "),
        Span::styled(verdict.word(), arm_table::verdict_style(theme, verdict)),
        Span::raw("  "),
        Span::styled(status, status_style),
        Span::styled(
            format!("  {place} · seed {} · lr {}", arm.info.seed, arm.info.lr),
            theme.dim(),
        ),
    ])
}

fn dataset_table<'a>(live: &Live, arm: &ArmState, theme: Theme, names: &[&str]) -> Table<'a> {
    let phases = &live.state.phases;
    let right = |text: String| Text::from(text).right_aligned();
    let mut header = vec![Text::raw("dataset"), Text::raw("role")];
    header.extend(["accuracy", "was", "NTP", "was", "KL"].map(|title| right(title.into())));
    header.push(Text::raw("change"));
    let header = Row::new(header).style(theme.heading());
    let rows = names.iter().enumerate().map(|(index, name)| {
        let label = Text::from(Line::styled(
            format!("{} {name}", theme.marker(index)),
            theme.series(index),
        ));
        let last = arm.evaluations.last();
        let Some((last, score)) = last.and_then(|e| Some((e, e.score(name)?))) else {
            return Row::new(vec![label, Text::raw("·")]);
        };
        let start = arm.start(phases, name, last).and_then(|e| e.score(name));
        let (role, word) = match score.role {
            Role::Old => ("old", "forgot"),
            Role::New => ("new", "learned"),
            Role::Future => ("future", ""),
        };
        let change = [Metric::Accuracy, Metric::Ntp]
            .into_iter()
            .find_map(|metric| {
                let change = figures::change(arm, phases, last, name, metric)?;
                Some(format!("{word} {}", figure(metric, Some(change))))
            })
            .unwrap_or_default();
        let now = |metric: Metric| right(figure(metric, metric.of(score)));
        let was = |metric: Metric| right(figure(metric, start.and_then(|s| metric.of(s))));
        Row::new(vec![
            label,
            Text::raw(role),
            now(Metric::Accuracy),
            was(Metric::Accuracy),
            now(Metric::Ntp),
            was(Metric::Ntp),
            now(Metric::Kl),
            Text::raw(change),
        ])
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(14),
    ];
    Table::new(rows, widths).header(header).column_spacing(1)
}

/// Why the arm failed, live progress, cost and plugin metrics, as lines.
fn facts<'a>(arm: &ArmState, theme: Theme, width: usize) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    if let ArmStatus::Failed(reason) | ArmStatus::Skipped(reason) = &arm.status {
        let reason = wrap(reason, width);
        lines.extend(
            reason
                .into_iter()
                .map(|line| Line::styled(line, theme.bad())),
        );
    }
    if let Some(progress) = arm.progress.filter(|_| arm.status == ArmStatus::Running) {
        let replay = progress.replay.map_or("none".into(), nats);
        let text = format!(
            "step {}  loss {}  replay loss {replay}  gradient {}  {} tokens/s",
            arm.step,
            nats(progress.ntp),
            nats(progress.grad_norm),
            count(progress.tokens_per_second.max(0.0) as u64),
        );
        lines.push(Line::raw(clip(&text, width)));
    }
    if let Some(cost) = arm.evaluations.last().map(|e| e.cost) {
        let text = format!(
            "tokens {} trained, {} generated; time {} new, {} replay, {} generation, {} evaluation",
            count(cost.tokens_trained),
            count(cost.tokens_generated),
            seconds(cost.seconds_new),
            seconds(cost.seconds_replay),
            seconds(cost.seconds_generate),
            seconds(cost.seconds_eval),
        );
        lines.extend(wrap(&text, width).into_iter().map(Line::raw));
    }
    let mut latest: Vec<(&str, f64)> = Vec::new();
    for (_, name, value) in &arm.plugin_metrics {
        match latest.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = *value,
            None => latest.push((name, *value)),
        }
    }
    if !latest.is_empty() {
        let metrics: Vec<String> = latest
            .iter()
            .map(|(name, value)| format!("{name} {}", nats(*value)))
            .collect();
        let text = format!("plugin: {}", metrics.join("  "));
        lines.extend(wrap(&text, width).into_iter().map(Line::raw));
    }
    lines
}

fn draw_log(live: &Live, frame: &mut Frame, area: Rect, theme: Theme) {
    let lines = live.log_lines(theme, Some(live.arm));
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

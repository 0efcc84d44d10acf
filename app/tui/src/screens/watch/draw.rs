//! Drawing of the watch screen: headline, panes, table, and the line below it.

use forgetlab_study::run::RunStatus;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::theme::Theme;
use crate::track::Axis;
use crate::view::Pane;
use crate::widgets::names::distinct;
use crate::widgets::names::without_time;
use crate::widgets::plot::short;
use crate::widgets::text::{clip, count, percent, plural, seconds};
use crate::widgets::verdict;

use super::table::{ArmRow, ArmTable, WITH_SPREAD};
use super::{Watch, Watched};

impl Watch {
    /// Draws the runs.
    pub fn draw(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let places = self.places(area);
        let rows = self.rows();
        frame.render_widget(
            self.headline(theme, usize::from(area.width)),
            places.headline,
        );
        if let Some(alert) = self.attention(self.now) {
            let style = if alert.bad { theme.bad() } else { theme.warn() };
            let width = usize::from(area.width);
            let mut lines = alert.lines(area.width);
            let room = usize::from(places.attention.height).max(1);
            let rest = lines.split_off(room.min(lines.len())).join(" ");
            if let Some(last) = lines.last_mut().filter(|_| !rest.is_empty()) {
                *last = clip(&format!("{last} {rest}"), width);
            }
            for (row, line) in places.attention.rows().zip(lines) {
                frame.render_widget(Line::styled(line, style), row);
            }
        }
        if self.arms.groups().is_empty() {
            let text = match self.first() {
                None => "nothing is being watched: 1 lists the runs there are, 3 composes one",
                Some(run) => match (&run.problem, run.status) {
                    (Some(_), _) => "",
                    (None, None) => "reading the run…",
                    (None, Some(RunStatus::Live)) => "waiting for the worker's first event…",
                    (None, Some(_)) => "nothing was recorded in this run",
                },
            };
            let (_, middle) = places.panes.first().copied().unwrap_or_default();
            frame.render_widget(Line::styled(text, theme.dim()).centered(), middle);
            return;
        }
        for &(pane, rect) in &places.panes {
            self.draw_pane(pane, &rows, frame, rect, theme);
        }
        frame.render_widget(
            self.answer(&rows, theme, usize::from(places.answer.width)),
            places.answer,
        );
        let at = rows
            .iter()
            .position(|row| row.group.index == self.arm)
            .unwrap_or(0);
        if rows.is_empty() && places.table.height > 0 {
            let text = Line::styled(self.why_no_arm(), theme.warn());
            frame.render_widget(text, places.table);
            return;
        }
        self.table(rows, at, theme, area.width)
            .draw(frame, places.table);
    }

    /// The table of arms, with the cursor on a row, for so many columns.
    pub(super) fn table<'a>(
        &'a self,
        rows: Vec<ArmRow<'a>>,
        cursor: usize,
        theme: Theme,
        width: u16,
    ) -> ArmTable<'a> {
        let several = rows.iter().any(|row| row.group.members.len() > 1);
        ArmTable {
            theme,
            rows,
            sort: self.sort(),
            metric: self.metric(),
            baseline: self.baseline(),
            cursor,
            focused: self.focus.is_none(),
            spread: several && width >= WITH_SPREAD,
        }
    }

    /// Why no arm is shown.
    fn why_no_arm(&self) -> String {
        match &self.filter_problem {
            Some(problem) => format!("the filter cannot be read: {problem}"),
            None => "no arm passes the filter; Esc takes it away, A shows hidden ones".to_owned(),
        }
    }

    fn draw_pane(&self, pane: Pane, rows: &[ArmRow], frame: &mut Frame, area: Rect, theme: Theme) {
        match pane {
            Pane::Retention | Pane::Curves | Pane::Losses | Pane::Panels if rows.is_empty() => {
                let (title, body) = under_title(area);
                let words = [pane.name().to_owned()];
                let title_line = self.pane_title(theme, pane, &words, title.width);
                frame.render_widget(title_line, title);
                frame.render_widget(Line::styled(self.why_no_arm(), theme.warn()), body);
            }
            Pane::Retention => self.draw_retention(rows, frame, area, theme),
            Pane::Curves => self.draw_curves(rows, frame, area, theme),
            Pane::Losses => self.draw_losses(rows, frame, area, theme),
            Pane::Replay => self.draw_replay(frame, area, theme),
            Pane::Samples => self.draw_samples(frame, area, theme),
            Pane::Matrix => self.draw_matrix(frame, area, theme),
            Pane::Log => self.draw_log(frame, area, theme),
            Pane::Panels => self.draw_panels(rows, frame, area, theme),
            Pane::Arm => self.draw_arm(frame, area, theme),
        }
    }

    /// The title of a pane: its name, what belongs to it, a rule to its end.
    pub(super) fn pane_title(
        &self,
        theme: Theme,
        pane: Pane,
        words: &[String],
        width: u16,
    ) -> Line<'static> {
        let focused = self.focus == Some(pane);
        let style = match focused {
            true => theme.heading().patch(theme.selected()),
            false => theme.heading(),
        };
        let (first, others) = words
            .split_first()
            .map_or(("", &[][..]), |(first, others)| (first.as_str(), others));
        let mut spans = vec![
            Span::styled("─ ", theme.dim()),
            Span::styled(clip(first, usize::from(width).saturating_sub(4)), style),
            Span::raw(" "),
        ];
        let mut used = 3 + first.width().min(usize::from(width));
        for word in others.iter().filter(|word| !word.is_empty()) {
            let text = format!("─ {word} ");
            if used + text.width() > usize::from(width) {
                break;
            }
            used += text.width();
            spans.push(Span::styled(text, theme.dim()));
        }
        let rule = "─".repeat(usize::from(width).saturating_sub(used));
        spans.push(Span::styled(rule, theme.dim()));
        Line::from(spans)
    }

    fn headline(&self, theme: Theme, width: usize) -> Line<'static> {
        match &self.runs[..] {
            [] => Line::default(),
            [run] => run.headline(theme, self.sweep.is_some(), width),
            several => {
                let live = several.iter().filter(|run| run.is_live()).count();
                let names: Vec<&str> = several.iter().map(|run| run.name.as_str()).collect();
                let text = format!(
                    "{}, {live} live: {}",
                    plural(several.len(), "run"),
                    names.join(", ")
                );
                Line::styled(clip(&text, width), theme.heading())
            }
        }
    }

    /// What every arm has at the cursor, or the verdict on the arm under the table's cursor.
    fn answer(&self, rows: &[ArmRow], theme: Theme, width: usize) -> Line<'static> {
        let Some(at) = self.cursor else {
            let row = rows.iter().find(|row| row.group.index == self.arm);
            return row.map_or_else(Line::default, |row| {
                verdict::line(theme, &row.seeds, row.judgement, width)
            });
        };
        let (shown, axis, runs) = (self.shown(), self.axis(), self.states());
        let place = crate::widgets::plot::written(axis, at);
        let unit = if axis == Axis::Seconds {
            ""
        } else {
            axis.name()
        };
        let at_place = format!("{place} {unit}");
        let lead = format!("┃ {} at {}: ", shown.name(&self.arms), at_place.trim_end());
        let labels: Vec<&str> = rows.iter().map(|row| row.group.label.as_str()).collect();
        // Names as long as they can all be: each has a marker, a value and gaps beside it.
        let room = width.saturating_sub(lead.width());
        let needed = |most: &usize| {
            labels
                .iter()
                .map(|name| name.width().min(*most) + 10)
                .sum::<usize>()
        };
        let most = (8..=60).rev().find(|most| needed(most) <= room);
        // Where names have no room, the markers tell, which the table has beside its names.
        let names = match most {
            Some(most) => distinct(&labels, most),
            None => vec![String::new(); labels.len()],
        };
        let mut spans = vec![Span::styled(lead, theme.dim())];
        for (row, name) in rows.iter().zip(names) {
            let value = match (shown.value_at(row.group, &runs, axis, at), shown.is_share()) {
                (None, _) => "·".to_owned(),
                (Some(value), true) => percent(value),
                (Some(value), false) => short(value, false),
            };
            let style = theme.series(row.group.index);
            let marker = theme.marker(row.group.index);
            let lead = format!("{marker} {name}");
            spans.push(Span::styled(format!("{} ", lead.trim_end()), style));
            spans.push(Span::raw(format!("{value}  ")));
        }
        fitting(spans, width)
    }
}

impl Watched {
    /// Name, status, progress, time left, speed.
    fn headline(&self, theme: Theme, of_sweep: bool, width: usize) -> Line<'static> {
        let state = &self.state;
        let status = match self.status {
            None => Span::styled("…", theme.dim()),
            Some(RunStatus::Live) => Span::styled("LIVE", theme.good().patch(theme.heading())),
            Some(RunStatus::Finished) => Span::styled("finished", theme.heading()),
            Some(status) => Span::styled(status.word(), theme.bad()),
        };
        let mut facts = Vec::new();
        let (done, total) = state.steps_done();
        let live = self.is_live();
        if total > 0 && live {
            facts.push(bar(done as f64 / total as f64));
        }
        if let Some((start, last)) = state.times {
            facts.push(match (self.time_left(), live) {
                (Some(left), true) => format!("{} left", seconds(left)),
                _ => seconds(last - start),
            });
        }
        let mut seeds: Vec<u64> = state.arms.iter().map(|arm| arm.info.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        if seeds.len() > 1 {
            facts.push(plural(seeds.len(), "seed"));
        }
        if live {
            let rate = |rate: f64, word: &str| format!("{} tok/s {word}", count(rate as u64));
            let (training, generation) = self.speeds();
            facts.extend(training.map(|speed| rate(speed, "trained")));
            facts.extend(generation.map(|speed| rate(speed, "generated")));
        }
        facts.push(state.device.clone());
        let facts = facts.join(" · ");
        let room = width.saturating_sub(status.width() + 4);
        // Of a point its own name tells more than that of its sweep, which all points share.
        let (run, sweep) = match (of_sweep, self.name.split_once('/')) {
            (true, Some((sweep, point))) => (point, format!(" of {sweep}")),
            _ => (self.name.as_str(), String::new()),
        };
        let room_of_name = room.saturating_sub(facts.width().min(28));
        let titled = self
            .title
            .as_ref()
            .map(|title| format!("{title} ({})", without_time(run)));
        let run = titled.as_deref().unwrap_or(run);
        let name = match titled.is_some() || run.width() + sweep.width() <= room_of_name {
            true => format!("{run}{sweep}"),
            // The end of a name tells more than the time it begins with.
            false => format!("{}{sweep}", without_time(run)),
        };
        let name = clip(&name, room_of_name);
        let facts = clip(&facts, room.saturating_sub(name.width()));
        Line::from(vec![
            Span::styled(name, theme.heading()),
            Span::raw("  "),
            status,
            Span::raw("  "),
            Span::raw(facts),
        ])
    }
}

/// As many spans as fit, and a mark where there are more.
fn fitting(spans: Vec<Span<'static>>, width: usize) -> Line<'static> {
    if spans.iter().map(Span::width).sum::<usize>() <= width + 2 {
        return Line::from(spans);
    }
    let mut used = 1;
    let fits = |span: &Span| {
        used += span.width();
        used <= width
    };
    let mut fitting: Vec<Span> = spans.into_iter().take_while(fits).collect();
    fitting.push(Span::raw("…"));
    Line::from(fitting)
}

/// A share as a bar of ten columns and in per cent.
fn bar(share: f64) -> String {
    let full = (share * 10.0).floor().clamp(0.0, 10.0) as usize;
    format!(
        "{}{} {:.0}%",
        "█".repeat(full),
        "·".repeat(10 - full),
        (100.0 * share).floor()
    )
}

/// Lines of a text in an area below a title, from one on.
pub(super) fn draw_lines(lines: &[(String, Style)], first: usize, frame: &mut Frame, area: Rect) {
    for (row, (text, style)) in area.rows().zip(lines.iter().skip(first)) {
        frame.render_widget(Line::styled(text.as_str(), *style), row);
    }
}

/// The first row of an area, and the rest.
pub(super) fn under_title(area: Rect) -> (Rect, Rect) {
    let title = Rect {
        height: area.height.min(1),
        ..area
    };
    let rest = Rect {
        y: area.y + title.height,
        height: area.height - title.height,
        ..area
    };
    (title, rest)
}

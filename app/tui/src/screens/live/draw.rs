//! Drawing of the watched run: headline, panels, legend, table.

use forgetlab_study::run::{ArmState, ArmStatus, Evaluation, Role, RunStatus};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::arms::Group;
use crate::figures::Metric;
use crate::theme::Theme;
use crate::widgets::arm_table::{ArmRow, ArmTable};
use crate::widgets::chart::{Chart, Range, Series};
use crate::widgets::grid::Grid;
use crate::widgets::names::distinct;
use crate::widgets::text::{clip, plural, seconds};
use crate::widgets::verdict;

use super::Live;

impl Live {
    /// Draws all arms.
    pub fn draw(&self, frame: &mut Frame, area: Rect, theme: Theme, now: f64) {
        let [head, attention, panels, legend, table, below] = self.parts(area);
        frame.render_widget(self.headline(theme, now, usize::from(head.width)), head);
        if let Some((text, bad)) = self.attention() {
            let style = if bad { theme.bad() } else { theme.warn() };
            let text = clip(&format!("! {text}"), usize::from(attention.width));
            frame.render_widget(Line::styled(text, style), attention);
        }
        if self.arms.groups().is_empty() {
            let text = match (&self.problem, self.status) {
                (Some(_), _) => "",
                (None, None) => "reading the run…",
                (None, Some(RunStatus::Live)) => "waiting for the worker's first event…",
                (None, Some(_)) => "nothing was recorded in this run",
            };
            frame.render_widget(Line::styled(text, theme.dim()).centered(), panels);
            return;
        }
        self.draw_panels(frame, panels, theme);
        let page = self.page(panels).unwrap_or_default();
        let room = usize::from(legend.width).saturating_sub(page.len());
        frame.render_widget(self.legend(theme, room), legend);
        frame.render_widget(Line::styled(page, theme.dim()).right_aligned(), legend);
        if let Some(group) = self.group() {
            let (seeds, judgement) = (self.seeds(group), self.arms.judgement(group));
            let line = verdict::line(theme, &seeds, judgement, usize::from(below.width));
            frame.render_widget(line, below);
        }
        let order = self.order();
        let rows = order.iter().map(|&index| {
            let group = &self.arms.groups()[index];
            ArmRow {
                lead: (index + 1).to_string(),
                group,
                seeds: self.seeds(group),
                judgement: self.arms.judgement(group),
            }
        });
        let names = self.state.datasets();
        ArmTable {
            theme,
            lead: ("#", 2),
            rows: rows.collect(),
            sort: self.sort,
            metric: self.metric,
            datasets: names.into_iter().map(str::to_owned).collect(),
            cursor: order.iter().position(|index| *index == self.arm),
        }
        .draw(frame, table);
    }

    fn headline(&self, theme: Theme, now: f64, width: usize) -> Line<'_> {
        let state = &self.state;
        let status = match self.status {
            None => Span::styled("…", theme.dim()),
            Some(RunStatus::Live) => Span::styled("LIVE", theme.good().patch(theme.heading())),
            Some(RunStatus::Finished) => Span::styled("finished", theme.heading()),
            Some(status) => Span::styled(status.word(), theme.bad()),
        };
        let mut facts = Vec::new();
        let (done, total) = state.steps_done();
        if total > 0 && self.is_live() {
            facts.push(format!("{}%", 100 * done / total));
        }
        if let Some((start, last)) = state.times {
            let end = if self.is_live() { now.max(last) } else { last };
            facts.push(seconds(end - start));
        }
        facts.push(state.device.clone());
        let facts = facts.join(" · ");
        let room = width.saturating_sub(status.width() + 4);
        // Of a point its own name tells more than that of its sweep, which all points share.
        let (run, sweep) = match (&self.sweep, self.run.split_once('/')) {
            (Some(_), Some((sweep, point))) => (point, format!(" of {sweep}")),
            _ => (self.run.as_str(), String::new()),
        };
        let name = clip(
            &format!("{run}{sweep}"),
            room.saturating_sub(facts.chars().count().min(24)),
        );
        let facts = clip(&facts, room.saturating_sub(name.chars().count()));
        Line::from(vec![
            Span::styled(name, theme.heading()),
            Span::raw("  "),
            status,
            Span::raw("  "),
            Span::raw(facts),
        ])
    }

    /// The legend: the metric, and marker and name of every dataset.
    pub fn legend(&self, theme: Theme, width: usize) -> Line<'_> {
        let metric = match self.metric {
            Metric::Accuracy => "accuracy:",
            Metric::Ntp => "NTP, nats:",
            Metric::Kl => "KL, nats:",
            Metric::Error => "error:",
        };
        let mut spans = vec![Span::styled(metric, theme.dim())];
        let names = self.state.datasets();
        let room = width.saturating_sub(metric.len()) / names.len().max(1);
        for (index, name) in names.iter().enumerate() {
            let name = clip(name, room.saturating_sub(3));
            let style = theme.series(index);
            spans.push(Span::styled(
                format!(" {} {name}", theme.marker(index)),
                style,
            ));
        }
        Line::from(spans)
    }

    fn draw_panels(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let groups = self.arms.groups();
        let grid = Grid::fitting(groups.len(), area);
        let page = grid.cells();
        let first = self.arm / page * page;
        let shown = &groups[first..groups.len().min(first + page)];
        let range = self.range(groups.iter().map(|group| &group.mean));
        let titles = self.panel_titles(theme, first, usize::from(grid.cell(area, 0).width));
        for (slot, (group, title)) in shown.iter().zip(titles).enumerate() {
            let chart = self.chart(theme, group, title, range);
            frame.render_widget(chart, grid.cell(area, slot));
        }
    }

    /// The number of the page of panels, if there are several.
    fn page(&self, panels: Rect) -> Option<String> {
        let count = self.arms.groups().len();
        let page = Grid::fitting(count, panels).cells();
        let pages = count.div_ceil(page);
        (pages > 1).then(|| format!(" PgUp/Dn: page {} of {pages}", self.arm / page + 1))
    }

    /// Titles of the panels from arm `first` on: number, name, and as much of the verdict as fits.
    fn panel_titles(&self, theme: Theme, first: usize, width: usize) -> Vec<Line<'_>> {
        let groups = self.arms.groups();
        let words: Vec<Vec<String>> = groups.iter().map(|group| self.panel_words(group)).collect();
        let shortest = words.iter().filter_map(|forms| Some(forms.last()?.width()));
        let shortest = shortest.max().unwrap_or(0);
        let labels: Vec<&str> = groups.iter().map(|group| group.label.as_str()).collect();
        // Number and gaps.
        let room = width.saturating_sub(5);
        let names = distinct(&labels, room.saturating_sub(shortest));
        let title = |index: usize| {
            let (group, name) = (&groups[index], &names[index]);
            let fits = |form: &&String| name.width() + form.width() <= room;
            let form = words[index].iter().find(fits).or(words[index].last());
            let style = if index == self.arm {
                theme.heading().patch(theme.selected())
            } else {
                theme.heading()
            };
            let words_style = match &group.mean.status {
                ArmStatus::Failed(_) => theme.bad(),
                ArmStatus::Skipped(_) => theme.warn(),
                _ => verdict::style(theme, self.arms.judgement(group)),
            };
            Line::from(vec![
                Span::styled(format!("{:>2} {name}", index + 1), style),
                Span::raw("  "),
                Span::styled(form.cloned().unwrap_or_default(), words_style),
            ])
        };
        (first..groups.len()).map(title).collect()
    }

    /// The verdict in a panel's title, from all that belongs to it to the word alone.
    fn panel_words(&self, group: &Group) -> Vec<String> {
        match &group.mean.status {
            ArmStatus::Failed(_) => return vec!["FAILED".to_owned()],
            ArmStatus::Skipped(_) => return vec!["skipped".to_owned()],
            _ => {}
        }
        let (seeds, judgement) = (self.seeds(group), self.arms.judgement(group));
        let long = verdict::long(&seeds, judgement);
        let count = judgement.and_then(|judgement| Some(judgement.by.as_ref()?.seeds));
        let with_seeds = count.map(|count| format!("{long} {}", plural(count, "seed")));
        let word = verdict::word(&seeds, judgement).to_owned();
        let shorter = [long, verdict::short(&seeds, judgement), word];
        with_seeds.into_iter().chain(shorter).collect()
    }

    /// The curves of one arm.
    pub fn chart<'a>(
        &'a self,
        theme: Theme,
        group: &'a Group,
        title: Line<'a>,
        range: Range,
    ) -> Chart<'a> {
        let arm = &group.mean;
        let names = self.state.datasets();
        let series = names.iter().enumerate().map(|(index, name)| Series {
            index,
            points: self.points(arm, name),
        });
        let mut end = 0;
        let mut phases = Vec::new();
        let steps = self.state.phase_steps_of(arm);
        for (phase, steps) in self.state.phases.iter().zip(steps) {
            end += steps;
            phases.push((phase.dataset.as_str(), end));
        }
        let note = match &arm.status {
            ArmStatus::Failed(reason) => Some(reason.as_str()),
            ArmStatus::Skipped(reason) => Some(reason.as_str()),
            _ if arm.evaluations.is_empty() => Some("not evaluated yet"),
            _ => None,
        };
        let last = arm.evaluations.last().map_or(1, |e| e.step);
        Chart {
            theme,
            title,
            series: series.collect(),
            // One scale for all arms, also where one has more steps.
            steps: self.state.total_steps().max(last),
            range,
            percent: self.metric == Metric::Accuracy,
            phases,
            note,
        }
    }

    fn points(&self, arm: &ArmState, dataset: &str) -> Vec<(u64, Option<f64>)> {
        // Questions are not asked at every evaluation: their curve joins those at which they are.
        let point = |evaluation: &Evaluation| {
            let score = evaluation.score(dataset)?;
            let shown = Some(score).filter(|s| self.future || s.role != Role::Future);
            Some((evaluation.step, shown.and_then(|s| self.metric.of(s))))
        };
        arm.evaluations.iter().filter_map(point).collect()
    }

    /// Range of the value axis that these arms share.
    pub fn range<'a>(&self, arms: impl Iterator<Item = &'a ArmState>) -> Range {
        if self.metric == Metric::Accuracy {
            return Range {
                low: 0.0,
                high: 1.0,
            };
        }
        let scores = arms
            .flat_map(|arm| &arm.evaluations)
            .flat_map(|e| &e.scores);
        let shown = scores.filter(|s| self.future || s.role != Role::Future);
        let highest = shown.filter_map(|s| self.metric.of(s)).fold(0.0, f64::max);
        Range {
            low: 0.0,
            high: if highest > 0.0 { highest } else { 1.0 },
        }
    }
}

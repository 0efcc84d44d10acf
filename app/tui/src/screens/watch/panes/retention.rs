//! What was kept of old data against what was learned of new data, a way an arm, from the start of the phase.

use forgetlab_study::run::Evaluation;
use ratatui::Frame;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

use crate::arms::{Group, Of, line_of};
use crate::figures::{Metric, mean_over};
use crate::theme::Theme;
use crate::track::Axis;
use crate::view::Pane;
use crate::widgets::plot::{Trajectories, Trajectory, short};
use crate::widgets::text::percent;

use super::super::Watch;
use super::super::table::ArmRow;

/// Places of a way that are drawn where there are more than twice as many.
const PLACES: usize = 256;

impl Watch {
    /// Phases with old data, of the arm that is furthest.
    pub(crate) fn phases_with_old(&self) -> usize {
        let metric = self.first_metric();
        let reached = self.arms.groups().iter().map(|group| {
            let phases = group.mean.phase + 1;
            (0..phases)
                .filter(|&phase| !group.kept(phase, metric).is_empty())
                .count()
        });
        reached.max().unwrap_or(0)
    }

    /// The phase that is shown: the last one with old data, or one before it.
    fn shown_phase(&self) -> Option<usize> {
        let metric = self.metric().of_change();
        let groups = self.arms.groups().iter();
        let phases = groups.map(|group| group.mean.phase).max().unwrap_or(0);
        let any_old = |phase: &usize| {
            let mut groups = self.arms.groups().iter();
            groups.any(|group| !group.kept(*phase, metric).is_empty())
        };
        (0..=phases).rev().filter(any_old).nth(self.phases_back)
    }

    pub(in super::super) fn draw_retention(
        &self,
        rows: &[ArmRow],
        frame: &mut Frame,
        area: Rect,
        theme: Theme,
    ) {
        let metric = self.metric().of_change();
        let phase = self.shown_phase();
        let new = phase.and_then(|phase| {
            let run = self.first()?;
            Some(run.state.phases.get(phase)?.dataset.as_str())
        });
        let ways: Vec<Trajectory> = match phase {
            // Later ways are drawn over earlier ones: the best one last.
            Some(phase) => rows
                .iter()
                .rev()
                .filter_map(|row| self.way(row, phase, metric))
                .collect(),
            None => Vec::new(),
        };
        let unit = match metric {
            Metric::Accuracy => "% right",
            Metric::Error => "error, less is up",
            _ => "nats, less is up",
        };
        let learned = match new {
            Some(new) => format!("learned: {new}, {}", unit.replace("up", "right")),
            None => String::new(),
        };
        let moved = ways.iter().any(|way| way.points.len() > 1);
        let note = match (phase, moved) {
            (None, _) => Some(
                "no old data yet: what is kept is shown from the first phase on that follows another",
            ),
            (Some(_), false) => Some("not evaluated in this phase yet"),
            _ => None,
        };
        let up = format!("up: kept of old data, {unit}");
        let words = "kept against learned".to_owned();
        let title = match usize::from(area.width) < words.width() + up.width() + 6 {
            true => [words, unit.to_owned()],
            false => [words, up],
        };
        frame.render_widget(
            Trajectories {
                theme,
                title: self.pane_title(theme, Pane::Retention, &title, area.width),
                below: learned,
                ways,
                percent: metric == Metric::Accuracy,
                turned: metric.less_is_better(),
                note,
            },
            area,
        );
    }

    /// The way of an arm through a phase, from the last evaluation before it on.
    fn way(&self, row: &ArmRow, phase: usize, metric: Metric) -> Option<Trajectory> {
        let group = row.group;
        let run = row.seeds.seeds.first()?.0;
        let new = run.phases.get(phase)?.dataset.clone();
        let mean = &group.mean.evaluations;
        let kept = group.kept(phase, metric);
        if kept.is_empty() {
            return None;
        }
        let of = |e: &Evaluation| {
            let learned = mean_over(e, std::slice::from_ref(&new), metric)?;
            Some((learned, mean_over(e, kept, metric)?))
        };
        let from = mean.partition_point(|e| e.phase < phase);
        let to = mean.partition_point(|e| e.phase <= phase);
        let start = from.checked_sub(1).and_then(|before| of(&mean[before]));
        let steps = |index: Option<usize>| index.and_then(|at| mean.get(at)).map(|e| e.step as f64);
        let after = steps(from.checked_sub(1)).unwrap_or(-1.0);
        let end = steps(to.checked_sub(1))?;
        let mut points: Vec<(f64, f64)> = start.into_iter().collect();
        points.extend(self.tracked(group, metric, after, end));
        let &(_, last) = points.last()?;
        let half = group.figures(metric).kept.map(|kept| kept.1);
        let half = half.filter(|half| half.is_finite() && to == mean.len());
        let shown = match metric {
            Metric::Accuracy => percent(last),
            _ => short(last, false),
        };
        let half = half.map_or(String::new(), |half| match metric {
            Metric::Accuracy => format!(" ±{}", percent(half).trim_end_matches('%')),
            _ => format!(" ±{}", short(half, false)),
        });
        Some(Trajectory {
            index: group.index,
            label: format!("{} {shown}{half}", group.label),
            points,
        })
    }

    /// Places of an arm after one step and up to another: learned, kept.
    fn tracked(&self, group: &Group, metric: Metric, after: f64, end: f64) -> Vec<(f64, f64)> {
        let line = |of| group.track.points(line_of(of, metric), Axis::Steps);
        let inside = |x: f64| x > after && x <= end;
        let mut kept = line(Of::Old).filter(|point| inside(point.x)).peekable();
        let mut points = Vec::new();
        for learned in line(Of::New).filter(|point| inside(point.x)) {
            while kept.next_if(|point| point.x < learned.x).is_some() {}
            if let Some(kept) = kept.next_if(|point| point.x == learned.x) {
                points.push((learned.mean, kept.mean));
            }
        }
        fewer(points)
    }
}

/// Of many places the means of neighbours, and the last one as it is.
fn fewer(places: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let Some((&last, before)) = places.split_last().filter(|_| places.len() > 2 * PLACES) else {
        return places;
    };
    let mean = |some: &[(f64, f64)]| {
        let sum = some
            .iter()
            .fold((0.0, 0.0), |sum, place| (sum.0 + place.0, sum.1 + place.1));
        (sum.0 / some.len() as f64, sum.1 / some.len() as f64)
    };
    let means = before.chunks(before.len().div_ceil(PLACES)).map(mean);
    means.chain([last]).collect()
}

//! Task against task: the score of every dataset after each phase, of the arm under the cursor.

use forgetlab_study::run::Role;
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Table};

use crate::theme::Theme;
use crate::view::Pane;
use crate::widgets::text::clip;

use super::super::Watch;
use super::super::draw::under_title;
use super::super::table::figure;

/// Columns of a score.
const SCORE: u16 = 7;

impl Watch {
    pub(in super::super) fn draw_matrix(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let (title, body) = under_title(area);
        let group = self.group();
        let label = group.map_or(String::new(), |group| group.label.clone());
        let words = [format!("{} after each phase", self.metric().word()), label];
        frame.render_widget(
            self.pane_title(theme, Pane::Matrix, &words, title.width),
            title,
        );
        let (Some(group), Some(run)) = (group, self.first()) else {
            return;
        };
        let (metric, mean) = (self.metric(), &group.mean);
        let room = usize::from(body.width.saturating_sub(12) / (SCORE + 1));
        let datasets: Vec<&String> = self.arms.datasets.iter().take(room).collect();
        let header = datasets
            .iter()
            .map(|name| Cell::from(Text::raw(clip(name, SCORE.into())).right_aligned()));
        let header =
            Row::new([Cell::from("after")].into_iter().chain(header)).style(theme.heading());
        // The start, then the last evaluation of each phase.
        let start = mean.evaluations.first().map(|e| ("start".to_owned(), e));
        let phases = run
            .state
            .phases
            .iter()
            .enumerate()
            .filter_map(|(index, phase)| {
                let last = mean
                    .evaluations
                    .iter()
                    .rfind(|e| e.phase == index && e.step > 0)?;
                let going = index == mean.phase && !mean.status.is_over();
                let name = if going {
                    format!("{} …", phase.dataset)
                } else {
                    phase.dataset.clone()
                };
                Some((name, last))
            });
        let rows = start.into_iter().chain(phases).map(|(name, e)| {
            let scores = datasets.iter().map(|dataset| {
                let score = e.score(dataset);
                let text = figure(metric, score.and_then(|score| metric.of(score)));
                let style = match score.map(|score| score.role) {
                    Some(Role::New) => theme.heading(),
                    Some(Role::Future) => theme.dim(),
                    _ => Style::new(),
                };
                Cell::from(Text::styled(text, style).right_aligned())
            });
            Row::new([Cell::from(clip(&name, 11))].into_iter().chain(scores))
        });
        let widths = std::iter::once(Constraint::Length(11))
            .chain(datasets.iter().map(|_| Constraint::Length(SCORE)));
        let table = Table::new(rows, widths).header(header).column_spacing(1);
        frame.render_widget(table, body);
        let used = run.state.phases.len() as u16 + 2;
        if body.height > used {
            let text = "bold: trained in that phase; faint: still to come";
            let row = Rect {
                y: body.y + used,
                height: 1,
                ..body
            };
            frame.render_widget(
                Line::styled(clip(text, body.width.into()), theme.dim()),
                row,
            );
        }
    }
}

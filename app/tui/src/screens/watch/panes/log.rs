//! The log of the runs, the newest lines last.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::theme::Theme;
use crate::view::Pane;
use crate::widgets::text::wrap;

use super::super::Watch;
use super::super::draw::{draw_lines, under_title};

impl Watch {
    /// The lines of all logs, newest first.
    fn log(&self, theme: Theme) -> impl Iterator<Item = (String, Style)> {
        let several = self.runs.len() > 1;
        self.runs.iter().rev().flat_map(move |run| {
            let lines = run.log_lines(theme, self.now);
            lines.map(move |(line, style)| match several {
                true => (format!("{}: {line}", run.name), style),
                false => (line, style),
            })
        })
    }

    /// How many lines there are.
    pub(in super::super) fn log_length(&self) -> usize {
        let lines = self
            .runs
            .iter()
            .map(|run| run.state.log.len() + run.alerts(self.now).len());
        lines.sum()
    }

    pub(in super::super) fn draw_log(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let (title, body) = under_title(area);
        let focused = self.focus == Some(Pane::Log);
        let back = if focused { self.scroll } else { 0 };
        let mut words = vec!["log".to_owned()];
        if back > 0 {
            words.push(format!("{back} newer lines below"));
        }
        frame.render_widget(
            self.pane_title(theme, Pane::Log, &words, title.width),
            title,
        );
        let height = usize::from(body.height);
        let mut shown: Vec<(String, Style)> = Vec::new();
        for (text, style) in self.log(theme).skip(back) {
            if shown.len() >= height {
                break;
            }
            let lines = wrap(&text, usize::from(body.width)).into_iter().rev();
            shown.extend(lines.map(|line| (line, style)));
        }
        if shown.is_empty() {
            shown.push(("nothing was logged".to_owned(), theme.dim()));
        }
        shown.truncate(height);
        shown.reverse();
        draw_lines(&shown, 0, frame, body);
    }
}

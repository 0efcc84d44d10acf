//! The log of the runs, the newest lines last.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::theme::Theme;
use crate::view::Pane;
use crate::widgets::text::wrap;

use super::super::Watch;
use super::super::draw::{draw_lines, under_title};

/// Lines of the log that are wrapped and kept in sight, at most.
const LATEST: usize = 2000;

impl Watch {
    /// The latest lines of all logs, oldest first.
    pub(in super::super) fn log(&self, theme: Theme) -> Vec<(String, Style)> {
        let several = self.runs.len() > 1;
        let of_run = self.runs.iter().flat_map(|run| {
            let lines = run.log_lines(theme, self.now).into_iter();
            lines.map(move |(line, style)| match several {
                true => (format!("{}: {line}", run.name), style),
                false => (line, style),
            })
        });
        let mut lines: Vec<(String, Style)> = of_run.collect();
        lines.drain(..lines.len().saturating_sub(LATEST));
        lines
    }

    pub(in super::super) fn draw_log(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let (title, body) = under_title(area);
        let focused = self.focus == Some(Pane::Log);
        let back = if focused { self.scroll } else { 0 };
        let lines = self.log(theme);
        let mut words = vec!["log".to_owned()];
        if back > 0 {
            words.push(format!("{back} newer lines below"));
        }
        frame.render_widget(
            self.pane_title(theme, Pane::Log, &words, title.width),
            title,
        );
        let end = lines.len().saturating_sub(back);
        let wrapped = lines[..end].iter().flat_map(|(text, style)| {
            let lines = wrap(text, usize::from(body.width));
            lines.into_iter().map(|line| (line, *style))
        });
        let wrapped: Vec<(String, Style)> = wrapped.collect();
        if wrapped.is_empty() {
            let nothing = [("nothing was logged".to_owned(), theme.dim())];
            return draw_lines(&nothing, 0, frame, body);
        }
        let first = wrapped.len().saturating_sub(usize::from(body.height));
        draw_lines(&wrapped, first, frame, body);
    }
}

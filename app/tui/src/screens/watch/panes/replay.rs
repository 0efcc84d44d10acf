//! What the arm under the cursor replays: the texts of a batch, how likely and how varied they are. The cursor on the
//! curves chooses the batch.

use forgetlab_study::run::{ArmState, ReplayLook};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::event::Command;
use crate::theme::Theme;
use crate::view::Pane;
use crate::widgets::text::{nats, percent, plural, wrap};

use super::super::draw::{draw_lines, under_title};
use super::super::{LookAt, Watch};

impl Watch {
    /// The batch that is shown, and where it is from: the last one before the cursor, or the latest.
    fn look(&self) -> Option<(LookAt, &ArmState, &ReplayLook)> {
        let group = self.group()?;
        // Of an arm over its seeds, what the first one replays.
        let &(run, arm) = group.members.first()?;
        let state = self.runs.get(run)?.state.arms.get(arm)?;
        let step = self.cursor.and(self.cursor_step).map(|step| step as u64);
        let until = step.unwrap_or(u64::MAX);
        let after = state.replay.partition_point(|look| look.step <= until);
        let look = state.replay.get(after.max(1) - 1)?;
        Some(((run, arm, look.step), state, look))
    }

    /// Asks for the texts of the batch that is shown, where they are not known.
    pub fn wanted_look(&self) -> Option<Command> {
        let ((run, arm, step), _, look) = self.look()?;
        if !look.rows.is_empty() || self.looks.contains_key(&(run, arm, step)) {
            return None;
        }
        Some(Command::Look(self.runs[run].name.clone(), arm, step))
    }

    fn replay_lines(&self, theme: Theme, width: usize) -> Vec<(String, Style)> {
        let Some((at, state, look)) = self.look() else {
            let plain = self
                .group()
                .filter(|group| group.mean.info.objective.is_empty());
            let text = match plain {
                Some(group) => format!("{} replays nothing", group.label),
                None => "nothing was replayed yet".to_owned(),
            };
            return vec![(text, theme.dim())];
        };
        let quality = look.quality;
        let share = quality.duplicate_rows as f64 / quality.rows.max(1) as f64;
        let distinct: Vec<String> = (1..)
            .zip(quality.distinct)
            .map(|(n, share)| format!("{n}-grams {}", percent(share)))
            .collect();
        let nll = match look.nll {
            Some(nll) => format!(", {} nats a token under the reference", nats(nll)),
            None => String::new(),
        };
        let known = self.looks.get(&at);
        let rows = match known {
            Some(Ok(read)) if look.rows.is_empty() => &read.rows,
            _ => &look.rows,
        };
        let mut lines: Vec<(String, Style)> = Vec::new();
        let mut add = |text: &str, style: Style| {
            lines.extend(wrap(text, width).into_iter().map(|line| (line, style)));
        };
        let figures = format!(
            "first {} of {}, duplicates {}; distinct {}{nll}; batch {} of {}",
            rows.len(),
            plural(quality.rows, "row"),
            percent(share),
            distinct.join(", "),
            state
                .replay
                .partition_point(|other| other.step <= look.step),
            state.replay.len(),
        );
        add(&figures, theme.dim());
        for (row, text) in (1..).zip(rows) {
            add(&format!("{row}│ {text}"), Style::new());
        }
        if rows.is_empty() {
            let why = match known {
                Some(Err(problem)) => problem.as_str(),
                Some(Ok(_)) => "its texts were not kept",
                None => "reading its texts…",
            };
            add(why, theme.warn());
        }
        lines
    }

    pub(in super::super) fn draw_replay(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let (title, body) = under_title(area);
        let mut words = vec!["replay".to_owned()];
        if let (Some(group), Some((_, _, look))) = (self.group(), self.look()) {
            words = vec![
                format!("replay of {}", group.label),
                format!("at step {}", look.step),
            ];
        }
        frame.render_widget(
            self.pane_title(theme, Pane::Replay, &words, title.width),
            title,
        );
        let lines = self.replay_lines(theme, usize::from(body.width));
        let most = lines.len().saturating_sub(usize::from(body.height));
        let first = if self.focus == Some(Pane::Replay) {
            self.scroll.min(most)
        } else {
            0
        };
        draw_lines(&lines, first, frame, body);
    }
}

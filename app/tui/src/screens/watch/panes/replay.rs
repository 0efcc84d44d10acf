//! What the arm under the cursor replays: the texts of a batch, which of it is trained on and how,
//! where it is from, how likely and how varied it is. The cursor on the
//! curves chooses the batch.

use forgetlab_study::experiment::Objective;
use forgetlab_study::run::{ArmState, ReplayLook, RowLook};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::theme::{Colours, Theme};
use crate::view::Pane;
use crate::widgets::text::{nats, percent, plural, wrap, wrap_marked};

use super::super::draw::under_title;
use super::super::{LookAt, Watch};

impl Watch {
    /// The batch that is shown, and where it is from: the last one before the cursor, or the latest.
    fn look(&self) -> Option<(LookAt, &ArmState, &ReplayLook)> {
        let group = self.group()?;
        // Of an arm over its seeds, what the first one replays.
        let &(run, arm) = group.members.first()?;
        let state = self.runs.get(run)?.state.arms.get(arm)?;
        let until = self.step_at_cursor().unwrap_or(u64::MAX);
        let after = state.replay.partition_point(|look| look.step <= until);
        let look = state.replay.get(after.max(1) - 1)?;
        Some(((run, arm, look.step), state, look))
    }

    /// The batch that is shown, where its texts are not known.
    pub(in super::super) fn wanted_look(&self) -> Option<LookAt> {
        let (at, _, look) = self.look()?;
        (look.rows.is_empty() && !self.looks.contains_key(&at)).then_some(at)
    }

    fn replay_lines(&self, theme: Theme, width: usize) -> Vec<Line<'static>> {
        let Some((at, state, look)) = self.look() else {
            let plain = self
                .group()
                .filter(|group| group.mean.info.objective.is_empty());
            let text = match plain {
                Some(group) => format!("{} replays nothing", group.label),
                None => "nothing was replayed yet".to_owned(),
            };
            return vec![Line::styled(text, theme.dim())];
        };
        let known = self.looks.get(&at);
        let read = match known {
            Some(Ok(read)) if look.rows.is_empty() => read,
            _ => look,
        };
        let batches = state
            .replay
            .partition_point(|other| other.step <= look.step);
        let figures = format!(
            "first {} of {}; batch {batches} of {}",
            read.rows.len(),
            batch(look),
            state.replay.len()
        );
        let wrapped = wrap(&figures, width).into_iter();
        let mut lines: Vec<Line> = wrapped
            .map(|line| Line::styled(line, theme.dim()))
            .collect();
        for (index, text) in read.rows.iter().enumerate() {
            let about = read.about.get(index);
            let lead = about.map(lead).unwrap_or_default();
            let lead = format!("{}│ {lead}", index + 1);
            let wrapped = wrap(&lead, width).into_iter();
            lines.extend(wrapped.map(|line| Line::styled(line, theme.dim())));
            let masked = about.map_or(&[][..], |about| &about.masked);
            lines.extend(marked(text, masked, theme, width));
        }
        if read.rows.is_empty() {
            let why = match known {
                Some(Err(problem)) => problem.as_str(),
                Some(Ok(_)) => "its texts were not kept",
                None => "reading its texts…",
            };
            let wrapped = wrap(why, width).into_iter();
            lines.extend(wrapped.map(|line| Line::styled(line, theme.warn())));
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
        self.draw_texts(Pane::Replay, &lines, frame, body);
    }

    /// Draws the lines of a pane of texts, scrolled where it has the focus.
    pub(super) fn draw_texts(&self, pane: Pane, lines: &[Line], frame: &mut Frame, body: Rect) {
        let most = lines.len().saturating_sub(usize::from(body.height));
        let first = match self.focus == Some(pane) {
            true => self.scroll.min(most),
            false => 0,
        };
        for (row, line) in body.rows().zip(&lines[first..]) {
            frame.render_widget(line, row);
        }
    }
}

/// How varied and how likely a batch is.
pub(super) fn batch(look: &ReplayLook) -> String {
    let quality = look.quality;
    let share = quality.duplicate_rows as f64 / quality.rows.max(1) as f64;
    let distinct: Vec<String> = (1..)
        .zip(quality.distinct)
        .map(|(n, share)| format!("{n}-grams {}", percent(share)))
        .collect();
    let mut text = format!(
        "{}, duplicates {}; distinct {}",
        plural(quality.rows, "row"),
        percent(share),
        distinct.join(", "),
    );
    if let Some(nll) = look.nll {
        text += &format!(", {} nats a token under the reference", nats(nll));
    }
    if let Some(nll) = look.nll_student {
        text += &format!(", {} under the student", nats(nll));
    }
    if let Some(scored) = look.scored {
        text += &format!("; {} of the tokens trained on", percent(scored));
    }
    text
}

/// What is known of a row: its objective, where it is from, how likely it is, its copies.
fn lead(about: &RowLook) -> String {
    let mut facts: Vec<String> = Vec::new();
    let objective = about.objective.map(|objective| match objective {
        Objective::Kl => "kl",
        Objective::Ntp => "ntp",
        Objective::KlNew => "kl-new",
        Objective::Replace => "replace",
    });
    facts.extend(objective.map(str::to_owned));
    facts.extend(match (about.generated, &about.dataset) {
        (Some(true), Some(dataset)) => Some(format!("written, like {dataset}")),
        (Some(true), None) => Some("written".into()),
        (None, Some(dataset)) => Some(format!("like {dataset}")),
        (Some(false), Some(dataset)) => Some(dataset.clone()),
        (_, None) => None,
    });
    if let Some(nll) = about.nll {
        facts.push(format!("reference {}", nats(nll)));
    }
    if let Some(nll) = about.nll_student {
        facts.push(format!("student {}", nats(nll)));
    }
    if about.copies > 0 {
        facts.push(match about.copies {
            1 => "1 copy".into(),
            copies => format!("{copies} copies"),
        });
    }
    facts.join(" · ")
}

/// Lines of a text whose masked parts are faint, or in brackets where faint is not to be seen.
pub(super) fn marked(
    text: &str,
    masked: &[(usize, usize)],
    theme: Theme,
    width: usize,
) -> Vec<Line<'static>> {
    if theme.ascii || theme.colours == Colours::None {
        let text = in_brackets(text, masked);
        return wrap(&text, width).into_iter().map(Line::from).collect();
    }
    let lines = wrap_marked(text, masked, width).into_iter();
    let spans = |parts: Vec<(String, bool)>| {
        let span = |(part, is_masked)| match is_masked {
            true => Span::styled(part, theme.dim()),
            false => Span::raw(part),
        };
        Line::from_iter(parts.into_iter().map(span))
    };
    lines.map(spans).collect()
}

/// A text with brackets round some of its characters.
fn in_brackets(text: &str, parts: &[(usize, usize)]) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if parts.iter().any(|part| part.0 == at) {
            out.push('[');
        }
        out.push(c);
        if parts.iter().any(|part| part.1 == at + 1) {
            out.push(']');
        }
    }
    out
}

//! Where the panes of the watch screen are, by the size of the terminal: one, three or six beside the table.

use ratatui::layout::{Constraint, Layout, Rect};

use crate::view::{Pane, View};

/// Where everything is.
#[derive(Debug)]
pub struct Places {
    /// Name, status, progress.
    pub headline: Rect,
    /// The most important message; of no height where there is none.
    pub attention: Rect,
    /// The panes, the first one first.
    pub panes: Vec<(Pane, Rect)>,
    /// The table of arms; of no height where a pane is shown alone.
    pub table: Rect,
    /// The verdict on the arm under the cursor, or what every arm has at the cursor's step.
    pub answer: Rect,
}

/// A terminal from this size on shows three panes.
const THREE: (u16, u16) = (108, 30);
/// And from this on six.
const SIX: (u16, u16) = (190, 44);

/// How many panes are shown in an area.
pub fn pane_count(area: Rect) -> usize {
    match (area.width, area.height) {
        (width, height) if width >= SIX.0 && height >= SIX.1 => 6,
        (width, height) if width >= THREE.0 && height >= THREE.1 => 3,
        _ => 1,
    }
}

/// The panes that are shown in an area, the first one first; `focus` as in [`Places::of`].
pub fn panes_shown(area: Rect, view: &View, focus: Option<Pane>) -> Vec<Pane> {
    match view.zoomed {
        true => vec![focus.unwrap_or(view.first)],
        false => view.first.from().take(pane_count(area)).collect(),
    }
}

impl Places {
    /// The places of a view; `focus` is the pane that is shown where one is shown alone, `arms` the rows of the table, `attention` those of the
    /// most important message.
    pub fn of(area: Rect, view: &View, focus: Option<Pane>, arms: usize, attention: u16) -> Self {
        let count = pane_count(area);
        let free = area.height.saturating_sub(3 + attention);
        let most = match count {
            1 => (free / 3).max(4),
            _ => (free / 3).max(6),
        };
        let rows = (arms as u16).clamp(1, most) + 1;
        let strip = match count {
            3 => (free.saturating_sub(rows) / 4).clamp(4, 12),
            6 => (free.saturating_sub(rows) * 2 / 5).max(8),
            _ => 0,
        };
        let (rows, strip) = if view.zoomed { (0, 0) } else { (rows, strip) };
        let [headline, attention, top, table, bottom, answer] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(attention),
            Constraint::Fill(1),
            Constraint::Length(rows),
            Constraint::Length(strip),
            Constraint::Length(1),
        ])
        .areas(area);
        let shown = panes_shown(area, view, focus);
        let (upper, lower) = match shown.len() {
            1 => (1, 0),
            3 => (2, 1),
            _ => (3, 3),
        };
        let rects = beside(top, upper).into_iter().chain(beside(bottom, lower));
        let panes = shown.into_iter().zip(rects).collect();
        Self {
            headline,
            attention,
            panes,
            table,
            answer,
        }
    }
}

/// So many areas beside each other, a gap between neighbours.
fn beside(area: Rect, count: usize) -> Vec<Rect> {
    let areas = Layout::horizontal(vec![Constraint::Fill(1); count]).spacing(1);
    areas.split(area).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pane of no size would be drawn on nothing; one that is too large over its neighbour.
    #[test]
    fn panes_lie_side_by_side_in_every_terminal() {
        for (width, height) in [
            (80, 22),
            (120, 34),
            (250, 58),
            (80, 200),
            (500, 22),
            (190, 44),
        ] {
            let area = Rect::new(0, 1, width, height);
            for arms in [0, 1, 4, 40] {
                for zoomed in [false, true] {
                    let view = View {
                        zoomed,
                        ..View::default()
                    };
                    let places = Places::of(area, &view, None, arms, (arms as u16).min(2));
                    let all = places.panes.iter().map(|(_, rect)| *rect);
                    let all: Vec<Rect> = all.chain([places.table, places.answer]).collect();
                    for (at, rect) in all.iter().enumerate() {
                        assert!(area.union(*rect) == area, "{rect:?} in {area:?}");
                        let apart = |other: &Rect| other.intersection(*rect).is_empty();
                        assert!(all[at + 1..].iter().all(apart), "{places:?}");
                    }
                    let least = places.panes.iter().map(|(_, rect)| rect.height).min();
                    assert!(least >= Some(4), "{width}×{height}, {arms}: {places:?}");
                }
            }
        }
    }
}

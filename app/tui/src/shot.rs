//! Runs that are watched without a screen: their alerts and time left, and the watch screen drawn once.

use crossterm::style::{ContentStyle, StyledContent};
use forgetlab_study::run::{ReplayLook, RunState, RunStatus};
use ratatui::Terminal;
use ratatui::backend::{IntoCrossterm, TestBackend};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use unicode_width::UnicodeWidthStr;

use super::event::Command;
use super::lab::FeedUpdate;
use super::screens::watch::{Alert, Watch, Watched};
use super::theme::{Colours, Theme};
use super::view::{Pane, View};

/// A run, as far as its feed has told.
#[derive(Debug)]
pub struct Seen(Watched);

impl Seen {
    /// A run of which nothing is known yet.
    pub fn new(name: String) -> Self {
        Self(Watched {
            name,
            ..Watched::default()
        })
    }

    /// Takes what is new of it.
    pub fn take(&mut self, update: FeedUpdate) {
        let first = self.0.status.is_none();
        self.0.take(first, update);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its state.
    pub fn state(&self) -> &RunState {
        &self.0.state
    }

    /// Its status; `None` before anything was taken.
    pub fn status(&self) -> Option<RunStatus> {
        self.0.status
    }

    /// Why the worker of a crashed run ended, where that is known.
    pub fn why(&self) -> Option<&str> {
        self.0.why.as_deref()
    }

    /// Seconds that it still takes; `None` where that is not known, or nobody works on it.
    pub fn time_left(&self) -> Option<f64> {
        self.0.time_left()
    }

    /// What must be known of it at once, the most important first; `now` in seconds since the Unix epoch.
    pub fn alerts(&self, now: f64) -> Vec<Alert> {
        self.0.alerts(now)
    }
}

/// How a frame is drawn.
#[derive(Clone, Debug)]
pub struct Shot {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
    /// The pane that comes first.
    pub pane: Pane,
    /// Name of the arm under the cursor; the first one where there is none.
    pub arm: Option<String>,
    /// Whether it is to be in colours, where the environment has nothing against it.
    pub colours: bool,
    /// Whether it is to be in ASCII; so it also is where the environment says so.
    pub ascii: bool,
    /// Seconds since the Unix epoch.
    pub now: f64,
}

/// Lines of pieces, each in a style.
pub type Lines = Vec<Vec<StyledContent<String>>>;

/// Draws the watch screen of runs once, with all verdicts. `look` reads the texts of a replay batch by run, arm and
/// step. There are spaces at no line's end.
///
/// # Errors
/// Where no arm has the name of the one that is to be under the cursor.
pub fn frame(
    runs: Vec<Seen>,
    look: &mut dyn FnMut(&str, usize, u64) -> Result<ReplayLook, String>,
    shot: &Shot,
) -> anyhow::Result<Lines> {
    let mut theme = Theme::from_env();
    theme.ascii |= shot.ascii;
    if !shot.colours {
        theme.colours = Colours::None;
    }
    let mut watch = Watch::new(Vec::new());
    watch.runs = runs.into_iter().map(|seen| seen.0).collect();
    watch.now = shot.now;
    let view = View {
        first: shot.pane,
        ..View::default()
    };
    for command in watch.set_view(view) {
        if let Command::Judge(runs, question) = command {
            watch.judged(&runs, &question.members, &question.judge());
        }
    }
    if let Some(arm) = &shot.arm {
        watch.point_at(arm).map_err(|arms| {
            anyhow::anyhow!("there is no arm `{arm}`; the arms are {}", arms.join(", "))
        })?;
    }
    let area = Rect::new(0, 0, shot.width, shot.height);
    if let Some(Command::Look(run, arm, step)) = watch.wanted_texts(area) {
        let found = look(&run, arm, step);
        watch.seen(&run, arm, step, found);
    }
    let backend = TestBackend::new(shot.width, shot.height);
    let Ok(mut terminal) = Terminal::new(backend);
    let Ok(drawn) = terminal.draw(|frame| {
        watch.draw(frame, frame.area(), theme);
        theme.finish(frame.buffer_mut());
    });
    Ok(lines(drawn.buffer))
}

/// The rows of a buffer, neighbours of one style together.
fn lines(buffer: &Buffer) -> Lines {
    let width = usize::from(buffer.area.width).max(1);
    let rows = buffer.content.chunks(width);
    rows.map(|row| {
        let mut pieces: Vec<StyledContent<String>> = Vec::new();
        // A wide character takes the place of the cells behind it.
        let mut covered = 0usize;
        for cell in row {
            if covered > 0 {
                covered -= 1;
                continue;
            }
            let symbol = cell.symbol();
            covered = symbol.width().saturating_sub(1);
            let mut style = cell.style();
            // As the terminal has it, which need not be said.
            for colour in [&mut style.fg, &mut style.bg, &mut style.underline_color] {
                *colour = colour.filter(|colour| *colour != Color::Reset);
            }
            let style: ContentStyle = style.into_crossterm();
            match pieces.last_mut() {
                Some(last) if *last.style() == style => {
                    let text = format!("{}{symbol}", last.content());
                    *last = StyledContent::new(style, text);
                }
                _ => pieces.push(StyledContent::new(style, symbol.to_owned())),
            }
        }
        while let Some(last) = pieces.pop() {
            let text = last.content().trim_end().to_owned();
            if !text.is_empty() {
                pieces.push(StyledContent::new(*last.style(), text));
                break;
            }
        }
        pieces
    })
    .collect()
}

//! What the student of the arm under the cursor writes, dataset by dataset, beside what it wrote at the evaluation that
//! the dataset's score is compared with. The cursor on the curves chooses the step.

use forgetlab_study::run::{ArmState, Continuation, RunState, SampleLook};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::theme::Theme;
use crate::view::Pane;
use crate::widgets::text::wrap;

use super::super::draw::under_title;
use super::super::{LookAt, Watch};

/// What is shown of an arm.
struct Shown<'a> {
    /// Run and arm.
    member: (usize, usize),
    run: &'a RunState,
    state: &'a ArmState,
    /// What was written last before the cursor, or the latest.
    look: &'a SampleLook,
}

/// Texts that may have to be read first.
enum Texts<'a> {
    Known(&'a [Continuation]),
    Wanted(LookAt),
    Lost(&'a str),
}

impl Watch {
    fn shown_samples(&self) -> Option<Shown<'_>> {
        let group = self.group()?;
        // Of an arm over its seeds, what the first one writes.
        let &(at, arm) = group.members.first()?;
        let run = &self.runs.get(at)?.state;
        let state = run.arms.get(arm)?;
        let until = self.step_at_cursor().unwrap_or(u64::MAX);
        let after = state.samples.partition_point(|look| look.step <= until);
        Some(Shown {
            member: (at, arm),
            run,
            state,
            look: state.samples.get(after.max(1) - 1)?,
        })
    }

    fn texts<'a>(&'a self, (run, arm): (usize, usize), look: &'a SampleLook) -> Texts<'a> {
        if !look.samples.is_empty() {
            return Texts::Known(&look.samples);
        }
        let at = (run, arm, look.step);
        match self.written.get(&at) {
            Some(Ok(read)) => Texts::Known(&read.samples),
            Some(Err(problem)) => Texts::Lost(problem),
            None => Texts::Wanted(at),
        }
    }

    /// The step of what is shown, or of what it is compared with, where the texts are not known.
    pub(in super::super) fn wanted_samples(&self) -> Option<LookAt> {
        let shown = self.shown_samples()?;
        let samples = match self.texts(shown.member, shown.look) {
            Texts::Known(samples) => samples,
            Texts::Wanted(at) => return Some(at),
            Texts::Lost(_) => return None,
        };
        let then = samples.iter().filter_map(|sample| shown.then(sample));
        let mut wanted = then.filter_map(|look| match self.texts(shown.member, look) {
            Texts::Wanted(at) => Some(at),
            _ => None,
        });
        wanted.next()
    }

    fn sample_lines(&self, theme: Theme, width: usize) -> Vec<Line<'static>> {
        let told = |text: &str, style| -> Vec<Line<'static>> {
            let lines = wrap(text, width).into_iter();
            lines.map(|line| Line::styled(line, style)).collect()
        };
        let Some(shown) = self.shown_samples() else {
            let why = "nothing was written: training.samples says whether and how much the student of a run writes at \
                       evaluations";
            return told(why, theme.dim());
        };
        let samples = match self.texts(shown.member, shown.look) {
            Texts::Known(samples) => samples,
            Texts::Wanted(_) => return told("reading what it wrote…", theme.warn()),
            Texts::Lost(problem) => return told(problem, theme.warn()),
        };
        let mut lines = Vec::new();
        let mut heading = None;
        for sample in samples {
            if heading != Some(&sample.dataset) {
                let name = sample.dataset.as_deref().unwrap_or("no dataset");
                lines.extend(told(name, theme.heading()));
                heading = Some(&sample.dataset);
            }
            let then = shown.then(sample).map(|look| {
                let known = match self.texts(shown.member, look) {
                    Texts::Known(texts) => texts.iter().find(|known| {
                        (&known.dataset, &known.prompt) == (&sample.dataset, &sample.prompt)
                    }),
                    Texts::Wanted(_) | Texts::Lost(_) => None,
                };
                (look.step, known.map_or("…", |known| &known.text))
            });
            lines.extend(told(&format!("{} …", sample.prompt.trim()), theme.dim()));
            let width_of = shown.look.step.to_string().len();
            let mut add = |step: u64, text: &str, faint: bool| {
                let lead = format!("{step:>width_of$}│ ");
                let room = width.saturating_sub(lead.chars().count());
                for (i, line) in wrap(text.trim(), room).into_iter().enumerate() {
                    let lead = match i {
                        0 => lead.clone(),
                        _ => format!("{:width_of$}│ ", ""),
                    };
                    let text = match faint {
                        true => Span::styled(line, theme.dim()),
                        false => Span::raw(line),
                    };
                    lines.push(Line::from(vec![Span::styled(lead, theme.dim()), text]));
                }
            };
            match then {
                Some((step, text)) if text == sample.text => {
                    add(step, "the same", true);
                }
                Some((step, text)) => add(step, text, true),
                None => {}
            }
            add(shown.look.step, &sample.text, false);
        }
        lines
    }

    pub(in super::super) fn draw_samples(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let (title, body) = under_title(area);
        let mut words = vec!["samples".to_owned()];
        if let (Some(group), Some(shown)) = (self.group(), self.shown_samples()) {
            words = vec![
                format!("samples of {}", group.label),
                format!("at {}", shown.look.step),
            ];
        }
        frame.render_widget(
            self.pane_title(theme, Pane::Samples, &words, title.width),
            title,
        );
        let lines = self.sample_lines(theme, usize::from(body.width));
        self.draw_texts(Pane::Samples, &lines, frame, body);
    }
}

impl<'a> Shown<'a> {
    /// What was written at the evaluation that the score of a prompt's dataset is compared with, that of the new one where
    /// it has none; `None` where that is this one.
    fn then(&self, sample: &Continuation) -> Option<&'a SampleLook> {
        let Self {
            run, state, look, ..
        } = self;
        let mut evaluations = state.evaluations.iter();
        let now = evaluations.rfind(|evaluation| evaluation.step <= look.step)?;
        let new = run
            .phases
            .get(now.phase)
            .map(|phase| phase.dataset.as_str());
        let dataset = sample.dataset.as_deref().or(new)?;
        let start = state.start(&run.phases, dataset, now)?;
        let after = state
            .samples
            .partition_point(|known| known.step <= start.step);
        let then = state.samples.get(after.checked_sub(1)?)?;
        (then.step < look.step).then_some(then)
    }
}

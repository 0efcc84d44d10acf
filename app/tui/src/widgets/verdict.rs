//! A verdict in words: with its figures where there is room, and in a sentence.

use forgetlab_study::report::{ArmSeeds, Forgetting, Judgement, Metric, Verdict};
use forgetlab_study::stats::Interval;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::theme::Theme;

use super::names::distinct;
use super::text::{clip, nats, percent};

/// Style of a verdict, which its word makes clear without colour.
pub fn style(theme: Theme, judgement: Option<&Judgement>) -> Style {
    match judgement.map(|judgement| judgement.verdict) {
        None | Some(Verdict::TooEarly) => theme.dim(),
        Some(Verdict::Keeps) => theme.good(),
        Some(Verdict::Unclear) => theme.warn(),
        Some(Verdict::Forgets) => theme.bad(),
    }
}

/// The verdict's word; `…` while it is being computed, `·` where there is nothing to judge.
pub fn word(judgement: Option<&Judgement>) -> &'static str {
    judgement.map_or("…", |judgement| judgement.verdict.word())
}

/// The word, with the step of a loss on the way where that decides: `keeps`, `FORGETS@420`.
pub fn at(judgement: Option<&Judgement>) -> String {
    let word = word(judgement);
    let by = judgement.and_then(|judgement| judgement.by.as_ref());
    let worst = by.and_then(|by| by.worst).filter(|worst| worst.decides);
    worst.map_or_else(|| word.to_owned(), |worst| format!("{word}@{}", worst.step))
}

/// The word and what it rests on: `keeps 1.1%`, `FORGETS 40.2% at 320`.
pub fn short(judgement: Option<&Judgement>) -> String {
    let word = word(judgement);
    match judgement.and_then(|judgement| judgement.by.as_ref()) {
        None => word.to_owned(),
        Some(by) => match by.worst.filter(|worst| worst.decides) {
            Some(worst) => format!("{word} {} at {}", value(by, worst.loss), worst.step),
            None => format!("{word} {}", value(by, by.mean)),
        },
    }
}

/// The same with the 95 % interval: `keeps 1.1% [-1.0,3.2]`.
pub fn long(judgement: Option<&Judgement>) -> String {
    let short = short(judgement);
    let by = judgement.and_then(|judgement| judgement.by.as_ref());
    let on_the_way = by.is_some_and(|by| by.worst.is_some_and(|worst| worst.decides));
    match by.and_then(|by| Some((by, by.interval?.0))) {
        Some((by, range)) if !on_the_way => format!("{short} {}", interval(by, range)),
        _ => short,
    }
}

/// The verdict in a sentence, with the dataset that decides and what else is to be known of it.
pub fn sentence(judgement: Option<&Judgement>) -> String {
    let word = word(judgement);
    let Some(judgement) = judgement else {
        return "… the verdict is being computed".to_owned();
    };
    let Some(by) = &judgement.by else {
        return format!("{word} no old data yet");
    };
    let of = match by.metric {
        Metric::Accuracy => " accuracy",
        Metric::Ntp => " nats",
        Metric::Error => " RMSE",
    };
    if judgement.verdict == Verdict::TooEarly {
        let known = value(by, by.start);
        return format!("{word} {} was never learned ({known}{of})", by.dataset);
    }
    let mut text = format!("{word}: {} forgot {}{of}", by.dataset, value(by, by.mean));
    if let Some((range, _)) = by.interval {
        text.push_str(&format!(" {}", interval(by, range)));
    }
    for note in judgement.notes() {
        match by
            .worst
            .filter(|worst| worst.decides && note.starts_with("worst"))
        {
            Some(worst) => {
                let loss = value(by, worst.loss);
                text.push_str(&format!(", worst {loss} at step {}", worst.step));
                // Else it is not to be seen why this loss counts and another one does not.
                if let Some(floor) = worst.floor {
                    text.push_str(&format!(" (chance: {})", value(by, floor)));
                }
            }
            None => text.push_str(&format!(", {note}")),
        }
    }
    if by.seeds > 1 {
        text.push_str(&format!(", {} seeds", by.seeds));
    }
    text
}

/// The sentence behind the name of the arm, in one line.
pub fn line<'a>(
    theme: Theme,
    seeds: &ArmSeeds,
    judgement: Option<&Judgement>,
    width: usize,
) -> Line<'a> {
    let sentence = sentence(judgement);
    let room = width.saturating_sub(sentence.width() + 2);
    // The table's cursor tells the arm, too.
    let name = match seeds.name.width() {
        whole if whole <= room || room >= 20 => distinct(&[&seeds.name], room).remove(0) + "  ",
        _ => String::new(),
    };
    let sentence = clip(&sentence, width.saturating_sub(name.width()));
    Line::from(vec![
        Span::styled(name, theme.heading()),
        Span::styled(sentence, style(theme, judgement)),
    ])
}

fn value(by: &Forgetting, value: f64) -> String {
    match by.metric {
        Metric::Accuracy => percent(value),
        Metric::Ntp | Metric::Error => nats(value),
    }
}

/// An interval: of accuracy in percentage points, else in nats per token.
fn interval(by: &Forgetting, range: Interval) -> String {
    let end = |end: f64| match by.metric {
        Metric::Accuracy => percent(end).trim_end_matches('%').to_owned(),
        Metric::Ntp | Metric::Error => nats(end),
    };
    format!("[{},{}]", end(range.low), end(range.high))
}

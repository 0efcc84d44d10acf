//! The comparison table at the end of a run, for a terminal of 80 columns.

use std::fmt::Write;

use crate::run::{ArmStatus, RunState};

use super::rows::status;

/// Characters a table may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyphs {
    /// Box drawing and ellipsis.
    Unicode,
    /// Plain ASCII.
    Ascii,
}

const WIDTH: usize = 80;
/// Room kept for the names of arms when datasets are spread over blocks.
const NAME: usize = 24;

/// Compares the arms of runs: learning of the new dataset, mean forgetting over the old ones, cost, and the
/// final accuracy (or loss, where there is no exact answer) of every dataset. With more than one run, each
/// block is headed by its run's name.
pub fn table(runs: &[(&str, &RunState)], glyphs: Glyphs) -> String {
    let mut text = String::new();
    for (name, state) in runs {
        if runs.len() > 1 {
            if !text.is_empty() {
                text.push('\n');
            }
            let _ = writeln!(text, "{name} ({}, {})", state.experiment, state.preset);
        }
        one_run(state, glyphs, &mut text);
    }
    text
}

fn one_run(state: &RunState, glyphs: Glyphs, text: &mut String) {
    let names: Vec<String> = state.arms.iter().map(|arm| state.arm_label(arm)).collect();
    let costs = ["", "learned", "", "forgot", "", "tokens", "time", "status"];
    let units = ["arm", "%", "nats", "%", "nats", "", "", ""];
    let mut rows = vec![
        costs.map(str::to_owned).to_vec(),
        units.map(str::to_owned).to_vec(),
    ];
    for (arm, name) in state.arms.iter().zip(&names) {
        let last = arm.evaluations.last();
        let learned = last
            .map(|e| arm.new_learning(&state.phases, e))
            .unwrap_or_default();
        let forgot = last
            .map(|e| arm.mean_forgetting(&state.phases, e))
            .unwrap_or_default();
        let cost = arm.cost();
        rows.push(vec![
            name.clone(),
            percent(learned.accuracy),
            nats(learned.ntp),
            percent(forgot.accuracy),
            nats(forgot.ntp),
            human_count(cost.tokens_trained),
            human_seconds(cost.seconds()),
            status(state, arm).to_owned(),
        ]);
    }
    grid(&rows, 2, glyphs, text);

    let datasets = state.datasets();
    let exact = state
        .arms
        .iter()
        .filter_map(|arm| arm.evaluations.last())
        .any(|e| e.scores.iter().any(|s| s.accuracy.is_some()));
    let _ = writeln!(text);
    let title = if exact {
        "final accuracy, %"
    } else {
        "final loss, nats per token"
    };
    let mut datasets = &datasets[..];
    while !datasets.is_empty() {
        let mut width = NAME;
        let fitting = datasets
            .iter()
            .take_while(|name| {
                width += name.chars().count().max(5) + 2;
                width <= WIDTH
            })
            .count()
            .max(1);
        let (now, later) = datasets.split_at(fitting);
        datasets = later;
        let mut rows = vec![vec![title.to_owned()]];
        rows[0].extend(now.iter().map(|&name| name.to_owned()));
        for (arm, name) in state.arms.iter().zip(&names) {
            let mut row = vec![name.clone()];
            row.extend(now.iter().map(|dataset| {
                let score = arm.evaluations.last().and_then(|e| e.score(dataset));
                match score {
                    Some(score) if exact => percent(score.accuracy),
                    Some(score) => nats(score.ntp),
                    None => String::new(),
                }
            }));
            rows.push(row);
        }
        grid(&rows, 1, glyphs, text);
    }
    for arm in &state.arms {
        if let ArmStatus::Failed(reason) | ArmStatus::Skipped(reason) = &arm.status {
            let word = arm.status.word();
            let _ = writeln!(
                text,
                "{} {word} at step {}: {reason}",
                arm.info.name, arm.step
            );
        }
    }
}

/// Writes rows in columns as wide as needed, the first aligned left, the others right, two spaces apart,
/// with a rule below the first `heads` rows. The first column is cut where the line would be too long.
fn grid(rows: &[Vec<String>], heads: usize, glyphs: Glyphs, text: &mut String) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|r| r.get(column))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..columns).map(width).collect();
    let others: usize = widths.iter().skip(1).map(|width| width + 2).sum();
    if let Some(first) = widths.first_mut() {
        *first = (*first).min(WIDTH.saturating_sub(others).max(12));
    }
    for (i, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(line, "{:<width$}", shortened(cell, *width, glyphs)),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
        if i + 1 == heads {
            let rule = if glyphs == Glyphs::Ascii { "-" } else { "─" };
            let total = widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1);
            let _ = writeln!(text, "{}", rule.repeat(total));
        }
    }
}

fn shortened(text: &str, width: usize, glyphs: Glyphs) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mark = if glyphs == Glyphs::Ascii { '~' } else { '…' };
    text.chars()
        .take(width.saturating_sub(1))
        .chain([mark])
        .collect()
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(String::new, |share| fixed(share * 100.0, 1))
}

fn nats(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| fixed(value, 3))
}

/// A number with a fixed count of decimals; zero has no minus sign.
fn fixed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let zero = text.starts_with('-') && text.chars().all(|c| "-0.".contains(c));
    if zero { text[1..].to_owned() } else { text }
}

/// A count with at most three digits and a unit: `950`, `1.2k`, `58M`.
pub fn human_count(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["", "k", "M", "G", "T"] {
        if value < 999.5 || unit == "T" {
            let digits = usize::from(!unit.is_empty() && value < 9.95);
            return format!("{value:.digits$}{unit}");
        }
        value /= 1000.0;
    }
    count.to_string()
}

/// Seconds as `0.4s`, `42s`, `3m12s` or `2h05m`.
pub fn human_seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{seconds:.1}s"),
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;

    /// The last thing a run says, on the smallest terminal.
    #[test]
    fn the_table_is_readable_and_fits() {
        let mut state = fixture::state();
        let written = table(&[("a", &state)], Glyphs::Ascii);
        let expected = [
            "                    learned         forgot         tokens  time    status",
            "arm                       %   nats       %   nats",
            "-------------------------------------------------------------------------",
            "none                   95.0  1.700    90.0  2.500     40k   10s  finished",
            "bos-prompted:kl:10     90.0  1.650     2.0  0.000     60k   23s  finished",
            "",
            "final accuracy, %   reversal  sort",
            "----------------------------------",
            "none                    10.0  95.0",
            "bos-prompted:kl:10      98.0  90.0",
            "",
        ]
        .join("\n");
        assert_eq!(written, expected, "\n{written}");

        state.arms[0].info.name = "a-strategy-with-a-very-long-name:kl:10".into();
        state.arms[0].info.seed = 7;
        state.arms[0].status = ArmStatus::Failed("loss is not a number".into());
        state.arms[1].status = ArmStatus::Running;
        state.interrupted = Some("SIGINT".into());
        state.phases.extend((0..12).map(|i| crate::run::PhaseInfo {
            dataset: format!("dataset-{i}"),
            steps: 1,
        }));
        for glyphs in [Glyphs::Ascii, Glyphs::Unicode] {
            let text = table(&[("a", &state), ("b", &state)], glyphs);
            assert!(text.lines().all(|l| l.chars().count() <= WIDTH), "{text}");
            assert!(glyphs == Glyphs::Unicode || text.is_ascii(), "{text}");
            assert!(
                text.contains("failed at step 40: loss is not a number"),
                "{text}"
            );
            assert!(
                text.contains("interrupted") && text.contains("#7"),
                "{text}"
            );
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [950, 1234, 99_999, 1_500_000, 58_000_000].map(human_count),
            ["950", "1.2k", "100k", "1.5M", "58M"]
        );
        assert_eq!(
            [0.44, 42.0, 192.0, 7500.0].map(human_seconds),
            ["0.4s", "42s", "3m12s", "2h05m"]
        );
    }
}

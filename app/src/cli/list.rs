//! `forgetlab list`.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;

use forgetlab_study::printed::{one_line, path_in_line};
use forgetlab_study::report::{Format, Glyphs};
use forgetlab_study::run::{
    Found, Results, RunFound, RunStatus, RunSummary, SweepDir, readable_utc,
};
use toml::Value;

use super::differing::{Settings, differing};
use super::sweep;
use super::{Usage, exit, out, unless_gone};
use crate::last_words;

/// Arguments of `list`.
#[derive(clap::Args)]
pub struct Args {
    /// Sweep: list its points
    sweep: Option<String>,
}

/// Columns before what differs.
const HEADER: [&str; 7] = [
    "run", "status", "preset", "arms", "seeds", "done", "started",
];
/// Columns of a line where nobody says how many there are.
const WIDTH: usize = 80;
/// What differs stands so far in where it needs a line of its own, and why a run crashed.
const INDENT: usize = 4;

/// Prints a line a run, and one more where what tells it from others is long. The exit code tells whether all
/// of them could be read.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let results = Results::from_env();
    if let Some(name) = &args.sweep {
        return points(&results, name);
    }
    let (runs, sweeps) = (results.list()?, results.sweeps()?);
    let mut out = out::stdout();
    if runs.is_empty() && sweeps.is_empty() {
        let runs = results.runs();
        let runs = path_in_line(&runs);
        writeln!(
            out,
            "no runs under {runs}; start one with `forgetlab run toy-continual`"
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let readable = runs.iter().filter_map(|run| run.found.as_ref().ok());
    let settings: Vec<Settings> = readable
        .map(|found| Settings {
            config: &found.settings,
            arms: found
                .state
                .arms
                .iter()
                .map(|arm| arm.info.name.as_str())
                .collect(),
        })
        .collect();
    let mut differences = differing(&settings).into_iter();
    let mut lines: Vec<Line> = runs
        .iter()
        .map(|run| match &run.found {
            Ok(found) => {
                let differs = differences.next().unwrap_or_default();
                Line::Run(Box::new(RunLine {
                    start: run.start(),
                    cells: cells(&run.name, found),
                    differs: one_line(&differs.join(", ")).into_owned(),
                    why: why_crashed(run, found),
                }))
            }
            Err(error) => {
                let why = error.to_string().replace('\n', " ");
                let line = format!("{}  unreadable: {why}", run.name);
                Line::Unreadable(one_line(&line).into_owned())
            }
        })
        .collect();
    lines.extend(sweeps.iter().map(sweep_line));
    lines.sort_by_cached_key(|line| line.start());
    let all_read = !lines.iter().any(|line| matches!(line, Line::Unreadable(_)));
    unless_gone(out.write_all(table(&lines, columns()).as_bytes()))?;
    Ok(match all_read {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit::FAILED),
    })
}

enum Line {
    Run(Box<RunLine>),
    Unreadable(String),
}

impl Line {
    /// When it began, else its name, which mostly begins with that.
    fn start(&self) -> String {
        match self {
            Self::Run(run) => run.start.clone(),
            Self::Unreadable(line) => line.clone(),
        }
    }
}

/// Prints the points of a sweep.
fn points(results: &Results, name: &str) -> anyhow::Result<ExitCode> {
    let sweep = match results.find_any(name)? {
        Found::Sweep(sweep) => sweep,
        Found::Run(dir) => {
            return Err(Usage(format!("{} is a run, not a sweep", dir.name())).into());
        }
    };
    let statuses = sweep.statuses()?;
    let table = sweep::table(&sweep, &statuses).write(Format::Text(super::glyphs()));
    unless_gone(out::stdout().write_all(table.as_bytes()))?;
    Ok(ExitCode::SUCCESS)
}

/// A sweep as one thing: how many of its points are finished stands in the place of what differs.
fn sweep_line(sweep: &SweepDir) -> Line {
    let name = one_line(&sweep.name()).into_owned();
    let read = || -> anyhow::Result<RunLine> {
        let (spec, statuses) = (sweep.spec()?, sweep.statuses()?);
        let counts = sweep.counts(&statuses)?;
        let first = spec.points.first().map(|point| sweep.config(&point.name));
        let config = first.transpose()?;
        let seeds: BTreeSet<u64> = config
            .iter()
            .flat_map(|c| c.seeds.iter().copied())
            .collect();
        let arms = config.map_or(0, |config| config.arms.len());
        Ok(RunLine {
            start: name.clone(),
            cells: [
                name.clone(),
                counts.status().word().to_owned(),
                one_line(&spec.preset).into_owned(),
                arms.to_string(),
                ranges(&seeds),
                format!("{}%", sweep::percent_done(sweep, &statuses)),
                String::new(),
            ],
            differs: format!("sweep: {} of {} points", counts.finished, counts.all),
            why: String::new(),
        })
    };
    match read() {
        Ok(line) => Line::Run(Box::new(line)),
        Err(error) => {
            let why = error.to_string().replace('\n', " ");
            Line::Unreadable(one_line(&format!("{name}  unreadable: {why}")).into_owned())
        }
    }
}

/// What is told of a run.
struct RunLine {
    /// When it began, in words that sort as time does.
    start: String,
    cells: [String; 7],
    /// What tells it from others.
    differs: String,
    /// Why its worker ended before the run did, where that is known.
    why: String,
}

fn why_crashed(run: &RunSummary, found: &RunFound) -> String {
    let crashed = found.status == RunStatus::Crashed;
    let why = crashed.then(|| last_words::why(&run.dir, &found.state));
    one_line(&why.flatten().unwrap_or_default()).into_owned()
}

/// Columns of the terminal.
fn columns() -> usize {
    match out::is_terminal() {
        true => crossterm::terminal::size().map_or(WIDTH, |(columns, _)| columns.into()),
        false => WIDTH,
    }
}

fn cells(name: &str, found: &RunFound) -> [String; 7] {
    let state = &found.state;
    let setting = |key: &str| found.settings.get(key);
    let given = setting("seeds").and_then(Value::as_array);
    let given = given.into_iter().flatten();
    let mut seeds: BTreeSet<u64> = state.arms.iter().map(|arm| arm.info.seed).collect();
    if seeds.is_empty() {
        seeds.extend(given.filter_map(|seed| u64::try_from(seed.as_integer()?).ok()));
    }
    let arms = match state.arms.len() {
        0 => setting("arms")
            .and_then(Value::as_array)
            .map_or(0, Vec::len),
        arms => arms / seeds.len().max(1),
    };
    let preset = setting("preset").and_then(Value::as_str);
    let started = state.times.map_or_else(String::new, |(start, _)| {
        readable_utc(start.max(0.0) as u64)[..16].to_owned()
    });
    [
        one_line(name).into_owned(),
        found.status.word().to_owned(),
        one_line(preset.unwrap_or_default()).into_owned(),
        arms.to_string(),
        ranges(&seeds),
        format!("{}%", sweep::percent(state)),
        started,
    ]
}

/// Numbers in few characters: `0-4,7`.
fn ranges(numbers: &BTreeSet<u64>) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &n in numbers {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == n => *end = n,
            _ => ranges.push((n, n)),
        }
    }
    let text = |(from, to): &(u64, u64)| match to - from {
        0 => from.to_string(),
        1 => format!("{from},{to}"),
        _ => format!("{from}-{to}"),
    };
    let texts: Vec<String> = ranges.iter().map(text).collect();
    texts.join(",")
}

/// Ways to write a start, and the space between columns, from the widest to the narrowest.
const STYLES: [(&str, usize); 4] = [
    ("2026-11-23 13:05", 2),
    ("11-23 13:05", 2),
    ("11-23 13:05", 1),
    ("11-23", 1),
];

/// All lines, in the widest style that fits; where none does, in the narrowest, for a run's name is never cut.
fn table(lines: &[Line], width: usize) -> String {
    let mut widths = HEADER.map(|name| name.chars().count());
    for line in lines {
        if let Line::Run(run) = line {
            for (width, cell) in widths.iter_mut().zip(&run.cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
    }
    let mut style = STYLES[0];
    for fitting in STYLES {
        style = fitting;
        widths[6] = style.0.len().max(HEADER[6].len());
        if widths.iter().sum::<usize>() + 6 * style.1 <= width {
            break;
        }
    }
    let row = |cells: [&str; 7]| {
        let gap = " ".repeat(style.1);
        let cells = cells.iter().zip(widths).enumerate();
        let cells = cells.map(|(i, (cell, width))| match i {
            3 | 5 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        let cells: Vec<String> = cells.collect();
        cells.join(&gap)
    };
    let mut text = row(HEADER).trim_end().to_owned() + "\n";
    for line in lines {
        let RunLine {
            cells,
            differs,
            why,
            start: _,
        } = match line {
            Line::Unreadable(line) => {
                text += &format!("{line}\n");
                continue;
            }
            Line::Run(run) => &**run,
        };
        let mut cells = cells.each_ref().map(String::as_str);
        cells[6] = shortened(cells[6], style.0);
        let mut line = row(cells);
        let beside = line.chars().count() + style.1 + differs.chars().count() <= width;
        if !differs.is_empty() && beside {
            line += &format!("{}{differs}", " ".repeat(style.1));
        }
        text += line.trim_end();
        text.push('\n');
        if !differs.is_empty() && !beside {
            let differs = cut(differs, width.saturating_sub(INDENT));
            text += &format!("{}{differs}\n", " ".repeat(INDENT));
        }
        if !why.is_empty() {
            let why = shown(why, width.saturating_sub(INDENT));
            text += &format!("{}{why}\n", " ".repeat(INDENT));
        }
    }
    text
}

/// A start as a style writes it.
fn shortened<'a>(started: &'a str, style: &str) -> &'a str {
    let from = if style.len() == 16 { 0 } else { 5 };
    started.get(from..from + style.len()).unwrap_or(started)
}

/// A list that ends with how many more there are where it is too long.
fn cut(list: &str, width: usize) -> String {
    if list.chars().count() <= width {
        return list.to_owned();
    }
    let all: Vec<&str> = list.split(", ").collect();
    let texts = (1..all.len()).rev().map(|kept| {
        let more = all.len() - kept;
        format!("{}, {more} more", all[..kept].join(", "))
    });
    let mut texts = texts.filter(|text| text.chars().count() <= width);
    texts.next().unwrap_or_else(|| list.to_owned())
}

/// The beginning of a sentence that is too long.
fn shown(sentence: &str, width: usize) -> String {
    if sentence.chars().count() <= width {
        return sentence.to_owned();
    }
    let mark = match super::glyphs() {
        Glyphs::Unicode => "…",
        Glyphs::Ascii => "...",
    };
    let kept = width.saturating_sub(mark.chars().count());
    sentence.chars().take(kept).chain(mark.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, status: &str, differs: &str) -> Line {
        let cells = [name, status, "cpu", "4", "0-4", "100%", "2026-11-23 13:05"];
        Line::Run(Box::new(RunLine {
            start: name.to_owned(),
            cells: cells.map(str::to_owned),
            differs: differs.to_owned(),
            why: String::new(),
        }))
    }

    /// A list that wraps cannot be read, and half a name cannot be resumed.
    #[test]
    fn the_list_fits_80_columns_and_names_are_whole() {
        let name = "20261123T130507Z-toy-continual-ab12";
        let long =
            "lr=1e-4, steps=400, batch_size=128, eval_every=100, warmup_steps=10, n_layers=4";
        let lines = [
            line(name, "finished", "lr=1e-4"),
            line(name, "interrupted", long),
        ];
        let text = table(&lines, 80);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert_eq!(text.matches(name).count(), 2, "{text}");
        assert!(
            text.contains("\n    lr=1e-4\n") && text.contains(", 1 more\n"),
            "{text}"
        );
        let wide = table(&lines, 120);
        assert!(wide.contains("2026-11-23 13:05  lr=1e-4\n"), "{wide}");
        let narrow = table(&lines, 20);
        assert_eq!(narrow.matches(name).count(), 2, "{narrow}");
    }

    /// Five seeds are told in the width of one.
    #[test]
    fn seeds_are_told_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 3, 4, 7].into()), "0-4,7");
        assert_eq!(ranges(&[3, 4].into()), "3,4");
        assert_eq!(ranges(&[].into()), "");
    }
}

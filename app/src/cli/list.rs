//! `forgetlab list`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use forgetlab_study::filter::{Filter, FilterError};
use forgetlab_study::printed::{one_line, path_in_line};
use forgetlab_study::report::{Digest, Format, Glyphs};
use forgetlab_study::run::{
    Found, Labels, Results, RunError, RunFound, RunStatus, RunSummary, SweepDir, readable_utc,
};
use serde_json::json;
use toml::Value;

use super::differing::{Settings, differing};
use super::filtered::{Asked, Told, quick};
use super::sweep;
use super::{Usage, exit, out, queue, unless_gone, warn};
use crate::last_words;

/// Arguments of `list`.
#[derive(clap::Args)]
pub struct Args {
    /// Sweep: list its points
    sweep: Option<String>,
    /// Only runs and sweeps that pass, e.g. 'toy forgot>10% -tag:old' (results/README.md has the language)
    #[arg(long, value_name = "EXPR", value_parser = parse_filter, conflicts_with = "sweep")]
    filter: Option<Filter>,
    /// One JSON object a line instead of text
    #[arg(long)]
    json: bool,
}

/// The status of what waits in line.
const QUEUED: &str = "queued";
/// Columns before what differs.
const HEADER: [&str; 7] = [
    "run", "status", "preset", "arms", "seeds", "done", "started",
];
/// Columns of a line where nobody says how many there are.
const WIDTH: usize = 80;
/// What differs stands so far in where it needs a line of its own, and why a run crashed.
const INDENT: usize = 4;
/// Columns of a display name.
const LONGEST_NAME: usize = 40;

fn parse_filter(text: &str) -> Result<Filter, FilterError> {
    Filter::parse(text)
}

/// Prints a line a run, and one more where what tells it from others is long. The exit code tells whether all
/// of them could be read.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let results = Results::from_env();
    if let Some(name) = &args.sweep {
        return points(&results, name, args.json);
    }
    let (runs, sweeps) = (results.list()?, results.sweeps()?);
    let mut out = out::stdout();
    let there = runs.len() + sweeps.len();
    if there == 0 && !args.json {
        let runs = results.runs();
        let runs = path_in_line(&runs);
        writeln!(
            out,
            "no runs under {runs}; start one with `forgetlab run toy-continual`"
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let asked = args.filter.map(Asked::new);
    let (mut lines, all_read) = lines(runs, &sweeps, asked.as_ref(), args.json);
    lines.sort_by_cached_key(|line| line.start());
    let told = match args.json {
        true => lines.iter().try_for_each(|line| out.json(&line.json())),
        false if lines.is_empty() => writeln!(out, "none of {there} runs and sweeps passes"),
        false => out.write_all(table(&lines, columns()).as_bytes()),
    };
    unless_gone(told)?;
    Ok(match all_read {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit::FAILED),
    })
}

/// A line for each run and sweep that passes, and whether all could be read. What cannot be is told in a line of its
/// own; where there is a filter, on standard error.
fn lines(
    runs: Vec<RunSummary>,
    sweeps: &[SweepDir],
    asked: Option<&Asked>,
    json: bool,
) -> (Vec<Line>, bool) {
    let of_runs = runs.iter().map(|run| match &run.found {
        Ok(found) => run_line(run, found, json),
        Err(error) => Line::unreadable(&run.name, error),
    });
    let passes = |run: &RunSummary, line: &Line| match (asked, &run.found, line) {
        (Some(asked), Ok(found), Line::Run(line)) => {
            let live = found.status == RunStatus::Live;
            asked.run(&line.told(), &run.dir, live, found)
        }
        _ => true,
    };
    let mut kept: Vec<(&RunSummary, Line)> = runs.iter().zip(of_runs).collect();
    kept.retain(|(run, line)| passes(run, line));
    let readable = kept.iter().filter_map(|(run, _)| run.found.as_ref().ok());
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
    for (_, line) in &mut kept {
        if let Line::Run(line) = line {
            line.differs = differences.next().unwrap_or_default();
        }
    }
    let mut lines: Vec<Line> = kept.into_iter().map(|(_, line)| line).collect();
    for sweep in sweeps {
        let line = sweep_line(sweep);
        let passes = match (asked, &line) {
            (Some(asked), Line::Run(line)) => asked.sweep(&line.told(), sweep),
            _ => Ok(true),
        };
        match passes {
            Ok(true) => lines.push(line),
            Ok(false) => {}
            Err(error) => lines.push(Line::unreadable(&sweep.name(), error)),
        }
    }
    let unreadable = |line: &Line| matches!(line, Line::Unreadable { .. });
    let all_read = !lines.iter().any(unreadable);
    if asked.is_some() {
        for line in &lines {
            if let Line::Unreadable { name, why } = line {
                warn(format_args!("{name} is unreadable and left out: {why}"));
            }
        }
        lines.retain(|line| !unreadable(line));
    }
    (lines, all_read)
}

enum Line {
    Run(Box<RunLine>),
    Unreadable { name: String, why: String },
}

impl Line {
    fn unreadable(name: &str, why: impl ToString) -> Self {
        Self::Unreadable {
            name: name.to_owned(),
            why: why.to_string().replace('\n', " "),
        }
    }

    /// When it began, else its name, which mostly begins with that.
    fn start(&self) -> String {
        match self {
            Self::Run(run) => run.start.clone(),
            Self::Unreadable { name, .. } => name.clone(),
        }
    }

    /// The same for scripts; `points` is of sweeps alone, `why` of what went wrong.
    fn json(&self) -> serde_json::Value {
        match self {
            Self::Run(run) => {
                let facts = &run.facts;
                let mut json = json!({
                    "name": facts.name,
                    "status": facts.queued.map_or(facts.status.word(), |_| QUEUED),
                    "preset": facts.preset,
                    "arms": facts.arms,
                    "seeds": facts.seeds,
                    "percent": facts.percent,
                    "started": facts.started,
                    "differs": run.differs,
                    "display_name": run.labels.name,
                    "tags": run.labels.tags,
                    "note": run.labels.note,
                });
                if let Some(digest) = &run.digest {
                    json["arms_detail"] = json!(digest.arms);
                }
                if let Some((finished, all)) = facts.points {
                    json["points"] = json!({ "finished": finished, "all": all });
                }
                if let Some(place) = facts.queued {
                    json["place"] = json!(place);
                }
                if !run.why.is_empty() {
                    json["why"] = json!(run.why);
                }
                json
            }
            Self::Unreadable { name, why } => {
                json!({ "name": name, "status": "unreadable", "why": why })
            }
        }
    }
}

/// Prints the points of a sweep.
fn points(results: &Results, name: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    let sweep = match results.find_any(name)? {
        Found::Sweep(sweep) => sweep,
        Found::Run(dir) => {
            return Err(Usage(format!("{} is a run, not a sweep", dir.name())).into());
        }
    };
    let statuses = sweep.statuses()?;
    let mut out = out::stdout();
    let told = match as_json {
        true => sweep::json(&sweep, &statuses)
            .iter()
            .try_for_each(|point| out.json(point)),
        false => {
            let table = sweep::table(&sweep, &statuses).write(Format::Text(super::glyphs()));
            out.write_all(table.as_bytes())
        }
    };
    unless_gone(told)?;
    Ok(ExitCode::SUCCESS)
}

/// A sweep as one thing.
fn sweep_line(sweep: &SweepDir) -> Line {
    let name = sweep.name();
    let read = || -> anyhow::Result<RunLine> {
        let (spec, statuses) = (sweep.spec()?, sweep.statuses()?);
        let counts = sweep.counts(&statuses)?;
        let first = spec.points.first().map(|point| sweep.config(&point.name));
        let config = first.transpose()?;
        let seeds = config.iter().flat_map(|c| c.seeds.iter().copied());
        Ok(RunLine {
            start: name.clone(),
            facts: Facts {
                name: name.clone(),
                status: counts.status(),
                queued: place(sweep.path(), counts.status()),
                preset: spec.preset,
                seeds: seeds.collect(),
                arms: config.map_or(0, |config| config.arms.len()),
                percent: sweep::percent_done(sweep, &statuses),
                started: None,
                points: Some((counts.finished, counts.all)),
            },
            differs: Vec::new(),
            why: String::new(),
            labels: labels(&name, sweep.labels()),
            digest: None,
        })
    };
    match read() {
        Ok(line) => Line::Run(Box::new(line)),
        Err(error) => Line::unreadable(&name, error),
    }
}

fn run_line(run: &RunSummary, found: &RunFound, json: bool) -> Line {
    let live = found.status == RunStatus::Live;
    Line::Run(Box::new(RunLine {
        start: run.start(),
        facts: facts(run, found),
        differs: Vec::new(),
        why: why_crashed(run, found),
        labels: labels(&run.name, run.dir.labels()),
        digest: json.then(|| quick(&run.dir, live, &found.state)),
    }))
}

/// What somebody wrote to a run or a sweep; where that cannot be read it is told, and nothing.
fn labels(name: &str, read: Result<Labels, RunError>) -> Labels {
    read.unwrap_or_else(|error| {
        warn(format_args!(
            "note: {name} is shown without its labels: {error}"
        ));
        Labels::default()
    })
}

/// What is told of a run.
struct RunLine {
    /// When it began, in words that sort as time does.
    start: String,
    facts: Facts,
    /// What tells it from others.
    differs: Vec<String>,
    /// Why its worker ended before the run did, where that is known.
    why: String,
    labels: Labels,
    /// For scripts.
    digest: Option<Digest>,
}

/// What is told of every run and sweep.
struct Facts {
    name: String,
    status: RunStatus,
    /// Its place in line, where it waits for its device.
    queued: Option<usize>,
    preset: String,
    /// Arms of a seed.
    arms: usize,
    seeds: BTreeSet<u64>,
    /// Share of all steps that is done.
    percent: u64,
    /// Seconds since 1970.
    started: Option<u64>,
    /// Of a sweep, its finished points and all of them.
    points: Option<(usize, usize)>,
}

impl RunLine {
    fn cells(&self) -> [String; 7] {
        let facts = &self.facts;
        let status = match facts.queued {
            Some(place) => format!("{QUEUED} {place}"),
            None => facts.status.word().to_owned(),
        };
        let started = facts.started.map(readable_utc);
        [
            one_line(&facts.name).into_owned(),
            status,
            one_line(&facts.preset).into_owned(),
            facts.arms.to_string(),
            ranges(&facts.seeds),
            format!("{}%", facts.percent),
            started.map_or_else(String::new, |started| started[..16].to_owned()),
        ]
    }

    /// Labels, and what differs; how many points are finished stands in its place for a sweep.
    fn beside(&self) -> String {
        let labels = self.labels.in_words().into_iter();
        let mut words: Vec<String> = labels.map(|word| shown(&word, LONGEST_NAME)).collect();
        match self.facts.points {
            Some((finished, all)) => words.push(format!("sweep: {finished} of {all} points")),
            None => words.extend(self.differs.iter().cloned()),
        }
        one_line(&words.join(", ")).into_owned()
    }

    /// What a filter is told of it.
    fn told(&self) -> Told<'_> {
        Told {
            name: &self.facts.name,
            status: self.facts.status.word(),
            done: self.facts.percent as f64 / 100.0,
            labels: &self.labels,
        }
    }
}

fn why_crashed(run: &RunSummary, found: &RunFound) -> String {
    let crashed = found.status == RunStatus::Crashed;
    let why = crashed.then(|| last_words::why(&run.dir, &found.state));
    one_line(&why.flatten().unwrap_or_default()).into_owned()
}

/// The place in line of a run or sweep that somebody holds.
fn place(folder: &Path, status: RunStatus) -> Option<usize> {
    let waiting = (status == RunStatus::Live).then(|| queue::place(folder));
    waiting.flatten().map(|waiting| waiting.place)
}

/// Columns of the terminal.
fn columns() -> usize {
    match out::is_terminal() {
        true => crossterm::terminal::size().map_or(WIDTH, |(columns, _)| columns.into()),
        false => WIDTH,
    }
}

fn facts(run: &RunSummary, found: &RunFound) -> Facts {
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
    Facts {
        name: run.name.clone(),
        status: found.status,
        queued: place(run.dir.path(), found.status),
        preset: preset.unwrap_or_default().to_owned(),
        arms,
        seeds,
        percent: sweep::percent(state),
        started: state.times.map(|(start, _)| start.max(0.0) as u64),
        points: None,
    }
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
            for (width, cell) in widths.iter_mut().zip(&run.cells()) {
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
        let run = match line {
            Line::Unreadable { name, why } => {
                let line = format!("{name}  unreadable: {why}");
                text += &format!("{}\n", one_line(&line));
                continue;
            }
            Line::Run(run) => &**run,
        };
        let (cells, differs, why) = (run.cells(), run.beside(), &run.why);
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
            let differs = cut(&differs, width.saturating_sub(INDENT));
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

    fn line(name: &str, status: RunStatus, differs: &str) -> Line {
        Line::Run(Box::new(RunLine {
            start: name.to_owned(),
            facts: Facts {
                name: name.to_owned(),
                status,
                queued: None,
                preset: "cpu".into(),
                arms: 4,
                seeds: (0..5).collect(),
                percent: 100,
                started: Some(1_795_439_100),
                points: None,
            },
            differs: vec![differs.to_owned()],
            why: String::new(),
            labels: Labels::default(),
            digest: None,
        }))
    }

    /// A list that wraps cannot be read, and half a name cannot be resumed.
    #[test]
    fn the_list_fits_80_columns_and_names_are_whole() {
        let name = "20261123T130507Z-toy-continual-ab12";
        let long =
            "lr=1e-4, steps=400, batch_size=128, eval_every=100, warmup_steps=10, n_layers=4";
        let lines = [
            line(name, RunStatus::Finished, "lr=1e-4"),
            line(name, RunStatus::Interrupted, long),
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

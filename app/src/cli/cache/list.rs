//! `forgetlab cache list`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use forgetlab_engine::human_bytes;
use forgetlab_study::printed::{one_line, path_in_line};
use forgetlab_study::report::human_count;
use forgetlab_study::run::{CacheEntry, CacheKind, Results, readable_utc};

use super::super::{WhileRead, out};
use super::entries_and_bytes;
use super::users::{User, users};

/// Characters of a hash that are shown.
const SHOWN: usize = 8;
/// What more there is to tell of an entry stands so far in.
const INDENT: &str = "    ";

/// Prints every entry, the one that was used longest ago first.
pub fn run() -> anyhow::Result<ExitCode> {
    let results = Results::from_env();
    let entries = results.cache().entries()?;
    let mut out = WhileRead(out::stdout());
    if entries.is_empty() {
        writeln!(
            out,
            "the cache under {} is empty",
            path_in_line(&results.cache_folder())
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    show(&mut out, &results, &entries)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a line an entry, one more where something is wrong with it or runs here are known to use it, and the total.
pub fn show(out: &mut impl Write, results: &Results, entries: &[CacheEntry]) -> io::Result<()> {
    let users = users(results);
    let rows: Vec<[String; 4]> = entries
        .iter()
        .map(|entry| {
            let user = users.get(&entry.hash).and_then(|users| users.first());
            [
                one_line(short(&entry.hash)).into_owned(),
                one_line(&what(entry, user)).into_owned(),
                human_bytes(entry.bytes as f64),
                date(entry),
            ]
        })
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths = [0, 1, 2, 3].map(width);
    for (entry, [hash, what, bytes, used]) in entries.iter().zip(&rows) {
        let [a, b, c, _] = widths;
        writeln!(out, "{hash:<a$}  {what:<b$}  {bytes:>c$}  {used}")?;
        if let Some(damage) = &entry.damage {
            writeln!(
                out,
                "{INDENT}damaged: {}",
                one_line(&damage.replace('\n', " "))
            )?;
        }
        let used_by = users.get(&entry.hash).map(|users| in_words(users));
        if let Some(runs) = used_by {
            writeln!(out, "{INDENT}{}", one_line(&runs))?;
        }
    }
    let bytes = entries.iter().map(|entry| entry.bytes).sum();
    writeln!(out, "{}", entries_and_bytes(entries.len(), bytes))
}

fn short(hash: &str) -> &str {
    hash.get(..SHOWN)
        .filter(|_| !hash.starts_with('.'))
        .unwrap_or(hash)
}

/// What an entry is, as far as it and a run that uses it tell.
fn what(entry: &CacheEntry, user: Option<&User>) -> String {
    let (kind, mut facts) = match &entry.kind {
        CacheKind::FirstPhase {
            dataset,
            steps,
            parameters,
        } => {
            let mut facts = Vec::new();
            facts.extend(dataset.clone().or_else(|| Some(user?.dataset.clone())));
            facts.extend(steps.map(|steps| format!("{steps} steps")));
            facts.extend(user.map(|user| format!("seed {}", user.seed)));
            facts.extend(parameters.map(|n| format!("{} parameters", human_count(n))));
            ("first phase", facts)
        }
        CacheKind::Tokens {
            tokens,
            tokenizer,
            sources,
        } => {
            let mut facts = Vec::new();
            facts.extend(sources.first().map(|first| {
                let name = first.file_name().unwrap_or(first.as_os_str());
                let name = name.to_string_lossy();
                match sources.len() {
                    1 => name.into_owned(),
                    more => format!("{name} and {} more", more - 1),
                }
            }));
            facts.extend(tokens.map(|n| format!("{} tokens", human_count(n))));
            facts.extend(tokenizer.as_ref().map(|name| format!("by {name}")));
            ("text", facts)
        }
        CacheKind::Leftover => ("left by a killed process", Vec::new()),
    };
    facts.insert(0, kind.to_owned());
    facts.join(", ")
}

/// The day on which an entry was written, or used last.
fn date(entry: &CacheEntry) -> String {
    let since = entry.used.duration_since(UNIX_EPOCH);
    let seconds = since.unwrap_or(Duration::ZERO).as_secs();
    format!("used {}", &readable_utc(seconds)[..10])
}

/// The runs that use an entry: the first of them, and how many more there are.
fn in_words(users: &[User]) -> String {
    let first = users.first().map_or("", |user| &user.run);
    match users.len() {
        0 | 1 => format!("of {first}"),
        more => format!("of {first} and {} more", more - 1),
    }
}

//! The pages say what the code does: columns, commands, links.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use forgetlab_study::report;
use forgetlab_study::run::RunState;
use forgetlab_study::stats::{Bootstrap, LEVEL};
use forgetlab_tests::{Lab, Table, root};

/// Every page of the repository.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let mut folders: Vec<PathBuf> = ["app", "plugin-api", "results", "strategies", "tests"]
        .map(|folder| root().join(folder))
        .into();
    while let Some(folder) = folders.pop() {
        // What runs leave there is not ours.
        let made = ["results/runs", "results/cache"].map(|made| root().join(made));
        for entry in fs::read_dir(&folder).expect("read the folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() && !made.contains(&path) {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

#[track_caller]
fn page(relative: &str) -> String {
    fs::read_to_string(root().join(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// The part of a page under a heading, up to the next heading.
#[track_caller]
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page.find(&format!("\n{heading}\n"));
    let start = start.unwrap_or_else(|| panic!("no heading {heading:?}")) + 1 + heading.len();
    let rest = &page[start..];
    rest.find("\n#").map_or(rest, |end| &rest[..end])
}

/// What stands in backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Names in the first column of a section's tables.
fn named(section: &str) -> Vec<&str> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    let first = rows.filter_map(|row| row.split(" | ").next());
    first.flat_map(code).collect()
}

/// Else a researcher would look up a column of a CSV and not find it, or look for one that is not there.
#[test]
fn every_column_is_explained() {
    type Csv = fn(&RunState, &mut dyn Write) -> io::Result<()>;
    let csvs: [(&str, Csv); 5] = [
        ("metrics.csv", report::metrics_csv),
        ("summary.csv", report::summary_csv),
        ("plugin_metrics.csv", report::plugin_metrics_csv),
        ("replay.csv", report::replay_csv),
        ("choices.csv", report::choices_csv),
    ];
    let differences = |w: &mut dyn Write| report::differences_csv(&[], "", w);
    let verdicts = |w: &mut dyn Write| {
        let margins = report::margins(&RunState::default());
        report::verdicts_csv(&[], margins, w)
    };
    let page = page("results/README.md");
    let columns = |write: &dyn Fn(&mut dyn Write) -> io::Result<()>| {
        let mut bytes = Vec::new();
        write(&mut bytes).expect("write");
        let mut columns = Table::parse(&String::from_utf8(bytes).expect("UTF-8")).columns;
        columns.sort_unstable();
        columns
    };
    let explained = |name: &str, more: &[&str]| {
        let own = named(section(&page, &format!("### `{name}`")));
        let mut explained: Vec<String> = own
            .iter()
            .chain(more)
            .map(|name| (*name).to_owned())
            .collect();
        explained.sort_unstable();
        explained
    };
    assert_eq!(columns(&differences), explained("differences.csv", &[]));
    let of_arm = ["experiment", "arm", "strategy", "objective", "coeff", "lr"];
    assert_eq!(columns(&verdicts), explained("verdicts.csv", &of_arm));
    let identity = named(section(&page, "### Identity"));
    for (name, write) in csvs {
        let mut bytes = Vec::new();
        write(&RunState::default(), &mut bytes).expect("write");
        let csv = String::from_utf8(bytes).expect("UTF-8");
        let mut written = Table::parse(&csv).columns;
        let own = named(section(&page, &format!("### `{name}`")));
        let mut explained: Vec<&str> = identity.iter().copied().chain(own).collect();
        written.sort_unstable();
        explained.sort_unstable();
        assert_eq!(
            written, explained,
            "{name}: columns written, columns in results/README.md"
        );
    }
}

/// Else a methods section copied from the page would describe another bootstrap than the one that ran.
#[test]
fn the_bootstrap_is_as_described() {
    let Bootstrap { resamples, seed } = Bootstrap::default();
    let (thousands, rest) = (resamples / 1000, resamples % 1000);
    let page = page("results/README.md");
    // Lines may break anywhere.
    let text = section(&page, "## Statistics").split_whitespace();
    let text = text.collect::<Vec<_>>().join(" ");
    for told in [
        format!("{thousands} {rest:03} resamples, seed {seed}"),
        format!("Intervals are {} % intervals", LEVEL * 100.0),
    ] {
        assert!(text.contains(&told), "{told:?} is not under Statistics");
    }
}

/// Commands of the binary without those that are groups of others: `run`, `plugins list`, …
pub fn commands(lab: &Lab, group: &[&str]) -> BTreeSet<String> {
    let help = lab.forgetlab(&[group, &["--help"]].concat()).exits(0).out;
    let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let names = list.lines().take_while(|line| !line.is_empty());
    // A description that goes on in another line stands further to the right.
    let names = names.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let mut found = BTreeSet::new();
    for name in names.filter(|name| !name.is_empty() && *name != "help") {
        found.extend(commands(lab, &[group, &[name]].concat()));
    }
    if found.is_empty() {
        found.insert(group.join(" "));
    }
    found
}

/// Else a command would be found by nobody, or be promised and not be there.
#[test]
fn every_command_is_in_the_table() {
    let readme = page("README.md");
    let is_argument =
        |word: &&str| word.starts_with(['[', '-']) || !word.contains(char::is_lowercase);
    let rows = named(section(&readme, "## Commands")).into_iter();
    let rows = rows.map(|row| row.split(' ').take_while(|word| !is_argument(word)));
    let mut told: BTreeSet<String> = rows
        .map(|words| words.collect::<Vec<_>>().join(" "))
        .collect();
    assert!(
        told.remove("forgetlab"),
        "the lab itself is not in the table"
    );
    assert_eq!(
        commands(&Lab::new(), &[]),
        told,
        "commands there are, commands in README.md"
    );
}

/// Else nobody would read the first page to its end.
#[test]
fn the_first_page_is_short() {
    let bytes = page("README.md").len();
    assert!(bytes <= 12_000, "README.md has {bytes} bytes");
}

/// The targets of a page's links, outside of code.
fn links(page: &str) -> Vec<String> {
    let blocks = page.split("\n```").step_by(2);
    // The text of what stands in backticks is no link, even where it looks like one.
    let prose = blocks.flat_map(|block| block.split('`').step_by(2));
    let prose: String = prose.collect();
    let ends = prose.split("](").skip(1);
    let targets = ends.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()));
    targets.collect()
}

/// What a page's headings are linked by.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let letters = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    };
    let anchor = |line: &str| {
        line.trim_start_matches('#')
            .trim()
            .chars()
            .filter_map(letters)
            .collect()
    };
    headings.map(anchor).collect()
}

/// Else whoever follows the pages would end at nothing.
#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for path in pages() {
        let text = fs::read_to_string(&path).expect("read the page");
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().expect("a folder").join(file),
            };
            let here = path.display();
            assert!(target.exists(), "{here}: {link} is not there");
            if !anchor.is_empty() {
                let there = anchors(&fs::read_to_string(&target).expect("read the target"));
                let found = there.iter().any(|a| a == anchor);
                assert!(found, "{here}: {link}: headings there: {there:?}");
            }
            followed += 1;
        }
    }
    assert!(followed > 20, "only {followed} links were found");
}

//! Between the modules of a crate: a table of what each may import, doc links included, and no circle of files
//! (docs of a file may link to its neighbours).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use forgetlab_tests::root;

use crate::source;

/// A top module and those it may import.
type Floor = (&'static str, &'static [&'static str]);

/// The top modules of a crate from the ground up. Crates that are not named here are a single floor, whose
/// files form a tree.
const ARROWS: &[(&str, &[Floor])] = &[
    (
        "app/study/src",
        &[
            ("stats", &[]),
            ("printed", &[]),
            ("filter", &[]),
            ("experiment", &[]),
            ("run", &["stats", "printed", "experiment"]),
            (
                "report",
                &["stats", "printed", "filter", "experiment", "run"],
            ),
        ],
    ),
    (
        "app/engine/src",
        &[
            ("random", &[]),
            ("ops", &[]),
            ("model", &["random", "ops"]),
            ("pretrained", &["random", "ops", "model"]),
            ("peer", &["model", "pretrained"]),
            ("batch", &["ops", "model"]),
            ("micro", &["batch"]),
            ("sampling", &["random", "ops"]),
            ("adamw", &["ops"]),
            ("demand", &["ops", "model", "batch"]),
            ("device", &["ops"]),
            ("error", &["device"]),
            (
                "cpu",
                &[
                    "random", "ops", "model", "batch", "micro", "sampling", "adamw", "demand",
                ],
            ),
            (
                "gpu",
                &[
                    "random", "ops", "model", "batch", "micro", "sampling", "adamw", "demand",
                    "device",
                ],
            ),
            ("weights", &["model", "adamw", "error", "gpu"]),
            (
                "engine",
                &[
                    "ops", "model", "batch", "sampling", "adamw", "device", "error", "cpu", "gpu",
                    "weights",
                ],
            ),
            ("memory", &["batch", "demand", "cpu", "gpu"]),
        ],
    ),
    (
        "app/worker/src",
        &[
            ("data", &[]),
            ("eval", &["data"]),
            ("regression", &[]),
            ("train", &["data", "eval", "regression"]),
            ("verify", &["train"]),
            ("bench", &[]),
        ],
    ),
];

/// Crates whose files are read.
const CRATES: &[&str] = &[
    "plugin-api/src",
    "app/study/src",
    "app/engine/src",
    "app/plugin-host/src",
    "app/worker/src",
    "app/tui/src",
    "app/src",
];

/// The shipped source of a crate: its modules by their path, e.g. `run::checkpoint`; the root is empty.
type Sources = BTreeMap<String, String>;

/// Reads a crate; doc links count as imports if they are wanted.
fn read(folder: &str, with_links: bool) -> Sources {
    let mut sources = Sources::new();
    let path = root().join(folder);
    let top = if path.join("lib.rs").exists() {
        "lib.rs"
    } else {
        "main.rs"
    };
    read_module(&path, &path.join(top), "", with_links, &mut sources);
    assert!(sources.len() > 1, "{folder} has modules");
    sources
}

/// Reads a file and the modules below it, but for those of tests.
fn read_module(folder: &Path, file: &Path, module: &str, with_links: bool, sources: &mut Sources) {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let tests = source::test_modules(&text);
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.expect("UTF-8").to_owned();
        let is_module = path.join("mod.rs").exists()
            || (path.extension().is_some_and(|e| e == "rs") && path != file);
        if !is_module || tests.contains(&name) {
            continue;
        }
        let below = if module.is_empty() {
            name
        } else {
            format!("{module}::{name}")
        };
        if path.is_dir() {
            read_module(&path, &path.join("mod.rs"), &below, with_links, sources);
        } else {
            let text = fs::read_to_string(&path).expect("readable");
            sources.insert(below, source::shipped(&text, with_links));
        }
    }
    sources.insert(module.to_owned(), source::shipped(&text, with_links));
}

/// The module that a path of a module leads to, through what others give on.
fn target(sources: &Sources, from: &str, path: &str) -> Option<String> {
    let mut segments: Vec<&str> = path.split("::").collect();
    let mut module: Vec<&str> = from.split("::").filter(|s| !s.is_empty()).collect();
    match segments.remove(0) {
        "crate" => module.clear(),
        "self" => {}
        _ => {
            module.pop();
            while segments.first() == Some(&"super") {
                segments.remove(0);
                module.pop();
            }
        }
    }
    let mut module = module.join("::");
    for segment in segments {
        let below = if module.is_empty() {
            (*segment).to_owned()
        } else {
            format!("{module}::{segment}")
        };
        if sources.contains_key(&below) {
            module = below;
            continue;
        }
        // An item of this module, or one that it gives on from below.
        let given_on = given_on(sources, &module, segment);
        return match given_on {
            Some(to) if to != module => Some(to),
            _ => Some(module),
        };
    }
    Some(module)
}

/// Where a module takes an item from that it gives on by `pub use`.
fn given_on(sources: &Sources, module: &str, item: &str) -> Option<String> {
    let text = sources.get(module)?;
    let flat = text.replace('\n', " ");
    for statement in flat.split(';').filter(|s| s.contains("pub")) {
        let Some((_, tree)) = statement.split_once("use ") else {
            continue;
        };
        let names: Vec<&str> = tree
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .collect();
        let first = names.iter().find(|name| !name.is_empty())?;
        if !names.contains(&item) {
            continue;
        }
        let below = match *first {
            "crate" | "super" | "self" => continue,
            first if module.is_empty() => first.to_owned(),
            first => format!("{module}::{first}"),
        };
        if sources.contains_key(&below) {
            let deeper = given_on(sources, &below, item);
            return Some(deeper.unwrap_or(below));
        }
    }
    None
}

fn top(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

/// Every import between modules: (from, to), as files.
fn imports(sources: &Sources) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (from, text) in sources {
        for (path, _) in source::paths(text) {
            if let Some(to) = target(sources, from, &path)
                && to != *from
            {
                found.insert((from.clone(), to));
            }
        }
    }
    found
}

/// Imports that the table does not allow, in words.
fn turned(folder: &str, sources: &Sources) -> Vec<String> {
    let Some((_, floors)) = ARROWS.iter().find(|(name, _)| *name == folder) else {
        return Vec::new();
    };
    let mut wrong = BTreeSet::new();
    for (from, to) in imports(sources) {
        let (from, to) = (top(&from), top(&to));
        if from == to || from.is_empty() {
            continue;
        }
        let allowed = floors.iter().find(|(name, _)| *name == from);
        let Some((_, allowed)) = allowed else {
            wrong.insert(format!("{folder}: {from} is not in the table"));
            continue;
        };
        if !allowed.contains(&to) {
            wrong.insert(format!("{folder}: {from} must not import {to}"));
        }
    }
    wrong.into_iter().collect()
}

/// A circle of files, if there is one. A folder's `mod.rs` gathers what stands below it, which may use it.
fn circle(sources: &Sources) -> Option<Vec<String>> {
    let imports = imports(sources);
    let is_within = |a: &str, b: &str| b.is_empty() || a.starts_with(&format!("{b}::"));
    let edges: Vec<&(String, String)> = imports
        .iter()
        .filter(|(from, to)| !is_within(from, to) && !is_within(to, from))
        .collect();
    let mut trail = Vec::new();
    let mut done = BTreeSet::new();
    for start in sources.keys() {
        if let Some(circle) = walk(start, &edges, &mut trail, &mut done) {
            return Some(circle);
        }
    }
    None
}

fn walk(
    module: &str,
    edges: &[&(String, String)],
    trail: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    if let Some(at) = trail.iter().position(|seen| seen == module) {
        return Some(trail[at..].to_vec());
    }
    if done.contains(module) {
        return None;
    }
    trail.push(module.to_owned());
    for (_, to) in edges.iter().filter(|(from, _)| from == module) {
        if let Some(circle) = walk(to, edges, trail, done) {
            return Some(circle);
        }
    }
    trail.pop();
    done.insert(module.to_owned());
    None
}

/// Else a floor would come to need the one above it, and neither could be read alone.
#[test]
fn modules_import_what_stands_below_them_alone() {
    let wrong: Vec<String> = ARROWS
        .iter()
        .flat_map(|(folder, _)| turned(folder, &read(folder, true)))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

/// Else two files could only be read together.
#[test]
fn files_form_a_tree() {
    let circles: Vec<_> = CRATES
        .iter()
        .filter_map(|folder| Some((*folder, circle(&read(folder, false))?)))
        .collect();
    assert_eq!(circles, []);
}

/// A test that cannot fail would guard nothing.
#[test]
fn an_arrow_turned_by_a_use_or_an_inline_path_is_found() {
    for (folder, module, planted, says) in [
        (
            "app/study/src",
            "experiment::spec",
            "use crate::run::Score;",
            "experiment must not import run",
        ),
        (
            "app/study/src",
            "run::state",
            "fn f() { crate::report::table() }",
            "run must not import report",
        ),
        (
            "app/engine/src",
            "cpu::engine",
            "type T = super::super::gpu::Engine;",
            "cpu must not import gpu",
        ),
        (
            "app/worker/src",
            "data::suite",
            "use crate::{eval::{scores}};",
            "data must not import eval",
        ),
    ] {
        let mut sources = read(folder, true);
        sources.get_mut(module).expect("a module").push_str(planted);
        assert_eq!(turned(folder, &sources), [format!("{folder}: {says}")]);
    }
    let mut sources = read("app/study/src", false);
    let file = sources.get_mut("run::error").expect("a module");
    file.push_str("use super::lock::RunLock;");
    let found = circle(&sources).expect("a circle");
    assert!(found.contains(&"run::lock".to_owned()), "{found:?}");
}

//! Between crates: what each manifest may name, development dependencies included.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use forgetlab_tests::root;
use serde_json::Value;

/// What a crate may name of the workspace: in shipped code, then in tests as well.
const ARROWS: &[(&str, &[&str], &[&str])] = &[
    ("forgetlab-plugin-api", &[], &[]),
    ("forgetlab-strategy-none", &["forgetlab-plugin-api"], &[]),
    (
        "forgetlab-strategy-true-data",
        &["forgetlab-plugin-api"],
        &[],
    ),
    (
        "forgetlab-strategy-self-generated",
        &["forgetlab-plugin-api"],
        &[],
    ),
    (
        "forgetlab-strategy-bos-prompted",
        &["forgetlab-plugin-api"],
        &[],
    ),
    ("forgetlab-study", &[], &[]),
    ("forgetlab-engine", &[], &["forgetlab-fake-hub"]),
    (
        "forgetlab-plugin-host",
        &["forgetlab-plugin-api", "forgetlab-study"],
        &[],
    ),
    (
        "forgetlab-worker",
        &[
            "forgetlab-engine",
            "forgetlab-plugin-host",
            "forgetlab-study",
        ],
        &["forgetlab-fake-hub", "forgetlab-gpu-stand-in"],
    ),
    ("forgetlab-tui", &["forgetlab-study"], &[]),
    (
        "forgetlab",
        &[
            "forgetlab-engine",
            "forgetlab-plugin-host",
            "forgetlab-study",
            "forgetlab-tui",
            "forgetlab-worker",
        ],
        &[],
    ),
    ("forgetlab-hostile", &["forgetlab-plugin-api"], &[]),
    ("forgetlab-fake-hub", &[], &[]),
    ("forgetlab-gpu-stand-in", &["forgetlab-engine"], &[]),
    ("forgetlab-cuda-stand-in", &[], &[]),
    (
        "forgetlab-tests",
        &[],
        &[
            "forgetlab-cuda-stand-in",
            "forgetlab-fake-hub",
            "forgetlab-engine",
            "forgetlab-plugin-host",
            "forgetlab-study",
            "forgetlab-worker",
        ],
    ),
];

/// What must never reach a crate, however far down.
const NEVER: &[(&str, &[&str])] = &[
    (
        "forgetlab-study",
        &[
            "candle",
            "tokenizers",
            "ureq",
            "parquet",
            "libloading",
            "ratatui",
        ],
    ),
    (
        "forgetlab-tui",
        &["candle", "tokenizers", "ureq", "parquet", "libloading"],
    ),
    ("forgetlab-engine", &["forgetlab-", "ratatui"]),
    ("forgetlab-plugin-host", &["candle", "ratatui"]),
];

/// A dependency as a manifest names it.
#[derive(Clone, Debug)]
struct Dependency {
    name: String,
    is_dev: bool,
}

type Manifests = BTreeMap<String, Vec<Dependency>>;

fn cargo(arguments: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo.args(arguments).current_dir(root()).output();
    let output = output.expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The manifests of the workspace.
fn manifests() -> Manifests {
    let metadata = cargo(&["metadata", "--locked", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |package: &Value| {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let dependencies = dependencies.iter().map(|dependency| Dependency {
            name: text(&dependency["name"]),
            is_dev: dependency["kind"] == "dev",
        });
        (text(&package["name"]), dependencies.collect())
    };
    packages.iter().map(of).collect()
}

/// Every dependency that may not be, in words.
fn turned(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, dependencies) in manifests {
        let Some((_, shipped, tests)) = ARROWS.iter().find(|(known, ..)| known == name) else {
            wrong.push(format!("{name} is not in the table of tests/arrows"));
            continue;
        };
        for dependency in dependencies {
            let to = dependency.name.as_str();
            let allowed = match to {
                _ if to.starts_with("candle") => name == "forgetlab-engine",
                _ if !to.starts_with("forgetlab") => true,
                _ => shipped.contains(&to) || (dependency.is_dev && tests.contains(&to)),
            };
            if !allowed {
                wrong.push(format!("{name} must not depend on {to}"));
            }
        }
    }
    wrong
}

/// Else a change of the screen would build candle, or the engine would learn what a run is.
#[test]
fn crates_depend_on_what_stands_below_them_alone() {
    let manifests = manifests();
    assert_eq!(manifests.len(), ARROWS.len());
    assert_eq!(turned(&manifests), Vec::<String>::new());
}

/// Else a heavy crate could come in through another one.
#[test]
fn what_must_never_reach_a_crate_is_not_in_its_tree() {
    for (name, never) in NEVER {
        let tree = cargo(&[
            "tree", "--locked", "-p", name, "-e", "normal", "--prefix", "none", "--format", "{p}",
        ]);
        let packages: BTreeSet<&str> = tree.lines().skip(1).collect();
        for package in packages {
            let found = never.iter().find(|never| package.starts_with(**never));
            assert_eq!(found, None, "{name} reaches {package}");
        }
    }
}

/// A test that cannot fail would guard nothing.
#[test]
fn a_manifest_that_turns_an_arrow_is_found() {
    for (name, to, is_dev) in [
        ("forgetlab-tui", "forgetlab-engine", false),
        ("forgetlab-tui", "forgetlab-worker", true),
        ("forgetlab-study", "candle-core", false),
        ("forgetlab-engine", "forgetlab-study", true),
        ("forgetlab-worker", "forgetlab-gpu-stand-in", false),
    ] {
        let mut manifests = manifests();
        let dependency = Dependency {
            name: to.into(),
            is_dev,
        };
        manifests.get_mut(name).expect("a crate").push(dependency);
        assert_eq!(
            turned(&manifests),
            [format!("{name} must not depend on {to}")]
        );
    }
}

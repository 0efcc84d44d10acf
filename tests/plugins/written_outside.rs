//! Strategies of strangers: a Rust crate outside the workspace, and one in C.

use std::{path::Path, process::Command, sync::Arc};

use forgetlab_engine::replay::Plugin;

use crate::{
    lab::{Lab, ROWS, STEPS, check, instance, phase},
    libraries::{compile_c, library, root, run},
};

/// Every other step a batch of old data, as both templates do.
fn works(plugin: &Arc<Plugin>) {
    check(plugin, "{}").unwrap_or_else(|error| panic!("{error}"));
    let mut lab = Lab::default();
    let mut instance = instance(plugin, r#"{"every": 3}"#, &mut lab).expect("made");
    instance.phase_started(&phase(1), &mut lab).expect("starts");
    let rows: Vec<usize> = (0..4)
        .map(|i| {
            instance
                .next_batch(STEPS + i, &mut lab)
                .expect("works")
                .map_or(0, |b| b.rows)
        })
        .collect();
    assert_eq!(rows, [ROWS, 0, 0, ROWS]);
}

/// Else nobody could write a strategy in another language than Rust.
#[test]
fn a_strategy_in_c_loads_and_gives_batches() {
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join(library("forgetlab_strategy_mine"));
    compile_c(&root().join("plugin-api/templates/strategy.c"), &file, None);
    works(&Plugin::load(&file).expect("loads"));
}

/// Else a strategy could only be written inside the lab's own repository.
#[test]
fn a_rust_crate_outside_the_workspace_loads_and_gives_batches() {
    let dir = tempfile::tempdir().expect("folder");
    let write = |path: &str, text: &str| {
        std::fs::write(dir.path().join(path), text).expect("write");
    };
    std::fs::create_dir(dir.path().join("src")).expect("folder");
    let api = root()
        .join("plugin-api")
        .canonicalize()
        .expect("plugin-api");
    write(
        "Cargo.toml",
        &format!(
            "[package]\nname = \"mine\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
             [lib]\ncrate-type = [\"cdylib\"]\n\n\
             [dependencies]\nforgetlab-plugin-api = {{ path = {api:?} }}\n\n[workspace]\n"
        ),
    );
    let template = root().join("plugin-api/templates/strategy.rs");
    std::fs::copy(template, dir.path().join("src/lib.rs")).expect("copy");
    // The same versions as the workspace's, so that nothing need be looked up.
    std::fs::copy(root().join("Cargo.lock"), dir.path().join("Cargo.lock")).expect("copy");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(dir.path())
        .args(["build", "--target-dir"])
        .arg(&target);
    run(&mut cargo);
    works(&Plugin::load(&target.join("debug").join(library("mine"))).expect("loads"));
}

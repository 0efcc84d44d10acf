//! Strategies of strangers: a Rust crate outside the workspace, and one in C.

use std::sync::Arc;

use forgetlab_plugin_host::Plugin;

use crate::{
    lab::{Lab, ROWS, STEPS, check, instance, phase},
    libraries::{build_crate_outside, compile_c, library, root},
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
    works(&Plugin::load(&build_crate_outside(dir.path())).expect("loads"));
}

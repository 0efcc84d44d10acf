//! Strategy libraries for the tests: built when they are first asked for.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
};

use forgetlab_engine::replay::Plugin;

/// Root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) {
    let output = command.output().expect("start the command");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{errors}");
}

/// The folder of the profile this test was built in, e.g. `target/debug`.
fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    test.ancestors()
        .nth(2)
        .expect("target/PROFILE/deps/TEST")
        .to_owned()
}

/// Builds the built-in strategies and the hostile one; their folder.
pub fn built() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = profile_dir();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root()).arg("build");
        if dir.ends_with("release") {
            cargo.arg("--release");
        }
        cargo
            .arg("--target-dir")
            .arg(dir.parent().expect("target folder"));
        for package in ["none", "true-data", "self-generated", "bos-prompted"] {
            cargo.args(["-p", &format!("forgetlab-strategy-{package}")]);
        }
        run(cargo.args(["-p", "forgetlab-hostile"]));
        dir
    })
}

/// File name of a library.
pub fn library(name: &str) -> String {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    format!("{DLL_PREFIX}{name}{DLL_SUFFIX}")
}

/// The hostile strategy.
pub fn hostile() -> Arc<Plugin> {
    Plugin::load(&built().join(library("forgetlab_hostile"))).expect("the hostile strategy loads")
}

/// A built-in strategy.
pub fn built_in(name: &str) -> Arc<Plugin> {
    let name = format!("forgetlab_strategy_{}", name.replace('-', "_"));
    Plugin::load(&built().join(library(&name))).expect("a built-in strategy loads")
}

/// Compiles a C file against the header.
pub fn compile_c(source: &Path, library: &Path, variant: Option<u32>) {
    let mut cc = Command::new("cc");
    cc.args([
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-cast-function-type",
    ]);
    cc.args(["-shared", "-fPIC", "-I"])
        .arg(root().join("plugin-api/include"));
    cc.args(variant.map(|variant| format!("-DVARIANT={variant}")));
    run(cc.arg("-o").args([library, source]));
}

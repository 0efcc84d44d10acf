//! Strategy libraries for the tests, loaded.

use std::sync::Arc;

use forgetlab_plugin_host::Plugin;
pub use forgetlab_tests::{
    altered_template, binary, build_crate_outside, built, compile_c, library, root, when_loaded,
};

/// The hostile strategy.
pub fn hostile() -> Arc<Plugin> {
    Plugin::load(&built().join(library("forgetlab_hostile"))).expect("the hostile strategy loads")
}

/// A built-in strategy.
pub fn built_in(name: &str) -> Arc<Plugin> {
    let name = format!("forgetlab_strategy_{}", name.replace('-', "_"));
    Plugin::load(&built().join(library(&name))).expect("a built-in strategy loads")
}

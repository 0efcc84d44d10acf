//! Commands that messages advise, ready to be pasted into a shell.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use forgetlab_plugin_host::search_path;
use forgetlab_study::run::{RunDir, RunState, shell_path, shell_word};

use crate::last_words;

/// The command that goes on with a run. Its strategies are found again: in the folders that were `given` with
/// `--plugin-dir`, else where the run says that it loaded them from.
pub fn resume(dir: &RunDir, given: &[PathBuf]) -> String {
    let mut command = format!("forgetlab resume {}", shell_path(dir.path()));
    let dirs = match given {
        [] => loaded_from(dir),
        given => given.to_owned(),
    };
    for plugin_dir in dirs {
        command += &format!(" --plugin-dir {}", shell_path(&plugin_dir));
    }
    command
}

/// The same without one of its arms.
pub fn resume_without(dir: &RunDir, arm: &str, given: &[PathBuf]) -> String {
    format!("{} --skip-arm {}", resume(dir, given), shell_word(arm))
}

/// What became of the worker of a crashed run, as far as it is known, and what to do.
pub fn after_crash(dir: &RunDir, state: &RunState) -> String {
    let resume = resume(dir, &[]);
    match last_words::why(dir, state) {
        None => format!("its worker is gone without a word; go on with `{resume}`"),
        Some(why) if why.contains("forgetlab resume") => why,
        Some(why) => match last_words::last_call(dir, state) {
            None => format!("{why}; go on with `{resume}`"),
            Some(call) => format!(
                "{why}; go on with `{resume}`, or without that arm: `{}`",
                resume_without(dir, &call.arm, &[])
            ),
        },
    }
}

/// The command that shows a live run.
pub fn attach(dir: &RunDir) -> String {
    format!("forgetlab attach {}", shell_path(dir.path()))
}

/// The command that stops a live run.
pub fn stop(dir: &RunDir) -> String {
    format!("forgetlab stop {}", shell_path(dir.path()))
}

/// Folders of a run's strategies that are not searched anyway, and are still there.
pub fn loaded_from(dir: &RunDir) -> Vec<PathBuf> {
    let Ok(Some(environment)) = dir.read_environment() else {
        return Vec::new();
    };
    let whole = |path: &Path| path.canonicalize().ok();
    let searched: Vec<PathBuf> = search_path(&[])
        .iter()
        .filter_map(|dir| whole(&dir.path))
        .collect();
    let paths = environment
        .plugins
        .iter()
        .map(|plugin| Path::new(&plugin.path));
    let dirs: BTreeSet<&Path> = paths.filter_map(Path::parent).collect();
    dirs.into_iter()
        .filter(|dir| whole(dir).is_some_and(|whole| !searched.contains(&whole)))
        .map(Path::to_owned)
        .collect()
}

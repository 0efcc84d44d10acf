//! Libraries looked at without being loaded: whatever one does, it does in a process of its own.

use std::{
    fs::{Permissions, read_to_string, set_permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use forgetlab_plugin_host::{Helper, LoadError, Origin, Plugin, Registry, SearchDir};

use crate::{
    lab::{Lab, instance},
    libraries::{altered_template, binary, built, library, when_loaded},
};

fn discover(folders: &[&Path]) -> Registry {
    let dirs = folders.iter().map(|folder| SearchDir {
        path: folder.to_path_buf(),
        origin: Origin::Flag,
    });
    // Long enough for a machine that is busy with all other tests.
    let helper = Helper::new(binary()).with_limit(Duration::from_secs(6));
    Registry::discover(&dirs.collect::<Vec<_>>(), &helper)
}

fn names(registry: &Registry) -> Vec<&str> {
    let plugins = registry.plugins().iter();
    plugins.map(|plugin| plugin.name.as_str()).collect()
}

/// A folder with the strategy `none` in it.
fn with_none(folder: &Path) {
    let none = library("forgetlab_strategy_none");
    std::fs::create_dir_all(folder).expect("folder");
    std::fs::copy(built().join(&none), folder.join(&none)).expect("copy");
}

/// Else one stale build in a folder would take every command down, without a word on which file it was.
#[test]
fn a_library_that_harms_who_loads_it_is_named_and_costs_nothing_else() {
    let dir = tempfile::tempdir().expect("folder");
    let harms = [
        ("crashes", "*(volatile int *)8 = 1;", "(SIGSEGV)"),
        ("exits", "exit(0);", "exit status: 0"),
        ("aborts", "abort();", "(SIGABRT)"),
        (
            "loops",
            "for (volatile int i = 1; i;) {}",
            "does not come to an end",
        ),
    ];
    let mut folders = Vec::new();
    for (name, code, _) in harms {
        altered_template(&dir.path().join(name), &[], &when_loaded(code));
        folders.push(dir.path().join(name));
    }
    let entry = "static const fl_descriptor descriptor = {";
    let crash = format!("*(volatile int *)8 = 1; {entry}");
    altered_template(&dir.path().join("entry"), &[(entry, &crash)], "");
    folders.push(dir.path().join("entry"));
    with_none(&dir.path().join("good"));
    folders.push(dir.path().join("good"));
    let folders: Vec<&Path> = folders.iter().map(|folder| folder.as_path()).collect();
    let registry = discover(&folders);
    assert_eq!(names(&registry), ["none"]);
    let wanted = harms.iter().map(|(name, _, how)| (*name, *how));
    for (name, how) in wanted.chain([("entry", "(SIGSEGV)")]) {
        let of = |folder: &Path| folder == dir.path().join(name);
        let mut rejected = registry.rejected().iter();
        let rejected = rejected.find(|rejected| rejected.path.parent().is_some_and(of));
        let reason = &rejected.expect(name).reason;
        assert!(reason.is_alarming(), "{name}: {reason}");
        assert!(reason.to_string().contains(how), "{name}: {reason}");
    }
}

/// Else a library could write over the lab's screen, or set the title of its terminal.
#[test]
fn what_a_library_prints_is_told_and_goes_nowhere_else() {
    let dir = tempfile::tempdir().expect("folder");
    let code = r#"printf("\033[2Jhello\n"); fprintf(stderr, "there");"#;
    let include = [(
        "#include <stdlib.h>",
        "#include <stdio.h>\n#include <stdlib.h>",
    )];
    altered_template(dir.path(), &include, &when_loaded(code));
    let registry = discover(&[dir.path()]);
    let printed = &registry.get("my-strategy").expect("found").printed;
    assert!(
        printed.contains("hello") && printed.contains("there"),
        "{printed}"
    );
    assert!(!printed.contains('\u{1b}'), "{printed}");
}

/// Whether a file is in this process.
fn is_loaded(file: &Path) -> bool {
    let maps = read_to_string("/proc/self/maps").expect("a Linux machine");
    maps.contains(file.to_str().expect("UTF-8"))
}

fn found(folder: &Path) -> Arc<Plugin> {
    let registry = discover(&[folder]);
    Arc::clone(registry.get("my-strategy").expect("found"))
}

/// Else a library that no arm uses could change what others compute, or end their worker.
#[test]
fn a_library_is_in_this_process_only_once_an_arm_is_made_of_it() {
    let dir = tempfile::tempdir().expect("folder");
    let file = altered_template(dir.path(), &[], "");
    let plugin = found(dir.path());
    assert_eq!(plugin.version, "0.1.0");
    assert!(!is_loaded(&file));
    let arm = instance(&plugin, "{}", &mut Lab::default());
    assert!(arm.is_ok() && is_loaded(&file));
}

/// Else an arm would run other code than its run says.
#[test]
fn a_library_that_changed_meanwhile_is_not_used() {
    let dir = tempfile::tempdir().expect("folder");
    let file = altered_template(dir.path(), &[], "");
    let plugin = found(dir.path());
    let mut bytes = std::fs::read(&file).expect("read");
    bytes.extend([0; 64]);
    std::fs::write(&file, bytes).expect("write");
    let arm = instance(&plugin, "{}", &mut Lab::default());
    let error = arm.err().expect("refused").to_string();
    assert!(
        error.contains("has changed since it was looked at"),
        "{error}"
    );
    assert!(error.contains("in dlopen"), "{error}");
}

/// Else anybody on the machine could have their code run in a researcher's name.
#[test]
fn what_everybody_may_write_to_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("folder");
    let (file, folder) = (dir.path().join("file"), dir.path().join("folder"));
    for path in [&file, &folder] {
        with_none(path);
    }
    let library = file.join(library("forgetlab_strategy_none"));
    set_permissions(&library, Permissions::from_mode(0o666)).expect("mode");
    set_permissions(&folder, Permissions::from_mode(0o777)).expect("mode");
    let registry = discover(&[&file, &folder]);
    assert!(registry.plugins().is_empty());
    let rejected = registry.rejected().iter();
    let paths: Vec<&Path> = rejected.map(|rejected| rejected.path.as_path()).collect();
    assert_eq!(paths, [&library, &folder]);
    for rejected in registry.rejected() {
        let LoadError::Untrusted(why) = &rejected.reason else {
            panic!("{}", rejected.reason);
        };
        assert!(
            why.contains("every user of this machine may write to it"),
            "{why}"
        );
    }
    // The same file, named by its path.
    let look = Plugin::look(&library, &Helper::new(binary()));
    assert!(matches!(look, Err(LoadError::Untrusted(_))));
}

/// Else a pipe that somebody named like a library would hold up every command.
#[test]
fn what_is_no_regular_file_is_refused_unread() {
    let dir = tempfile::tempdir().expect("folder");
    let pipe = dir.path().join(library("pipe"));
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    let registry = discover(&[dir.path()]);
    let reason = registry.rejected()[0].reason.to_string();
    assert!(reason.contains("no regular file"), "{reason}");
}

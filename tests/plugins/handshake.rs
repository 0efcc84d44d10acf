//! Files that are no usable strategy: told apart, refused before any call, and no harm to others.

use std::path::Path;

use forgetlab_plugin_host::{Helper, LoadError, Origin, Plugin, Registry, SearchDir};

use crate::libraries::{binary, built, compile_c, library, root};

fn refused(path: &Path) -> LoadError {
    Plugin::load(path).expect_err("it must be refused")
}

fn handshake(variant: u32) -> String {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join(library("handshake"));
    compile_c(
        &root().join("tests/hostile/handshake.c"),
        &path,
        Some(variant),
    );
    refused(&path).to_string()
}

/// Else a user with a plugin of another version would see a crash, or not learn which side is older.
#[test]
fn another_abi_version_is_refused_and_both_sides_are_named() {
    for (variant, theirs) in [(1, "7.3"), (2, "1.1")] {
        let error = handshake(variant);
        assert!(error.contains(&format!("plugin ABI {theirs}")), "{error}");
        assert!(error.contains("this lab speaks 1.0"), "{error}");
    }
}

/// Else a slip of an author would crash the lab of a user.
#[test]
fn a_broken_descriptor_is_refused_before_any_call() {
    let expected = [
        (3, "its descriptor begins with 0x0000000000000001"),
        (4, "null or misaligned"),
        (5, "its descriptor has 2"),
        (6, "one of its functions is null"),
        (7, "its name \"Handshake\" must be"),
        (8, "bad settings schema"),
        (9, "capabilities unknown to ABI 1.0"),
    ];
    for (variant, text) in expected {
        let error = handshake(variant);
        assert!(error.contains(text), "variant {variant}: {error}");
    }
}

/// Else half a download would kill the process inside the system's loader.
#[test]
fn a_truncated_library_is_refused_at_every_length() {
    let whole = std::fs::read(built().join(library("forgetlab_strategy_none"))).expect("library");
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join(library("cut"));
    let len = whole.len();
    for cut in [4, 63, 64, 1000, len / 4, len / 2, len - 4096, len - 1] {
        std::fs::write(&path, &whole[..cut]).expect("write");
        let error = refused(&path);
        assert!(
            matches!(error, LoadError::Truncated { .. }),
            "{cut} bytes: {error}"
        );
    }
}

/// Else one bad file in a folder would cost a user all the good ones, or go unexplained.
#[test]
fn bad_files_are_listed_with_their_reason_beside_the_good_ones() {
    let dir = tempfile::tempdir().expect("folder");
    let put = |name: &str, text: &[u8]| {
        std::fs::write(dir.path().join(library(name)), text).expect("write");
    };
    put("text", b"I am no library");
    put("empty", b"");
    std::fs::write(dir.path().join("notes.txt"), "not looked at").expect("write");
    let none = library("forgetlab_strategy_none");
    std::fs::copy(built().join(&none), dir.path().join(&none)).expect("copy");
    let foreign = dir.path().join("foreign.c");
    std::fs::write(&foreign, "int answer(void) { return 42; }\n").expect("write");
    compile_c(&foreign, &dir.path().join(library("foreign")), None);

    let search = |path: &Path| SearchDir {
        path: path.to_owned(),
        origin: Origin::Flag,
    };
    let dirs = [search(dir.path()), search(Path::new("/no/such/folder"))];
    let registry = Registry::discover(&dirs, &Helper::new(binary()));
    let names: Vec<&str> = registry.plugins().iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["none"]);
    let reasons: Vec<String> = registry
        .rejected()
        .iter()
        .map(|r| format!("{} {}", r.path.display(), r.reason))
        .collect();
    let reasons = reasons.join("\n");
    for text in [
        "text.so is not a shared library for this system: it is no ELF file",
        "empty.so is not a shared library for this system: it is empty",
        "foreign.so is a shared library but no strategy plugin",
        "/no/such/folder cannot be read",
    ] {
        assert!(reasons.contains(text), "{text:?} is not in:\n{reasons}");
    }
    assert_eq!(registry.rejected().len(), 4, "{reasons}");

    let hint = |name: &str| registry.get(name).expect_err("unknown").to_string();
    assert!(hint("nonne").contains("did you mean `none`?"));
    assert!(hint("foreign").contains("no strategy plugin"));
    assert!(hint("something").contains("there are none; `--plugin-dir DIR`"));
}

/// Else a user's own version of a strategy would be replaced by another without a word.
#[test]
fn the_first_of_two_libraries_of_one_name_is_used_and_the_other_named() {
    let dir = tempfile::tempdir().expect("folder");
    let template = root().join("plugin-api/templates/strategy.c");
    for (folder, variant) in [("a", 1), ("b", 2)] {
        let folder = dir.path().join(folder);
        std::fs::create_dir(&folder).expect("folder");
        let source = std::fs::read_to_string(&template).expect("template");
        let source = source.replace("0.1.0", &format!("0.1.{variant}"));
        std::fs::write(folder.join("s.c"), source).expect("write");
        compile_c(&folder.join("s.c"), &folder.join(library("s")), None);
    }
    let dirs = ["b", "a"].map(|folder| SearchDir {
        path: dir.path().join(folder),
        origin: Origin::Environment,
    });
    let registry = Registry::discover(&dirs, &Helper::new(binary()));
    assert_eq!(registry.get("my-strategy").expect("found").version, "0.1.2");
    let hidden = registry.rejected()[0].reason.to_string();
    assert!(
        hidden.contains("is hidden by") && hidden.contains("/b/"),
        "{hidden}"
    );
}

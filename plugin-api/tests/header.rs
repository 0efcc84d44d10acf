//! The C header agrees with the Rust side in layout and constants, as a C compiler sees it.

use std::{collections::BTreeSet, fmt::Write, path::Path, process::Command};

use forgetlab_plugin_api::abi;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Compiles and runs a C program that includes the header; returns its output.
fn run_c(program: &str) -> String {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, binary) = (dir.join("header.c"), dir.join("header"));
    std::fs::write(&source, program).expect("write the C program");
    let compiled = Command::new("cc")
        .args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-I",
        ])
        .arg(Path::new(ROOT).join("include"))
        .arg("-o")
        .args([&binary, &source])
        .output()
        .expect("this test needs a C compiler, `cc`");
    let errors = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "{errors}");
    let output = Command::new(&binary).output().expect("run the C program");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Names and values of all constants the header must have.
fn constants() -> Vec<(&'static str, i128)> {
    macro_rules! list {
        ($($name:ident)*) => { vec![$((stringify!($name), abi::$name as i128)),*] };
    }
    list! {
        MAGIC ABI_MAJOR ABI_MINOR OK NOTHING RETRY FAILED CANCELLED UNSUPPORTED NEEDS_OLD_DATA
        NEEDS_GENERATION NEEDS_TOKENIZER NEEDS_SCORES NEEDS_SNAPSHOTS NEEDS_VIRTUAL_STEP
        SUPPLIES_TEACHER INDEPENDENT_OF_STUDENT MODEL_REFERENCE MODEL_STUDENT MODEL_SNAPSHOT
        MODEL_VIRTUAL_STEP OBJECTIVE_DEFAULT OBJECTIVE_KL OBJECTIVE_NTP OBJECTIVE_REPLACE
        TEACHER_REFERENCE TEACHER_SNAPSHOT TEACHER_SUPPLIED LOG_INFO LOG_WARN LOG_ERROR TASK_ALL
        MAX_TEXT MAX_SETTINGS MAX_STATE MAX_ELEMENTS MAX_BATCHES MAX_RANDOM
        MAX_TOP_K
    }
}

/// Else a strategy written in C would read and write past the lab's structs.
#[test]
fn header_has_the_layout_and_the_constants_of_the_rust_side() {
    let mut expected = String::new();
    let mut prints = String::new();
    for (name, size, fields) in abi::layouts() {
        writeln!(expected, "{name} {size}").expect("write");
        writeln!(prints, r#"printf("{name} %zu\n", sizeof({name}));"#).expect("write");
        for (field, offset, size) in fields {
            writeln!(expected, "{name}.{field} {offset} {size}").expect("write");
            writeln!(
                prints,
                r#"printf("{name}.{field} %zu %zu\n", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));"#
            )
            .expect("write");
        }
    }
    for (name, value) in constants() {
        writeln!(expected, "{name} {value}").expect("write");
        writeln!(
            prints,
            r#"printf("{name} %" PRIu64 "\n", (uint64_t)FL_{name});"#
        )
        .expect("write");
    }
    let includes = "#include <inttypes.h>\n#include <stddef.h>\n#include <stdio.h>\n";
    let printed = run_c(&format!(
        "{includes}#include \"forgetlab_strategy.h\"\nint main(void) {{\n{prints}return 0;\n}}\n"
    ));
    assert_eq!(printed, expected);
}

/// Else a new constant would silently miss the comparison above.
#[test]
fn every_constant_is_compared() {
    let source = include_str!("../src/abi.rs");
    let in_source: BTreeSet<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split(':').next())
        .filter(|name| !["SYMBOL", "ALL_CAPABILITIES"].contains(name))
        .collect();
    let compared: BTreeSet<&str> = constants().iter().map(|(name, _)| *name).collect();
    assert_eq!(in_source, compared);
}

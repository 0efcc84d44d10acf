//! Compiles the GPU's kernels as C, with a table of their names.

use std::path::Path;
use std::{env, fs};

/// Folder of the kernels' source.
const GPU: &str = "../../app/engine/src/gpu";

fn main() {
    let kernels = format!("{GPU}/kernels.cu");
    let sources = [
        "build.rs",
        "src/kernels.c",
        "src/candle.c",
        &kernels,
        &format!("{GPU}/tests/on_cpu.c"),
    ];
    for source in sources {
        println!("cargo::rerun-if-changed={source}");
    }
    let source = fs::read_to_string(&kernels).expect("kernels.cu");
    let names = source.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("KERNEL ")?.split_once('(')?;
        Some(format!("ROW({name})\n"))
    });
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("names.h"), names.collect::<String>()).expect("write names.h");
    cc::Build::new()
        .files(["src/kernels.c", "src/candle.c"])
        .include(out)
        .flag("-std=gnu11")
        .opt_level(2)
        .warnings_into_errors(true)
        .compile("kernels");
}

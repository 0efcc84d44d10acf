//! Compiles the GPU's kernels as C, with a table of their names and of the pointers that they take.

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
        let (name, rest) = line.strip_prefix("KERNEL(")?.split_once(", ")?;
        let (arguments, _) = rest.split_once(')')?;
        let pointers = pointers(&source, arguments);
        Some(format!("ROW({name}, {pointers})\n"))
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

/// Entries of a table for the pointers of a struct.
fn pointers(source: &str, name: &str) -> String {
    let end = source.find(&format!("\n}} {name};")).expect("the struct");
    let begin = source[..end].rfind("typedef struct {").expect("its begin");
    let pointers = source[begin..end].lines().filter_map(|line| {
        let (_, field) = line.strip_suffix(';')?.split_once('*')?;
        Some(format!("POINTER({name}, {field}) "))
    });
    pointers.collect()
}

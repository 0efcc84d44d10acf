//! Sets `cfg(gpu)` where the GPU's engine is built in, and compiles its kernels to PTX.
//!
//! The engine is built in with the `cuda` feature, and in debug builds, whose tests run its kernels on the CPU,
//! compiled as C. Release builds without CUDA do not have it.

use std::env;
use std::path::Path;
use std::process::Command;

/// The oldest architecture with bf16 products; drivers compile its PTX for newer ones.
const ARCHITECTURE: &str = "compute_80";

fn main() {
    let source = "src/gpu/kernels.cu";
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={source}");
    for variable in ["NVCC", "CUDA_HOME", "PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rustc-check-cfg=cfg(gpu)");
    let cuda = env::var_os("CARGO_FEATURE_CUDA").is_some();
    if cuda || env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        println!("cargo::rustc-cfg=gpu");
    }
    if !cuda {
        return;
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let compiled = Command::new(nvcc())
        .args(["-ptx", "-O3", "-arch", ARCHITECTURE, "-o"])
        .arg(Path::new(&out).join("kernels.ptx"))
        .arg(source)
        .status();
    match compiled {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("nvcc cannot compile {source}: {status}"),
        Err(error) => panic!("cannot start nvcc ({error}); install a CUDA toolkit or set NVCC"),
    }
}

/// The compiler: `NVCC`, or the one in `CUDA_HOME`, in `PATH`, or in the usual folder of a toolkit.
fn nvcc() -> String {
    let in_toolkit = |home: String| {
        let nvcc = format!("{home}/bin/nvcc");
        Path::new(&nvcc).is_file().then_some(nvcc)
    };
    let in_path = || {
        let path = env::var_os("PATH")?;
        let found = env::split_paths(&path).any(|folder| folder.join("nvcc").is_file());
        found.then(|| "nvcc".to_owned())
    };
    env::var("NVCC")
        .ok()
        .or_else(|| in_toolkit(env::var("CUDA_HOME").ok()?))
        .or_else(in_path)
        .or_else(|| in_toolkit("/usr/local/cuda".into()))
        .unwrap_or("nvcc".into())
}

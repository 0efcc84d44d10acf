//! Says whether the GPU engine is built in (`cfg(gpu)`), and compiles its kernels to PTX.
//!
//! It is with the `cuda` feature, and in debug builds, whose tests run it on the CPU: there the kernels are
//! compiled as C. A release build without CUDA goes without it.

use std::env;
use std::path::Path;
use std::process::Command;

/// The oldest architecture that can multiply bf16; drivers compile the PTX for newer ones.
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

/// `NVCC`, or the compiler in `CUDA_HOME`, in `PATH`, or where toolkits are put.
fn nvcc() -> String {
    let named = env::var("NVCC").ok();
    let homes = [env::var("CUDA_HOME").ok(), Some("/usr/local/cuda".into())];
    let in_home = |home: Option<String>| {
        let nvcc = format!("{}/bin/nvcc", home?);
        Path::new(&nvcc).is_file().then_some(nvcc)
    };
    let [given, usual] = homes.map(in_home);
    let in_path = env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join("nvcc").is_file()));
    let in_path = in_path.then(|| "nvcc".to_owned());
    named
        .or(given)
        .or(in_path)
        .or(usual)
        .unwrap_or("nvcc".into())
}

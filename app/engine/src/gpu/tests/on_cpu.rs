//! The GPU's kernels on the CPU, compiled by the system's C compiler.

use std::ffi::{CString, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use libloading::Library;

use super::SOURCE;

/// Runs a kernel of a name with a number of blocks, as a GPU would.
///
/// # Safety
/// `args` points to the struct that the kernel takes, and the pointers in it to what the kernel touches.
pub unsafe fn run(name: &str, blocks: usize, args: *const c_void) {
    type RunBlocks = unsafe extern "C" fn(*mut c_void, *const c_void, i64);
    static TURN: Mutex<()> = Mutex::new(());
    let library = library();
    let name = CString::new(name).expect("no zero in it");
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // SAFETY: the library was made of `on_cpu.c` and the kernels, which these signatures are of; one
    // call runs at a time; the rest as the caller promises.
    unsafe {
        let kernel = library.get::<*mut c_void>(name.as_bytes_with_nul());
        let run = library.get::<RunBlocks>(b"run_blocks\0");
        let (kernel, run) = (kernel.expect("a kernel"), run.expect("on_cpu.c has it"));
        run(*kernel, args, blocks as i64);
    }
}

/// The compiled kernels.
pub(super) fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCE);
        let compiled = dir.path().join("libkernels.so");
        let flags = [
            "-std=gnu11",
            "-O2",
            "-Wall",
            "-Werror",
            "-shared",
            "-fPIC",
            "-o",
        ];
        let output = Command::new("cc")
            .args(flags)
            .args([&compiled, &source])
            .arg("-lm")
            .output()
            .expect("`cc`, which the tests need");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        // SAFETY: it has no initialisers.
        unsafe { Library::new(compiled) }.expect("the library just compiled")
    })
}

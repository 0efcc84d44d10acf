#!/usr/bin/env python3
"""Writes small static libraries in place of CUDA's, which load the real ones when they are first called.

    python3 app/scripts/cuda_late.py FOLDER

A build with CUDA_HOME=FOLDER then needs no CUDA library to be linked, and its binary starts on machines that have
none; `doctor` says there what is missing. Each entry point that cudarc can call jumps to the real one, looked for in
the folder that CUDA_LIB_DIR names, where the system looks, and where toolkits are; where there is none it returns an
error. CUDA_LIB_DEBUG=1 prints what was not found. For Linux on x86-64, with cc and ar.

The CUDA runtime is linked whole: libcudart_static.a of the toolkit whose nvcc is found, of CUDA_HOME or of
/usr/local/cuda. Where there is none, an empty one, which is enough for a build without nvcc.
"""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

# Archive: module of cudarc, names of the real library, names of what must be loaded before, the error where it is
# missing (CUDA_ERROR_NO_DEVICE, *_STATUS_NOT_INITIALIZED, NVRTC_ERROR_INTERNAL_ERROR).
LIBRARIES = {
    "cuda": ("driver", ["libcuda.so.1"], [], 100),
    "cublas": ("cublas", ["libcublas.so.13", "libcublas.so.12"], ["libcublasLt.so.13"], 1),
    "cublasLt": ("cublaslt", ["libcublasLt.so.13", "libcublasLt.so.12"], [], 1),
    "curand": ("curand", ["libcurand.so.10"], [], 101),
    "nvrtc": ("nvrtc", ["libnvrtc.so.13", "libnvrtc.so.12"], ["libnvrtc-builtins.so.13.0"], 11),
}

LOADER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const libraries[] = {@LIBRARIES@, 0};
static const char *const before[] = {@BEFORE@ 0};
static const char *const names[] = {@NAMES@};
static const char is_text[] = {@IS_TEXT@};
static const char *const folders[] = {"", "/usr/local/cuda/lib64/", "/usr/local/cuda/targets/x86_64-linux/lib/",
    "/usr/lib/x86_64-linux-gnu/", 0};

static long failure(void) { return @ERROR@; }
static const char *failure_in_words(void) { return "@NAME@ not found"; }

static void *open_in(const char *folder, const char *name) {
    char path[4096];
    for (int i = 0; before[i]; i++) {
        snprintf(path, sizeof path, "%s%s", folder, before[i]);
        dlopen(path, RTLD_LAZY | RTLD_GLOBAL);
    }
    snprintf(path, sizeof path, "%s%s", folder, name);
    return dlopen(path, RTLD_NOW | RTLD_GLOBAL);
}

// Two threads may both look; they find the same.
static void *library(void) {
    static void *found;
    static int looked;
    if (__atomic_load_n(&looked, __ATOMIC_ACQUIRE)) return found;
    void *handle = 0;
    char folder[4096];
    const char *first = getenv("CUDA_LIB_DIR");
    for (int i = 0; libraries[i] && !handle; i++) {
        if (first && *first) {
            snprintf(folder, sizeof folder, "%s/", first);
            handle = open_in(folder, libraries[i]);
        }
        for (int j = 0; folders[j] && !handle; j++) handle = open_in(folders[j], libraries[i]);
    }
    if (!handle && getenv("CUDA_LIB_DEBUG")) fprintf(stderr, "%s: %s\n", libraries[0], dlerror());
    found = handle;
    __atomic_store_n(&looked, 1, __ATOMIC_RELEASE);
    return handle;
}

__attribute__((visibility("hidden"))) void *late_@NAME@[sizeof names / sizeof *names];

__attribute__((visibility("hidden"))) void *late_find_@NAME@(unsigned long i) {
    void *handle = library(), *function = handle ? dlsym(handle, names[i]) : 0;
    if (handle && !function && getenv("CUDA_LIB_DEBUG")) fprintf(stderr, "%s has no %s\n", libraries[0], names[i]);
    if (!function) function = is_text[i] ? (void *)failure_in_words : (void *)failure;
    __atomic_store_n(&late_@NAME@[i], function, __ATOMIC_RELEASE);
    return function;
}
"""


def loader(name, functions, texts):
    """The C file that finds a library and its functions."""
    _, libraries, before, error = LIBRARIES[name]
    quoted = lambda words: ", ".join(f'"{word}"' for word in words)
    values = {
        "LIBRARIES": quoted(libraries),
        "BEFORE": "".join(f'"{word}", ' for word in before),
        "NAMES": quoted(functions),
        "IS_TEXT": ", ".join("1" if function in texts else "0" for function in functions),
        "ERROR": str(error),
        "NAME": name,
    }
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], LOADER)


def jumps(name, functions):
    """The assembly of the entry points: each jumps to what was found, or looks for it with its arguments kept."""
    lines = [".text"]
    for i, function in enumerate(functions):
        lines += [
            f".globl {function}",
            f".type {function},@function",
            f"{function}:",
            f" movq late_{name}+{8 * i}(%rip), %r11",
            " testq %r11, %r11",
            " je 1f",
            " jmp *%r11",
            f"1: pushq ${i}",
            f" jmp late_go_{name}",
            f".size {function}, .-{function}",
        ]
    registers = ["rax", "rdi", "rsi", "rdx", "rcx", "r8", "r9", "r10"]
    lines += [f"late_go_{name}:"] + [f" pushq %{register}" for register in registers]
    lines += [" subq $128, %rsp"] + [f" movups %xmm{i}, {16 * i}(%rsp)" for i in range(8)]
    lines += [" movq 192(%rsp), %rdi", f" call late_find_{name}", " movq %rax, %r11"]
    lines += [f" movups {16 * i}(%rsp), %xmm{i}" for i in range(8)] + [" addq $128, %rsp"]
    lines += [f" popq %{register}" for register in reversed(registers)]
    lines += [" addq $8, %rsp", " jmp *%r11", '.section .note.GNU-stack,"",@progbits']
    return "\n".join(lines) + "\n"


def archive(path, sources):
    """Compiles sources, by file name, into a static library."""
    objects = []
    for file, text in sources.items():
        source = path.parent / file
        source.write_text(text)
        objects.append(source.with_suffix(source.suffix + ".o"))
        subprocess.check_call(["cc", "-O2", "-fPIC", "-c", source, "-o", objects[-1]])
        source.unlink()
    path.unlink(missing_ok=True)
    subprocess.check_call(["ar", "rcs", path, *objects])
    for file in objects:
        file.unlink()


def runtime():
    """The static CUDA runtime of the toolkit in use; None where there is none."""
    nvcc = shutil.which(os.environ.get("NVCC", "nvcc"))
    homes = [Path(nvcc).resolve().parent.parent] if nvcc else []
    homes += [Path(home) for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if home]
    candidates = (home / lib / "libcudart_static.a" for home in homes for lib in ("lib64", "lib"))
    return next((path for path in candidates if path.is_file()), None)


def cudarc():
    """Folder of cudarc's source, as Cargo.lock has it."""
    command = ["cargo", "metadata", "--format-version", "1", "--all-features", "--locked"]
    root = Path(__file__).resolve().parent.parent.parent
    packages = json.loads(subprocess.check_output(command, cwd=root))["packages"]
    return next(Path(p["manifest_path"]).parent for p in packages if p["name"] == "cudarc")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1]) / "lib"
    folder.mkdir(parents=True, exist_ok=True)
    source = cudarc() / "src"
    for name, (module, *_) in LIBRARIES.items():
        files = sorted((source / module / "sys").glob("*.rs"))
        text = "".join(file.read_text() for file in files)
        functions = sorted(set(re.findall(r'load::<_F>\("(\w+)"\)', text)))
        if not functions:
            sys.exit(f"{source / module} names no entry points")
        texts = {f for f in functions if re.search(rf"pub unsafe fn {f}\([^{{]*-> \*const", text)}
        sources = {f"{name}.c": loader(name, functions, texts), f"{name}.s": jumps(name, functions)}
        archive(folder / f"lib{name}.a", sources)
    static = runtime()
    if static:
        shutil.copyfile(static, folder / "libcudart.a")
    else:
        (folder / "libcudart.a").write_bytes(b"!<arch>\n")
    print(f"{folder}: {', '.join(LIBRARIES)}, the runtime of {static or 'no toolkit'}")


if __name__ == "__main__":
    main()

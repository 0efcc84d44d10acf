//! Machines where something of CUDA is missing, or too old.

use forgetlab_tests::Lab;
use forgetlab_tests::cuda::{LIBRARIES, stand_in};

use super::lab;

/// Else whoever builds on one machine and runs on another would read the dynamic linker's words, or nothing.
#[test]
fn without_cudas_libraries_the_binary_starts_and_doctor_says_what_is_missing() {
    let lab = Lab::new();
    lab.forgetlab(&["doctor"])
        .exits(0)
        .says(&["built in, but no GPU can be used: there is no NVIDIA GPU, or no driver for it"]);
    lab.forgetlab(&["verify", "--device", "cuda"])
        .exits(1)
        .says(&["`cuda` cannot be used: there is no NVIDIA GPU, or no driver for it"]);
    lab.forgetlab(&["verify"]).exits(0);
}

/// Else a driver without a toolkit, as clusters' login images have it, would be a riddle.
#[test]
fn a_missing_library_is_named() {
    for (missing, words) in [
        ("libcublas.so.13", "cuBLAS (libcublas) cannot be loaded"),
        ("libcurand.so.10", "cuRAND (libcurand) cannot be loaded"),
    ] {
        let mut lab = Lab::new();
        let there: Vec<&str> = LIBRARIES
            .into_iter()
            .filter(|&name| name != missing)
            .collect();
        let folder = lab.path("cuda");
        stand_in(&folder, &there);
        lab.set("CUDA_LIB_DIR", folder.to_str().expect("UTF-8"));
        lab.forgetlab(&["doctor"])
            .exits(0)
            .says(&[words, "CUDA_LIB_DIR"]);
        lab.smoke(&["--device", "cuda"]).exits(1).says(&[words]);
    }
}

/// Else the wrong number of a GPU would look like a broken driver.
#[test]
fn a_gpu_that_is_not_there_is_named() {
    lab()
        .forgetlab(&["verify", "--device", "cuda:3"])
        .exits(1)
        .says(&["`cuda:3` cannot be used: there is no GPU of that number"]);
}

/// Else an old GPU would be refused in the driver's words, after the data were read.
#[test]
fn a_gpu_that_is_too_old_is_named_with_what_is_needed() {
    let mut lab = lab();
    lab.set("STAND_IN_CAPABILITY", "75");
    let words = "Stand-in for a GPU has compute capability 7.5, and 8.0 or more is needed";
    lab.forgetlab(&["doctor"]).exits(0).says(&[words]);
    lab.forgetlab(&["verify", "--device", "cuda"])
        .exits(1)
        .says(&["`cuda` cannot be used", words]);
    lab.smoke(&["--device", "cuda"]).exits(1).says(&[words]);
}

/// Else whoever builds with a toolkit newer than the driver, or for a newer GPU, would read a number.
#[test]
fn kernels_that_the_driver_refuses_are_named_with_what_to_do() {
    for (refuses, words) in [
        (
            "new-ptx",
            "the NVIDIA driver is older than the CUDA toolkit",
        ),
        ("other-gpus", "build it with CUDA_COMPUTE_CAP=80"),
    ] {
        let mut lab = lab();
        lab.set("STAND_IN_REFUSES", refuses);
        lab.forgetlab(&["doctor"]).exits(0).says(&[words]);
        lab.forgetlab(&["verify", "--device", "cuda"])
            .exits(1)
            .says(&["`cuda` cannot be used", words]);
        lab.smoke(&["--device", "cuda"]).exits(1).says(&[words]);
    }
}

//! Tests on every device: on candle's CPU always, and on a GPU if CUDA is built in and a GPU opens.

mod arguments;
mod engine;
mod heads;
mod llama;
mod lora;
pub(super) mod on_cpu;
mod ops;

use candle_core::{Device, Tensor};

use crate::random::Stream;

/// The C file that includes the kernels.
const SOURCE: &str = "src/gpu/tests/on_cpu.c";

/// Devices to test on, by name.
fn devices() -> Vec<(&'static str, Device)> {
    let gpu = if cfg!(feature = "cuda") {
        std::panic::catch_unwind(|| Device::new_cuda(0).ok())
            .ok()
            .flatten()
    } else {
        None
    };
    if gpu.is_none() {
        println!("skipped on cuda: not built in, or no GPU opens");
    }
    let cpu = ("cpu", Device::Cpu);
    [cpu]
        .into_iter()
        .chain(gpu.map(|gpu| ("cuda", gpu)))
        .collect()
}

/// Standard normal numbers, the same for the same `purpose`.
fn normals(purpose: &str, len: usize) -> Vec<f32> {
    let mut random = Stream::new(0, purpose).at(0);
    (0..len).map(|_| random.normal()).collect()
}

/// Largest difference, relative to the largest expected number, or to `least` if that is larger.
fn error(found: &[f32], expected: &[f32], least: f32) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(least, |a, b| a.max(b.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    // `max` would drop a NaN.
    let worst = differences.fold(0f32, |a, b| if b <= a { a } else { b });
    f64::from(worst / largest)
}

fn download(x: &Tensor) -> Vec<f32> {
    super::tensor::download(x).unwrap()
}

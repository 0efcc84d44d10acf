//! One body for every device: candle's CPU always, a GPU where one is built in and opens.

mod engine;
mod llama;
mod lora;
pub(super) mod on_cpu;
mod ops;

use candle_core::{Device, Tensor};

use crate::random::Stream;

use super::kernels::Args;

/// Where the kernels are wrapped for the C compiler.
const SOURCE: &str = "src/gpu/tests/on_cpu.c";

/// Devices to test on, by name.
fn devices() -> Vec<(&'static str, Device)> {
    let gpu = match cfg!(feature = "cuda") {
        true => std::panic::catch_unwind(|| Device::new_cuda(0).ok())
            .ok()
            .flatten(),
        false => None,
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

/// Normal numbers.
fn normals(purpose: &str, len: usize) -> Vec<f32> {
    let mut random = Stream::new(0, purpose).at(0);
    (0..len).map(|_| random.normal()).collect()
}

/// Largest difference, as a share of the largest expected number, or of `least` if that is larger.
fn error(found: &[f32], expected: &[f32], least: f32) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(least, |a, b| a.max(b.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    // `max` would drop a NaN.
    let worst = worst.fold(0f32, |a, b| if b <= a { a } else { b });
    f64::from(worst / largest)
}

fn download(x: &Tensor) -> Vec<f32> {
    super::download(x).unwrap()
}

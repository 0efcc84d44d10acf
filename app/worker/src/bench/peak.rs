//! The matrix-product rate this machine reaches.

use std::thread;
use std::time::{Duration, Instant};

use forgetlab_engine::ops::Precision;
use forgetlab_engine::ops::matmul::{Out, Panels, product};

/// `m, n, k` of the products tried: what training multiplies, and what suits the caches best.
const PRODUCTS: [(usize, usize, usize); 4] = [
    (256, 1024, 256),
    (512, 512, 512),
    (1024, 1024, 256),
    (1024, 1024, 1024),
];

/// Highest rate in f32 FLOP/s over several sizes, every thread multiplying matrices of its own for `time` each.
pub fn gemm_peak(threads: usize, time: Duration) -> f64 {
    PRODUCTS
        .iter()
        .map(|&(m, n, k)| {
            thread::scope(|scope| {
                let threads: Vec<_> = (0..threads)
                    .map(|_| scope.spawn(move || rate(m, n, k, time)))
                    .collect();
                let rates = threads.into_iter().map(|t| t.join().unwrap_or(0.0));
                rates.sum()
            })
        })
        .fold(0.0, f64::max)
}

/// One thread's rate at one size.
fn rate(m: usize, n: usize, k: usize, time: Duration) -> f64 {
    let x = vec![1.0; m * k];
    let mut w = Panels::new(Precision::F32);
    w.pack(&vec![1.0; n * k], k, n);
    let mut y = vec![0.0; m * n];
    product(&mut y, &x, &w, Out::Set);
    let start = Instant::now();
    let mut products = 0;
    while start.elapsed() < time {
        product(&mut y, &x, &w, Out::Set);
        products += 1;
    }
    2.0 * (m * n * k) as f64 * f64::from(products) / start.elapsed().as_secs_f64()
}

//! What is asked of cuRAND: a generator that nothing is drawn from.

use crate::card::{Code, call};

/// `CURAND_STATUS_LAUNCH_FAILURE`, as of a card that failed.
const LAUNCH_FAILURE: i32 = 201;

#[unsafe(no_mangle)]
unsafe extern "C" fn curandCreateGenerator(generator: *mut usize, _: i32) -> i32 {
    // SAFETY: the caller gives a place for it.
    unsafe { *generator = 1 };
    0
}

#[unsafe(no_mangle)]
extern "C" fn curandSetStream(_: usize, _: usize) -> i32 {
    0
}

#[unsafe(no_mangle)]
extern "C" fn curandSetPseudoRandomGeneratorSeed(_: usize, _: u64) -> i32 {
    0
}

#[unsafe(no_mangle)]
extern "C" fn curandDestroyGenerator(_: usize) -> i32 {
    match call("curandDestroyGenerator", |_| Ok(())) {
        Code::Success => 0,
        _ => LAUNCH_FAILURE,
    }
}

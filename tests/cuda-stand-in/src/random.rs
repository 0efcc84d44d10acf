//! What is asked of cuRAND: a generator that nothing is drawn from.

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
    0
}

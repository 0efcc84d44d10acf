//! The forgetlab binary.
fn main() {}

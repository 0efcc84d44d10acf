//! Every import points one way: between crates as their manifests say, between the modules of a crate as the
//! tables here say. A turned arrow fails a test by its name.
//!
//! Tests of a part may use what stands above it in the same crate; shipped code, doc links included, may not.

mod manifests;
mod modules;
mod source;

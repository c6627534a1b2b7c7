//! Fuzz targets for every decoder of outside data; `cargo +nightly fuzz run --fuzz-dir deploy-tests/fuzz TARGET`.

#[path = "../src/hostile.rs"]
pub mod hostile;

//! The depot: packages as chunks in packs, transfer plans with their frames, signed releases.

mod bounded;
mod lru;
mod objects;
pub mod releases;

//! The main job, end to end, with the real programs.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod apart;
mod blue_green;
mod end_to_end;
mod pipeline;
mod tutorial;

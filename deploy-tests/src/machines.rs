//! Machines: hosts with a systemd of their own, which start, crash and are rebooted, on one base under overlays.
//!
//! The agent is installed on them from its package, with the commands of `docs/operations.md`; the coordinator runs outside.
//!
//! | module | owns |
//! |---|---|
//! | [`mod@alone`] | a network and mounts of their own, which end with what uses them |
//! | [`base`] | the system that all machines have in common, made once |
//! | [`machine`] | one machine: its boots, and commands inside |
//! | [`site`] | a coordinator and machines with the agent installed |
//! | [`manual`] | the commands of a chapter of the documentation |

pub mod alone;
pub mod base;
pub mod machine;
pub mod manual;
pub mod site;

pub use alone::alone;
pub use base::Base;
pub use machine::Machine;
pub use site::Site;

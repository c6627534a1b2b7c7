//! The Sluice host daemon: receives releases, stages them beside what runs, switches to them by one rename, validates
//! them, and goes back by itself where they do not hold.
//!
//! The agent dials out only. It works from what is on disk and from the last order it accepted, with or without a
//! coordinator.
//!
//! | module | owns |
//! |---|---|
//! | `cli`, `config`, `enroll`, `daemon` | how the agent is started |
//! | `session`, `board`, `identity` | the coordinator's side: orders in, reports out, certificates |
//! | `applications`, `actor` | one task for each application |
//! | `accept`, `planner`, `sequence` | decisions, pure: which order counts, what to do next, what a switch consists of |
//! | `engine`, `state`, `history` | the steps of an order, and what is remembered of them |
//! | `stage`, `content` | bringing a release to disk |
//! | `hook`, `health` | running what a package brings, asking how it is |
//! | `actions` | what needs no script: systemd, a supervisor, HAProxy, nginx |
//! | `upkeep`, `preflight`, `linked`, `drift` | keeping a host in order: what it may run, what outlives releases, what must not change |
//! | `layout`, `observe`, `examine`, `seen`, `beneath`, `workers`, `retention` | what stands on disk |
//! | `update` | the agent's own update, and the guard that starts it |
//! | `status`, `fsck` | what operators look at |
//! | `rehearsal` | the engine without a coordinator, for tests of faults |

mod accept;
mod actions;
mod actor;
mod applications;
mod backoff;
mod beneath;
mod board;
mod cli;
mod clock;
mod config;
mod content;
mod crash;
mod daemon;
mod directories;
mod drift;
mod engine;
mod enroll;
mod examine;
mod facts;
mod fsck;
mod health;
mod history;
mod hook;
mod identity;
mod layout;
mod linked;
mod lock;
mod observe;
mod planner;
mod preflight;
#[doc(hidden)]
pub mod rehearsal;
mod retention;
mod seen;
mod sequence;
mod session;
mod stage;
mod state;
mod status;
mod update;
mod upkeep;
mod workers;

pub use cli::run;

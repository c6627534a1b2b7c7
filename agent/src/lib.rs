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
//! | `accept`, `planner` | decisions, pure: which order counts, what to do next |
//! | `engine`, `state`, `history` | the steps of an order, and what is remembered of them |
//! | `stage`, `content` | bringing a release to disk |
//! | `hook`, `health` | running what a package brings, asking how it is |
//! | `layout`, `observe`, `examine`, `seen`, `beneath`, `workers`, `retention` | what stands on disk |
//! | `status`, `fsck` | what operators look at |

mod accept;
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
mod lock;
mod observe;
mod planner;
mod retention;
mod seen;
mod session;
mod stage;
mod state;
mod status;
mod workers;

pub use cli::run;

//! Environments: the desired releases of many applications on a selection of hosts, as one file (`fleet.toml`).
//!
//! Decisions are pure: [`spec`] checks the file, [`order`] computes in which order its applications come, [`next()`] says
//! what a run does next. The runner does it: it starts rollouts, which do the rest, and keeps how far the run is.
//!
//! | module | owns |
//! |---|---|
//! | [`mod@file`], [`options`] | the file as it is written |
//! | [`spec`] | the file, checked |
//! | [`graph`], [`order`] | who needs whom, and what follows from it |
//! | [`state`], [`view`] | where a run stands, and the fleet as it sees it |
//! | [`mod@next`], [`blocker`] | what happens next, and what it waits for |
//! | [`mod@outline`], [`mod@diff`], [`mod@layout`], [`mod@export`] | what applying would do, what differs, what runs where, what stands as a file |
//! | [`forecast`] | what links, disks and clocks say of it |
//! | `store`, `survey` | environments in the database, and a look at the fleet for one |
//! | `runner` | the task that takes every environment further |
//! | [`tables`] | case tables of needs |
//! | [`handle`], [`service`], `wire`, `pages` | how operators speak to all of it |

pub mod blocker;
pub mod diff;
pub mod export;
pub mod file;
pub mod forecast;
pub mod graph;
pub mod handle;
pub mod layout;
pub mod next;
pub mod options;
pub mod order;
pub mod outline;
mod pages;
mod runner;
pub mod service;
pub mod spec;
pub mod state;
mod store;
mod survey;
pub mod tables;
pub mod view;
mod wire;

#[cfg(test)]
mod tests;

pub use blocker::{Blocker, Wait};
pub use handle::Handle;
pub use next::{Action, Step, next};
pub use runner::Service;
pub use service::EnvironmentsService;
pub use spec::{Environment, ParseError};
pub use state::State;
pub use store::Stored;
pub use view::{AppView, Attempt, HostView, View};

//! Rollouts: one release brought to a selection of hosts, staged everywhere first, then switched batch by batch
//! through gates, and taken back when too many hosts fail.
//!
//! Decisions are pure: [`plan()`] looks at the durable [`Rollout`], at the fleet as last heard of ([`FleetView`]) and
//! at the time, and returns [`Action`]s and [`Blocker`]s. Effects are elsewhere: the store writes actions in one
//! transaction, the driver calls planner and store in turn and tells sessions which orders changed.
//!
//! | module | owns |
//! |---|---|
//! | [`spec`] | what an operator asks |
//! | [`batches`] | strategies, lowered to batches of hosts |
//! | [`mod@calendar`] | windows and freezes |
//! | [`mod@line`] | what closes an application to new rollouts |
//! | [`model`] | the rollout as it is stored |
//! | [`state`] | running, paused, ended, and which orders then go out |
//! | [`action`] | every change of it |
//! | [`view`] | the fleet as last heard of |
//! | [`mod@plan`], [`blocker`] | what happens next, and what it waits for |
//! | [`command`] | what operators may ask of a rollout, and when |
//! | [`store`] | rollouts, orders, reports and history in the database |
//! | `watcher`, `driver`, `recorder` | the tasks: one driver a rollout, one recorder of reports |
//! | `shared` | the channels between them |
//! | [`hosts`] | what is asked of the fleet around |
//! | `sessions` | what is given to it: orders; and taken: reports |
//! | [`handle`] | how operators and the depot speak to all of it |
//! | [`snapshot`] | a rollout as operators see it |
//! | [`service`], `wire` | `Rollouts.*` for operators |

pub mod action;
pub mod batches;
pub mod blocker;
pub mod calendar;
pub mod command;
mod driver;
pub mod handle;
pub mod hosts;
pub mod line;
pub mod model;
pub mod plan;
mod recorder;
pub mod service;
mod sessions;
mod shared;
pub mod snapshot;
pub mod spec;
pub mod state;
pub mod store;
pub mod view;
mod watcher;
mod wire;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use action::Action;
pub use batches::{Candidate, lower};
pub use blocker::Blocker;
pub use calendar::{Calendar, Freeze, Window};
pub use command::{Command, Refusal, decide};
pub use handle::{Busy, CommandError, Handle, StartError};
pub use hosts::{Enrolled, Hosts, SelectError};
pub use line::{LineStop, Reopened};
pub use model::{Cursor, Failure, Gate, Issued, Member, Rollout, Target};
pub use plan::{Outcome, Plan, plan};
pub use service::RolloutsService;
pub use snapshot::{HostSnapshot, Snapshot};
pub use spec::{OnFailure, PerDomain, Spec, SpecError, Strategy};
pub use state::State;
pub use view::{Contact, FleetView, HostView, Observed};
pub use watcher::Service;

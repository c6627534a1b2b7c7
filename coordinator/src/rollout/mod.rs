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
//! | [`floor`] | how many hosts have to stay in service |
//! | `slots` | whether a release can run beside another |
//! | [`batches`] | strategies, lowered to batches of hosts |
//! | [`mod@calendar`] | windows and freezes |
//! | [`check`] | gates that ask somebody else, and what their samples come to |
//! | [`mod@line`] | what closes an application to new rollouts |
//! | [`model`] | the rollout as it is stored |
//! | [`state`] | running, paused, ended, and which orders then go out |
//! | [`action`] | every change of it |
//! | [`view`] | the fleet as last heard of |
//! | [`mod@plan`], [`blocker`] | what happens next, and what it waits for |
//! | [`command`] | what operators may ask of a rollout, and when |
//! | [`store`] | rollouts, orders, reports and history in the database |
//! | `watcher`, `driver`, `recorder` | the tasks: one driver a rollout, one recorder of reports |
//! | [`prober`] | who asks checks |
//! | `shared` | the channels between them |
//! | [`hosts`] | what is asked of the fleet around |
//! | `sessions` | what is given to it: orders; and taken: reports |
//! | [`origin`], `survey` | the environment that has started a rollout, and what it asks |
//! | [`handle`] | how operators and the depot speak to all of it |
//! | [`snapshot`] | a rollout as operators see it |
//! | [`service`], `wire` | `Rollouts.*` for operators |
//! | [`records`] | `Records.*`: what ran where and when |
//! | [`forecast`] | what a rollout would do, before it is started |
//! | [`simulate`] | the planner over a fleet on paper: forecasts, and how a rollout may go |
//! | [`tables`] | case tables of strategies and calendars |
//! | [`sim`] | a seeded simulation with every fault there is, for tests |

pub mod action;
pub mod batches;
pub mod blocker;
pub mod calendar;
pub mod check;
pub mod command;
mod driver;
pub mod floor;
pub mod forecast;
pub mod handle;
pub mod hosts;
pub mod line;
pub mod model;
pub mod origin;
pub mod plan;
pub mod prober;
mod recorder;
pub mod records;
pub mod service;
mod sessions;
mod shared;
pub mod sim;
pub mod simulate;
mod slots;
pub mod snapshot;
pub mod spec;
pub mod state;
pub mod store;
mod survey;
pub mod tables;
pub mod view;
mod watcher;
mod wire;

#[cfg(test)]
pub(crate) mod paper;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use action::Action;
pub use batches::{Candidate, lower};
pub use blocker::Blocker;
pub use calendar::{Calendar, Freeze, Window};
pub use check::{Check, CheckName, Probe};
pub use command::{Command, Refusal, decide};
pub use floor::Floor;
pub use handle::{Busy, CommandError, Handle, StartError};
pub use hosts::{Enrolled, Hosts, SelectError};
pub use line::{LineStop, Reopened};
pub use model::{Cursor, Failure, Gate, Issued, Member, Rollout, Target};
pub use origin::Origin;
pub use plan::{Outcome, Plan, plan};
pub use prober::{About, Prober};
pub use records::RecordsService;
pub use service::RolloutsService;
pub use snapshot::{HostSnapshot, Snapshot};
pub use spec::{OnFailure, PerDomain, Spec, SpecError, Strategy};
pub use state::State;
pub use store::OfRun;
pub(crate) use store::is_settled;
pub use survey::Progress;
pub use view::{Contact, FleetView, HostView, Observed};
pub use watcher::Service;

//! Notifications: web addresses that are told of what rollouts do.
//!
//! An event is queued in the transaction that brings it about, so that none is lost and none is told of that did not happen. A
//! task delivers each listener's events in turn, signed, again and again until it answers with 2xx: at least once, with an id
//! by which the listener knows a repetition. What waits is bounded in number and age; what is given up is counted.
//!
//! | part | owns |
//! |---|---|
//! | [`event`] | what is told |
//! | [`store`] | listeners and queue |
//! | [`signature`] | how a listener knows who tells it |
//! | [`sender`] | the task that tells |
//! | [`service`] | `Notifications.*` for operators |

pub mod event;
pub mod sender;
pub mod service;
pub mod signature;
pub mod store;
#[cfg(test)]
mod tests;

pub use event::Event;
pub use sender::Sender;
pub use service::NotificationsService;

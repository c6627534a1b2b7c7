//! The Sluice coordinator: keeps the fleet's desired state, serves content, drives rollouts; and the `sluice` command.
//!
//! | module | owns |
//! |---|---|
//! | [`store`] | the database: migrations, serialised writing transactions |
//! | [`audit`] | the hash-chained log of every change |
//! | [`access`] | who may call what, decided in one place |
//! | [`authority`] | certificates, join tokens, enrolment, revocation |
//! | [`checks`] | asks the checks of rollouts |
//! | [`notify`] | web addresses that are told of what rollouts do |
//! | `outbound` | calls to the outside by HTTP |
//! | [`listener`] | connections: limits, TLS, HTTP/2 |
//! | [`fleet`] | hosts, sites, sessions, pacing of content |
//! | [`depot`] | packages as chunks in packs, transfer plans with their frames, signed releases |
//! | [`rollout`] | the rollout brain: planner, driver, orders and reports |
//! | [`environment`] | the releases of many applications on a selection of hosts, as one file |
//! | [`rehearsal`] | the service that is killed at one of its commits, for tests of recovery |
//! | [`service`] | start, wiring and stop of the service |
//! | [`clock`] | the one clock by which times are compared |
//! | [`cli`] | the command line, which speaks gRPC and knows none of the others |

pub mod access;
pub mod audit;
pub mod authority;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod depot;
pub mod environment;
pub mod fleet;
pub mod listener;
pub mod notify;
mod outbound;
pub mod rehearsal;
pub mod rollout;
pub mod service;
pub mod store;

#[cfg(test)]
mod testing;

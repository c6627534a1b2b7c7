//! The Sluice coordinator: keeps the fleet's desired state, serves content, drives rollouts; and the `sluice` command.
//!
//! | module | owns |
//! |---|---|
//! | [`store`] | the database: migrations, serialised writing transactions |
//! | [`audit`] | the hash-chained log of every change |
//! | [`access`] | who may call what, decided in one place |
//! | [`depot`] | packages as chunks in packs, transfer plans with their frames, signed releases |
//! | [`rollout`] | the rollout brain: planner, driver, orders and reports |

pub mod access;
pub mod audit;
pub mod depot;
pub mod rollout;
pub mod store;

//! Sluice's demonstration, its end-to-end tests and the programs that show what it promises.
//!
//! Everything here drives the shipped programs through their own entry points, each in a process of its own.
//!
//! | module | owns |
//! |---|---|
//! | [`role`] | one executable that can start itself as any of the shipped programs |
//! | [`lab`] | a coordinator, agents and an operator on loopback, under one directory |
//! | [`web`] | the small web application that the demonstration deploys |
//! | [`demo`] | `sluice-demo`: the main job in one command |
//! | [`show`] | `deploy-tests/show`: each promise with its figure beside its bound |

pub mod demo;
pub mod lab;
pub mod role;
pub mod show;
pub mod web;

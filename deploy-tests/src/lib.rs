//! Sluice's demonstration, its end-to-end tests and the programs that show what it promises.
//!
//! Everything here drives the shipped programs through their own entry points, each in a process of its own.
//!
//! | module | owns |
//! |---|---|
//! | [`role`] | one executable that can start itself as any of the shipped programs |
//! | [`apart`] | a program of which nothing stays, however it ends |
//! | [`lab`] | a coordinator, agents and an operator on loopback, under one directory |
//! | [`web`] | the small web application that the demonstration deploys |
//! | [`demo`] | `sluice-demo`: the main job in one command |
//! | [`trees`], [`measure`], [`peers`] | real trees, what a process takes, and other tools on the same trees |
//! | [`hostile`] | every decoder of outside data as a function of bytes: for the fuzzers and their corpus |
//! | [`faults`] | kills, power cuts and failing disks at chosen points of a deployment |
//! | [`machines`] | hosts with systemd, that boot and are rebooted, with the agent installed from its package |
//! | [`show`] | `deploy-tests/show`: each promise with its figure beside its bound |

pub mod apart;
pub mod demo;
pub mod faults;
pub mod hostile;
pub mod lab;
pub mod machines;
pub mod measure;
pub mod peers;
pub mod role;
pub mod show;
pub mod trees;
pub mod web;

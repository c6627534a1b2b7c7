//! Domain types and algorithms of Sluice: what a package is, how it is cut, framed and planned for transfer,
//! how bytes are paced, how releases are signed.
//!
//! Nothing here knows the wire (prost, tonic), a database or an async runtime. Decisions are pure functions;
//! the few functions that touch files say so in their name or take a directory.
//!
//! | module | owns |
//! |---|---|
//! | [`caps`] | every limit, with the reason for its number |
//! | [`digest`], [`path`], [`name`], [`units`], [`selector`] | parsed values: made once at the edge, trusted inside |
//! | [`manifest`] | the canonical list of a package's entries |
//! | [`tree`] | packing: a directory becomes a manifest |
//! | [`chunk`], [`index`] | content-defined chunks and the per-package chunk lists |
//! | [`transfer`] | frames and transfer plans: what travels from one release to the next |
//! | [`pacing`] | token buckets, as pure state |
//! | [`release`], [`keys`] | signed releases and the keys that sign them |
//! | [`spec`] | `sluice.toml`: hooks, health checks, retention |
//! | [`identity`] | who a certificate speaks for |
//! | [`order`] | what the coordinator wants of a host, and what the host answers |
//! | [`durable`] | write, sync, rename, sync |
//! | [`allocator`] | what freed buffers occupy |
//! | [`parallel`] | the same work for many items, on every core |

pub mod allocator;
pub mod caps;
pub mod chunk;
pub mod codec;
pub mod digest;
pub mod durable;
pub mod identity;
pub mod index;
pub mod keys;
pub mod manifest;
pub mod name;
pub mod order;
pub mod pacing;
pub mod parallel;
pub mod path;
pub mod release;
pub mod selector;
pub mod spec;
pub mod transfer;
pub mod tree;
pub mod units;

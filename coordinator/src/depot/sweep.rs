//! Keeps removals and writes of the same object apart.
//!
//! Invariant: during a sweep, an object that is being written, or was written since the sweep began, is not removed; a
//! write of an object that is being removed waits, and then writes it anew. So what the sweep saw of an object still
//! holds when it is removed. Writers of other processes are kept apart by the objects' age alone, as
//! it was when they were listed: a data directory is locked, so that no two services use one depot.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::watch;

use super::objects::Name;

/// Who writes and who removes what. Cheap to clone; clones agree.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    writing: HashMap<Name, usize>,
    /// Written since the sweep began; nothing while there is none.
    written: Option<HashSet<Name>>,
    removing: Option<Name>,
}

/// A write that is going on, until it is dropped.
pub(super) struct Writing {
    traffic: Traffic,
    name: Name,
}

/// A sweep, until it is dropped. One at a time.
#[derive(Debug)]
pub(super) struct Sweep {
    traffic: Traffic,
}

/// The right to remove one object, until it is dropped.
pub(super) struct Removing<'a> {
    sweep: &'a Sweep,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    /// Begins to write an object, once it is not being removed.
    pub(super) async fn write(&self, name: Name) -> Writing {
        let mut changes = self.state.subscribe();
        loop {
            let mut begun = false;
            self.state.send_if_modified(|state| {
                begun = state.removing != Some(name);
                if begun {
                    *state.writing.entry(name).or_default() += 1;
                    if let Some(written) = &mut state.written {
                        written.insert(name);
                    }
                }
                false
            });
            if begun {
                return Writing { traffic: self.clone(), name };
            }
            // `self` holds the sender.
            let _ = changes.changed().await;
        }
    }

    /// Begins a sweep; the caller sees to it that there is no other.
    pub(super) fn sweep(&self) -> Sweep {
        self.state.send_if_modified(|state| {
            state.written = Some(state.writing.keys().copied().collect());
            false
        });
        Sweep { traffic: self.clone() }
    }
}

impl Sweep {
    /// Lets an object be removed, unless it was written meanwhile.
    pub(super) fn remove(&self, name: Name) -> Option<Removing<'_>> {
        let mut free = false;
        self.traffic.state.send_if_modified(|state| {
            free = state.written.as_ref().is_some_and(|written| !written.contains(&name));
            if free {
                state.removing = Some(name);
            }
            false
        });
        free.then_some(Removing { sweep: self })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.traffic.state.send_if_modified(|state| {
            if let Some(count) = state.writing.get_mut(&self.name) {
                *count -= 1;
                if *count == 0 {
                    state.writing.remove(&self.name);
                }
            }
            false
        });
    }
}

impl Drop for Removing<'_> {
    fn drop(&mut self) {
        self.sweep.traffic.state.send_modify(|state| state.removing = None);
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.traffic.state.send_modify(|state| (state.written, state.removing) = (None, None));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use sluice_common::digest::Digest;

    use super::*;
    use crate::depot::objects::Kind;

    fn name(text: &str) -> Name {
        Name(Kind::Frame, Digest::of(text.as_bytes()))
    }

    #[tokio::test]
    async fn what_was_written_since_the_sweep_began_stays() {
        let traffic = Traffic::new();
        drop(traffic.write(name("before")).await);
        let during = traffic.write(name("during")).await;
        let sweep = traffic.sweep();
        drop(during);
        drop(traffic.write(name("after")).await);
        for (text, may) in [("before", true), ("during", false), ("after", false)] {
            assert_eq!(sweep.remove(name(text)).is_some(), may, "{text}");
        }
        drop(sweep);
        let sweep = traffic.sweep();
        assert!(sweep.remove(name("after")).is_some());
    }

    #[tokio::test]
    async fn a_write_waits_for_the_removal_of_the_same_object_only() {
        let traffic = Traffic::new();
        let sweep = traffic.sweep();
        let removing = sweep.remove(name("a")).unwrap();
        assert!(traffic.write(name("b")).now_or_never().is_some());
        let mut write = Box::pin(traffic.write(name("a")));
        assert!((&mut write).now_or_never().is_none());
        drop(removing);
        let written = write.await;
        assert!(sweep.remove(name("a")).is_none(), "it was written again");
        drop(written);
    }
}

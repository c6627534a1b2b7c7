//! Processes of this host, as `/proc` shows them.

use std::collections::BTreeSet;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process that is never taken for another, whatever number that one gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pid: u32,
    /// Ticks from the boot to its start.
    started: u64,
    boot: String,
}

impl Identity {
    /// Identifies a process that runs; nothing where it does not.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        Some(Self { pid, started: Stat::read(pid)?.started, boot })
    }

    /// Says whether it still runs.
    pub(super) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal to the process group that it leads, if it still runs. Its number cannot pass to another between the
    /// look and the signal: it is held open.
    pub(super) fn signal_group(&self, signal: Signal) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return };
        if let Ok(_held) = pidfd_open(pid, PidfdFlags::empty())
            && self.is_alive()
        {
            // It may have ended meanwhile.
            let _ = kill_process_group(pid, signal);
        }
    }
}

/// What `/proc/PID/stat` says.
struct Stat {
    parent: u32,
    started: u64,
}

impl Stat {
    /// Reads it; nothing for a process that has ended.
    fn read(pid: u32) -> Option<Self> {
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // pid (name) state parent ...; the name may hold anything. The start is the 22nd field.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let is_over = matches!(*fields.first()?, "Z" | "X");
        let found = Self { parent: fields.get(1)?.parse().ok()?, started: fields.get(19)?.parse().ok()? };
        (!is_over).then_some(found)
    }
}

/// Returns the children of a process that run.
pub(super) fn children(parent: u32) -> std::io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for entry in fs_err::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if Stat::read(pid).is_some_and(|stat| stat.parent == parent) {
            found.insert(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_not_taken_for_another() {
        let own = Identity::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!Identity { started: own.started + 1, ..own.clone() }.is_alive());
        assert!(!Identity { boot: "other".into(), ..own }.is_alive());
        assert!(Identity::of(0).is_none());
    }

    #[test]
    fn children_are_found_until_they_end() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let is_found = || children(std::process::id()).unwrap().contains(&child.id());
        assert!(is_found());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children(std::process::id()).unwrap().contains(&child.id()));
    }
}

//! Finds and ends the processes that carry a hook's mark in their environment, wherever they have moved to.

use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::MARK;

/// Rounds of ending what is found: a process may fork while it is being looked for.
const ROUNDS_MAX: u32 = 100;
/// Time for the kernel to clear away what was ended.
const ROUND: Duration = Duration::from_millis(10);

/// Ends every process whose mark begins with `prefix`; blocks until none is left. Returns whether that was reached.
pub(crate) fn end_marked(prefix: &str) -> bool {
    for _ in 0..ROUNDS_MAX {
        let found = marked(prefix);
        if found.is_empty() {
            return true;
        }
        for pid in found {
            // The descriptor pins the process, so that the second look is at the one that gets the signal.
            if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
                && is_marked(pid, prefix)
            {
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            }
        }
        std::thread::sleep(ROUND);
    }
    tracing::error!(prefix, "processes of a hook cannot be ended");
    false
}

/// Counts the processes whose mark begins with `prefix`.
pub(super) fn count_marked(prefix: &str) -> usize {
    marked(prefix).len()
}

fn marked(prefix: &str) -> Vec<Pid> {
    let Ok(processes) = fs_err::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|pid| is_marked(*pid, prefix))
        .collect()
}

fn is_marked(pid: Pid, prefix: &str) -> bool {
    let path = format!("/proc/{}/environ", pid.as_raw_nonzero());
    // Gone, or another user's: not ours.
    let Ok(environment) = fs_err::read(path) else { return false };
    environment.split(|byte| *byte == 0).any(|variable| {
        variable
            .strip_prefix(MARK.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="))
            .is_some_and(|id| id.starts_with(prefix.as_bytes()))
    })
}

//! Finds and ends the processes that carry a hook's mark in their environment, wherever they have moved to.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::MARK;

/// Rounds of ending what is found: a process may fork while it is being looked for.
const ROUNDS_MAX: u32 = 100;
/// Time for the kernel to clear away what was ended, or to load a program: what the first wait is, and the longest.
const ROUND: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(10)];
/// Looks at a process that is being loaded, so far apart as the first round, before nobody waits for it any longer.
const LOADING_LOOKS_MAX: u32 = 20;
/// Most processes and threads that a host may make in a second: ten cores that do nothing else, each 10 µs a piece.
const FORKS_PER_SECOND_MAX: u32 = 1_000_000;

/// Ends every process whose mark begins with `prefix`; blocks until none is left.
pub(crate) fn end_marked(prefix: &str) {
    end_seen(prefix, Scan::of(prefix));
}

/// Ends every process that is marked with `id`, once `others` has ended what it knows of; returns how many there were. Where
/// nothing is left, this is one look at the processes that may descend from `first`, which was started `age` ago.
pub(super) fn end_with(id: &str, first: Option<Pid>, age: Duration, others: impl FnOnce()) -> usize {
    // Seen first, so that they are counted.
    let mut scan = first.and_then(|first| Scan::after(id, first, age)).unwrap_or_else(|| Scan::of(id));
    let is_clean = scan.is_clean();
    scan.decide(id);
    others();
    if is_clean { 0 } else { scan.marked.len().max(end_seen(id, Scan::of(id))) }
}

/// Ends what `scan` saw, and goes on until nothing is seen any more; returns the most that were seen at once.
fn end_seen(prefix: &str, mut scan: Scan) -> usize {
    let mut undecided: Option<Vec<Pid>> = None;
    let (mut found, mut round) = (0, ROUND[0]);
    for _ in 0..ROUNDS_MAX {
        found = found.max(scan.marked.len());
        for pid in &scan.marked {
            // The descriptor pins the process, so that the second look is at the one that gets the signal.
            if let Ok(pidfd) = pidfd_open(*pid, PidfdFlags::empty())
                && look(*pid, prefix) == Look::Marked
            {
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            }
        }
        // One that was seen without an environment once may be about to get it; one seen so twice has none.
        let is_settled = undecided
            .as_ref()
            .map_or(scan.undecided.is_empty(), |before| scan.undecided.iter().all(|p| before.contains(p)));
        if scan.marked.is_empty() && is_settled {
            return found;
        }
        undecided = Some(scan.undecided);
        std::thread::sleep(round);
        round = (round * 2).min(ROUND[1]);
        scan = Scan::of(prefix);
    }
    tracing::error!(prefix, "processes of a hook cannot be ended");
    found
}

/// Returns the mark of a process; nothing where it has none, or nobody may ask.
pub(crate) fn mark_of(process: u32) -> Option<String> {
    let environment = fs_err::read(format!("/proc/{process}/environ")).ok()?;
    let mark = environment.split(|byte| *byte == 0).find_map(|variable| {
        variable.strip_prefix(MARK.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
    })?;
    Some(String::from_utf8_lossy(mark).into_owned())
}

/// Counts the processes whose mark begins with `prefix`.
#[cfg(test)]
pub(super) fn count_marked(prefix: &str) -> usize {
    Scan::of(prefix).marked.len()
}

/// What one look at every process found.
#[derive(Default)]
struct Scan {
    marked: Vec<Pid>,
    undecided: Vec<Pid>,
}

/// What one look at a process found.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Marked,
    Other,
    /// It has no environment: while a program is being loaded, none has.
    Undecided,
}

impl Scan {
    fn is_clean(&self) -> bool {
        self.marked.is_empty() && self.undecided.is_empty()
    }

    /// Looks again at what was just being loaded: it would else be ended without having been counted.
    fn decide(&mut self, prefix: &str) {
        for _ in 0..LOADING_LOOKS_MAX {
            if self.undecided.is_empty() {
                return;
            }
            std::thread::sleep(ROUND[0]);
            for pid in std::mem::take(&mut self.undecided) {
                self.note(pid, prefix);
            }
        }
    }

    fn of(prefix: &str) -> Self {
        Self::among(prefix, |_| true)
    }

    /// Looks at what can have been started since `first` was, `age` ago: numbers are given out in turn, so it has a higher one.
    /// Nothing where they may have begun anew since.
    fn after(prefix: &str, first: Pid, age: Duration) -> Option<Self> {
        if number_in(Path::new("/proc/sys/kernel/pid_max"))? <= forks_within(age) {
            return None;
        }
        let scan = Self::among(prefix, |pid| pid.as_raw_nonzero() > first.as_raw_nonzero());
        // The last word of the line is the number that was given out last.
        let last = number_in(Path::new("/proc/loadavg"))?;
        (last >= u64::try_from(first.as_raw_nonzero().get()).ok()?).then_some(scan)
    }

    fn among(prefix: &str, may_be: impl Fn(Pid) -> bool) -> Self {
        let mut scan = Self::default();
        let Ok(processes) = fs_err::read_dir("/proc") else { return scan };
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        for pid in pids.filter_map(Pid::from_raw).filter(|pid| may_be(*pid)) {
            scan.note(pid, prefix);
        }
        scan
    }

    fn note(&mut self, pid: Pid, prefix: &str) {
        match look(pid, prefix) {
            Look::Marked => self.marked.push(pid),
            Look::Undecided => self.undecided.push(pid),
            Look::Other => {}
        }
    }
}

/// Returns how many numbers may have been given out in a time.
fn forks_within(age: Duration) -> u64 {
    let forks = age.as_millis().saturating_mul(u128::from(FORKS_PER_SECOND_MAX)) / 1_000;
    u64::try_from(forks).unwrap_or(u64::MAX)
}

/// Reads the number that a file ends with.
fn number_in(file: &Path) -> Option<u64> {
    fs_err::read_to_string(file).ok()?.split_whitespace().last()?.parse().ok()
}

fn look(pid: Pid, prefix: &str) -> Look {
    let directory = format!("/proc/{}", pid.as_raw_nonzero());
    let read = || fs_err::read(format!("{directory}/environ"));
    // Gone, or another user's: not ours.
    let Ok(mut environment) = read() else { return Look::Other };
    if environment.is_empty() {
        if may_load(&directory) {
            return Look::Undecided;
        }
        // It may have been loaded between the two looks: only what has none now has none.
        environment = read().unwrap_or_default();
    }
    let is_marked = environment.split(|byte| *byte == 0).any(|variable| {
        variable
            .strip_prefix(MARK.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="))
            .is_some_and(|id| id.starts_with(prefix.as_bytes()))
    });
    if is_marked { Look::Marked } else { Look::Other }
}

/// Says whether a process without an environment may be loading a program: kernel threads and zombies are not.
fn may_load(directory: &str) -> bool {
    let Ok(stat) = fs_err::read_to_string(format!("{directory}/stat")) else { return false };
    // pid (name) state parent ...; the name may hold anything.
    let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let (state, parent) = (fields.next().unwrap_or("Z"), fields.next().unwrap_or("2"));
    // Field 50, where the environment begins: known once a program is loaded. A service that was started with an empty one
    // would else cost every hook a round of waiting, and another.
    let begins_at = fields.nth(45).unwrap_or("0");
    !matches!(state, "Z" | "X") && !matches!(parent, "0" | "2") && begins_at == "0"
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeping(id: &str) -> (Child, Pid) {
        let child = Command::new("sleep").arg("1000").env(MARK, id).spawn().unwrap();
        let pid = Pid::from_child(&child);
        // Until its program is loaded it has no environment to be known by.
        while mark_of(child.id()).as_deref() != Some(id) {
            std::thread::yield_now();
        }
        (child, pid)
    }

    #[test]
    fn what_was_being_loaded_is_counted_once_it_is() {
        let id = super::super::new_id("test");
        let (mut loaded, pid) = sleeping(&id);
        let mut scan = Scan { marked: Vec::new(), undecided: vec![pid] };
        scan.decide(&id);
        assert_eq!((scan.marked, scan.undecided), (vec![pid], Vec::new()));
        end_marked(&id);
        loaded.wait().unwrap();
    }

    #[test]
    fn what_was_started_since_is_found_without_a_look_at_what_was_not() {
        let id = super::super::new_id("test");
        let ((mut one, first), (mut two, second)) = (sleeping(&id), sleeping(&id));
        let after = |first, age| Scan::after(&id, first, age).map(|scan| scan.marked);
        assert_eq!(after(first, Duration::ZERO), Some(vec![second]));
        assert_eq!(after(second, Duration::ZERO), Some(Vec::new()));
        assert_eq!(after(first, Duration::from_secs(3_600)), None, "the numbers may have begun anew");
        end_marked(&id);
        assert_eq!(count_marked(&id), 0);
        one.wait().unwrap();
        two.wait().unwrap();
    }
}

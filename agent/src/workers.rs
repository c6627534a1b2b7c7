//! Work on many items at once, on a few threads that end with it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Threads for work on the bytes of files: enough to keep a disk busy while one of them hashes, few enough to leave a core to the
/// applications.
pub(crate) const FOR_BYTES: usize = 2;
/// Threads for work on their names alone. Two wait for each other in the kernel: 3,900 links take them 15 ms of CPU time, and one
/// alone 6; as many looks 11 and 9.
pub(crate) const FOR_NAMES: usize = 1;

/// Most items that one thread takes at a time: neighbours stand in the same directory, which two threads at once would hold
/// each other up in.
const RUN_MAX: usize = 64;

/// Why a lock that workers share can be taken.
pub(crate) const UNPOISONED: &str = "no worker panics while it holds the lock";

/// Calls `work` on so many threads with every number below `len`, in about their order. Ends early with the first error, or with the kind `Interrupted`
/// once `stop` is set.
pub(crate) fn each(
    len: usize,
    threads: usize,
    stop: &AtomicBool,
    work: impl Fn(usize) -> io::Result<()> + Sync,
) -> io::Result<()> {
    let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let run = || {
        loop {
            let after = |begin: usize| (begin < len).then(|| begin + run_len(len - begin, threads));
            let Ok(begin) = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after) else {
                return Ok(());
            };
            for number in begin..begin + run_len(len - begin, threads) {
                if has_failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if stop.load(Ordering::Relaxed) {
                    let interrupted = "work on the disk was interrupted";
                    return Err(io::Error::new(io::ErrorKind::Interrupted, interrupted));
                }
                if let Err(error) = work(number) {
                    has_failed.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(len)).map(|_| scope.spawn(run)).collect();
        let own = run();
        others.into_iter().try_for_each(|other| other.join().expect("a worker does not panic")).and(own)
    })
}

/// Returns how many items a thread takes of so many that are left: the fewer are left the fewer, so that all end together.
fn run_len(left: usize, threads: usize) -> usize {
    (left / (4 * threads)).clamp(1, RUN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once_until_one_fails_or_all_stop() {
        let (sum, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let add = |number: usize| {
            sum.fetch_add(number, Ordering::Relaxed);
            Ok(())
        };
        each(100, FOR_BYTES, &stop, add).unwrap();
        assert_eq!(sum.load(Ordering::Relaxed), 4950);
        let fail = |number: usize| if number == 50 { Err(io::Error::other("fifty")) } else { Ok(()) };
        assert_eq!(each(100, FOR_BYTES, &stop, fail).unwrap_err().to_string(), "fifty");
        stop.store(true, Ordering::Relaxed);
        assert_eq!(each(100, FOR_BYTES, &stop, add).unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(sum.load(Ordering::Relaxed), 4950);
    }
}

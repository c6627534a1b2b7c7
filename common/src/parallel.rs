//! The same work for each of many items, on every core.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

/// Why the lock of the results can be taken.
const UNPOISONED: &str = "no worker panics while it holds the lock";

/// Works on every item and returns the results in the order of the items. Fails with an error of one that failed;
/// after that no further item is begun.
pub fn each<T, R, E>(items: &[T], work: impl Fn(&T) -> Result<R, E> + Sync) -> Result<Vec<R>, E>
where
    T: Sync,
    R: Send,
    E: Send,
{
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<R>>> = Mutex::new(items.iter().map(|_| None).collect());
    let run = || -> Result<(), E> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { return Ok(()) };
            let result = work(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
            results.lock().expect(UNPOISONED)[number] = Some(result);
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(run)).collect();
        // A panic of the work is the caller's, as if it had run on the caller's thread.
        let join = |thread: ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().try_for_each(join)
    })?;
    let results = results.into_inner().expect(UNPOISONED);
    Ok(results.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_the_first_failure_ends_it() {
        let items: Vec<u32> = (0..1000).collect();
        let doubled: Result<Vec<u32>, ()> = each(&items, |item| Ok(item * 2));
        assert_eq!(doubled.unwrap(), (0..1000).map(|item| item * 2).collect::<Vec<_>>());
        assert_eq!(each(&[] as &[u32], |_| Ok::<_, ()>(1)), Ok(Vec::new()));
        let begun = AtomicUsize::new(0);
        let failed = each(&items, |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item == 3 { Err("three") } else { Ok(()) }
        });
        assert_eq!(failed, Err("three"));
        assert!(begun.load(Ordering::Relaxed) <= items.len());
    }
}

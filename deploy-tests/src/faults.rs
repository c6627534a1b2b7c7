//! Faults at chosen points of a deployment: kills, power cuts, failing system calls, a device that loses what was not
//! synced. Every deployment is a real process (the rehearsal of `sluice-agent`: its own engine, with content from a
//! folder) on a real file system; strace brings the faults about.
//!
//! | module | owns |
//! |---|---|
//! | [`story`] | the deployments that are disturbed, and how they may end |
//! | [`scene`] | packages, keys and content that the stories share; a [`Site`] is where one of them is played |
//! | [`points`] | the system calls of a deployment, and the faults that strike at one of them |
//! | [`verdict`] | what must hold right after a fault, and once the agent has run again |
//! | [`disk`], [`device`] | file systems that can lose their power, whole or at each write |

pub mod device;
pub mod disk;
pub mod points;
pub mod scene;
mod shutdown;
pub mod story;
pub mod verdict;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

pub use points::{Fault, Point, Strike};
pub use scene::{Scene, Site};
pub use story::{STORIES, Story};

/// Points that are worked on at a time: as many as the smallest machine that runs the tests has cores.
const WORKERS: usize = 2;
/// Time between two words about how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Calls `work` with each item on a few threads, each with its number, and returns the answers in the items' order.
/// Says how far it is now and then; ends with the first error.
pub fn each<T: Sync, R: Send>(
    what: &str,
    items: &[T],
    work: impl Fn(usize, &T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let answers: Mutex<Vec<Option<R>>> = Mutex::new(items.iter().map(|_| None).collect());
    let told = Mutex::new(Instant::now());
    let run = |worker: usize| -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { return Ok(()) };
            let answer = work(worker, item);
            if answer.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            answers.lock().expect(UNPOISONED)[number] = Some(answer?);
            let mut told = told.lock().expect(UNPOISONED);
            if told.elapsed() >= PROGRESS_INTERVAL {
                *told = Instant::now();
                println!("       {what}: {number} of {}", items.len());
            }
        }
    };
    let run = &run;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || run(worker))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect(UNPOISONED))
    })?;
    Ok(answers.into_inner().expect(UNPOISONED).into_iter().flatten().collect())
}

const UNPOISONED: &str = "no worker panics";

/// Returns about `count` of `items`, evenly spread; all where there are fewer.
pub fn spread<T: Clone>(items: &[T], count: usize) -> Vec<T> {
    let count = count.min(items.len());
    (0..count).map(|number| items[number * items.len() / count].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_answered_in_order_and_an_error_ends_it() {
        let items: Vec<usize> = (0..50).collect();
        let doubled = each("doubling", &items, |_, item| Ok(item * 2)).unwrap();
        assert_eq!(doubled, (0..50).map(|item| item * 2).collect::<Vec<_>>());
        let failed =
            each("failing", &items, |_, item| if *item == 3 { anyhow::bail!("three") } else { Ok(()) });
        assert_eq!(failed.unwrap_err().to_string(), "three");
    }

    #[test]
    fn a_spread_covers_the_whole() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(spread(&items, 4), [0, 25, 50, 75]);
        assert_eq!(spread(&items, 1_000), items);
    }
}

//! One run for all who want the same at the same time: the first starts a task, the others wait for its result.
//!
//! The task runs to its end even if everyone who waited has gone.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio_util::task::TaskTracker;

/// The result of a run; nothing when its task was cut off by the end of the runtime.
type Run<T> = Shared<BoxFuture<'static, Option<T>>>;

/// Runs under way, by what they make.
pub(super) struct Flights<K, T: Clone> {
    running: Arc<Mutex<HashMap<K, Run<T>>>>,
    tasks: TaskTracker,
}

impl<K, T> Flights<K, T>
where
    K: Eq + Hash + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Makes runs tasks of `tasks`.
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { running: Arc::default(), tasks }
    }

    /// Waits for the run of `key`; begins it where there is none.
    pub(super) async fn join<F>(&self, key: K, begin: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let run = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            match running.get(&key) {
                Some(run) => run.clone(),
                None => {
                    let run = self.begin(key.clone(), begin());
                    running.insert(key, run.clone());
                    run
                }
            }
        };
        run.await
    }

    /// Starts the task. It takes itself off the list, which the caller holds until it stands there.
    fn begin(&self, key: K, work: impl Future<Output = T> + Send + 'static) -> Run<T> {
        let running = self.running.clone();
        let task = self.tasks.spawn(async move {
            let result = work.await;
            running.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            result
        });
        task.map(Result::ok).boxed().shared()
    }
}

impl<K, T: Clone> fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

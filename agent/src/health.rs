//! Health checks: asking an application how it is, and judging the answers.
//!
//! [`Watcher`] asks every check at its own interval; [`Streaks`] counts successes in a row, purely. The gate of a switch
//! and the checking of what runs (by [`Monitor`]) are built of the two.

mod gate;
mod http;
mod load;
mod monitor;
mod probe;
mod resources;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use sluice_common::spec::HealthCheck;
use tokio::time::Instant;

pub(crate) use gate::{Baked, bake, reach};
pub(crate) use load::bear;
pub(crate) use monitor::Monitor;

/// What checks are asked of: a release as it runs here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Subject {
    /// The checks.
    pub(crate) checks: Vec<HealthCheck>,
    /// The variables that checks may use, `VERSION` among them.
    pub(crate) environment: BTreeMap<String, String>,
    /// The release's tree.
    pub(crate) release: PathBuf,
    /// Begins the marks of the commands that checks run.
    pub(crate) scope: String,
}

/// Successes in a row, check by check.
#[derive(Debug, Clone)]
pub(crate) struct Streaks {
    checks: Vec<Streak>,
}

#[derive(Debug, Clone, Default)]
struct Streak {
    needed: u32,
    successes: u32,
    failures: u32,
    last_failure: Option<String>,
}

impl Streaks {
    /// Begins with no answer.
    pub(crate) fn new(checks: &[HealthCheck]) -> Self {
        let streak = |check: &HealthCheck| Streak { needed: check.successes, ..Streak::default() };
        Self { checks: checks.iter().map(streak).collect() }
    }

    /// Counts an answer.
    pub(crate) fn count(&mut self, check: usize, answer: Result<(), String>) {
        let Some(streak) = self.checks.get_mut(check) else { return };
        match answer {
            Ok(()) => (streak.successes, streak.failures) = (streak.successes.saturating_add(1), 0),
            Err(reason) => {
                (streak.successes, streak.failures) = (0, streak.failures.saturating_add(1));
                streak.last_failure = Some(reason);
            }
        }
    }

    /// Says whether every check has its successes in a row.
    pub(crate) fn all_hold(&self) -> bool {
        self.checks.iter().all(|streak| streak.successes >= streak.needed)
    }

    /// Says whether some check failed so many times in a row.
    pub(crate) fn any_failed(&self, times: u32) -> bool {
        self.checks.iter().any(|streak| streak.failures >= times)
    }

    /// Returns why a check does not hold, in words.
    pub(crate) fn complaint(&self) -> String {
        let failing = self.checks.iter().find(|streak| streak.successes < streak.needed);
        match failing.map(|streak| &streak.last_failure) {
            Some(Some(reason)) => reason.clone(),
            Some(None) => "a health check was not answered".into(),
            None => "every health check holds".into(),
        }
    }
}

/// Asks every check again and again, each at its own interval.
pub(crate) struct Watcher {
    subject: Arc<Subject>,
    interval_min: Duration,
    running: FuturesUnordered<BoxFuture<'static, Asked>>,
}

/// The number of a check, when it was asked, and its answer.
type Asked = (usize, Instant, Result<(), String>);

impl Watcher {
    /// Begins to ask; no check more often than `interval_min`.
    pub(crate) fn new(subject: Arc<Subject>, interval_min: Duration) -> Self {
        let mut watcher = Self { subject, interval_min, running: FuturesUnordered::new() };
        for check in 0..watcher.subject.checks.len() {
            watcher.ask(check, Instant::now());
        }
        watcher
    }

    /// Returns the next answer and the number of its check. Waits for ever where there are no checks. Cancel-safe.
    pub(crate) async fn next(&mut self) -> (usize, Result<(), String>) {
        match self.running.next().await {
            Some((check, began, answer)) => {
                let interval = self.subject.checks[check].interval.max(self.interval_min);
                self.ask(check, began + interval);
                (check, answer)
            }
            None => std::future::pending().await,
        }
    }

    fn ask(&mut self, check: usize, at: Instant) {
        let subject = self.subject.clone();
        self.running.push(Box::pin(async move {
            tokio::time::sleep_until(at).await;
            let began = Instant::now();
            let answer = probe::ask(&subject, &subject.checks[check]).await;
            (check, began, answer)
        }));
    }
}

#[cfg(test)]
mod tests {
    use sluice_common::spec::Spec;

    use super::*;

    fn checks(successes: &[u32]) -> Vec<HealthCheck> {
        let text: String = successes
            .iter()
            .map(|n| format!("[[health]]\ntype = \"tcp\"\naddress = \"a:1\"\nsuccesses = {n}\n"))
            .collect();
        Spec::parse(&text).unwrap().health
    }

    #[test]
    fn only_successes_in_a_row_count() {
        let no = || Err("no".to_owned());
        for (name, needed, answers, holds, complaint) in [
            ("none asked", vec![], vec![], true, "every"),
            ("not yet", vec![2], vec![(0, Ok(()))], false, "not answered"),
            ("reached", vec![2], vec![(0, Ok(())), (0, Ok(()))], true, "every"),
            ("broken row", vec![2], vec![(0, Ok(())), (0, no()), (0, Ok(()))], false, "no"),
            ("one of two", vec![1, 1], vec![(0, Ok(())), (1, no())], false, "no"),
            ("both", vec![1, 1], vec![(0, Ok(())), (1, Ok(()))], true, "every"),
        ] {
            let mut streaks = Streaks::new(&checks(&needed));
            answers.into_iter().for_each(|(check, answer)| streaks.count(check, answer));
            assert_eq!(streaks.all_hold(), holds, "{name}");
            assert!(streaks.complaint().contains(complaint), "{name}: {}", streaks.complaint());
        }
        let mut streaks = Streaks::new(&checks(&[1]));
        streaks.count(0, no());
        assert!(streaks.any_failed(1) && !streaks.any_failed(2));
    }
}

//! Steps that bring a release to disk.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sluice_common::caps;
use sluice_common::order::Installed;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Engine, blocking};
use crate::backoff;
use crate::content::{ContentClient, Origin};
use crate::observe;
use crate::seen::Seen;
use crate::stage::{self, Job, StageError, retry_delay, stage};
use crate::state::{AppState, Cost, Progress, Wanted};

/// Interval of reports while content comes: four a second.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);

/// Frame bytes with which an attempt has made headway: the next one does not wait long, however many connections broke before.
/// Two messages of content: on the thinnest of links some ten seconds' worth.
const HEADWAY_BYTES: u64 = 2 * caps::CONTENT_MESSAGE_BYTES as u64;

impl<O: Origin> Engine<O> {
    pub(super) async fn stage(&mut self, token: &CancellationToken) -> io::Result<()> {
        let host = self.host.clone();
        let permit = tokio::select! {
            permit = host.staging.acquire() => permit.map_err(io::Error::other)?,
            () = token.cancelled() => return Ok(()),
        };
        let Some(release) = self.wanted_release() else { return Ok(()) };
        let job = Job {
            dir: self.dir.clone(),
            release,
            reuse: host.reuse,
            floor: host.upkeep.retention.disk_floor,
            hashed: self.hashed.for_reuse(),
            crash: host.crash.clone(),
        };
        let mut client = host.origin.open();
        let wire = client.wire();
        let tally = self.dir.staging(&job.release.package).join("wire");
        let before = self.spent(&tally).await?;
        let mut attempts = std::mem::take(&mut self.attempts);
        let progress = Arc::new(stage::Progress::default());
        let disk = self.observe().await?;
        let result = {
            let staged = stage(&job, &mut client, &mut attempts, &progress, token);
            tokio::pin!(staged);
            let mut ticks = tokio::time::interval(REPORT_INTERVAL);
            let mut tallied = before.wire_bytes;
            loop {
                tokio::select! {
                    result = &mut staged => break result,
                    _ = ticks.tick() => {
                        let (fetched, plan_bytes) = progress.read();
                        let cost = Cost { plan_bytes, wire_bytes: before.wire_bytes + wire(), ..before };
                        self.report_with(Some(&disk), None, cost, Some(fetched));
                        if cost.wire_bytes > tallied {
                            tallied = cost.wire_bytes;
                            note(&tally, tallied);
                        }
                    }
                }
            }
        };
        drop(client);
        // Another application need not wait for this one's next attempt.
        drop(permit);
        if progress.came() >= HEADWAY_BYTES {
            self.failures = 0;
        }
        let cost = Cost {
            plan_bytes: progress.read().1.max(before.plan_bytes),
            wire_bytes: before.wire_bytes + wire(),
            stage_us: attempts.first_request.map_or(before.stage_us, |first| {
                u64::try_from(first.elapsed().as_micros()).unwrap_or(u64::MAX)
            }),
            ..before
        };
        self.attempts = attempts;
        self.ended(result, cost, token).await
    }

    /// Returns what the order has cost so far, with what an agent that was killed had counted.
    async fn spent(&self, tally: &Path) -> io::Result<Cost> {
        let cost = self.state.as_ref().map(|state| state.cost).unwrap_or_default();
        let tally = tally.to_owned();
        let noted =
            blocking(move || Ok(fs_err::read_to_string(tally).ok().and_then(|text| text.parse().ok())))
                .await?;
        Ok(Cost { wire_bytes: cost.wire_bytes.max(noted.unwrap_or(0)), ..cost })
    }

    async fn ended(
        &mut self,
        result: Result<Seen, StageError>,
        cost: Cost,
        token: &CancellationToken,
    ) -> io::Result<()> {
        match result {
            Ok(seen) => {
                self.hashed.add(seen);
                tracing::info!(app = %self.app, bytes = cost.wire_bytes, elapsed_ms = cost.stage_us / 1_000, "release is staged");
                self.failures = 0;
                self.content_is_there(cost).await
            }
            Err(StageError::Retry { reason }) => {
                self.host.crash.pass()?;
                tracing::warn!(app = %self.app, reason, "staging is tried again");
                self.change(|state| (state.reason, state.cost) = (Some(reason), cost)).await?;
                let delay = retry_delay(self.failures, backoff::random());
                self.failures = self.failures.saturating_add(1);
                let until = Instant::now() + delay;
                tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = token.cancelled() => {}
                }
                Ok(())
            }
            Err(StageError::Failed { reason }) => {
                self.host.crash.pass()?;
                self.fail(reason, cost).await
            }
            Err(StageError::Cancelled) => {
                if let Some(state) = &mut self.state {
                    state.cost = cost;
                }
                Ok(())
            }
        }
    }

    /// Ends the order: it cannot be carried out, and nothing was switched.
    pub(super) async fn fail(&mut self, reason: String, cost: Cost) -> io::Result<()> {
        self.change(|state| {
            (state.progress, state.reason, state.cost) = (Progress::Failed, Some(reason), cost);
        })
        .await?;
        self.settle().await
    }

    pub(super) async fn note_staged(&mut self) -> io::Result<()> {
        if let Some(release) = self.wanted_release() {
            let dir = self.dir.clone();
            blocking(move || {
                // The same bytes may be released under another version.
                match observe::marker(&dir, &release.package)? {
                    Some(marked) if marked != release => observe::write_marker(&dir, &release)?,
                    Some(_) | None => {}
                }
                // A crash may have come between the marker and this.
                stage::discard(&dir.staging(&release.package))
            })
            .await?;
        }
        let cost = self.state.as_ref().map(|state| state.cost).unwrap_or_default();
        self.content_is_there(cost).await
    }

    /// Returns the release that is wanted; nothing where none is.
    pub(super) fn wanted_release(&self) -> Option<Installed> {
        self.state.as_ref().map(|AppState { wanted, .. }: &AppState| wanted).and_then(Wanted::installed)
    }
}

/// Notes a count of bytes beside what they brought. Not synced: it is to outlive a kill, and only tells a cost. Never makes
/// the file, because its directory may be on its way out.
fn note(tally: &Path, bytes: u64) {
    if let Ok(mut file) = fs_err::OpenOptions::new().write(true).open(tally) {
        let _ = file.write_all(bytes.to_string().as_bytes());
    }
}

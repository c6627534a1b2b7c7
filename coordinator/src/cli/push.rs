//! The upload of a package: what the coordinator lacks, in compressed groups, over as many connections as it takes.
//!
//! [`parcel`] holds what is sent, [`attempt`] drives one stream, this module tries again. A broken connection costs
//! nothing but time: the coordinator keeps every chunk that arrived and asks for the others only.

mod attempt;
mod missing;
mod parcel;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;
use sluice_common::digest::Digest;
use sluice_common::tree::Tree;
use sluice_common::units::{format_duration, format_size};
use sluice_proto::transport::metered::Meter;
use tonic::transport::Channel;

use super::error::insist;
use super::output::{Output, count};
use super::progress;
use attempt::Failure;
pub(super) use attempt::is_broken;
use parcel::Parcel;

/// How long a push keeps trying.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Attempts in a row that bring nothing forward.
    pub(super) attempts: u32,
    /// Delay before the second of them; doubled each time.
    pub(super) first_delay: Duration,
    /// Longest delay.
    pub(super) last_delay: Duration,
}

impl Default for Patience {
    /// About half a minute: longer than a coordinator takes to restart.
    fn default() -> Self {
        Self { attempts: 7, first_delay: Duration::from_millis(500), last_delay: Duration::from_secs(10) }
    }
}

impl Patience {
    fn delay(&self, failures: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        self.first_delay.saturating_mul(factor).min(self.last_delay)
    }
}

/// What a push took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Pushed {
    pub(super) digest: Digest,
    pub(super) files: u64,
    pub(super) tree_bytes: u64,
    /// Distinct chunks of the package; nothing where nobody had to count them: the coordinator knew its digest.
    pub(super) chunks: Option<u64>,
    /// Those that the coordinator lacked.
    pub(super) chunks_sent: u64,
    /// Bytes of the chunks sent, raw.
    pub(super) raw_bytes_sent: u64,
    /// Bytes sent, as the sockets count them.
    pub(super) wire_bytes_sent: u64,
    /// Bytes received, as the sockets count them.
    pub(super) wire_bytes_received: u64,
    /// How often the connection had to be made anew.
    pub(super) reconnects: u32,
}

impl fmt::Display for Pushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = count(usize::try_from(self.files).unwrap_or(usize::MAX), "file");
        write!(f, "pushed {files}, {}: ", format_size(self.tree_bytes))?;
        match self.chunks {
            None => f.write_str("the coordinator had it already")?,
            Some(_) if self.chunks_sent == 0 => f.write_str("the coordinator had every chunk of it")?,
            Some(chunks) => {
                let (raw, wire) = (format_size(self.raw_bytes_sent), format_size(self.wire_bytes_sent));
                write!(f, "{} of {chunks} chunks sent, {raw} as {wire}", self.chunks_sent)?;
                if self.chunks_sent < chunks {
                    f.write_str("; the others were there already")?;
                }
            }
        }
        match self.reconnects {
            0 => Ok(()),
            n => write!(f, " (went on after {})", count(n as usize, "broken connection")),
        }
    }
}

/// What was sent so far, over all attempts.
struct Tally {
    output: Output,
    bar: Option<ProgressBar>,
    /// Raw bytes that the coordinator lacked when last asked.
    lacking: Option<u64>,
    /// Whether the attempt under way began with less lacking than the one before.
    advanced: bool,
    chunks_sent: u64,
    raw_bytes_sent: u64,
    /// One for each connection.
    meters: Vec<Arc<Meter>>,
}

impl Tally {
    fn new(output: Output) -> Self {
        Self {
            output,
            bar: None,
            lacking: None,
            advanced: false,
            chunks_sent: 0,
            raw_bytes_sent: 0,
            meters: Vec::new(),
        }
    }

    /// Takes note of what the coordinator lacks at the beginning of an attempt.
    fn begin(&mut self, lacking: u64) {
        let bar = self.bar.get_or_insert_with(|| progress::bytes(self.output, "pushing", lacking));
        bar.set_position(bar.length().unwrap_or(lacking).saturating_sub(lacking));
        self.advanced = self.lacking.is_none_or(|before| lacking < before);
        self.lacking = Some(lacking);
    }

    fn sent(&mut self, chunks: usize, raw: u64) {
        self.chunks_sent += chunks as u64;
        self.raw_bytes_sent += raw;
        if let Some(bar) = &self.bar {
            bar.inc(raw);
        }
    }
}

/// A connection to push over.
pub(super) struct Line {
    pub(super) channel: Channel,
    /// Counts all that passed it.
    pub(super) meter: Arc<Meter>,
}

/// Pushes a tree over connections made by `dial`.
pub(super) async fn push(
    output: Output,
    dial: impl AsyncFn() -> anyhow::Result<Line>,
    tree: Tree,
    patience: Patience,
) -> anyhow::Result<Pushed> {
    let parcel = Parcel::new(tree);
    let mut tally = Tally::new(output);
    let (mut failures, mut reconnects) = (0, 0);
    loop {
        tally.advanced = false;
        let tried = match dial().await {
            Ok(Line { channel, meter }) => {
                tally.meters.push(meter);
                attempt::run(channel, &parcel, &mut tally).await
            }
            Err(error) => Err(Failure::Broken(error)),
        };
        let error = match tried {
            Ok(()) => return Ok(finish(&parcel, tally, reconnects)),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Broken(error)) => error,
        };
        failures = if tally.advanced { 1 } else { failures + 1 };
        if failures >= patience.attempts {
            let hint = "what arrived is kept: run the same command again and it goes on from there";
            return Err(error.context(insist("the connection broke and could not be made anew", hint)));
        }
        let delay = patience.delay(failures);
        reconnects += 1;
        tracing::warn!(
            error = format!("{error:#}"),
            delay = format_duration(delay),
            "push interrupted; going on with a new connection"
        );
        tokio::time::sleep(delay).await;
    }
}

fn finish(parcel: &Parcel, tally: Tally, reconnects: u32) -> Pushed {
    if let Some(bar) = &tally.bar {
        bar.finish_and_clear();
    }
    let manifest = parcel.tree.manifest();
    Pushed {
        digest: parcel.digest,
        files: manifest.file_count(),
        tree_bytes: manifest.tree_bytes(),
        chunks: parcel.described().map(|description| description.chunk_count() as u64),
        chunks_sent: tally.chunks_sent,
        raw_bytes_sent: tally.raw_bytes_sent,
        wire_bytes_sent: tally.meters.iter().map(|meter| meter.written()).sum(),
        wire_bytes_received: tally.meters.iter().map(|meter| meter.read()).sum(),
        reconnects,
    }
}

//! The upload of a package: what the coordinator lacks, in compressed groups, over as many connections as it takes.
//!
//! [`parcel`] holds what is sent, [`attempt`] drives one stream, this module tries again. A broken connection costs
//! nothing but time: the coordinator keeps every chunk that arrived and asks for the others only. Where nothing arrived, the next
//! attempt sends smaller groups: a thin link may not carry a large one before the coordinator takes the push for silent.

mod attempt;
mod missing;
mod parcel;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;
use sluice_common::caps;
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
use parcel::{Description, Parcel};

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
    /// Those that the coordinator lacked when first asked: each once, however often a connection broke under it.
    pub(super) chunks_sent: u64,
    /// Bytes of these chunks, raw.
    pub(super) raw_bytes_sent: u64,
    /// Bytes sent, as the sockets count them.
    pub(super) wire_bytes_sent: u64,
    /// Bytes received, as the sockets count them.
    pub(super) wire_bytes_received: u64,
    /// How often a connection broke and was made anew.
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

/// Chunks that the coordinator lacks.
#[derive(Debug, Clone, Copy, Default)]
struct Lacking {
    chunks: u64,
    raw_bytes: u64,
}

impl Lacking {
    fn new(missing: &[Range<u32>], description: &Description) -> Self {
        let chunks = missing.iter().map(|run| run.len() as u64).sum();
        Self { chunks, raw_bytes: description.raw_len(missing) }
    }
}

/// What was sent so far, over all attempts.
struct Tally {
    output: Output,
    bar: Option<ProgressBar>,
    /// What the coordinator lacked when first asked.
    first: Option<Lacking>,
    /// What it lacked when last asked.
    last: Option<Lacking>,
    /// Whether the attempt under way began with less lacking than the one before.
    advanced: bool,
    /// Raw bytes that a group may have.
    group_bytes: u64,
    /// One for each connection.
    traffic: Vec<Traffic>,
}

impl Tally {
    fn new(output: Output) -> Self {
        Self {
            output,
            bar: None,
            first: None,
            last: None,
            advanced: false,
            group_bytes: caps::UPLOAD_GROUP_BYTES,
            traffic: Vec::new(),
        }
    }

    /// Takes note of what the coordinator lacks at the beginning of an attempt.
    fn begin(&mut self, lacking: Lacking) {
        let raw_bytes = lacking.raw_bytes;
        let bar = self.bar.get_or_insert_with(|| progress::bytes(self.output, "pushing", raw_bytes));
        bar.set_position(bar.length().unwrap_or(raw_bytes).saturating_sub(raw_bytes));
        self.advanced = self.last.is_none_or(|last| raw_bytes < last.raw_bytes);
        if !self.advanced {
            self.group_bytes = (self.group_bytes / 2).max(u64::from(caps::CHUNK_BYTES_MAX));
        }
        self.first.get_or_insert(lacking);
        self.last = Some(lacking);
    }

    /// Takes note of raw bytes that are on their way, and may be lost there.
    fn sent(&self, raw_bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(raw_bytes);
        }
    }
}

/// A connection to push over.
pub(super) struct Line {
    channel: Channel,
    traffic: Traffic,
}

/// What a connection carries of a push.
struct Traffic {
    meter: Arc<Meter>,
    /// Bytes that it had sent and received before.
    before: (u64, u64),
}

impl Line {
    /// Takes a connection that was made for the push: all that `meter` has counted is the push's.
    pub(super) fn new(channel: Channel, meter: Arc<Meter>) -> Self {
        Self { channel, traffic: Traffic { meter, before: (0, 0) } }
    }

    /// Takes a connection that has carried something else before.
    pub(super) fn shared(channel: Channel, meter: Arc<Meter>) -> Self {
        let before = (meter.written(), meter.read());
        Self { channel, traffic: Traffic { meter, before } }
    }
}

impl Traffic {
    fn sent(&self) -> u64 {
        self.meter.written() - self.before.0
    }

    fn received(&self) -> u64 {
        self.meter.read() - self.before.1
    }
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
    let mut failures = 0;
    loop {
        tally.advanced = false;
        let tried = match dial().await {
            Ok(Line { channel, traffic }) => {
                tally.traffic.push(traffic);
                attempt::run(channel, &parcel, &mut tally).await
            }
            Err(error) => Err(Failure::Broken(error)),
        };
        let error = match tried {
            Ok(()) => return Ok(finish(&parcel, tally)),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Broken(error)) => error,
        };
        failures = if tally.advanced { 1 } else { failures + 1 };
        if failures >= patience.attempts {
            let hint = "what arrived is kept: run the same command again and it goes on from there";
            return Err(error.context(insist("the connection broke and could not be made anew", hint)));
        }
        let delay = patience.delay(failures);
        tracing::warn!(
            error = format!("{error:#}"),
            delay = format_duration(delay),
            "push interrupted; going on with a new connection"
        );
        tokio::time::sleep(delay).await;
    }
}

fn finish(parcel: &Parcel, tally: Tally) -> Pushed {
    if let Some(bar) = &tally.bar {
        bar.finish_and_clear();
    }
    let manifest = parcel.tree.manifest();
    let sent = tally.first.unwrap_or_default();
    Pushed {
        digest: parcel.digest,
        files: manifest.file_count(),
        tree_bytes: manifest.tree_bytes(),
        chunks: parcel.described().map(|description| description.chunk_count() as u64),
        chunks_sent: sent.chunks,
        raw_bytes_sent: sent.raw_bytes,
        wire_bytes_sent: tally.traffic.iter().map(Traffic::sent).sum(),
        wire_bytes_received: tally.traffic.iter().map(Traffic::received).sum(),
        // All but the last of them broke.
        reconnects: tally.traffic.len().saturating_sub(1) as u32,
    }
}

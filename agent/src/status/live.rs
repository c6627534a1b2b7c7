//! What only the running agent knows, told to whoever asks on the host: a small file, written anew when something changes.
//!
//! One task. In: reports and the session's connection (`watch`). Out: `DATA/live.json`, at most once a second.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluice_common::name::AppName;
use sluice_common::order::{Drift, Report};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::board::Board;

/// Least time between two writings.
const PAUSE: Duration = Duration::from_secs(1);

/// What the running agent knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Live {
    /// The agent's process.
    pub(crate) process: u32,
    /// Its version.
    pub(crate) version: String,
    /// When it started.
    pub(crate) started: Timestamp,
    /// The session with a coordinator.
    pub(crate) connection: Option<Connection>,
    /// By application.
    pub(crate) applications: BTreeMap<AppName, Condition>,
}

/// A session with a coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connection {
    /// The coordinator's address.
    pub(crate) coordinator: String,
    /// Since when.
    pub(crate) since: Timestamp,
}

/// How an application is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Condition {
    /// Whether its checks hold; nothing where it has none, or nothing is known yet.
    pub(crate) healthy: Option<bool>,
    /// What its installed releases differ in.
    pub(crate) drift: Option<Drift>,
}

/// Returns the file below `data`.
fn path(data: &Path) -> PathBuf {
    data.join("live.json")
}

/// Reads what a running agent has told; nothing where none did, or what it told cannot be read.
pub(crate) fn read(data: &Path) -> Option<Live> {
    serde_json::from_slice(&fs_err::read(path(data)).ok()?).ok()
}

/// Tells what the agent knows until `token` is cancelled.
pub(crate) async fn tell(
    data: PathBuf,
    board: Board,
    mut connection: watch::Receiver<Option<Connection>>,
    token: CancellationToken,
) {
    let (mut reports, started) = (board.watch(), Timestamp::now());
    loop {
        let live = Live {
            process: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            connection: connection.borrow_and_update().clone(),
            applications: reports.borrow_and_update().values().map(condition).collect(),
        };
        write(&path(&data), &live).await;
        tokio::select! {
            _ = reports.changed() => {}
            _ = connection.changed() => {}
            () = token.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = token.cancelled() => return,
        }
    }
}

fn condition(report: &Report) -> (AppName, Condition) {
    (report.app.clone(), Condition { healthy: report.healthy, drift: report.drift.clone() })
}

/// Writes by a rename, so that nobody reads half of it. Not synced: after a boot it says nothing.
async fn write(path: &Path, live: &Live) {
    let (path, text) = (path.to_owned(), serde_json::to_vec(live));
    let written = tokio::task::spawn_blocking(move || {
        let temporary = path.with_extension("json.sluice-tmp");
        fs_err::write(&temporary, text?)?;
        fs_err::rename(&temporary, &path)
    });
    if let Ok(Err(error)) = written.await {
        tracing::warn!(%error, "what sluice-agent status shows cannot be written");
    }
}

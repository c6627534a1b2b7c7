//! `sluice-agent status`: what stands on this host, read from disk, whether the agent runs or not; what only a running agent
//! knows is read from what it tells ([`live`]).

pub(crate) mod live;

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use sluice_common::name::AppName;
use sluice_common::order::{Drift, Phase};
use sluice_common::units::{format_duration, format_size};

use crate::history;
use crate::layout::{self, AppDir, LinkName};
use crate::lock;
use crate::observe;
use crate::stage::Space;
use crate::state::AppState;

use live::{Condition, Live};

/// A host as it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct HostStatus {
    /// What the running agent knows; nothing where none runs.
    pub(crate) agent: Option<Live>,
    /// Where applications stand.
    pub(crate) root: PathBuf,
    /// Bytes of disk free there.
    pub(crate) disk_free_bytes: u64,
    /// Bytes of disk there.
    pub(crate) disk_bytes: u64,
    /// The applications, by name.
    pub(crate) applications: Vec<Status>,
}

/// One application as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    /// The application.
    pub(crate) app: AppName,
    /// The version that `current` leads to.
    pub(crate) current: Option<String>,
    /// Since when.
    pub(crate) since: Option<Timestamp>,
    /// The version that `previous` leads to.
    pub(crate) previous: Option<String>,
    /// Where the accepted order stands.
    pub(crate) phase: Option<Phase>,
    /// Whether its checks hold, where an agent runs and knows.
    pub(crate) healthy: Option<bool>,
    /// The accepted generation.
    pub(crate) generation: Option<u64>,
    /// The rollout that asked.
    pub(crate) rollout: Option<String>,
    /// Why the order failed or went back, or why the state cannot be read.
    pub(crate) reason: Option<String>,
    /// What the installed releases differ in, where an agent runs and knows.
    pub(crate) drift: Option<Drift>,
}

/// Reads the host whose agent keeps its state in `data` and its applications below `root`.
pub(crate) fn read(data: &Path, root: &Path) -> io::Result<HostStatus> {
    let agent = if is_agent_running(data) { live::read(data) } else { None };
    let Space { free, total, .. } = Space::of(root)?;
    let mut found = Vec::new();
    for app in applications(root)? {
        let condition = agent.as_ref().and_then(|live| live.applications.get(&app));
        found.push(status(root, app.clone(), condition)?);
    }
    Ok(HostStatus {
        agent,
        root: root.to_owned(),
        disk_free_bytes: free,
        disk_bytes: total,
        applications: found,
    })
}

/// Says whether an agent holds the lock of this host.
pub(crate) fn is_agent_running(data: &Path) -> bool {
    lock::is_held(&layout::agent_lock(data))
}

fn status(root: &Path, app: AppName, condition: Option<&Condition>) -> io::Result<Status> {
    let dir = AppDir::new(root, &app);
    let version = |name| -> io::Result<Option<String>> {
        Ok(observe::link(&dir, name)?.installed().map(|installed| installed.version.to_string()))
    };
    let (current, previous) = (version(LinkName::Current)?, version(LinkName::Previous)?);
    let (state, trouble) = match AppState::load(&dir.state()) {
        Ok(state) => (state, None),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(Status {
        app,
        since: current.as_ref().and_then(|_| history::last_move(&dir.history())),
        current,
        previous,
        phase: state.as_ref().map(|state| state.progress.phase()),
        healthy: condition.and_then(|condition| condition.healthy),
        generation: state.as_ref().map(|state| state.generation.0),
        rollout: state.as_ref().map(|state| state.rollout.to_string()),
        reason: trouble.or(state.and_then(|state| state.reason)),
        drift: condition.and_then(|condition| condition.drift.clone()),
    })
}

/// Returns the applications below `root`, by name: directories with a state, a link or releases.
pub(crate) fn applications(root: &Path) -> io::Result<Vec<AppName>> {
    let mut found: Vec<AppName> = Vec::new();
    for entry in fs_err::read_dir(root)? {
        let entry = entry?;
        let is_app = ["state.toml", "current", "releases"]
            .iter()
            .any(|name| fs_err::symlink_metadata(entry.path().join(name)).is_ok());
        if is_app && let Some(app) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push(app);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the host for people, as it is at `now`.
pub(crate) fn text(host: &HostStatus, now: Timestamp) -> String {
    let HostStatus { agent, root, disk_free_bytes, disk_bytes, applications } = host;
    let ago = |then: Timestamp| format_duration(now.duration_since(then).unsigned_abs());
    let (agent, coordinator) = match agent {
        None => ("does not run; start it with systemctl start sluice-agent".to_owned(), "-".to_owned()),
        Some(Live { process, version, started, connection, applications: _ }) => (
            format!("{version}, process {process}, for {}", ago(*started)),
            match connection {
                Some(connection) => format!("{}, for {}", connection.coordinator, ago(connection.since)),
                None => "not connected; applications go on, and the agent keeps dialling".to_owned(),
            },
        ),
    };
    let disk = format!("{} free of {}", format_size(*disk_free_bytes), format_size(*disk_bytes));
    let mut text = format!(
        "agent        {agent}\ncoordinator  {coordinator}\ndisk         {disk} at {}\n",
        root.display()
    );
    if !applications.is_empty() {
        text.push('\n');
        text.push_str(&table(applications, now));
    }
    text
}

fn table(statuses: &[Status], now: Timestamp) -> String {
    let cell = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let header =
        ["APPLICATION", "CURRENT", "FOR", "PREVIOUS", "PHASE", "HEALTHY", "ROLLOUT"].map(str::to_owned);
    let mut rows = vec![header];
    for status in statuses {
        let age = status.since.map(|since| format_duration(now.duration_since(since).unsigned_abs()));
        let healthy = status.healthy.map(|healthy| if healthy { "yes" } else { "no" }.to_owned());
        rows.push([
            status.app.to_string(),
            cell(&status.current),
            cell(&age),
            cell(&status.previous),
            cell(&status.phase.map(|phase| phase.to_string())),
            cell(&healthy),
            cell(&status.rollout),
        ]);
    }
    let widths: Vec<usize> = (0..7).map(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
        if let Some(status) = number.checked_sub(1).map(|number| &statuses[number]) {
            remarks(status)
                .for_each(|remark| text.push_str(&format!("    {}\n", remark.replace('\n', "\n    "))));
        }
    }
    text
}

/// Returns what there is to say of an application below its line.
fn remarks(status: &Status) -> impl Iterator<Item = String> {
    let drift = status.drift.as_ref().filter(|drift| drift.count > 0);
    let drift = drift.map(|drift| match drift.count {
        1 => format!("drift: {}", drift.first),
        count => format!("drift: {}, and {} more", drift.first, count - 1),
    });
    status.reason.clone().into_iter().chain(drift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_root_and_a_damaged_state_are_shown() {
        let root = tempfile::tempdir().unwrap();
        let data = tempfile::tempdir().unwrap();
        assert_eq!(read(data.path(), root.path()).unwrap().applications, []);
        fs_err::create_dir(root.path().join("shop")).unwrap();
        fs_err::write(root.path().join("shop/state.toml"), "x").unwrap();
        fs_err::create_dir(root.path().join("lost+found")).unwrap();
        let host = read(data.path(), root.path()).unwrap();
        let found = &host.applications;
        assert_eq!((found.len(), found[0].app.as_str()), (1, "shop"));
        assert!(found[0].reason.as_ref().unwrap().contains("is damaged"));
        let text = text(&host, Timestamp::now());
        assert!(
            text.starts_with("agent        does not run; start it") && text.contains("\nshop         -"),
            "{text}"
        );
    }

    #[test]
    fn a_running_host_is_told_in_lines() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let drift = Drift { count: 2, first: "bin/shop of 2 has other bytes".into(), mended: 0 };
        let shop = Status {
            app: "shop".parse().unwrap(),
            current: Some("2".into()),
            since: Some(at(1_000)),
            previous: Some("1".into()),
            phase: Some(Phase::Active),
            healthy: Some(false),
            generation: Some(7),
            rollout: Some("r7".into()),
            reason: Some("answered 500".into()),
            drift: Some(drift),
        };
        let connection = Some(live::Connection { coordinator: "c:7443".into(), since: at(4_000) });
        let (process, version, started) = (7, "0.1.0".into(), at(0));
        let host = HostStatus {
            agent: Some(Live { process, version, started, connection, applications: [].into() }),
            root: "/srv/sluice".into(),
            disk_free_bytes: 1_000_000_000,
            disk_bytes: 5_000_000_000,
            applications: vec![shop],
        };
        let expected = "agent        0.1.0, process 7, for 1h16m\n\
            coordinator  c:7443, for 10m\n\
            disk         1.00 GB free of 5.00 GB at /srv/sluice\n\
            \n\
            APPLICATION  CURRENT  FOR  PREVIOUS  PHASE   HEALTHY  ROLLOUT\n\
            shop         2        1h   1         active  no       r7\n    \
            answered 500\n    \
            drift: bin/shop of 2 has other bytes, and 1 more\n";
        assert_eq!(text(&host, at(4_600)), expected);
    }
}

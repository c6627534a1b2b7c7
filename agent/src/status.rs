//! `sluice-agent status`: what stands on this host, read from disk, whether the agent runs or not.

use std::io;
use std::path::Path;

use serde::Serialize;
use sluice_common::name::AppName;
use sluice_common::order::Phase;

use crate::layout::{AppDir, LinkName};
use crate::observe;
use crate::state::AppState;

/// One application as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    /// The application.
    pub(crate) app: AppName,
    /// The version that `current` leads to.
    pub(crate) current: Option<String>,
    /// The version that `previous` leads to.
    pub(crate) previous: Option<String>,
    /// Where the accepted order stands.
    pub(crate) phase: Option<Phase>,
    /// The accepted generation.
    pub(crate) generation: Option<u64>,
    /// The rollout that asked.
    pub(crate) rollout: Option<String>,
    /// Why the order failed or went back, or why the state cannot be read.
    pub(crate) reason: Option<String>,
}

/// Reads the applications below `root`, by name.
pub(crate) fn read(root: &Path) -> io::Result<Vec<Status>> {
    let mut found = Vec::new();
    for app in applications(root)? {
        let dir = AppDir::new(root, &app);
        let version = |name| -> io::Result<Option<String>> {
            Ok(observe::link(&dir, name)?.installed().map(|installed| installed.version.to_string()))
        };
        let (current, previous) = (version(LinkName::Current)?, version(LinkName::Previous)?);
        let (state, trouble) = match AppState::load(&dir.state()) {
            Ok(state) => (state, None),
            Err(error) => (None, Some(error.to_string())),
        };
        found.push(Status {
            app,
            current,
            previous,
            phase: state.as_ref().map(|state| state.progress.phase()),
            generation: state.as_ref().map(|state| state.generation.0),
            rollout: state.as_ref().map(|state| state.rollout.to_string()),
            reason: trouble.or(state.and_then(|state| state.reason)),
        });
    }
    Ok(found)
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

/// Returns a table for people.
pub(crate) fn table(statuses: &[Status]) -> String {
    let cell = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let header = ["APPLICATION", "CURRENT", "PREVIOUS", "PHASE", "GENERATION", "ROLLOUT"].map(str::to_owned);
    let mut rows = vec![header];
    for status in statuses {
        rows.push([
            status.app.to_string(),
            cell(&status.current),
            cell(&status.previous),
            cell(&status.phase.map(|phase| phase.to_string())),
            cell(&status.generation.map(|generation| generation.to_string())),
            cell(&status.rollout),
        ]);
    }
    let widths: Vec<usize> = (0..6).map(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
        if let Some(reason) = number.checked_sub(1).and_then(|n| statuses[n].reason.as_ref()) {
            text.push_str(&format!("    {}\n", reason.replace('\n', "\n    ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_root_and_a_damaged_state_are_shown() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()).unwrap(), []);
        fs_err::create_dir(root.path().join("shop")).unwrap();
        fs_err::write(root.path().join("shop/state.toml"), "x").unwrap();
        fs_err::create_dir(root.path().join("lost+found")).unwrap();
        let found = read(root.path()).unwrap();
        assert_eq!((found.len(), found[0].app.as_str()), (1, "shop"));
        assert!(found[0].reason.as_ref().unwrap().contains("is damaged"));
        let table = table(&found);
        assert!(table.starts_with("APPLICATION  CURRENT") && table.contains("\nshop         -"), "{table}");
    }
}

//! Who needs whom: the edges between the applications of an environment, from what the file says of each.
//!
//! An edge leads from the one that needs to the one that must stand first. What cannot be met is an error that names the
//! field and what to write.

use std::collections::BTreeMap;
use std::fmt;

use sluice_common::caps;
use sluice_common::name::{AppName, Version};
use sluice_common::units::Share;

use super::file::{Application, Fallback, Instead, Need};

/// One application that must stand before another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The one that needs.
    pub from: AppName,
    /// The one that must stand first.
    pub to: AppName,
    /// What for.
    pub why: Why,
    /// Whether it is waited for only where it can come: it matches a host.
    pub optional: bool,
}

/// What an edge is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its contract, of this version where one is named.
    Contract(Option<Version>),
    /// It is the configuration.
    Configuration,
    /// It takes the place of another application.
    InsteadOf(AppName),
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, why, optional: _ } = self;
        match why {
            Why::Contract(None) => write!(f, "{from} needs {to}"),
            Why::Contract(Some(version)) => write!(f, "{from} needs {to} (contract {version})"),
            Why::Configuration => write!(f, "{from} is configured by {to}"),
            Why::InsteadOf(missing) => write!(f, "{from} needs {to} in place of {missing}"),
        }
    }
}

/// What cannot be, by field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("applications.{app}.{field}: {reason}")]
pub struct GraphError {
    /// The application.
    pub app: AppName,
    /// The field of it.
    pub field: String,
    /// What is wrong, and what to write.
    pub reason: String,
}

/// Returns the edges of the applications, each of which can be met.
pub fn edges(apps: &BTreeMap<AppName, Application>) -> Result<Vec<Edge>, GraphError> {
    let mut edges = Vec::new();
    for (app, application) in apps {
        if application.needs.len() > caps::NEEDS_MAX {
            let reason = format!("are {}; there may be at most {}", application.needs.len(), caps::NEEDS_MAX);
            return Err(GraphError { app: app.clone(), field: "needs".to_owned(), reason });
        }
        for (number, need) in application.needs.iter().enumerate() {
            let fail = |part: &str, reason: String| GraphError {
                app: app.clone(),
                field: format!("needs[{number}]{part}"),
                reason,
            };
            need_edges(apps, app, need, &fail, &mut edges)?;
        }
        for (number, configuration) in application.configuration.iter().enumerate() {
            if !apps.contains_key(configuration) {
                let (app, field) = (app.clone(), format!("configuration[{number}]"));
                return Err(GraphError { app, field, reason: unknown(configuration) });
            }
            let (from, to) = (app.clone(), configuration.clone());
            edges.push(Edge { from, to, why: Why::Configuration, optional: false });
        }
    }
    edges.sort();
    edges.dedup();
    Ok(edges)
}

fn need_edges(
    apps: &BTreeMap<AppName, Application>,
    from: &AppName,
    need: &Need,
    fail: &impl Fn(&str, String) -> GraphError,
    edges: &mut Vec<Edge>,
) -> Result<(), GraphError> {
    let Need { app, contract, optional, fallback, min_healthy } = need;
    if let Some(share @ (Share::Count(0) | Share::Percent(0))) = min_healthy {
        let reason = format!("is {share}; it must be at least 1 or 1%, or be left out");
        return Err(fail(".min_healthy", reason));
    }
    if let Some(Fallback::Words(words)) = fallback {
        check_words(words).map_err(|reason| fail(".fallback", reason))?;
    }
    match (optional, fallback) {
        (true, None) => {
            let reason = format!(
                "is missing, though {app} is optional; say what is done without it, as a text, or name what takes its place: {{ app = \"OTHER\" }}"
            );
            return Err(fail(".fallback", reason));
        }
        (false, Some(_)) => {
            return Err(fail(".fallback", "goes with optional = true".to_owned()));
        }
        (true, Some(_)) | (false, None) => {}
    }
    match apps.get(app) {
        Some(provider) => {
            provides(app, provider, contract.as_ref()).map_err(|reason| fail(".contract", reason))?;
            let why = Why::Contract(contract.clone());
            edges.push(Edge { from: from.clone(), to: app.clone(), why, optional: *optional });
        }
        None if *optional => {}
        None => return Err(fail(".app", format!("{}, or make it optional, with a fallback", unknown(app)))),
    }
    let Some(Fallback::App(Instead { app: instead })) = fallback else { return Ok(()) };
    let provider = apps.get(instead).ok_or_else(|| fail(".fallback.app", unknown(instead)))?;
    provides(instead, provider, contract.as_ref()).map_err(|reason| fail(".fallback.app", reason))?;
    let why = Why::InsteadOf(app.clone());
    // Where the one that is preferred can come, nobody waits for this one.
    edges.push(Edge { from: from.clone(), to: instead.clone(), why, optional: apps.contains_key(app) });
    Ok(())
}

/// Refuses what hooks could not be told in a variable.
fn check_words(words: &str) -> Result<(), String> {
    let max = caps::FALLBACK_BYTES_MAX;
    if words.trim().is_empty() || words.len() > max || words.chars().any(char::is_control) {
        return Err(format!("is told to hooks as a variable; write one line of 1 to {max} bytes"));
    }
    Ok(())
}

fn unknown(app: &AppName) -> String {
    format!("{app} is not in the file; add [applications.{app}]")
}

fn provides(app: &AppName, provider: &Application, contract: Option<&Version>) -> Result<(), String> {
    let Some(contract) = contract else { return Ok(()) };
    if provider.provides.contains(contract) {
        return Ok(());
    }
    let has = match provider.provides.as_slice() {
        [] => "none".to_owned(),
        some => some.iter().map(Version::as_str).collect::<Vec<_>>().join(", "),
    };
    Err(format!(
        "is {contract}, and {app} {release} provides {has}; choose a release of {app} that honours it, and say so: provides = [\"{contract}\"]",
        release = provider.release
    ))
}

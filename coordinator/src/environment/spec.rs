//! A `fleet.toml` that has been checked whole: what planners, views and the store rely on.
//!
//! Invariant: an [`Environment`] is made by [`Environment::parse`] alone, so its needs can be met, its order exists and
//! each of its rollouts has a valid spec.

use std::collections::{BTreeMap, BTreeSet};

use sluice_common::caps;
use sluice_common::name::{AppName, EnvironmentName, HostName, SiteName, Version};
use sluice_common::selector::{Labels, Selector};

use super::file::{Application, File, Need, OnFailure, SiteCalendar};
use super::graph::{Edge, edges};
use super::options::{OptionError, Options};
use super::order::{Unit, order};
use crate::rollout::{Floor, Spec};

/// A checked environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    file: File,
    /// Which hosts each application is for.
    selectors: BTreeMap<AppName, Selector>,
    edges: Vec<Edge>,
    units: Vec<Unit>,
}

/// Says what is wrong with a `fleet.toml`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is too large.
    #[error("it has {0} bytes, more than {max}; split it into several environments", max = caps::FLEET_BYTES_MAX)]
    TooLarge(usize),
    /// It is not of the form; the message has line and column.
    #[error("{0}")]
    Form(String),
    /// A field breaks a rule.
    #[error("{field}: {reason}")]
    Field {
        /// Where.
        field: String,
        /// Why, and what to write.
        reason: String,
    },
}

impl Environment {
    /// Reads and checks the text of a `fleet.toml`.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.len() > caps::FLEET_BYTES_MAX {
            return Err(ParseError::TooLarge(text.len()));
        }
        let file: File = toml::from_str(text)
            .map_err(|error| ParseError::Form(error.to_string().trim_end().to_owned()))?;
        Self::check(file)
    }

    /// Checks a file that was read or put together.
    pub fn check(file: File) -> Result<Self, ParseError> {
        let field =
            |field: &str, reason: &str| ParseError::Field { field: field.into(), reason: reason.into() };
        if file.applications.is_empty() {
            return Err(field("applications", "is empty; add [applications.NAME]"));
        }
        if file.applications.len() > caps::ENVIRONMENT_APPS_MAX {
            let reason = format!(
                "has {}, more than {}; split it into several environments",
                file.applications.len(),
                caps::ENVIRONMENT_APPS_MAX
            );
            return Err(field("applications", &reason));
        }
        let edges = edges(&file.applications).map_err(|error| ParseError::Field {
            field: format!("applications.{}.{}", error.app, error.field),
            reason: error.reason,
        })?;
        let apps: BTreeSet<AppName> = file.applications.keys().cloned().collect();
        let units = order(&apps, |app| file.applications[app].atomic, &edges).map_err(|cycle| {
            let first = cycle.edges.first().map(|edge| edge.from.to_string()).unwrap_or_default();
            ParseError::Field { field: format!("applications.{first}.needs"), reason: cycle.to_string() }
        })?;
        let mut selectors = BTreeMap::new();
        for (app, application) in &file.applications {
            selectors.insert(app.clone(), selector(app, application)?);
        }
        let environment = Self { file, selectors, edges, units };
        environment.check_rollouts()?;
        Ok(environment)
    }

    fn check_rollouts(&self) -> Result<(), ParseError> {
        let failed = |table: &str, error: OptionError| ParseError::Field {
            field: format!("{table}.{}", error.field),
            reason: error.reason,
        };
        self.file.rollout.spec(Selector::everything()).map_err(|error| failed("rollout", error))?;
        for app in self.file.applications.keys() {
            let table = format!("applications.{app}.rollout");
            let options = self.options(app, None);
            let spec = options.spec(Selector::everything()).map_err(|error| failed(&table, error))?;
            let floors = spec.floors.len() + self.floors(app).count();
            if floors > caps::FLOORS_MAX {
                let reason = format!("of {floors} needs is more than {} can ask", caps::FLOORS_MAX);
                return Err(ParseError::Field { field: format!("applications.{app}.min_healthy"), reason });
            }
            for (site, calendar) in &self.file.sites {
                let options = self.options(app, Some(calendar));
                let spec = options.spec(Selector::everything());
                spec.map_err(|error| failed(&format!("sites.{site}"), error))?;
            }
        }
        Ok(())
    }

    /// Returns its name.
    pub fn name(&self) -> &EnvironmentName {
        &self.file.environment
    }

    /// Returns what a failed rollout means for the others.
    pub fn on_failure(&self) -> OnFailure {
        self.file.on_failure
    }

    /// Returns the file that it was made of.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns the applications, by name.
    pub fn applications(&self) -> &BTreeMap<AppName, Application> {
        &self.file.applications
    }

    /// Returns the release of an application.
    pub fn release(&self, app: &AppName) -> Option<&Version> {
        self.file.applications.get(app).map(|application| &application.release)
    }

    /// Returns who needs whom.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// Returns the edges that begin at an application.
    pub fn edges_of<'a>(&'a self, app: &'a AppName) -> impl Iterator<Item = &'a Edge> {
        self.edges.iter().filter(move |edge| edge.from == *app)
    }

    /// Returns the units in the order in which they come.
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// Returns the selector of an application's hosts.
    pub fn selector(&self, app: &AppName) -> Option<&Selector> {
        self.selectors.get(app)
    }

    /// Says whether an application is for a host.
    pub fn selects(&self, app: &AppName, host: &HostName, site: &SiteName, labels: &Labels) -> bool {
        self.selectors.get(app).is_some_and(|selector| selector.matches(host, site, labels))
    }

    /// Returns the part of an application that a site is in: sites with a calendar of their own are each one, all others
    /// together are the first.
    pub fn part(&self, site: &SiteName) -> Option<&SiteName> {
        self.file.sites.get_key_value(site).map(|(site, _)| site)
    }

    /// Returns the spec of a rollout of one part of an application, and there of some hosts alone where they are named.
    pub fn spec(&self, app: &AppName, part: Option<&SiteName>, hosts: &[HostName]) -> Option<Spec> {
        let mut terms: Vec<String> = vec![self.selectors.get(app)?.to_string()];
        terms.retain(|term| term != "*");
        match part {
            Some(site) => terms.push(format!("site={site}")),
            None if self.file.sites.is_empty() => {}
            None => terms.push(format!("site notin ({})", list(self.file.sites.keys()))),
        }
        if !hosts.is_empty() {
            terms.push(format!("host in ({})", list(hosts)));
        }
        let selector = terms.join(",").parse().expect("names make a valid selector");
        let calendar = part.and_then(|site| self.file.sites.get(site));
        let spec = self.options(app, calendar).spec(selector).ok()?;
        Some(Spec { floors: spec.floors.iter().cloned().chain(self.floors(app)).collect(), ..spec })
    }

    /// Returns what those that need an application ask of it while it is rolled out.
    fn floors(&self, app: &AppName) -> impl Iterator<Item = Floor> {
        let floor = move |dependent: &AppName, need: &Need| {
            let min_healthy = need.min_healthy.filter(|_| need.app == *app)?;
            Some(Floor { by: Some(dependent.clone()), min_healthy, label: None })
        };
        let dependents = self.file.applications.iter();
        dependents.flat_map(move |(by, of)| of.needs.iter().filter_map(move |need| floor(by, need)))
    }

    fn options(&self, app: &AppName, site: Option<&SiteCalendar>) -> Options {
        let own = self.file.applications.get(app).map(|application| application.rollout.clone());
        let options = own.unwrap_or_default().over(&self.file.rollout);
        let Some(SiteCalendar { windows, freezes }) = site else { return options };
        let of_site = Options {
            windows: (!windows.is_empty()).then(|| windows.clone()),
            freezes: (!freezes.is_empty()).then(|| freezes.clone()),
            ..Options::default()
        };
        of_site.over(&options)
    }
}

fn list<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(",")
}

/// Puts the parts of a selection together: all of them must hold.
fn selector(app: &AppName, application: &Application) -> Result<Selector, ParseError> {
    let Application { selector, sites, hosts, .. } = application;
    let mut terms = Vec::new();
    if let Some(selector) = selector.as_ref().map(Selector::to_string).filter(|text| text != "*") {
        terms.push(selector);
    }
    if !sites.is_empty() {
        terms.push(format!("site in ({})", list(sites)));
    }
    if !hosts.is_empty() {
        terms.push(format!("host in ({})", list(hosts)));
    }
    if terms.is_empty() && selector.is_none() {
        return Err(ParseError::Field {
            field: format!("applications.{app}.selector"),
            reason: "is missing; write which hosts, by selector, sites or hosts, or selector = \"*\" for all"
                .into(),
        });
    }
    terms.join(",").parse().map_err(|error: sluice_common::selector::SelectorError| ParseError::Field {
        field: format!("applications.{app}.selector"),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests;

//! What is declared beside what hosts report. Pure.

use sluice_common::name::{AppName, HostName, SiteName, Version};

use super::spec::Environment;
use super::view::{HostView, View};

/// One host that is not as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The application.
    pub app: AppName,
    /// The host.
    pub host: HostName,
    /// Its site.
    pub site: SiteName,
    /// What is different.
    pub kind: Kind,
    /// The version that is declared for it.
    pub declared: Option<Version>,
    /// The version that it runs.
    pub reported: Option<Version>,
}

/// What is different.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It runs nothing of the application.
    Missing,
    /// It runs another release.
    Other,
    /// It runs the release, and is ill, or not done with its order.
    Unwell,
    /// It runs the application, though nobody declared it.
    Undeclared,
    /// It cannot be heard, so nobody knows what it runs now.
    Unheard,
}

/// Returns what is not as declared, by application and host. `in_force` names the environment whose word holds.
pub fn diff<'a>(view: &View, in_force: impl Fn(&AppName) -> Option<&'a Environment>) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (app, seen) in view {
        let declared = in_force(app).and_then(|environment| environment.release(app));
        let difference = |host: &HostView, kind, declared: Option<&Version>| Difference {
            app: app.clone(),
            host: host.name.clone(),
            site: host.site.clone(),
            kind,
            declared: declared.cloned(),
            reported: host.running.as_ref().map(|running| running.version.clone()),
        };
        for host in &seen.hosts {
            differences.extend(kind_of(host).map(|kind| difference(host, kind, declared)));
        }
        differences.extend(seen.strays.iter().map(|host| difference(host, Kind::Undeclared, None)));
    }
    differences
}

fn kind_of(host: &HostView) -> Option<Kind> {
    match (&host.running, host.package) {
        _ if !host.is_reachable => Some(Kind::Unheard),
        (None, _) => Some(Kind::Missing),
        (Some(running), Some(package)) if running.package == package => {
            (!host.is_settled || host.healthy == Some(false)).then_some(Kind::Unwell)
        }
        (Some(_), _) => Some(Kind::Other),
    }
}

#[cfg(test)]
mod tests {
    use sluice_common::digest::Digest;
    use sluice_common::order::Installed;
    use sluice_common::selector::Labels;

    use super::*;
    use crate::environment::view::AppView;

    #[test]
    fn every_way_not_to_be_as_declared() {
        let text = "environment = \"e\"\n[applications.a]\nrelease = \"2\"\nselector = \"*\"\n";
        let environment = Environment::parse(text).unwrap();
        let installed = |version: &str| Installed {
            package: Digest::of(version.as_bytes()),
            version: version.parse().unwrap(),
        };
        let host = |name: &str, running: Option<&str>| HostView {
            name: name.parse().unwrap(),
            site: "berlin".parse().unwrap(),
            labels: Labels::new(),
            platform: Some("linux-x86_64".parse().unwrap()),
            is_reachable: true,
            package: Some(Digest::of(b"2")),
            running: running.map(installed),
            healthy: Some(true),
            is_settled: running == Some("2"),
            was_tried: false,
        };
        let hosts = vec![
            host("fine", Some("2")),
            host("missing", None),
            host("other", Some("1")),
            HostView { healthy: Some(false), ..host("ill", Some("2")) },
            HostView { is_settled: false, ..host("switching", Some("2")) },
            HostView { is_reachable: false, ..host("gone", Some("2")) },
        ];
        let seen = AppView { hosts, strays: vec![host("stray", Some("1"))], ..AppView::default() };
        let view = View::from([("a".parse().unwrap(), seen)]);
        let found = diff(&view, |_| Some(&environment));
        let words: Vec<String> = found.iter().map(|d| format!("{} {:?}", d.host, d.kind)).collect();
        assert_eq!(
            words,
            [
                "missing Missing",
                "other Other",
                "ill Unwell",
                "switching Unwell",
                "gone Unheard",
                "stray Undeclared"
            ]
        );
        assert_eq!(found[1].declared.as_ref().map(Version::as_str), Some("2"));
        assert_eq!(found[1].reported.as_ref().map(Version::as_str), Some("1"));
        assert_eq!((found[5].declared.as_ref(), found[0].reported.as_ref()), (None, None));
    }
}

//! Layouts and differences of more hosts than one message has room for: said page by page.
//!
//! A page is named after the last line of the one before, as `APP/HOST`, or `APP//HOST` where the host runs the application though it is
//! not for it. What changes between two pages changes nothing of which lines are left. Pure.

use std::fmt;
use std::str::FromStr;

use prost::Message as _;
use sluice_common::caps;
use sluice_common::name::{AppName, HostName};
use sluice_proto::convert::Invalid;
use sluice_proto::v1;

use super::diff::{Difference, Kind};
use super::layout::Row;
use super::wire;

/// A line of a list: an application on a host. Declared hosts stand before others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    app: AppName,
    is_stray: bool,
    host: HostName,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.is_stray { "//" } else { "/" };
        write!(f, "{}{between}{}", self.app, self.host)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (app, rest) = text.split_once('/').ok_or_else(|| "is no page of this list".to_owned())?;
        let host = rest.strip_prefix('/');
        Ok(Self {
            app: app.parse().map_err(|error| format!("is no page of this list: {error}"))?,
            is_stray: host.is_some(),
            host: host
                .unwrap_or(rest)
                .parse()
                .map_err(|error| format!("is no page of this list: {error}"))?,
        })
    }
}

/// Reads where a page begins; nothing: at the beginning.
fn after(page: &str) -> Result<Option<Place>, Invalid> {
    match page {
        "" => Ok(None),
        page => page.parse().map(Some).map_err(|reason| Invalid::new("page", reason)),
    }
}

fn gone(app: &AppName) -> Invalid {
    Invalid::new("page", format!("is of {app}, which is no more in the layout; begin at the first page"))
}

/// Returns the page of the differences that begins there.
pub(super) fn differences(all: Vec<Difference>, page: &str) -> Result<v1::DiffEnvironmentResponse, Invalid> {
    let after = after(page)?;
    let place = |of: &Difference| Place {
        app: of.app.clone(),
        is_stray: of.kind == Kind::Undeclared,
        host: of.host.clone(),
    };
    let mut answer = v1::DiffEnvironmentResponse::default();
    let (mut room, mut last) = (caps::PAGE_BYTES, None);
    for difference in all {
        let here = place(&difference);
        if after.as_ref().is_some_and(|after| here <= *after) {
            continue;
        }
        let message = wire::difference(difference);
        let bytes = message.encoded_len();
        if let (true, Some(last)) = (bytes > room, &last) {
            answer.next_page = Place::to_string(last);
            break;
        }
        room = room.saturating_sub(bytes);
        answer.differences.push(message);
        last = Some(here);
    }
    Ok(answer)
}

/// Returns the page of the layout that begins there.
pub(super) fn layout(rows: Vec<Row>, page: &str) -> Result<v1::LayoutEnvironmentResponse, Invalid> {
    let after = after(page)?;
    let begin = match &after {
        Some(after) => rows.iter().position(|row| row.app == after.app).ok_or_else(|| gone(&after.app))?,
        None => 0,
    };
    let mut answer = v1::LayoutEnvironmentResponse::default();
    let (mut room, mut last) = (caps::PAGE_BYTES, None);
    for row in rows.into_iter().skip(begin) {
        let app = row.app.clone();
        let mut message = wire::row(row);
        let hosts = std::mem::take(&mut message.hosts);
        room = room.saturating_sub(message.encoded_len());
        answer.apps.push(message);
        for host in hosts {
            let Ok(name) = host.host.parse() else { continue };
            let here = Place { app: app.clone(), is_stray: !host.declared, host: name };
            if after.as_ref().is_some_and(|after| after.app == app && here <= *after) {
                continue;
            }
            let bytes = host.encoded_len();
            if let (true, Some(last)) = (bytes > room, &last) {
                answer.next_page = Place::to_string(last);
                return Ok(answer);
            }
            room = room.saturating_sub(bytes);
            answer.apps.last_mut().expect("one was just pushed").hosts.push(host);
            last = Some(here);
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use sluice_common::digest::Digest;
    use sluice_common::order::Installed;
    use sluice_common::selector::Labels;

    use super::super::file::Application;
    use super::super::spec::Environment;
    use super::super::view::HostView;
    use super::*;

    const HOSTS: usize = 20_000;

    fn application() -> Application {
        let text = "environment = \"e\"\n[applications.a]\nrelease = \"2\"\nselector = \"*\"\n";
        Environment::parse(text).unwrap().applications().values().next().unwrap().clone()
    }

    fn host(number: usize) -> HostView {
        let package = Digest::of(b"2");
        HostView {
            name: format!("a-host-{number:05}").parse().unwrap(),
            site: "berlin".parse().unwrap(),
            labels: Labels::from([("rack".to_owned(), format!("r{}", number % 100))]),
            platform: Some("linux-x86_64".parse().unwrap()),
            is_reachable: true,
            package: Some(package),
            running: Some(Installed { package, version: "2".parse().unwrap() }),
            healthy: Some(true),
            is_settled: true,
            was_tried: false,
        }
    }

    /// Three applications, the first of which in the order comes last by name, the second on no host.
    fn rows() -> Vec<Row> {
        let row = |(step, (app, hosts)): (usize, (&str, usize))| Row {
            app: app.parse().unwrap(),
            application: application(),
            selector: "*".to_owned(),
            step,
            needs: Vec::new(),
            hosts: (0..hosts).map(host).collect(),
            strays: (0..3).map(host).collect(),
        };
        [("z", HOSTS), ("b", 0), ("a", HOSTS)].into_iter().enumerate().map(row).collect()
    }

    #[test]
    fn pages_of_a_layout_fit_and_name_each_host_once() {
        let (mut lines, mut apps, mut page, mut pages) = (Vec::new(), Vec::new(), String::new(), 0);
        let rows = rows();
        loop {
            let answer = layout(rows.clone(), &page).unwrap();
            assert!(answer.encoded_len() < caps::GRPC_MESSAGE_BYTES_MAX / 2);
            for app in answer.apps {
                lines
                    .extend(app.hosts.iter().map(|host| (app.app.clone(), host.declared, host.host.clone())));
                apps.push(app.app);
            }
            pages += 1;
            if answer.next_page.is_empty() {
                break;
            }
            page = answer.next_page;
        }
        apps.dedup();
        assert_eq!((apps.join(" ").as_str(), lines.len()), ("z b a", 2 * HOSTS + 9));
        let once: std::collections::BTreeSet<_> = lines.iter().collect();
        assert!(pages > 2 && once.len() == lines.len(), "{pages} pages");
        assert!(layout(rows, "gone/h1").unwrap_err().to_string().contains("begin at the first page"));
        assert!(layout(Vec::new(), "").unwrap().apps.is_empty());
    }

    #[test]
    fn pages_of_differences_fit_and_name_each_once() {
        let difference = |app: &str, number: usize, kind| Difference {
            app: app.parse().unwrap(),
            host: host(number).name,
            site: "berlin".parse().unwrap(),
            kind,
            declared: Some("a-version-of-some-length-2".parse().unwrap()),
            reported: Some("a-version-of-some-length-1".parse().unwrap()),
        };
        let mut all = Vec::new();
        for app in ["a", "b"] {
            all.extend((0..HOSTS).map(|number| difference(app, number, Kind::Other)));
            all.extend((0..3).map(|number| difference(app, number, Kind::Undeclared)));
        }
        let (mut said, mut page, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let answer = differences(all.clone(), &page).unwrap();
            assert!(answer.encoded_len() < caps::GRPC_MESSAGE_BYTES_MAX / 2);
            said.extend(answer.differences);
            pages += 1;
            if answer.next_page.is_empty() {
                break;
            }
            page = answer.next_page;
        }
        let whole: Vec<_> = all.into_iter().map(wire::difference).collect();
        assert!(pages > 2 && said == whole, "{pages} pages, {} of {}", said.len(), whole.len());
    }

    #[test]
    fn a_page_that_nobody_has_named_is_refused() {
        for page in ["h1", "a/", "a/b/c", "/h1", "a///h"] {
            assert_eq!(differences(Vec::new(), page).unwrap_err().field, "page", "{page}");
        }
    }
}

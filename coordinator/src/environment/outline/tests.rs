//! What applying would do, on paper.

use sluice_common::digest::Digest;
use sluice_common::order::Installed;
use sluice_common::selector::Labels;

use super::*;

fn host(name: &str, site: &str, running: Option<&str>) -> HostView {
    let installed = |version: &str| Installed {
        package: Digest::of(version.as_bytes()),
        version: version.parse().unwrap(),
    };
    HostView {
        name: name.parse().unwrap(),
        site: site.parse().unwrap(),
        labels: Labels::new(),
        platform: Some("linux-x86_64".parse().unwrap()),
        is_reachable: true,
        package: Some(Digest::of(b"2")),
        running: running.map(installed),
        healthy: Some(true),
        is_settled: running == Some("2"),
        was_tried: false,
    }
}

fn view(apps: &[&str], hosts: &[HostView]) -> View {
    let seen = AppView { is_released: true, hosts: hosts.to_vec(), ..AppView::default() };
    apps.iter().map(|app| (app.parse().unwrap(), seen.clone())).collect()
}

const FILE: &str = r#"environment = "e"
[rollout]
canary = "1"
batch = "2"
bake = "10m"
host_deadline = "5m"
[sites.lisbon]
windows = ["daily 02:00-05:00 Europe/Lisbon"]
[applications.a]
release = "2"
selector = "*"
[applications.b]
release = "2"
selector = "*"
needs = [{ app = "a" }]
[applications.c]
release = "2"
selector = "*"
"#;

#[test]
fn rollouts_batches_and_steps() {
    let environment = Environment::parse(FILE).unwrap();
    let hosts = [
        host("h1", "berlin", Some("1")),
        host("h2", "berlin", Some("1")),
        host("h3", "berlin", None),
        host("h4", "berlin", Some("2")),
        host("l1", "lisbon", Some("1")),
    ];
    let outline = outline(&environment, None, &view(&["a", "b", "c"], &hosts));
    let steps: Vec<String> = outline.apps.iter().map(|app| format!("{}{}", app.step, app.app)).collect();
    assert_eq!(steps, ["1a", "1c", "2b"]);
    let first = &outline.apps[0];
    assert_eq!((first.hosts, first.settled), (5, 1));
    let from: Vec<String> =
        first.from.iter().map(|(v, n)| format!("{} {n}", v.as_ref().map_or("-", Version::as_str))).collect();
    assert_eq!(from, ["- 1", "1 3"]);
    let batches = |part: &Part| {
        let batch = |batch: &Vec<HostName>| batch.iter().map(HostName::as_str).collect::<Vec<_>>().join(" ");
        part.batches.iter().map(batch).collect::<Vec<_>>().join(" | ")
    };
    assert_eq!(first.parts.iter().map(batches).collect::<Vec<_>>(), ["h1 | h2 h3 | h4", "l1"]);
    assert_eq!(first.parts[1].site.as_ref().map(SiteName::as_str), Some("lisbon"));
    assert_eq!(first.parts[0].longest(), Duration::from_secs(45 * 60));
}

#[test]
fn what_waits_is_said_before_it_waits() {
    let environment = Environment::parse(FILE).unwrap();
    let mut view = view(&["a", "b", "c"], &[host("h1", "berlin", None)]);
    view.get_mut(&"a".parse::<AppName>().unwrap()).unwrap().hosts.clear();
    view.get_mut(&"c".parse::<AppName>().unwrap()).unwrap().closed_by = Some("r7".parse().unwrap());
    let outline = outline(&environment, None, &view);
    let words: Vec<String> =
        outline.apps.iter().flat_map(|app| &app.blockers).map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "a: no host matches its selection yet",
            "c: closed to new rollouts since r7 failed; run: sluice app reopen c --cause \"...\"",
            "b: waiting for a host that a is for: b needs a",
        ]
    );
}

#[test]
fn a_contract_may_not_be_dropped_under_what_uses_it() {
    let file = |api: &str, provides: &str, contract: &str, atomic: &str| {
        let text = format!(
            "environment = \"e\"\n[applications.api]\nrelease = \"{api}\"\nselector = \"*\"\nprovides = [{provides}]\n{atomic}\n\
             [applications.web]\nrelease = \"1\"\nselector = \"*\"\nneeds = [{{ app = \"api\", contract = \"{contract}\" }}]\n{atomic}"
        );
        Environment::parse(&text).unwrap()
    };
    let standing = file("1", "\"1\"", "1", "");
    for (name, wanted, count) in [
        ("both", file("2", "\"1\", \"2\"", "2", ""), 0),
        ("dropped", file("2", "\"2\"", "2", ""), 1),
        ("as one", file("2", "\"2\"", "2", "atomic = true"), 0),
        ("the same release", file("1", "\"1\"", "1", ""), 0),
    ] {
        let problems = outline(&wanted, Some(&standing), &View::new()).problems;
        assert_eq!(problems.len(), count, "{name}: {problems:?}");
    }
    assert_eq!(outline(&file("1", "\"1\"", "1", ""), None, &View::new()).problems.len(), 0);
}

#[test]
fn what_is_no_more_in_the_file_is_named() {
    let standing = Environment::parse(FILE).unwrap();
    let (kept, _) = FILE.split_once("[applications.c]").unwrap();
    let wanted = Environment::parse(kept).unwrap();
    let left: Vec<String> =
        outline(&wanted, Some(&standing), &View::new()).left.iter().map(ToString::to_string).collect();
    assert_eq!(left, ["c"]);
}

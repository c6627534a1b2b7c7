//! The rollouts of a plan, one after another on one fleet.

use sluice_common::units::Share;

use super::super::graph::Edge;
use super::super::outline::PlannedApp;
use super::*;
use crate::rollout::forecast::link::Limits;
use crate::rollout::forecast::{Disk, Part, Transfer};
use crate::rollout::sim::fixture::{at, package, rollout_of};
use crate::rollout::{Contact, HostView, Spec, Strategy};

/// Reads `b>a` as: b needs a.
fn environment(edges: &str) -> Environment {
    let mut text = String::from("environment = \"e\"\n");
    for word in edges.split_whitespace() {
        let (app, needs) = word.split_once('>').unwrap_or((word, ""));
        text += &format!("[applications.{app}]\nrelease = \"2\"\nselector = \"*\"\n");
        if !needs.is_empty() {
            text += &format!("needs = [{{ app = \"{needs}\" }}]\n");
        }
    }
    Environment::parse(&text).unwrap()
}

/// Two hosts at once over 100 kB/s, each sent 1 MB: staged after 20 s, up after 5 s, baked after 10 s.
fn prospect() -> Prospect {
    let spec = Spec {
        strategy: Strategy::AllAtOnce,
        max_unavailable: Share::Percent(100),
        bake: Duration::from_secs(10),
        ..Spec::default()
    };
    let rollout = rollout_of(2, spec);
    let heard = HostView { contact: Some(Contact { since: at(0), last: at(0) }), ..HostView::default() };
    let fleet = rollout.members.iter().map(|member| (member.host.clone(), heard.clone())).collect();
    let transfer =
        Transfer { base: None, target: package(), wire_bytes: 1_000_000, frames: 0, disk_bytes: 3_000_000 };
    let platform = "linux-x86_64".parse().unwrap();
    let part = Part { transfer: Some(transfer), bake: Duration::ZERO, platform };
    let sites = HashMap::from([("berlin".parse().unwrap(), "100kB/s".parse().unwrap())]);
    Prospect {
        rollout,
        fleet,
        parts: vec![part; 2],
        limits: Limits { sites, ..Limits::default() },
        disks: HashMap::new(),
        obstacles: Vec::new(),
        begins: at(0),
    }
}

fn ahead(app: &str) -> Ahead {
    Ahead { app: app.parse().unwrap(), site: None, prospect: Ok(prospect()) }
}

fn plan(apps: &[(&str, usize, usize)]) -> Outline {
    let app = |(app, hosts, settled): &(&str, usize, usize)| PlannedApp {
        app: app.parse().unwrap(),
        step: 1,
        together: Vec::new(),
        hosts: *hosts,
        settled: *settled,
        from: BTreeMap::new(),
        parts: Vec::new(),
        blockers: Vec::new(),
    };
    Outline { apps: apps.iter().map(app).collect(), problems: Vec::new(), left: Vec::new() }
}

/// Says when each rollout begins, has everything and ends, in whole seconds.
fn times(foresight: &Foresight) -> String {
    let seconds = |time: Option<Duration>| time.map_or("-".to_owned(), |time| time.as_secs().to_string());
    let part = |part: &Foreseen| {
        let since =
            |time: Option<Duration>| seconds(part.begins.zip(time).map(|(begins, time)| begins + time));
        let Foreseen { app, begins, forecast, .. } = part;
        format!("{app} {} {} {}", seconds(*begins), since(forecast.staged), since(forecast.ends))
    };
    foresight.parts.iter().map(part).collect::<Vec<_>>().join(", ")
}

#[test]
fn each_begins_when_what_it_needs_stands() {
    let chain = environment("a b>a");
    let said = foresee(&chain, &plan(&[]), vec![ahead("a"), ahead("b")], at(0));
    assert_eq!(times(&said), "a 0 20 35, b 35 55 70");
    assert_eq!(said.ends.unwrap().as_secs(), 70);
    // What stands is not waited for.
    let said = foresee(&chain, &plan(&[("a", 2, 2)]), vec![ahead("b")], at(0));
    assert_eq!(times(&said), "b 0 20 35");
    // What no host is for never stands.
    let said = foresee(&chain, &plan(&[("a", 0, 0)]), vec![ahead("b")], at(0));
    assert_eq!((times(&said).as_str(), said.ends), ("b - - -", None));
    assert!(said.sites.values().all(|site| site.bytes > 2_000_000 && site.staged.is_none()));
}

#[test]
fn those_of_one_step_share_the_links() {
    let said = foresee(&environment("a b"), &plan(&[]), vec![ahead("a"), ahead("b")], at(0));
    assert_eq!(times(&said), "a 0 40 55, b 0 40 55");
    let site = said.sites.values().next().unwrap();
    assert_eq!((site.changing, site.staged.unwrap().as_secs()), (2, 40));
    // Parts come one after another.
    let said = foresee(&environment("a"), &plan(&[]), vec![ahead("a"), ahead("a")], at(0));
    assert_eq!(times(&said), "a 0 20 35, a 35 55 70");
}

#[test]
fn what_earlier_rollouts_put_on_a_disk_is_not_free_for_later_ones() {
    let roomy = |app: &str, free_bytes| {
        let mut one = ahead(app);
        let disk = Disk { bytes: 10_000_000, free_bytes, floor_bytes: None };
        one.prospect.as_mut().unwrap().disks.insert("h1".parse().unwrap(), disk);
        one
    };
    // Each leaves 2 MB and takes one more while it comes; 1 MB stays free.
    let short = |free_bytes| {
        let ahead = vec![roomy("a", free_bytes), roomy("b", free_bytes)];
        foresee(&environment("a b>a"), &plan(&[]), ahead, at(0)).short_of_disk
    };
    assert_eq!(short(6_000_000), BTreeMap::new());
    let expected = BTreeMap::from([("h1".parse().unwrap(), (5_000_000, 4_999_999))]);
    assert_eq!(short(5_999_999), expected);
}

#[test]
fn what_cannot_be_worked_out_holds_up_what_needs_it() {
    let lost = Ahead { prospect: Err("no chunk".to_owned()), ..ahead("a") };
    let said = foresee(&environment("a b>a c"), &plan(&[]), vec![lost, ahead("b"), ahead("c")], at(0));
    assert_eq!((times(&said).as_str(), said.ends), ("c 0 20 35, b - - -", None));
    assert_eq!(said.unforeseen, [("a".parse().unwrap(), "no chunk".to_owned())]);
}

#[test]
fn an_optional_need_that_no_host_is_for_holds_nobody_up() {
    let text = "environment = \"e\"\n[applications.a]\nrelease = \"2\"\nselector = \"*\"\n\
        [applications.b]\nrelease = \"2\"\nselector = \"*\"\nneeds = [{ app = \"a\", optional = true, fallback = \"none\" }]\n";
    let environment = Environment::parse(text).unwrap();
    assert!(environment.edges().iter().any(|edge: &Edge| edge.optional));
    let said = foresee(&environment, &plan(&[("a", 0, 0)]), vec![ahead("b")], at(0));
    assert_eq!(times(&said), "b 0 20 35");
}

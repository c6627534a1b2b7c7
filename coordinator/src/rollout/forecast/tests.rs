//! Links share fairly, and a forecast says what a rollout would do.

use sluice_common::units::Share;

use super::link::{Limits, Load, arrivals, socket_bytes};
use super::*;
use crate::rollout::sim::fixture::{at, package, rollout_of};
use crate::rollout::{Contact, HostView, Spec, Strategy};

fn limits(total: Option<&str>, sites: &[(&str, &str)]) -> Limits {
    let site = |(name, rate): &(&str, &str)| (name.parse().unwrap(), rate.parse().unwrap());
    let (total, sites) = (total.map(|rate| rate.parse().unwrap()), sites.iter().map(site).collect());
    Limits { total, sites, hosts: HashMap::new() }
}

#[test]
fn links_are_shared_fairly() {
    let (berlin, rome) = ("berlin".parse::<SiteName>().unwrap(), "rome".parse::<SiteName>().unwrap());
    let arrive_by = |loads: &[(&SiteName, Option<&str>, u64)], limits: &Limits| {
        let rate = |limit: &Option<&str>| limit.map(|rate| rate.parse().unwrap());
        let load = loads.iter().map(|(site, limit, bytes)| Load { site, limit: rate(limit), bytes: *bytes });
        let loads: Vec<Load<'_>> = load.collect();
        let seconds = arrivals(&loads, limits).into_iter().map(|at| at.as_secs_f64().round() as u64);
        seconds.collect::<Vec<_>>()
    };
    let arrive = |loads: &[(&SiteName, u64)], limits: &Limits| {
        arrive_by(&loads.iter().map(|(site, bytes)| (*site, None, *bytes)).collect::<Vec<_>>(), limits)
    };
    let thin = limits(None, &[("berlin", "1MB/s"), ("rome", "2MB/s")]);
    // Each site by itself; in one, two hosts share, and what the smaller leaves is the larger's.
    let mb = 1_000_000;
    assert_eq!(arrive(&[(&berlin, 10 * mb), (&rome, 10 * mb)], &thin), [10, 5]);
    assert_eq!(arrive(&[(&berlin, 10 * mb), (&berlin, 30 * mb)], &thin), [20, 40]);
    // The coordinator's limit binds rome, whose hosts take what berlin leaves.
    let both = limits(Some("2MB/s"), &[("berlin", "500kB/s"), ("rome", "20MB/s")]);
    assert_eq!(arrive(&[(&berlin, 10 * mb), (&rome, 15 * mb)], &both), [20, 10]);
    assert_eq!(arrive(&[(&berlin, 0), (&rome, 125 * mb)], &limits(None, &[])), [0, 1]);
    assert_eq!(arrive(&[], &thin), Vec::<u64>::new());
    // A host's own limit binds it alone; what it leaves of its site's and of the coordinator's the others take.
    let own = [(&rome, Some("500kB/s"), 10 * mb), (&rome, None, 15 * mb)];
    assert_eq!(arrive_by(&own, &limits(None, &[])), [20, 0]);
    assert_eq!(arrive_by(&own, &thin), [20, 10]);
    assert_eq!(arrive_by(&own, &limits(Some("2MB/s"), &[])), [20, 10]);
    let three = [(&rome, Some("500kB/s"), 10 * mb), (&rome, None, 10 * mb), (&berlin, None, 10 * mb)];
    let both = limits(Some("2500kB/s"), &[("rome", "1500kB/s")]);
    assert_eq!(arrive_by(&three, &both), [20, 10, 10]);
}

#[test]
fn a_link_is_limited_by_whatever_limits_it() {
    let (host, site) = ("h1".parse().unwrap(), "rome".parse().unwrap());
    let open = limits(None, &[("berlin", "1MB/s")]);
    let by_itself = Limits { hosts: [(host, "1MB/s".parse().unwrap())].into(), ..open.clone() };
    for (name, limits, expected) in [
        ("nothing", &open, Link::Open),
        ("the coordinator", &limits(Some("1MB/s"), &[]), Link::Limited),
        ("its site", &limits(None, &[("rome", "1MB/s")]), Link::Limited),
        ("itself", &by_itself, Link::Limited),
    ] {
        assert_eq!(limits.link(&"h1".parse().unwrap(), &site), expected, "{name}");
    }
}

fn prospect(hosts: usize, spec: Spec) -> Prospect {
    let rollout = rollout_of(hosts, spec);
    let view = HostView { contact: Some(Contact { since: at(0), last: at(0) }), ..HostView::default() };
    let fleet = rollout.members.iter().map(|member| (member.host.clone(), view.clone())).collect();
    let transfer =
        Transfer { base: None, target: package(), wire_bytes: 1_000_000, frames: 10, disk_bytes: 3_000_000 };
    let platform: Platform = "linux-x86_64".parse().unwrap();
    let part = Part { transfer: Some(transfer), bake: Duration::from_secs(10), platform };
    Prospect {
        rollout,
        fleet,
        parts: vec![part; hosts],
        limits: limits(None, &[("berlin", "100kB/s")]),
        disks: HashMap::new(),
        obstacles: Vec::new(),
        begins: at(0),
    }
}

fn canary() -> Spec {
    let strategy = Strategy::Canary { canary: Share::Count(1), batch: Share::Percent(100) };
    Spec { strategy, max_unavailable: Share::Percent(100), approvals: 2, ..Spec::default() }
}

#[test]
fn a_forecast_adds_links_switches_and_bakes() {
    let prospect = prospect(4, canary());
    let said = forecast(&prospect);
    let bytes = 4 * socket_bytes(prospect.parts[0].transfer.unwrap());
    let site = &said.sites[&"berlin".parse().unwrap()];
    assert_eq!((site.hosts, site.changing, site.bytes), (4, 4, bytes));
    let staged = said.staged.unwrap();
    assert!(staged.as_secs() == bytes / 100_000 && site.staged == staged, "{staged:?}");
    // 5 s to come up, 10 s of the host's own gate, 30 s of the batch's: twice. Approvals are taken as given.
    assert_eq!(said.ends.unwrap(), staged + Duration::from_secs(2 * 45));
    assert!(said.fits_window && said.waits.iter().all(|wait| wait.kind != Kind::Approvals), "{said:?}");
    assert_eq!(said.transfers.values().collect::<Vec<_>>(), [&4]);
}

#[test]
fn what_does_not_fit_the_window_or_the_disk_is_said() {
    let mut spec = canary();
    // The simulated day begins at 08:00; a batch may take five minutes, and staging takes 41 s.
    spec.host_deadline = Duration::from_secs(270);
    spec.calendar.windows.push("daily 08:00-08:07 UTC".parse().unwrap());
    let mut prospect = prospect(4, spec);
    assert!(forecast(&prospect).fits_window);
    prospect.parts.iter_mut().for_each(|part| part.bake = Duration::from_secs(100));
    let said = forecast(&prospect);
    assert!(!said.fits_window && said.ends.unwrap() > Duration::from_secs(23 * 3600), "{said:?}");
    let full = Disk { bytes: 100_000_000, free_bytes: 12_000_000, floor_bytes: None };
    let roomy = Disk { free_bytes: 13_000_000, ..full };
    prospect.disks.insert("h1".parse().unwrap(), full);
    prospect.disks.insert("h2".parse().unwrap(), roomy);
    prospect.disks.insert("h3".parse().unwrap(), Disk { floor_bytes: Some(9_000_000), ..full });
    prospect.disks.insert("h4".parse().unwrap(), Disk { floor_bytes: Some(11_000_000), ..roomy });
    let short = forecast(&prospect).short_of_disk;
    let lacks = |host: &str| (host.parse().unwrap(), 3_000_000, 2_000_000);
    assert_eq!(short, [lacks("h1"), lacks("h4")]);
}

#[test]
fn hosts_that_run_the_release_are_sent_nothing() {
    let mut prospect = prospect(3, canary());
    prospect.parts[2].transfer = None;
    let said = forecast(&prospect);
    let site = said.sites.values().next().unwrap();
    assert_eq!((site.hosts, site.changing), (3, 2));
    assert_eq!(said.transfers.values().sum::<usize>(), 2);
}

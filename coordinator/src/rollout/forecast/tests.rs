//! Links share fairly, and a forecast says what a rollout would do.

use sluice_common::units::Share;

use super::link::{Limits, Load, arrivals, socket_bytes};
use super::*;
use crate::rollout::sim::fixture::{at, package, rollout_of};
use crate::rollout::{Contact, HostView, Spec, Strategy};

fn limits(total: Option<&str>, sites: &[(&str, &str)]) -> Limits {
    let site = |(name, rate): &(&str, &str)| (name.parse().unwrap(), rate.parse().unwrap());
    Limits { total: total.map(|rate| rate.parse().unwrap()), sites: sites.iter().map(site).collect() }
}

#[test]
fn links_are_shared_fairly() {
    let (berlin, rome) = ("berlin".parse::<SiteName>().unwrap(), "rome".parse::<SiteName>().unwrap());
    let arrive = |loads: &[(&SiteName, u64)], limits: &Limits| {
        let loads: Vec<Load<'_>> = loads.iter().map(|(site, bytes)| Load { site, bytes: *bytes }).collect();
        let seconds = arrivals(&loads, limits).into_iter().map(|at| at.as_secs_f64().round() as u64);
        seconds.collect::<Vec<_>>()
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
    let full = Disk { bytes: 100_000_000, free_bytes: 12_000_000 };
    let roomy = Disk { free_bytes: 13_000_000, ..full };
    prospect.disks.insert("h1".parse().unwrap(), full);
    prospect.disks.insert("h2".parse().unwrap(), roomy);
    let short = forecast(&prospect).short_of_disk;
    assert_eq!(short, [("h1".parse().unwrap(), 3_000_000, 2_000_000)]);
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

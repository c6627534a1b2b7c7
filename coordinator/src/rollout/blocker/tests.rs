//! Every blocker in words.

use super::*;

#[test]
fn every_blocker_says_itself_in_words() {
    let host = |name: &str| name.parse::<HostName>().unwrap();
    let web = || host("web-3");
    let seconds = Duration::from_secs;
    let berlin = |text: &str| format!("{text}[Europe/Berlin]").parse::<Zoned>().unwrap();
    for (blocker, words) in [
        (Blocker::Paused { reason: "by alice: lunch".into() }, "paused: by alice: lunch"),
        (
            Blocker::StageFirst {
                staged: 4,
                needed: 6,
                unreachable: 1,
                fetched_bytes: 2_000_000,
                fetch_total_bytes: 8_000_000,
            },
            "staging: 4 of 6 hosts, 2.00 MB of 8.00 MB on the way, 1 unreachable",
        ),
        (
            Blocker::Candidates { up: 3, needed: 4, unreachable: 1 },
            "candidates: 3 of 4 hosts have theirs up, 1 unreachable",
        ),
        (Blocker::Approvals { approved: vec![], needed: 1 }, "waiting for 1 of 1 approvals"),
        (
            Blocker::Approvals { approved: vec!["alice".parse().unwrap()], needed: 2 },
            "waiting for 1 of 2 approvals (alice approved)",
        ),
        (
            Blocker::Approvals { approved: ["alice", "bob"].map(|o| o.parse().unwrap()).to_vec(), needed: 3 },
            "waiting for 1 of 3 approvals (alice, bob approved)",
        ),
        (
            Blocker::Frozen { until: berlin("2026-11-23T20:00"), reason: "black week".into() },
            "frozen until 2026-11-23 20:00 Europe/Berlin: black week",
        ),
        (
            Blocker::Window { opens: Some(berlin("2026-11-23T20:00")), needs: None },
            "waiting for the window that opens at 2026-11-23 20:00 Europe/Berlin",
        ),
        (
            Blocker::Window { opens: Some(berlin("2026-11-23T20:00")), needs: Some(seconds(630)) },
            "waiting for the window that opens at 2026-11-23 20:00 Europe/Berlin (up to 10m30s needed, the open one closes before)",
        ),
        (Blocker::Window { opens: None, needs: None }, "waiting for a window, and none opens within a year"),
        (
            Blocker::Staging { host: web(), fetched_bytes: 0, fetch_total_bytes: 0 },
            "waiting for web-3 to stage",
        ),
        (
            Blocker::Unreachable { host: web(), silent: Some(Duration::from_millis(39_200)) },
            "waiting for web-3 to report (unreachable for 40s)",
        ),
        (
            Blocker::Unreachable { host: web(), silent: None },
            "waiting for web-3 to report (not heard since the coordinator started)",
        ),
        (
            Blocker::Switching { host: web(), phase: Some(Phase::Validating), waited: seconds(70) },
            "waiting for web-3 (validating, ordered 1m10s ago)",
        ),
        (
            Blocker::Switching { host: web(), phase: None, waited: seconds(0) },
            "waiting for web-3 to take its order of 0s ago",
        ),
        (Blocker::Unhealthy { host: web(), reason: "503".into() }, "web-3 is unhealthy: 503"),
        (
            Blocker::Unavailable { domain: None, out: 3, max: 3, hosts: vec![host("a"), host("b")] },
            "max_unavailable: 3 of 3 hosts out (a, b and 1 more)",
        ),
        (
            Blocker::Unavailable { domain: None, out: 1, max: 1, hosts: vec![host("a")] },
            "max_unavailable: 1 of 1 hosts out (a)",
        ),
        (
            Blocker::Unavailable { domain: Some("rack r2".into()), out: 1, max: 1, hosts: vec![host("a")] },
            "rack r2: 1 of 1 hosts out (a)",
        ),
        (
            Blocker::Floor {
                by: Some("shop-web".parse().unwrap()),
                app: "db".parse().unwrap(),
                domain: None,
                needs: 2,
                total: 3,
                serving: 2,
            },
            "shop-web needs 2 of 3 hosts of db in service: 2 are",
        ),
        (
            Blocker::Floor {
                by: None,
                app: "db".parse().unwrap(),
                domain: Some("site berlin".into()),
                needs: 1,
                total: 2,
                serving: 1,
            },
            "min_healthy needs 1 of 2 hosts of db (site berlin) in service: 1 is",
        ),
        (
            Blocker::Together { apps: vec!["basket".parse().unwrap(), "stock".parse().unwrap()] },
            "staged, and waiting for basket, stock, which it comes together with",
        ),
        (
            Blocker::Baking { batch: 1, left: seconds(12), bake: seconds(30) },
            "baking batch 2: 12s of 30s left",
        ),
        (
            Blocker::Check {
                name: "errors".parse().unwrap(),
                words: Some("no data".into()),
                left: seconds(240),
            },
            "check errors is inconclusive: no data (fails in 4m)",
        ),
        (Blocker::MoreHosts { count: 7 }, "and 7 more hosts"),
    ] {
        assert_eq!(blocker.to_string(), words);
    }
}

#[test]
fn only_so_many_hosts_are_named() {
    let mut blockers = Blockers::default();
    for i in 0..100 {
        blockers.push_host(|| Blocker::Unreachable { host: format!("h{i}").parse().unwrap(), silent: None });
    }
    let list = blockers.finish();
    assert_eq!(list.len(), HOSTS_NAMED_MAX + 1);
    assert_eq!(list.last(), Some(&Blocker::MoreHosts { count: 100 - HOSTS_NAMED_MAX }));
}

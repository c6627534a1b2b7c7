use clap::Parser as _;

use super::*;
use crate::cli::args::{Cli, Command};

fn spec_of(arguments: &[&str]) -> v1::RolloutSpec {
    let line = [&["sluice", "rollout", "start", "shop", "1.2"], arguments].concat();
    match Cli::try_parse_from(line).unwrap().command {
        Command::Rollout(RolloutCommand::Start(args)) => spec(&args.what),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_try_is_for_the_hosts_that_failed() {
    let host = |name: &str, outcome: v1::HostOutcome| v1::RolloutHost {
        name: name.into(),
        outcome: outcome.into(),
        ..Default::default()
    };
    let hosts = vec![
        host("h1", v1::HostOutcome::Updated),
        host("h2", v1::HostOutcome::Failed),
        host("h3", v1::HostOutcome::RolledBack),
        host("h4", v1::HostOutcome::Waiting),
    ];
    let rollout = v1::Rollout {
        id: "r5".into(),
        app: "shop".into(),
        version: "1".into(),
        ended_unix_ms: 1,
        spec: Some(v1::RolloutSpec { bake_ms: 7, emergency: "leak".into(), ..Default::default() }),
        batches: vec![v1::RolloutBatch { hosts, ..Default::default() }],
        ..Default::default()
    };
    let request = again(&rollout).unwrap();
    assert_eq!(request.retry_of, "r5");
    let spec = request.spec.unwrap();
    assert_eq!((spec.selector.as_str(), spec.bake_ms, spec.emergency.as_str()), ("host in (h2,h3)", 7, ""));
    assert_eq!(again(&v1::Rollout { ended_unix_ms: 0, ..rollout.clone() }), None);
    assert_eq!(again(&v1::Rollout { batches: Vec::new(), ..rollout }), None);
}

#[test]
fn options_become_a_whole_spec() {
    let standard = spec_of(&[]);
    assert_eq!((standard.canary.as_str(), standard.batch.as_str()), ("1", "25%"));
    assert_eq!((standard.max_unavailable.as_str(), standard.max_failures.as_str()), ("25%", "0"));
    assert_eq!((standard.bake_ms, standard.host_deadline_ms), (30_000, 600_000));
    assert_eq!(standard.strategy(), v1::StrategyKind::Canary);
    assert_eq!(standard.on_failure(), v1::OnFailure::RollBack);
    let rolling = spec_of(&["--canary", "0", "--batch", "2", "-l", "site=berlin", "--on-failure", "pause"]);
    assert_eq!(rolling.strategy(), v1::StrategyKind::Rolling);
    assert_eq!((rolling.canary.as_str(), rolling.batch.as_str()), ("", "2"));
    assert_eq!((rolling.selector.as_str(), rolling.max_unavailable.as_str()), ("site=berlin", "2"));
    assert_eq!(rolling.on_failure(), v1::OnFailure::Pause);
    let waves = spec_of(&["--waves", "1,5%,100%", "--stage-first", "98%"]);
    assert_eq!(waves.strategy(), v1::StrategyKind::Waves);
    assert_eq!((waves.waves.join(" ").as_str(), waves.stage_first.as_str()), ("1 5% 100%", "98%"));
    assert_eq!((waves.canary.as_str(), waves.max_unavailable.as_str()), ("", "25%"));
    let by_rack = spec_of(&["--domain", "rack"]);
    assert_eq!((by_rack.domain_label.as_str(), by_rack.domain_max_unavailable.as_str()), ("rack", "1"));
    assert_eq!(standard.domain_max_unavailable, "");
    let evening =
        spec_of(&["--window", "fri-sun 20:00-23:00 UTC", "--window", "daily 2:00-3:00 Europe/Berlin"]);
    assert_eq!(evening.windows, ["fri-sun 20:00-23:00 UTC", "daily 02:00-03:00 Europe/Berlin"]);
    let freeze = "2026-12-23 18:00 to 2027-01-02 06:00 Europe/Berlin: year end";
    let frozen = spec_of(&["--freeze", freeze, "--approvals", "2", "--emergency", "--reason", "leak"]);
    assert_eq!((frozen.freezes[0].as_str(), frozen.approvals), (freeze, 2));
    assert_eq!((frozen.emergency.as_str(), standard.emergency.as_str()), ("leak", ""));
    let growing = spec_of(&["--exponential", "--canary", "2"]);
    assert_eq!(growing.strategy(), v1::StrategyKind::Exponential);
    assert_eq!((growing.canary.as_str(), growing.batch.as_str()), ("2", ""));
    let blue_green = spec_of(&["--blue-green", "--first-site-bake", "1h", "--min-healthy", "60%"]);
    assert_eq!(blue_green.strategy(), v1::StrategyKind::BlueGreen);
    assert_eq!((blue_green.batch.as_str(), blue_green.max_unavailable.as_str()), ("100%", "100%"));
    assert_eq!(
        (blue_green.first_site_bake_ms, blue_green.floors[0].min_healthy.as_str()),
        (3_600_000, "60%")
    );
    assert_eq!(spec_of(&["--blue-green", "--batch", "3"]).max_unavailable, "3");
    let one_first = spec_of(&["--one-host-first", "--batch", "3"]);
    assert_eq!(one_first.strategy(), v1::StrategyKind::OneHostFirst);
    assert_eq!((one_first.canary.as_str(), one_first.batch.as_str()), ("", "3"));
    let at_once = spec_of(&["--all-at-once", "--bake", "0s", "--max-unavailable", "50%"]);
    assert_eq!(at_once.strategy(), v1::StrategyKind::AllAtOnce);
    assert_eq!((at_once.max_unavailable.as_str(), at_once.bake_ms), ("50%", 0));
}

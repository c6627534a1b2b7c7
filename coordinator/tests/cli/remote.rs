//! Commands against the double: identity, watching, exit codes, errors in words.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use fs_err as fs;
use sluice_proto::v1;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::Status;
use v1::{BatchState, HostOutcome, RolloutState};

use crate::double::Double;
use crate::{Ran, command, finish};

/// An operator with a home of its own, beside a coordinator.
struct Bench {
    double: Double,
    address: SocketAddr,
    home: TempDir,
    _runtime: Runtime,
}

impl Bench {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let (double, address) = runtime.block_on(Double::start());
        Self { double, address, home: tempfile::tempdir().unwrap(), _runtime: runtime }
    }

    fn logged_in() -> Self {
        let bench = Self::new();
        bench.login().expect(0);
        bench
    }

    fn login(&self) -> Ran {
        let address = self.address.to_string();
        finish(self.command(&["login", &address]).env("SLUICE_TOKEN", self.double.token()))
    }

    fn command(&self, args: &[&str]) -> Command {
        command(&self.home.path().join("sluice"), args)
    }

    fn run(&self, args: &[&str]) -> Ran {
        finish(&mut self.command(args))
    }

    fn states(&self, states: &[RolloutState]) {
        let states = states.iter().enumerate().map(|(i, state)| rollout(*state, i as u64 + 1));
        *self.double.script.states.lock().unwrap() = states.collect();
    }
}

fn rollout(state: RolloutState, revision: u64) -> v1::Rollout {
    let outcome = match state {
        RolloutState::Succeeded => HostOutcome::Updated,
        RolloutState::RolledBack | RolloutState::Failed => HostOutcome::Failed,
        _ => HostOutcome::Ordered,
    };
    let report = v1::Report {
        app: "shop".into(),
        phase: v1::Phase::Validating.into(),
        hook_output: Some("no such port".into()),
        wire_bytes: 1_000,
        ..v1::Report::default()
    };
    let host = v1::RolloutHost {
        name: "web-1".into(),
        site: "berlin".into(),
        outcome: outcome.into(),
        reachable: true,
        report: Some(report),
        predecessor: None,
    };
    v1::Rollout {
        id: "r1".into(),
        app: "shop".into(),
        version: "1.0".into(),
        state: state.into(),
        batches: vec![v1::RolloutBatch { state: BatchState::Open.into(), hosts: vec![host] }],
        started_unix_ms: 1_800_000_000_000,
        revision,
        ..v1::Rollout::default()
    }
}

#[test]
fn a_token_becomes_an_identity_that_only_its_owner_can_read() {
    let bench = Bench::new();
    let ran = bench.login().expect(0);
    assert!(ran.stdout.contains("sluice://operator/alice"), "{}", ran.stdout);
    assert!(ran.stderr.contains("logged in"), "{}", ran.stderr);
    let home = bench.home.path().join("sluice");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&home), mode(&home.join("identity.pem"))), (0o700, 0o600));
    let config = fs::read_to_string(home.join("config.toml")).unwrap();
    assert_eq!(config, format!("coordinator = \"{}\"\n", bench.address));
    let identity = bench.run(&["whoami", "--json"]).expect(0).json();
    assert_eq!(identity["principal"], "sluice://operator/alice");
    assert_eq!(identity["certificate_expires_at"], "2030-03-17T17:46:40Z");
    fs::set_permissions(home.join("identity.pem"), PermissionsExt::from_mode(0o640)).unwrap();
    assert!(bench.run(&["whoami"]).expect(1).stderr.contains("chmod 600"));
}

#[test]
fn a_token_may_come_from_a_file_or_stdin_and_a_bad_one_is_explained() {
    let bench = Bench::new();
    let address = bench.address.to_string();
    let file = bench.home.path().join("token");
    fs::write(&file, format!("{}\n", bench.double.token())).unwrap();
    bench.run(&["login", &address, "--token-file", file.to_str().unwrap()]).expect(0);
    let stdin = fs::File::open(&file).unwrap().into_parts().0;
    finish(bench.command(&["login", &address, "--token-file", "-"]).stdin(stdin)).expect(0);
    fs::write(&file, bench.double.token().replacen("07", "08", 1)).unwrap();
    let ran = bench.run(&["login", &address, "--token-file", file.to_str().unwrap()]).expect(1);
    assert!(
        ran.stderr.contains("used up or too old") && ran.stderr.contains("hint: a token holds"),
        "{}",
        ran.stderr
    );
    // The right secret, another authority: the newcomer does not even say it.
    let (secret, _) =
        bench.double.token().rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    fs::write(&file, format!("{secret}.{}", "0".repeat(64))).unwrap();
    let ran = bench.run(&["login", &address, "--token-file", file.to_str().unwrap()]).expect(1);
    assert!(ran.stderr.contains("not by the authority that you trust"), "{}", ran.stderr);
}

#[test]
fn a_certificate_past_half_its_life_renews_itself() {
    let bench = Bench::new();
    *bench.double.script.backdated.lock().unwrap() = Duration::from_secs(3 * 24 * 3600);
    bench.login().expect(0);
    assert_eq!(
        bench.double.script.renewals.load(Ordering::Relaxed),
        1,
        "already the first connection renews"
    );
    *bench.double.script.backdated.lock().unwrap() = Duration::from_secs(60);
    bench.run(&["whoami"]).expect(0);
    bench.run(&["whoami"]).expect(0);
    assert_eq!(bench.double.script.renewals.load(Ordering::Relaxed), 2, "a young certificate is left alone");
}

#[test]
fn an_expired_certificate_is_told_before_anything_is_tried() {
    let bench = Bench::new();
    *bench.double.script.life.lock().unwrap() = Duration::ZERO;
    let ran = bench.login().expect(1);
    assert!(
        ran.stderr.contains("your certificate has expired") && ran.stderr.contains("sluice login"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_coordinator_that_is_not_there_or_another_is_explained() {
    let bench = Bench::logged_in();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ran = bench.run(&["whoami", "--coordinator", &free]).expect(1);
    assert!(ran.stderr.contains(&format!("cannot connect to the coordinator at {free}")), "{}", ran.stderr);
    assert!(ran.stderr.contains("connection refused"), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("hint: is sluice-coordinator running at {free}")), "{}", ran.stderr);
    let other = Bench::new();
    let ran = bench.run(&["whoami", "--coordinator", &other.address.to_string()]).expect(1);
    assert!(ran.stderr.contains("not by the authority that you trust"), "{}", ran.stderr);
    assert!(ran.stderr.contains("log in again"), "{}", ran.stderr);
    // The other way round: the right coordinator, a certificate by another authority.
    other.login().expect(0);
    let ours = fs::read_to_string(bench.home.path().join("sluice/identity.pem")).unwrap();
    let path = other.home.path().join("sluice/identity.pem");
    let theirs = fs::read_to_string(&path).unwrap();
    let authority = |pem: &str| pem.rfind("-----BEGIN CERTIFICATE").unwrap();
    fs::write(&path, format!("{}{}", &theirs[..authority(&theirs)], &ours[authority(&ours)..])).unwrap();
    let ran = other.run(&["whoami", "--coordinator", &bench.address.to_string()]).expect(1);
    // Whether the alert or the end of the connection is seen first is a race that the network decides.
    let told = ["refuses your certificate", "the connection to the coordinator broke"];
    assert!(told.iter().any(|text| ran.stderr.contains(text)), "{}", ran.stderr);
    assert!(ran.stderr.contains("sluice login"), "{}", ran.stderr);
}

#[test]
fn every_end_of_a_rollout_has_its_exit_code() {
    let bench = Bench::logged_in();
    use RolloutState::{Aborted, Failed, Paused, RolledBack, RollingBack, Running, Succeeded};
    for (states, command, code) in [
        (&[Running, Succeeded][..], &["start", "shop", "1.0"][..], 0),
        (&[Running, RollingBack, RolledBack], &["start", "shop", "1.0"], 3),
        (&[Running, Failed], &["start", "shop", "1.0"], 4),
        (&[Running, Paused], &["start", "shop", "1.0"], 4),
        (&[Running, Aborted], &["watch", "r1"], 4),
        (&[RolledBack], &["watch", "r1"], 3),
        (&[Running, Succeeded], &["resume", "r1"], 0),
        (&[RollingBack, RolledBack], &["rollback", "r1"], 0),
        (&[RollingBack, Failed], &["rollback", "r1"], 4),
        (&[Running], &["watch", "r1", "--timeout", "300ms"], 5),
        (&[Running], &["start", "shop", "1.0", "--detach"], 0),
        (&[Paused], &["pause", "r1", "--reason", "lunch"], 0),
        (&[Aborted], &["abort", "r1"], 0),
        (&[Running], &["approve", "r1"], 0),
        (&[Running], &["override", "r1", "--reason", "leak"], 0),
    ] {
        bench.states(states);
        let ran = bench.run(&[&["rollout"], command].concat()).expect(code);
        assert!(!ran.stderr.contains("error:"), "{command:?} {}", ran.stderr);
    }
}

#[test]
fn an_application_is_reopened_with_its_cause() {
    let bench = Bench::logged_in();
    let ran = bench.run(&["app", "reopen", "shop", "--cause", "a lock"]).expect(0);
    assert_eq!(ran.stdout, "shop is open to new rollouts again; r7 had closed it\n");
    let ran = bench.run(&["app", "reopen", "shop", "--cause", "a lock", "--json"]).expect(0);
    assert!(
        ran.stdout.contains(r#""closed":false"#) && ran.stdout.contains(r#""cause":"a lock""#),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_state_from_before_the_command_ends_no_watch() {
    let bench = Bench::logged_in();
    bench.states(&[RolloutState::Paused, RolloutState::Running, RolloutState::Succeeded]);
    *bench.double.script.answer.lock().unwrap() = Some(rollout(RolloutState::Running, 2));
    bench.run(&["rollout", "resume", "r1"]).expect(0);
    bench.run(&["rollout", "watch", "r1"]).expect(4);
}

#[test]
fn a_watch_tells_changes_and_ends_with_a_table() {
    let bench = Bench::logged_in();
    bench.states(&[RolloutState::Running, RolloutState::RolledBack]);
    let ran = bench.run(&["rollout", "start", "shop", "1.0", "--batch", "50%"]).expect(3);
    let expected = "rollout r1: running\nbatch 1 of 1: open\nweb-1: ordered, validating\n\
                    rollout r1: rolled back\nweb-1: failed\n";
    assert_eq!(ran.stderr, expected);
    assert!(ran.stdout.starts_with("HOST   SITE    BATCH  OUTCOME"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("hook output of web-1:\n  | no such port\n"), "{}", ran.stdout);
    assert_eq!(bench.double.script.spec.lock().unwrap().as_ref().unwrap().batch, "50%");
}

#[test]
fn a_json_watch_is_one_object_a_line_and_the_whole_rollout_last() {
    let bench = Bench::logged_in();
    bench.states(&[RolloutState::Running, RolloutState::Succeeded]);
    let ran = bench.run(&["rollout", "watch", "r1", "--json"]).expect(0);
    let lines: Vec<serde_json::Value> =
        ran.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["state", "batch", "host", "state", "host", "end"]);
    let end = lines.last().unwrap();
    assert_eq!((end["exit_code"].as_u64(), end["state"].as_str()), (Some(0), Some("succeeded")));
    assert_eq!(end["batches"][0]["hosts"][0]["wire_bytes"], 1_000);
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_watch_survives_the_coordinator() {
    let bench = Bench::logged_in();
    bench.states(&[RolloutState::Running, RolloutState::Succeeded]);
    bench.double.script.breaks.store(1, Ordering::Relaxed);
    let ran = bench.run(&["rollout", "watch", "r1"]).expect(0);
    assert_eq!(ran.stderr.matches("trying again").count(), 1, "{}", ran.stderr);
    assert_eq!(
        ran.stderr.matches("r1: running").count(),
        1,
        "what is known is not told again: {}",
        ran.stderr
    );
}

#[test]
fn ctrl_c_detaches_and_says_how_to_come_back() {
    let bench = Bench::logged_in();
    bench.states(&[RolloutState::Running]);
    let mut watch = bench.command(&["rollout", "start", "shop", "1.0"]);
    let mut child = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("web-1: ordered") {
        assert_ne!(stderr.read_line(&mut text).unwrap(), 0, "{text}");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    stderr.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{text}");
    assert!(text.ends_with("the rollout goes on. Watch it again: sluice rollout watch r1\n"), "{text}");
}

#[test]
fn refusals_are_told_in_words_with_a_hint() {
    let bench = Bench::logged_in();
    for (status, message, hint) in [
        (Status::permission_denied("starting needs the role deployer"), "needs the role deployer", "whoami"),
        (
            Status::not_found("there is no release shop 1.0"),
            "not found: there is no release",
            "release list shop",
        ),
        (Status::unauthenticated("revoked"), "does not know you: revoked", "sluice login"),
    ] {
        *bench.double.script.refusal.lock().unwrap() = Some(status);
        let ran = bench.run(&["rollout", "start", "shop", "1.0"]).expect(1);
        assert!(
            ran.stderr.starts_with("error: cannot start a rollout of shop 1.0\n  because: "),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains(message) && ran.stderr.contains(hint), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn tokens_go_to_stdout_alone() {
    let bench = Bench::logged_in();
    let ran = bench.run(&["token", "create", "--site", "berlin", "--label", "role=web"]).expect(0);
    assert_eq!(ran.stdout, format!("{}\n", bench.double.token()));
    assert!(ran.stderr.contains("sluice-agent enroll --coordinator 127.0.0.1:"), "{}", ran.stderr);
    let ran = bench.run(&["token", "create", "--operator", "bob", "--role", "admin"]).expect(1);
    assert!(ran.stderr.contains("needs the role admin"), "{}", ran.stderr);
}

#[test]
fn the_audit_log_streams_and_a_broken_chain_is_an_error() {
    let bench = Bench::logged_in();
    let text = bench.run(&["audit", "list"]).expect(0).stdout;
    assert_eq!(text.lines().count(), 2);
    assert!(
        text.contains("     1  2027-01-15 08:00:00Z  sluice://operator/alice  rollout.start  r1"),
        "{text}"
    );
    let lines = bench.run(&["audit", "list", "--json"]).expect(0).stdout;
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["detail"]["reason"], "test");
    let ran = bench.run(&["audit", "verify"]).expect(1);
    assert!(ran.stderr.contains("entry 5 does not fit"), "{}", ran.stderr);
    let ran = bench.run(&["audit", "verify", "--json"]).expect(1);
    assert_eq!(ran.json(), serde_json::json!({ "entries": 9, "head": "ab", "broken_at": 5 }));
}

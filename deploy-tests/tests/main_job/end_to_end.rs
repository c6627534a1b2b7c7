//! The main job with the real programs: each scenario has a lab of its own.

use std::path::Path;

use sluice_deploy_tests::lab::{AgentOptions, Lab, PATIENCE, compare, noise, wait_for, write_tree};
use sluice_proto::v1;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_sluice-demo");

/// A gate that holds when the file `health` says so.
const SPEC: &str = r#"
[gate]
deadline = "2s"
[[health]]
type = "command"
command = ["grep", "-q", "ok", "health"]
interval = "50ms"
"#;

struct Bench {
    lab: Lab,
    scratch: tempfile::TempDir,
}

impl Bench {
    fn start(hosts: &[&str]) -> Self {
        Self::start_with(hosts, &AgentOptions::default())
    }

    fn start_with(hosts: &[&str], options: &AgentOptions) -> Self {
        Self::start_serving(hosts, options, &[])
    }

    fn start_serving(hosts: &[&str], options: &AgentOptions, serve_args: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("lab");
        let mut lab = Lab::start_with(Path::new(EXECUTABLE), &dir, serve_args).unwrap();
        for name in hosts {
            lab.add_host(name, "berlin", options.clone()).unwrap();
        }
        lab.wait_connected().unwrap();
        Self { lab, scratch }
    }

    /// Registers a version whose health is as given; returns its tree.
    fn release(&self, version: &str, health: &str) -> std::path::PathBuf {
        let tree = self.scratch.path().join(version);
        let seed = u64::from(version.as_bytes()[0]);
        write_tree(
            &tree,
            &[
                ("sluice.toml", SPEC.as_bytes().to_vec(), false),
                ("health", health.as_bytes().to_vec(), false),
                ("bin/tool", noise(seed, 300_000), true),
                ("data/same", noise(1, 500_000), false),
            ],
        )
        .unwrap();
        self.lab.release("shop", version, &tree).unwrap();
        tree
    }

    fn sluice(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.lab.operator().try_run(args).unwrap();
        (output.code, output.stdout, output.stderr)
    }

    fn roll_out(&self, version: &str, more: &[&str]) -> (i32, String, String) {
        let args = ["rollout", "start", "shop", version, "--canary", "1", "--batch", "50%"];
        let bake: &[&str] = if more.contains(&"--bake") { &[] } else { &["--bake", "100ms"] };
        self.sluice(&[&args[..], bake, more].concat())
    }

    fn assert_everywhere(&self, tree: &Path) {
        for host in self.lab.hosts() {
            assert_eq!(compare(tree, &host.current("shop")).unwrap(), [], "{}", host.name());
            host.fsck(Path::new(EXECUTABLE)).unwrap();
        }
    }

    fn rollout(&self, state: v1::RolloutState) -> v1::Rollout {
        wait_for(&format!("a rollout in {}", state.as_str_name()), PATIENCE, || {
            Ok(self.lab.operator().newest_rollout("shop")?.filter(|rollout| rollout.state() == state))
        })
        .unwrap()
    }
}

#[test]
fn a_good_release_reaches_every_host_and_a_bad_one_goes_back_by_itself() {
    let mut bench = Bench::start(&["h1", "h2", "h3"]);
    let first = bench.release("1", "ok");
    assert_eq!(bench.roll_out("1", &[]).0, 0);
    bench.assert_everywhere(&first);
    let second = bench.release("2", "ok");
    assert_eq!(bench.roll_out("2", &[]).0, 0);
    bench.assert_everywhere(&second);
    bench.release("3", "bad");
    let (code, _, stderr) = bench.roll_out("3", &[]);
    assert_eq!(code, 3, "{stderr}");
    bench.assert_everywhere(&second);
    let rollout = bench.rollout(v1::RolloutState::RolledBack);
    let touched = rollout.batches.iter().flat_map(|batch| &batch.hosts);
    let failed = touched.filter(|host| host.outcome() != v1::HostOutcome::Waiting).count();
    assert_eq!(failed, 1, "only the canary was touched: {rollout:?}");
    let (code, stdout, _) = bench.sluice(&["audit", "verify"]);
    assert_eq!(code, 0, "{stdout}");
    bench.lab.stop().unwrap();
}

#[test]
fn a_succeeded_rollout_can_be_rolled_back() {
    let mut bench = Bench::start(&["h1", "h2"]);
    let first = bench.release("1", "ok");
    bench.roll_out("1", &[]);
    bench.release("2", "ok");
    bench.roll_out("2", &[]);
    let id = bench.rollout(v1::RolloutState::Succeeded).id;
    let (code, _, stderr) = bench.sluice(&["rollout", "rollback", &id, "--reason", "second thoughts"]);
    assert!(matches!(code, 0 | 3), "{code}: {stderr}");
    bench.assert_everywhere(&first);
    let (_, history, _) = bench.sluice(&["app", "history", "shop", "--json"]);
    assert!(history.matches(&id).count() >= 4, "two switches there and two back: {history}");
    bench.lab.stop().unwrap();
}

#[test]
fn a_rollout_can_be_paused_resumed_and_aborted() {
    let mut bench = Bench::start(&["h1", "h2"]);
    let tree = bench.release("1", "ok");
    let (code, _, stderr) = bench.roll_out("1", &["--detach", "--bake", "1h"]);
    assert_eq!(code, 0, "{stderr}");
    let id = bench.rollout(v1::RolloutState::Running).id;
    assert_eq!(bench.sluice(&["rollout", "pause", &id, "--reason", "lunch"]).0, 0);
    assert_eq!(bench.rollout(v1::RolloutState::Paused).reason, "by admin: lunch");
    assert_eq!(bench.sluice(&["rollout", "resume", &id, "--detach"]).0, 0);
    // Where something can be done at once nothing is waited for; the canary bakes for an hour.
    wait_for("a rollout that says what it waits for", PATIENCE, || {
        let newest = bench.lab.operator().newest_rollout("shop")?;
        let runs = |rollout: &v1::Rollout| rollout.state() == v1::RolloutState::Running;
        Ok(newest.filter(runs).filter(|rollout| !rollout.blockers.is_empty()))
    })
    .unwrap();
    wait_for("the canary to switch", PATIENCE, || {
        Ok(fs_err::read_link(bench.lab.hosts()[0].current("shop")).is_ok().then_some(()))
    })
    .unwrap();
    assert_eq!(bench.sluice(&["rollout", "abort", &id, "--reason", "enough"]).0, 0);
    bench.rollout(v1::RolloutState::Aborted);
    assert_eq!(compare(&tree, &bench.lab.hosts()[0].current("shop")).unwrap(), []);
    assert!(
        fs_err::read_link(bench.lab.hosts()[1].current("shop")).is_err(),
        "the second host was never ordered"
    );
    bench.lab.stop().unwrap();
}

#[test]
fn kill_dash_nine_of_agent_and_coordinator_in_mid_rollout_loses_nothing() {
    let options = AgentOptions { limit: Some("16Mbit/s".into()), ..AgentOptions::default() };
    let mut bench = Bench::start_with(&["h1", "h2"], &options);
    let tree = bench.release("1", "ok");
    assert_eq!(bench.roll_out("1", &["--detach"]).0, 0);
    wait_for("staging to begin", PATIENCE, || {
        Ok(bench.lab.hosts()[0].app_dir("shop").join("staging").exists().then_some(()))
    })
    .unwrap();
    bench.lab.host_mut("h1").unwrap().kill().unwrap();
    bench.lab.kill_coordinator().unwrap();
    bench.lab.start_coordinator().unwrap();
    bench.lab.restart_agent("h1").unwrap();
    bench.rollout(v1::RolloutState::Succeeded);
    bench.assert_everywhere(&tree);
    bench.lab.stop().unwrap();
}

#[test]
fn roles_are_kept() {
    let mut bench = Bench::start(&["h1"]);
    bench.release("1", "ok");
    let (_, token, _) = bench.sluice(&["token", "create", "--operator", "vera", "--role", "viewer"]);
    let token_file = bench.scratch.path().join("token");
    fs_err::write(&token_file, token).unwrap();
    let home = bench.scratch.path().join("vera");
    let vera = sluice_deploy_tests::lab::Operator::new(Path::new(EXECUTABLE), home);
    vera.run(["login", &bench.lab.address(), "--token-file", token_file.to_str().unwrap()]).unwrap();
    vera.run(["host", "list"]).unwrap();
    let refused = vera.try_run(["rollout", "start", "shop", "1"]).unwrap();
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("deployer"), "{}", refused.stderr);
    assert!(bench.lab.operator().newest_rollout("shop").unwrap().is_none());
    bench.lab.stop().unwrap();
}

#[test]
fn an_unchanged_file_is_shared_and_the_update_sends_only_the_difference() {
    use std::os::unix::fs::MetadataExt;
    let mut bench = Bench::start(&["h1"]);
    bench.release("1", "ok");
    bench.roll_out("1", &[]);
    bench.release("2", "ok");
    bench.roll_out("2", &[]);
    let app = bench.lab.hosts()[0].app_dir("shop");
    let inode = |link: &str| fs_err::metadata(app.join(link).join("data/same")).unwrap().ino();
    assert_eq!(inode("current"), inode("previous"));
    let rollout = bench.rollout(v1::RolloutState::Succeeded);
    let wire = rollout.batches[0].hosts[0].report.as_ref().unwrap().wire_bytes;
    assert!(wire < 400_000, "{wire} bytes for a tree of 800,000 of which 300,000 changed");
    bench.lab.stop().unwrap();
}

#[test]
fn more_effort_sends_less_and_restores_all_the_same() {
    let mut sent = Vec::new();
    for effort in ["quick", "best"] {
        let mut bench = Bench::start_serving(&["h1"], &AgentOptions::default(), &["--effort", effort]);
        // Changed in many small places, as a binary is that was compiled again.
        let old = noise(9, 400_000);
        let mut new = old.clone();
        new.iter_mut().step_by(50).for_each(|byte| *byte ^= 0x55);
        for (version, bytes) in [("1", old), ("2", new)] {
            let tree = bench.scratch.path().join(version);
            write_tree(&tree, &[("bin/tool", bytes, true)]).unwrap();
            bench.lab.release("shop", version, &tree).unwrap();
            assert_eq!(bench.roll_out(version, &[]).0, 0);
            bench.assert_everywhere(&tree);
        }
        let rollout = bench.rollout(v1::RolloutState::Succeeded);
        sent.push(rollout.batches[0].hosts[0].report.as_ref().unwrap().wire_bytes);
        bench.lab.stop().unwrap();
    }
    assert!(sent[1] * 4 < sent[0] * 3, "quick {} bytes, best {}", sent[0], sent[1]);
}

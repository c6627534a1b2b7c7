//! Runs the script of docs/ci.md as a pipeline does, with the real programs: a release that succeeds, one that is taken back, and
//! what the fleet says of them afterwards.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use fs_err as fs;
use serde_json::Value;
use sluice_deploy_tests::lab::{AgentOptions, Lab, write_tree};

/// Works where the tree says so.
const SPEC: &str = "[hooks.validate]\ncommand = [\"test\", \"-e\", \"good\"]\n";

/// Returns the first block of a document in this language.
fn block(text: &str, language: &str) -> String {
    let after = text.split_once(&format!("```{language}\n")).unwrap().1;
    after.split_once("\n```").unwrap().0.to_owned() + "\n"
}

fn deploy(dir: &Path, lab: &Lab, version: &str) -> Output {
    Command::new("sh")
        .args(["deploy.sh", "shop", version, version])
        .current_dir(dir)
        .env("PATH", format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap()))
        .env("RELEASE_KEY", lab.key())
        .env("NOTES", format!("what is new in {version}"))
        .env("ROLLOUT_OPTIONS", "--canary 1 --batch 1 --bake 0s")
        .env("ROLLOUT_TIMEOUT", "2m")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn last_event(dir: &Path) -> Value {
    let events = fs::read_to_string(dir.join("rollout.jsonl")).unwrap();
    serde_json::from_str(events.lines().last().unwrap()).unwrap()
}

fn ask(lab: &Lab, args: &[&str]) -> Value {
    serde_json::from_str(&lab.operator().run(args.iter().chain(&["--json"])).unwrap().stdout).unwrap()
}

#[test]
fn the_pipeline_runs_as_written_and_ends_as_its_rollout_does() {
    let dir = tempfile::tempdir().unwrap();
    let executable = Path::new(env!("CARGO_BIN_EXE_sluice-demo"));
    let mut lab = Lab::start(executable, &dir.path().join("lab")).unwrap();
    for host in ["h1", "h2"] {
        lab.add_host(host, "berlin", AgentOptions::default()).unwrap();
    }
    lab.wait_connected().unwrap();
    fs::create_dir(dir.path().join("bin")).unwrap();
    let shim = dir.path().join("bin/sluice");
    let home = lab.dir().join("operator");
    let line = format!("exec {} role sluice --home {} \"$@\"", executable.display(), home.display());
    fs::write(&shim, format!("#!/bin/sh\n{line}\n")).unwrap();
    fs::set_permissions(&shim, std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ci.md")).unwrap();
    fs::write(dir.path().join("deploy.sh"), block(&text, "sh")).unwrap();
    assert_eq!(text.matches("sh deploy.sh shop").count(), 2, "both pipelines run the script");
    let spec = ("sluice.toml", SPEC.as_bytes().to_vec(), false);
    write_tree(&dir.path().join("1.0"), &[spec.clone(), ("good", b"yes".to_vec(), false)]).unwrap();
    write_tree(&dir.path().join("1.1"), &[spec, ("bad", b"yes".to_vec(), false)]).unwrap();

    let good = deploy(dir.path(), &lab, "1.0");
    assert_eq!(good.status.code(), Some(0), "{}", last_event(dir.path()));
    assert!(String::from_utf8_lossy(&good.stdout).contains("shop 1.0 runs everywhere"));
    let end = last_event(dir.path());
    assert_eq!((end["event"].as_str(), end["exit_code"].as_u64()), (Some("end"), Some(0)));
    assert_eq!(end["notes"].as_str(), Some("what is new in 1.0"));

    let bad = deploy(dir.path(), &lab, "1.1");
    assert_eq!(bad.status.code(), Some(3), "{}", last_event(dir.path()));
    assert_eq!(last_event(dir.path())["state"].as_str(), Some("rolled_back"));
    let closed = deploy(dir.path(), &lab, "1.1");
    assert_eq!(closed.status.code(), Some(1), "the line is stopped, and the release is there already");

    let stays = ask(&lab, &["release", "where", "shop", "1.0"]);
    let hosts = stays["stays"].as_array().unwrap();
    assert!(hosts.iter().filter(|stay| stay["until"].is_null()).count() == 2, "{stays}");
    let ran = ask(&lab, &["host", "history", "h1", "--at", "0 seconds ago"]);
    assert_eq!(ran["history"][0]["to"]["version"].as_str(), Some("1.0"), "{ran}");
    lab.stop().unwrap();
}

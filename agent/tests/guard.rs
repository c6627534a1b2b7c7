//! The guard with real processes: what it becomes is a script that tells of itself and ends, and so never proves that it runs.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use fs_err as fs;
use sluice_common::digest::Digest;
use sluice_common::keys::SecretKey;

const AGENT: &str = env!("CARGO_BIN_EXE_sluice-agent");

/// Puts a release of the agent on the host; nothing: without a program.
fn install(root: &Path, version: &str, script: Option<&str>) {
    let package = Digest::of(version.as_bytes());
    let releases = root.join("sluice-agent/releases");
    let release = releases.join(package.short());
    fs::create_dir_all(release.join("bin")).unwrap();
    if let Some(script) = script {
        let program = release.join("bin/sluice-agent");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let marker = format!("package = \"{package}\"\nversion = \"{version}\"\n");
    fs::write(releases.join(format!("{}.verified", package.short())), marker).unwrap();
}

fn point(root: &Path, name: &str, version: &str) {
    let link = root.join("sluice-agent").join(name);
    let _ = fs::remove_file(&link);
    symlink(Path::new("releases").join(Digest::of(version.as_bytes()).short()), link).unwrap();
}

/// Has the guard start an agent, as a unit would, and returns what that one told.
fn start(dir: &Path) -> String {
    let told = dir.join("told");
    let _ = fs::remove_file(&told);
    let mut command = Command::new(AGENT);
    command.args(["guard", "--config"]).arg(dir.join("agent.toml")).env("TOLD", &told);
    let child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let process = child.id();
    child.wait_with_output().unwrap();
    fs::read_to_string(told).unwrap_or_default().replace(&process.to_string(), "same")
}

#[test]
fn what_does_not_start_gives_way_to_what_ran_before() {
    let dir = tempfile::tempdir().unwrap();
    let (data, root) = (dir.path().join("data"), dir.path().join("srv"));
    fs::create_dir_all(&data).unwrap();
    let key = SecretKey::generate().unwrap().public();
    let config = format!(
        "coordinators = [\"c\"]\ndata = {:?}\nroot = {:?}\ntrusted_keys = [\"{key}\"]\n",
        data.display().to_string(),
        root.display().to_string()
    );
    fs::write(dir.path().join("agent.toml"), config).unwrap();
    let script = |name: &str| {
        format!("#!/bin/sh\necho {name} $1 $$ ${{SLUICE_GUARD_FALLBACK:-first choice}} > $TOLD\nexit 1\n")
    };
    install(&root, "1", Some(&script("one")));
    install(&root, "2", Some(&script("two")));
    install(&root, "3", None);
    point(&root, "current", "2");
    point(&root, "previous", "1");
    for expected in
        ["two run same first choice\n", "two run same first choice\n", "two run same first choice\n"]
    {
        assert_eq!(start(dir.path()), expected);
    }
    let instead_of = |version: &str| format!("one run same {}\n", Digest::of(version.as_bytes()).short());
    for _ in 0..2 {
        assert_eq!(start(dir.path()), instead_of("2"), "the one before, after three starts");
    }
    // What is there without a program is not even tried three times.
    point(&root, "current", "3");
    assert_eq!(start(dir.path()), instead_of("3"));
    // Another release is tried afresh.
    point(&root, "current", "1");
    assert_eq!(start(dir.path()), "one run same first choice\n");
    // And where there is none, the program that the host was set up with runs: it complains that the host is not enrolled.
    fs::remove_file(root.join("sluice-agent/current")).unwrap();
    assert_eq!(start(dir.path()), "");
}

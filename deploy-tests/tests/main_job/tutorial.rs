//! Runs chapters of the book: every ```sh block of docs/tutorial.md and docs/concepts.md, in order, with the real programs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use fs_err as fs;

/// Returns the `sh` blocks of a document, in order.
fn shell_blocks(text: &str) -> String {
    let mut script = String::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => script += &format!("{line}\n"),
            _ => {}
        }
    }
    script
}

/// Has an agent use a disk to its end before it runs: the machine's may be nearly full.
const KEEP_NOTHING_FREE: &str =
    r#"case "$1 $2" in "run --config") printf '\n[retention]\ndisk_floor = "0%%"\n' >> "$3" ;; esac"#;

/// Puts the shipped programs on a path. File 3 is this test's pipe: what the script leaves running ends with it.
fn programs(bin: &Path) {
    fs::create_dir(bin).unwrap();
    let executable = env!("CARGO_BIN_EXE_sluice-demo");
    for (name, role) in
        [("sluice", "sluice"), ("sluice-agent", "agent"), ("sluice-coordinator", "coordinator")]
    {
        let shim = bin.join(name);
        // An enrolment reads its token from a file here, so no program needs another standard input.
        let run = format!("exec {executable} role {role} \"$@\" <&3");
        fs::write(&shim, format!("#!/bin/sh\n{KEEP_NOTHING_FREE}\n{run}\n")).unwrap();
        fs::set_permissions(&shim, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Runs the blocks of a chapter in a directory of their own; fails with what they printed.
fn run(chapter: &str, landmark: &str) {
    let dir = tempfile::tempdir().unwrap();
    programs(&dir.path().join("bin"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let text = fs::read_to_string(docs.join(chapter)).unwrap();
    let script = shell_blocks(&text).replace("7443", &port.to_string());
    assert!(script.contains(landmark), "{chapter} has lost its blocks");
    fs::write(dir.path().join("chapter.sh"), format!("set -eux\n{script}")).unwrap();
    let path = format!("{}:{}", dir.path().join("bin").display(), std::env::var("PATH").unwrap());
    let log = fs::File::create(dir.path().join("chapter.log")).unwrap().into_parts().0;
    let mut child = Command::new("sh")
        .args(["-c", "exec 3<&0; exec sh chapter.sh"])
        .current_dir(dir.path())
        .env("PATH", path)
        .env("SLUICE_HOME", dir.path().join("operator"))
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let pipe = child.stdin.take();
    let status = child.wait().unwrap();
    drop(pipe);
    let log = fs::read_to_string(dir.path().join("chapter.log")).unwrap();
    assert!(status.success(), "{chapter} ended with {status}:\n{log}");
}

#[test]
fn the_tutorial_runs_as_written() {
    run("tutorial.md", "rollout rollback");
}

#[test]
fn what_the_concepts_say_of_packages_holds() {
    run("concepts.md", "package cost");
}

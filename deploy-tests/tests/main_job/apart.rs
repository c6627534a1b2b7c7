//! A list that is killed leaves nothing behind: no process, no mount, no file.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;

/// How long what it started may need to be gone, or to come up.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited {} s until {what}", PATIENCE.as_secs());
        // The poll interval of a condition.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the command lines of all processes that speak of `path`.
fn processes_of(path: &Path) -> Vec<String> {
    let path = path.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(path)).collect()
}

#[test]
fn a_list_that_is_killed_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut list = Command::new(env!("CARGO_BIN_EXE_sluice-show"))
        .args(["main", "--quick", "--only", "kill"])
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A coordinator runs, and an agent beside it.
    wait_until("it has begun", || {
        processes_of(dir.path()).iter().filter(|line| line.contains("role agent run")).count() > 0
    });
    list.kill().unwrap();
    list.wait().unwrap();
    wait_until("no process of it is left", || processes_of(dir.path()).is_empty());
    wait_until("its files are gone", || fs::read_dir(dir.path()).unwrap().next().is_none());
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
}

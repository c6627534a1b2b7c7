//! Commands that need no coordinator.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use fs_err as fs;

use crate::{command, finish, sluice};

fn write(root: &Path, path: &str, bytes: &[u8], mode: u32) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Bytes that compress to about nothing less than themselves.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(len)
    .collect()
}

#[test]
fn keys_are_made_once_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("release.key");
    let file = path.to_str().unwrap();
    let made = sluice(&["key", "new", file]).expect(0);
    let id = made.stdout.trim();
    assert_eq!(id.len(), 12);
    assert!(made.stderr.contains("release.key.pub"), "{}", made.stderr);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let public = format!("{file}.pub");
    for file in [file, &public] {
        let shown = sluice(&["key", "show", file, "--json"]).expect(0).json();
        assert_eq!(shown["id"], id);
        assert!(shown["public_key"].as_str().unwrap().starts_with("sluice-public-key ed25519 "));
    }
    let again = sluice(&["key", "new", file]).expect(1);
    assert!(again.stderr.contains("exists already") && again.stderr.contains("hint:"), "{}", again.stderr);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(sluice(&["key", "show", file]).expect(1).stderr.contains("chmod 600"));
    assert!(sluice(&["key", "show", "/nowhere/key"]).expect(1).stderr.contains("/nowhere/key"));
}

#[test]
fn the_same_tree_builds_to_the_same_digest() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (name, mode) in [("bin/run", 0o755), ("data", 0o644), ("z", 0o600)] {
        write(one.path(), name, name.as_bytes(), mode);
    }
    for (name, mode) in [("z", 0o664), ("data", 0o444), ("bin/run", 0o700)] {
        write(two.path(), name, name.as_bytes(), mode);
    }
    for dir in [one.path(), two.path()] {
        symlink("bin/run", dir.join("link")).unwrap();
    }
    let first = sluice(&["package", "build", one.path().to_str().unwrap()]).expect(0);
    let second = sluice(&["package", "build", two.path().to_str().unwrap(), "--json"]).expect(0);
    assert!(first.stdout.starts_with("sha256:") && first.stdout.lines().count() == 1, "{}", first.stdout);
    assert_eq!(first.stderr, "3 files, 12 B\n");
    let expected = serde_json::json!({ "digest": first.stdout.trim(), "files": 3, "tree_bytes": 12 });
    assert_eq!(second.json(), expected);
}

#[test]
fn the_cost_of_an_update_is_far_below_that_of_an_install() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut bytes = noise(600_000);
    write(old.path(), "program", &bytes, 0o755);
    write(old.path(), "same", &noise(200_000), 0o644);
    bytes[300_000] ^= 1;
    write(new.path(), "program", &bytes, 0o755);
    write(new.path(), "same", &noise(200_000), 0o644);
    let paths = [old.path().to_str().unwrap(), new.path().to_str().unwrap()];
    for effort in ["quick", "best"] {
        let ran = sluice(&["package", "cost", paths[0], paths[1], "--effort", effort, "--json"]).expect(0);
        let cost = ran.json();
        let keys: Vec<&str> = cost.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = [
            "files",
            "tree_bytes",
            "cold_bytes",
            "update_bytes",
            "spec_bytes",
            "manifest_bytes",
            "update_manifest_bytes",
        ];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!((cost["files"].as_u64(), cost["tree_bytes"].as_u64()), (Some(2), Some(800_000)));
        let (cold, update) = (cost["cold_bytes"].as_u64().unwrap(), cost["update_bytes"].as_u64().unwrap());
        assert!(cold > 500_000 && update < 2_000, "{effort}: cold {cold}, update {update}");
        assert!(cost["update_manifest_bytes"].as_u64() < cost["manifest_bytes"].as_u64(), "{cost}");
    }
    let text = sluice(&["package", "cost", paths[0], paths[1]]).expect(0).stdout;
    assert!(text.contains("cold install") && text.contains("update"), "{text}");
}

#[test]
fn trees_that_no_host_would_take_are_refused_by_path() {
    type Make = fn(&Path);
    let cases: [(&str, Make, &str); 8] = [
        ("symlink out", |root| symlink("../../etc/passwd", root.join("out")).unwrap(), "out -> "),
        ("absolute symlink", |root| symlink("/etc/passwd", root.join("abs")).unwrap(), "abs -> "),
        ("FIFO", |root| fifo(&root.join("pipe")), "pipe: it is a FIFO"),
        ("setuid", |root| write(root, "bin/su", b"x", 0o4755), "bin/su: it is a setuid"),
        ("unknown key", |root| write(root, "sluice.toml", b"[hook]\n", 0o644), "sluice.toml is not valid"),
        (
            "empty command",
            |root| write(root, "sluice.toml", b"[hooks.start]\ncommand = []\n", 0o644),
            "hooks.start.command",
        ),
        (
            "no such program",
            |root| write(root, "sluice.toml", b"[hooks.start]\ncommand = [\"bin/go\"]\n", 0o644),
            "the package has no program bin/go",
        ),
        ("linked spec", |root| symlink("data", root.join("sluice.toml")).unwrap(), "not a regular file"),
    ];
    for (what, make, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "data", b"x", 0o644);
        make(dir.path());
        let ran = sluice(&["package", "build", dir.path().to_str().unwrap()]).expect(1);
        assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains(expected), "{what}: {}", ran.stderr);
        assert!(ran.stderr.contains(dir.path().to_str().unwrap()), "{what} names the tree: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{what}");
    }
    let ran = sluice(&["package", "build", "/nowhere"]).expect(1);
    assert!(
        ran.stderr.contains("/nowhere is not a directory") && ran.stderr.contains("hint: "),
        "{}",
        ran.stderr
    );
}

fn fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
}

#[test]
fn without_an_identity_the_hint_says_how_to_get_one() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["whoami"][..], &["rollout", "list"], &["package", "push", "."]] {
        let ran = finish(&mut command(home.path(), args)).expect(1);
        assert!(
            ran.stderr.contains("not logged in") && ran.stderr.contains("hint: run sluice login"),
            "{}",
            ran.stderr
        );
    }
    let ran = finish(&mut command(home.path(), ["login", "127.0.0.1"])).expect(1);
    assert!(
        ran.stderr.contains("no token was given") && ran.stderr.contains("--token-file"),
        "{}",
        ran.stderr
    );
    let ran = finish(command(home.path(), ["login", "127.0.0.1"]).env("SLUICE_TOKEN", "secret")).expect(1);
    assert!(ran.stderr.contains("not a join token") && !ran.stderr.contains("secret"), "{}", ran.stderr);
}

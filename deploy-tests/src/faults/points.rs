//! The system calls of a deployment, and the faults that strike at one of them.
//!
//! An undisturbed run is traced; every call that changes what is on disk is a point. strace counts the calls of each kind
//! and of each thread, so a point is a kind and a number; a number that a later run does not reach strikes nothing. Writes
//! are counted by file, because the runtime writes too, to wake itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::{Scene, Site, Story};

/// Calls that change what is on disk, or make it durable.
const CHANGING: &str = "openat,openat2,write,pwrite64,copy_file_range,sendfile,ftruncate,fallocate,fsync,fdatasync,syncfs,\
rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,chmod,fchmod,fchmodat,ioctl";

/// Calls that make things durable.
const SYNCING: [&str; 3] = ["fsync", "fdatasync", "syncfs"];

/// A call of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// The kind of call.
    pub call: String,
    /// Which of its kind, from 1.
    pub number: u32,
    /// The file, where the number counts its calls alone.
    pub file: Option<PathBuf>,
    /// The call as it was traced, for the reader.
    pub shown: String,
}

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed before the call.
    Kill,
    /// The call fails with this error, once.
    Fails(&'static str),
    /// The call, and each of its kind that follows, fails with this error.
    KeepsFailing(&'static str),
    /// The call does nothing, and says that it did.
    Skipped,
}

/// Faults that strike a deployment.
#[derive(Debug, Clone, Default)]
pub struct Strike(pub Vec<(Point, Fault)>);

impl Point {
    /// Returns the sync of this number.
    pub fn sync(number: u32) -> Self {
        Self { call: "fsync".into(), number, file: None, shown: String::new() }
    }

    /// Says whether the call makes things durable.
    pub fn is_sync(&self) -> bool {
        SYNCING.contains(&self.call.as_str())
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.call, self.number, self.shown)
    }
}

impl Strike {
    /// Makes one fault at one point.
    pub fn at(point: &Point, fault: Fault) -> Self {
        Self(vec![(point.clone(), fault)])
    }

    /// Returns a command that brings the faults about in the command that is appended to it.
    pub(super) fn tracer(&self) -> Command {
        let calls: BTreeSet<&str> = self.0.iter().map(|(point, _)| point.call.as_str()).collect();
        let calls: Vec<&str> = calls.into_iter().collect();
        let mut command = Command::new("strace");
        // Not --seccomp-bpf, with which strace 6.1 counts no call but the first.
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "signal=none", "-e"]);
        command.arg(format!("trace={}", calls.join(",")));
        for (Point { call, number, file, .. }, fault) in &self.0 {
            if let Some(file) = file {
                command.arg("-P").arg(file);
            }
            let what = match fault {
                Fault::Kill => format!("signal=KILL:when={number}"),
                Fault::Fails(error) => format!("error={error}:when={number}"),
                Fault::KeepsFailing(error) => format!("error={error}:when={number}+"),
                Fault::Skipped => format!("retval=0:when={number}"),
            };
            command.arg("-e").arg(format!("inject={call}:{what}"));
        }
        command
    }
}

/// Traces the last order of a story, which must be prepared at `site`, and returns its points in their order.
pub fn find(scene: &Scene, story: &Story, site: &Site, trace: &Path) -> Result<Vec<Point>> {
    let status = site.run_under(tracer(trace), scene, &[story.last_call(scene)])?;
    let log = site.log();
    ensure!(status.success(), "{} does not run to its end: {status}\n{log}", story.name);
    let text = String::from_utf8_lossy(&fs_err::read(trace)?).into_owned();
    Ok(parse(&text, &site.root()))
}

/// Returns a command that traces the one which is appended to it.
fn tracer(trace: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-y", "-s", "40", "--seccomp-bpf", "-o"]).arg(trace);
    command.arg("-e").arg(format!("trace=execve,{CHANGING}"));
    command
}

/// Finds the points in a trace: calls of the agent's own threads that change something below `root`.
fn parse(trace: &str, root: &Path) -> Vec<Point> {
    let root = root.to_string_lossy();
    let mut counts: BTreeMap<(&str, &str, Option<&str>), u32> = BTreeMap::new();
    let mut others: BTreeSet<&str> = BTreeSet::new();
    let mut own_has_begun = false;
    let mut points: BTreeMap<(&str, Option<&str>, u32), (usize, Point)> = BTreeMap::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((process, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let Some((call, arguments)) = rest.split_once('(') else { continue };
        if call == "execve" {
            // The first is the agent; what else loads a program is a hook.
            if own_has_begun && rest.ends_with("= 0") {
                others.insert(process);
            }
            own_has_begun |= rest.ends_with("= 0");
            continue;
        }
        if !call.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
            || others.contains(process)
        {
            continue;
        }
        let file = if call == "write" { descriptor(arguments) } else { None };
        let number = counts.entry((process, call, file)).or_default();
        *number += 1;
        if arguments.contains(&*root) && changes(call, arguments) {
            let shown = format!("{call}({}", arguments.replace(&*root, ""));
            let shown = shown.split(" = ").next().unwrap_or_default().trim().to_owned();
            let point =
                Point { call: call.to_owned(), number: *number, file: file.map(PathBuf::from), shown };
            points.entry((call, file, *number)).or_insert((at, point));
        }
    }
    let mut points: Vec<(usize, Point)> = points.into_values().collect();
    points.sort_by_key(|(at, _)| *at);
    points.into_iter().map(|(_, point)| point).collect()
}

/// Returns the file of the descriptor that a call begins with, as in `3</d/file>, ...`.
fn descriptor(arguments: &str) -> Option<&str> {
    let (_, rest) = arguments.split_once('<')?;
    rest.split_once('>').map(|(file, _)| file)
}

fn changes(call: &str, arguments: &str) -> bool {
    match call {
        "openat" | "openat2" => ["O_CREAT", "O_TRUNC"].iter().any(|flag| arguments.contains(flag)),
        "ioctl" => arguments.contains("FICLONE"),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_change_something_are_counted_by_thread() {
        let trace = r#"10 execve("/usr/bin/agent", ["agent"], 0x7 /* 1 var */) = 0
10 openat(AT_FDCWD</w>, "/etc/x", O_RDONLY) = 3</etc/x>
11 openat(AT_FDCWD</w>, "/d/srv/shop", O_RDONLY|O_DIRECTORY) = 4</d/srv/shop>
11 openat(AT_FDCWD</w>, "/d/srv/shop/.s", O_WRONLY|O_CREAT|O_TRUNC, 0600 <unfinished ...>
11 <... openat resumed>) = 4</d/srv/shop/.s>
11 write(4</d/srv/shop/.s>, "generation", 10) = 10
10 write(2</dev/null>, "log", 3) = 3
11 fsync(4</d/srv/shop/.s>) = 0
11 rename("/d/srv/shop/.s", "/d/srv/shop/s") = 0
12 execve("/bin/sh", ["sh"], 0x7 /* 1 var */) = 0
12 write(1</d/srv/shop/hook>, "x", 1) = 1
"#;
        let points = parse(trace, Path::new("/d/srv"));
        let shown: Vec<String> = points.iter().map(|p| format!("{} {}", p.call, p.number)).collect();
        assert_eq!(shown, ["openat 2", "write 1", "fsync 1", "rename 1"]);
        assert_eq!(points[1].file.as_deref(), Some(Path::new("/d/srv/shop/.s")));
        assert_eq!(points[3].shown, r#"rename("/shop/.s", "/shop/s")"#);
        assert!(points[2].is_sync() && !points[3].is_sync());
    }
}

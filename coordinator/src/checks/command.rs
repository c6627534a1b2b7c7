//! A check that runs a program of the coordinator's directory of checks: status 0 passes, 21 is inconclusive, any other fails.
//!
//! The program has a process group of its own, which is killed whole when the program has ended or its time is over.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use sluice_common::caps;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::inconclusive;
use crate::rollout::check::{Check, Outcome};
use crate::rollout::prober::About;

/// The status by which a program says that it does not know, as hooks ask to be tried later.
const LATER: i32 = 21;
/// Time for what the group has written to arrive after its end; a process that left the group may hold the pipe open.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

pub(super) async fn run(dir: &Path, command: &[String], check: &Check, about: &About) -> (Outcome, String) {
    let child = match start(dir, command, about) {
        Ok(child) => child,
        Err(error) => return inconclusive(format!("cannot start: {error}")),
    };
    match finish(child, check.timeout).await {
        Ok((Some(status), output)) => judge(status, &output),
        Ok((None, output)) => inconclusive(said(&format!("no end within {:?}", check.timeout), &output)),
        Err(error) => inconclusive(error),
    }
}

fn start(dir: &Path, command: &[String], about: &About) -> io::Result<Child> {
    let Some((program, args)) = command.split_first() else {
        return Err(io::Error::other("no program"));
    };
    let About { rollout, app, version, batch, batches, hosts } = about;
    let hosts: Vec<&str> = hosts.iter().map(|host| host.as_str()).collect();
    Command::new(dir.join(program))
        .args(args)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .env("ROLLOUT_ID", rollout.as_str())
        .env("APPLICATION_NAME", app.as_str())
        .env("RELEASE_VERSION", version.as_str())
        .env("BATCH", (batch + 1).to_string())
        .env("BATCHES", batches.to_string())
        .env("BATCH_HOSTS", hosts.join(" "))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Waits for the end, or the time limit; kills what is left of the group then, and returns the end of what was printed.
async fn finish(mut child: Child, timeout: Duration) -> io::Result<(Option<ExitStatus>, String)> {
    let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let (out, err) = (tail_of(child.stdout.take()), tail_of(child.stderr.take()));
    let read = async { tokio::join!(out, err) };
    tokio::pin!(read);
    let mut printed = None;
    let ended = async {
        loop {
            tokio::select! {
                status = child.wait() => return status,
                done = &mut read, if printed.is_none() => printed = Some(done),
            }
        }
    };
    let status = tokio::time::timeout(timeout, ended).await.ok().transpose()?;
    drop(group);
    let (out, err) = match printed {
        Some(printed) => printed,
        None => tokio::time::timeout(OUTPUT_GRACE, read).await.unwrap_or_default(),
    };
    Ok((status, format!("{out} {err}")))
}

/// A process group that is killed when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        // A group that has ended already is what is wanted.
        let _ = self.0.map(|group| kill_process_group(group, Signal::KILL));
    }
}

/// Reads to the end and keeps the last bytes.
async fn tail_of(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 4 << 10]);
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..count]);
        let over = kept.len().saturating_sub(caps::CHECK_WORDS_BYTES_MAX / 2);
        kept.drain(..over);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

fn judge(status: ExitStatus, output: &str) -> (Outcome, String) {
    match status.code() {
        Some(0) => (Outcome::Pass, said("status 0", output)),
        Some(LATER) => inconclusive(said("status 21", output)),
        _ => (Outcome::Fail, said(&status.to_string(), output)),
    }
}

fn said(what: &str, output: &str) -> String {
    if output.trim().is_empty() { what.to_owned() } else { format!("{what}: {output}") }
}

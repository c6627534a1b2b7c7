//! Runs hooks and command checks: no shell, a clean environment, bounded output, a time limit, and no survivors.
//!
//! A hook ends with everything it started. Its processes are found three ways, because each alone can be escaped: its
//! cgroup (where one can be made), its session's process group, and a mark in the environment that children inherit. The mark
//! also finds what an agent left behind that was killed while a hook ran. Nobody waits for a pipe that a survivor
//! might hold: it is read until the hook's own process has ended and its survivors with it, and a moment longer.

mod capture;
mod cgroup;
mod child;
mod descendants;
mod user;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::spec;
use sluice_common::units::format_duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use capture::Capture;
use cgroup::Cgroup;
use child::Setup;

use crate::layout::AppDir;

pub(crate) use capture::shorten;
pub(crate) use cgroup::find as find_cgroups;
pub(crate) use child::UMASK;
pub(crate) use descendants::{end_marked, mark_of};
pub(crate) use user::find as find_user;

/// Where programs without a `/` are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long output is still read after everything has ended.
const DRAIN: Duration = Duration::from_millis(200);
/// The variable that marks a hook's processes.
pub(crate) const MARK: &str = "SLUICE_HOOK_ID";

/// The exit status by which a hook asks to be run again later.
const TRY_LATER: i32 = 21;

/// A command to run.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Program and arguments; `${NAME}` is replaced from the environment.
    pub(crate) command: Vec<String>,
    /// The release: the working directory, and where programs with a `/` are taken from.
    pub(crate) release: PathBuf,
    /// The whole environment but PATH and LANG.
    pub(crate) environment: BTreeMap<String, String>,
    /// How long it may take.
    pub(crate) timeout: Duration,
    /// Whom it runs as; the agent's own user otherwise.
    pub(crate) user: Option<String>,
    /// Marks its processes.
    pub(crate) id: String,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// How.
    pub(crate) end: End,
    /// Head and tail of what it printed.
    pub(crate) output: String,
    /// The last line that it printed, where that is not empty.
    pub(crate) last_line: Option<String>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// With status 0.
    Succeeded,
    /// With the status by which it asks to be run again later.
    TryLater,
    /// Otherwise; in words.
    Failed(String),
    /// It was ended because the agent stops.
    Interrupted,
}

impl Ended {
    fn failed(reason: String) -> Self {
        Self { end: End::Failed(reason), output: String::new(), last_line: None }
    }
}

/// Returns what the marks of everything that an application runs begin with.
pub(crate) fn scope(dir: &AppDir) -> String {
    format!("{}.", Digest::of(dir.base().as_os_str().as_encoded_bytes()).short())
}

/// Makes a mark for a command of the application whose marks begin with `scope`.
pub(crate) fn new_id(scope: &str) -> String {
    format!("{scope}.{}", uuid::Uuid::new_v4().simple())
}

/// Runs a command to its end, and everything it started with it.
pub(crate) async fn run(call: &Call, token: &CancellationToken) -> Ended {
    let (mut command, pipe) = match prepare(call) {
        Ok(prepared) => prepared,
        Err(reason) => return Ended::failed(reason),
    };
    let user = match call.user.as_deref().map(user::find).transpose() {
        Ok(user) => user,
        Err(reason) => return Ended::failed(reason),
    };
    if let Some(user) = &user {
        command.env("USER", &user.name).env("LOGNAME", &user.name).env("HOME", &user.home);
    }
    let cgroup = Cgroup::create(&call.id);
    Setup { cgroup: cgroup.as_ref().and_then(Cgroup::entrance), user }.install(&mut command);
    let begun = Instant::now();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ended::failed(format!("cannot run {}: {error}", call.command[0])),
    };
    // The pipe's writing end lives in the command; only the child may hold it.
    drop(command);
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut running = Running { pipe: Some(pipe), capture: Capture::default() };
    let end = running.until_end(&mut child, group, call.timeout, token).await;
    let survivors = end_descendants(group, begun.elapsed(), cgroup, &call.id).await;
    running.drain().await;
    let mut output = running.capture.into_text();
    let last_line = output.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
    if survivors > 0 {
        // What follows the hook's own output explains why the application is not there.
        output.push_str(&format!(
            "\n[sluice: {survivors} processes that this hook left running were ended; \
             let a supervisor such as systemd run the application]\n"
        ));
        tracing::warn!(survivors, command = call.command[0], "hook left processes running; they were ended");
    }
    Ended { end, output, last_line }
}

fn prepare(call: &Call) -> Result<(Command, pipe::Receiver), String> {
    let words = call.command.iter().map(|word| {
        spec::expand(word, &call.environment).map_err(|name| {
            format!(
                "the command needs the variable {name}; set it in the hook's environment or in agent.toml"
            )
        })
    });
    let words: Vec<String> = words.collect::<Result<_, _>>()?;
    let (program, arguments) = words.split_first().ok_or("the command is empty")?;
    let program = if program.contains('/') && !program.starts_with('/') {
        call.release.join(program.strip_prefix("./").unwrap_or(program))
    } else {
        PathBuf::from(program)
    };
    let output = || -> std::io::Result<(Stdio, Stdio, pipe::Receiver)> {
        let (reader, writer) = std::io::pipe()?;
        let reader = pipe::Receiver::from_owned_fd(reader.into())?;
        Ok((writer.try_clone()?.into(), writer.into(), reader))
    };
    let (stdout, stderr, reader) = output().map_err(|error| format!("cannot make a pipe: {error}"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(&call.release)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .envs(&call.environment)
        .env(MARK, &call.id)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .kill_on_drop(true);
    Ok((command, reader))
}

/// The output of a running command.
struct Running {
    pipe: Option<pipe::Receiver>,
    capture: Capture,
}

impl Running {
    async fn until_end(
        &mut self,
        child: &mut Child,
        group: Option<Pid>,
        timeout: Duration,
        token: &CancellationToken,
    ) -> End {
        let deadline = Instant::now() + timeout;
        let end = loop {
            tokio::select! {
                status = child.wait() => return judge(status),
                () = self.read() => {}
                () = tokio::time::sleep_until(deadline) => {
                    break End::Failed(format!("took longer than {}", format_duration(timeout)));
                }
                () = token.cancelled() => break End::Interrupted,
            }
        };
        signal(group, Signal::TERM);
        let killed_at = Instant::now() + caps::HOOK_GRACE;
        loop {
            tokio::select! {
                _ = child.wait() => return end,
                () = self.read() => {}
                () = tokio::time::sleep_until(killed_at) => break,
            }
        }
        signal(group, Signal::KILL);
        // After KILL the wait is the kernel's business, and short.
        let _ = child.wait().await;
        end
    }

    /// Reads what is there; waits for ever once the pipe has ended.
    async fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return std::future::pending().await };
        let mut buffer = [0; 16 * 1024];
        match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => self.pipe = None,
            Ok(n) => self.capture.take(&buffer[..n]),
        }
    }

    async fn drain(&mut self) {
        let until = Instant::now() + DRAIN;
        while self.pipe.is_some() && tokio::time::timeout_at(until, self.read()).await.is_ok() {}
    }
}

fn judge(status: std::io::Result<ExitStatus>) -> End {
    match status {
        Ok(status) if status.success() => End::Succeeded,
        Ok(status) => match (status.code(), status.signal()) {
            (Some(TRY_LATER), _) => End::TryLater,
            (Some(code), _) => End::Failed(format!("exited with status {code}")),
            (None, Some(signal)) => End::Failed(format!("was ended by signal {signal}")),
            (None, None) => End::Failed("ended without a status".into()),
        },
        Err(error) => End::Failed(format!("cannot be waited for: {error}")),
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // The group may be gone already.
        let _ = kill_process_group(group, signal);
    }
}

/// Ends what a command left running; returns how many processes that were.
async fn end_descendants(group: Option<Pid>, age: Duration, cgroup: Option<Cgroup>, id: &str) -> usize {
    let id = id.to_owned();
    let ended = tokio::task::spawn_blocking(move || {
        // The mark survives a change of group and session; what has taken it off is left to the others.
        descendants::end_with(&id, group, age, || {
            signal(group, Signal::KILL);
            if let Some(cgroup) = cgroup {
                cgroup.end();
            }
        })
    });
    ended.await.unwrap_or(0)
}

#[cfg(test)]
mod tests;

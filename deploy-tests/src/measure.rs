//! What a process took: wall time, CPU time and memory, its descendants' included.
//!
//! The kernel's own account of a child that has ended (`wait4`). Peak memory is that of the largest process; a child
//! never counts less than what its parent held when it was started, so what counts is started by a process that holds nothing
//! ([`alone()`]).

mod alone;
mod manifests;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::time::ClockId;
use nix::unistd::Pid;
use sluice_common::transfer::{Effort, cost};
use sluice_common::tree::Tree;
use wait4::Wait4;

pub use alone::{alone, report};
pub use manifests::Step;

/// What a process took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// From its start to its end.
    pub wall: Duration,
    /// User and system time of it and its descendants.
    pub cpu: Duration,
    /// Most resident memory of any one of them, in bytes.
    pub peak_bytes: u64,
}

impl Usage {
    /// Returns wall time in seconds.
    pub fn wall_seconds(&self) -> f64 {
        self.wall.as_secs_f64()
    }

    /// Returns CPU time in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.cpu.as_secs_f64()
    }
}

/// Runs a command to its end; fails with what it said when it fails. Its answer must be short: it is read at the end.
pub fn run(mut command: Command) -> Result<(Output, Usage)> {
    let (out, err) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
    command.stdin(Stdio::null()).stdout(out.reopen()?).stderr(err.reopen()?);
    let begun = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let ended = child.wait4()?;
    let wall = begun.elapsed();
    let output =
        Output { status: ended.status, stdout: fs_err::read(out.path())?, stderr: fs_err::read(err.path())? };
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("{:?} ended with {}: {}", command.get_program(), output.status, message.trim());
    }
    let cpu = ended.rusage.utime + ended.rusage.stime;
    Ok((output, Usage { wall, cpu, peak_bytes: ended.rusage.maxrss }))
}

/// How long a system is left alone before something is timed.
const SETTLE: Duration = Duration::from_secs(5);
/// Memory that is had ready: several times what any of it takes.
const READY_BYTES: usize = 1_536 << 20;
/// As large as the pieces in which a system sets aside memory for files that are written fast.
const READY_PIECE_BYTES: usize = 1 << 20;

/// Lets what was done before have its end (a file system's journal is written out), and has memory ready for what is timed next.
///
/// The host of a virtual machine may take back memory that has been free for two seconds (free page reporting), and whoever is given a
/// page of it waits for that one: 11 µs, measured, where writing a page that is there takes 0.7. Without this, installs of one tree
/// took 0.43 to 0.70 s, by chance; with it, 0.38 to 0.46 s. What was given back a moment ago is given out first.
pub fn settle() -> Result<()> {
    // The pace of a measurement, not a wait for a condition.
    std::thread::sleep(SETTLE);
    // Never on disk: it is gone before it would be written.
    let (mut file, piece) = (tempfile::tempfile()?, vec![1; READY_PIECE_BYTES]);
    let written = (0..READY_BYTES / READY_PIECE_BYTES).try_for_each(|_| file.write_all(&piece));
    written.with_context(|| format!("{READY_BYTES} bytes are needed in {}", std::env::temp_dir().display()))
}

/// Runs a shell script with variables; fails at its first command that fails.
pub fn shell(script: &str, variables: &[(&str, &OsStr)]) -> Result<(Output, Usage)> {
    run(script_of(script, variables))
}

/// Runs a shell script as [`shell`] does, and measures it as [`alone()`] does.
pub fn shell_alone(script: &str, variables: &[(&str, &OsStr)]) -> Result<(Output, Usage)> {
    alone(&script_of(script, variables))
}

fn script_of(script: &str, variables: &[(&str, &OsStr)]) -> Command {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).envs(variables.iter().copied()).env("LC_ALL", "C");
    command
}

/// Returns the CPU time that a running process has taken so far, its threads and ended children included. Its own to the
/// nanosecond: its `stat` would count in hundredths of a second, of which an update of 220 MB takes a dozen.
pub fn cpu_of(process: u32) -> Result<Duration> {
    let pid = Pid::from_raw(process.try_into()?);
    let own = ClockId::pid_cpu_clock_id(pid).and_then(ClockId::now);
    let own = own.with_context(|| format!("no process {process}"))?;
    let stat = fs_err::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may hold anything; what follows it does not.
    let fields = stat.rsplit_once(") ").context("no name in a process's state")?.1;
    // User and system time of children that it has waited for.
    let ticks = |number: usize| fields.split(' ').nth(number)?.parse::<u64>().ok();
    let ticks: Option<u64> = (13..15).map(ticks).sum();
    let ticks = ticks.context("no times in a process's state")?;
    Ok(Duration::from(own) + Duration::from_secs(ticks) / TICKS_PER_SECOND)
}

/// The kernel's USER_HZ: 100 on every Linux platform that Sluice runs on.
const TICKS_PER_SECOND: u32 = 100;

/// Encodes the transfer that the arguments name (`encode cold|update quick|best OLD NEW`) and prints its bytes: a process
/// of its own, so that the kernel can say what encoding takes.
pub fn encode(args: Vec<OsString>) -> ExitCode {
    ended(encoded_bytes(&args).map(|bytes| bytes.to_string()))
}

/// Takes a step with manifests of many entries (`manifests STEP FOLDER ENTRIES`), as [`encode`] encodes.
pub fn manifests(args: Vec<OsString>) -> ExitCode {
    ended(manifests::step(&args))
}

fn ended(result: Result<String>) -> ExitCode {
    match result {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn encoded_bytes(args: &[OsString]) -> Result<u64> {
    let [_, what, effort, old, new] = args else { bail!("usage: encode cold|update quick|best OLD NEW") };
    let effort: Effort = effort.to_str().context("an effort that is not UTF-8")?.parse()?;
    let old = if what == "update" { Some(Tree::scan(old.as_ref())?) } else { None };
    let new = Tree::scan(new.as_ref())?;
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    Ok(cost(old.as_ref(), &new, effort, workers, &|_| {})?.total())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shells_children_count_and_its_failure_is_told() {
        let (output, usage) = shell(
            "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo \"$WORD\"",
            &[("WORD", "said".as_ref())],
        )
        .unwrap();
        assert_eq!(output.stdout, b"said\n");
        assert!(usage.cpu > Duration::ZERO && usage.peak_bytes > 100_000);
        let error = shell("echo broken >&2; false; echo never", &[]).unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
    }

    #[test]
    fn this_process_has_taken_time() {
        assert!(cpu_of(std::process::id()).is_ok());
    }
}

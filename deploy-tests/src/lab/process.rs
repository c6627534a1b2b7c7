//! A process of the lab: its log is a file, its life is tied to the lab's.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};

use super::wait_for;

/// Time that a process gets to end by itself.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// A running process. Dropped, it is killed.
pub struct Process {
    name: String,
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints is appended to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = fs::OpenOptions::new().create(true).append(true).open(log)?.into_parts().0;
        command.stdin(Stdio::piped()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        note_started(child.id());
        Ok(Self { name: name.to_owned(), child: Some(child), log: log.to_owned() })
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Fails, with the end of its log, when the process has ended.
    pub fn check_running(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { bail!("{} is not running", self.name) };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}; its log ends:\n{}", self.name, tail(&self.log)),
        }
    }

    /// Says whether somebody has killed the process; fails, with the end of its log, when it has ended in another way.
    pub fn was_killed(&mut self) -> Result<bool> {
        let Some(child) = &mut self.child else { bail!("{} is not running", self.name) };
        let Some(status) = child.try_wait()? else { return Ok(false) };
        if status.signal() != Some(Signal::KILL.as_raw()) {
            bail!("{} ended with {status}; its log ends:\n{}", self.name, tail(&self.log));
        }
        note_ended(child.id());
        self.child = None;
        Ok(true)
    }

    /// Kills the process as `kill -9` does and waits until it is gone.
    pub fn kill(mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
            note_ended(child.id());
        }
        Ok(())
    }

    /// Waits until the process has ended by itself.
    pub fn wait(mut self, patience: Duration) -> Result<ExitStatus> {
        let Some(child) = &mut self.child else { bail!("{} is not running", self.name) };
        let status = wait_for(&format!("{} to end", self.name), patience, || Ok(child.try_wait()?))?;
        note_ended(child.id());
        self.child = None;
        Ok(status)
    }

    /// Asks the process to end and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        signal(child, Signal::TERM)?;
        let status: ExitStatus =
            wait_for(&format!("{} to stop", self.name), STOP_PATIENCE, || Ok(child.try_wait()?))?;
        if !status.success() {
            bail!("{} stopped with {status}; its log ends:\n{}", self.name, tail(&self.log));
        }
        note_ended(child.id());
        self.child = None;
        Ok(())
    }

    /// Returns the most memory that the process has held and what it holds now, in bytes: VmHWM and VmRSS.
    pub fn memory(&self) -> Result<Memory> {
        memory_of(self.id())
    }

    /// Returns the processor time that the process has used, in user and in system mode.
    pub fn processor_time(&self) -> Result<Duration> {
        crate::measure::cpu_of(self.id())
    }
}

/// Returns the most memory that a process has held and what it holds now, in bytes: VmHWM, VmRSS and RssAnon.
pub fn memory_of(process: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    let bytes = |name: &str| field(name).map(|kib| kib << 10).with_context(|| format!("no {name}"));
    Ok(Memory { resident: bytes("VmRSS")?, resident_peak: bytes("VmHWM")?, anonymous: bytes("RssAnon")? })
}

/// Resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// At most, so far.
    pub resident_peak: u64,
    /// Now, without mapped files.
    pub anonymous: u64,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Nothing can be done about a process that cannot be killed, and its pipe closes all the same.
            let _ = child.kill();
            let _ = child.wait();
            note_ended(child.id());
        }
    }
}

/// Runs a command to its end and returns what it printed; ended with the others by [`end_all`].
pub(super) fn run_to_end(mut command: Command) -> Result<Output> {
    let child = command.spawn()?;
    let id = child.id();
    note_started(id);
    let output = child.wait_with_output();
    note_ended(id);
    Ok(output?)
}

/// Processes that were started and have not ended: what an interrupted program must not leave behind.
static STARTED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn note_started(id: u32) {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
}

fn note_ended(id: u32) {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
}

/// Asks every process of this program to end and waits until they are gone; kills those that stay.
pub fn end_all() {
    let started = STARTED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let gone = |id: &u32| !Path::new(&format!("/proc/{id}/exe")).exists();
    for signal in [Signal::TERM, Signal::KILL] {
        for id in &started {
            // It may have ended by now, which is what is wanted.
            let _ = send(*id, signal);
        }
        // Those that stay are killed in the next round; after that there is nothing left to try.
        let _ = wait_for("processes to end", Duration::from_secs(5), || {
            Ok(started.iter().all(gone).then_some(()))
        });
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    send(child.id(), signal)
}

fn send(id: u32, signal: Signal) -> Result<()> {
    let id = Pid::from_raw(i32::try_from(id)?).context("process id")?;
    Ok(kill_process(id, signal)?)
}

/// Returns the last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

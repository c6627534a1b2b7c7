//! A network and mounts of their own. The kernel takes both away with the last process that is in them, so nothing is left
//! mounted and no address taken, however whoever uses them ends.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::thread::UnshareFlags;

use crate::lab::path_text;
use crate::measure;

/// The bridge that machines are attached to.
pub(super) const BRIDGE: &str = "sluice0";
/// The address of the coordinator, on the bridge.
pub(super) const OUTSIDE: &str = "10.83.0.1";
/// Room for what a coordinator and a few machines write; only what is written is taken.
const SCRATCH_OPTIONS: &str = "size=3g,mode=755";

/// Runs `work` on a thread with a network and mounts of its own, which the processes that it starts share; what is written to
/// `scratch` stands in memory and goes with them, so that agents find the free space that they ask for.
pub fn alone<T: Send>(scratch: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            part()?;
            command("mount", &["-t", "tmpfs", "-o", SCRATCH_OPTIONS, "tmpfs", path_text(scratch)?])?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[expect(
    unsafe_code,
    reason = "a process of its own for the whole list would only move the call to another program"
)]
fn part() -> Result<()> {
    // SAFETY: the table of open files stays shared; only the thread's network, mounts and working directory become its own.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }
        .context("cannot get a network and mounts of its own")?;
    command("mount", &["--make-rprivate", "/"])?;
    command("ip", &["link", "set", "lo", "up"])?;
    // There are no loops to wait for.
    command("ip", &["link", "add", BRIDGE, "type", "bridge", "forward_delay", "0"])?;
    command("ip", &["address", "add", &format!("{OUTSIDE}/24"), "dev", BRIDGE])?;
    command("ip", &["link", "set", BRIDGE, "up"])
}

/// Runs a short command that must succeed.
pub(super) fn command(program: &str, args: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(args);
    measure::run(command)?;
    Ok(())
}

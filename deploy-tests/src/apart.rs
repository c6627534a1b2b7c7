//! A program apart: nothing that it starts, mounts or writes outlives it, however it ends, by `kill -9` too.
//!
//! ```text
//! the program that was started        waits; its end, whatever it is, ends the rest
//!   sweeper                           removes the scratch directory once the program is gone
//!   first process of its own numbers  reaps what is left to it; with it the kernel ends every process, and unmounts every disk
//!     the program again               does the work, with the scratch directory as its place for temporary files
//! ```
//!
//! Where the system gives no namespaces (to users other than root, in some containers) the program does its work itself, and
//! only its files are swept up.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use rustix::process::{WaitOptions, wait};

use crate::lab::wait_for;
use crate::measure;
use crate::role::Role;

/// Set for the program that does the work.
const INSIDE: &str = "SLUICE_APART";
/// A namespace of processes and of mounts, which end with the program that asked for them.
const NAMESPACES: [&str; 7] =
    ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--kill-child", "--mount-proc"];
/// The directory of the scratch directory that is kept in memory.
const MEMORY: &str = "memory";
/// The file of the scratch directory that names the namespace of the processes that use it.
const NAMESPACE: &str = "namespace";
/// Where a process says what namespace it is in, below its own directory of `/proc`.
const OWN_NAMESPACE: &str = "ns/pid";
/// How long the last processes of a program that was killed may still write.
const SWEEP_PATIENCE: Duration = Duration::from_secs(30);

/// Calls `work` in this process started once more, apart from the rest; returns how it ended.
pub fn run(work: impl FnOnce() -> ExitCode) -> ExitCode {
    if std::env::var_os(INSIDE).is_some() {
        return work();
    }
    outside().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn outside() -> Result<ExitCode> {
    let executable = std::env::current_exe()?;
    let scratch = tempfile::Builder::new().prefix("sluice-").tempdir()?;
    fs::create_dir(scratch.path().join(MEMORY))?;
    // Its standard input closes with this process.
    let mut sweeper = Role::Sweep.command(&executable);
    let mut sweeper = sweeper.arg(scratch.path()).stdin(Stdio::piped()).process_group(0).spawn()?;
    let mut program = if may_part() {
        let mut program = Command::new(NAMESPACES[0]);
        program.args(&NAMESPACES[1..]).arg("--").arg(&executable);
        program.args(Role::First.words());
        program
    } else {
        Command::new(&executable)
    };
    program.args(std::env::args_os().skip(1)).env(INSIDE, "yes").env("TMPDIR", scratch.path());
    let status = program.status().context("cannot start the program apart")?;
    drop(sweeper.stdin.take());
    sweeper.wait()?;
    // It is swept up.
    let _: PathBuf = scratch.keep();
    Ok(code(status))
}

/// Returns where files stand in memory, so that syncs cost nothing; where there are no namespaces they stand on the disk.
pub fn memory() -> PathBuf {
    std::env::temp_dir().join(MEMORY)
}

/// Says whether there may be namespaces.
fn may_part() -> bool {
    let mut probe = Command::new(NAMESPACES[0]);
    probe.args(&NAMESPACES[1..]).args(["--", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// The first process of its own numbers: starts this program again with the arguments, the role's name first, and reaps
/// until that has ended.
pub fn first(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let started = || -> Result<Child> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "tmpfs"]).arg(memory());
        measure::run(mount)?;
        let own = fs::read_link(Path::new("/proc/self").join(OWN_NAMESPACE))?;
        fs::write(std::env::temp_dir().join(NAMESPACE), own.as_os_str().as_bytes())?;
        Ok(Command::new(std::env::current_exe()?).args(args.into_iter().skip(1)).spawn()?)
    };
    match started().and_then(|child| reap(&child)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for every process that ends until `child` has.
fn reap(child: &Child) -> Result<ExitCode> {
    loop {
        let Some((process, status)) = wait(WaitOptions::empty())? else { continue };
        if u32::try_from(process.as_raw_nonzero().get()) == Ok(child.id()) {
            return Ok(code(ExitStatus::from_raw(status.as_raw())));
        }
    }
}

/// Removes a directory, the one argument beside the role's name, once standard input has closed.
pub fn sweep(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(dir) = args.into_iter().nth(1).map(PathBuf::from) else { return ExitCode::FAILURE };
    // Closed or broken, nobody is there any more.
    let _ = std::io::stdin().read(&mut [0]);
    // A directory on which something is mounted must not be removed from outside: the kernel would hide the mount and keep it.
    let gone = wait_for("the last process", SWEEP_PATIENCE, || Ok((!is_inhabited(&dir)).then_some(())));
    match gone.and_then(|()| wait_for("the last writes", SWEEP_PATIENCE, || Ok(swept(&dir).ok()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {} stays: {error:#}", dir.display());
            ExitCode::FAILURE
        }
    }
}

/// Says whether a process is left in the namespace that a scratch directory names, if it names one.
fn is_inhabited(dir: &Path) -> bool {
    let Ok(namespace) = fs::read(dir.join(NAMESPACE)) else { return false };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_in = |process: fs::DirEntry| {
        fs::read_link(process.path().join(OWN_NAMESPACE))
            .is_ok_and(|own| own.as_os_str().as_bytes() == namespace)
    };
    processes.into_iter().any(is_in)
}

fn swept(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    ensure!(!dir.exists(), "somebody has made it again");
    Ok(())
}

/// Returns how a program ended as shells have it.
fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

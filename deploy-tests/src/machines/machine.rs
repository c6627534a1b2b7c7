//! One machine: a container with an init of its own, on a root that is the [`Base`] with its own writes above it.
//!
//! Must be used [`alone`](super::alone()): its root is mounted and its network attached there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;

use super::Base;
use super::alone::{BRIDGE, command};
use crate::lab::{Output, PATIENCE, Process, path_text, wait_for};

/// How systemd-nspawn ends when the machine wants to be booted again.
const REBOOTS: i32 = 133;
/// How long a machine may take to shut down.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(60);

/// A machine. Dropped, its power is cut.
pub struct Machine {
    name: String,
    dir: PathBuf,
    /// Files of the outside that it sees: there, and where inside.
    shown: Vec<(PathBuf, &'static str)>,
    address: String,
    container: Option<Process>,
    /// Its init, as it is numbered outside.
    init: Option<u32>,
}

impl Machine {
    /// Makes a machine that was never booted; `number` tells it from its neighbours on the network.
    pub fn new(base: &Base, dir: &Path, name: &str, number: u8) -> Result<Self> {
        for part in ["upper", "work", "root"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let text = |part: &str| path_text(&dir.join(part)).map(str::to_owned);
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            path_text(base.path())?,
            text("upper")?,
            text("work")?
        );
        command("mount", &["-t", "overlay", "overlay", "-o", &layers, &text("root")?])?;
        let machine = Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            shown: Vec::new(),
            address: format!("10.83.0.{}", 10 + number),
            container: None,
            init: None,
        };
        machine.write("/etc/hostname", &format!("{name}\n"))?;
        let network = format!("[Match]\nName=host0\n[Network]\nAddress={}/24\n", machine.address);
        machine.write("/etc/systemd/network/10-host0.network", &network)?;
        Ok(machine)
    }

    /// Shows it a file of the outside, from its next boot on.
    pub fn show(&mut self, outside: PathBuf, inside: &'static str) {
        self.shown.push((outside, inside));
    }

    /// Boots it and waits until everything that starts by itself has started.
    pub fn boot(&mut self) -> Result<()> {
        let mut nspawn = Command::new("systemd-nspawn");
        nspawn.args(["--boot", "--quiet", "--console=pipe", "--settings=no", "--register=no", "--keep-unit"]);
        nspawn.args(["--link-journal=no", "--resolv-conf=off", "--timezone=off"]);
        nspawn.arg(format!("--network-bridge={BRIDGE}"));
        nspawn.arg(format!("--machine={}", self.name)).arg("--directory").arg(self.root());
        for (outside, inside) in &self.shown {
            nspawn.arg(format!("--bind-ro={}:{inside}", path_text(outside)?));
        }
        // As on any system of today, whatever the hierarchy outside.
        nspawn.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        let mut container = Process::start(&self.name, nspawn, &self.dir.join("console.log"))?;
        let patience = format!("{} to boot", self.name);
        self.init = Some(wait_for(&patience, PATIENCE, || {
            container.check_running()?;
            init_of(container.id())
        })?);
        self.container = Some(container);
        wait_for(&patience, PATIENCE, || {
            // The bus is the first thing that may not be there yet.
            let state = self.try_run("systemctl is-system-running --wait")?;
            Ok(["running", "degraded"].contains(&state.stdout.trim()).then_some(()))
        })
    }

    /// Reboots it from inside, in good order.
    pub fn reboot(&mut self) -> Result<()> {
        self.try_run("systemctl reboot")?;
        let container = self.container.take().context("the machine does not run")?;
        let status = container.wait(SHUTDOWN_PATIENCE)?;
        ensure!(status.code() == Some(REBOOTS), "{} was to boot again, but ended with {status}", self.name);
        self.boot()
    }

    /// Ends all its processes at once and boots it again.
    pub fn reset(&mut self) -> Result<()> {
        self.cut_power()?;
        self.boot()
    }

    /// Ends all its processes at once.
    pub fn cut_power(&mut self) -> Result<()> {
        let Some(container) = self.container.take() else { return Ok(()) };
        if let Some(init) = self.init.take() {
            command("kill", &["-KILL", &init.to_string()])?;
        }
        container.wait(SHUTDOWN_PATIENCE)?;
        Ok(())
    }

    /// Runs a line of shell inside and returns what it answered, whatever its exit code.
    pub fn try_run(&self, line: &str) -> Result<Output> {
        let init = self.init.with_context(|| format!("{} does not run", self.name))?;
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target", &init.to_string(), "/bin/sh", "-c", line]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        let output = command.stdin(Stdio::null()).output()?;
        Ok(Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a line of shell inside, which must succeed; returns what it printed, without the space around it.
    pub fn run(&self, line: &str) -> Result<String> {
        let output = self.try_run(line)?;
        if output.code != 0 {
            bail!("{}: {line} ended with {}:\n{}{}", self.name, output.code, output.stdout, output.stderr);
        }
        Ok(output.stdout.trim().to_owned())
    }

    /// Writes a file by its path inside, with the directories above it.
    pub fn write(&self, inside: &str, text: &str) -> Result<()> {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().context("a path inside is absolute")?)?;
        Ok(fs::write(path, text)?)
    }

    /// Returns where a path of the inside stands outside. Links are those of the inside: what is read must not lead over one.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root().join(inside.trim_start_matches('/'))
    }

    fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Already failing, or done with: systemd-nspawn is killed with what holds it, and takes the machine along.
        let _ = self.cut_power();
    }
}

/// Finds the init below a systemd-nspawn: the process that is the first of its own numbering.
fn init_of(nspawn: u32) -> Result<Option<u32>> {
    let mut below = vec![nspawn];
    while let Some(parent) = below.pop() {
        let children =
            fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            let is_systemd =
                fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default() == "systemd\n";
            if is_systemd && numbers.split_whitespace().next_back() == Some("1") {
                return Ok(Some(child));
            }
            below.push(child);
        }
    }
    Ok(None)
}

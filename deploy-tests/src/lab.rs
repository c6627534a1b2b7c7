//! A lab: one coordinator, an operator and any number of agents on loopback, all state under one directory.
//!
//! ```text
//! DIR/coordinator/            the coordinator's data, coordinator.log
//! DIR/operator/               home of the command line
//! DIR/keys/release.key[.pub]  the release engineer's key
//! DIR/hosts/NAME/             agent.toml, agent.log, data/, srv/APP/current
//! ```
//!
//! Processes end with the lab: every one of them watches a pipe that the lab holds.

mod host;
mod operator;
mod process;
mod receivers;
mod tree;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fs_err as fs;

pub use host::{AgentOptions, LabHost};
pub use operator::{Operator, Output};
pub use process::{Memory, Process, end_all, memory_of};
pub use receivers::{Received, receive};
pub use tree::{Difference, compare, copy_tree, noise, write_tree};

use crate::role::Role;

/// How long anything in a lab may take before the lab gives up with what it was waiting for.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Has an agent use a disk to its end, in its `agent.toml`: nothing runs here that would need what stays free, and the disk of the
/// machine that the tests run on may be nearly full.
pub const KEEP_NOTHING_FREE: &str = "[retention]\ndisk_floor = \"0%\"\n";

/// A coordinator, an operator and agents.
pub struct Lab {
    executable: PathBuf,
    dir: PathBuf,
    operator: Operator,
    coordinator: Option<Process>,
    hosts: Vec<LabHost>,
    /// Where the coordinator listens: an address, and a port once it is known.
    ip: String,
    port: u16,
    serve_args: Vec<String>,
}

impl Lab {
    /// Starts a coordinator under `dir` and logs an administrator in. `executable` can take roles. Plans are quick ones:
    /// a better one that comes meanwhile would change what is measured.
    pub fn start(executable: &Path, dir: &Path) -> Result<Self> {
        Self::start_with(executable, dir, &["--effort", "quick"])
    }

    /// Starts a coordinator with these arguments of `serve` beside those that a lab needs.
    pub fn start_with(executable: &Path, dir: &Path, serve_args: &[&str]) -> Result<Self> {
        Self::start_at(executable, dir, "127.0.0.1", serve_args)
    }

    /// Starts a coordinator that listens at an address which is not loopback's.
    pub fn start_at(executable: &Path, dir: &Path, ip: &str, serve_args: &[&str]) -> Result<Self> {
        fs::create_dir_all(dir.join("keys"))?;
        fs::create_dir_all(dir.join("hosts"))?;
        let operator = Operator::new(executable, dir.join("operator"));
        let mut lab = Self {
            executable: executable.to_owned(),
            dir: dir.to_owned(),
            operator,
            coordinator: None,
            hosts: Vec::new(),
            ip: ip.to_owned(),
            port: 0,
            serve_args: serve_args.iter().map(|arg| (*arg).to_owned()).collect(),
        };
        lab.start_coordinator()?;
        let token = lab.coordinator_dir().join("bootstrap-token");
        lab.operator.run(["login", &lab.address(), "--token-file", path_text(&token)?])?;
        lab.operator.run(["key", "new", path_text(&lab.key())?])?;
        Ok(lab)
    }

    /// Starts the coordinator, again on the port it had before.
    pub fn start_coordinator(&mut self) -> Result<()> {
        let command = Role::Coordinator.command(&self.executable);
        let (mut process, data) = (self.launch_coordinator(command)?, self.coordinator_dir());
        let address = wait_for("the coordinator to listen", PATIENCE, || {
            process.check_running()?;
            Ok(fs::read_to_string(data.join("address")).ok())
        })?;
        self.port =
            address.trim().rsplit(':').next().and_then(|port| port.parse().ok()).context("no port")?;
        self.coordinator = Some(process);
        Ok(())
    }

    /// Starts a coordinator that kills itself at a commit, again on the port it had before. It may be gone on return.
    pub fn start_coordinator_until(&mut self, strike: &str) -> Result<()> {
        let mut command = Role::RehearseCoordinator.command(&self.executable);
        command.env(sluice_coordinator::rehearsal::STRIKE, strike);
        self.coordinator = Some(self.launch_coordinator(command)?);
        Ok(())
    }

    /// Says whether the coordinator has been killed; fails where it ended in another way.
    pub fn coordinator_was_killed(&mut self) -> Result<bool> {
        let Some(process) = &mut self.coordinator else { return Ok(true) };
        let was_killed = process.was_killed()?;
        if was_killed {
            self.coordinator = None;
        }
        Ok(was_killed)
    }

    fn launch_coordinator(&self, mut command: std::process::Command) -> Result<Process> {
        let data = self.coordinator_dir();
        remove_if_there(&data.join("address"))?;
        command.arg("serve").arg("--data").arg(&data).arg("--listen").arg(self.address());
        command.args(&self.serve_args);
        Process::start("coordinator", command, &self.dir.join("coordinator.log"))
    }

    /// Kills the coordinator as `kill -9` does.
    pub fn kill_coordinator(&mut self) -> Result<()> {
        self.coordinator.take().context("the coordinator is not running")?.kill()
    }

    /// Enrols and starts an agent.
    pub fn add_host(&mut self, name: &str, site: &str, options: AgentOptions) -> Result<()> {
        let mut host = self.enrol_host(name, site, options)?;
        host.start(&self.executable)?;
        self.hosts.push(host);
        Ok(())
    }

    /// Enrols a host without starting its agent.
    pub fn enrol_host(&self, name: &str, site: &str, options: AgentOptions) -> Result<LabHost> {
        let token = self.labelled_token(name, site, &options.labels)?;
        let dir = self.dir.join("hosts").join(name);
        LabHost::enrol(&self.executable, &dir, name, &self.address(), &token, &self.key(), options)
    }

    /// Makes a join token for a host of this name.
    pub fn join_token(&self, name: &str, site: &str) -> Result<String> {
        self.labelled_token(name, site, &[])
    }

    fn labelled_token(&self, name: &str, site: &str, labels: &[String]) -> Result<String> {
        let labels = labels.iter().flat_map(|label| ["--label", label.as_str()]);
        let args = ["token", "create", "--site", site, "--name", name].into_iter().chain(labels);
        Ok(self.operator.run(args)?.stdout)
    }

    /// Waits until every host has a session.
    pub fn wait_connected(&self) -> Result<()> {
        wait_for("every host to connect", PATIENCE, || {
            let hosts = self.operator.hosts()?;
            let connected = hosts.iter().filter(|host| host.connected).count();
            Ok((connected >= self.hosts.len()).then_some(()))
        })
    }

    /// Packs, pushes, signs and registers `tree` as a release.
    pub fn release(&self, app: &str, version: &str, tree: &Path) -> Result<Output> {
        let key = self.key();
        let args = ["release", "create", "--app", app, "--version", version, "--package", path_text(tree)?];
        self.operator.run(args.into_iter().chain(["--key", path_text(&key)?]))
    }

    /// Returns the operator.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Returns the hosts in the order in which they were added.
    pub fn hosts(&self) -> &[LabHost] {
        &self.hosts
    }

    /// Returns a host.
    pub fn host_mut(&mut self, name: &str) -> Result<&mut LabHost> {
        self.hosts
            .iter_mut()
            .find(|host| host.name() == name)
            .with_context(|| format!("no host {name} in the lab"))
    }

    /// Starts the agent of a host, after it was killed.
    pub fn restart_agent(&mut self, name: &str) -> Result<()> {
        let executable = self.executable.clone();
        self.host_mut(name)?.start(&executable)
    }

    /// Returns where the coordinator listens.
    pub fn address(&self) -> String {
        format!("{}:{}", self.ip, self.port)
    }

    /// Returns the coordinator's process, to measure it.
    pub fn coordinator_process(&self) -> Result<&Process> {
        self.coordinator.as_ref().context("the coordinator is not running")
    }

    /// Returns the directory of the lab.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the coordinator's data directory.
    pub fn coordinator_dir(&self) -> PathBuf {
        self.dir.join("coordinator")
    }

    /// Returns the release key.
    pub fn key(&self) -> PathBuf {
        self.dir.join("keys/release.key")
    }

    /// Returns the executable that takes roles.
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// Ends every process in good order.
    pub fn stop(&mut self) -> Result<()> {
        for host in &mut self.hosts {
            host.stop()?;
        }
        match self.coordinator.take() {
            Some(coordinator) => coordinator.stop(),
            None => Ok(()),
        }
    }
}

/// Tries `attempt` until it yields something; fails with what was waited for after `patience`.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s for {what}", patience.as_secs());
        }
        // The poll interval of a condition, not a guess at how long it takes.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns a path as text, for a command line.
pub(crate) fn path_text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

//! A host of the lab: an agent with directories of its own.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use fs_err as fs;

use super::process::{Memory, Process};
use super::{KEEP_NOTHING_FREE, path_text, wait_for};
use crate::role::Role;

/// What differs from agent to agent.
#[derive(Debug, Clone, Default)]
pub struct AgentOptions {
    /// The agent's own limit, as in `8Mbit/s`.
    pub limit: Option<String>,
    /// Variables for the hooks and checks of an application: application, name, value.
    pub variables: Vec<(String, String, String)>,
    /// The shipped program that the agent runs as; this executable in that role otherwise.
    pub program: Option<PathBuf>,
    /// Where the agent dials, where that is not the coordinator itself.
    pub dial: Option<String>,
    /// Labels that the host enrols with, as in `role=web`.
    pub labels: Vec<String>,
}

/// An enrolled host.
pub struct LabHost {
    name: String,
    dir: PathBuf,
    options: AgentOptions,
    process: Option<Process>,
}

impl LabHost {
    pub(super) fn enrol(
        executable: &Path,
        dir: &Path,
        name: &str,
        address: &str,
        token: &str,
        key: &Path,
        options: AgentOptions,
    ) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let host = Self { name: name.to_owned(), dir: dir.to_owned(), options, process: None };
        let public_key = sluice_common::keys::public_path(key);
        let mut command = host.command(executable, "enroll");
        command.args(["--coordinator", host.options.dial.as_deref().unwrap_or(address), "--name", name]);
        command.args(["--token-file", "-", "--trust", path_text(&public_key)?]);
        command.arg("--data").arg(dir.join("data")).arg("--root").arg(dir.join("srv"));
        run_with_input(command, token).with_context(|| format!("cannot enrol {name}"))?;
        host.complete_config()?;
        Ok(host)
    }

    fn command(&self, executable: &Path, verb: &str) -> Command {
        let mut command = match &self.options.program {
            Some(program) => Command::new(program),
            None => Role::Agent.command(executable),
        };
        command.arg(verb).arg("--config").arg(self.config());
        command
    }

    /// Appends what this lab has an agent do otherwise than a first `agent.toml`, and variables.
    fn complete_config(&self) -> Result<()> {
        let mut tables: BTreeMap<&str, String> = BTreeMap::new();
        for (app, name, value) in &self.options.variables {
            *tables.entry(app).or_default() += &format!("{name} = {value:?}\n");
        }
        let tables: String =
            tables.iter().map(|(app, lines)| format!("\n[apps.{app}.variables]\n{lines}")).collect();
        let text = format!("\n{KEEP_NOTHING_FREE}{tables}");
        fs::OpenOptions::new().append(true).open(self.config())?.write_all(text.as_bytes())?;
        Ok(())
    }

    /// Starts the agent.
    pub fn start(&mut self, executable: &Path) -> Result<()> {
        let mut command = self.command(executable, "run");
        if let Some(limit) = &self.options.limit {
            command.args(["--limit", limit]);
        }
        self.process = Some(Process::start(&self.name, command, &self.log())?);
        Ok(())
    }

    /// Kills the agent as `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().with_context(|| format!("the agent of {} is not running", self.name))?.kill()
    }

    /// Asks the agent to end and waits until it has.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), Process::stop)
    }

    /// Returns the agent's memory.
    pub fn memory(&self) -> Result<Memory> {
        self.process.as_ref().context("the agent is not running")?.memory()
    }

    /// Returns the id of the agent's process.
    pub fn process_id(&self) -> Result<u32> {
        self.process.as_ref().map(Process::id).context("the agent is not running")
    }

    /// Runs `sluice-agent fsck` and fails with what it found.
    pub fn fsck(&self, executable: &Path) -> Result<()> {
        let output = self.command(executable, "fsck").output()?;
        if !output.status.success() {
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            bail!("fsck of {} found:\n{out}{err}", self.name);
        }
        Ok(())
    }

    /// Waits until the agent's log holds `text` after its first `from` bytes.
    pub fn wait_for_log(&self, from: usize, text: &str) -> Result<()> {
        wait_for(&format!("{} to log {text:?}", self.name), super::PATIENCE, || {
            let log = fs::read_to_string(self.log())?;
            Ok(log.get(from..).is_some_and(|new| new.contains(text)).then_some(()))
        })
    }

    /// Returns the host's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the host's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the agent's log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("agent.toml")
    }

    /// Returns the directory of an application on this host.
    pub fn app_dir(&self, app: &str) -> PathBuf {
        self.dir.join("srv").join(app)
    }

    /// Returns the `current` link of an application on this host.
    pub fn current(&self, app: &str) -> PathBuf {
        self.app_dir(app).join("current")
    }
}

fn run_with_input(mut command: Command, input: &str) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

//! The operator of the lab: the command line as a process, and the same identity for typed questions.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sluice_proto::transport::client::Dial;
use sluice_proto::transport::credentials::Credentials;
use sluice_proto::transport::tls;
use sluice_proto::v1;
use sluice_proto::v1::fleet_client::FleetClient;
use sluice_proto::v1::rollouts_client::RolloutsClient;
use tonic::transport::Channel;

use super::process::run_to_end;
use super::tree::copy_tree;
use crate::role::Role;

/// What a command of `sluice` answered.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// Its data.
    pub stdout: String,
    /// Its messages.
    pub stderr: String,
}

/// Runs `sluice` with a home of its own.
#[derive(Debug, Clone)]
pub struct Operator {
    executable: PathBuf,
    home: PathBuf,
}

impl Operator {
    /// Makes an operator whose identity is kept under `home`.
    pub fn new(executable: &Path, home: PathBuf) -> Self {
        Self { executable: executable.to_owned(), home }
    }

    /// Takes over the identity of another operator, and dials `to` where that one dials `from`.
    pub fn copy_of(&self, other: &Self, from: &str, to: &str) -> Result<()> {
        copy_tree(&other.home, &self.home)?;
        let config = self.home.join("config.toml");
        fs_err::write(&config, fs_err::read_to_string(&config)?.replace(from, to))?;
        Ok(())
    }

    /// Returns the command line with `args`, ready to start.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Role::Operator.command(&self.executable);
        command.arg("--home").arg(&self.home).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command and returns what it answered, whatever its exit code.
    pub fn try_run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Output> {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = run_to_end(command).context("cannot start sluice")?;
        Ok(Output {
            code: output.status.code().context("sluice was killed")?,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command whose messages go where this program's go, for people to watch; returns its exit code.
    pub fn watch<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<i32> {
        let mut command = self.command(args);
        command.stdout(Stdio::null());
        run_to_end(command).context("cannot start sluice")?.status.code().context("sluice was killed")
    }

    /// Runs a command that must succeed.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Output> {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let output = self.try_run(&args)?;
        if output.code != 0 {
            let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
            bail!(
                "sluice {} ended with {}:\n{}{}",
                words.join(" "),
                output.code,
                output.stdout,
                output.stderr
            );
        }
        Ok(output)
    }

    /// Returns every host as the coordinator sees it.
    pub fn hosts(&self) -> Result<Vec<v1::Host>> {
        self.ask(async |channel| {
            let request = v1::ListHostsRequest::default();
            Ok(FleetClient::new(channel).list_hosts(request).await?.into_inner().hosts)
        })
    }

    /// Returns a rollout as the coordinator sees it.
    pub fn rollout(&self, id: &str) -> Result<v1::Rollout> {
        self.ask(async |channel| {
            let request = v1::GetRolloutRequest { id: id.to_owned(), hosts_from: 0 };
            let answer = RolloutsClient::new(channel).get(request).await?.into_inner();
            answer.rollout.context("no rollout in the answer")
        })
    }

    /// Returns the newest rollout of an application, with its hosts' reports.
    pub fn newest_rollout(&self, app: &str) -> Result<Option<v1::Rollout>> {
        let newest = self.ask(async |channel| {
            let request = v1::ListRolloutsRequest { app: app.to_owned(), limit: 1 };
            Ok(RolloutsClient::new(channel).list(request).await?.into_inner().rollouts.pop())
        })?;
        newest.map(|rollout| self.rollout(&rollout.id)).transpose()
    }

    /// Asks the coordinator over a channel with this operator's identity.
    pub fn ask<T>(&self, question: impl AsyncFnOnce(Channel) -> Result<T>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { question(self.channel().await?).await })
    }

    async fn channel(&self) -> Result<Channel> {
        let credentials = Credentials::load(&self.home.join("identity.pem"))?;
        let config: toml::Table = fs_err::read_to_string(self.home.join("config.toml"))?.parse()?;
        let address =
            config.get("coordinator").and_then(|value| value.as_str()).context("no coordinator address")?;
        Ok(Dial::new(address.parse()?, tls::client(&credentials)?).connect().await?)
    }
}

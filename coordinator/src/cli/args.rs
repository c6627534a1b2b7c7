//! What can be typed: the clap types of every command, split by noun.
//!
//! Values are parsed into domain types here (`AppName`, `Share`, `ByteRate`, durations), so that a mistake is a usage
//! error (exit code 2) before anything is done.

mod app;
mod depot;
mod env;
mod fleet;
mod forecast;
mod identity;
mod notify;
mod package;
mod release;
mod rollout;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use jiff::{SignedDuration, Timestamp};
use sluice_common::units;
use sluice_proto::transport::client::Address;

pub(super) use app::AppCommand;
pub(super) use depot::DepotCommand;
pub(super) use env::{EnvApplyArgs, EnvCommand, Format, NameArgs};
pub(super) use fleet::{AuditCommand, HostCommand, SiteCommand};
pub(super) use forecast::{RolloutPlanArgs, SimulateArgs};
pub(super) use identity::{KeyCommand, LoginArgs, OperatorCommand, TokenCommand, TokenCreateArgs};
pub(super) use notify::NotifyCommand;
pub(super) use package::{CostArgs, PackageCommand};
pub(super) use release::{PackageSource, ReleaseCommand, ReleaseCreateArgs, ReleasePackage};
pub(super) use rollout::{OnFailureArg, RolloutArgs, RolloutCommand, RolloutStartArgs, WatchArgs};

const ABOUT: &str =
    "Deploys releases to a fleet: throttled on the way, gated at every step, reversible at any moment";

const EXIT_CODES: &str = "\
Exit codes:
  0    success
  1    error: bad input, refused by the coordinator, no connection
  2    usage
  3    the rollout failed and was rolled back
  4    the rollout failed, was paused or aborted, and was not rolled back
  5    --timeout was reached; the rollout goes on
  130  watching was ended by ctrl-C; the rollout goes on
  rollout plan, env plan, env diff: 0 nothing to do, 1 something, 255 error

First steps:
  sluice login coordinator.example --token-file token
  sluice key new release.key
  sluice release create --app shop --version 1.0.0 --package ./build --key release.key
  sluice rollout start shop 1.0.0 --canary 1 --batch 25%";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, about = ABOUT, after_long_help = EXIT_CODES, max_term_width = 110)]
#[command(arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options that every command takes.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Directory of identity and configuration [default: ~/.config/sluice]
    #[arg(long, global = true, env = "SLUICE_HOME", value_name = "DIR", help_heading = "Global options")]
    pub(super) home: Option<PathBuf>,
    /// Coordinator to talk to instead of the one that was logged in to
    #[arg(
        long,
        global = true,
        env = "SLUICE_COORDINATOR",
        value_name = "ADDRESS",
        help_heading = "Global options"
    )]
    pub(super) coordinator: Option<Address>,
    /// Print JSON on stdout
    #[arg(long, global = true, help_heading = "Global options")]
    pub(super) json: bool,
    /// Show no progress bars and no live view
    #[arg(long, global = true, help_heading = "Global options")]
    pub(super) no_progress: bool,
    /// What is logged to stderr: a level or a tracing filter
    #[arg(
        long,
        global = true,
        env = "SLUICE_LOG",
        value_name = "FILTER",
        default_value = "info",
        help_heading = "Global options"
    )]
    pub(super) log: String,
    /// Log as JSON
    #[arg(long, global = true, help_heading = "Global options")]
    pub(super) log_json: bool,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Login(LoginArgs),
    /// Show who you are to the coordinator
    #[command(after_help = "Example:\n  sluice whoami")]
    Whoami,
    /// Make and show the keys that sign releases
    #[command(subcommand)]
    Key(KeyCommand),
    /// Pack directories, push them, see what they cost to send
    #[command(subcommand)]
    Package(PackageCommand),
    /// Sign and register releases
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Bring a release to hosts, in batches through gates
    #[command(subcommand)]
    Rollout(RolloutCommand),
    Simulate(Box<SimulateArgs>),
    /// See what an application did and whether it takes new rollouts
    #[command(subcommand)]
    App(AppCommand),
    /// Bring many applications to their releases by one file, in the order of their needs
    #[command(subcommand)]
    Env(EnvCommand),
    /// See and revoke hosts
    #[command(subcommand)]
    Host(HostCommand),
    /// See sites and limit their links
    #[command(subcommand)]
    Site(SiteCommand),
    /// Have web addresses told of what rollouts do
    #[command(subcommand)]
    Notify(NotifyCommand),
    /// Make join tokens for hosts and operators
    #[command(subcommand)]
    Token(TokenCommand),
    /// See and revoke operators
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// See what the coordinator keeps, and remove what nothing uses
    #[command(subcommand)]
    Depot(DepotCommand),
    /// Read and verify the audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Print the completion script of a shell
    #[command(after_help = "Examples:\n  sluice completions bash > /etc/bash_completion.d/sluice\n  \
                      sluice completions zsh > ~/.zfunc/_sluice\n  \
                      sluice completions fish > ~/.config/fish/completions/sluice.fish")]
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: Shell,
    },
}

/// Reads a moment: RFC 3339, or how long ago it was.
fn moment(text: &str) -> Result<Timestamp, String> {
    let ago = text.trim().strip_suffix("ago").map(str::trim);
    match ago {
        Some(ago) => {
            let span: SignedDuration = ago.parse().map_err(|error| format!("{ago:?} is no time: {error}"))?;
            Timestamp::now().checked_sub(span).map_err(|error| error.to_string())
        }
        None => text.parse().map_err(|error| {
            format!("{error}; write 2026-11-21T14:00:00+01:00, or for example '90 minutes ago'")
        }),
    }
}

fn duration(text: &str) -> Result<Duration, units::UnitError> {
    units::parse_duration(text)
}

/// Reads what has to be said in words.
fn said(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("is empty; others will want to know"),
        text => Ok(text.to_owned()),
    }
}

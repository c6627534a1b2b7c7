//! `env`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use sluice_common::name::EnvironmentName;

use super::duration;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum EnvCommand {
    /// Show what applying a fleet.toml would do; exits with 0 for nothing, 1 for changes, 255 for an error
    #[command(after_help = "Examples:\n  sluice env plan fleet.toml\n  \
        sluice env plan fleet.toml --format markdown > plan.md\n  \
        sluice env plan fleet.toml --format mermaid")]
    Plan {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        format: FormatArgs,
    },
    Apply(EnvApplyArgs),
    /// List environments
    #[command(after_help = "Example:\n  sluice env list")]
    List,
    /// Show how far an environment's run is and what it waits for
    #[command(after_help = "Example:\n  sluice env show shop")]
    Show {
        #[command(flatten)]
        name: NameArgs,
    },
    /// Show what is declared beside what hosts report; exits with 0 for no difference, 1 for some, 255 for an error
    #[command(after_help = "Examples:\n  sluice env diff\n  sluice env diff shop --json")]
    Diff {
        #[command(flatten)]
        name: NameArgs,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Show what runs where, with which configuration and needs
    #[command(after_help = "Examples:\n  sluice env layout\n  sluice env layout shop --format mermaid")]
    Layout {
        #[command(flatten)]
        name: NameArgs,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Print the fleet.toml of what stands
    #[command(
        after_help = "Examples:\n  sluice env export shop > fleet.toml\n  sluice env export --observed"
    )]
    Export {
        #[command(flatten)]
        name: NameArgs,
        /// Of what hosts report, whoever brought it there
        #[arg(long, conflicts_with = "name")]
        observed: bool,
    },
    /// End a run where it stands: nothing more is begun, rollouts under way go on
    #[command(after_help = "Examples:\n  sluice env stop shop --reason 'wrong file'\n  \
        sluice env stop shop --roll-back --reason 'checkout is slow'")]
    Stop {
        /// The environment
        name: EnvironmentName,
        /// Take back what the run has brought, in reverse order
        #[arg(long)]
        roll_back: bool,
        /// Why, for others and the audit log
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// Make a fleet.toml the desired state; the coordinator brings it about, in the order of needs
///
/// Shows the plan and asks first. The run goes on without this command: applied again, the same file goes on where it is, or
/// tries again what did not succeed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sluice env apply fleet.toml\n  \
    sluice env apply fleet.toml --yes --wait --timeout 1h")]
pub(in crate::cli) struct EnvApplyArgs {
    /// The file
    pub(in crate::cli) file: PathBuf,
    /// Do not ask
    #[arg(long, short)]
    pub(in crate::cli) yes: bool,
    /// Wait until everything stands, or something needs a person
    #[arg(long)]
    pub(in crate::cli) wait: bool,
    /// Wait for at most so long, then exit with 5; the run goes on
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "wait")]
    pub(in crate::cli) timeout: Option<Duration>,
}

/// Which environment.
#[derive(Debug, Args)]
pub(in crate::cli) struct NameArgs {
    /// The environment [default: the only one there is]
    #[arg(id = "name")]
    pub(in crate::cli) name: Option<EnvironmentName>,
}

/// How it is printed.
#[derive(Debug, Args)]
pub(in crate::cli) struct FormatArgs {
    /// How it is printed; --json is --format json
    #[arg(long, value_enum, default_value = "text")]
    pub(in crate::cli) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// Tables for a terminal
    Text,
    /// One line of JSON
    Json,
    /// Tables for a wiki or a merge request
    Markdown,
    /// A diagram
    Mermaid,
}

//! `login`, `key`, `token`, `operator`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use sluice_common::identity::Role;
use sluice_common::name::{HostName, OperatorName, SiteName};
use sluice_common::selector::parse_label;
use sluice_proto::transport::client::Address;

use super::duration;

/// Become an operator of a coordinator, with a single-use token
///
/// Makes a key on this machine, has it certified for the token, and keeps both in --home. The certificate renews
/// itself while it is used.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sluice login coordinator.example --token-file token\n  \
                  ssh coordinator cat /var/lib/sluice/bootstrap-token | sluice login coordinator.example --token-file -\n  \
                  SLUICE_TOKEN=sluice-join.… sluice login 10.0.0.5:7443")]
pub(in crate::cli) struct LoginArgs {
    /// The coordinator: HOST or HOST:PORT
    pub(in crate::cli) address: Address,
    /// File that holds the token; - reads stdin. Without it the token is taken from SLUICE_TOKEN
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeyCommand {
    /// Make a key pair that signs releases
    ///
    /// Writes the secret to FILE (mode 0600) and the public half, which hosts pin, to FILE.pub. Overwrites nothing.
    #[command(after_help = "Example:\n  sluice key new release.key")]
    New {
        /// Where the secret key is written
        file: PathBuf,
    },
    /// Show the id and the public half of a key
    #[command(after_help = "Examples:\n  sluice key show release.key\n  sluice key show release.key.pub")]
    Show {
        /// A secret or a public key file
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokenCommand {
    Create(TokenCreateArgs),
}

/// Make a join token, for a host (--site) or an operator (--operator)
///
/// The token alone is printed on stdout, once; it is kept nowhere.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sluice token create --site berlin --label role=web > token\n  \
                  sluice token create --site berlin --name web-1 --ttl 2h > token\n  \
                  sluice token create --operator alice --role deployer > token")]
#[command(group = clap::ArgGroup::new("subject").required(true).args(["site", "operator"]))]
pub(in crate::cli) struct TokenCreateArgs {
    /// Site that the host will belong to
    #[arg(long, value_name = "SITE")]
    pub(in crate::cli) site: Option<SiteName>,
    /// Label that the host gets; may stand several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label, requires = "site")]
    pub(in crate::cli) label: Vec<(String, String)>,
    /// The only host name the token is good for
    #[arg(long, value_name = "HOST", requires = "site")]
    pub(in crate::cli) name: Option<HostName>,
    /// How many hosts may enrol with it
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) uses: u32,
    /// Name of the operator
    #[arg(long, value_name = "NAME", requires = "role", conflicts_with_all = ["name", "label", "uses"])]
    pub(in crate::cli) operator: Option<OperatorName>,
    /// What the operator may do: viewer, deployer, approver or admin
    #[arg(long, value_name = "ROLE", requires = "operator")]
    pub(in crate::cli) role: Option<Role>,
    /// How long the token is good for
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = duration)]
    pub(in crate::cli) ttl: Duration,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum OperatorCommand {
    /// List operators and their roles
    #[command(after_help = "Example:\n  sluice operator list")]
    List,
    /// End an operator's access at once
    #[command(after_help = "Example:\n  sluice operator revoke alice --reason 'left the company'")]
    Revoke {
        /// The operator
        name: OperatorName,
        /// Why, for the audit log
        #[arg(long)]
        reason: String,
    },
}

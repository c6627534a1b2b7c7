//! `app`.

use clap::Subcommand;
use sluice_common::name::{AppName, HostName};

use super::said;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AppCommand {
    /// What ran where and when, newest first
    #[command(after_help = "Example:\n  sluice app history shop --host web-1")]
    History {
        /// The application
        app: AppName,
        /// Only on this host
        #[arg(long)]
        host: Option<HostName>,
        /// At most so many entries
        #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Say whether an application takes new rollouts, and what has stopped it so far
    #[command(after_help = "Example:\n  sluice app show shop")]
    Show {
        /// The application
        app: AppName,
        /// At most so many stops
        #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Let an application take new rollouts again after one that failed
    #[command(
        after_help = "Example:\n  sluice app reopen shop --cause 'the migration locked the orders table'"
    )]
    Reopen {
        /// The application
        app: AppName,
        /// What was found to be the cause, for others and the audit log
        #[arg(long, value_parser = said)]
        cause: String,
    },
}

//! `host`, `site`, `audit`.

use clap::Subcommand;
use jiff::Timestamp;
use sluice_common::name::{HostName, SiteName};
use sluice_common::selector::Selector;
use sluice_common::units::{ByteRate, UnitError};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum HostCommand {
    /// List hosts and what they run
    #[command(
        after_help = "Examples:\n  sluice host list\n  sluice host list -l 'site=berlin,role in (web,api)'"
    )]
    List {
        /// Only hosts that match
        #[arg(short = 'l', long, value_name = "SELECTOR")]
        selector: Option<Selector>,
    },
    /// Show a host: what it is and what it runs
    #[command(after_help = "Example:\n  sluice host show web-1")]
    Show {
        /// The host
        name: HostName,
    },
    /// What ran on a host and when, newest first; or what ran there at one time
    #[command(
        after_help = "Examples:\n  sluice host history web-1\n  sluice host history web-1 --at 2026-11-21T14:00:00+01:00\n  \
        sluice host history web-1 --at '2 hours ago'"
    )]
    History {
        /// The host
        name: HostName,
        /// The time in question: RFC 3339, or so long ago ('90 minutes ago', '3 hours ago')
        #[arg(long, value_name = "TIME", value_parser = super::moment)]
        at: Option<Timestamp>,
        /// At most so many entries
        #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// End a host's access at once; what runs there keeps running
    #[command(after_help = "Example:\n  sluice host revoke web-1 --reason 'sold'")]
    Revoke {
        /// The host
        name: HostName,
        /// Why, for the audit log
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SiteCommand {
    /// List sites, their limits and what they carried
    #[command(after_help = "Example:\n  sluice site list")]
    List,
    /// Limit what content may take of a site's link; holds for transfers that run too
    #[command(
        after_help = "Examples:\n  sluice site set-limit berlin 8Mbit/s\n  sluice site set-limit berlin none"
    )]
    SetLimit {
        /// The site
        site: SiteName,
        /// Bits or bytes a second with the unit in full (8Mbit/s, 1MiB/s), or none
        rate: LimitArg,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AuditCommand {
    /// List what was changed, when and by whom, oldest first
    #[command(after_help = "Example:\n  sluice audit list --after 120 --limit 50")]
    List {
        /// Only entries after this number
        #[arg(long, value_name = "N", default_value = "0")]
        after: u64,
        /// At most so many entries
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
    },
    /// Recompute the chain of the audit log
    #[command(after_help = "Example:\n  sluice audit verify")]
    Verify,
}

/// A rate, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct LimitArg(pub(in crate::cli) Option<ByteRate>);

impl std::str::FromStr for LimitArg {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "none" => Ok(Self(None)),
            rate => rate.parse().map(|rate| Self(Some(rate))),
        }
    }
}

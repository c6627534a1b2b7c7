//! `depot`.

use std::time::Duration;

use clap::Subcommand;

use super::duration;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DepotCommand {
    /// Show what the depot holds and how much of it nothing uses
    ///
    /// UNUSED is what no package, plan or running work needs. The next collection removes what has been so for long
    /// enough; packs of which less than half is unused stay as they are.
    #[command(after_help = "Example:\n  sluice depot show")]
    Show,
    /// Remove what nothing uses: packages that no release names, their plans, unused packs
    ///
    /// The coordinator does so by itself once a day. What a release names is never removed.
    #[command(
        after_help = "Examples:\n  sluice depot collect --dry-run\n  sluice depot collect --unreleased-after 1h"
    )]
    Collect {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Time since its last push after which a package goes that no release names [default: 7d]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        unreleased_after: Option<Duration>,
        /// Take packs that are missing for lost, and the coordinator's database for the newest there is
        ///
        /// Where packs are missing that the database names, it may be an older one that was brought back, and for a week nothing goes
        /// that a newer one may name. Packages that were made of what is lost have to be pushed again.
        #[arg(long, conflicts_with = "dry_run")]
        accept_missing: bool,
    },
}

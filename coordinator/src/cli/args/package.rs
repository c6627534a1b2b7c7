//! `package`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sluice_common::transfer::Effort;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PackageCommand {
    /// Pack a directory here and print its digest; nothing is sent
    ///
    /// The same tree gives the same digest on every machine.
    #[command(after_help = "Example:\n  sluice package build ./build")]
    Build {
        /// The directory
        dir: PathBuf,
    },
    /// Pack a directory and send what the coordinator lacks of it
    ///
    /// A connection that breaks is made anew and the push goes on where it was.
    #[command(after_help = "Example:\n  sluice package push ./build")]
    Push {
        /// The directory
        dir: PathBuf,
    },
    /// List the packages at the coordinator
    #[command(after_help = "Example:\n  sluice package list")]
    List,
    /// Show a package
    #[command(after_help = "Example:\n  sluice package show sha256:3f2a9c --files")]
    Show {
        /// Its digest, or the first digits of it
        digest: String,
        /// List what is in it
        #[arg(long)]
        files: bool,
    },
    /// List transfer plans: what each sends, and what is being done about it
    ///
    /// A quick plan is made before hosts ask, a better one in the background, where it saves most of the links' time.
    /// Each effort has a line of its own: STATE says whether that plan is there, how far its making is, or its place in
    /// the queue; HOSTS would use it now; CPU is what encoding it took.
    #[command(after_help = "Examples:\n  sluice package plans\n  sluice package plans sha256:3f2a9c --json")]
    Plans {
        /// Only plans from or to this package: its digest, or the first digits of it
        package: Option<String>,
    },
    Cost(CostArgs),
}

/// Measure what a cold install of NEW and an update from OLD to NEW send
///
/// Encodes both here, without a coordinator; everything that travels is counted: sluice.toml, manifest, plan and
/// frames.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sluice package cost ./build-1.1 ./build-1.2 --json")]
pub(in crate::cli) struct CostArgs {
    /// The directory that hosts have
    pub(in crate::cli) old: PathBuf,
    /// The directory that they get
    pub(in crate::cli) new: PathBuf,
    /// How much CPU to spend on making it small
    #[arg(long, value_enum, default_value = "quick")]
    pub(in crate::cli) effort: EffortArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum EffortArg {
    /// What a coordinator has ready at once
    Quick,
    /// What it computes when it has time
    Best,
}

impl From<EffortArg> for Effort {
    fn from(effort: EffortArg) -> Self {
        match effort {
            EffortArg::Quick => Self::Quick,
            EffortArg::Best => Self::Best,
        }
    }
}

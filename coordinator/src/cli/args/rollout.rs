//! `rollout`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use sluice_common::name::{AppName, RolloutId, Version};
use sluice_common::selector::Selector;
use sluice_common::units::Share;

use super::forecast::RolloutPlanArgs;
use super::{duration, said};
use crate::rollout::{Check, Freeze, Window};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RolloutCommand {
    Start(Box<RolloutStartArgs>),
    Plan(Box<RolloutPlanArgs>),
    /// List rollouts, newest first
    #[command(after_help = "Example:\n  sluice rollout list shop --limit 10")]
    List {
        /// Only this application's
        app: Option<AppName>,
        /// At most so many
        #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Show a rollout, batch by batch and host by host
    #[command(after_help = "Example:\n  sluice rollout show r42")]
    Show {
        /// The rollout
        id: RolloutId,
    },
    /// Watch a rollout until it ends or pauses
    #[command(after_help = "Example:\n  sluice rollout watch r42 --timeout 1h")]
    Watch {
        /// The rollout
        id: RolloutId,
        /// Watch for at most so long, then exit with 5
        #[arg(long, value_name = "TIME", value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// Give no further order; what hosts are doing they finish
    #[command(after_help = "Example:\n  sluice rollout pause r42 --reason 'looking at the error rate'")]
    Pause {
        /// The rollout
        id: RolloutId,
        /// Why, for others and the audit log
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Go on with a paused rollout, and watch it
    #[command(after_help = "Example:\n  sluice rollout resume r42")]
    Resume {
        /// The rollout
        id: RolloutId,
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// End a rollout where it stands: hosts keep what they have
    #[command(after_help = "Example:\n  sluice rollout abort r42 --reason 'wrong version'")]
    Abort {
        /// The rollout
        id: RolloutId,
        /// Why, for others and the audit log
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Bring back what ran before on every host that switched, and watch it
    #[command(after_help = "Example:\n  sluice rollout rollback r42 --reason 'checkout is slow'")]
    Rollback {
        /// The rollout
        id: RolloutId,
        /// Why, for others and the audit log
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// Bring the release of an ended rollout once more to the hosts on which it failed, in the same way, and watch it
    #[command(after_help = "Example:\n  sluice rollout retry r42")]
    Retry {
        /// The rollout
        id: RolloutId,
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// Agree to the first switch of a rollout that somebody else started and that asks for it
    #[command(after_help = "Example:\n  sluice rollout approve r42")]
    Approve {
        /// The rollout
        id: RolloutId,
    },
    /// Let a rollout switch now, whatever its windows and freezes say
    #[command(
        after_help = "Example:\n  sluice rollout override r42 --reason 'the leak cannot wait until Monday'"
    )]
    Override {
        /// The rollout
        id: RolloutId,
        /// Why, for others and the audit log
        #[arg(long, value_parser = said)]
        reason: String,
    },
}

/// Bring a release to hosts: stage it everywhere, then switch a canary, then batch by batch
///
/// Watches until the end; ctrl-C ends the watching, never the rollout. A batch begins when every host of the one
/// before has switched, is healthy and has stayed so for the bake.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sluice rollout start shop 1.2.0\n  \
    sluice rollout start shop 1.2.0 -l site=berlin --canary 1 --batch 25% --bake 2m\n  \
    sluice rollout start shop 1.2.0 --waves 1,5%,25%,100% --stage-first 98%\n  \
    sluice rollout start shop 1.2.0 --window 'mon-fri 20:00-23:00 Europe/Berlin' --approvals 2\n  \
    sluice rollout start shop 1.2.0 --bake 10m --check 'errors=prometheus http://prometheus:9090 rate(errors_total[1m]) < 0.5'\n  \
    sluice rollout start shop 1.2.0 --blue-green --bake 10m --check 'errors=webhook https://ci.example.com/gate'\n  \
    sluice rollout start shop 1.2.0 --all-at-once --on-failure pause --detach")]
pub(in crate::cli) struct RolloutStartArgs {
    #[command(flatten)]
    pub(in crate::cli) what: RolloutArgs,
    #[command(flatten)]
    pub(in crate::cli) watch: WatchArgs,
}

/// What a rollout brings to whom, and how.
#[derive(Debug, Args)]
pub(in crate::cli) struct RolloutArgs {
    /// The application
    pub(in crate::cli) app: AppName,
    /// The version
    // Not `version`: that id belongs to the flag that prints the program's own.
    #[arg(id = "release_version", value_name = "VERSION")]
    pub(in crate::cli) version: Version,
    /// Which hosts [default: every host]
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(in crate::cli) selector: Option<Selector>,
    /// How many hosts go first; at least one of each platform does. 0: no canary
    #[arg(long, value_name = "N|P%", default_value = "1")]
    pub(in crate::cli) canary: Share,
    /// How many hosts switch together after that [default: 25%; all of them with --blue-green]
    #[arg(long, value_name = "N|P%")]
    pub(in crate::cli) batch: Option<Share>,
    /// How long a batch must stay healthy before the next begins
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(in crate::cli) bake: Duration,
    /// How long batches with hosts of the site that gets the release first must stay healthy [default: as --bake]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(in crate::cli) first_site_bake: Option<Duration>,
    /// How many hosts have to stay in service, of those that run the application, whatever else may be out
    #[arg(long, value_name = "N|P%")]
    pub(in crate::cli) min_healthy: Option<Share>,
    /// How many hosts may be out at once [default: one batch; 25% where batches grow]
    #[arg(long, value_name = "N|P%")]
    pub(in crate::cli) max_unavailable: Option<Share>,
    /// The label whose values are failure domains, such as rack; site: each host's site
    #[arg(long, value_name = "LABEL")]
    pub(in crate::cli) domain: Option<String>,
    /// How many hosts of one failure domain may be out at once
    #[arg(long, value_name = "N|P%", default_value = "1", requires = "domain")]
    pub(in crate::cli) domain_max_unavailable: Share,
    /// How many hosts of one failure domain may fail, whatever --max-failures tolerates [default: as many]
    #[arg(long, value_name = "N|P%", requires = "domain")]
    pub(in crate::cli) domain_max_failures: Option<Share>,
    /// How many hosts may fail before --on-failure applies
    #[arg(long, value_name = "N|P%", default_value = "0")]
    pub(in crate::cli) max_failures: Share,
    /// What happens when more hosts fail
    #[arg(long, value_enum, default_value = "rollback")]
    pub(in crate::cli) on_failure: OnFailureArg,
    /// How long a reachable host may take to switch before it counts as failed
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub(in crate::cli) host_deadline: Duration,
    /// How many hosts must be staged before the first batch switches, of those that can be heard
    #[arg(long, value_name = "N|P%", default_value = "100%")]
    pub(in crate::cli) stage_first: Share,
    /// Switch every host at once
    #[arg(long, conflicts_with_all = ["canary", "batch"])]
    pub(in crate::cli) all_at_once: bool,
    /// Switch in waves: how many hosts have switched after each, of the whole selection
    #[arg(long, value_name = "N|P%,…", value_delimiter = ',', conflicts_with_all = ["canary", "batch", "all_at_once"])]
    pub(in crate::cli) waves: Vec<Share>,
    /// Switch in batches that grow: after the canary, each is twice as large as the one before
    #[arg(long, conflicts_with_all = ["batch", "all_at_once", "waves"])]
    pub(in crate::cli) exponential: bool,
    /// Switch one host first, which migrates what all of them share, and none of the others before it holds
    #[arg(long, conflicts_with_all = ["canary", "all_at_once", "waves", "exponential"])]
    pub(in crate::cli) one_host_first: bool,
    /// Bring the release up beside the live one on every host, and let the traffic move once all are healthy; the release needs two slots
    #[arg(long, conflicts_with_all = ["canary", "all_at_once", "waves", "exponential", "one_host_first"])]
    pub(in crate::cli) blue_green: bool,
    /// When hosts may switch: days, hours and an IANA time zone; may be given several times [default: at any time]
    ///
    /// Days are written mon-fri, sat,sun or daily; a window that ends before it begins goes over midnight. One that begins by cron is written
    /// 'cron 0 22 * * 6#1 for 4h Europe/Berlin'. Staging goes on outside. A
    /// batch that might not be through when the window closes (host deadline and bake) waits for the next one.
    #[arg(long = "window", value_name = "'DAYS HH:MM-HH:MM ZONE'")]
    pub(in crate::cli) windows: Vec<Window>,
    /// When they may not, whatever the windows say; may be given several times
    #[arg(long = "freeze", value_name = "'DATE HH:MM to DATE HH:MM ZONE: REASON'")]
    pub(in crate::cli) freezes: Vec<Freeze>,
    /// How many approvers have to agree (sluice rollout approve) before the first host switches; you cannot be one of them
    #[arg(long, value_name = "N", default_value = "0")]
    pub(in crate::cli) approvals: u32,
    /// What else has to hold while a batch bakes: NAME=webhook URL, NAME=prometheus URL QUERY < NUMBER or NAME=command PROGRAM;
    /// may be given several times
    ///
    /// Asked every 10s, for at most 10s; inconclusive for more than 5m after the bake, it has failed: write
    /// NAME(every=30s,timeout=20s,patience=15m)=… for other times. A program must be in the coordinator's directory of checks.
    #[arg(long = "check", value_name = "NAME=PROBE")]
    pub(in crate::cli) checks: Vec<Check>,
    /// Start though a failed rollout has closed the application
    #[arg(long, requires = "reason")]
    pub(in crate::cli) emergency: bool,
    /// Why it is one, for others and the audit log
    #[arg(long, requires = "emergency", value_parser = said)]
    pub(in crate::cli) reason: Option<String>,
}

/// How a command that changes a rollout follows it.
#[derive(Debug, Args)]
pub(in crate::cli) struct WatchArgs {
    /// Do not watch
    #[arg(long, conflicts_with_all = ["timeout", "wait"])]
    pub(in crate::cli) detach: bool,
    /// Watch until the end, which is what happens anyway; for pipelines that say so
    #[arg(long)]
    pub(in crate::cli) wait: bool,
    /// Watch for at most so long, then exit with 5; the rollout goes on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(in crate::cli) timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum OnFailureArg {
    /// Hosts that switched get back what ran before
    Rollback,
    /// Everything stays as it is until you decide
    Pause,
}

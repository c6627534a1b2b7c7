//! `rollout plan` and `simulate`: what `rollout start` takes, and how it is looked at.

use std::time::Duration;

use clap::Args;
use sluice_common::caps::SIMULATED_RUNS_MAX;

use super::duration;
use super::env::FormatArgs;
use super::rollout::RolloutArgs;

/// Say what a rollout would do, and start nothing: batches, times, bytes and disk, and what it would wait for
///
/// Exits with 0 where nothing would change, with 1 where something would, and with 255 where there is no plan. Makes the
/// transfer plans that hosts will be sent, where they are missing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sluice rollout plan shop 1.2.0\n  \
    sluice rollout plan shop 1.2.0 -l site=berlin --window 'daily 20:00-23:00 Europe/Berlin'\n  \
    sluice rollout plan shop 1.2.0 --format markdown > plan.md")]
pub(in crate::cli) struct RolloutPlanArgs {
    #[command(flatten)]
    pub(in crate::cli) what: RolloutArgs,
    #[command(flatten)]
    pub(in crate::cli) format: FormatArgs,
}

/// Run a rollout many times on paper, with things going wrong: how long it takes, and how many hosts are hurt
///
/// The coordinator's own planner over the fleet as it stands; nothing is ordered. Probabilities are shares: 1% or 0.01.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sluice simulate shop 1.2.0 --host-failure 1% --slow-host 5%\n  \
    sluice simulate shop 1.2.0 --bad-release 100% --bad-after 2m --bake 5m --runs 5000 --seed 7")]
pub(in crate::cli) struct SimulateArgs {
    #[command(flatten)]
    pub(in crate::cli) what: RolloutArgs,
    /// The same seed is the same runs
    #[arg(long, value_name = "N", default_value = "1")]
    pub(in crate::cli) seed: u64,
    /// How many runs
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=i64::from(SIMULATED_RUNS_MAX)))]
    pub(in crate::cli) runs: u32,
    /// How likely a host goes back by itself, whatever the release
    #[arg(long, value_name = "P%", default_value = "0%", value_parser = probability)]
    pub(in crate::cli) host_failure: f64,
    /// How likely a host falls silent when it is ordered to switch
    #[arg(long, value_name = "P%", default_value = "0%", value_parser = probability)]
    pub(in crate::cli) host_loss: f64,
    /// For how long
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub(in crate::cli) loss: Duration,
    /// How likely a host is slow
    #[arg(long, value_name = "P%", default_value = "0%", value_parser = probability)]
    pub(in crate::cli) slow_host: f64,
    /// How many times as long a slow host takes
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(in crate::cli) slowness: u32,
    /// How likely the release is bad, which it then is on every host
    #[arg(long, value_name = "P%", default_value = "0%", value_parser = probability)]
    pub(in crate::cli) bad_release: f64,
    /// How long after a switch that shows; 0s: at the host's own gate
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub(in crate::cli) bad_after: Duration,
}

/// Reads `1%`, `0.5%` or `0.005`.
fn probability(text: &str) -> Result<f64, String> {
    let (number, of) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let value = number.trim().parse::<f64>().ok().map(|value| value / of);
    value
        .filter(|value| (0.0..=1.0).contains(value))
        .ok_or_else(|| format!("{text:?} is no probability; write 0% to 100%, or 0 to 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_shares() {
        for (text, expected) in
            [("1%", Some(0.01)), ("0.5%", Some(0.005)), ("0.25", Some(0.25)), ("100%", Some(1.0))]
        {
            assert_eq!(probability(text).ok(), expected, "{text}");
        }
        for text in ["", "%", "101%", "1.5", "-1%", "NaN"] {
            assert!(probability(text).is_err(), "{text}");
        }
    }
}

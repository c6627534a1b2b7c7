//! Two hosts and what a rollout to one of them takes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_proto::v1;

use super::sampler::Sampler;
use super::scratch::Scratch;
use super::{APP, Applied};
use crate::lab::{AgentOptions, Lab};
use crate::measure::{self, cpu_of};
use crate::show::kills::{order_args, wait_ended};
use crate::show::main_job::demo_executable;

/// How long one rollout of a large tree may take.
const ROLLOUT_PATIENCE: Duration = Duration::from_secs(900);
/// Between two looks whether the host has switched: a part of the figure, and a link is read in microseconds.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// Between two looks whether it has failed.
const FAILURE_INTERVAL: Duration = Duration::from_millis(250);

/// An agent that has a release, and what staging the next one took.
pub(in crate::show::transfer) struct Staged {
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
    pub(super) coordinator_cpu: Duration,
    pub(super) command_cpu: Duration,
    /// Of the wall: the operator's command.
    ordering: Duration,
    /// Of the wall: what the agent reports of itself, from its first question for content to the marker.
    staging: Duration,
    pub(super) anonymous_peak: u64,
}

/// Returns the one with the median wall, with the mean CPU times of all, which the kernel counts in hundredths of a second, and
/// the highest peak.
pub(super) fn median(mut rounds: Vec<Staged>) -> Result<Staged> {
    rounds.sort_by_key(|staged| staged.wall);
    let count = rounds.len() as u32;
    let mean = |cpu: fn(&Staged) -> Duration| rounds.iter().map(cpu).sum::<Duration>() / count.max(1);
    let cpu = mean(|staged| staged.cpu);
    let coordinator_cpu = mean(|staged| staged.coordinator_cpu);
    let command_cpu = mean(|staged| staged.command_cpu);
    let anonymous_peak = rounds.iter().map(|staged| staged.anonymous_peak).max().unwrap_or(0);
    let middle = rounds.into_iter().nth(count as usize / 2).context("nothing was measured")?;
    Ok(Staged { cpu, coordinator_cpu, command_cpu, anonymous_peak, ..middle })
}

impl Staged {
    /// Returns the CPU time of everything of Sluice's: agent, coordinator and the operator's command.
    pub(super) fn all_cpu(&self) -> Duration {
        self.cpu + self.coordinator_cpu + self.command_cpu
    }

    /// Prints what the wall consists of: the rest of it are the order and the switch.
    pub(super) fn print_phases(&self) {
        let [ordering, staging, cpu] = [self.ordering, self.staging, self.cpu].map(|time| time.as_secs_f64());
        println!(
            "       of the wall, the operator's command: {ordering:.3} s, staging at the agent: {staging:.3} s; its CPU: {cpu:.2} s"
        );
    }

    pub(in crate::show::transfer) fn applied(&self) -> Applied {
        let (cpu, wall) = (self.cpu.as_secs_f64(), self.wall.as_secs_f64());
        Applied { cpu, wall, anonymous_peak: self.anonymous_peak }
    }
}

/// A lab whose first host makes the coordinator encode and cache what the others are then measured with.
pub(in crate::show::transfer) struct Bench {
    // Dropped after the processes that use it have ended.
    pub(in crate::show::transfer) lab: Lab,
    pub(in crate::show::transfer) scratch: Scratch,
}

impl Bench {
    /// Starts a lab whose coordinator takes that effort for plans.
    pub(in crate::show::transfer) fn start(effort: &str) -> Result<Self> {
        Self::start_in(Scratch::folder()?, effort, 1)
    }

    /// Starts a lab in `scratch` with so many hosts that are measured.
    pub(super) fn start_in(scratch: Scratch, effort: &str, measured: usize) -> Result<Self> {
        let mut lab =
            Lab::start_with(&demo_executable()?, &scratch.path().join("lab"), &["--effort", effort])?;
        lab.add_host("first", "berlin", AgentOptions::default())?;
        for number in 1..=measured {
            lab.add_host(&format!("measured-{number}"), "berlin", AgentOptions::default())?;
        }
        lab.wait_connected()?;
        Ok(Self { lab, scratch })
    }

    /// Ends coordinator and agents in good order and starts them again: nothing is left of what they had in memory.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.lab.stop()?;
        self.lab.start_coordinator()?;
        let names: Vec<String> = self.lab.hosts().iter().map(|host| host.name().to_owned()).collect();
        names.iter().try_for_each(|name| self.lab.restart_agent(name))?;
        self.lab.wait_connected()
    }

    /// Rolls a version out to one host and returns what that took: the wall to the switch, the CPU time to the rollout's end.
    pub(in crate::show::transfer) fn roll(&self, version: &str, number: usize) -> Result<Staged> {
        let host = &self.lab.hosts()[number];
        let process = host.process_id()?;
        let coordinator = self.lab.coordinator_process()?.id();
        let (before, coordinator_before) = (cpu_of(process)?, cpu_of(coordinator)?);
        let sampler = Sampler::start(process);
        let current = || fs_err::read_link(host.current(APP)).ok();
        let installed = current();
        let selector = format!("host={}", host.name());
        let begun = Instant::now();
        let args = order_args(APP, version, &["--selector", &selector]);
        let (_, command) = measure::run(self.lab.operator().command(args))?;
        let ordering = begun.elapsed();
        let (state, mut looked) = (host.app_dir(APP).join("state.toml"), begun);
        let wall = loop {
            if current() != installed {
                break begun.elapsed();
            }
            if looked.elapsed() >= FAILURE_INTERVAL {
                let has_failed = fs_err::read_to_string(&state).is_ok_and(|text| text.contains("\"failed\""));
                ensure!(!has_failed, "{} has failed: {}", host.name(), fs_err::read_to_string(&state)?);
                ensure!(begun.elapsed() < ROLLOUT_PATIENCE, "{} has not switched", host.name());
                looked = Instant::now();
            }
            // The interval of a measurement, not a wait for a condition.
            std::thread::sleep(LOOK_INTERVAL);
        };
        let id = self.lab.operator().newest_rollout(APP)?.context("no rollout was started")?.id;
        let rollout = wait_ended(&self.lab, &id)?;
        ensure!(rollout.state() == v1::RolloutState::Succeeded, "{:?}: {}", rollout.state(), rollout.reason);
        let (cpu, coordinator_cpu) = (cpu_of(process)? - before, cpu_of(coordinator)? - coordinator_before);
        let (command_cpu, anonymous_peak) = (command.cpu, sampler.stop());
        let hosts = rollout.batches.iter().flat_map(|batch| &batch.hosts);
        let reported = hosts.filter_map(|host| host.report.as_ref()).map(|report| report.stage_time_us).max();
        let staging = Duration::from_micros(reported.context("the host has reported nothing")?);
        Ok(Staged { wall, cpu, coordinator_cpu, command_cpu, ordering, staging, anonymous_peak })
    }

    /// Readies the system for what is timed next. Its cache of files is to be empty, or to have all of these folders: left to itself,
    /// a system may page out what nobody has read for half a minute.
    pub(super) fn ready(cold_cache: bool, folders: &[&Path]) -> Result<()> {
        if cold_cache {
            Self::forget();
        } else {
            let read = r#"find "$FOLDER/" -type f -exec cat {} + > /dev/null"#;
            folders
                .iter()
                .try_for_each(|folder| measure::shell(read, &[("FOLDER", folder.as_os_str())]).map(drop))?;
        }
        measure::settle()
    }

    /// Forgets what the system has cached of files; returns whether it may.
    pub(super) fn forget() -> bool {
        // What has not reached the disk cannot be forgotten.
        rustix::fs::sync();
        fs_err::write("/proc/sys/vm/drop_caches", "3").is_ok()
    }
}

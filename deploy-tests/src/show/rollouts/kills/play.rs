//! Rollouts under kills: the coordinator is ended at commit after commit, and what follows must be what would have come.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use sluice_proto::v1;

use super::strikes::{Part, Strikes};
use super::{APP, BUDGET, HOSTS, SPEC, WEAK};
use crate::lab::{AgentOptions, Lab, PATIENCE, compare, noise, wait_for, write_tree};
use crate::show::kills::wait_ended;
use crate::show::main_job::demo_executable;

/// Time that one life of the coordinator may take: agents wait up to 5 s before they come back, all else takes less.
const LIFE_MAX: Duration = Duration::from_secs(90);
/// Pause between two questions whether the rollout has ended.
const QUESTION: Duration = Duration::from_millis(500);
/// Both sides of a commit, the one that undoes it first: it is made again, and struck again.
pub(super) const BOTH: &[&str] = &["before", "after"];

/// Which commits of a rollout are struck.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread {
    /// On which sides of what operators ask for, of the turn and of the end.
    pub(super) sides: &'static [&'static str],
    /// Most kills while it goes forward, at one commit after the other.
    pub(super) forward: u32,
    /// Most kills while it goes back.
    pub(super) retreat: u32,
}

/// The lab, and what its hosts are to run.
pub(super) struct Play {
    pub(super) lab: Lab,
    pub(super) strikes: Strikes,
    /// Rollouts that have ended.
    pub(super) rollouts: u32,
    /// New rollouts that a closed application refused.
    pub(super) refused: u32,
    scratch: PathBuf,
    version: u32,
    /// Hosts of each batch, as a rollout to all of them is cut.
    batches: Vec<Vec<String>>,
    /// What each host is to run.
    runs: BTreeMap<String, PathBuf>,
}

impl Play {
    /// Starts the lab, with the first release on every host.
    pub(super) fn begin(scratch: &Path) -> Result<Self> {
        let mut lab = Lab::start(&demo_executable()?, &scratch.join("lab"))?;
        for number in 1..=HOSTS {
            let (name, site) = (format!("h{number:02}"), if number % 2 == 0 { "berlin" } else { "lisbon" });
            let weak = scratch.join(format!("weak-{name}")).display().to_string();
            let variables = vec![(APP.to_owned(), WEAK.to_owned(), weak)];
            lab.add_host(&name, site, AgentOptions { variables, ..AgentOptions::default() })?;
        }
        lab.wait_connected()?;
        let mut play = Self {
            strikes: Strikes::new(&lab),
            lab,
            rollouts: 0,
            refused: 0,
            scratch: scratch.to_owned(),
            version: 0,
            batches: Vec::new(),
            runs: BTreeMap::new(),
        };
        let (version, tree) = play.publish()?;
        let args = ["rollout", "start", APP, &version, "--detach", "--all-at-once", "--bake", "0s"];
        play.lab.operator().run(args)?;
        let id = play.newest()?;
        play.ended(&id, v1::RolloutState::Succeeded, &tree)?;
        Ok(play)
    }

    /// Plays a release that holds on every host.
    pub(super) fn good(&mut self, spread: &Spread) -> Result<()> {
        let (version, tree) = self.publish()?;
        let id = self.start(Part::Start, spread, &start_args(&version))?;
        self.disturb(&id, Part::Forward, spread, false)?;
        let rollout = self.ended(&id, v1::RolloutState::Succeeded, &tree)?;
        self.batches = rollout.batches.iter().map(names).collect();
        Ok(())
    }

    /// Plays a release that fails at its gate on one host of `batch`: the line is stopped, hosts go back, somebody finds the cause
    /// and mends it, and it is tried again.
    pub(super) fn bad(&mut self, batch: usize, spread: &Spread) -> Result<()> {
        let host = self.batches.get(batch).and_then(|hosts| hosts.last()).context("no such batch")?.clone();
        let cause = self.scratch.join(format!("weak-{host}"));
        fs::write(&cause, "")?;
        let (version, tree) = self.publish()?;
        let id = self.start(Part::Start, spread, &start_args(&version))?;
        self.disturb(&id, Part::Forward, spread, true)?;
        let rollout = self.ended(&id, v1::RolloutState::RolledBack, &tree)?;
        ensure!(rollout.reason.contains(&host), "{id} was to fail on {host}: {}", rollout.reason);
        let later = rollout.batches.iter().skip(batch + 1).flat_map(|batch| &batch.hosts);
        let mut switched = later.filter(|host| host.outcome() == v1::HostOutcome::Updated);
        ensure!(switched.next().is_none(), "{id} went on after batch {}", batch + 1);
        fs::remove_file(&cause)?;
        self.closed(&version)?;
        self.ask(
            Part::Reopen,
            "app.reopen",
            spread,
            &["app", "reopen", APP, "--cause", "the host had no disk"],
        )?;
        ensure!(!self.is_closed()?, "{APP} was opened again, and is closed");
        let id = self.start(Part::Retry, spread, &["rollout", "retry", &id, "--detach"])?;
        self.disturb(&id, Part::Retry, spread, false)?;
        self.ended(&id, v1::RolloutState::Succeeded, &tree)?;
        Ok(())
    }

    /// Makes and registers a release; returns its version and tree.
    fn publish(&mut self) -> Result<(String, PathBuf)> {
        self.version += 1;
        let version = self.version.to_string();
        let tree = self.scratch.join(format!("tree-{version}"));
        let files = [
            ("sluice.toml", SPEC.as_bytes().to_vec(), false),
            ("version", version.clone().into_bytes(), false),
            ("noise", noise(u64::from(self.version), 100_000), false),
        ];
        write_tree(&tree, &files)?;
        self.lab.release(APP, &version, &tree)?;
        Ok((version, tree))
    }

    /// Has an operator begin a rollout under kills; returns its id.
    fn start<A: AsRef<OsStr>>(&mut self, part: Part, spread: &Spread, args: &[A]) -> Result<String> {
        let before = self.newest()?;
        self.ask(part, "rollout.start", spread, args)?;
        let id = self.newest()?;
        ensure!(id != before, "nothing was started after {before}");
        Ok(id)
    }

    /// Has an operator ask for what is one commit, and strikes on each side of it. What was undone is asked for again; what was
    /// done is not done twice. Ends with a coordinator that runs on.
    fn ask<A: AsRef<OsStr>>(&mut self, part: Part, action: &str, spread: &Spread, args: &[A]) -> Result<()> {
        for side in spread.sides {
            self.end_coordinator()?;
            self.lab.start_coordinator_until(&format!("{side}:1:{action}"))?;
            let address = self.lab.coordinator_dir().join("address");
            wait_for("the coordinator to listen", PATIENCE, || Ok(address.exists().then_some(())))?;
            // Whoever asks is told nothing: the coordinator is gone.
            self.lab.operator().try_run(args)?;
            wait_for(&format!("a kill {side} {action}"), LIFE_MAX, || {
                Ok(self.lab.coordinator_was_killed()?.then_some(()))
            })?;
            self.strikes.take(part)?;
        }
        self.end_coordinator()?;
        self.lab.start_coordinator()?;
        if spread.sides.last() != Some(&"after") {
            self.lab.operator().run(args)?;
        }
        Ok(())
    }

    /// Lets a rollout run from kill to kill to its end, or as many as are wanted of each part. Ends with a coordinator that runs on.
    fn disturb(&mut self, id: &str, part: Part, spread: &Spread, turns: bool) -> Result<()> {
        let mut has_turned = false;
        for number in 0..spread.forward {
            let Some(struck) = self.live(id, part, in_turn(number))? else { break };
            has_turned = turns && struck;
            if has_turned {
                break;
            }
        }
        if turns {
            for side in spread.sides {
                if has_turned {
                    break;
                }
                let struck = self.live(id, part, &format!("{side}:1:rollout.roll_back"))?;
                has_turned = struck.unwrap_or_default();
            }
            for number in 0..spread.retreat {
                if self.live(id, Part::Retreat, in_turn(number))?.is_none() {
                    break;
                }
            }
        }
        let last = if turns { Part::Retreat } else { part };
        for side in spread.sides {
            self.live(id, last, &format!("{side}:1:rollout.finish"))?;
        }
        self.end_coordinator()?;
        self.lab.start_coordinator()
    }

    /// Starts a coordinator that is killed at `strike`, and waits for it. Returns whether from then on hosts go back; nothing where
    /// the rollout had ended before.
    fn live(&mut self, id: &str, part: Part, strike: &str) -> Result<Option<bool>> {
        self.end_coordinator()?;
        self.lab.start_coordinator_until(strike)?;
        let begun = Instant::now();
        let mut asked = begun;
        loop {
            if self.lab.coordinator_was_killed()? {
                return Ok(Some(self.strikes.take(part)?.turns));
            }
            if asked.elapsed() >= QUESTION {
                // A coordinator that has just been killed does not answer, which the next look finds.
                if self.lab.operator().rollout(id).is_ok_and(|rollout| rollout.ended_unix_ms != 0) {
                    return Ok(None);
                }
                asked = Instant::now();
            }
            ensure!(begun.elapsed() < LIFE_MAX, "{strike} has not come in {} s", LIFE_MAX.as_secs());
            // The poll interval of a condition.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends a coordinator that runs, which may be one that is still to strike.
    fn end_coordinator(&mut self) -> Result<()> {
        if self.lab.coordinator_process().is_ok() { self.lab.kill_coordinator() } else { Ok(()) }
    }

    /// Waits until a rollout has ended as it must, and compares what hosts run: `tree` where it succeeded.
    fn ended(&mut self, id: &str, state: v1::RolloutState, tree: &Path) -> Result<v1::Rollout> {
        let rollout = wait_ended(&self.lab, id)?;
        ensure!(rollout.state() == state, "{id} ended as {:?}: {}", rollout.state(), rollout.reason);
        self.rollouts += 1;
        if state == v1::RolloutState::Succeeded {
            for host in rollout.batches.iter().flat_map(names) {
                self.runs.insert(host, tree.to_owned());
            }
        }
        for host in self.lab.hosts() {
            let runs = self.runs.get(host.name()).with_context(|| format!("{} runs nothing", host.name()))?;
            let differences = compare(runs, &host.current(APP))?;
            ensure!(differences.is_empty(), "{} differs after {id}: {differences:?}", host.name());
        }
        Ok(rollout)
    }

    /// Fails where the application takes a new rollout.
    fn closed(&mut self, version: &str) -> Result<()> {
        ensure!(self.is_closed()?, "a rollout of {APP} has failed, and it is not closed");
        let answer = self.lab.operator().try_run(start_args(version))?;
        ensure!(answer.code == 1, "a closed application took a rollout: {}", answer.stdout);
        self.refused += 1;
        Ok(())
    }

    fn is_closed(&self) -> Result<bool> {
        let answer = self.lab.operator().run(["app", "show", APP, "--json"])?;
        let answer: serde_json::Value = serde_json::from_str(&answer.stdout)?;
        answer["closed"].as_bool().context("sluice app show does not say whether it is closed")
    }

    fn newest(&self) -> Result<String> {
        Ok(self.lab.operator().newest_rollout(APP)?.map(|rollout| rollout.id).unwrap_or_default())
    }
}

fn start_args(version: &str) -> Vec<String> {
    let budget = BUDGET.to_string();
    let steps = ["--canary", "1", "--batch", &budget, "--max-unavailable", &budget, "--bake", "200ms"];
    let what = ["rollout", "start", APP, version, "--detach"];
    what.into_iter().chain(steps).map(str::to_owned).collect()
}

/// Returns the strikes of one life after the other. What is struck after its commit moves the rollout on; the next is undone.
fn in_turn(number: u32) -> &'static str {
    const STRIKES: [&str; 4] = ["before:1", "after:1:report", "after:1", "before:1:report"];
    STRIKES[number as usize % STRIKES.len()]
}

fn names(batch: &v1::RolloutBatch) -> Vec<String> {
    batch.hosts.iter().map(|host| host.name.clone()).collect()
}

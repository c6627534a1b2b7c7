//! `kill -9` of the real coordinator at every commit of rollouts over 20 real agents, right before and right after it: each
//! rollout ends, and never are more hosts out than may be, as the agents' own states have it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use sluice_proto::v1;

use super::super::Options;
use super::super::board::Board;
use super::super::kills::{reopen, wait_ended};
use super::super::main_job::demo_executable;
use crate::lab::{AgentOptions, Lab, compare, noise, write_tree};

const APP: &str = "shop";
const HOSTS: usize = 20;
/// How many hosts may be out at once, and how many switch together.
const BUDGET: usize = 4;
/// The host whose every third release fails, so that rollouts go back too.
const WEAK: usize = 12;
/// Time that one life of the coordinator may take: agents wait up to 5 s before they come back, all else takes less.
const LIFE_MAX: Duration = Duration::from_secs(90);
/// From so many kills on, decisions are among the commits that were struck.
const KINDS_FROM: u32 = 100;
/// Pause between two questions whether the rollout has ended.
const QUESTION: Duration = Duration::from_millis(500);

/// Hooks that take long enough to be seen, and one host on which some releases fail.
const SPEC: &str = r#"[hooks.stop]
command = ["sleep", "0.1"]
[hooks.start]
command = ["sleep", "0.1"]
[hooks.validate]
command = ["sh", "-c", "sleep 0.1; test -z \"$WEAK\" || test ! -e bad"]
"#;

pub(super) fn run(board: &mut Board, options: &Options) -> Result<()> {
    let wanted = if options.quick { 10 } else { 300 };
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
    for number in 1..=HOSTS {
        let site = if number % 2 == 0 { "berlin" } else { "lisbon" };
        let weak = (APP.to_owned(), "WEAK".to_owned(), "yes".to_owned());
        let variables = if number == WEAK { vec![weak] } else { Vec::new() };
        lab.add_host(&format!("h{number:02}"), site, AgentOptions { variables, ..AgentOptions::default() })?;
    }
    lab.wait_connected()?;
    let mut running = publish(&lab, scratch.path(), 0, false)?;
    let first = start(&lab, "0", &["--all-at-once", "--bake", "0s"])?;
    let first = wait_ended(&lab, &first)?;
    ensure!(
        first.state() == v1::RolloutState::Succeeded,
        "the first release did not install: {}",
        first.reason
    );

    let observer = Observer::start(&lab);
    let mut tally = Tally::default();
    for round in 1_u32.. {
        let is_bad = round.is_multiple_of(3);
        let tree = publish(&lab, scratch.path(), round, is_bad)?;
        let budget = BUDGET.to_string();
        let steps = ["--canary", "1", "--batch", &budget, "--max-unavailable", &budget, "--bake", "200ms"];
        let id = start(&lab, &round.to_string(), &steps)?;
        lab.kill_coordinator()?;
        tally.kills += 1;
        while tally.kills < wanted && live_and_die(&mut lab, &id, &mut tally)? {}
        if lab.coordinator_process().is_err() {
            lab.start_coordinator()?;
        }
        let rollout = wait_ended(&lab, &id)?;
        match (rollout.state(), is_bad) {
            (v1::RolloutState::Succeeded, false) => running = tree,
            (v1::RolloutState::RolledBack, true) => reopen(&lab, APP)?,
            (state, _) => bail!("{id} ended as {state:?}: {}", rollout.reason),
        }
        tally.rollouts += 1;
        for host in lab.hosts() {
            let differences = compare(&running, &host.current(APP))?;
            ensure!(differences.is_empty(), "{} differs after {id}: {differences:?}", host.name());
        }
        if tally.kills >= wanted {
            break;
        }
    }
    for host in lab.hosts() {
        host.fsck(lab.executable())?;
    }
    tally.show(board, wanted, &lab)?;
    observer.show(board)?;
    lab.stop()
}

/// Makes and registers a release, and returns its tree.
fn publish(lab: &Lab, scratch: &Path, round: u32, is_bad: bool) -> Result<PathBuf> {
    let tree = scratch.join(format!("tree-{round}"));
    let version = round.to_string();
    let mut files = vec![
        ("sluice.toml", SPEC.as_bytes().to_vec(), false),
        ("version", version.clone().into_bytes(), false),
        ("noise", noise(u64::from(round), 100_000), false),
    ];
    if is_bad {
        files.push(("bad", Vec::new(), false));
    }
    write_tree(&tree, &files)?;
    lab.release(APP, &version, &tree)?;
    Ok(tree)
}

fn start(lab: &Lab, version: &str, more: &[&str]) -> Result<String> {
    lab.operator().run(["rollout", "start", APP, version, "--detach"].iter().chain(more))?;
    Ok(lab.operator().newest_rollout(APP)?.context("no rollout was started")?.id)
}

/// Lets the coordinator live until its first commit. The moment alternates between right after it and right before it, so that
/// the rollout goes on by one commit and the next one is undone. Returns whether the rollout may have more of them.
fn live_and_die(lab: &mut Lab, id: &str, tally: &mut Tally) -> Result<bool> {
    let strike = if tally.kills.is_multiple_of(2) { "before:1" } else { "after:1" };
    lab.start_coordinator_until(strike)?;
    let begun = Instant::now();
    let mut asked = begun;
    loop {
        if lab.coordinator_was_killed()? {
            tally.kills += 1;
            return Ok(true);
        }
        if asked.elapsed() >= QUESTION {
            // A coordinator that has just been killed does not answer, which the next look finds.
            if lab.operator().rollout(id).is_ok_and(|rollout| rollout.ended_unix_ms != 0) {
                return Ok(false);
            }
            asked = Instant::now();
        }
        ensure!(begun.elapsed() < LIFE_MAX, "nothing was committed for {} s", LIFE_MAX.as_secs());
        // The poll interval of a condition.
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[derive(Default)]
struct Tally {
    kills: u32,
    rollouts: u32,
}

impl Tally {
    fn show(&self, board: &mut Board, wanted: u32, lab: &Lab) -> Result<()> {
        let figure = format!("{} kills, {} rollouts ended", self.kills, self.rollouts);
        let holds = self.kills >= wanted && self.rollouts > 0;
        board.line(
            "coordinator killed at every commit, 20 agents",
            &figure,
            &format!("{wanted} kills"),
            holds,
        );
        let log = fs::read_to_string(lab.dir().join("coordinator.log"))?;
        let mut struck: BTreeMap<&str, u32> = BTreeMap::new();
        for side in ["Before", "After"] {
            for what in ["Decision", "Report"] {
                let is_such = |line: &&str| {
                    line.contains("struck at a commit") && line.contains(side) && line.contains(what)
                };
                let count = log.lines().filter(is_such).count();
                *struck.entry(if side == "Before" { "before" } else { "after" }).or_default() +=
                    u32::try_from(count)?;
                *struck.entry(what).or_default() += u32::try_from(count)?;
            }
        }
        let of = |what: &str| struck.get(what).copied().unwrap_or_default();
        let figure = format!("{} before, {} after", of("before"), of("after"));
        // A short list ends while hosts are being staged, when there is little to decide.
        let decided = wanted < KINDS_FROM || of("Decision") > 0;
        let holds = of("before") > 0 && of("after") > 0 && of("Report") > 0 && decided;
        let what = format!("  commits struck ({} decisions, {} reports)", of("Decision"), of("Report"));
        board.line(&what, &figure, "both sides, both kinds", holds);
        Ok(())
    }
}

/// Looks at the states of all agents all the time.
struct Observer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    states: Vec<PathBuf>,
    looks: AtomicUsize,
    /// The most hosts that were out at one moment.
    most: AtomicUsize,
    stop: AtomicBool,
}

impl Observer {
    fn start(lab: &Lab) -> Self {
        let states = lab.hosts().iter().map(|host| host.app_dir(APP).join("state.toml")).collect();
        let shared = Arc::new(Shared { states, ..Shared::default() });
        let all = shared.clone();
        let thread = std::thread::spawn(move || {
            let mut before = all.scan();
            while !all.stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
                let now = all.scan();
                all.judge(&before, &now);
                before = now;
            }
        });
        Self { shared, thread: Some(thread) }
    }

    fn show(mut self, board: &mut Board) -> Result<()> {
        self.stop();
        let most = self.shared.most.load(Ordering::Relaxed);
        let looks = self.shared.looks.load(Ordering::Relaxed);
        let figure = format!("{most} at most, {looks} looks");
        // Fewer would mean that the looks were too few to see anything.
        let holds = (2..=BUDGET).contains(&most);
        board.line("  hosts out at once, by their own states", &figure, &format!("{BUDGET}"), holds);
        Ok(())
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in the observer has been printed by its own thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Returns for each host the order that has it out, if one has.
    fn scan(&self) -> Vec<Option<i64>> {
        self.states.iter().map(|path| out_for(path)).collect()
    }

    /// Counts the hosts that the same order had out in two scans: it had them out in between too, all at one moment.
    fn judge(&self, before: &[Option<i64>], now: &[Option<i64>]) {
        let out = before.iter().zip(now).filter(|(before, now)| before.is_some() && before == now).count();
        self.most.fetch_max(out, Ordering::Relaxed);
        self.looks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns the generation of the order for which a host is out, as its state says.
fn out_for(state: &Path) -> Option<i64> {
    let state: toml::Table = fs::read_to_string(state).ok()?.parse().ok()?;
    let phase = state.get("progress")?.get("phase")?.as_str()?;
    matches!(phase, "switching" | "validating" | "reverting")
        .then(|| state.get("generation")?.as_integer())?
}

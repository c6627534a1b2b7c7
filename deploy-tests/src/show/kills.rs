//! `kill -9` of any one process at many moments: the rollout ends, and `current` never points at an incomplete tree.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_common::tree::Tree;
use sluice_proto::v1;

use super::Options;
use super::board::Board;
use super::main_job::demo_executable;
use crate::lab::{AgentOptions, Lab, PATIENCE, compare, noise, wait_for, write_tree};

const APP: &str = "kill";

pub(super) fn run(board: &mut Board, options: &Options) -> Result<()> {
    let moments = if options.quick { 4 } else { 20 };
    agent_while_staging(board, moments)?;
    agent_while_switching(board, moments)?;
    coordinator(board, moments)
}

/// What became of the rollouts that were disturbed.
#[derive(Default)]
struct Tally {
    ended: u32,
    succeeded: u32,
    rolled_back: u32,
}

impl Tally {
    fn add(&mut self, rollout: &v1::Rollout) {
        self.ended += 1;
        match rollout.state() {
            v1::RolloutState::Succeeded => self.succeeded += 1,
            v1::RolloutState::RolledBack => self.rolled_back += 1,
            _ => {}
        }
    }

    fn show(&self, board: &mut Board, what: &str, moments: u32, observer: &Observer) {
        let figure = format!("{} ended: {} updated, {} back", self.ended, self.succeeded, self.rolled_back);
        let holds = self.ended == moments && self.succeeded + self.rolled_back == moments;
        board.line(what, &figure, &format!("{moments} ended"), holds);
        let (looks, bad) = observer.counts();
        let figure = format!("{bad} of {looks} looks");
        board.line("  current at an incomplete tree meanwhile", &figure, "0", bad == 0 && looks > 0);
    }
}

fn agent_while_staging(board: &mut Board, moments: u32) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
    let paced = AgentOptions { limit: Some("40Mbit/s".into()), ..AgentOptions::default() };
    lab.add_host("h1", "berlin", paced)?;
    lab.wait_connected()?;
    let observer = Observer::start(&lab);
    let mut tally = Tally::default();
    for moment in 0..moments {
        let version = format!("{}", moment + 1);
        let tree = scratch.path().join(&version);
        // Six megabytes at 40 Mbit/s take 1.2 s: the moments are spread over it.
        let files = [("a/noise", noise(u64::from(moment), 6_000_000), false), ("b", noise(1, 300_000), true)];
        write_tree(&tree, &files)?;
        observer.expect(&tree)?;
        lab.release(APP, &version, &tree)?;
        let id = start(&lab, &version, &[])?;
        wait_for_phase(&lab, &id, v1::Phase::Fetching)?;
        at_moment(Duration::from_millis(1_200), moment, moments);
        lab.host_mut("h1")?.kill()?;
        lab.restart_agent("h1")?;
        tally.add(&wait_ended(&lab, &id)?);
        let differences = compare(&tree, &lab.hosts()[0].current(APP))?;
        ensure!(differences.is_empty(), "version {version} differs after a kill: {differences:?}");
        lab.hosts()[0].fsck(lab.executable())?;
    }
    tally.show(board, "agent killed while staging", moments, &observer);
    lab.stop()
}

/// The hooks take long enough to be hit.
const SLOW_SPEC: &str = r#"[hooks.stop]
command = ["sleep", "0.05"]
[hooks.start]
command = ["sleep", "0.05"]
[hooks.validate]
command = ["sleep", "0.1"]
[gate]
deadline = "20s"
bake = "300ms"
[[health]]
type = "command"
command = ["true"]
interval = "50ms"
"#;

fn agent_while_switching(board: &mut Board, moments: u32) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
    lab.add_host("h1", "berlin", AgentOptions::default())?;
    lab.wait_connected()?;
    let observer = Observer::start(&lab);
    let mut tally = Tally::default();
    let mut running = None;
    for moment in 0..=moments {
        let version = format!("{}", moment + 1);
        let tree = scratch.path().join(&version);
        let files = [
            ("sluice.toml", SLOW_SPEC.as_bytes().to_vec(), false),
            ("version", version.clone().into_bytes(), false),
            ("noise", noise(u64::from(moment), 200_000), false),
        ];
        write_tree(&tree, &files)?;
        observer.expect(&tree)?;
        lab.release(APP, &version, &tree)?;
        let before = history(&lab);
        let id = start(&lab, &version, &[])?;
        // The first version installs undisturbed; it is what the others go back to.
        if moment > 0 {
            wait_for("the switch to begin", PATIENCE, || Ok(switching(&lab, before).then_some(())))?;
            at_moment(Duration::from_millis(700), moment - 1, moments);
            lab.host_mut("h1")?.kill()?;
            lab.restart_agent("h1")?;
        }
        let rollout = wait_ended(&lab, &id)?;
        if rollout.state() == v1::RolloutState::Succeeded {
            running = Some(tree.clone());
        } else {
            reopen(&lab, APP)?;
        }
        if moment > 0 {
            tally.add(&rollout);
        }
        let expected = running.as_ref().context("the first version did not install")?;
        let differences = compare(expected, &lab.hosts()[0].current(APP))?;
        ensure!(differences.is_empty(), "{:?}, but current differs: {differences:?}", rollout.state());
        lab.hosts()[0].fsck(lab.executable())?;
    }
    tally.show(board, "agent killed while switching", moments, &observer);
    lab.stop()
}

fn coordinator(board: &mut Board, moments: u32) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
    for name in ["h1", "h2", "h3"] {
        lab.add_host(name, "berlin", AgentOptions::default())?;
    }
    lab.wait_connected()?;
    let observer = Observer::start(&lab);
    let mut tally = Tally::default();
    let mut span = Duration::ZERO;
    for moment in 0..=moments {
        let version = format!("{}", moment + 1);
        let tree = scratch.path().join(&version);
        write_tree(&tree, &[("noise", noise(u64::from(moment), 400_000), false)])?;
        observer.expect(&tree)?;
        lab.release(APP, &version, &tree)?;
        let begun = Instant::now();
        let id = start(&lab, &version, &["--bake", "200ms"])?;
        // The first run tells how long an undisturbed rollout takes.
        if moment > 0 {
            at_moment(span, moment - 1, moments);
            lab.kill_coordinator()?;
            lab.start_coordinator()?;
        }
        let rollout = wait_ended(&lab, &id)?;
        if moment == 0 {
            span = begun.elapsed();
        } else {
            tally.add(&rollout);
        }
        for host in lab.hosts() {
            let differences = compare(&tree, &host.current(APP))?;
            ensure!(differences.is_empty(), "{} differs after a kill: {differences:?}", host.name());
            host.fsck(lab.executable())?;
        }
    }
    tally.show(board, "coordinator killed in mid-rollout", moments, &observer);
    lab.stop()
}

/// Lets a fault strike at one of `moments` evenly spread over `span`.
fn at_moment(span: Duration, moment: u32, moments: u32) {
    std::thread::sleep(span * moment / moments);
}

pub(super) fn start(lab: &Lab, version: &str, more: &[&str]) -> Result<String> {
    start_app(lab, APP, version, more)
}

/// Starts a rollout one host at a time and returns its id.
pub(super) fn start_app(lab: &Lab, app: &str, version: &str, more: &[&str]) -> Result<String> {
    order_app(lab, app, version, more)?;
    Ok(lab.operator().newest_rollout(app)?.context("no rollout was started")?.id)
}

/// Starts a rollout as an operator does, and asks nothing about it.
pub(super) fn order_app(lab: &Lab, app: &str, version: &str, more: &[&str]) -> Result<()> {
    lab.operator().run(order_args(app, version, more)).map(drop)
}

/// Returns the arguments of the operator's command that orders a version.
pub(super) fn order_args<'a>(app: &'a str, version: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["rollout", "start", app, version, "--detach", "--canary", "1", "--batch", "1"];
    if !more.contains(&"--bake") {
        args.extend(["--bake", "0s"]);
    }
    args.extend(more);
    args
}

/// Lets an application whose rollout has just failed take the next one.
pub(super) fn reopen(lab: &Lab, app: &str) -> Result<()> {
    lab.operator().run(["app", "reopen", app, "--cause", "the fault that was meant to strike"])?;
    Ok(())
}

/// Waits until a host of the rollout reports `phase`, or one behind it.
pub(super) fn wait_for_phase(lab: &Lab, id: &str, phase: v1::Phase) -> Result<()> {
    wait_for(&format!("{id} to reach {}", phase.as_str_name()), PATIENCE, || {
        let rollout = lab.operator().rollout(id)?;
        let mut hosts = rollout.batches.iter().flat_map(|batch| &batch.hosts);
        let reached =
            |host: &v1::RolloutHost| host.report.as_ref().is_some_and(|report| report.phase >= phase as i32);
        Ok(hosts.any(reached).then_some(()))
    })
}

/// Waits until a rollout has ended and returns it. A coordinator that is away is asked again.
pub(super) fn wait_ended(lab: &Lab, id: &str) -> Result<v1::Rollout> {
    wait_for(&format!("{id} to end"), PATIENCE, || {
        Ok(lab.operator().rollout(id).ok().filter(|rollout| rollout.ended_unix_ms != 0))
    })
    .with_context(|| match lab.operator().rollout(id) {
        Ok(rollout) => format!("{:?}: {} {:?}", rollout.state(), rollout.reason, rollout.blockers),
        Err(error) => format!("{error:#}"),
    })
}

fn history(lab: &Lab) -> usize {
    fs_err::read_to_string(lab.hosts()[0].app_dir(APP).join("history.log"))
        .map_or(0, |text| text.lines().count())
}

/// Says whether the host has begun to switch since its history had `before` lines.
fn switching(lab: &Lab, before: usize) -> bool {
    let state = fs_err::read_to_string(lab.hosts()[0].app_dir(APP).join("state.toml")).unwrap_or_default();
    history(lab) > before || state.contains("switching") || state.contains("validating")
}

/// Looks at every host's `current` all the time: it is whole at every look, or not there yet.
struct Observer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    links: Vec<PathBuf>,
    /// Paths and sizes of every known release by its directory's name.
    releases: std::sync::Mutex<HashMap<String, Vec<(PathBuf, u64)>>>,
    looks: AtomicU64,
    bad: AtomicU64,
    stop: AtomicBool,
}

impl Observer {
    fn start(lab: &Lab) -> Self {
        let links = lab.hosts().iter().map(|host| host.current(APP)).collect();
        let shared = Arc::new(Shared { links, ..Shared::default() });
        let all = shared.clone();
        let thread = std::thread::spawn(move || {
            while !all.stop.load(Ordering::Relaxed) {
                all.links.iter().for_each(|link| all.look(link));
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Tells the observer what a release looks like when it is whole.
    fn expect(&self, tree: &Path) -> Result<()> {
        let tree = Tree::scan(tree)?;
        let files =
            tree.manifest().files().map(|(path, file)| (path.as_path().to_owned(), file.size)).collect();
        self.shared
            .releases
            .lock()
            .expect("no holder panics")
            .insert(tree.manifest().digest().short(), files);
        Ok(())
    }

    fn counts(&self) -> (u64, u64) {
        (self.shared.looks.load(Ordering::Relaxed), self.shared.bad.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn look(&self, link: &Path) {
        let Ok(target) = fs_err::read_link(link) else { return };
        let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let release = link.with_file_name("releases").join(&name);
        let is_whole = |(path, size): &(PathBuf, u64)| {
            fs_err::symlink_metadata(release.join(path)).is_ok_and(|metadata| metadata.len() == *size)
        };
        let releases = self.releases.lock().expect("no holder panics");
        let whole = releases.get(&name).is_some_and(|files| files.iter().all(is_whole));
        drop(releases);
        self.looks.fetch_add(1, Ordering::Relaxed);
        if !whole {
            self.bad.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in the observer has been printed by its own thread.
            let _ = thread.join();
        }
    }
}

//! Updates and cold installs at the agent, beside rsync, zstd, hashing and copying of the same tree.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_common::transfer::Effort;

use super::work::Work;
use crate::lab::compare;
use crate::measure;
use crate::show::board::Board;
use crate::trees::Pair;

mod bench;
mod large;
mod loopback;
mod sampler;
mod scratch;

pub(super) use bench::Bench;
use bench::{Staged, median};
pub(super) use large::large_file;
use loopback::RsyncServer;
pub(super) use sampler::Sampler;
use scratch::Scratch;

const APP: &str = "tree";
const MEBIBYTE: f64 = (1 << 20) as f64;
/// How often each time is measured, on a host of its own: the median counts.
const ROUNDS: usize = 3;
/// The same of installs.
const INSTALL_ROUNDS: usize = 5;

/// Shows updates beside rsync.
pub(super) fn updates(board: &mut Board, _: &mut Work) -> Result<()> {
    let Some((old, new)) = Work::trees(board, Pair::Python)? else { return Ok(()) };
    for link in [Link::Open, Link::Limited] {
        for state in [State::Warm, State::ColdCache, State::Restarted] {
            // What a restart costs does not turn on the plan.
            if link == Link::Open || state != State::Restarted {
                update(board, (&old, &new), link, state)?;
            }
        }
    }
    Ok(())
}

/// Shows cold installs beside what they cannot do without.
pub(super) fn installs(board: &mut Board, _: &mut Work) -> Result<()> {
    let Some((_, tree)) = Work::trees(board, Pair::Python)? else { return Ok(()) };
    [Link::Open, Link::Limited].into_iter().try_for_each(|link| cold_install(board, link, &tree))
}

/// What the host's link is, and so which plan it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Nothing limits it: the plan that is restored soonest. Bounds of time are of this.
    Open,
    /// It is limited: the smallest plan, whose restoring takes more of the host. Here without its limit, to see that alone.
    Limited,
}

impl Link {
    fn effort(self) -> Effort {
        match self {
            Self::Open => Effort::Quick,
            Self::Limited => Effort::Best,
        }
    }

    /// Shows a figure beside its bound, or alone, where a limit of the link takes longer than anything here.
    fn line(self, board: &mut Board, what: &str, figure: &str, bound: &str, holds: bool) {
        match self {
            Self::Open => board.line(what, figure, bound, holds),
            Self::Limited => println!("       {what}: {figure}"),
        }
    }
}

/// What the system and the services have in memory of what is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The system has all files; the services run for a while.
    Warm,
    /// The system has none; the services run for a while: an agent knows which files it has hashed, the coordinator has the
    /// frames that others were sent.
    ColdCache,
    /// The system has none, and agents and coordinator have just been started: every file that is linked is read and hashed.
    Restarted,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::ColdCache => "cold cache",
            Self::Restarted => "cold cache, all restarted",
        }
    }

    fn is_cold(self) -> bool {
        self != Self::Warm
    }
}

fn update(board: &mut Board, (old, new): (&Path, &Path), link: Link, state: State) -> Result<()> {
    let effort = word(link.effort());
    let what = format!("update, {effort} plan, {}", state.word());
    if state.is_cold() && !Bench::forget() {
        board.skip(&what, "the page cache cannot be dropped here");
        return Ok(());
    }
    let mut bench = Bench::start_in(Scratch::file_system()?, effort, ROUNDS)?;
    bench.lab.release(APP, "1", old)?;
    bench.lab.release(APP, "2", new)?;
    for number in 0..=ROUNDS {
        bench.roll("1", number)?;
    }
    bench.roll("2", 0)?;
    let rounds = (1..=ROUNDS).map(|number| {
        let current = bench.lab.hosts()[number].current(APP);
        if state == State::Restarted {
            bench.restart()?;
        }
        Bench::ready(state.is_cold(), &[&current, &bench.lab.coordinator_dir()])?;
        let staged = bench.roll("2", number)?;
        ensure!(compare(new, &current)?.is_empty(), "the update is not the new tree");
        Ok(staged)
    });
    let ours = median(rounds.collect::<Result<_>>()?)?;
    for times in [Times::AsFetched, Times::Alike] {
        // Where a limit of the link takes longer than anything here, one comparison is enough.
        if link == Link::Limited && times == Times::Alike {
            continue;
        }
        let Some(rsync) = rsync(&bench, (old, new), times, state.is_cold())? else {
            board.skip(
                &format!("{what}, beside rsync"),
                "rsync is not installed, and cannot be installed here",
            );
            return bench.lab.stop();
        };
        beside_rsync(board, &what, (link, state), &ours, &rsync);
    }
    rss_line(board, "  agent's RssAnon meanwhile", &ours, if link == Link::Limited { 128 } else { 64 });
    ours.print_phases();
    bench.lab.stop()
}

/// Shows what an update took beside what it took rsync.
fn beside_rsync(board: &mut Board, what: &str, (link, state): (Link, State), ours: &Staged, rsync: &Rsync) {
    let (wall, rsync_wall) = (ours.wall.as_secs_f64(), rsync.wall);
    let ratio = wall / rsync_wall;
    let wall = format!("{wall:.2} s / {rsync_wall:.2} s = {ratio:.2}x");
    let (here, there) = (ours.all_cpu().as_secs_f64(), rsync.cpu());
    let cpu_ratio = here / there;
    let cpu = format!("{here:.2} s / {there:.2} s = {cpu_ratio:.2}x");
    match rsync.times {
        Times::AsFetched => {
            link.line(board, &format!("{what}, wall beside rsync -a"), &wall, "<= 0.7x", ratio <= 0.7);
            link.line(board, "  CPU of both ends beside rsync's", &cpu, "<= 0.5x", cpu_ratio <= 0.5);
            let (sent, sender) = (ours.coordinator_cpu.as_secs_f64(), rsync.sender);
            println!("       CPU at the sender: {sent:.2} s, of rsync's {sender:.2} s");
        }
        Times::Alike => {
            let beside = "  beside an rsync that need not read what is alike, wall";
            match state {
                State::Warm | State::ColdCache => link.line(board, beside, &wall, "<= 0.7x", ratio <= 0.7),
                // An agent that was just started trusts no times: it reads everything, where that rsync reads what changed.
                State::Restarted => println!("     {beside}: {wall}"),
            }
            println!("       CPU of both ends beside that one's: {cpu}");
        }
    }
}

/// The times of files in the two trees that rsync is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    /// As the packages were unpacked: each release at its own time. So its quick check by size and time finds no file alike,
    /// and it compares the bytes of all of them.
    AsFetched,
    /// The same where files are alike, as a careful deployer may arrange it before each release: it then reads what changed alone,
    /// and trusts that nothing else did.
    Alike,
}

/// What bringing a copy of the old tree to the new one with rsync took: the median wall, and the mean CPU times, in seconds.
struct Rsync {
    times: Times,
    wall: f64,
    receiver: f64,
    sender: f64,
}

impl Rsync {
    fn cpu(&self) -> f64 {
        self.receiver + self.sender
    }
}

/// Brings copies of the old tree to the new one with rsync over loopback.
fn rsync(bench: &Bench, (old, new): (&Path, &Path), times: Times, cold_cache: bool) -> Result<Option<Rsync>> {
    let dir = bench.scratch.path().join(format!("rsync-{times:?}"));
    let (source, original) = (dir.join("new"), dir.join("old"));
    fs_err::create_dir_all(&dir)?;
    copy(new, &source)?;
    copy(old, &original)?;
    if times == Times::Alike {
        alike_in_time(&source, &original)?;
    }
    let (mut walls, mut receiver, mut sender) = (Vec::new(), Duration::ZERO, Duration::ZERO);
    for number in 1..=ROUNDS {
        let target = dir.join(format!("host-{number}"));
        copy(&original, &target)?;
        // A server for each, because its children's time is known once it has ended.
        let Some(server) = RsyncServer::start(&dir, &source)? else { return Ok(None) };
        rustix::fs::sync();
        Bench::ready(cold_cache, &[&source, &target])?;
        let mut command = Command::new("rsync");
        command.args(["-a", "--delete", &server.url()]).arg(format!("{}/", target.display()));
        let (_, client) = measure::run(command)?;
        ensure!(compare(&source, &target)?.is_empty(), "rsync made another tree");
        walls.push(client.wall_seconds());
        receiver += client.cpu;
        sender += server.cpu()?;
    }
    walls.sort_by(f64::total_cmp);
    let mean = |time: Duration| (time / ROUNDS as u32).as_secs_f64();
    Ok(Some(Rsync { times, wall: walls[ROUNDS / 2], receiver: mean(receiver), sender: mean(sender) }))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    measure::shell(r#"cp -a "$FROM/." "$TO""#, &[("FROM", from.as_os_str()), ("TO", to.as_os_str())])?;
    Ok(())
}

fn alike_in_time(source: &Path, target: &Path) -> Result<()> {
    let script = r#"find "$SOURCE" "$TARGET" -type f -exec touch -d @1000000000 {} +
cd "$SOURCE"; find . -type f | while IFS= read -r f; do cmp -s "$f" "$TARGET/$f" || touch -d @1000000001 "$f"; done"#;
    measure::shell(script, &[("SOURCE", source.as_os_str()), ("TARGET", target.as_os_str())])?;
    Ok(())
}

/// A cold install beside the slowest of three things that it cannot do without. In each round all of them, one after the other: how fast
/// a disk writes changes from one minute to the next.
fn cold_install(board: &mut Board, link: Link, tree: &Path) -> Result<()> {
    let effort = word(link.effort());
    let mut bench = Bench::start_in(Scratch::file_system()?, effort, INSTALL_ROUNDS)?;
    bench.lab.release(APP, "1", tree)?;
    bench.roll("1", 0)?;
    let dir = bench.scratch.path().join("yardsticks");
    fs_err::create_dir_all(&dir)?;
    let prepare = r#"tar -C "$TREE" -cf - . | zstd -q -3 > "$DIR/tar.zst""#;
    measure::shell(prepare, &[("TREE", tree.as_os_str()), ("DIR", dir.as_os_str())])?;
    let (mut rounds, mut walls) = (Vec::new(), YARDSTICKS.map(|_| Vec::new()));
    for number in 1..=INSTALL_ROUNDS {
        Bench::ready(false, &[&bench.lab.coordinator_dir()])?;
        rounds.push(bench.roll("1", number)?);
        let current = bench.lab.hosts()[number].current(APP);
        ensure!(compare(tree, &current)?.is_empty(), "the install is not the tree");
        for ((_, script), walls) in YARDSTICKS.iter().zip(&mut walls) {
            walls.push(yardstick(*script, tree, &dir, number)?);
        }
    }
    let ours = median(rounds)?;
    let mut slowest = 0.0;
    for ((name, _), walls) in YARDSTICKS.iter().zip(&mut walls) {
        walls.sort_by(f64::total_cmp);
        let wall = walls[walls.len() / 2];
        println!("       {name}: {wall:.2} s, of {}", listed(walls));
        slowest = wall.max(slowest);
    }
    let ratio = ours.wall.as_secs_f64() / slowest;
    let figure = format!("{:.2} s = {ratio:.2}x", ours.wall.as_secs_f64());
    let what = format!("cold install, {effort} plan, wall");
    link.line(board, &what, &figure, "<= 1.1x the slowest of them", ratio <= 1.1);
    ours.print_phases();
    rss_line(board, "  agent's RssAnon meanwhile", &ours, 64);
    bench.lab.stop()
}

/// What an install cannot do without: a name, and a script; nothing for hashing, which Sluice's own hash does, because GNU's would be
/// four times slower.
const YARDSTICKS: [(&str, Option<&str>); 3] = [
    ("zstd -d", Some(r#"zstd -q -d < "$DIR/tar.zst" > "$MADE""#)),
    ("SHA-256 of the tree", None),
    ("cp -a and sync", Some(r#"cp -a "$TREE" "$MADE"; sync -f "$MADE""#)),
];

/// Times a yardstick, and returns the seconds that it took. What it makes is new each time, as each install is on a host of its own.
fn yardstick(script: Option<&str>, tree: &Path, dir: &Path, number: usize) -> Result<f64> {
    rustix::fs::sync();
    Bench::ready(false, &[tree])?;
    let Some(script) = script else {
        let begun = Instant::now();
        sluice_common::tree::Tree::scan(tree)?;
        return Ok(begun.elapsed().as_secs_f64());
    };
    let made = dir.join(format!("{}-{number}", script.split(' ').next().unwrap_or_default()));
    let variables = [("TREE", tree.as_os_str()), ("DIR", dir.as_os_str()), ("MADE", made.as_os_str())];
    Ok(measure::shell(script, &variables)?.1.wall_seconds())
}

/// Lists seconds.
fn listed(walls: &[f64]) -> String {
    walls.iter().map(|wall| format!("{wall:.2}")).collect::<Vec<_>>().join(", ")
}

/// Peak anonymous memory of the agent on the trees of the list.
pub(super) fn memory(board: &mut Board, work: &mut Work) -> Result<()> {
    for pair in work.pairs() {
        // Hardly anything of it travels on an update, and cold it is another pair's tree.
        if pair == Pair::Config {
            continue;
        }
        let Some((old, new)) = Work::trees(board, pair)? else { continue };
        let mut bench = Bench::start("best")?;
        bench.lab.release(APP, "1", &old)?;
        bench.lab.release(APP, "2", &new)?;
        let cold = bench.roll("1", 1)?;
        let update = bench.roll("2", 1)?;
        for (what, staged, bound) in [("cold install", cold, 64), ("update, aware codecs", update, 128)] {
            rss_line(board, &format!("{}, {what}: agent's RssAnon", pair.name()), &staged, bound);
        }
        bench.lab.stop()?;
    }
    Ok(())
}

/// Shows the most anonymous memory that an agent held beside a bound in MiB.
fn rss_line(board: &mut Board, what: &str, staged: &Staged, bound: u32) {
    let mebibytes = staged.anonymous_peak as f64 / MEBIBYTE;
    // A figure of nothing means that nothing was measured.
    let holds = mebibytes > 0.0 && mebibytes <= f64::from(bound);
    board.line(what, &format!("{mebibytes:.1} MiB at most"), &format!("<= {bound} MiB"), holds);
}

/// What applying took at the agent.
#[derive(Debug, Clone, Copy)]
pub(in crate::show) struct Applied {
    /// CPU time in seconds.
    pub(in crate::show) cpu: f64,
    /// Wall time in seconds, from the operator's command to the switch.
    pub(in crate::show) wall: f64,
    /// Most anonymous memory, in bytes.
    pub(in crate::show) anonymous_peak: u64,
}

/// A cold install and the update that follows it.
#[derive(Debug, Clone, Copy)]
pub(in crate::show) struct AppliedPair {
    /// Of the old tree, which is as large as the new one.
    pub(in crate::show) cold: Applied,
    /// From the old tree to the new one.
    pub(in crate::show) update: Applied,
}

/// Installs and updates a pair at an agent, with plans that another host has had made.
pub(in crate::show) fn apply_pair(pair: Pair, effort: Effort) -> Result<AppliedPair> {
    let (old, new) = pair.fetch()?.context("no trees")?;
    let mut bench = Bench::start(word(effort))?;
    bench.lab.release(APP, "1", &old)?;
    bench.lab.release(APP, "2", &new)?;
    bench.roll("1", 0)?;
    let cold = bench.roll("1", 1)?.applied();
    bench.roll("2", 0)?;
    let update = bench.roll("2", 1)?.applied();
    bench.lab.stop()?;
    Ok(AppliedPair { cold, update })
}

/// Returns an effort as the coordinator's command line has it.
fn word(effort: Effort) -> &'static str {
    match effort {
        Effort::Quick => "quick",
        Effort::Best => "best",
    }
}

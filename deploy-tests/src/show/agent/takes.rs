//! What the agent takes: idle, to switch, and to stage a large tree of which little has changed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use sluice_agent::rehearsal::Sighting;

use super::stage::Stage;
use crate::faults::story::{Ask, Version};
use crate::faults::{Scene, Site};
use crate::lab::{AgentOptions, Lab, PATIENCE, noise, wait_for, write_tree};
use crate::measure;
use crate::role::Role;
use crate::show::board::Board;
use crate::show::kills::{start_app, wait_ended};
use crate::show::main_job::demo_executable;

const MEBIBYTE: f64 = (1 << 20) as f64;

/// An agent with five applications that nobody asks anything of.
pub(super) fn idle(board: &mut Board, stage: &Stage) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
    // The shipped program: this one holds the pages of a coordinator too.
    let built = std::env::current_exe()?;
    let built =
        built.parent().and_then(Path::parent).context("this program stands below no target directory")?;
    let program = built.join("dist/sluice-agent");
    ensure!(program.exists(), "{} is not built; start deploy-tests/show, which builds it", program.display());
    lab.add_host("h1", "berlin", AgentOptions { program: Some(program), ..AgentOptions::default() })?;
    lab.wait_connected()?;
    let tree = scratch.path().join("tree");
    for number in 1..=5 {
        let files = [("noise", noise(number, 100_000), false)];
        write_tree(&tree, &files)?;
        let app = format!("app{number}");
        lab.release(&app, "1", &tree)?;
        let id = start_app(&lab, &app, "1", &[])?;
        wait_ended(&lab, &id)?;
    }
    let host = &lab.hosts()[0];
    let process = host.process_id()?;
    let time = Duration::from_secs(if stage.options.quick { 20 } else { 60 });
    println!("       watching the idle agent for {} s", time.as_secs());
    let (begun, before) = (Instant::now(), measure::cpu_of(process)?);
    std::thread::sleep(time);
    let share = (measure::cpu_of(process)? - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    board.line(
        "an idle agent with 5 applications, of a core",
        &format!("{:.3} %", share * 100.0),
        "<= 0.1 %",
        share <= 0.001,
    );
    let resident = host.memory()?.resident as f64 / MEBIBYTE;
    board.line("  resident", &format!("{resident:.1} MiB"), "<= 12 MiB", resident <= 12.0);
    lab.stop()
}

/// Hooks that say how long they ran: the shell's start and end are the agent's to answer for.
const TIMED: &str = r#"[hooks.stop]
command = ["/bin/bash", "-c", "b=$EPOCHREALTIME; sleep 0.01; echo $b $EPOCHREALTIME >> $LOG"]
[hooks.start]
command = ["/bin/bash", "-c", "b=$EPOCHREALTIME; sleep 0.01; echo $b $EPOCHREALTIME >> $LOG"]
[hooks.validate]
command = ["/bin/bash", "-c", "b=$EPOCHREALTIME; sleep 0.02; echo $b $EPOCHREALTIME >> $LOG"]
"#;

/// Switches between two releases while a client asks the application which one it is.
pub(super) fn switch(board: &mut Board, stage: &Stage) -> Result<()> {
    let switches = if stage.options.quick { 20 } else { 100 };
    let scratch = tempfile::tempdir()?;
    let mut scene = Scene::empty(&demo_executable()?, &scratch.path().join("scene"))?;
    for version in ["1", "2"] {
        let files = [
            ("sluice.toml", TIMED.into(), false),
            ("index.txt", version.into(), false),
            ("noise", noise(1, 100_000), false),
        ];
        write_tree(&scene.tree(version), &files)?;
    }
    scene.pack(&["1", "2"])?;
    let site = Site::open(&scene, &scratch.path().join("disk"), &scratch.path().join("evidence"))?;
    let traffic = watched(&scene, &site, ["1", "2"], switches)?;
    let (median, p99) = quantiles(&traffic);
    let figure = format!("median {median:.2} ms, p99 {p99:.2} ms");
    let what = format!("rename to traffic on the new version, {switches} switches");
    board.line(&what, &figure, "median < 10 ms", median < 10.0);
    overhead(board, &site, switches)
}

fn calls(scene: &Scene, versions: [Version; 2], switches: usize) -> Vec<sluice_agent::rehearsal::Call> {
    (0..=switches).map(|number| Ask::Active(versions[number % 2]).call(number as u64 + 1, scene)).collect()
}

/// Switches to and fro; returns the milliseconds from each rename to the first answer of the new version.
fn watched(scene: &Scene, site: &Site, versions: [Version; 2], switches: usize) -> Result<Vec<f64>> {
    let current = site.app().join("current");
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    drop(listener);
    let mut web = Role::Web.command(&demo_executable()?);
    web.arg("--root").arg(&current).args(["--port", &port.to_string()]).stdin(Stdio::piped());
    let mut web = web.spawn()?;
    wait_for("the application to listen", PATIENCE, || Ok(TcpStream::connect(("127.0.0.1", port)).ok()))?;
    let mut agent = site.start(scene, &calls(scene, versions, switches))?;
    let mut last = None;
    let mut traffic = Vec::new();
    while agent.try_wait()?.is_none() {
        let target = fs::read_link(&current).ok();
        if target == last {
            continue;
        }
        let renamed = Instant::now();
        let expected = target.as_ref().and_then(|target| {
            versions.iter().find(|version| target.ends_with(scene.package(version).short()))
        });
        let expected = expected.context("current leads to what nobody ordered")?;
        let mut is_served = ask(port)? == **expected;
        while !is_served && fs::read_link(&current).ok() == target {
            is_served = ask(port)? == **expected;
        }
        // On a busy machine the next switch may come before this process is let run again.
        if is_served && last.is_some() {
            traffic.push(renamed.elapsed().as_secs_f64() * 1e3);
        }
        last = target;
    }
    web.kill()?;
    web.wait()?;
    ensure!(
        traffic.len() * 10 >= switches * 9,
        "{} switches were seen of {switches}: {}",
        traffic.len(),
        site.log()
    );
    Ok(traffic)
}

/// Asks the application for its version, on a connection of its own.
fn ask(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && (!body.is_empty() || n == 0)
        {
            return Ok(body.trim().to_owned());
        }
        ensure!(n > 0, "the application answers {text:?}");
    }
}

/// Shows the time from the first word of a switch to the last, less what its hooks ran.
fn overhead(board: &mut Board, site: &Site, switches: usize) -> Result<()> {
    let sightings = site.sightings()?;
    let at = |generation: u64, phase: &str| {
        let found = |s: &&Sighting| s.generation == generation && s.phase == phase;
        sightings.iter().find(found).map(|sighting| sighting.at)
    };
    let hooks = site.hooks();
    let ran = hooks.iter().filter_map(|line| {
        let (begun, ended) = line.split_once(' ')?;
        Some((ended.parse::<f64>().ok()? - begun.parse::<f64>().ok()?) * 1e3)
    });
    // The first order stops nothing: two hooks instead of three.
    let hooks_each = 3.0 * ran.sum::<f64>() / hooks.len() as f64;
    let mut took = Vec::new();
    // The first order installs; it has nothing to stop.
    for generation in 2..=switches as u64 + 1 {
        let begun = at(generation, "switching").context("a switch was not told")?;
        let ended = at(generation, "active").context("an end was not told")?;
        took.push((ended - begun).as_secs_f64() * 1e3 - hooks_each);
    }
    let (median, p99) = quantiles(&took);
    board.line(
        "  agent's time of a switch beyond its three hooks",
        &format!("median {median:.2} ms, p99 {p99:.2} ms"),
        "median < 10 ms",
        median < 10.0,
    );
    Ok(())
}

fn quantiles(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at =
        |share: f64| sorted.get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1)));
    (at(0.5).copied().unwrap_or(f64::NAN), at(0.99).copied().unwrap_or(f64::NAN))
}

/// Files of the tree.
const FILES: u64 = 3_900;
/// Those that change.
const CHANGED: [u64; 3] = [7, 1_300, 3_000];
/// Rounds, of which the median counts.
const ROUNDS: usize = 5;

/// Stages a large tree in which little has changed, beside copying it by links and writing what has changed.
pub(super) fn staging(board: &mut Board, _: &Stage) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut scene = Scene::empty(&demo_executable()?, &scratch.path().join("scene"))?;
    for version in ["old", "new"] {
        write_large(&scene.tree(version), version == "new")?;
    }
    scene.pack(&["old", "new"])?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let dir = scratch.path().join(format!("round-{round}"));
        let site = Site::open(&scene, &dir.join("disk"), &dir.join("evidence"))?;
        let calls = [Ask::Active("old").call(1, &scene), Ask::Staged("new").call(2, &scene)];
        let status = site.run(&scene, &calls)?;
        ensure!(status.success(), "{status}: {}", site.log());
        let sightings = site.sightings()?;
        let at = |phase: &str| sightings.iter().find(|s| s.generation == 2 && s.phase == phase).map(|s| s.at);
        let (begun, ended) = (at("fetching").context("not begun")?, at("staged").context("not staged")?);
        ours.push((ended - begun).as_secs_f64() * 1e3);
        // Nothing is removed between rounds: an ext4 that has just lost thousands of files makes new ones dear, whoever asks.
        theirs.push(copy_by_links(&scene, &dir)?);
    }
    let ((ours, _), (theirs, _)) = (quantiles(&ours), quantiles(&theirs));
    let figure = format!("{ours:.0} ms / {theirs:.0} ms = {:.2}x", ours / theirs);
    board.line(
        &format!("staging {FILES} files, of which 3 changed, beside cp -al"),
        &figure,
        "< 1.5x",
        ours < 1.5 * theirs,
    );
    Ok(())
}

fn write_large(root: &Path, is_new: bool) -> Result<()> {
    let files: Vec<(String, Vec<u8>, bool)> = (0..FILES)
        .map(|number| {
            let seed = if is_new && CHANGED.contains(&number) { number + FILES } else { number };
            let len = 1_000 + (number * 37 % 9_000) as usize;
            (format!("d{}/e{}/f{number}", number % 12, number % 60), noise(seed, len), false)
        })
        .collect();
    let files: Vec<(&str, Vec<u8>, bool)> =
        files.iter().map(|(path, bytes, executable)| (path.as_str(), bytes.clone(), *executable)).collect();
    write_tree(root, &files)
}

/// Returns the milliseconds that `cp -al` of the old tree and writing the files that changed take.
fn copy_by_links(scene: &Scene, dir: &Path) -> Result<f64> {
    let new = scene.tree("new");
    let paths = CHANGED.map(|number| format!("d{}/e{}/f{number}", number % 12, number % 60));
    let script =
        r#"cp -al "$OLD" "$COPY"; for f in $CHANGED; do rm "$COPY/$f"; cp "$NEW/$f" "$COPY/$f"; done"#;
    let changed = paths.join(" ");
    let (old, copy) = (scene.tree("old"), dir.join("copy"));
    let variables: &[(&str, &std::ffi::OsStr)] = &[
        ("OLD", old.as_os_str()),
        ("NEW", new.as_os_str()),
        ("COPY", copy.as_os_str()),
        ("CHANGED", changed.as_ref()),
    ];
    Ok(measure::shell(script, variables)?.1.wall_seconds() * 1e3)
}

//! Bad hooks: each is ended at its limit with everything it started, and the agent does not grow by what it does.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::stage::Stage;
use crate::faults::story::{Ask, Version};
use crate::faults::{Scene, Site};
use crate::lab::{memory_of, write_tree};
use crate::show::board::Board;
use crate::show::main_job::demo_executable;

const GROWTH_MAX: u64 = 16 << 20;
const MEBIBYTE: f64 = (1 << 20) as f64;
/// What the survivors of a hook would be: nothing else on a host sleeps so long.
const SLEEP: &str = "7654321";

struct Hook {
    version: Version,
    what: &'static str,
    script: String,
    ends: &'static str,
    /// Time limit and grace of the hook, and what the host takes to end what it left.
    limit: Duration,
}

pub(super) fn run(board: &mut Board, stage: &Stage) -> Result<()> {
    let (bytes, forks) = if stage.options.quick { ("1G", 300) } else { ("10G", 10_000) };
    let hook = |version, what, script: String, ends, seconds| Hook {
        version,
        what,
        script,
        ends,
        limit: Duration::from_secs(seconds),
    };
    let hooks = [
        hook(
            "hang",
            "hangs and ignores TERM",
            format!("trap '' TERM; sleep {SLEEP} & wait; sleep {SLEEP}"),
            "reverted",
            15,
        ),
        hook(
            "daemon",
            "daemonises, holding its output",
            format!("setsid sleep {SLEEP} & echo begun"),
            "active",
            5,
        ),
        hook("print", "prints without end", format!("head -c {bytes} /dev/zero"), "active", 60),
        // A process for each, as the kernel lets it have them; what it cannot start is its own trouble.
        hook(
            "fork",
            "forks",
            format!("i=0; while [ $i -lt {forks} ]; do sleep {SLEEP} & i=$((i+1)); done"),
            "active",
            60,
        ),
    ];
    let mut scene = Scene::empty(&demo_executable()?, &stage.place("hooks"))?;
    write_tree(&scene.tree("quiet"), &[("sluice.toml", Vec::new(), false)])?;
    for hook in &hooks {
        let timeout = if hook.version == "hang" { "1s" } else { "50s" };
        let spec = format!("[hooks.start]\ncommand = [\"/bin/sh\", \"hook.sh\"]\ntimeout = {timeout:?}\n");
        let files =
            [("sluice.toml", spec.into_bytes(), false), ("hook.sh", hook.script.clone().into_bytes(), false)];
        write_tree(&scene.tree(hook.version), &files)?;
    }
    scene.pack(&["quiet", "hang", "daemon", "print", "fork"])?;
    let quiet = play(&scene, &stage.place("hooks-quiet"), "quiet")?;
    for hook in hooks {
        let played = play(&scene, &stage.place(&format!("hooks-{}", hook.version)), hook.version)?;
        let figure =
            format!("{} in {:.1} s, {} survive", played.phase, played.took.as_secs_f64(), played.survivors);
        let bound = format!("{} within {} s, none", hook.ends, hook.limit.as_secs());
        let holds = played.phase == hook.ends && played.took <= hook.limit && played.survivors == 0;
        board.line(&format!("a hook that {}", hook.what), &figure, &bound, holds);
        let growth = played.peak_bytes.saturating_sub(quiet.peak_bytes);
        let figure = format!("{:.1} MiB", growth as f64 / MEBIBYTE);
        board.line(
            "  growth of the agent",
            &figure,
            "<= 16 MiB",
            growth <= GROWTH_MAX && played.peak_bytes > 0,
        );
    }
    Ok(())
}

/// What became of a release with such a hook.
struct Played {
    phase: String,
    took: Duration,
    survivors: usize,
    peak_bytes: u64,
}

fn play(scene: &Scene, dir: &Path, version: Version) -> Result<Played> {
    let site = Site::open(scene, &dir.join("disk"), &dir.join("evidence"))?;
    let begun = Instant::now();
    let calls = match version {
        "quiet" => vec![Ask::Active(version).call(1, scene)],
        _ => vec![Ask::Active("quiet").call(1, scene), Ask::Active(version).call(2, scene)],
    };
    let mut agent = site.start(scene, &calls)?;
    let mut peak_bytes = 0;
    while agent.try_wait()?.is_none() {
        // Gone between the two looks, it has told enough before.
        peak_bytes = memory_of(agent.id()).map_or(peak_bytes, |memory| memory.resident_peak.max(peak_bytes));
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = begun.elapsed();
    let last = site.sightings()?.pop().with_context(|| format!("nothing was told: {}", site.log()))?;
    Ok(Played { phase: last.phase, took, survivors: survivors()?, peak_bytes })
}

/// Counts the processes that sleep as only hooks here do, and ends them.
fn survivors() -> Result<usize> {
    let mut count = 0;
    for entry in fs_err::read_dir("/proc")? {
        let command = fs_err::read(entry?.path().join("cmdline")).unwrap_or_default();
        count += usize::from(command == format!("sleep\0{SLEEP}\0").as_bytes());
    }
    Ok(count)
}

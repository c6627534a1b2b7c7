//! Rehearses an agent without a coordinator: one process that carries out the orders on its command line with the real
//! engine on the real disk, and ends. Fault tests kill it, fail its system calls and cut its power.
//!
//! What it shows the outside goes to a file of [`Sighting`]s, which stands where no fault strikes: what a coordinator has
//! been told must hold after any of them. Content comes from a [`store`], orders are signed here. Nothing of it is
//! reachable from the agent's own command line.

pub mod store;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use sluice_common::digest::Digest;
use sluice_common::keys::SecretKey;
use sluice_common::name::{AppName, Platform, Version};
use sluice_common::order::{Desired, Generation, Order, Stage};
use sluice_common::release::Release;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::config::Config;
use crate::daemon;
use crate::engine::Engine;
use crate::planner::Step;
use store::Store;

/// The application of every rehearsal.
pub const APP: &str = "shop";
/// Steps in a row that may fail before the rehearsal gives up; an agent would go on trying.
const FAILURES_MAX: u32 = 3;
/// Time after which a rehearsal gives up, whatever it waits for: many times what the longest takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time after which it is stuck.
const STUCK: Duration = Duration::from_secs(90);
/// Status of a rehearsal that gave up.
pub const GAVE_UP: u8 = 3;

/// What the agent has told the outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Since the host was booted.
    pub at: Duration,
    /// The order's generation.
    pub generation: u64,
    /// The phase, in a word.
    pub phase: String,
    /// The version that `current` leads to.
    pub current: Option<String>,
    /// Why the order failed or went back.
    pub reason: Option<String>,
}

/// An order on the command line: `GENERATION:staged|active:VERSION:PACKAGE` or `GENERATION:absent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The generation.
    pub generation: u64,
    /// The release and how far it goes; nothing for none.
    pub release: Option<(Stage, Version, Digest)>,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.release {
            Some((stage, version, package)) => {
                let stage = serde_json::to_value(stage).map_err(|_| std::fmt::Error)?;
                let stage = stage.as_str().unwrap_or_default();
                write!(f, "{}:{stage}:{version}:{}", self.generation, package.to_hex())
            }
            None => write!(f, "{}:absent", self.generation),
        }
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let number = |text: &str| text.parse().map_err(|error| format!("generation {text:?}: {error}"));
        match parts[..] {
            [generation, "absent"] => Ok(Self { generation: number(generation)?, release: None }),
            [generation, stage, version, package] => {
                let stage = serde_json::from_value(stage.into()).map_err(|error| error.to_string())?;
                let version = version.parse().map_err(|error| format!("version {version:?}: {error}"))?;
                let package = format!("sha256:{package}");
                let package = package.parse().map_err(|error| format!("package {package:?}: {error}"))?;
                Ok(Self { generation: number(generation)?, release: Some((stage, version, package)) })
            }
            _ => Err("write GENERATION:staged|active:VERSION:PACKAGE or GENERATION:absent".into()),
        }
    }
}

#[derive(Debug, Parser)]
#[command(name = "rehearse")]
struct Arguments {
    /// The agent's configuration.
    #[arg(long)]
    config: PathBuf,
    /// Where content comes from.
    #[arg(long)]
    store: PathBuf,
    /// The key that orders are signed with.
    #[arg(long)]
    key: PathBuf,
    /// Where sightings are appended.
    #[arg(long)]
    sightings: PathBuf,
    /// What is done to the host the moment a phase is told for the first time.
    #[arg(long, value_name = "PHASE:COMMAND")]
    trouble: Option<Trouble>,
    /// What is ordered, in turn.
    calls: Vec<Call>,
}

/// A line of shell, and the phase at whose telling it is run.
#[derive(Debug, Clone)]
struct Trouble {
    phase: String,
    line: String,
}

impl FromStr for Trouble {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (phase, line) = text.split_once(':').ok_or("write PHASE:COMMAND")?;
        Ok(Self { phase: phase.to_owned(), line: line.to_owned() })
    }
}

impl Trouble {
    fn make(&self) -> anyhow::Result<()> {
        let status = Command::new("/bin/sh").args(["-c", &self.line]).status()?;
        if !status.success() {
            bail!("{:?} ended with {status}", self.line);
        }
        Ok(())
    }
}

/// Runs a rehearsal with the given arguments, the program's name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = Arguments::parse_from(args);
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false);
    // Only the first log of a process counts, and this is it.
    let _ = log.try_init();
    // One blocking thread, which stays: the system calls of one run are numbered like those of the next.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .thread_keep_alive(Duration::from_secs(3_600))
        .build();
    // A runtime whose own wakes fail does not come to its time limit.
    std::thread::spawn(|| {
        std::thread::sleep(STUCK);
        // Nothing is left to do where a process may not signal itself.
        let _ = kill_process(getpid(), Signal::ABORT);
    });
    let ended = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(rehearse(arguments)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever rehearses a broken pipe has lost interest in the reason.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(GAVE_UP)
        }
    }
}

async fn rehearse(arguments: Arguments) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config)?;
    let key = SecretKey::load(&arguments.key)?;
    let board = Board::default();
    let host = Arc::new(daemon::host(&config, Store::new(&arguments.store), board.clone()));
    let file = fs_err::OpenOptions::new().append(true).create(true).open(&arguments.sightings)?;
    let app: AppName = APP.parse()?;
    let mut witness =
        Witness { app: app.clone(), file: file.into_parts().0, last: None, trouble: arguments.trouble };
    let (monitored, _) = watch::channel(None);
    let acted = async {
        let mut failures = 0;
        let mut engine = Engine::open(app, host, monitored).await?;
        for call in &arguments.calls {
            obey(&mut engine, &order(call, &key)?, &mut failures).await?;
        }
        if arguments.calls.is_empty() {
            drive(&mut engine, &mut failures).await?;
        }
        anyhow::Ok(())
    };
    let mut seen = board.watch();
    let watched = async {
        while seen.changed().await.is_ok() {
            witness.look(&board)?;
        }
        anyhow::Ok(())
    };
    let result = tokio::select! {
        acted = acted => acted,
        watched = watched => watched,
        () = tokio::time::sleep(PATIENCE) => Err(anyhow::anyhow!("nothing came of it in {PATIENCE:?}")),
    };
    witness.look(&board)?;
    result
}

async fn obey(engine: &mut Engine<Store>, order: &Order, failures: &mut u32) -> anyhow::Result<()> {
    while let Err(error) = engine.take(order.clone()).await {
        count(failures, error)?;
    }
    drive(engine, failures).await
}

/// Performs steps until there is nothing to do.
async fn drive(engine: &mut Engine<Store>, failures: &mut u32) -> anyhow::Result<()> {
    let token = CancellationToken::new();
    loop {
        let step = match engine.next().await {
            Ok(Step::Rest(_)) => return Ok(()),
            Ok(step) => step,
            Err(error) => {
                count(failures, error)?;
                continue;
            }
        };
        match engine.perform(step, &token).await {
            Ok(()) => *failures = 0,
            Err(error) => count(failures, error)?,
        }
    }
}

/// Counts a step that failed; gives up where an agent would have tried for a while.
fn count(failures: &mut u32, error: io::Error) -> anyhow::Result<()> {
    tracing::error!(%error, "step failed; it is tried again");
    *failures += 1;
    if *failures >= FAILURES_MAX {
        bail!("{error}, for the {failures}th time in a row");
    }
    Ok(())
}

fn order(call: &Call, key: &SecretKey) -> anyhow::Result<Order> {
    let app: AppName = APP.parse()?;
    let desired = match &call.release {
        Some((stage, version, package)) => {
            let packages = [(Platform::any(), *package)].into();
            let release =
                Release { app: app.clone(), version: version.clone(), packages, notes: String::new() };
            Desired::Release { stage: *stage, release: release.sign(key)?, package: *package }
        }
        None => Desired::Absent,
    };
    let rollout = format!("r{}", call.generation).parse()?;
    let ttl = Duration::from_secs(900);
    let generation = Generation(call.generation);
    let needs = std::collections::BTreeMap::new();
    Ok(Order { app, generation, rollout, desired, ttl, confirmed: false, migrates: true, needs })
}

/// Writes down what the board shows.
struct Witness {
    app: AppName,
    file: File,
    last: Option<Sighting>,
    trouble: Option<Trouble>,
}

impl Witness {
    fn look(&mut self, board: &Board) -> anyhow::Result<()> {
        let Some(report) = board.watch().borrow_and_update().get(&self.app).cloned() else { return Ok(()) };
        let sighting = Sighting {
            at: since_boot()?,
            generation: report.generation.0,
            phase: report.phase.as_str().to_owned(),
            current: report.current.map(|installed| installed.version.to_string()),
            reason: report.reason,
        };
        let same = |last: &Sighting| Sighting { at: last.at, ..sighting.clone() } == *last;
        if self.last.as_ref().is_some_and(same) {
            return Ok(());
        }
        if let Some(trouble) = self.trouble.take_if(|trouble| trouble.phase == sighting.phase) {
            trouble.make()?;
        }
        let line = serde_json::to_string(&sighting)? + "\n";
        // By another system call than the agent writes with, so that faults of that one leave it alone.
        let written = self.file.write_vectored(&[IoSlice::new(line.as_bytes())])?;
        if written != line.len() {
            bail!("a sighting was cut off");
        }
        self.last = Some(sighting);
        Ok(())
    }
}

/// Returns the time since the host was booted, finer than [`crate::clock`] keeps it.
pub fn since_boot() -> anyhow::Result<Duration> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Ok(Duration::new(u64::try_from(now.tv_sec)?, u32::try_from(now.tv_nsec)?))
}

/// Reads the sightings that a rehearsal has written.
pub fn sightings(path: &std::path::Path) -> anyhow::Result<Vec<Sighting>> {
    let text = match fs_err::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    // A kill may have come in the middle of the last line.
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).with_context(|| format!("sighting {line:?}"))).collect()
}

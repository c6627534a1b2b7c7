//! `sluice-demo`: the main job in one command.
//!
//! A coordinator, agents in two sites and an operator start on loopback. Version 1 of a small web application
//! rolls out, version 2 follows by canary and batches, version 3 answers its health check wrongly and is rolled
//! back by itself, all under steady requests. With `--tree` it rolls out given directories instead.

mod application;
mod load;
mod plan;
mod summary;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use crate::lab::{AgentOptions, Lab, Process, end_all};
use crate::role::Role;
use load::{Count, Load};
use plan::{DemoRelease, RolloutOptions};
use summary::RolloutSummary;

/// Deploys releases to a small fleet on this machine, and shows what happened.
#[derive(Parser, Debug)]
#[command(name = "sluice-demo", version, after_help = AFTER_HELP)]
pub struct Args {
    /// How many hosts, in two sites.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=200))]
    hosts: u16,
    /// Rolls out this directory; given twice or more, one after the other. No web application then.
    #[arg(long = "tree", value_name = "DIR")]
    trees: Vec<PathBuf>,
    /// Limits what each agent receives, as in 20Mbit/s.
    #[arg(long, value_name = "RATE")]
    limit: Option<sluice_common::units::ByteRate>,
    /// Keeps all state under DIR, host by host in DIR/hosts/NAME; it stays there at the end.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Leaves everything running at the end, until ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Prints one JSON object last, and nothing else on standard output.
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "Examples:
  sluice-demo                                  the whole story in half a minute
  sluice-demo --tree old --tree new --hosts 4  two directories of yours, one after the other
  sluice-demo --limit 20Mbit/s --data state    paced, and everything left to look at";

const SITES: [&str; 2] = ["berlin", "lisbon"];

/// Runs the demonstration; the entry point of the binary.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let json = args.json;
    match watch_for_interrupt().and_then(|()| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            end_all();
            eprintln!("error: {error:#}");
            if json {
                println!("{}", serde_json::json!({ "error": format!("{error:#}") }));
            }
            ExitCode::FAILURE
        }
    }
}

/// The directory of this run while it is a temporary one: what ctrl-C has to remove.
static TEMPORARY: std::sync::Mutex<Option<PathBuf>> = std::sync::Mutex::new(None);

/// Ends everything this program started, and removes its directory, when a person interrupts it.
fn watch_for_interrupt() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("interrupt".into()).spawn(move || {
        if runtime.block_on(interrupted()).is_ok() {
            eprintln!("\ninterrupted: ending everything");
            end_all();
            if let Some(dir) = TEMPORARY.lock().ok().and_then(|mut dir| dir.take()) {
                // What cannot be removed now is in the system's temporary directory.
                let _ = fs_err::remove_dir_all(dir);
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "the main thread may be waiting; everything is ended already"
            )]
            std::process::exit(130);
        }
    })?;
    Ok(())
}

async fn interrupted() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt,
        _ = terminate.recv() => Ok(()),
    }
}

fn run(args: &Args) -> Result<()> {
    for tree in &args.trees {
        ensure!(tree.is_dir(), "--tree {}: it is not a directory", tree.display());
    }
    let (dir, temporary) = match &args.data {
        Some(dir) => (prepare_data(dir)?, None),
        None => {
            let temporary = tempfile::Builder::new().prefix("sluice-demo-").tempdir()?;
            *TEMPORARY.lock().expect("no holder panics") = Some(temporary.path().to_owned());
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let begun = Instant::now();
    let mut demo = Demo::start(args, &dir)?;
    let summaries = demo.roll_out_all()?;
    demo.report(&summaries, begun)?;
    if args.keep {
        demo.stay()?;
    }
    demo.end()?;
    drop(temporary);
    Ok(())
}

fn prepare_data(dir: &Path) -> Result<PathBuf> {
    fs_err::create_dir_all(dir)?;
    if fs_err::read_dir(dir)?.next().is_some() {
        bail!("--data {}: the directory is not empty; name a new one", dir.display());
    }
    Ok(fs_err::canonicalize(dir)?)
}

/// A running demonstration.
struct Demo<'a> {
    args: &'a Args,
    lab: Lab,
    web: Vec<Process>,
    load: Option<Load>,
    releases: Vec<DemoRelease>,
}

impl<'a> Demo<'a> {
    fn start(args: &'a Args, dir: &Path) -> Result<Self> {
        let executable = std::env::current_exe().context("cannot find this executable")?;
        let with_web = args.trees.is_empty();
        say(args, &format!("starting a coordinator and {} agents in {}", args.hosts, dir.display()));
        let mut demo = Self {
            args,
            lab: Lab::start(&executable, dir)?,
            web: Vec::new(),
            load: None,
            releases: Vec::new(),
        };
        let ports = if with_web { free_ports(args.hosts)? } else { Vec::new() };
        for number in 0..args.hosts {
            let site = SITES[usize::from(number) % SITES.len()];
            let name = format!("{site}-{}", usize::from(number) / SITES.len() + 1);
            let mut options =
                AgentOptions { limit: args.limit.map(|limit| limit.to_string()), ..Default::default() };
            if let Some(port) = ports.get(usize::from(number)) {
                options.variables.push((application::NAME.to_owned(), "PORT".to_owned(), port.to_string()));
            }
            demo.lab.add_host(&name, site, options)?;
            if let Some(port) = ports.get(usize::from(number)) {
                demo.start_web(&executable, &name, *port)?;
            }
        }
        demo.lab.wait_connected()?;
        if with_web {
            demo.load = Some(Load::start(ports)?);
            demo.releases = application::releases(&dir.join("releases"))?;
        } else {
            demo.releases = plan::given(&args.trees);
        }
        Ok(demo)
    }

    fn start_web(&mut self, executable: &Path, name: &str, port: u16) -> Result<()> {
        let host_dir = self.lab.dir().join("hosts").join(name);
        let mut command = Role::Web.command(executable);
        command.arg("--root").arg(host_dir.join("srv").join(application::NAME).join("current"));
        command.arg("--port").arg(port.to_string());
        self.web.push(Process::start("web", command, &host_dir.join("web.log"))?);
        Ok(())
    }

    fn roll_out_all(&mut self) -> Result<Vec<RolloutSummary>> {
        let mut summaries = Vec::new();
        for release in &self.releases {
            summaries.push(self.roll_out(release)?);
        }
        Ok(summaries)
    }

    fn roll_out(&self, release: &DemoRelease) -> Result<RolloutSummary> {
        let DemoRelease { app, version, tree, story, succeeds } = release;
        say(self.args, &format!("\n{app} {version}: {story}"));
        self.lab.release(app, version, tree)?;
        let before = self.requests();
        let (code, messages) = self.start_and_watch(release)?;
        let after = self.requests();
        let rollout = self.lab.operator().newest_rollout(app)?.context("the coordinator knows no rollout")?;
        let as_meant = (code == 0) == *succeeds && rollout.version == *version;
        ensure!(as_meant, "{app} {version} ended with exit code {code}: {}\n{messages}", rollout.reason);
        let count =
            Count { requests: after.requests - before.requests, failed: after.failed - before.failed };
        let summary = RolloutSummary::new(&rollout, tree, count)?;
        if !self.is_watched() {
            say(self.args, &summary.sentence());
        }
        Ok(summary)
    }

    /// Runs the command line's own rollout to its end; returns its exit code, and its messages where nobody saw them.
    fn start_and_watch(&self, release: &DemoRelease) -> Result<(i32, String)> {
        let arguments = RolloutOptions::of(release).arguments(release);
        if self.is_watched() {
            return Ok((self.lab.operator().watch(&arguments)?, String::new()));
        }
        let output = self.lab.operator().try_run(&arguments)?;
        Ok((output.code, output.stderr))
    }

    /// Says whether a person watches: the command line then shows its own live view.
    fn is_watched(&self) -> bool {
        !self.args.json && std::io::stderr().is_terminal()
    }

    fn requests(&self) -> Count {
        self.load.as_ref().map(Load::count).unwrap_or_default()
    }

    fn report(&self, summaries: &[RolloutSummary], begun: Instant) -> Result<()> {
        let hosts = self.lab.operator().hosts()?;
        if self.args.json {
            println!("{}", summary::json(summaries)?);
            return Ok(());
        }
        println!("\n{}", summary::rollouts_table(summaries, self.load.is_some()));
        println!("\n{}", summary::hosts_table(&hosts));
        if let Some(load) = &self.load
            && let Some(error) = load.first_error()
        {
            println!("\nfirst failed request: {error}");
        }
        println!("\n{} rollouts in {:.1} s", summaries.len(), begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Leaves everything running until the process is interrupted.
    fn stay(&self) -> Result<()> {
        let executable = self.lab.executable().display();
        let home = self.lab.dir().join("operator");
        eprintln!("\nstill running; the command line speaks to it as");
        eprintln!("  {executable} role sluice --home {} host list", home.display());
        eprintln!(
            "the hosts' trees are under {}; ctrl-C ends everything",
            self.lab.dir().join("hosts").display()
        );
        loop {
            std::thread::park();
        }
    }

    fn end(mut self) -> Result<()> {
        drop(self.load.take());
        for web in std::mem::take(&mut self.web) {
            web.kill()?;
        }
        self.lab.stop()
    }
}

/// Tells a person what happens; says nothing where a program listens.
fn say(args: &Args, line: &str) {
    if !args.json {
        eprintln!("{line}");
    }
}

/// Asks the system for so many ports on loopback that nobody uses.
fn free_ports(count: u16) -> Result<Vec<u16>> {
    // All are held until all are known, so that none is given twice.
    let listeners =
        (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

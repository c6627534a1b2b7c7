//! The service `sluice-coordinator`: its command line, configuration, start and stop.
//!
//! Everything is parsed before anything is opened, and opened before the socket is bound; what was started is joined
//! at the stop. `serve` owns its data directory by a lock, so that two coordinators never share one.
//!
//! | part | owns |
//! |---|---|
//! | [`config`] | flags and `coordinator.toml` |
//! | [`data`] | the data directory: modes, lock, `DATA/address` |
//! | `forecast` | what the fleet has and will want, for the planning of transfers |
//! | `surroundings` | what forecasts of rollouts ask of the fleet and of the depot |
//! | [`serve`] | start, wiring, stop |

pub mod config;
pub mod data;
mod forecast;
pub mod serve;
mod surroundings;
mod token;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use sluice_common::allocator;
use sluice_common::identity::Role;
use sluice_common::name::OperatorName;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use config::{Config, ServeFlags};
use data::DataDir;

/// The Sluice coordinator: keeps the fleet's desired state, serves content, drives rollouts.
#[derive(Debug, Parser)]
#[command(name = "sluice-coordinator", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    log: LogFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct LogFlags {
    /// What to log: error, warn, info, debug, or a filter such as info,sluice_coordinator::rollout=debug
    #[arg(long, value_name = "FILTER", env = "SLUICE_LOG", default_value = "info", global = true)]
    log: String,
    /// Log one JSON object a line
    #[arg(long, global = true)]
    log_json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service until SIGTERM or ctrl-C
    Serve(ServeFlags),
    /// Make a join token for an operator, on the coordinator's own machine; prints it
    Token(TokenFlags),
}

#[derive(Debug, Args)]
struct TokenFlags {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Name of the new operator
    #[arg(long, value_name = "NAME")]
    operator: OperatorName,
    /// viewer, deployer, approver or admin
    #[arg(long, value_name = "ROLE", default_value = "admin")]
    role: Role,
}

/// Runs the program and returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            // Nothing can be said when even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    // Whatever this process makes is its own, unless it says otherwise.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if !allocator::give_back_what_is_freed(allocator::COORDINATOR) {
        tracing::warn!("the allocator refuses a bound; memory may stay taken after large transfers");
    }
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    init_logging(&cli.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the async runtime")?;
    match cli.command {
        Command::Serve(flags) => {
            let config = Config::load(flags)?;
            runtime.block_on(serve_until_signal(&config))
        }
        Command::Token(TokenFlags { data, operator, role }) => {
            runtime.block_on(token::create(&data, operator, role))
        }
    }
}

/// Logs to stderr; stdout is for data.
fn init_logging(flags: &LogFlags) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&flags.log)
        .with_context(|| format!("--log {:?} is not a log filter; write for example info", flags.log));
    let (filter, broken) = match filter {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let format = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second run in one process keeps the first one's log.
    let _ = if flags.log_json { format.json().try_init() } else { format.try_init() };
    broken.map_or(Ok(()), Err)
}

async fn serve_until_signal(config: &Config) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let data = DataDir::open(&config.data)?;
    let stop = CancellationToken::new();
    let mut coordinator = serve::start(config, data, stop.clone()).await?;
    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        ended = coordinator.ended() => {
            stop.cancel();
            coordinator.stopped().await?;
            return ended;
        }
    };
    tracing::info!(signal, "stopping");
    stop.cancel();
    coordinator.stopped().await
}

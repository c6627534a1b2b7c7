//! The command line of `sluice-agent`.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use sluice_common::allocator;
use sluice_common::name::{AppName, HostName};
use sluice_common::units::ByteRate;
use sluice_proto::transport::client::Address;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{self, Config};
use crate::daemon::Ended;
use crate::enroll::Enrolment;
use crate::layout::AppDir;
use crate::update::guard;
use crate::{daemon, enroll, fsck, status};

/// Blocking threads: one stages or verifies, one serves small disk work beside it.
const BLOCKING_THREADS_MAX: usize = 4;
/// Stack of a blocking thread: the deepest user is the walk of a tree of 64 levels.
const THREAD_STACK_BYTES: usize = 512 * 1024;

/// The Sluice host daemon.
#[derive(Debug, Parser)]
#[command(name = "sluice-agent", version, about)]
struct Arguments {
    /// What to log, as in `info` or `sluice_agent=debug`.
    #[arg(long, env = "SLUICE_LOG", default_value = "info", global = true, value_name = "FILTER")]
    log: String,
    /// Log as JSON, a line each.
    #[arg(long, global = true)]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enrol this host: make its key, get its certificate, write a first configuration.
    Enroll(EnrollArguments),
    /// Run the agent.
    Run {
        #[command(flatten)]
        config: ConfigArgument,
        /// Limit the content connection, as in 8Mbit/s; overrides the configuration.
        #[arg(long, value_name = "RATE")]
        limit: Option<ByteRate>,
    },
    /// Become the agent that is to run: what the host's unit runs, so that the agent can be updated like an application.
    Guard {
        #[command(flatten)]
        config: ConfigArgument,
        /// Limit the content connection, as in 8Mbit/s; overrides the configuration.
        #[arg(long, value_name = "RATE")]
        limit: Option<ByteRate>,
    },
    /// Show what stands on this host, whether the agent runs or not.
    Status {
        #[command(flatten)]
        config: ConfigArgument,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Keep the application of DIR running; the agent starts this by itself.
    #[command(hide = true)]
    Supervise {
        /// The application's directory of the supervisor.
        dir: PathBuf,
    },
    /// Check what stands on this host byte by byte; exits with 1 when something is wrong.
    Fsck {
        #[command(flatten)]
        config: ConfigArgument,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct ConfigArgument {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct EnrollArguments {
    /// The coordinator, HOST or HOST:PORT.
    #[arg(long, value_name = "ADDRESS")]
    coordinator: Address,
    /// The file that holds the join token; - for standard input; SLUICE_TOKEN otherwise.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The name to enrol as; the host's own otherwise.
    #[arg(long)]
    name: Option<HostName>,
    /// A label that this host claims, KEY=VALUE; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// The public key of release engineers whose releases may run here; may be repeated.
    #[arg(long, value_name = "FILE.pub")]
    trust: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
    /// State and identity.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The applications.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("write KEY=VALUE, as in role=web".into()),
    }
}

/// Runs `sluice-agent` with the given arguments, the program's name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors and go to stdout; clap knows.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match begin_log(&arguments).and_then(|()| dispatch(arguments.command)) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin_log(arguments: &Arguments) -> anyhow::Result<()> {
    // Levels by target, without the patterns of an `EnvFilter`: these bring an engine of regular expressions along, which an
    // idle agent would hold in memory.
    let filter: Targets = arguments.log.parse().with_context(|| {
        format!("--log {:?} is no filter; write info or sluice_agent=debug", arguments.log)
    })?;
    let log = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // Tests start several agents in one process: the first one's log serves all.
    let _ = match arguments.log_json {
        true => log.json().finish().with(filter).try_init(),
        false => log.with_ansi(is_terminal).finish().with(filter).try_init(),
    };
    Ok(())
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run { config: ConfigArgument { config }, limit } => {
            let mut config = Config::load(&config)?;
            config.limit = limit.or(config.limit);
            if !allocator::give_back_what_is_freed(allocator::AGENT) {
                tracing::warn!("the allocator refuses a bound; memory may stay taken after large transfers");
            }
            if runtime()?.block_on(daemon::run(config))? == Ended::GivesWay {
                return Err(guard::give_way(std::env::args_os().skip(1)).into());
            }
        }
        Command::Guard { config: ConfigArgument { config }, limit: _ } => {
            return Err(guard::run(&config, std::env::args_os().skip(1)));
        }
        Command::Enroll(arguments) => {
            let EnrollArguments { coordinator, token_file, name, labels, trust, config, data, root } =
                arguments;
            let config = config.config;
            let enrolment = Enrolment { coordinator, token_file, name, labels, trust, config, data, root };
            let host = runtime()?.block_on(enroll::enroll(enrolment))?;
            print(&format!("enrolled as {host}\n"))?;
        }
        Command::Supervise { dir } => runtime()?.block_on(crate::actions::run_supervisor(&dir))?,
        Command::Status { config: ConfigArgument { config }, json } => {
            let config = Config::load(&config)?;
            let host = status::read(&config.data, &config.root)?;
            let text = match json {
                true => serde_json::to_string(&host)? + "\n",
                false => status::text(&host, jiff::Timestamp::now()),
            };
            print(&text)?;
        }
        Command::Fsck { config: ConfigArgument { config }, json } => {
            return fsck_host(&Config::load(&config)?, json);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks every application of the host, and prints what is wrong.
fn fsck_host(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let (rules, is_running) = (daemon::rules(config), status::is_agent_running(&config.data));
    let mut findings: Vec<(Option<AppName>, fsck::Finding)> = Vec::new();
    findings.extend(fsck::check_directories(&config.data, &config.root).map(|finding| (None, finding)));
    let apps = status::applications(&config.root)?;
    findings.extend(fsck::check_locks(&config.data, &apps).into_iter().map(|finding| (None, finding)));
    let agent = fsck::agent(&config.data);
    for app in apps {
        let dir = AppDir::new(&config.root, &app);
        let of_order = fsck::check_order(&app, &dir, &rules, is_running);
        let of_hooks = fsck::check_hooks(&dir, agent);
        let found = fsck::check_disk(&dir)?.into_iter().chain(of_order).chain(of_hooks);
        findings.extend(found.map(|finding| (Some(app.clone()), finding)));
    }
    let mut text = String::new();
    for (app, finding) in &findings {
        if json {
            let value = serde_json::json!({ "app": app, "finding": finding });
            text.push_str(&format!("{value}\n"));
        } else {
            let whose = app.as_ref().map_or("agent", AppName::as_str);
            text.push_str(&format!("{whose}: {finding}\n"));
        }
    }
    print(&text)?;
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes data to stdout; a reader that has gone is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes a small runtime: one thread, and a few more while there is disk work.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_stack_size(THREAD_STACK_BYTES)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .build()?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        let parse = |text: &str| Arguments::try_parse_from(text.split(' '));
        assert!(parse("sluice-agent run --limit 8Mbit/s --config /x --log debug").is_ok());
        assert!(
            parse("sluice-agent enroll --coordinator c:1 --token-file - --label role=web --label a=b")
                .is_ok()
        );
        assert!(parse("sluice-agent enroll --coordinator c:1 --label role").is_err());
        assert!(parse("sluice-agent run --limit 8").is_err());
    }
}

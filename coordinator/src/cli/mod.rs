//! The command line `sluice`: parses, does the local work, speaks gRPC for the rest, prints.
//!
//! It knows the coordinator through `sluice_proto` only, never through the server's own modules. Data goes to stdout,
//! everything else to stderr; errors are printed in one place (`run`), by `error::render`.
//!
//! | module | owns |
//! |---|---|
//! | `args` | what can be typed |
//! | `home`, `connect`, `identity` | the operator's identity and the connection |
//! | `key`, `package`, `release` | local work: keys, packing, signing |
//! | `push` | the upload of a package |
//! | `rollout`, `watch` | rollouts and how they are followed |
//! | `past` | what ran where and when |
//! | `notify` | who is told of what rollouts do |
//! | `plan_view`, `simulate` | what a rollout would do, and how it may go |
//! | `fleet`, `token`, `audit` | hosts, sites, operators, tokens, the audit log |
//! | `env` | environments: the fleet as one file |
//! | `depot` | what the coordinator keeps |
//! | `view` | the JSON shapes |
//! | `output`, `progress`, `error`, `exit` | how it is told |

mod app;
mod args;
mod audit;
mod connect;
mod depot;
mod env;
mod error;
mod exit;
mod fleet;
mod home;
mod identity;
mod key;
mod notify;
mod output;
mod package;
mod pages;
mod past;
mod plan_view;
mod progress;
mod push;
mod release;
mod rollout;
mod simulate;
mod token;
mod view;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use sluice_common::allocator;
use sluice_proto::transport::client::Address;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command, Global};
use connect::Coordinator;
use exit::Exit;
use home::Home;
use output::{Closed, Output};

/// What every command is given.
struct Context {
    home: Home,
    output: Output,
    coordinator: Option<Address>,
}

impl Context {
    async fn connect(&self) -> anyhow::Result<Coordinator> {
        self.connect_to(None).await
    }

    async fn connect_to(&self, address: Option<&Address>) -> anyhow::Result<Coordinator> {
        Coordinator::connect(&self.home, address.or(self.coordinator.as_ref())).await
    }
}

/// Runs the command line and returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, on stdout; everything else is a usage error, on stderr.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Success.into() };
        }
    };
    if !allocator::give_back_what_is_freed(allocator::COORDINATOR) {
        tracing::warn!("the allocator refuses a bound; memory may stay taken after large transfers");
    }
    match start(cli) {
        Ok(exit) => exit.into(),
        Err(error) if error.is::<Closed>() => Exit::Success.into(),
        Err(error) => {
            Output::new(false, true).note(error::render(&error));
            Exit::Error.into()
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { global, command } = cli;
    log(&global)?;
    let output = Output::new(global.json, global.no_progress);
    let context = Context { home: Home::new(global.home)?, output, coordinator: global.coordinator };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(dispatch(&context, command));
    // Work on blocking threads that nobody waits for any more must not hold up the end.
    runtime.shutdown_background();
    done
}

async fn dispatch(context: &Context, command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Login(args) => identity::login(context, args).await,
        Command::Whoami => identity::whoami(context, None).await,
        Command::Key(command) => key::run(context, command),
        Command::Package(command) => package::run(context, command).await,
        Command::Release(command) => release::run(context, command).await,
        Command::Rollout(command) => rollout::run(context, command).await,
        Command::Simulate(args) => simulate::run(context, *args).await,
        Command::App(command) => app::run(context, command).await,
        Command::Env(command) => env::run(context, command).await,
        Command::Host(command) => fleet::host(context, command).await,
        Command::Site(command) => fleet::site(context, command).await,
        Command::Operator(command) => fleet::operator(context, command).await,
        Command::Notify(command) => notify::run(context, command).await,
        Command::Token(command) => token::run(context, command).await,
        Command::Depot(command) => depot::run(context, command).await,
        Command::Audit(command) => audit::run(context, command).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut script);
            context.output.raw(&String::from_utf8(script)?)?;
            Ok(Exit::Success)
        }
    }
}

fn log(global: &Global) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&global.log).with_context(|| {
        error::context(format!("{:?} is no log filter", global.log), "write a level such as debug")
    })?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second run in one process, as in tests, keeps the first subscriber.
    let _ = if global.log_json {
        subscriber.json().try_init()
    } else {
        subscriber.with_ansi(Output::new(false, false).has_color()).try_init()
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes_never_change() {
        let table = [
            (Exit::Success, 0),
            (Exit::Error, 1),
            (Exit::Usage, 2),
            (Exit::RolledBack, 3),
            (Exit::Unfinished, 4),
            (Exit::TimedOut, 5),
            (Exit::Changes, 1),
            (Exit::Unanswered, 255),
            (Exit::Detached, 130),
        ];
        for (exit, code) in table {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }
}

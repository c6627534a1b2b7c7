//! The command line of Sluice.

fn main() -> std::process::ExitCode {
    sluice_coordinator::cli::run(std::env::args_os())
}

//! The coordinator service.

fn main() -> std::process::ExitCode {
    sluice_coordinator::service::run(std::env::args_os())
}

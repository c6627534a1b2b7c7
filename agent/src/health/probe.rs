//! Asks one health check once.

use sluice_common::spec::{HealthCheck, Probe, expand};
use sluice_common::units::format_duration;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{Subject, http};
use crate::hook::{self, Call, End, shorten};

/// Most characters of a command's output in a complaint.
const OUTPUT_MAX: usize = 500;

/// Asks `check` of `subject`; the error says what was wrong. Bounded by the check's time limit.
pub(super) async fn ask(subject: &Subject, check: &HealthCheck) -> Result<(), String> {
    let fill = |text: &str| {
        expand(text, &subject.environment)
            .map_err(|name| format!("health check needs the variable {name}; set it in agent.toml"))
    };
    match &check.probe {
        Probe::Http { url, status, contains } => {
            let url = fill(url)?;
            let contains = contains.as_deref().map(fill).transpose()?;
            let asked = http::get(&url, *status, contains.as_deref());
            let limited = tokio::time::timeout(check.timeout, asked).await;
            limited
                .unwrap_or_else(|_| Err(format!("no answer within {}", format_duration(check.timeout))))
                .map_err(|reason| format!("{url}: {reason}"))
        }
        Probe::Tcp { address } => {
            let address = fill(address)?;
            match tokio::time::timeout(check.timeout, TcpStream::connect(&address)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(format!("{address}: {error}")),
                Err(_) => Err(format!("{address}: no connection within {}", format_duration(check.timeout))),
            }
        }
        Probe::Command { command } => ask_command(subject, check, command).await,
    }
}

async fn ask_command(subject: &Subject, check: &HealthCheck, command: &[String]) -> Result<(), String> {
    let call = Call {
        command: command.to_vec(),
        release: subject.release.clone(),
        environment: subject.environment.clone(),
        timeout: check.timeout,
        id: hook::new_id(&subject.scope),
    };
    // When the gate or monitor stops asking, this future is dropped; the child then dies with it, and the rest of what
    // it started when the application's marks are swept.
    let ended = hook::run(&call, &CancellationToken::new()).await;
    match ended.end {
        End::Succeeded => Ok(()),
        End::Interrupted => Err("the check was interrupted".into()),
        End::Failed(reason) => {
            let output = shorten(ended.output.trim(), OUTPUT_MAX);
            let separator = if output.is_empty() { "" } else { ": " };
            Err(format!("command {} {reason}{separator}{output}", command[0]))
        }
    }
}

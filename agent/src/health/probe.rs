//! Asks one health check once.

use std::path::Path;

use sluice_common::spec::{HealthCheck, HttpProbe, Probe, ResourcesProbe, expand};
use sluice_common::units::format_duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::http::Request;
use super::{Subject, resources};
use crate::actions::{ActionError, Scene, Unit};
use crate::hook::{self, Call, End, shorten};

/// Most characters of a command's output in a complaint.
const OUTPUT_MAX: usize = 500;

/// Asks `check` of `subject`; the error says what was wrong. Bounded by the check's time limit.
pub(super) async fn ask(subject: &Subject, check: &HealthCheck) -> Result<(), String> {
    let no_answer = || format!("no answer within {}", format_duration(check.timeout));
    match &check.probe {
        Probe::Http(probe) => {
            let url = fill(subject, &probe.url)?;
            let asked = ask_http(subject, probe, &url);
            let limited = tokio::time::timeout(check.timeout, asked).await;
            limited.unwrap_or_else(|_| Err(no_answer())).map_err(|reason| format!("{url}: {reason}"))
        }
        Probe::Tcp(probe) => {
            let address = fill(subject, &probe.address)?;
            match tokio::time::timeout(check.timeout, TcpStream::connect(&address)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(format!("{address}: {error}")),
                Err(_) => Err(format!("{address}: no connection within {}", format_duration(check.timeout))),
            }
        }
        Probe::Command(probe) => ask_command(subject, check, &probe.command).await,
        Probe::Systemd(probe) => {
            let asked = ask_unit(subject, &probe.unit);
            tokio::time::timeout(check.timeout, asked).await.unwrap_or_else(|_| Err(no_answer()))
        }
        Probe::Resources(probe) => ask_resources(subject, probe).await,
    }
}

fn fill(subject: &Subject, text: &str) -> Result<String, String> {
    expand(text, &subject.environment)
        .map_err(|name| format!("health check needs the variable {name}; set it in agent.toml"))
}

async fn ask_http(subject: &Subject, probe: &HttpProbe, url: &str) -> Result<(), String> {
    let HttpProbe { url: _, status, contains, header, latency } = probe;
    let contains = contains.as_deref().map(|text| fill(subject, text)).transpose()?;
    let began = Instant::now();
    let request = Request::get(url, false)?;
    let mut stream = request.connect().await.map_err(|error| error.to_string())?;
    let answer = request.send(&mut stream).await.map_err(|error| error.reason)?;
    let took = began.elapsed();
    if answer.status != *status {
        return Err(format!("answered {} instead of {status}", answer.status));
    }
    if let Some(text) = contains.filter(|text| !String::from_utf8_lossy(&answer.body).contains(text)) {
        return Err(format!("answered without {text:?}"));
    }
    if let Some(header) = header {
        let text = fill(subject, &header.contains)?;
        match answer.header(&header.name) {
            None => return Err(format!("answered without the header {}", header.name)),
            Some(value) if !value.contains(&text) => {
                return Err(format!("answered {}: {value:?} without {text:?}", header.name));
            }
            Some(_) => {}
        }
    }
    match latency {
        Some(latency) if took > *latency => {
            Err(format!("answered after {}, later than {}", format_duration(took), format_duration(*latency)))
        }
        Some(_) | None => Ok(()),
    }
}

async fn ask_unit(subject: &Subject, unit: &str) -> Result<(), String> {
    let scene = Scene {
        base: subject.release.clone(),
        slot: None,
        release: subject.release.clone(),
        environment: subject.environment.clone(),
        scope: subject.scope.clone(),
    };
    let asked = async { Unit::new(&scene, unit)?.expect_active(&CancellationToken::new()).await };
    asked.await.map_err(|error: ActionError| error.to_string())
}

async fn ask_resources(subject: &Subject, probe: &ResourcesProbe) -> Result<(), String> {
    let path = match &probe.path {
        Some(path) => Path::new(&fill(subject, path)?).to_owned(),
        None => subject.release.clone(),
    };
    let probe = probe.clone();
    let asked = tokio::task::spawn_blocking(move || resources::ask(&probe, &path));
    asked.await.unwrap_or_else(|error| Err(error.to_string()))
}

async fn ask_command(subject: &Subject, check: &HealthCheck, command: &[String]) -> Result<(), String> {
    let call = Call {
        command: command.to_vec(),
        release: subject.release.clone(),
        environment: subject.environment.clone(),
        timeout: check.timeout,
        user: None,
        id: hook::new_id(&subject.scope),
    };
    // When the gate or monitor stops asking, this future is dropped; the child then dies with it, and the rest of what
    // it started when the application's marks are swept.
    let ended = hook::run(&call, &CancellationToken::new()).await;
    match ended.end {
        End::Succeeded => Ok(()),
        End::Interrupted => Err("the check was interrupted".into()),
        End::TryLater => Err(format!("command {} asks to be tried later", command[0])),
        End::Failed(reason) => {
            let output = shorten(ended.output.trim(), OUTPUT_MAX);
            let separator = if output.is_empty() { "" } else { ": " };
            Err(format!("command {} {reason}{separator}{output}", command[0]))
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_common::spec::Spec;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn subject(checks: &str, port: u16) -> Subject {
        let variables = [("PORT", port.to_string()), ("VERSION", "2".to_owned())];
        Subject {
            checks: Spec::parse(checks).unwrap().health,
            environment: variables.map(|(name, value)| (name.to_owned(), value)).into(),
            release: "/".into(),
            scope: "test".into(),
        }
    }

    async fn ask_server(fields: &str, answer: &'static str, wait_ms: u64) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let text =
            format!("[[health]]\ntype = \"http\"\nurl = \"http://127.0.0.1:${{PORT}}/health?x=1\"\n{fields}");
        let subject = subject(&text, listener.local_addr().unwrap().port());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let n = stream.read(&mut request).await.unwrap();
            assert!(request[..n].starts_with(b"GET /health?x=1 HTTP/1.1\r\nHost: 127.0.0.1:"));
            tokio::time::sleep(std::time::Duration::from_millis(wait_ms)).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(ask(&subject, &subject.checks[0]), serve).0
    }

    #[tokio::test]
    async fn answers_are_judged() {
        const BODY: &str = "contains = \"version ${VERSION}\"";
        const HEADER: &str = "header = { name = \"X-Version\", contains = \"${VERSION}\" }";
        for (fields, answer, expected) in [
            (BODY, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nversion 2", None),
            (BODY, "HTTP/1.0 200 OK\r\n\r\nversion 2", None),
            (
                BODY,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nvers\r\n5\r\nion 2\r\n0\r\n\r\n",
                None,
            ),
            (BODY, "HTTP/1.1 200 OK\r\n\r\nversion 1", Some("without \"version 2\"")),
            ("", "HTTP/1.1 503 Busy\r\n\r\n", Some("answered 503 instead of 200")),
            ("status = 503", "HTTP/1.1 503 Busy\r\n\r\n", None),
            ("", "SSH-2.0-x\r\n\r\n", Some("not HTTP")),
            ("", "HTTP/1.1 200 OK\r\n", Some("ended before")),
            (HEADER, "HTTP/1.1 200 OK\r\nx-version: v2\r\n\r\n", None),
            (HEADER, "HTTP/1.1 200 OK\r\nx-version: v1\r\n\r\n", Some("\"v1\" without \"2\"")),
            (HEADER, "HTTP/1.1 200 OK\r\n\r\n", Some("without the header X-Version")),
        ] {
            match (ask_server(fields, answer, 0).await, expected) {
                (Ok(()), None) => {}
                (Err(reason), Some(text)) => assert!(reason.contains(text), "{answer}: {reason}"),
                (outcome, _) => panic!("{answer}: {outcome:?}"),
            }
        }
    }

    #[tokio::test]
    async fn late_answers_fail() {
        let late = ask_server("latency = \"1ms\"", "HTTP/1.1 200 OK\r\n\r\n", 20).await;
        assert!(late.unwrap_err().contains("later than 1ms"));
        assert_eq!(ask_server("latency = \"5s\"", "HTTP/1.1 200 OK\r\n\r\n", 0).await, Ok(()));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let text = "[[health]]\ntype = \"http\"\nurl = \"http://127.0.0.1:${PORT}/\"\ncontains = \"needle\"";
        let subject = subject(text, listener.local_addr().unwrap().port());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            while stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
        };
        let (answer, ()) = tokio::join!(ask(&subject, &subject.checks[0]), serve);
        assert!(answer.unwrap_err().contains("without"));
    }

    #[tokio::test]
    async fn resources_and_units_are_asked() {
        let text = "[[health]]\ntype = \"resources\"\ndisk_free = \"1B\"\n\
                    [[health]]\ntype = \"resources\"\nmemory_free = \"100000TB\"\n\
                    [[health]]\ntype = \"systemd\"\nunit = \"no-such-unit-${PORT}.service\"";
        let subject = subject(text, 1);
        assert_eq!(ask(&subject, &subject.checks[0]).await, Ok(()));
        assert!(ask(&subject, &subject.checks[1]).await.unwrap_err().contains("of memory left"));
        // On a host without systemd, systemctl itself is missing or fails.
        assert!(ask(&subject, &subject.checks[2]).await.is_err());
    }
}

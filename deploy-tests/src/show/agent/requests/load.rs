//! Requests at a steady rate, whether or not earlier ones were answered; each answer must be whole and of one release.
//!
//! One thread with its own runtime. Every sender takes the next request, waits until it is due and sends it on a connection that
//! is kept open. One that the server closed before any byte of an answer is sent again, once, on a new connection, as
//! clients of HTTP do (RFC 9112, 9.3.1); those are counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::lab::{PATIENCE, wait_for};

/// Senders: far more than are busy at any time.
const SENDERS: usize = 256;
/// After which a request counts as failed.
const TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n";

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Count {
    pub(super) sent: u64,
    pub(super) failed: u64,
    pub(super) resent: u64,
    pub(super) first_failure: Option<String>,
    latencies_us: Vec<u32>,
    version: String,
}

impl Count {
    /// Returns a latency in milliseconds, from when requests were due.
    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        let at = ((sorted.len() as f64 * quantile) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(0.0, |us| f64::from(*us) / 1e3)
    }
}

/// Running load. Dropped, it ends.
pub(super) struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    port: u16,
    interval: Duration,
    began: Instant,
    next: AtomicU64,
    idle: Mutex<Vec<TcpStream>>,
    count: Mutex<Count>,
    token: CancellationToken,
}

impl Load {
    /// Starts sending.
    pub(super) fn start(port: u16, rate: u32) -> Result<Self> {
        let shared = Arc::new(Shared {
            port,
            interval: Duration::from_secs(1) / rate,
            began: Instant::now(),
            next: AtomicU64::new(0),
            idle: Mutex::default(),
            count: Mutex::default(),
            token: CancellationToken::new(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let driven = shared.clone();
        let thread = std::thread::Builder::new().name("load".into()).spawn(move || {
            runtime.block_on(async {
                let tasks = TaskTracker::new();
                for _ in 0..SENDERS {
                    let shared = driven.clone();
                    tasks.spawn(async move { shared.send_in_turn().await });
                }
                tasks.close();
                tasks.wait().await;
            });
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Returns how many requests have an answer, or none in time.
    pub(super) fn answered(&self) -> u64 {
        lock(&self.shared.count).sent
    }

    /// Waits until answers are of `version`.
    pub(super) fn check_version(&self, version: &str) -> Result<()> {
        wait_for(&format!("answers of {version}"), PATIENCE, || {
            Ok((lock(&self.shared.count).version == version).then_some(()))
        })
    }

    /// Ends the load and returns what came of it.
    pub(super) fn end(mut self) -> Count {
        self.join();
        lock(&self.shared.count).clone()
    }

    fn join(&mut self) {
        self.shared.token.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in the load has been printed by its own thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.join();
    }
}

impl Shared {
    async fn send_in_turn(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = self.began + self.interval.mul_f64(number as f64);
            if self.token.run_until_cancelled(tokio::time::sleep_until(due)).await.is_none() {
                return;
            }
            let answer = tokio::time::timeout_at(due + TIMEOUT, self.ask()).await;
            let answer = answer.unwrap_or_else(|_| Err("no answer in time".into()));
            let mut count = lock(&self.count);
            count.sent += 1;
            count.latencies_us.push(due.elapsed().as_micros().min(u128::from(u32::MAX)) as u32);
            match answer {
                Ok(version) => count.version = version,
                Err(reason) => {
                    count.failed += 1;
                    let at = self.began.elapsed().as_secs_f64();
                    count.first_failure.get_or_insert(format!("{reason}, after {at:.1} s"));
                }
            }
        }
    }

    async fn ask(&self) -> Result<String, String> {
        let idle = lock(&self.idle).pop();
        let was_used = idle.is_some();
        let mut stream = match idle {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        let mut answer = exchange(&mut stream).await;
        if was_used && matches!(&answer, Ok(None)) {
            lock(&self.count).resent += 1;
            stream = self.connect().await?;
            answer = exchange(&mut stream).await;
        }
        let answer = answer?.ok_or("the connection was closed without an answer")?;
        let version = check(&answer)?;
        if !answer.closes {
            lock(&self.idle).push(stream);
        }
        Ok(version)
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(stream)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Answer {
    status: u16,
    body: String,
    closes: bool,
}

/// Sends the request; nothing where the connection ended before any byte of an answer.
async fn exchange(stream: &mut TcpStream) -> Result<Option<Answer>, String> {
    if stream.write_all(REQUEST).await.is_err() {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(4 << 10);
    loop {
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) if bytes.is_empty() => return Ok(None),
            Ok(0) => return Err("the connection was closed within an answer".into()),
            Ok(_) => {}
            Err(error) => return Err(format!("{error} within an answer")),
        }
        if let Some(answer) = parse(&bytes)? {
            return Ok(Some(answer));
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Option<Answer>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let header = |name: &str| {
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let length = header("content-length").and_then(|length| length.parse::<usize>().ok());
    let length = length.ok_or_else(|| format!("an answer without length: {head}"))?;
    if body.len() < length {
        return Ok(None);
    }
    let status =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("an answer without status")?;
    let closes = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(Answer { status, body: body.to_owned(), closes }))
}

/// Checks that an answer is whole and of one release, and returns which.
fn check(Answer { status, body, .. }: &Answer) -> Result<String, String> {
    let first = body.lines().next().and_then(|line| line.strip_prefix("shop "));
    let last = body.lines().last().and_then(|line| line.strip_prefix("end "));
    match (status, first, last) {
        (200, Some(first), Some(last)) if first == last && !first.ends_with("-bad") => Ok(first.to_owned()),
        _ => Err(format!("status {status}, begins {first:?}, ends {last:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_answers_and_bad_versions_are_failures() {
        let check = |status, body: &str| check(&Answer { status, body: body.into(), closes: false });
        assert_eq!(check(200, "shop 1\nx\nend 1\n"), Ok("1".into()));
        assert!(check(200, "shop 1\nx\nend 2\n").is_err());
        assert!(check(200, "shop 1-bad\nx\nend 1-bad\n").is_err());
        assert!(check(503, "shop 1\nx\nend 1\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").unwrap().is_none());
        assert!(
            parse(b"HTTP/1.1 200 OK\r\nCONNECTION: close\r\ncontent-length: 2\r\n\r\nok")
                .unwrap()
                .unwrap()
                .closes
        );
    }
}

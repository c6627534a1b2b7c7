//! Steady requests through a balancer that honours health: each goes to the next host whose last health answer
//! was good. What fails here, a user would have seen.
//!
//! One thread with its own runtime: a task a host asks for health every 25 ms, one task sends a request every 4 ms.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const HEALTH_INTERVAL: Duration = Duration::from_millis(25);
const REQUEST_INTERVAL: Duration = Duration::from_millis(4);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests sent, and those that failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// All.
    pub(super) requests: u64,
    /// Not answered, answered with an error, or with half of one release and half of another.
    pub(super) failed: u64,
}

/// Running load. Dropped, it ends.
pub(super) struct Load {
    shared: Arc<Shared>,
    token: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    hosts: Vec<Backend>,
    requests: AtomicU64,
    failed: AtomicU64,
    first_error: OnceLock<String>,
}

struct Backend {
    port: u16,
    healthy: AtomicBool,
}

impl Load {
    /// Starts sending to the web applications on `ports`, from the first moment that one of them is healthy.
    pub(super) fn start(ports: Vec<u16>) -> Result<Self> {
        let hosts = ports.into_iter().map(|port| Backend { port, healthy: AtomicBool::new(false) }).collect();
        let (requests, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        let shared = Arc::new(Shared { hosts, requests, failed, first_error: OnceLock::new() });
        let token = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (all, stop) = (shared.clone(), token.clone());
        let thread = std::thread::Builder::new()
            .name("load".into())
            .spawn(move || runtime.block_on(drive(all, stop)))?;
        Ok(Self { shared, token, thread: Some(thread) })
    }

    /// Returns the requests so far.
    pub(super) fn count(&self) -> Count {
        Count {
            requests: self.shared.requests.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
        }
    }

    /// Returns what was wrong with the first request that failed.
    pub(super) fn first_error(&self) -> Option<&String> {
        self.shared.first_error.get()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.token.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in the load has been printed by its own thread.
            let _ = thread.join();
        }
    }
}

async fn drive(shared: Arc<Shared>, token: CancellationToken) {
    let tasks = TaskTracker::new();
    for number in 0..shared.hosts.len() {
        let (shared, token) = (shared.clone(), token.clone());
        tasks.spawn(async move { token.run_until_cancelled(watch_health(&shared.hosts[number])).await });
    }
    let mut ticks = tokio::time::interval(REQUEST_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut turn = 0;
    while token.run_until_cancelled(ticks.tick()).await.is_some() {
        turn += 1;
        let shared = shared.clone();
        tasks.spawn(async move { request(&shared, turn).await });
    }
    tasks.close();
    tasks.wait().await;
}

async fn watch_health(host: &Backend) {
    loop {
        let healthy = matches!(get(host.port, "/health").await, Ok((200, _)));
        host.healthy.store(healthy, Ordering::Relaxed);
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

/// Sends one request to the next healthy host. Nothing is sent until a host has been healthy for the first time.
async fn request(shared: &Shared, turn: usize) {
    let healthy: Vec<u16> = shared
        .hosts
        .iter()
        .filter(|host| host.healthy.load(Ordering::Relaxed))
        .map(|host| host.port)
        .collect();
    let result = match healthy.get(turn % healthy.len().max(1)) {
        Some(port) => {
            get(*port, "/").await.map_err(|error| error.to_string()).and_then(|answer| check(&answer))
        }
        None if shared.requests.load(Ordering::Relaxed) == 0 => return,
        None => Err("no host is healthy".to_owned()),
    };
    shared.requests.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = result {
        shared.failed.fetch_add(1, Ordering::Relaxed);
        shared.first_error.get_or_init(|| error);
    }
}

/// Checks that an answer is whole and of one release.
fn check((status, body): &(u16, String)) -> Result<(), String> {
    let first = body.lines().next().and_then(|line| line.strip_prefix("shop "));
    let last = body.lines().last().and_then(|line| line.strip_prefix("end "));
    match (status, first, last) {
        (200, Some(first), Some(last)) if first == last => Ok(()),
        _ => Err(format!("status {status}, begins {first:?}, ends {last:?}")),
    }
}

async fn get(port: u16, path: &str) -> io::Result<(u16, String)> {
    let answer = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n").as_bytes()).await?;
        read_answer(&mut stream).await
    };
    tokio::time::timeout(REQUEST_TIMEOUT, answer)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn read_answer(stream: &mut TcpStream) -> io::Result<(u16, String)> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut bytes = Vec::new();
    loop {
        if let Some((head, body)) =
            std::str::from_utf8(&bytes).ok().and_then(|text| text.split_once("\r\n\r\n"))
        {
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let length = length.ok_or_else(|| invalid("an answer without length"))?;
            if body.len() >= length {
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                return Ok((status.ok_or_else(|| invalid("an answer without status"))?, body.to_owned()));
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_one_release_and_half_of_another_is_a_failure() {
        assert!(check(&(200, "shop 1\nx\nend 1\n".into())).is_ok());
        assert!(check(&(200, "shop 1\nx\nend 2\n".into())).is_err());
        assert!(check(&(503, "shop 1\nx\nend 1\n".into())).is_err());
        assert!(check(&(200, String::new())).is_err());
    }
}

//! A TCP proxy that counts each connection's bytes: a measurement of its own, outside of what it measures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// Forwards every connection to one address.
pub(super) struct Proxy {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Arc<AtomicU64>>>>,
    sent: Arc<AtomicU64>,
}

impl Proxy {
    /// Starts forwarding to `target`. Its threads end with the process.
    pub(super) fn start(target: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let connections: Arc<Mutex<Vec<Arc<AtomicU64>>>> = Arc::default();
        let all = connections.clone();
        let sent = Arc::<AtomicU64>::default();
        let sent_by_all = sent.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let count = Arc::new(AtomicU64::new(0));
                all.lock().unwrap_or_else(PoisonError::into_inner).push(count.clone());
                // A connection that cannot be doubled is dropped; its ends see that.
                let _ = forward(client, server, count, sent_by_all.clone());
            }
        });
        Ok(Self { address, connections, sent })
    }

    /// Returns where the proxy listens.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Returns the bytes that clients have sent so far, over all connections.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Returns the bytes that each connection so far has carried towards the client.
    pub(super) fn counts(&self) -> Vec<u64> {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

fn forward(client: TcpStream, server: TcpStream, count: Arc<AtomicU64>, sent: Arc<AtomicU64>) -> Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_read, server_write) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || pump(client_read, server_write, &sent));
    thread::spawn(move || pump(server, client, &count));
    Ok(())
}

fn pump(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
        count.fetch_add(n as u64, Ordering::Relaxed);
    }
    // The other direction ends by itself.
    let _ = to.shutdown(std::net::Shutdown::Write);
}

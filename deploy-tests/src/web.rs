//! The web application of the demonstration: serves files from a directory that `current` points at.
//!
//! It resolves `current` anew for each request, as a web server in front of a release directory does, so a switch
//! is visible at once and a request sees one release or the other. `/health` answers the release's own `health`
//! file: 200 when it begins with `ok`, else 500. `/self-check` answers 200, until the page has been asked for as often as
//! the command line says: a fault that only traffic brings to light.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// Longest request that is read: line and headers.
const REQUEST_BYTES_MAX: u64 = 16 << 10;

#[derive(Parser)]
struct Args {
    /// The directory to serve: a host's `current`.
    #[arg(long)]
    root: PathBuf,
    /// The port on loopback.
    #[arg(long)]
    port: u16,
    /// After how many requests for the page the self-check fails; never otherwise.
    #[arg(long, value_name = "REQUESTS")]
    fails_after: Option<u64>,
}

/// What is served.
struct Site {
    root: PathBuf,
    fails_after: Option<u64>,
    /// Requests for the page so far.
    asked: AtomicU64,
}

impl Site {
    fn is_worn(&self) -> bool {
        self.fails_after.is_some_and(|most| self.asked.load(Ordering::Relaxed) > most)
    }
}

/// Runs the application until it is ended.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = Args::parse_from(args);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: web application: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", args.port)).await?;
    let site = Arc::new(Site { root: args.root, fails_after: args.fails_after, asked: AtomicU64::new(0) });
    let connections = TaskTracker::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let site = site.clone();
        // A connection that fails concerns its client alone.
        connections.spawn(async move { drop(converse(stream, &site).await) });
    }
}

/// Answers the requests of one connection until the client closes it.
async fn converse(stream: TcpStream, site: &Site) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(path) = read_request(&mut stream).await? {
        let (status, body) = answer(site, &path).await;
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-type: text/plain\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    }
    Ok(())
}

/// Reads one request and returns its path; nothing at the end of the connection.
async fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut limited = stream.take(REQUEST_BYTES_MAX);
    let mut line = String::new();
    if limited.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut header = String::new();
    while limited.read_line(&mut header).await? > 2 {
        header.clear();
    }
    Ok(line.split_ascii_whitespace().nth(1).map(str::to_owned))
}

async fn answer(site: &Site, path: &str) -> (&'static str, Vec<u8>) {
    let (file, is_health) = match path {
        "/health" => ("health", true),
        "/" => {
            site.asked.fetch_add(1, Ordering::Relaxed);
            ("index.txt", false)
        }
        "/self-check" if site.is_worn() => return ("500 Internal Server Error", b"worn\n".to_vec()),
        "/self-check" => return ("200 OK", b"ok\n".to_vec()),
        _ => return ("404 Not Found", b"not found\n".to_vec()),
    };
    match tokio::fs::read(site.root.join(file)).await {
        Ok(body) if is_health && !body.starts_with(b"ok") => ("500 Internal Server Error", body),
        Ok(body) => ("200 OK", body),
        Err(error) => ("503 Service Unavailable", format!("{error}\n").into_bytes()),
    }
}

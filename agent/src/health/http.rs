//! HTTP/1.1 over plain TCP, as health checks and load probes need it: GET only, bounded, no redirects.

use http::Uri;
use sluice_common::caps;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where a GET goes, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    host: String,
    port: u16,
    bytes: Vec<u8>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: u16,
    /// The body, cut at [`caps::CHECK_BODY_BYTES_MAX`].
    pub(super) body: Vec<u8>,
    /// Whether the connection may carry another request.
    pub(super) is_reusable: bool,
    head: String,
}

impl Answer {
    /// Returns a header's value; names are the same in whatever case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

impl Request {
    /// Makes a GET of `url`; on a connection that is kept open, or closed after it.
    pub(super) fn get(url: &str, keeps_open: bool) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
        let authority = uri.authority().ok_or("the URL has no host")?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let connection = if keeps_open { "" } else { "Connection: close\r\n" };
        let bytes = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: sluice-agent/{}\r\nAccept: */*\r\n{connection}\r\n",
            env!("CARGO_PKG_VERSION")
        );
        Ok(Self {
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(80),
            bytes: bytes.into_bytes(),
        })
    }

    /// Opens a connection to where the request goes.
    pub(super) async fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Sends the request and reads the answer.
    pub(super) async fn send(&self, stream: &mut TcpStream) -> Result<Answer, SendError> {
        stream.write_all(&self.bytes).await.map_err(SendError::nothing)?;
        read(stream).await
    }
}

/// Says why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SendError {
    /// Whether the connection ended before any byte of an answer: a server may close an idle one at any time, so that a GET may
    /// be sent again (RFC 9112, 9.3.1).
    pub(super) is_closed: bool,
    /// Why, in words.
    pub(super) reason: String,
}

impl SendError {
    fn nothing(error: std::io::Error) -> Self {
        Self { is_closed: true, reason: error.to_string() }
    }
}

impl From<String> for SendError {
    fn from(reason: String) -> Self {
        Self { is_closed: false, reason }
    }
}

async fn read(stream: &mut TcpStream) -> Result<Answer, SendError> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 8 * 1024];
    loop {
        if let Some(answer) = parse(&bytes, false)? {
            return Ok(answer);
        }
        match stream.read(&mut buffer).await {
            Ok(0) if bytes.is_empty() => {
                let reason = "the connection was closed without an answer".into();
                return Err(SendError { is_closed: true, reason });
            }
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(error) if bytes.is_empty() => return Err(SendError::nothing(error)),
            // Some servers reset instead of closing; what came may suffice.
            Err(_) => break,
        }
        if bytes.len() >= caps::CHECK_BODY_BYTES_MAX {
            break;
        }
    }
    parse(&bytes, true)?.ok_or_else(|| "the answer ended before its head did".to_owned().into())
}

/// Parses what has come; nothing while more is needed. `is_all`: no more will come.
fn parse(bytes: &[u8], is_all: bool) -> Result<Option<Answer>, String> {
    let Some(head_len) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..head_len]).into_owned();
    let first = head.split("\r\n").next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| {
            format!("answered {:?}, which is not HTTP", first.chars().take(40).collect::<String>())
        })?;
    let is_kept = first.starts_with("HTTP/1.1")
        && !header(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let body = &bytes[head_len + 4..];
    let is_chunked = header(&head, "transfer-encoding")
        .is_some_and(|value| value.to_ascii_lowercase().contains("chunked"));
    let length = header(&head, "content-length").and_then(|value| value.parse::<usize>().ok());
    let (body, ending) = match (is_chunked, length) {
        (true, _) => unchunk(body),
        (false, _) if matches!(status, 204 | 304) => (Vec::new(), Ending::of(body.len(), 0)),
        (false, Some(length)) => (body.to_vec(), Ending::of(body.len(), length)),
        (false, None) => (body.to_vec(), Ending::Open),
    };
    let is_reusable = is_kept && ending == Ending::Exact;
    Ok((ending != Ending::Open || is_all).then_some(Answer { status, body, is_reusable, head }))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// How the end of a body stands to what has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It has not come, or only the connection's end will tell.
    Open,
    /// It is the end of what has come.
    Exact,
    /// It has come, and something else with it.
    Within,
}

impl Ending {
    fn of(came: usize, length: usize) -> Self {
        match came.cmp(&length) {
            std::cmp::Ordering::Less => Self::Open,
            std::cmp::Ordering::Equal => Self::Exact,
            std::cmp::Ordering::Greater => Self::Within,
        }
    }
}

/// Joins the chunks that have come.
fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, Ending) {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = String::from_utf8_lossy(&bytes[..end]);
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16);
        let rest = &bytes[end + 2..];
        match size {
            // Trailers may follow; a connection with them is not used again.
            Ok(0) if rest == b"\r\n" => return (body, Ending::Exact),
            Ok(0) if rest.is_empty() || rest == b"\r" => return (body, Ending::Open),
            Ok(0) => return (body, Ending::Within),
            Ok(size) if size <= rest.len() => {
                body.extend_from_slice(&rest[..size]);
                bytes = rest.get(size + 2..).unwrap_or_default();
            }
            Ok(_) | Err(_) => {
                body.extend_from_slice(rest);
                return (body, Ending::Open);
            }
        }
    }
    (body, Ending::Open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_framed() {
        for (answer, body, is_reusable) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Some("ok"), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", None, false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nok", Some("ok"), false),
            ("HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok", Some("ok"), false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Some("ok"), false),
            ("HTTP/1.1 200 OK\r\n\r\nok", None, false),
            ("HTTP/1.1 204 No Content\r\n\r\n", Some(""), true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Some("ok"), true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", None, false),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n",
                Some("ok"),
                false,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok", None, false),
            ("HTTP/1.1 200 OK\r\n", None, false),
        ] {
            let parsed = parse(answer.as_bytes(), false).unwrap();
            assert_eq!(parsed.as_ref().map(|a| a.body.as_slice()), body.map(str::as_bytes), "{answer}");
            assert_eq!(parsed.is_some_and(|a| a.is_reusable), is_reusable, "{answer}");
        }
        assert!(parse(b"SSH-2.0-x\r\n\r\n", false).unwrap_err().contains("not HTTP"));
    }

    #[test]
    fn requests_name_host_and_path() {
        let request = Request::get("http://[::1]:81/a?b=c", true).unwrap();
        assert_eq!((request.host.as_str(), request.port), ("::1", 81));
        let text = String::from_utf8(request.bytes).unwrap();
        assert!(
            text.starts_with("GET /a?b=c HTTP/1.1\r\nHost: [::1]:81\r\n") && !text.contains("close"),
            "{text}"
        );
        assert!(Request::get("http:///x", true).is_err());
    }
}

//! One HTTP/1.1 GET over plain TCP, as health checks need it: bounded, no redirects, nothing kept open.

use http::Uri;
use sluice_common::caps;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Asks `url` and sees that it answers with `status` and that its body contains `contains`.
pub(super) async fn get(url: &str, status: u16, contains: Option<&str>) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
    let authority = uri.authority().ok_or("the URL has no host")?;
    let port = authority.port_u16().unwrap_or(80);
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let mut stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: sluice-agent/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let answer = read(&mut stream).await?;
    if answer.status != status {
        return Err(format!("answered {} instead of {status}", answer.status));
    }
    match contains {
        Some(text) if !String::from_utf8_lossy(&answer.body).contains(text) => {
            Err(format!("answered without {text:?}"))
        }
        Some(_) | None => Ok(()),
    }
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

async fn read(stream: &mut TcpStream) -> Result<Answer, String> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 8 * 1024];
    loop {
        if let Some(answer) = parse(&bytes, false)? {
            return Ok(answer);
        }
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(error) if bytes.is_empty() => return Err(error.to_string()),
            // Some servers reset instead of closing; what came may suffice.
            Err(_) => break,
        }
        if bytes.len() >= caps::CHECK_BODY_BYTES_MAX {
            break;
        }
    }
    parse(&bytes, true)?.ok_or_else(|| "the answer ended before its head did".into())
}

/// Parses what has come; nothing while more is needed. `is_all`: no more will come.
fn parse(bytes: &[u8], is_all: bool) -> Result<Option<Answer>, String> {
    let Some(head_len) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..head_len]).into_owned();
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| {
            format!("answered {:?}, which is not HTTP", first.chars().take(40).collect::<String>())
        })?;
    let header = |name: &str| {
        head.split("\r\n").skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
        })
    };
    let body = &bytes[head_len + 4..];
    if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        let (body, is_whole) = unchunk(body);
        return Ok((is_whole || is_all).then_some(Answer { status, body }));
    }
    let length = header("content-length").and_then(|value| value.parse::<usize>().ok());
    let is_whole = length.is_some_and(|length| body.len() >= length);
    Ok((is_whole || is_all).then(|| Answer { status, body: body.to_vec() }))
}

/// Joins the chunks that have come, and says whether the last one is among them.
fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = String::from_utf8_lossy(&bytes[..end]);
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16);
        let rest = &bytes[end + 2..];
        match size {
            Ok(0) => return (body, true),
            Ok(size) if size <= rest.len() => {
                body.extend_from_slice(&rest[..size]);
                bytes = rest.get(size + 2..).unwrap_or_default();
            }
            Ok(_) | Err(_) => {
                body.extend_from_slice(rest);
                return (body, false);
            }
        }
    }
    (body, false)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn ask(answer: &'static str, contains: Option<&str>) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/health?x=1", listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let n = stream.read(&mut request).await.unwrap();
            assert!(request[..n].starts_with(b"GET /health?x=1 HTTP/1.1\r\nHost: 127.0.0.1:"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(get(&url, 200, contains), serve).0
    }

    #[tokio::test]
    async fn answers_are_judged() {
        for (answer, contains, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nversion 2", Some("version 2"), None),
            ("HTTP/1.0 200 OK\r\n\r\nversion 2", Some("version 2"), None),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nvers\r\n5\r\nion 2\r\n0\r\n\r\n",
                Some("version 2"),
                None,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nversion 1", Some("version 2"), Some("without \"version 2\"")),
            ("HTTP/1.1 503 Busy\r\n\r\n", None, Some("answered 503 instead of 200")),
            ("SSH-2.0-x\r\n\r\n", None, Some("not HTTP")),
            ("HTTP/1.1 200 OK\r\n", None, Some("ended before")),
        ] {
            match (ask(answer, contains).await, expected) {
                (Ok(()), None) => {}
                (Err(reason), Some(text)) => assert!(reason.contains(text), "{answer}: {reason}"),
                (outcome, _) => panic!("{answer}: {outcome:?}"),
            }
        }
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            while stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
        };
        let (answer, ()) = tokio::join!(get(&url, 200, Some("needle")), serve);
        assert!(answer.unwrap_err().contains("without"));
    }
}

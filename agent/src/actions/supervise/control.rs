//! What an agent asks of a supervisor: one line, answered by one line of JSON. The two may be of different versions, so words
//! and fields are only ever added.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Longest path of a socket: the kernel's `sun_path` with its end.
pub(super) const SOCKET_PATH_MAX: usize = 107;
/// Time limit of one exchange: a supervisor that takes longer hangs.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest line either way.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// How the application is.
    Status,
    /// End it, and then the supervisor. Answered at once.
    Stop,
    /// Read the task again and have the application take its configuration anew.
    Reload,
}

impl Command {
    const ALL: [Self; 3] = [Self::Status, Self::Stop, Self::Reload];

    fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Stop => "stop",
            Self::Reload => "reload",
        }
    }
}

/// How an application is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    /// The task that runs, by its digest.
    pub(super) task: String,
    /// The application's process, while there is one.
    pub(super) pid: Option<u32>,
    /// How often it was started.
    pub(super) starts: u32,
    /// How it ended last, in words.
    pub(super) last_end: Option<String>,
    /// Whether it is being ended.
    pub(super) is_stopping: bool,
    /// Time that it has for that.
    pub(super) stop_timeout_ms: u64,
}

/// Names the socket.
pub(super) fn socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// Asks the supervisor of `dir`; nothing where there is none.
pub(super) async fn ask(dir: &Path, command: Command) -> Option<Status> {
    let asked = async {
        let mut stream = UnixStream::connect(socket(dir)).await.ok()?;
        stream.write_all(format!("{}\n", command.as_str()).as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.take(LINE_BYTES_MAX).read_to_end(&mut answer).await.ok()?;
        serde_json::from_slice(&answer).ok()
    };
    tokio::time::timeout(TIMEOUT, asked).await.ok().flatten()
}

/// Reads what is asked; nothing where it is no word of this version.
pub(super) async fn hear(stream: &mut UnixStream) -> Option<Command> {
    let mut line = String::new();
    let mut reader = BufReader::new(stream.take(LINE_BYTES_MAX));
    let read = tokio::time::timeout(TIMEOUT, reader.read_line(&mut line));
    read.await.ok()?.ok()?;
    Command::ALL.into_iter().find(|command| command.as_str() == line.trim_end())
}

/// Answers; an asker that has gone is no error.
pub(super) async fn answer(mut stream: UnixStream, status: &Status) {
    let text = serde_json::to_string(status).expect("strings and numbers are always JSON") + "\n";
    let _ = tokio::time::timeout(TIMEOUT, stream.write_all(text.as_bytes())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_earlier_versions_stand() {
        assert_eq!(Command::ALL.map(Command::as_str), ["status", "stop", "reload"]);
        let golden = r#"{"task":"0123","pid":7,"starts":2,"last_end":"exited","is_stopping":false,"stop_timeout_ms":90000}"#;
        let status: Status = serde_json::from_str(golden).unwrap();
        assert_eq!((status.pid, status.starts, status.stop_timeout_ms), (Some(7), 2, 90_000));
        assert_eq!(serde_json::to_string(&status).unwrap(), golden);
        let of_later: Status = serde_json::from_str(r#"{"task":"a","more":1}"#).unwrap();
        assert_eq!(of_later.task, "a");
    }
}

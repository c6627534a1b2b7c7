//! HAProxy by its runtime socket: servers are drained, made ready, and pointed at an address.
//!
//! One connection a command, as HAProxy closes it after each. What is asked is desired state, so all of it may be repeated.

use std::time::Duration;

use sluice_common::caps;
use sluice_common::spec::{self, is_word};
use sluice_common::units::format_duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ActionError, Scene, limited};

/// First and longest time between two looks at a server.
const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// The servers of one application at its balancers, with every variable replaced.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Haproxy {
    sockets: Vec<String>,
    servers: Vec<Server>,
    address: Option<Address>,
    wait: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    backend: String,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
}

/// How a server stands at a balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    status: String,
    /// Requests or connections under way, and those that wait for the server.
    sessions: u64,
}

impl Standing {
    /// Says whether the balancer sends requests to the server.
    fn is_up(&self) -> bool {
        self.status == "no check" || self.status == "UP" || self.status.starts_with("UP ")
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.backend, self.name)
    }
}

impl Haproxy {
    /// Replaces the variables, and checks what they brought.
    pub(super) fn new(spec: &spec::Haproxy, scene: &Scene) -> Result<Self, ActionError> {
        let fill = |field: &str, text: &str| -> Result<String, ActionError> {
            let text = scene.fill(&format!("traffic.haproxy.{field}"), text)?;
            if is_word(&text) {
                return Ok(text);
            }
            Err(ActionError::failed(format!(
                "traffic.haproxy.{field}: {text:?} cannot be told to HAProxy; see the variables in agent.toml"
            )))
        };
        let servers = spec.servers.iter().map(|server| {
            let server = fill("servers", server)?;
            match server.split_once('/') {
                Some((backend, name)) if !backend.is_empty() && !name.is_empty() => {
                    Ok(Server { backend: backend.into(), name: name.into() })
                }
                Some(_) | None => Err(ActionError::failed(format!(
                    "traffic.haproxy.servers: {server:?} is not BACKEND/SERVER; see the variables in agent.toml"
                ))),
            }
        });
        let address = spec.address.as_deref().map(|text| {
            let text = fill("address", text)?;
            let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
            let (host, port) = parts.ok_or_else(|| {
                ActionError::failed(format!("traffic.haproxy.address: {text:?} is not ADDRESS:PORT"))
            })?;
            Ok(Address { host: host.trim_matches(['[', ']']).into(), port })
        });
        Ok(Self {
            sockets: spec
                .sockets
                .iter()
                .map(|socket| scene.fill("traffic.haproxy.sockets", socket))
                .collect::<Result<_, _>>()?,
            servers: servers.collect::<Result<_, _>>()?,
            address: address.transpose()?,
            wait: spec.wait,
        })
    }

    /// Keeps new requests away, and waits until those under way have ended or the time for that is over.
    pub(super) async fn drain(&self, token: &CancellationToken) -> Result<(), ActionError> {
        for (socket, server) in self.pairs() {
            tell(socket, &format!("set server {server} state drain"), token).await?;
        }
        let until = Instant::now() + self.wait;
        for (socket, server) in self.pairs() {
            let last =
                self.look_until(socket, server, until, token, |standing| standing.sessions == 0).await?;
            if last.sessions > 0 {
                tracing::warn!(%server, sessions = last.sessions, "requests are still under way after the time for them; going on");
            }
        }
        Ok(())
    }

    /// Lets requests come, and waits until every balancer counts the servers as up.
    pub(super) async fn ready(&self, token: &CancellationToken) -> Result<(), ActionError> {
        for (socket, server) in self.pairs() {
            if let Some(Address { host, port }) = &self.address {
                tell(socket, &format!("set server {server} addr {host} port {port}"), token).await?;
            }
            tell(socket, &format!("set server {server} state ready"), token).await?;
        }
        let until = Instant::now() + self.wait;
        for (socket, server) in self.pairs() {
            let last = self.look_until(socket, server, until, token, Standing::is_up).await?;
            if !last.is_up() {
                return Err(ActionError::failed(format!(
                    "HAProxy at {socket} counts {server} as {:?} after {}; see why its own check fails",
                    last.status,
                    format_duration(self.wait)
                )));
            }
        }
        Ok(())
    }

    /// Returns the part of `self` whose servers `other` does not have; nothing where there is none.
    pub(super) fn without(&self, other: Option<&Self>) -> Option<Self> {
        let is_other = |server: &Server| other.is_some_and(|other| other.servers.contains(server));
        let servers: Vec<Server> = self.servers.iter().filter(|server| !is_other(server)).cloned().collect();
        (!servers.is_empty()).then(|| Self { servers, ..self.clone() })
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &Server)> {
        self.sockets
            .iter()
            .flat_map(|socket| self.servers.iter().map(move |server| (socket.as_str(), server)))
    }

    /// Looks at a server until it is as wanted, or until then; returns how it stood last.
    async fn look_until(
        &self,
        socket: &str,
        server: &Server,
        until: Instant,
        token: &CancellationToken,
        is_wanted: impl Fn(&Standing) -> bool,
    ) -> Result<Standing, ActionError> {
        let mut pause = LOOKS.0;
        loop {
            let answer = ask(socket, &format!("show stat {} 4 -1", server.backend), token).await?;
            let standing = parse(&answer, server).ok_or_else(|| unknown(socket, server))?;
            if is_wanted(&standing) || Instant::now() >= until {
                return Ok(standing);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LOOKS.1),
                () = token.cancelled() => return Err(ActionError::Interrupted),
            }
        }
    }
}

fn unknown(socket: &str, server: &Server) -> ActionError {
    ActionError::failed(format!("HAProxy at {socket} has no server {server}; see traffic.haproxy.servers"))
}

/// Tells HAProxy something; it answers nothing, or what it changed.
async fn tell(socket: &str, line: &str, token: &CancellationToken) -> Result<(), ActionError> {
    let answer = ask(socket, line, token).await?;
    match answer.trim() {
        answer if answer.is_empty() || answer.contains("changed") || answer.contains("no need to change") => {
            Ok(())
        }
        answer if answer.contains("Permission denied") => Err(ActionError::failed(format!(
            "HAProxy at {socket} refuses {line:?}; its stats socket needs level admin"
        ))),
        answer => Err(ActionError::failed(format!("HAProxy at {socket} refuses {line:?}: {answer}"))),
    }
}

/// Says one line to HAProxy and returns its whole answer.
async fn ask(socket: &str, line: &str, token: &CancellationToken) -> Result<String, ActionError> {
    let asked = async {
        let done = if socket.starts_with('/') {
            match UnixStream::connect(socket).await {
                Ok(stream) => exchange(stream, line).await,
                Err(error) => Err(error),
            }
        } else {
            match TcpStream::connect(socket).await {
                Ok(stream) => exchange(stream, line).await,
                Err(error) => Err(error),
            }
        };
        done.map_err(|error| {
            ActionError::failed(format!(
                "HAProxy does not answer at {socket}: {error}; see traffic.haproxy.sockets"
            ))
        })
    };
    limited(&format!("HAProxy at {socket}"), caps::HAPROXY_TIMEOUT, token, asked).await
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, line: &str) -> std::io::Result<String> {
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(caps::HAPROXY_ANSWER_BYTES_MAX as u64).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Finds a server in the answer of `show stat`: a line of names behind `# `, then a line of values for each server.
fn parse(answer: &str, server: &Server) -> Option<Standing> {
    let mut lines = answer.lines();
    let names: Vec<&str> = lines.next()?.trim_start_matches("# ").split(',').collect();
    let column = |name: &str| names.iter().position(|n| *n == name);
    let (backend, name) = (column("pxname")?, column("svname")?);
    let (status, current, queued) = (column("status")?, column("scur")?, column("qcur")?);
    lines.find_map(|line| {
        let values: Vec<&str> = line.split(',').collect();
        let is_it = *values.get(backend)? == server.backend && *values.get(name)? == server.name;
        let number =
            |column: usize| values.get(column).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
        is_it.then(|| Standing {
            status: values.get(status).copied().unwrap_or_default().to_owned(),
            sessions: number(current) + number(queued),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::net::UnixListener;

    use super::*;
    use crate::actions::testing::scene;

    const HEAD: &str = "# pxname,svname,qcur,qmax,scur,smax,status\n";

    #[test]
    fn servers_are_found_by_the_names_of_columns() {
        let answer = format!(
            "{HEAD}web,a,0,0,3,9,UP\nweb,b,2,0,1,9,DRAIN\nweb,c,,,,,no check\nother,a,0,0,0,0,DOWN 1/2\n\n"
        );
        for (name, expected) in [
            ("web/a", Some(("UP", 3, true))),
            ("web/b", Some(("DRAIN", 3, false))),
            ("web/c", Some(("no check", 0, true))),
            ("other/a", Some(("DOWN 1/2", 0, false))),
            ("web/d", None),
        ] {
            let (backend, server) = name.split_once('/').unwrap();
            let found = parse(&answer, &Server { backend: backend.into(), name: server.into() });
            let found = found.map(|found| (found.status.clone(), found.sessions, found.is_up()));
            assert_eq!(found, expected.map(|(status, n, up)| (status.to_owned(), n, up)), "{name}");
        }
        assert!(parse("Unknown command", &Server { backend: "a".into(), name: "b".into() }).is_none());
    }

    /// Answers as HAProxy does, each command by its first fitting answer, which is then used up unless it is the last.
    async fn serve(
        listener: UnixListener,
        answers: Vec<(&'static str, String)>,
        heard: Arc<Mutex<Vec<String>>>,
    ) {
        let mut answers = answers;
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut stream, mut line) = (BufReader::new(stream), String::new());
            stream.read_line(&mut line).await.unwrap();
            let fitting: Vec<usize> =
                (0..answers.len()).filter(|i| line.starts_with(answers[*i].0)).collect();
            let answer = match fitting[..] {
                [only] => answers[only].1.clone(),
                [first, ..] => answers.remove(first).1,
                [] => "\n".to_owned(),
            };
            heard.lock().unwrap().push(line.trim().to_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    type Heard = Vec<String>;

    async fn perform(
        wait_ms: u64,
        is_drain: bool,
        answers: Vec<(&'static str, String)>,
    ) -> (Result<(), ActionError>, Heard) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let scene = scene(dir.path(), &[("PORT", "8082"), ("DIR", dir.path().to_str().unwrap())]);
        let spec = spec::Haproxy {
            sockets: vec!["${DIR}/admin.sock".into()],
            servers: vec!["web/h1".into()],
            address: Some("127.0.0.1:${PORT}".into()),
            wait: Duration::from_millis(wait_ms),
        };
        let haproxy = Haproxy::new(&spec, &scene).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let token = CancellationToken::new();
        let listener = UnixListener::bind(&socket).unwrap();
        let work = async { if is_drain { haproxy.drain(&token).await } else { haproxy.ready(&token).await } };
        let done = tokio::select! {
            () = serve(listener, answers, heard.clone()) => unreachable!("it serves for ever"),
            done = work => done,
        };
        let heard = heard.lock().unwrap().clone();
        (done, heard)
    }

    fn stat(status: &str, sessions: u32) -> (&'static str, String) {
        ("show stat web 4 -1", format!("{HEAD}web,h1,0,0,{sessions},9,{status}\n\n"))
    }

    #[tokio::test]
    async fn draining_waits_for_requests_under_way() {
        let (done, heard) =
            perform(60_000, true, vec![stat("DRAIN", 2), stat("DRAIN", 1), stat("DRAIN", 0)]).await;
        assert_eq!(done, Ok(()));
        assert_eq!(heard.first().unwrap(), "set server web/h1 state drain");
        assert_eq!(heard.len(), 4, "{heard:?}");
        // One that never ends is not waited for for ever.
        let (done, _) = perform(30, true, vec![stat("DRAIN", 1)]).await;
        assert_eq!(done, Ok(()));
    }

    #[tokio::test]
    async fn a_server_is_ready_once_the_balancer_says_so() {
        let changed =
            ("set server web/h1 addr", "IP changed from '1' to '2' by 'stats socket command'\n".to_owned());
        let (done, heard) = perform(60_000, false, vec![changed, stat("DOWN 1/2", 0), stat("UP", 0)]).await;
        assert_eq!(done, Ok(()));
        assert_eq!(
            heard[..2],
            ["set server web/h1 addr 127.0.0.1 port 8082", "set server web/h1 state ready"]
        );
        let (done, _) = perform(30, false, vec![stat("DOWN", 0)]).await;
        assert!(done.unwrap_err().to_string().contains("counts web/h1 as \"DOWN\" after 30ms"));
    }

    #[tokio::test]
    async fn refusals_name_a_remedy() {
        for (answer, expected) in
            [("No such server.\n", "No such server"), ("Permission denied\n", "level admin")]
        {
            let (done, _) = perform(30, true, vec![("set server", answer.to_owned())]).await;
            let reason = done.unwrap_err().to_string();
            assert!(reason.contains(expected), "{reason}");
        }
        let (done, _) = perform(30, true, vec![("show stat", HEAD.to_owned())]).await;
        assert!(done.unwrap_err().to_string().contains("has no server web/h1"));
        let token = CancellationToken::new();
        let reason = ask("/nowhere/admin.sock", "show stat", &token).await.unwrap_err().to_string();
        assert!(reason.contains("see traffic.haproxy.sockets"), "{reason}");
    }

    #[test]
    fn variables_cannot_bring_a_second_command() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec::Haproxy {
            sockets: vec!["/s".into()],
            servers: vec!["web/${SERVER}".into()],
            address: None,
            wait: Duration::from_secs(1),
        };
        for server in ["h1; shutdown sessions", "h1\nx", ""] {
            let scene = scene(dir.path(), &[("SERVER", server)]);
            assert!(Haproxy::new(&spec, &scene).is_err(), "{server:?}");
        }
    }
}

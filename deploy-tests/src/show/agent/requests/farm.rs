//! Hosts with a web application that their agents run, behind a balancer that their agents speak to.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use fs_err as fs;

use super::balancer::{self, Balancer, Kind, Server};
use crate::lab::{AgentOptions, Lab, PATIENCE, path_text, wait_for, write_tree};
use crate::show::main_job::demo_executable;

/// The application.
pub(super) const APP: &str = "shop";
/// The two slots of parallel production.
const SLOTS: [&str; 2] = ["blue", "green"];

/// How a version comes into the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Host by host; each is drained, stopped, switched and started.
    Rolling,
    /// Beside the live one, on one host.
    Parallel,
}

impl Style {
    pub(super) const ALL: [Self; 2] = [Self::Rolling, Self::Parallel];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Rolling => "rolling over 4 hosts",
            Self::Parallel => "parallel on one host",
        }
    }

    fn hosts(self) -> usize {
        match self {
            Self::Rolling => 4,
            Self::Parallel => 1,
        }
    }
}

/// What becomes of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quality {
    /// It stays.
    Good,
    /// It says that it is not well when it is asked.
    Bad,
    /// It is well until it has the traffic.
    FailsLate,
}

/// Requests that a version which fails late bears: more than the probe of a candidate sends.
const BORNE: u32 = 300;

/// The whole of it.
pub(super) struct Farm {
    kind: Kind,
    style: Style,
    dir: PathBuf,
    port: u16,
    servers: Vec<Server>,
    lab: Option<Lab>,
    _balancer: Balancer,
}

impl Farm {
    /// Starts a balancer, a coordinator and agents under `dir`.
    pub(super) fn start(dir: &Path, kind: Kind, style: Style) -> Result<Self> {
        let ports = free_ports(5)?;
        let names: Vec<String> = match style {
            Style::Rolling => (1..=4).map(|number| format!("h{number}")).collect(),
            Style::Parallel => SLOTS.map(str::to_owned).to_vec(),
        };
        let servers: Vec<Server> =
            names.into_iter().zip(&ports[1..]).map(|(name, port)| Server { name, port: *port }).collect();
        let mut lab = Lab::start(&demo_executable()?, &dir.join("lab"))?;
        let balancer_dir = dir.join("balancer");
        let mut includes = Vec::new();
        let on_hosts = || servers.iter().take(style.hosts()).zip(1..);
        for (server, number) in on_hosts() {
            let name = format!("h{number}");
            // nginx does not start with a file missing; this is what a person writes once.
            let app_dir = lab.dir().join("hosts").join(&name).join("srv").join(APP);
            fs::create_dir_all(&app_dir)?;
            let include = app_dir.join("nginx-server.conf");
            fs::write(&include, format!("server 127.0.0.1:{} down;\n", server.port))?;
            includes.push(include);
        }
        let balancer = Balancer::start(kind, &balancer_dir, ports[0], &servers, &includes)?;
        for (server, number) in on_hosts() {
            let variable = |name: &str, value: &str| (APP.to_owned(), name.to_owned(), value.to_owned());
            let variables = vec![
                variable("WEB", path_text(&demo_executable()?)?),
                variable("SERVER", &server.name),
                variable("PORT", &server.port.to_string()),
                variable("HAPROXY", path_text(&balancer::socket(&balancer_dir))?),
                variable("NGINX_CONF", path_text(&balancer::config(&balancer_dir))?),
                variable("NGINX_PID", path_text(&balancer::pid_file(&balancer_dir))?),
            ];
            let options = AgentOptions { variables, ..AgentOptions::default() };
            lab.add_host(&format!("h{number}"), "berlin", options)?;
        }
        lab.wait_connected()?;
        Ok(Self {
            kind,
            style,
            dir: dir.to_owned(),
            port: ports[0],
            servers,
            lab: Some(lab),
            _balancer: balancer,
        })
    }

    pub(super) fn lab(&self) -> &Lab {
        self.lab.as_ref().expect("it is taken at the end only")
    }

    /// Returns where requests go.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Makes a version.
    pub(super) fn release(&self, version: &str, quality: Quality) -> Result<()> {
        let tree = self.dir.join("tree");
        let page = format!("shop {version}\n{}end {version}\n", "a line of the page\n".repeat(40));
        let health = if quality == Quality::Bad { "degraded\n".into() } else { format!("ok {version}\n") };
        let fails =
            if quality == Quality::FailsLate { format!(" --fails-after {BORNE}") } else { String::new() };
        // The web server ends with its standard input.
        let serve = format!(
            "#!/bin/sh\nsleep infinity | \"$WEB\" role web --root \"$RELEASE_DIR\" --port \"$PORT\"{fails}\n"
        );
        write_tree(
            &tree,
            &[
                ("sluice.toml", self.spec(quality).into_bytes(), false),
                ("bin/serve", serve.into(), true),
                ("index.txt", page.into_bytes(), false),
                ("health", health.into_bytes(), false),
            ],
        )?;
        self.lab().release(APP, version, &tree)?;
        Ok(())
    }

    /// Returns the end of what the applications have printed.
    pub(super) fn output(&self) -> String {
        let mut text = String::new();
        for host in self.lab().hosts() {
            for slot in ["main", SLOTS[0], SLOTS[1]] {
                let path = host.app_dir(APP).join("service").join(slot).join("output.log");
                let log = fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                for line in &lines[lines.len().saturating_sub(10)..] {
                    text += &format!("{} {slot}: {line}\n", host.name());
                }
            }
        }
        text
    }

    fn spec(&self, quality: Quality) -> String {
        const BASE: &str = r#"
[service]
exec = ["bin/serve"]
stop_timeout = "10s"

[gate]
deadline = "3s"
bake = "BAKE"

[[health]]
type = "http"
url = "http://127.0.0.1:${PORT}/self-check"
interval = "50ms"

[[health]]
type = "http"
url = "http://127.0.0.1:${PORT}/health"
contains = "ok ${VERSION}"
interval = "50ms"
successes = 2
"#;
        let traffic = match (self.kind, self.style) {
            (Kind::Haproxy, Style::Rolling) => HAPROXY.replace("NAME", "${SERVER}"),
            (Kind::Haproxy, Style::Parallel) => HAPROXY.replace("NAME", "${SLOT}"),
            (Kind::Nginx, _) => NGINX.to_owned(),
        };
        let parallel = match self.style {
            Style::Rolling => String::new(),
            Style::Parallel => {
                let slots: Vec<String> = self
                    .servers
                    .iter()
                    .map(|s| format!("{} = {{ PORT = \"{}\" }}", s.name, s.port))
                    .collect();
                format!("[parallel]\nslots = {{ {} }}\n{LOAD}", slots.join(", "))
            }
        };
        // Longer than it takes to send what is borne.
        let bake = if quality == Quality::FailsLate { "10s" } else { "300ms" };
        format!("{}{traffic}{parallel}", BASE.replace("BAKE", bake))
    }

    /// Ends everything, the applications too.
    pub(super) fn stop(mut self) -> Result<()> {
        let mut lab = self.lab.take().expect("it is taken here only");
        let stopped = lab.stop();
        end_applications(&lab)?;
        lab.hosts().iter().try_for_each(|host| host.fsck(lab.executable()))?;
        stopped
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        if let Some(mut lab) = self.lab.take() {
            // Something else has failed and is told.
            let _ = lab.stop();
            let _ = end_applications(&lab);
        }
    }
}

const HAPROXY: &str = r#"
[traffic.haproxy]
sockets = ["${HAPROXY}"]
servers = ["web/NAME"]
"#;

const NGINX: &str = r#"
[traffic.nginx]
server = "127.0.0.1:${PORT}"
test = ["nginx", "-t", "-q", "-c", "${NGINX_CONF}"]
reload = ["nginx", "-s", "reload", "-c", "${NGINX_CONF}"]
pid = "${NGINX_PID}"
"#;

const LOAD: &str = r#"
[load]
url = "http://127.0.0.1:${PORT}/"
rate = 200
duration = "500ms"
timeout = "5s"
p99 = "2s"
errors = "1%"
compare = { errors = "1%" }
"#;

/// Ends the applications, which outlive their agents.
fn end_applications(lab: &Lab) -> Result<()> {
    for host in lab.hosts() {
        let Ok(slots) = fs::read_dir(host.app_dir(APP).join("service")) else { continue };
        for slot in slots {
            let socket = slot?.path().join("control.sock");
            if let Ok(mut stream) = UnixStream::connect(&socket) {
                stream.write_all(b"stop\n")?;
            }
            wait_for("an application to end", PATIENCE, || Ok((!socket.exists()).then_some(())))?;
        }
    }
    Ok(())
}

/// Finds so many ports on loopback that nobody uses. Below those that the system gives to clients: one that opens two thousand
/// connections a second would take the port of an application that is just being started anew.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let first = range.split_whitespace().next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(u16::MAX);
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports: Vec<u16> = (10_000..first).rev().filter(is_free).take(count).collect();
    ensure!(ports.len() == count, "no {count} ports are free below {first}");
    Ok(ports)
}

//! A real balancer on loopback.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::lab::{PATIENCE, Process, wait_for};

/// Which balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Haproxy,
    Nginx,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Haproxy, Self::Nginx];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// Says why it cannot be shown here.
    pub(super) fn obstacle(self) -> Option<String> {
        let asked =
            Command::new(self.program()).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
        (!asked.is_ok_and(|status| status.success())).then(|| format!("{} is not installed", self.program()))
    }
}

/// A server behind the balancer.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) port: u16,
}

/// A running balancer.
pub(super) struct Balancer {
    kind: Kind,
    process: Option<Process>,
}

/// Where the balancer's runtime socket is, and its configuration.
pub(super) fn socket(dir: &Path) -> PathBuf {
    dir.join("admin.sock")
}

pub(super) fn config(dir: &Path) -> PathBuf {
    dir.join("balancer.conf")
}

pub(super) fn pid_file(dir: &Path) -> PathBuf {
    dir.join("nginx.pid")
}

impl Balancer {
    /// Starts a balancer on `port`: HAProxy with these servers, nginx with those that these files name.
    pub(super) fn start(
        kind: Kind,
        dir: &Path,
        port: u16,
        servers: &[Server],
        includes: &[PathBuf],
    ) -> Result<Self> {
        fs_err::create_dir_all(dir)?;
        let text = match kind {
            Kind::Haproxy => haproxy(dir, port, servers),
            Kind::Nginx => nginx(dir, port, includes),
        };
        fs_err::write(config(dir), text)?;
        let mut command = Command::new(kind.program());
        match kind {
            Kind::Haproxy => command.arg("-db").arg("-f").arg(config(dir)),
            Kind::Nginx => command.arg("-c").arg(config(dir)),
        };
        let mut process = Process::start(kind.program(), command, &dir.join("balancer.log"))?;
        wait_for("the balancer to listen", PATIENCE, || {
            process.check_running()?;
            Ok(TcpStream::connect(("127.0.0.1", port)).ok())
        })?;
        Ok(Self { kind, process: Some(process) })
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            // nginx ends its workers when it is asked; HAProxy has none, and tells of TERM by its status.
            let _ = match self.kind {
                Kind::Haproxy => process.kill(),
                Kind::Nginx => process.stop(),
            };
        }
    }
}

fn haproxy(dir: &Path, port: u16, servers: &[Server]) -> String {
    let servers: String = servers
        .iter()
        .map(|Server { name, port }| {
            format!("  server {name} 127.0.0.1:{port} check inter 100ms fall 2 rise 1\n")
        })
        .collect();
    format!(
        "global\n  stats socket {} mode 600 level admin\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n\
         frontend front\n  bind 127.0.0.1:{port}\n  default_backend web\n\
         backend web\n  balance roundrobin\n  option httpchk GET /health\n{servers}",
        socket(dir).display()
    )
}

fn nginx(dir: &Path, port: u16, includes: &[PathBuf]) -> String {
    let includes: String = includes.iter().map(|path| format!("    include {};\n", path.display())).collect();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("  {what}_temp_path {}/{what};\n", dir.display()))
        .collect();
    format!(
        "daemon off;\nuser root;\nworker_processes 2;\npid {};\nerror_log {}/error.log;\n\
         events {{ worker_connections 4096; }}\nhttp {{\n  access_log off;\n{temporary}\
         \x20 upstream web {{\n{includes}  }}\n\
         \x20 server {{\n    listen 127.0.0.1:{port};\n    keepalive_requests 1000000;\n    location / {{ proxy_pass http://web; }}\n  }}\n}}\n",
        pid_file(dir).display(),
        dir.display(),
    )
}

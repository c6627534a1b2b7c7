//! An rsync server on loopback.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::lab::{PATIENCE, Process, wait_for};
use crate::measure::cpu_of;
use crate::peers::Tool;

/// A running server; it ends when dropped.
pub(super) struct RsyncServer {
    port: u16,
    process: Process,
}

impl RsyncServer {
    /// Serves `source`; its files lie in `dir`. Nothing where there is no rsync.
    pub(super) fn start(dir: &Path, source: &Path) -> Result<Option<Self>> {
        if !Tool::Rsync.is_available(dir) {
            return Ok(None);
        }
        // A port that was free a moment ago: rsync cannot choose one itself.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = dir.join("rsyncd.conf");
        let text = format!(
            "use chroot = no\n[tree]\npath = {}\nread only = yes\nuid = 0\ngid = 0\n",
            source.display()
        );
        fs_err::write(&config, text)?;
        let mut command = Command::new("rsync");
        command.args([
            "--daemon",
            "--no-detach",
            "--address=127.0.0.1",
            &format!("--port={port}"),
            "--config",
        ]);
        command.arg(&config);
        let process = Process::start("rsync", command, &dir.join("rsyncd.log"))?;
        wait_for("rsync to listen", PATIENCE, || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok()))?;
        Ok(Some(Self { port, process }))
    }

    /// Returns the CPU time of the server and of the children that have served.
    pub(super) fn cpu(&self) -> Result<Duration> {
        cpu_of(self.process.id())
    }

    /// Returns what a client asks for.
    pub(super) fn url(&self) -> String {
        format!("rsync://127.0.0.1:{}/tree/", self.port)
    }
}

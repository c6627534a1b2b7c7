//! The base: a small Debian with systemd, made once by debootstrap and kept beside the build.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use fs_err as fs;

use super::alone::command;
use crate::faults::disk::is_installed;
use crate::lab::path_text;
use crate::measure;

/// The release of Debian; part of the name of the base, as is whatever else changes it.
const SUITE: &str = "bookworm";
/// What it has beside the least that a system needs.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2";
/// What is needed here to make it and to run machines on it, each with its package.
const TOOLS: [(&str, &str); 5] = [
    ("debootstrap", "debootstrap"),
    ("systemd-nspawn", "systemd-container"),
    ("nsenter", "util-linux"),
    ("ip", "iproute2"),
    ("dpkg-deb", "dpkg"),
];
/// What nobody reads on a machine that lives for a minute.
const UNREAD: [&str; 6] = [
    "var/cache/apt",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
];

/// The directory that every machine shows below its own writes.
#[derive(Debug, Clone)]
pub struct Base {
    path: PathBuf,
}

impl Base {
    /// Says why there can be no machines here; nothing where there can.
    pub fn obstacle() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("machines need root".into());
        }
        let missing: Vec<&str> =
            TOOLS.iter().filter(|(tool, _)| !is_installed(tool)).map(|(_, package)| *package).collect();
        if !missing.is_empty() {
            return Some(format!("not installed: {}", missing.join(", ")));
        }
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let lacking = ["overlay", "cgroup2"].into_iter().find(|name| !known.contains(name))?;
        Some(format!("the kernel has no {lacking}"))
    }

    /// Returns the base under `dir`, and makes it where it is not there yet.
    pub fn get(dir: &Path) -> Result<Self> {
        let path = dir.join(format!("base-{SUITE}"));
        if !path.exists() {
            println!("       making the base of all machines, which takes a minute");
            fs::create_dir_all(dir)?;
            let part = dir.join(format!("base-{SUITE}.part"));
            if part.exists() {
                fs::remove_dir_all(&part)?;
            }
            make(&part)?;
            fs::rename(&part, &path)?;
        }
        Ok(Self { path })
    }

    /// Returns where it stands.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn make(path: &Path) -> Result<()> {
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE]).arg(path);
    measure::run(debootstrap).context("cannot make the base; does a Debian mirror answer from here?")?;
    for unread in UNREAD {
        fs::remove_dir_all(path.join(unread))?;
    }
    for partial in ["var/cache/apt/archives/partial", "var/lib/apt/lists/partial"] {
        fs::create_dir_all(path.join(partial))?;
    }
    // Empty, it is filled at the boot of each machine.
    fs::write(path.join("etc/machine-id"), "")?;
    fs::remove_file(path.join("etc/hostname"))?;
    command("chroot", &[path_text(path)?, "systemctl", "--quiet", "enable", "systemd-networkd"])?;
    // There is no terminal to log in at.
    command("chroot", &[path_text(path)?, "systemctl", "--quiet", "mask", "console-getty.service"])
}

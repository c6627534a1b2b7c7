//! A coordinator and machines with the agent installed, as an operator would install it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::alone::OUTSIDE;
use super::{Base, Machine, manual};
use crate::lab::{Lab, PATIENCE, path_text, wait_for, write_tree};
use crate::measure;

/// What the machines run as the web application, by its path inside.
const WEB: &str = "/usr/local/bin/sluice-demo";

/// The agent's package.
const PACKAGE: &str = "sluice-agent.deb";

/// Has the agent use a disk to its end: it is the disk of the machine that the tests run on, which may be nearly full.
const KEEP_NOTHING_FREE: &str = "printf '\\n[retention]\\ndisk_floor = \"0%%\"\\n' >> /etc/sluice/agent.toml && systemctl restart sluice-agent";

/// A coordinator outside and enrolled machines.
pub struct Site {
    dir: PathBuf,
    lab: Lab,
    machines: Vec<Machine>,
}

impl Site {
    /// Starts a coordinator and boots so many machines; `executable` can take roles, `agent` is the program that is installed.
    pub fn start(base: &Base, dir: &Path, executable: &Path, agent: &Path, count: u8) -> Result<Self> {
        let lab = Lab::start_at(executable, &dir.join("lab"), OUTSIDE, &["--effort", "quick"])?;
        let package = dir.join(PACKAGE);
        build_package(agent, &package)?;
        let mut site = Self { dir: dir.to_owned(), lab, machines: Vec::new() };
        for number in 1..=count {
            let name = format!("m{number}");
            let mut machine = Machine::new(base, &dir.join(&name), &name, number)?;
            machine.show(executable.to_owned(), WEB);
            machine.boot()?;
            site.install(&machine, &package)?;
            site.machines.push(machine);
        }
        site.wait_connected(usize::from(count))?;
        Ok(site)
    }

    /// Installs and enrols the agent with the commands of the documentation.
    fn install(&self, machine: &Machine, package: &Path) -> Result<()> {
        fs_err::copy(package, machine.path("/root/sluice-agent.deb"))?;
        fs_err::copy(
            sluice_common::keys::public_path(&self.lab.key()),
            machine.path("/root/release.key.pub"),
        )?;
        machine.write("/root/join.token", &self.lab.join_token(machine.name(), "berlin")?)?;
        let address = self.lab.address();
        let commands = manual::commands(
            manual::OPERATIONS,
            "On a host with systemd",
            &[
                ("coordinator.example:7443", &address),
                ("./sluice-agent_VERSION_amd64.deb", "./sluice-agent.deb"),
            ],
        )?;
        for line in commands {
            machine.run(&format!("cd /root && {line}"))?;
        }
        machine.run(KEEP_NOTHING_FREE)?;
        Ok(())
    }

    /// Waits until so many hosts have a session.
    pub fn wait_connected(&self, count: usize) -> Result<()> {
        wait_for("the machines to connect", PATIENCE, || {
            let hosts = self.lab.operator().hosts()?;
            Ok((hosts.iter().filter(|host| host.connected).count() >= count).then_some(()))
        })
    }

    /// Registers a release of these files.
    pub fn release(&self, app: &str, version: &str, files: &[(&str, Vec<u8>, bool)]) -> Result<()> {
        let tree = self.dir.join("tree");
        if tree.exists() {
            fs_err::remove_dir_all(&tree)?;
        }
        write_tree(&tree, files)?;
        self.lab.release(app, version, &tree)?;
        Ok(())
    }

    /// Returns the coordinator and its operator.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Returns the coordinator and its operator.
    pub fn lab_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }

    /// Returns the package that the agent was installed from.
    pub fn package(&self) -> PathBuf {
        self.dir.join(PACKAGE)
    }

    /// Returns the machines.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// Returns a machine.
    pub fn machine_mut(&mut self, number: usize) -> &mut Machine {
        &mut self.machines[number]
    }
}

fn build_package(agent: &Path, package: &Path) -> Result<()> {
    ensure!(agent.exists(), "{} is not built; start deploy-tests/show, which builds it", agent.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/packaging/build-deb");
    let mut command = Command::new(path_text(&script)?);
    command.args([package, agent]);
    measure::run(command)?;
    Ok(())
}

//! What the stories share, made once: the trees of every version, a key, and the content as a coordinator would serve it.
//! A [`Site`] is one host's place: its applications on the disk that faults strike, its evidence beside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::PoisonError;

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use sluice_agent::rehearsal::{self, Call, Sighting, store};
use sluice_common::digest::Digest;
use sluice_common::keys::SecretKey;
use sluice_common::tree::Tree;

use super::disk::NAMESPACES;
use super::points::Strike;
use super::story::{DATA_FILE, Story, VERSIONS, Version};
use crate::lab::{KEEP_NOTHING_FREE, noise, write_tree};
use crate::role::Role;

/// What the stories share.
#[derive(Debug)]
pub struct Scene {
    executable: PathBuf,
    dir: PathBuf,
    packages: BTreeMap<&'static str, Digest>,
}

impl Scene {
    /// Makes the trees of the stories, the key and the content below `dir`. `executable` can take roles.
    pub fn make(executable: &Path, dir: &Path) -> Result<Self> {
        let mut scene = Self::empty(executable, dir)?;
        for (version, spec) in VERSIONS {
            write_version(&scene.tree(version), version, &spec.concat())?;
        }
        scene.pack(&VERSIONS.map(|(version, _)| version))?;
        Ok(scene)
    }

    /// Makes a scene without packages; trees may be put where [`Self::tree`] says, and [`Self::pack`]ed.
    pub fn empty(executable: &Path, dir: &Path) -> Result<Self> {
        let scene =
            Self { executable: executable.to_owned(), dir: dir.to_owned(), packages: BTreeMap::new() };
        fs::create_dir_all(scene.store())?;
        SecretKey::generate()?.store(&scene.key())?;
        Ok(scene)
    }

    /// Packs versions, and every way from one of them to another.
    pub fn pack(&mut self, versions: &[Version]) -> Result<()> {
        let mut trees = Vec::new();
        for version in versions {
            let tree = Tree::scan(&self.tree(version))?;
            self.packages.insert(*version, tree.manifest().digest());
            trees.push(tree);
        }
        for target in &trees {
            store::fill(&self.store(), None, target)?;
            for base in trees.iter().filter(|base| base.manifest().digest() != target.manifest().digest()) {
                store::fill(&self.store(), Some(base), target)?;
            }
        }
        Ok(())
    }

    /// Returns the source tree of a version.
    pub fn tree(&self, version: &str) -> PathBuf {
        self.dir.join("trees").join(version)
    }

    /// Returns the package of a version.
    pub fn package(&self, version: &str) -> Digest {
        self.packages[version]
    }

    /// Returns where content is kept.
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    fn key(&self) -> PathBuf {
        self.dir.join("release.key")
    }
}

/// Files that every version has in common, or some with a few bytes changed, in the shapes that packages have.
fn write_version(root: &Path, version: &str, spec: &str) -> Result<()> {
    let text = |seed: u64, len: usize| noise(seed, len);
    let mut edited = noise(7, 60_000);
    edited[30_000..30_000 + version.len()].copy_from_slice(version.as_bytes());
    let own = Digest::of(version.as_bytes()).as_bytes()[0];
    write_tree(
        root,
        &[
            ("sluice.toml", spec.as_bytes().to_vec(), false),
            ("VERSION", version.as_bytes().to_vec(), false),
            ("bin/shop", text(1, 90_000), true),
            ("bin/tool", text(2, 3_000), true),
            ("lib/edited", edited, false),
            ("lib/own", text(u64::from(own) + 100, 40_000), false),
            ("lib/deep/er/common", text(3, 20_000), false),
            ("share/empty", Vec::new(), false),
            ("share/twice", text(4, 5_000), false),
            ("share/again", text(4, 5_000), true),
            ("share/note", version.repeat(50).into_bytes(), false),
        ],
    )?;
    fs::os::unix::fs::symlink("deep/er/common", root.join("lib/link"))?;
    Ok(())
}

/// Where one host stands.
#[derive(Debug, Clone)]
pub struct Site {
    /// What faults strike: the applications.
    disk: PathBuf,
    /// What they leave alone: configuration, sightings, what hooks wrote.
    evidence: PathBuf,
}

impl Site {
    /// Makes a site; `disk` holds the applications as they stand, if any do. Nothing stays free of it: what is under way is to meet
    /// its end, where a fault takes the room.
    pub fn open(scene: &Scene, disk: &Path, evidence: &Path) -> Result<Self> {
        let site = Self { disk: disk.to_owned(), evidence: evidence.to_owned() };
        fs::create_dir_all(site.root())?;
        if evidence.exists() {
            fs::remove_dir_all(evidence)?;
        }
        fs::create_dir_all(evidence)?;
        let public = SecretKey::load(&scene.key())?.public();
        let config = format!(
            "coordinators = [\"127.0.0.1:1\"]\ndata = {:?}\nroot = {:?}\ntrusted_keys = [\"{public}\"]\n\
             {KEEP_NOTHING_FREE}[apps.{}.variables]\nLOG = {:?}\n",
            evidence.join("data"),
            site.root(),
            rehearsal::APP,
            site.hook_log(),
        );
        fs::write(site.config(), config)?;
        Ok(site)
    }

    /// Returns where applications stand.
    pub fn root(&self) -> PathBuf {
        self.disk.join("srv")
    }

    /// Returns the application's directory.
    pub fn app(&self) -> PathBuf {
        self.root().join(rehearsal::APP)
    }

    fn config(&self) -> PathBuf {
        self.evidence.join("agent.toml")
    }

    fn hook_log(&self) -> PathBuf {
        self.evidence.join("hooks")
    }

    /// Returns what hooks wrote down, a line each.
    pub fn hooks(&self) -> Vec<String> {
        let text = fs::read_to_string(self.hook_log()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Returns which version the shared data are for; nothing where there are none.
    pub fn data(&self) -> Option<String> {
        let text = fs::read_to_string(self.app().join(DATA_FILE)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Says whether the history has a line for an order.
    pub fn has_history(&self, generation: u64) -> bool {
        let text = fs::read(self.app().join("history.log")).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(&format!("generation={generation} "))
    }

    /// Returns what the agent has told, in turn.
    pub fn sightings(&self) -> Result<Vec<Sighting>> {
        rehearsal::sightings(&self.evidence.join("sightings"))
    }

    /// Takes for told what an agent told elsewhere.
    pub fn remember<'a>(&self, sightings: impl Iterator<Item = &'a Sighting>) -> Result<()> {
        let lines: Vec<String> = sightings.map(serde_json::to_string).collect::<Result<_, _>>()?;
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        Ok(fs::write(self.evidence.join("sightings"), text)?)
    }

    /// Returns what the agent has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.evidence.join("log")).unwrap_or_default()
    }

    /// Plays what comes before the story's last order; afterwards nothing is remembered of it but what is on the disk.
    pub fn prepare(&self, scene: &Scene, story: &Story) -> Result<()> {
        let calls = story.prelude(scene);
        if !calls.is_empty() {
            let status = self.run(scene, &calls)?;
            ensure!(status.success(), "{} cannot be prepared: {status}\n{}", story.name, self.log());
        }
        for name in ["sightings", "hooks", "log"] {
            match fs::remove_file(self.evidence.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Carries out orders in a process of their own and returns how it ended.
    pub fn run(&self, scene: &Scene, calls: &[Call]) -> Result<ExitStatus> {
        self.run_under(Command::new("env"), scene, calls)
    }

    /// Carries out orders while faults strike.
    pub fn run_struck(&self, scene: &Scene, calls: &[Call], strike: &Strike) -> Result<ExitStatus> {
        self.run_under(strike.tracer(), scene, calls)
    }

    /// Carries out orders as on a host that was booted since the last time.
    pub fn run_rebooted(&self, scene: &Scene, calls: &[Call]) -> Result<ExitStatus> {
        let boot = self.evidence.join("boot");
        fs::write(&boot, "00000000-1111-2222-3333-444444444444\n")?;
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", REBOOTED, "sh"]).arg(boot);
        let _beside = NAMESPACES.read().unwrap_or_else(PoisonError::into_inner);
        self.run_under(command, scene, calls)
    }

    /// Carries out orders, with a line of shell that is run the moment a phase is told.
    pub fn run_troubled(
        &self,
        scene: &Scene,
        calls: &[Call],
        (phase, line): (&str, &str),
    ) -> Result<ExitStatus> {
        let trouble = format!("--trouble={phase}:{line}");
        Ok(self.start_under(Command::new("env"), scene, calls, &[&trouble])?.wait()?)
    }

    /// Carries out orders under a command that runs the one which is appended to it.
    pub(super) fn run_under(&self, command: Command, scene: &Scene, calls: &[Call]) -> Result<ExitStatus> {
        Ok(self.start_under(command, scene, calls, &[])?.wait()?)
    }

    /// Begins to carry out orders; the process is the caller's to wait for.
    pub fn start(&self, scene: &Scene, calls: &[Call]) -> Result<Child> {
        // env becomes what it starts, so the process is the agent's own.
        self.start_under(Command::new("env"), scene, calls, &[])
    }

    fn start_under(
        &self,
        mut command: Command,
        scene: &Scene,
        calls: &[Call],
        options: &[&str],
    ) -> Result<Child> {
        let rehearse = Role::Rehearse.command(&scene.executable);
        command.arg(rehearse.get_program()).args(rehearse.get_args());
        command.arg("--config").arg(self.config()).arg("--store").arg(scene.store());
        command.arg("--key").arg(scene.key()).arg("--sightings").arg(self.evidence.join("sightings"));
        command.args(options).args(calls.iter().map(Call::to_string));
        let log = fs::OpenOptions::new().append(true).create(true).open(self.evidence.join("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.into_parts().0);
        command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))
    }

    /// Runs `sluice-agent fsck` and returns what it finds, a line each.
    pub fn fsck(&self, scene: &Scene) -> Result<Vec<String>> {
        let output = Role::Agent
            .command(&scene.executable)
            .arg("fsck")
            .arg("--config")
            .arg(self.config())
            .output()
            .context("cannot start fsck")?;
        let found = String::from_utf8_lossy(&output.stdout);
        let findings: Vec<String> = found.lines().map(str::to_owned).collect();
        if !output.status.success() && findings.is_empty() {
            bail!("fsck failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(findings)
    }
}

/// Gives what follows another boot's name to read.
const REBOOTED: &str = r#"mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@""#;

//! Real trees: public packages, fetched by name and unpacked, in two consecutive versions.
//!
//! Kept between runs below the system's temporary directory, since a published version never changes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use sluice_common::tree::Tree;

use crate::lab::path_text;

/// Platforms of wheels that a host with glibc 2.28 can run.
const WHEEL_PLATFORMS: [&str; 3] = ["manylinux2014_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64"];
const ARM_PLATFORMS: [&str; 1] = ["manylinux2014_aarch64"];

/// Two consecutive versions of what somebody deploys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pair {
    /// One static binary of 24 MB.
    Ruff,
    /// numpy, scipy and pandas: 220 MB in 3,900 files, half of them in shared objects.
    Python,
    /// The same packages, in which three small files changed.
    Config,
    /// next, react and typescript: 240 MB in 8,900 files.
    Node,
    /// pyspark: 335 MB, mostly jars.
    Spark,
    /// The binary of [`Pair::Ruff`] for aarch64: what travels, as no host of this machine runs it.
    Arm,
}

impl Pair {
    /// Every pair that is also installed, the cheap ones first.
    pub const ALL: [Self; 5] = [Self::Ruff, Self::Config, Self::Python, Self::Node, Self::Spark];

    /// Returns the pair's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ruff => "ruff",
            Self::Python => "python",
            Self::Config => "config",
            Self::Node => "next",
            Self::Spark => "pyspark",
            Self::Arm => "ruff-aarch64",
        }
    }

    /// Returns what the pair is made of.
    pub fn what(self) -> &'static str {
        match self {
            Self::Ruff => "ruff 0.17.3 -> 0.17.4",
            Self::Python => "numpy 2.4.5, scipy 1.17.0, pandas 3.1.0 -> 2.4.6, 1.17.1, 3.1.1",
            Self::Config => "numpy 2.4.6, scipy 1.17.1, pandas 3.1.1, a line more in three small files",
            Self::Node => "next 16.4.5, react 19.3.0, typescript 6.0.2 -> 16.4.6, 19.3.1, 6.0.3",
            Self::Spark => "pyspark 3.5.6 -> 3.5.7",
            Self::Arm => "ruff 0.17.3 -> 0.17.4 for aarch64",
        }
    }

    /// Fetches both versions: the old tree and the new one. Nothing where what fetches them is missing.
    pub fn fetch(self) -> Result<Option<(PathBuf, PathBuf)>> {
        let (old, new) = match self {
            Self::Ruff => (wheels("ruff", &["ruff==0.17.3"])?, wheels("ruff", &["ruff==0.17.4"])?),
            Self::Python => {
                let old = ["numpy==2.4.5", "scipy==1.17.0", "pandas==3.1.0"];
                (wheels("python", &old)?, wheels("python", &PYTHON_NEW)?)
            }
            Self::Config => {
                let old = wheels("python", &PYTHON_NEW)?;
                (old.clone(), old.map(|tree| changed_in_three_files(&tree)).transpose()?)
            }
            Self::Node => (
                modules("next", &["next@16.4.5", "react@19.3.0", "react-dom@19.3.0", "typescript@6.0.2"])?,
                modules("next", &["next@16.4.6", "react@19.3.1", "react-dom@19.3.1", "typescript@6.0.3"])?,
            ),
            Self::Spark => (source("pyspark==3.5.6")?, source("pyspark==3.5.7")?),
            Self::Arm => {
                let ruff = |package| wheels_for(&ARM_PLATFORMS, "ruff-aarch64", &[package]);
                (ruff("ruff==0.17.3")?, ruff("ruff==0.17.4")?)
            }
        };
        Ok(old.zip(new))
    }
}

const PYTHON_NEW: [&str; 3] = ["numpy==2.4.6", "scipy==1.17.1", "pandas==3.1.1"];

/// Unpacks public wheels into one tree. Nothing where there is no pip or no package registry.
pub fn wheels(name: &str, packages: &[&str]) -> Result<Option<PathBuf>> {
    wheels_for(&WHEEL_PLATFORMS, name, packages)
}

fn wheels_for(platforms: &[&str], name: &str, packages: &[&str]) -> Result<Option<PathBuf>> {
    kept(&format!("{name}-{}", packages.join("-")), |scratch, tree| {
        let mut command = pip_download(scratch);
        command.args(["--only-binary", ":all:", "--python-version", "3.11"]);
        for platform in platforms {
            command.args(["--platform", platform]);
        }
        if !succeeds(command.args(packages)) {
            return Ok(false);
        }
        for wheel in fs::read_dir(scratch)? {
            let wheel = wheel?.path();
            let mut unpack = Command::new("python3");
            ensure!(
                succeeds(unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(tree)),
                "cannot unpack {}",
                wheel.display()
            );
        }
        Ok(true)
    })
}

/// Unpacks the source distribution of a public package. Nothing where there is no pip or no package registry.
fn source(package: &str) -> Result<Option<PathBuf>> {
    kept(&format!("source-{package}"), |scratch, tree| {
        let name = package.split('=').next().unwrap_or(package);
        if !succeeds(pip_download(scratch).args(["--no-binary", name, package])) {
            return Ok(false);
        }
        let archive = fs::read_dir(scratch)?.next().context("nothing was fetched")??.path();
        fs::create_dir_all(tree)?;
        let mut unpack = Command::new("tar");
        unpack.arg("-xf").arg(&archive).args(["--strip-components=1", "--no-same-owner", "-C"]).arg(tree);
        ensure!(succeeds(&mut unpack), "cannot unpack {}", archive.display());
        Ok(true)
    })
}

/// Installs public npm packages. Nothing where there is no npm or no package registry.
fn modules(name: &str, packages: &[&str]) -> Result<Option<PathBuf>> {
    kept(&format!("{name}-{}", packages.join("-")), |_, tree| {
        fs::create_dir_all(tree)?;
        let mut command = Command::new("npm");
        command.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact", "--prefix"]);
        Ok(succeeds(command.arg(tree).args(packages)))
    })
}

fn pip_download(into: &Path) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "download", "--quiet", "--no-deps", "-d"]).arg(into);
    command
}

/// Copies a tree and adds a line to three of its small files.
fn changed_in_three_files(tree: &Path) -> Result<PathBuf> {
    let fetched = kept("python-three-files-changed", |_, copy| {
        ensure!(succeeds(Command::new("cp").arg("-a").arg(tree).arg(copy)), "cannot copy {}", tree.display());
        let scanned = Tree::scan(tree)?;
        let small = |size: u64| (1_000..4_000).contains(&size);
        let mut files =
            scanned.manifest().files().filter(|(path, file)| path.extension() == "py" && small(file.size));
        // Spread over the tree, as changes are.
        for _ in 0..3 {
            let (path, _) = files.nth(100).context("too few small files")?;
            let path = path.below(copy);
            fs::write(&path, [&fs::read(&path)?[..], b"# one line more\n"].concat())?;
        }
        Ok(true)
    })?;
    fetched.context("a copy always comes about")
}

/// Returns where a tree of that name stands once it was fetched.
pub fn kept_place(name: &str) -> PathBuf {
    std::env::temp_dir().join("sluice-trees").join(name.replace('/', "+"))
}

/// Returns the tree of that name, made once by `make(scratch, tree)`; nothing when it says that it cannot.
fn kept(name: &str, make: impl FnOnce(&Path, &Path) -> Result<bool>) -> Result<Option<PathBuf>> {
    let tree = kept_place(name);
    if tree.is_dir() {
        return Ok(Some(tree));
    }
    let parent = tree.parent().context("the tree has a parent")?;
    fs::create_dir_all(parent)?;
    let scratch = tempfile::tempdir_in(parent)?;
    let (downloads, unpacked) = (scratch.path().join("downloads"), scratch.path().join("tree"));
    fs::create_dir_all(&downloads)?;
    if !make(&downloads, &unpacked)? {
        return Ok(None);
    }
    match fs::rename(&unpacked, &tree) {
        // Another run was quicker.
        Err(_) if tree.is_dir() => {}
        Err(error) => bail!(error),
        Ok(()) => {}
    }
    Ok(Some(tree))
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Returns a tree's path as text, for a command line.
pub fn text(tree: &Path) -> Result<&str> {
    path_text(tree)
}

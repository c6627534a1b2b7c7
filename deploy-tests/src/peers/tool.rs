//! The programs that peers are: found, or installed where that is possible.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// zstd, and tar.
    Zstd,
    /// rsync.
    Rsync,
    /// casync.
    Casync,
    /// ostree.
    Ostree,
    /// bsdiff and bspatch.
    Bsdiff,
    /// xdelta3.
    Xdelta,
    /// HDiffPatch, as a Python module.
    HDiffPatch,
    /// nginx.
    Nginx,
}

impl Tool {
    /// Every program.
    pub const ALL: [Self; 8] = [
        Self::Zstd,
        Self::Rsync,
        Self::Casync,
        Self::Ostree,
        Self::Bsdiff,
        Self::Xdelta,
        Self::HDiffPatch,
        Self::Nginx,
    ];

    /// Returns the program's name, which is its package's too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Rsync => "rsync",
            Self::Casync => "casync",
            Self::Ostree => "ostree",
            Self::Bsdiff => "bsdiff",
            Self::Xdelta => "xdelta3",
            Self::HDiffPatch => "hdiffpatch",
            Self::Nginx => "nginx",
        }
    }

    /// Says whether the program is there; tries to install it once where it is not.
    pub fn is_available(self, tools: &Path) -> bool {
        self.is_there(tools) || (self.install(tools) && self.is_there(tools))
    }

    fn is_there(self, tools: &Path) -> bool {
        match self {
            Self::HDiffPatch => succeeds(Command::new(python_of(tools)).args(["-c", "import hdiffpatch"])),
            other => succeeds(Command::new("sh").args(["-c", &format!("command -v {}", other.name())])),
        }
    }

    fn install(self, tools: &Path) -> bool {
        let script = match self {
            Self::HDiffPatch => {
                r#"python3 -m venv "$TOOLS/hdiffpatch" && "$TOOLS/hdiffpatch/bin/python" -m pip install --quiet --only-binary :all: hdiffpatch attrs typing_extensions"#
            }
            _ => {
                r#"test "$(id -u)" = 0 && export DEBIAN_FRONTEND=noninteractive && { apt-get install -qq -y "$NAME" || { apt-get update -qq && apt-get install -qq -y "$NAME"; }; }"#
            }
        };
        succeeds(Command::new("sh").args(["-c", script]).env("TOOLS", tools).env("NAME", self.name()))
    }

    fn version(self, tools: &Path) -> Option<String> {
        let script = match self {
            Self::HDiffPatch => {
                let python = python_of(tools);
                // What the module says of itself is always 0.0.0.
                let script = "from importlib.metadata import version; print(version(\"hdiffpatch\"))";
                format!("{} -c '{script}'", python.display())
            }
            Self::Xdelta => "xdelta3 -V".to_owned(),
            // It knows no such option.
            Self::Bsdiff => "dpkg-query -W -f='${Version}' bsdiff".to_owned(),
            Self::Nginx => "nginx -v".to_owned(),
            other => format!("{} --version", other.name()),
        };
        let output = Command::new("sh").args(["-c", &format!("{script} 2>&1")]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().map(str::trim).find(|line| line.chars().any(|c| c.is_ascii_digit()))?;
        let word = line.split([' ', '/', ',', '\'']).find(|word| is_version(word))?;
        Some(word.trim_start_matches('v').to_owned())
    }
}

fn is_version(word: &str) -> bool {
    let word = word.trim_start_matches('v');
    word.starts_with(|c: char| c.is_ascii_digit())
}

/// Returns the version of every program that is there.
pub fn versions(tools: &Path) -> Vec<(Tool, String)> {
    Tool::ALL.into_iter().filter_map(|tool| Some((tool, tool.version(tools)?))).collect()
}

fn python_of(tools: &Path) -> PathBuf {
    tools.join("hdiffpatch/bin/python")
}

/// Returns where programs are installed that have no place of their own; kept between runs.
pub(super) fn directory() -> Result<PathBuf> {
    let directory = std::env::temp_dir().join("sluice-peers");
    fs_err::create_dir_all(&directory)?;
    Ok(directory)
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

//! `sluice-agent guard`: what the host's unit runs. Becomes, as the same process, the agent that `current` leads to; after
//! it has failed to start a few times, the one before, else its own program.
//!
//! It notes each start before it happens; the agent takes the note away once it has proved that it runs. Nothing else is
//! decided here: an agent that starts and is no good goes back by itself.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_common::durable;

use super::PROGRAM;
use crate::config::Config;
use crate::layout::{AppDir, LinkName};
use crate::observe;

/// Names the guard to the agent that it becomes.
pub(crate) const GUARD: &str = "SLUICE_GUARD";
/// Tells the agent in the place of which release it runs, because that one did not start.
pub(crate) const FALLBACK: &str = "SLUICE_GUARD_FALLBACK";
/// Starts of one release without a sign of life after which another is started.
const STARTS_MAX: u32 = 3;
/// Time after which an agent that runs has proved it, coordinator or not.
pub(crate) const PROVED_AFTER: Duration = Duration::from_secs(60);

/// The starts of a release, noted before each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Noted {
    /// The release's directory.
    release: String,
    /// How often it was started since it last proved that it runs.
    starts: u32,
}

/// Which program to become.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    /// What `current` leads to.
    Current,
    /// What ran before it.
    Fallback,
}

/// Chooses for a `current` that leads to `release`, and returns what to note. Pure.
fn choose(noted: Option<Noted>, release: &str) -> (Choice, Noted) {
    let starts = noted.filter(|noted| noted.release == release).map_or(0, |noted| noted.starts);
    let choice = if starts < STARTS_MAX { Choice::Current } else { Choice::Fallback };
    let starts = if starts < STARTS_MAX { starts + 1 } else { starts };
    (choice, Noted { release: release.to_owned(), starts })
}

fn note_path(data: &Path) -> PathBuf {
    data.join("starts.toml")
}

/// Takes the note away: this agent runs.
pub(crate) fn prove(data: &Path) -> io::Result<()> {
    match fs_err::remove_file(note_path(data)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Becomes the agent that is to run, with the arguments that this program was given, but for its command. Returns only why
/// no program could be started.
pub(crate) fn run(config: &Path, arguments: impl IntoIterator<Item = OsString>) -> anyhow::Error {
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return anyhow::Error::from(error).context("cannot find this program"),
    };
    let arguments: Vec<OsString> =
        arguments.into_iter().map(|word| if word == "guard" { "run".into() } else { word }).collect();
    // A configuration that cannot be read is the agent's own to complain of.
    let candidates = Config::load(config).ok().map(|config| candidates(&config)).unwrap_or_default();
    for (program, in_place_of) in candidates {
        let error = become_program(&program, &own, in_place_of.as_deref(), &arguments);
        tracing::error!(program = %program.display(), %error, "agent cannot be started; another is tried");
    }
    let current = Config::load(config)
        .ok()
        .and_then(|config| program(&super::dir(&config.root), LinkName::Current).map(|(release, _)| release));
    anyhow::Error::from(become_program(&own, &own, current.as_deref(), &arguments))
        .context("cannot start the agent")
}

/// Returns the programs to try before this one, in order, each with the release in whose place it is.
fn candidates(config: &Config) -> Vec<(PathBuf, Option<String>)> {
    let dir = super::dir(&config.root);
    let Some((release, current)) = program(&dir, LinkName::Current) else { return Vec::new() };
    let noted =
        fs_err::read_to_string(note_path(&config.data)).ok().and_then(|text| toml::from_str(&text).ok());
    let (choice, note) = choose(noted, &release);
    let text = toml::to_string(&note).unwrap_or_default();
    if let Err(error) = durable::write_private(&note_path(&config.data), text.as_bytes()) {
        tracing::warn!(%error, "a start of the agent cannot be noted");
    }
    let previous = program(&dir, LinkName::Previous).map(|(_, previous)| (previous, Some(release.clone())));
    match choice {
        Choice::Current => std::iter::once((current, None)).chain(previous).collect(),
        Choice::Fallback => {
            tracing::error!(
                release,
                starts = note.starts,
                "agent did not start; the one before it is started"
            );
            previous.into_iter().collect()
        }
    }
}

/// Returns the name and the program of the verified release that a link leads to.
fn program(dir: &AppDir, name: LinkName) -> Option<(String, PathBuf)> {
    let link = observe::link(dir, name).ok()?;
    let package = link.installed()?.package;
    Some((package.short(), dir.release(&package).join(PROGRAM)))
}

/// Becomes a program; returns why that failed.
fn become_program(
    program: &Path,
    guard: &Path,
    in_place_of: Option<&str>,
    arguments: &[OsString],
) -> io::Error {
    let mut command = Command::new(program);
    command.args(arguments).env(GUARD, guard).env_remove(FALLBACK);
    if let Some(release) = in_place_of {
        command.env(FALLBACK, release);
    }
    command.exec()
}

/// Becomes the guard again, with the arguments that this agent was started with. Returns only why that failed.
pub(crate) fn give_way(arguments: impl IntoIterator<Item = OsString>) -> io::Error {
    let Some(guard) = std::env::var_os(GUARD) else {
        return io::Error::other("this agent was not started by its guard");
    };
    let arguments = arguments.into_iter().map(|word| if word == "run" { "guard".into() } else { word });
    Command::new(guard).args(arguments).env_remove(GUARD).env_remove(FALLBACK).exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_start_is_given_up() {
        let noted = |release: &str, starts| Some(Noted { release: release.into(), starts });
        for (name, before, expected, starts) in [
            ("first start", None, Choice::Current, 1),
            ("second", noted("b", 1), Choice::Current, 2),
            ("third", noted("b", 2), Choice::Current, 3),
            ("it never said that it runs", noted("b", 3), Choice::Fallback, 3),
            ("another failed", noted("a", 3), Choice::Current, 1),
        ] {
            let (choice, note) = choose(before, "b");
            assert_eq!((choice, note.starts, note.release.as_str()), (expected, starts, "b"), "{name}");
        }
    }
}

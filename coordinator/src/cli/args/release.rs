//! `release`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use sluice_common::digest::Digest;
use sluice_common::name::{AppName, Platform, Version};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ReleaseCommand {
    Create(ReleaseCreateArgs),
    /// Where a release has been, and until when
    #[command(after_help = "Example:\n  sluice release where shop 1.2.0")]
    Where {
        /// The application
        app: AppName,
        /// The version
        #[arg(id = "release_version", value_name = "VERSION")]
        version: Version,
        /// At most so many stays, newest first
        #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// List releases, newest first
    #[command(after_help = "Example:\n  sluice release list shop")]
    List {
        /// Only this application's
        app: Option<AppName>,
    },
}

/// Sign a release here and register it at the coordinator
///
/// A package given as a directory is packed and pushed first. The key never leaves this machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sluice release create --app shop --version 1.2.0 --package ./build --key release.key\n  \
    sluice release create --app shop --version 1.2.0 --package linux-x86_64=./x86 --package linux-aarch64=./arm \\\n    \
    --key release.key --notes-file CHANGES")]
pub(in crate::cli) struct ReleaseCreateArgs {
    /// The application
    #[arg(long)]
    pub(in crate::cli) app: AppName,
    /// The version; Sluice takes it as it is and never orders versions
    // Not `version`: that id belongs to the flag that prints the program's own.
    #[arg(long = "version", id = "release_version", value_name = "VERSION")]
    pub(in crate::cli) version: Version,
    /// A directory, or the digest of a pushed package; with PLATFORM= for one platform. May stand several times
    #[arg(long, required = true, value_name = "[PLATFORM=]DIR|DIGEST")]
    pub(in crate::cli) package: Vec<ReleasePackage>,
    /// Secret key to sign with
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) key: PathBuf,
    /// What is new
    #[arg(long, value_name = "TEXT", conflicts_with = "notes_file")]
    pub(in crate::cli) notes: Option<String>,
    /// File that says what is new
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) notes_file: Option<PathBuf>,
}

/// One `--package`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct ReleasePackage {
    pub(in crate::cli) platform: Platform,
    pub(in crate::cli) source: PackageSource,
}

/// Where a release's package comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum PackageSource {
    /// Pushed already.
    Digest(Digest),
    /// The beginning of a pushed package's digest.
    Prefix(String),
    /// To be packed and pushed.
    Dir(PathBuf),
}

impl FromStr for ReleasePackage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (platform, source) = match text.split_once('=') {
            Some((platform, source)) if !platform.contains('/') => {
                (platform.parse::<Platform>().map_err(|error| error.to_string())?, source)
            }
            Some(_) | None => (Platform::any(), text),
        };
        let source = match (source, source.parse()) {
            ("", _) => return Err("names neither a directory nor a digest".into()),
            (_, Ok(digest)) => PackageSource::Digest(digest),
            (prefix, Err(_)) if prefix.starts_with("sha256:") => PackageSource::Prefix(prefix.to_owned()),
            (dir, Err(_)) => PackageSource::Dir(dir.into()),
        };
        Ok(Self { platform, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_directories_or_digests_with_or_without_a_platform() {
        let digest = Digest::of(b"x");
        let dir = |path: &str| PackageSource::Dir(path.into());
        for (text, platform, source) in [
            ("./build", "any", dir("./build")),
            ("linux-x86_64=out/x86", "linux-x86_64", dir("out/x86")),
            ("./odd=name", "any", dir("./odd=name")),
            (&*digest.to_string(), "any", PackageSource::Digest(digest)),
            (&*format!("linux-arm={digest}"), "linux-arm", PackageSource::Digest(digest)),
            ("sha256:3f2a9c", "any", PackageSource::Prefix("sha256:3f2a9c".into())),
        ] {
            let expected = ReleasePackage { platform: platform.parse().unwrap(), source };
            assert_eq!(text.parse::<ReleasePackage>().unwrap(), expected, "{text}");
        }
        assert!("".parse::<ReleasePackage>().is_err());
        assert!("Linux!=x".parse::<ReleasePackage>().is_err());
    }
}

//! Packages, their files, and releases.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use sluice_common::manifest::{Entry, EntryKind};
use sluice_common::release::SignedRelease;
use sluice_proto::convert::{Invalid, required};
use sluice_proto::v1;

use super::{at_millis, digest};

#[derive(Debug, Serialize)]
pub(in crate::cli) struct Package {
    pub(in crate::cli) digest: String,
    pub(in crate::cli) files: u64,
    pub(in crate::cli) tree_bytes: u64,
    pub(in crate::cli) pushed_at: Option<Timestamp>,
    pub(in crate::cli) pushed_by: String,
    pub(in crate::cli) releases: Vec<String>,
}

/// One entry of a package.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct File {
    pub(in crate::cli) path: String,
    pub(in crate::cli) kind: &'static str,
    pub(in crate::cli) executable: bool,
    pub(in crate::cli) size: Option<u64>,
    pub(in crate::cli) digest: Option<String>,
    pub(in crate::cli) target: Option<String>,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct Release {
    pub(in crate::cli) app: String,
    pub(in crate::cli) version: String,
    pub(in crate::cli) packages: BTreeMap<String, String>,
    pub(in crate::cli) notes: String,
    pub(in crate::cli) key_id: String,
    pub(in crate::cli) created_at: Option<Timestamp>,
    pub(in crate::cli) created_by: String,
}

impl From<v1::Package> for Package {
    fn from(message: v1::Package) -> Self {
        let v1::Package { digest: name, files, tree_bytes, pushed_unix_ms, pushed_by, releases } = message;
        Self {
            digest: digest(&name),
            files,
            tree_bytes,
            pushed_at: at_millis(pushed_unix_ms),
            pushed_by,
            releases,
        }
    }
}

impl From<Entry<'_>> for File {
    fn from(entry: Entry<'_>) -> Self {
        let plain = |kind| Self {
            path: entry.path.to_string(),
            kind,
            executable: false,
            size: None,
            digest: None,
            target: None,
        };
        match entry.kind {
            EntryKind::Directory => plain("directory"),
            EntryKind::Symlink { target } => Self { target: Some(target.to_owned()), ..plain("symlink") },
            EntryKind::File(file) => Self {
                executable: file.executable,
                size: Some(file.size),
                digest: Some(file.digest.to_string()),
                ..plain("file")
            },
        }
    }
}

impl TryFrom<v1::Release> for Release {
    type Error = Invalid;

    fn try_from(message: v1::Release) -> Result<Self, Invalid> {
        let v1::Release { signed, created_unix_ms, created_by } = message;
        let SignedRelease { release, signature } = required("release.signed", signed)?.try_into()?;
        let packages =
            release.packages.iter().map(|(platform, digest)| (platform.to_string(), digest.to_string()));
        Ok(Self {
            app: release.app.to_string(),
            version: release.version.to_string(),
            packages: packages.collect(),
            notes: release.notes,
            key_id: signature.key.id(),
            created_at: at_millis(created_unix_ms),
            created_by,
        })
    }
}

//! `linked` and `linked_files`: what outlives releases. It stands in the application's `shared/` once, and each release
//! has a symlink to it.

use serde::Deserialize;

use super::{FILE_NAME, SpecError};
use crate::manifest::{Entry, EntryKind, Manifest};
use crate::path::{RelPath, RelPathBuf};

/// A directory or file that all releases of an application share.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Linked {
    /// Where it stands, in the release and in `shared/` alike.
    pub path: RelPathBuf,
    /// Permission bits that it is made with.
    pub mode: Option<u32>,
    /// Whose it is made; the user of the application's service otherwise, and else the agent's own.
    pub owner: Option<String>,
}

/// As written: `"uploads"`, or `{ path = "uploads", mode = "0750", owner = "www" }`.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "write a path, as in \"uploads\", or { path = \"uploads\", mode = \"0750\", owner = \"www\" }"
)]
enum Written {
    Path(String),
    Table(Table),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    path: String,
    mode: Option<String>,
    owner: Option<String>,
}

impl TryFrom<Written> for Linked {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Table { path, mode, owner } = match written {
            Written::Path(path) => Table { path, mode: None, owner: None },
            Written::Table(table) => table,
        };
        let path = path.parse().map_err(|error| format!("{error}; name a place inside the package"))?;
        let mode = mode.map(|text| permissions(&text)).transpose()?;
        Ok(Self { path, mode, owner })
    }
}

fn permissions(text: &str) -> Result<u32, String> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if is_octal && mode <= 0o777 => Ok(mode),
        Ok(_) | Err(_) => Err(format!("mode {text:?} is no permission bits; write them as in \"0750\"")),
    }
}

/// Checks that no two linked paths are one, or one in the other, and that none takes the place of `sluice.toml`.
pub(super) fn check(directories: &[Linked], files: &[Linked]) -> Result<(), SpecError> {
    let all: Vec<(&str, &RelPath)> = fields(directories, files).collect();
    for (number, (field, path)) in all.iter().enumerate() {
        if path.as_str() == FILE_NAME {
            return Err(SpecError::field(*field, format!("{FILE_NAME} belongs to the release")));
        }
        for (_, other) in &all[..number] {
            if path == other || is_within(path, other) || is_within(other, path) {
                let reason = format!("{path} and {other} are one, or one in the other; leave one out");
                return Err(SpecError::field(*field, reason));
            }
        }
    }
    Ok(())
}

/// Checks that a package leaves room for what its releases link to.
pub(super) fn check_against(
    directories: &[Linked],
    files: &[Linked],
    manifest: &Manifest,
) -> Result<(), SpecError> {
    for (field, path) in fields(directories, files) {
        if manifest.get(path.as_str()).is_some() {
            let reason = format!(
                "{path} is in the package too; take it out of the package, since a release only links to shared/{path}"
            );
            return Err(SpecError::field(field, reason));
        }
        let in_the_way = ancestors(path).filter_map(|parent| manifest.get(parent)).find(is_no_directory);
        if let Some(Entry { path: parent, .. }) = in_the_way {
            let reason = format!("{parent} of the package is no directory, so {path} cannot stand in it");
            return Err(SpecError::field(field, reason));
        }
    }
    Ok(())
}

/// Returns the directories above a path, the nearest first.
pub fn ancestors(path: &RelPath) -> impl Iterator<Item = &str> {
    std::iter::successors(path.parent(), |parent| parent.rsplit_once('/').map(|(above, _)| above))
}

fn is_no_directory(entry: &Entry<'_>) -> bool {
    match entry.kind {
        EntryKind::Directory => false,
        EntryKind::File(_) | EntryKind::Symlink { .. } => true,
    }
}

fn is_within(path: &RelPath, other: &RelPath) -> bool {
    ancestors(path).any(|above| above == other.as_str())
}

fn fields<'a>(
    directories: &'a [Linked],
    files: &'a [Linked],
) -> impl Iterator<Item = (&'static str, &'a RelPath)> {
    let named = |field| move |linked: &'a Linked| (field, &*linked.path);
    directories.iter().map(named("linked")).chain(files.iter().map(named("linked_files")))
}

#[cfg(test)]
mod tests {
    use crate::digest::Digest;
    use crate::manifest::FileEntry;
    use crate::spec::Spec;

    use super::*;

    #[test]
    fn both_forms_are_read() {
        let spec = Spec::parse(
            "linked = [\"uploads\", { path = \"var/log\", mode = \"0750\", owner = \"www\" }]\nlinked_files = [\"etc/local.toml\"]",
        )
        .unwrap();
        assert_eq!(spec.linked[0].path.as_str(), "uploads");
        assert_eq!((spec.linked[1].mode, spec.linked[1].owner.as_deref()), (Some(0o750), Some("www")));
        assert_eq!(spec.linked_files[0].path.as_str(), "etc/local.toml");
    }

    #[test]
    fn mistakes_are_refused() {
        for (text, expected) in [
            ("linked = [\"../x\"]", "inside the package"),
            ("linked = [\"/var\"]", "inside the package"),
            ("linked = [1]", "write a path"),
            ("linked = [{ path = \"x\", mode = \"rwx\" }]", "as in \"0750\""),
            ("linked = [{ path = \"x\", mode = \"4755\" }]", "as in \"0750\""),
            ("linked = [\"a\", \"a\"]", "linked: a and a are one"),
            ("linked = [\"a\"]\nlinked_files = [\"a/b\"]", "linked_files: a/b and a are one"),
            ("linked_files = [\"sluice.toml\"]", "belongs to the release"),
        ] {
            let error = Spec::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_package_leaves_room() {
        fn entry<'a>(path: &'a str, kind: EntryKind<'a>) -> Entry<'a> {
            Entry { path: RelPath::new(path).unwrap(), kind }
        }
        let file = FileEntry { executable: false, size: 0, digest: Digest::of(b"") };
        let manifest = Manifest::new(vec![
            entry("data", EntryKind::Directory),
            entry("data/x", EntryKind::File(file)),
            entry("file", EntryKind::File(file)),
            entry("link", EntryKind::Symlink { target: "data" }),
        ])
        .unwrap();
        for (path, expected) in [
            ("uploads", None),
            ("data/uploads", None),
            ("new/deep/uploads", None),
            ("data", Some("data is in the package too")),
            ("data/x", Some("data/x is in the package too")),
            ("file/x", Some("file of the package is no directory")),
            ("link/x/y", Some("link of the package is no directory")),
        ] {
            let spec = Spec::parse(&format!("linked = [{path:?}]")).unwrap();
            let error = spec.check_against(&manifest).err().map(|error| error.to_string());
            match expected {
                None => assert_eq!(error, None, "{path}"),
                Some(text) => assert!(error.unwrap().contains(text), "{path}"),
            }
        }
    }
}

//! Reads what stands on disk of one application. Called before every decision, so that a decision never rests
//! on what memory believes.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sluice_common::digest::Digest;
use sluice_common::durable;
use sluice_common::manifest::Manifest;
use sluice_common::order::Installed;

use crate::layout::{AppDir, LinkName};

/// What a link of an application leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// There is no such link.
    Nothing,
    /// A release with a valid marker.
    Release(Installed),
    /// Something that is no verified release; in words.
    Broken(String),
}

impl Link {
    /// Returns the verified release.
    pub(crate) fn installed(&self) -> Option<&Installed> {
        match self {
            Self::Release(installed) => Some(installed),
            Self::Nothing | Self::Broken(_) => None,
        }
    }

    /// Says whether the link leads to the verified release of `package`.
    pub(crate) fn leads_to(&self, package: &Digest) -> bool {
        self.installed().is_some_and(|installed| installed.package == *package)
    }
}

/// What stands on disk, as far as decisions depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    /// What runs.
    pub(crate) current: Link,
    /// What ran before.
    pub(crate) previous: Link,
    /// Whether the wanted package has a valid marker.
    pub(crate) is_target_staged: bool,
}

/// The marker of a verified release: its whole digest, since the directory carries twelve digits of it only.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    package: Digest,
    version: sluice_common::name::Version,
}

/// Observes the application at `dir`, of which `target` is wanted.
pub(crate) fn observe(dir: &AppDir, target: Option<&Digest>) -> io::Result<Disk> {
    Ok(Disk {
        current: link(dir, LinkName::Current)?,
        previous: link(dir, LinkName::Previous)?,
        is_target_staged: match target {
            Some(target) => marker(dir, target)?.is_some_and(|found| found.package == *target),
            None => false,
        },
    })
}

/// Follows a link of the application.
pub(crate) fn link(dir: &AppDir, name: LinkName) -> io::Result<Link> {
    let target = match fs_err::read_link(dir.link(name)) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Link::Nothing),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            return Ok(Link::Broken(format!("{} is not a symlink", name.as_str())));
        }
        Err(error) => return Err(error),
    };
    let broken = || Link::Broken(format!("{} -> {} is no release", name.as_str(), target.display()));
    let short = match target.strip_prefix("releases").ok().and_then(Path::to_str) {
        Some(short) if short.len() == 12 => short,
        _ => return Ok(broken()),
    };
    let found = read_marker(&dir.releases().join(format!("{short}.verified")))?;
    Ok(match found {
        Some(installed) if installed.package.short() == short => Link::Release(installed),
        _ => broken(),
    })
}

/// Returns the verified release whose directory `package` would have; nothing without a valid marker, manifest and tree.
pub(crate) fn marker(dir: &AppDir, package: &Digest) -> io::Result<Option<Installed>> {
    let found = read_marker(&dir.marker(package))?;
    let is_whole = dir.manifest(package).is_file()
        && fs_err::symlink_metadata(dir.release(package)).is_ok_and(|metadata| metadata.is_dir());
    Ok(found.filter(|installed| is_whole && installed.package.short() == package.short()))
}

fn read_marker(path: &Path) -> io::Result<Option<Installed>> {
    match fs_err::read_to_string(path) {
        // A damaged marker is none: the release is verified anew.
        Ok(text) => {
            Ok(toml::from_str(&text).ok().map(|Marker { package, version }| Installed { package, version }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a release's marker: the last step of staging.
pub(crate) fn write_marker(dir: &AppDir, installed: &Installed) -> io::Result<()> {
    let marker = Marker { package: installed.package, version: installed.version.clone() };
    let text = toml::to_string(&marker).map_err(io::Error::other)?;
    durable::write_public(&dir.marker(&installed.package), text.as_bytes())
}

/// Returns the verified releases: what `current` leads to first, then `previous`, then the newest.
pub(crate) fn installed(dir: &AppDir) -> io::Result<Vec<Installed>> {
    let entries = match fs_err::read_dir(dir.releases()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "verified")
            && let Some(release) = read_marker(&entry.path())?
            && marker(dir, &release.package)?.is_some()
        {
            found.push((entry.metadata()?.modified()?, release));
        }
    }
    found.sort_by_key(|(written, _)| std::cmp::Reverse(*written));
    let mut releases: Vec<Installed> = found.into_iter().map(|(_, release)| release).collect();
    let (current, previous) = (link(dir, LinkName::Current)?, link(dir, LinkName::Previous)?);
    releases.sort_by_key(|release| match &release.package {
        package if current.leads_to(package) => 0,
        package if previous.leads_to(package) => 1,
        _ => 2,
    });
    Ok(releases)
}

/// Reads the manifest beside a release and checks that it is the one of `package`.
pub(crate) fn manifest(dir: &AppDir, package: &Digest) -> io::Result<Manifest> {
    let bytes = manifest_bytes(dir, package)?;
    Manifest::decode(bytes).map_err(|error| damaged(&dir.manifest(package), &error.to_string()))
}

/// Reads the canonical bytes of the manifest beside a release and checks that they are those of `package`.
pub(crate) fn manifest_bytes(dir: &AppDir, package: &Digest) -> io::Result<Vec<u8>> {
    let path = dir.manifest(package);
    let bytes = fs_err::read(&path)?;
    if Digest::of(&bytes) != *package {
        return Err(not_of(package, &path));
    }
    Ok(bytes)
}

/// Reads of the manifest beside a release its directories and the files whose content is `wanted`: little, however large
/// the release. Checks that it is the manifest of `package`.
pub(crate) fn manifest_part(
    dir: &AppDir,
    package: &Digest,
    wanted: impl Fn(&Digest) -> bool,
) -> io::Result<Manifest> {
    let path = dir.manifest(package);
    let (part, digest) = Manifest::read_part(fs_err::File::open(&path)?, wanted)?;
    match digest == *package {
        true => Ok(part),
        false => Err(not_of(package, &path)),
    }
}

fn not_of(package: &Digest, path: &Path) -> io::Error {
    damaged(path, &format!("is not the manifest of {package}"))
}

fn damaged(path: &Path, reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(dir: &AppDir, name: &str) -> Installed {
        let installed = Installed { package: Digest::of(name.as_bytes()), version: name.parse().unwrap() };
        fs_err::create_dir_all(dir.release(&installed.package)).unwrap();
        fs_err::write(dir.manifest(&installed.package), b"").unwrap();
        write_marker(dir, &installed).unwrap();
        installed
    }

    #[test]
    fn only_links_to_marked_releases_count() {
        let root = tempfile::tempdir().unwrap();
        let dir = AppDir::new(root.path(), &"shop".parse().unwrap());
        let (one, two) = (install(&dir, "1"), install(&dir, "2"));
        let empty = observe(&dir, Some(&one.package)).unwrap();
        assert_eq!(empty, Disk { current: Link::Nothing, previous: Link::Nothing, is_target_staged: true });
        durable::replace_symlink(&dir.link(LinkName::Current), &AppDir::link_target(&two.package)).unwrap();
        assert_eq!(link(&dir, LinkName::Current).unwrap(), Link::Release(two.clone()));
        assert_eq!(installed(&dir).unwrap(), [two.clone(), one.clone()]);
        fs_err::remove_file(dir.marker(&two.package)).unwrap();
        assert!(matches!(link(&dir, LinkName::Current).unwrap(), Link::Broken(_)));
        assert_eq!(installed(&dir).unwrap(), [one]);
        durable::replace_symlink(&dir.link(LinkName::Current), Path::new("../../etc")).unwrap();
        assert!(matches!(link(&dir, LinkName::Current).unwrap(), Link::Broken(_)));
        // A marker under another release's name proves nothing.
        fs_err::rename(dir.marker(&installed(&dir).unwrap()[0].package), dir.marker(&two.package)).unwrap();
        assert!(!observe(&dir, Some(&two.package)).unwrap().is_target_staged);
    }
}

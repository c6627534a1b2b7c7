//! Paths inside a package: relative, normal, bounded. The only form in which an outside path enters. As with the
//! standard library's paths there is one that is borrowed, and one that owns its text.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ref_cast::{RefCastCustom, ref_cast_custom};

use crate::caps;

/// A relative path inside a package: UTF-8, `/`-separated, no empty, `.` or `..` component. Borrowed from whoever holds the
/// text, mostly a manifest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash, RefCastCustom)]
#[repr(transparent)]
pub struct RelPath(str);

/// A [`RelPath`] that owns its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPathBuf(String);

/// Says why a path may not stand in a package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path is empty.
    #[error("path is empty")]
    Empty,
    /// The path begins with `/`.
    #[error("path {0:?} is absolute")]
    Absolute(String),
    /// A component is empty, `.` or `..`.
    #[error("path {path:?} has the component {component:?}")]
    Component {
        /// The whole path.
        path: String,
        /// The component that may not stand.
        component: String,
    },
    /// The path holds a NUL byte.
    #[error("path {0:?} holds a NUL byte")]
    Nul(String),
    /// The path is longer than [`caps::PATH_BYTES_MAX`].
    #[error("path {path:?} has {bytes} bytes, more than {}", caps::PATH_BYTES_MAX)]
    TooLong {
        /// The beginning of the path.
        path: String,
        /// Its length.
        bytes: usize,
    },
    /// A component is longer than [`caps::COMPONENT_BYTES_MAX`].
    #[error("path {0:?} has a component of more than {max} bytes", max = caps::COMPONENT_BYTES_MAX)]
    ComponentTooLong(String),
    /// The path is deeper than [`caps::PATH_DEPTH_MAX`].
    #[error("path {0:?} is deeper than {max} directories", max = caps::PATH_DEPTH_MAX)]
    TooDeep(String),
    /// The path is not UTF-8.
    #[error("path {0:?} is not UTF-8")]
    NotUtf8(String),
}

impl RelPath {
    /// Parses a text.
    pub fn new(text: &str) -> Result<&Self, PathError> {
        check(text)?;
        Ok(Self::checked(text))
    }

    /// Parses the path of a file system entry relative to the package root.
    pub fn from_path(path: &Path) -> Result<&Self, PathError> {
        Self::new(path.to_str().ok_or_else(|| PathError::NotUtf8(path.to_string_lossy().into_owned()))?)
    }

    /// Takes a text that was parsed before.
    #[ref_cast_custom]
    pub(crate) const fn checked(text: &str) -> &Self;

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path as the file system's type; it has normal components only.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// Returns this path below `root`.
    pub fn below(&self, root: &Path) -> PathBuf {
        root.join(&self.0)
    }

    /// Returns the components, first to last.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// Returns the directory that holds this entry, as text; nothing at the root.
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// Returns the last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// Returns what follows the last dot of the file name, or nothing.
    pub fn extension(&self) -> &str {
        match self.file_name().rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() => extension,
            _ => "",
        }
    }
}

/// Says why a text is no path of a package, if it is none.
fn check(text: &str) -> Result<(), PathError> {
    let shown = || text.chars().take(120).collect::<String>();
    if text.is_empty() {
        return Err(PathError::Empty);
    }
    if text.len() > caps::PATH_BYTES_MAX {
        return Err(PathError::TooLong { path: shown(), bytes: text.len() });
    }
    if text.starts_with('/') {
        return Err(PathError::Absolute(shown()));
    }
    if text.contains('\0') {
        return Err(PathError::Nul(shown()));
    }
    let mut depth = 0;
    for component in text.split('/') {
        depth += 1;
        if matches!(component, "" | "." | "..") {
            return Err(PathError::Component { path: shown(), component: component.to_owned() });
        }
        if component.len() > caps::COMPONENT_BYTES_MAX {
            return Err(PathError::ComponentTooLong(shown()));
        }
    }
    if depth > caps::PATH_DEPTH_MAX {
        return Err(PathError::TooDeep(shown()));
    }
    Ok(())
}

impl ToOwned for RelPath {
    type Owned = RelPathBuf;

    fn to_owned(&self) -> RelPathBuf {
        RelPathBuf(self.0.to_owned())
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Deref for RelPathBuf {
    type Target = RelPath;

    fn deref(&self) -> &RelPath {
        RelPath::checked(&self.0)
    }
}

impl Borrow<RelPath> for RelPathBuf {
    fn borrow(&self) -> &RelPath {
        self
    }
}

impl FromStr for RelPathBuf {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        RelPath::new(text).map(RelPath::to_owned)
    }
}

impl fmt::Display for RelPathBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_leave_the_root() {
        let deep = ["d"; 65].join("/");
        let long_component = "x".repeat(256);
        let long = ["y".repeat(200).as_str(); 6].join("/");
        for bad in
            ["", "/etc", "../x", "a/../b", "a/./b", "a//b", "a/", "a\0b", &deep, &long_component, &long]
        {
            assert!(RelPath::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn accepts_odd_but_harmless_names() {
        let deep = ["d"; 64].join("/");
        for good in ["a", "...", "a b", "-rf", "trailing\r", "ü/ß", ".hidden", &deep] {
            assert_eq!(RelPath::new(good).unwrap().as_str(), good);
            assert_eq!(good.parse::<RelPathBuf>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn names_its_parts() {
        let path = RelPath::new("lib/site/a.tar.gz").unwrap();
        assert_eq!((path.parent(), path.file_name(), path.extension()), (Some("lib/site"), "a.tar.gz", "gz"));
        let dot = RelPath::new(".bashrc").unwrap();
        assert_eq!((dot.parent(), dot.extension()), (None, ""));
    }
}

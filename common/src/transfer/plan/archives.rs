//! Which contents are archives, by name: they travel in frames of their own, because a frame has one codec.

use crate::path::RelPath;

/// Extensions of zip files by all their names, and of gzip files.
const EXTENSIONS: [&str; 16] = [
    "apk", "ear", "egg", "gz", "hpi", "jar", "jmod", "nupkg", "pyz", "tgz", "vsix", "war", "whl", "xlsx",
    "xpi", "zip",
];

/// Says whether a path names an archive.
pub(super) fn is_archive(path: &RelPath) -> bool {
    EXTENSIONS.contains(&path.extension().to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_their_names() {
        for (path, expected) in [
            ("lib/spark-core_2.12-3.5.7.jar", true),
            ("dist/NUMPY.WHL", true),
            ("data.tar.gz", true),
            ("package.tgz", true),
            ("jar", false),
            ("lib/libjar.so", false),
            ("zip.py", false),
        ] {
            assert_eq!(is_archive(RelPath::new(path).unwrap()), expected, "{path}");
        }
    }
}

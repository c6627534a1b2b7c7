//! Reads of a large manifest what is of use, without ever holding the rest.

use std::io::{self, Read};

use super::wire::{ENTRY_BYTES_MAX, Entries, Writer};
use super::{EntryKind, Manifest, ManifestError};
use crate::digest::{Digest, Hasher};

/// Bytes read at a time: many of the largest entry.
const WINDOW_BYTES: usize = 64 * 1024;

impl Manifest {
    /// Reads the canonical bytes of a manifest, and makes one of its directories and those of its files whose content is `wanted`.
    /// Returns it beside the digest of all that was read, by which the caller knows whether it was the right one. Fails
    /// where the bytes are no manifest, or cannot be read.
    pub fn read_part(bytes: impl Read, wanted: impl Fn(&Digest) -> bool) -> io::Result<(Self, Digest)> {
        let mut window = Window { source: bytes, bytes: Vec::new(), hasher: Hasher::new(), is_at_end: false };
        let mut part = Writer::default();
        window.fill()?;
        let mut left = None;
        loop {
            let mut entries = match left {
                None => Entries::begin_at_head(&window.bytes).map_err(invalid)?,
                Some(left) => Entries::go_on(&window.bytes, left),
            };
            while entries.unread() >= ENTRY_BYTES_MAX || window.is_at_end {
                let Some((_, entry)) = entries.next().map_err(invalid)? else {
                    let part = Self::decode(part.finish()).map_err(invalid)?;
                    return Ok((part, window.hasher.finish()));
                };
                match entry.kind {
                    EntryKind::Directory => part.push(entry),
                    EntryKind::File(file) if wanted(&file.digest) => part.push(entry),
                    EntryKind::File(_) | EntryKind::Symlink { .. } => {}
                }
            }
            let unread = entries.unread();
            left = Some(entries.len());
            window.keep(unread);
            window.fill()?;
        }
    }
}

/// The next bytes of a source.
struct Window<R> {
    source: R,
    bytes: Vec<u8>,
    /// Of all that was read.
    hasher: Hasher,
    is_at_end: bool,
}

impl<R: Read> Window<R> {
    /// Lets go of all but the last bytes.
    fn keep(&mut self, last: usize) {
        self.bytes.drain(..self.bytes.len() - last);
    }

    /// Reads on.
    fn fill(&mut self) -> io::Result<()> {
        let (kept, room) = (self.bytes.len(), WINDOW_BYTES - self.bytes.len());
        let read = self.source.by_ref().take(room as u64).read_to_end(&mut self.bytes)?;
        self.hasher.update(&self.bytes[kept..]);
        self.is_at_end = read < room;
        Ok(())
    }
}

fn invalid(error: ManifestError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, FileEntry};
    use super::*;
    use crate::path::RelPath;

    /// A manifest of several windows, with entries of every kind and of the longest path.
    fn scene() -> Manifest {
        let long = |number: usize| format!("{number:04}{}", format!("/{}", "x".repeat(203)).repeat(5));
        let mut paths = vec!["a".to_owned(), "a-b".to_owned(), "a/file".to_owned(), "link".to_owned()];
        for number in 0..200 {
            let path = long(number);
            let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
            paths.extend(ends.into_iter().map(|end| path[..end].to_owned()));
            paths.push(path);
        }
        paths.sort_unstable();
        let kind = |number: usize, path: &str| match path {
            "link" => EntryKind::Symlink { target: "a/file" },
            "a/file" | "a-b" => EntryKind::File(file(0)),
            path if path.len() > 1_000 => EntryKind::File(file(number % 7)),
            _ => EntryKind::Directory,
        };
        let entries = paths
            .iter()
            .enumerate()
            .map(|(number, path)| Entry { path: RelPath::new(path).unwrap(), kind: kind(number, path) });
        Manifest::new(entries).unwrap()
    }

    fn file(content: usize) -> FileEntry {
        FileEntry { executable: content == 0, size: content as u64, digest: Digest::of(&[content as u8]) }
    }

    #[test]
    fn the_part_has_every_directory_and_the_files_that_are_wanted() {
        let whole = scene();
        assert!(whole.as_bytes().len() > 3 * WINDOW_BYTES);
        for contents in [&[][..], &[0], &[1, 5], &[0, 1, 2, 3, 4, 5, 6]] {
            let wanted: Vec<Digest> = contents.iter().map(|content| file(*content).digest).collect();
            let (part, digest) =
                Manifest::read_part(whole.as_bytes(), |digest| wanted.contains(digest)).unwrap();
            assert_eq!(digest, whole.digest());
            let expected = whole.entries().filter(|entry| match entry.kind {
                EntryKind::Directory => true,
                EntryKind::File(file) => wanted.contains(&file.digest),
                EntryKind::Symlink { .. } => false,
            });
            assert!(part.entries().eq(expected), "{contents:?}");
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused_wherever_it_is_cut_or_goes_on() {
        let whole = scene();
        let bytes = whole.as_bytes();
        let read = |bytes: &[u8]| Manifest::read_part(bytes, |_| true);
        for len in (0..bytes.len()).step_by(997).chain([WINDOW_BYTES, bytes.len() - 1]) {
            let error = read(&bytes[..len]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{len}");
        }
        assert!(read(&[bytes, b"x"].concat()).is_err());
        assert!(read(&[bytes, &[0; 2 * WINDOW_BYTES]].concat()).is_err());
        let garbage = [&bytes[..WINDOW_BYTES], &[0xff; 4 * WINDOW_BYTES]].concat();
        assert!(read(&garbage).is_err());
    }

    #[test]
    fn another_manifest_has_another_digest() {
        let mut bytes = scene().as_bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let read = Manifest::read_part(&bytes[..], |_| false);
        assert!(read.is_ok_and(|(_, digest)| digest != scene().digest()));
    }
}

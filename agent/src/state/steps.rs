//! `state.steps`: the state as the steps of a switch change it, written over in place, beside `state.toml`.
//!
//! To replace a file by a new one makes the file system commit its log twice; to write over blocks that stand already is one
//! sync of data. A switch writes its state at every step, while the application stands still, so what `state.toml` says at
//! its beginning is followed here, entry by entry, and `state.toml` is replaced again once it has ended.
//!
//! Invariants: an entry counts only beside the very `state.toml` that it follows, so that whoever replaces or edits that file has
//! the last word. Two slots are written in turn: a write that a power cut tears leaves the entry before it whole.

use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;
use sluice_common::caps::STATE_SLOT_BYTES;
use sluice_common::digest::Digest;

const SLOTS: usize = 2;
const FILE_BYTES: usize = SLOTS * STATE_SLOT_BYTES;
/// What fills a slot behind its entry: a reader of the whole file sees empty lines.
const FILLING: u8 = b'\n';

/// A whole entry.
struct Entry {
    slot: usize,
    number: u64,
    text: String,
}

/// Says what came of a try to write an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It stands, durably.
    Entry,
    /// There is no file made ready, or no room for so long a text: `state.toml` must be replaced.
    Not,
}

/// Makes the file ready beside the state file at `state`, unless it is. Its name is made durable by the sync of the directory
/// that ends the state file's next replacement; its blocks, by the first entry.
pub(super) fn make_ready(state: &Path) -> io::Result<()> {
    let path = path(state);
    if is_ready(&path)? {
        return Ok(());
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    options.options_mut().mode(0o600);
    options.open(&path)?.file().write_all_at(&[FILLING; FILE_BYTES], 0)
}

/// Writes `text` as the newest entry that follows the state file at `state`.
pub(super) fn follow(state: &Path, text: &str) -> io::Result<Written> {
    let path = path(state);
    if !is_ready(&path)? {
        return Ok(Written::Not);
    }
    let base = Digest::of(&fs::read(state)?);
    let file = fs::OpenOptions::new().read(true).write(true).open(&path)?;
    let newest = newest(&read(&file)?, &base);
    // What stands last is never written over: until the new entry is whole, it is what counts.
    let (slot, number) = newest.map_or((0, 1), |entry| (1 - entry.slot, entry.number + 1));
    let text = format!("{}\n", text.trim_end_matches(char::from(FILLING)));
    let mut bytes = format!("{}{text}", header(number, &base, &text)).into_bytes();
    if bytes.len() > STATE_SLOT_BYTES {
        return Ok(Written::Not);
    }
    bytes.resize(STATE_SLOT_BYTES, FILLING);
    file.file().write_all_at(&bytes, (slot * STATE_SLOT_BYTES) as u64)?;
    file.sync_data()?;
    Ok(Written::Entry)
}

/// Returns the newest entry that follows the state file at `state`, whose text is `base`.
pub(super) fn latest(state: &Path, base: &str) -> io::Result<Option<String>> {
    let file = match fs::File::open(path(state)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(newest(&read(&file)?, &Digest::of(base.as_bytes())).map(|entry| entry.text))
}

fn path(state: &Path) -> PathBuf {
    state.with_extension("steps")
}

fn is_ready(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_file() && metadata.len() == FILE_BYTES as u64),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads every slot, or what there is of them.
fn read(file: &fs::File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; FILE_BYTES];
    let mut len = 0;
    while len < bytes.len() {
        match file.file().read_at(&mut bytes[len..], len as u64)? {
            0 => break,
            read => len += read,
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

fn newest(bytes: &[u8], base: &Digest) -> Option<Entry> {
    let slots = bytes.chunks(STATE_SLOT_BYTES).enumerate();
    slots.filter_map(|(slot, bytes)| entry(slot, bytes, base)).max_by_key(|entry| entry.number)
}

/// Reads an entry; nothing where it is torn, or follows another state file.
fn entry(slot: usize, bytes: &[u8], base: &Digest) -> Option<Entry> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches(char::from(FILLING));
    let (head, text) = text.split_once('\n')?;
    let number = head.strip_prefix("# step ")?.split(' ').next()?.parse().ok()?;
    let text = format!("{text}\n");
    (header(number, base, &text).trim_end() == head).then_some(Entry { slot, number, text })
}

/// Begins an entry: a comment to whoever reads the rest.
fn header(number: u64, base: &Digest, text: &str) -> String {
    format!("# step {number} after {base} is {}\n", Digest::of(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state.toml");
        fs::write(&state, text).unwrap();
        (dir, state)
    }

    #[test]
    fn the_newest_entry_counts_beside_the_state_that_it_follows() {
        let (_dir, state) = state("a = 0\n");
        assert_eq!(follow(&state, "a = 1\n").unwrap(), Written::Not, "nothing is ready");
        make_ready(&state).unwrap();
        assert_eq!(latest(&state, "a = 0\n").unwrap(), None);
        for number in 1..=5 {
            let text = format!("a = {number}\n");
            assert_eq!(follow(&state, &text).unwrap(), Written::Entry);
            make_ready(&state).unwrap();
            assert_eq!(latest(&state, "a = 0\n").unwrap(), Some(text));
        }
        let long = format!("a = {:?}\n", "x".repeat(STATE_SLOT_BYTES));
        assert_eq!(follow(&state, &long).unwrap(), Written::Not, "too long");
        assert_eq!(latest(&state, "a = 0\n").unwrap().as_deref(), Some("a = 5\n"));
        // A state that was replaced has the last word.
        fs::write(&state, "a = 9\n").unwrap();
        assert_eq!(latest(&state, "a = 9\n").unwrap(), None);
        assert_eq!(follow(&state, "a = 10\n").unwrap(), Written::Entry);
        assert_eq!(latest(&state, "a = 9\n").unwrap().as_deref(), Some("a = 10\n"));
    }

    #[test]
    fn a_torn_entry_leaves_the_one_before_it() {
        let (_dir, state) = state("a = 0\n");
        make_ready(&state).unwrap();
        follow(&state, "a = 1\n").unwrap();
        let before = fs::read(path(&state)).unwrap();
        follow(&state, "a = 2\n").unwrap();
        let after = fs::read(path(&state)).unwrap();
        let changed: Vec<usize> = (0..FILE_BYTES).filter(|at| before[*at] != after[*at]).collect();
        assert!(changed.iter().all(|at| *at >= STATE_SLOT_BYTES), "the first slot stands");
        let expect = |bytes: &[u8], expected: &str, at: usize| {
            fs::write(path(&state), bytes).unwrap();
            assert_eq!(latest(&state, "a = 0\n").unwrap().as_deref(), Some(expected), "at {at}");
        };
        for at in &changed {
            // All before this byte was written, and nothing behind it; and the other way round.
            let torn = [&after[..*at], &before[*at..]].concat();
            expect(&torn, "a = 1\n", *at);
            let torn = [&before[..*at + 1], &after[*at + 1..]].concat();
            expect(&torn, "a = 1\n", *at);
        }
        expect(&after, "a = 2\n", FILE_BYTES);
        expect(&after[..STATE_SLOT_BYTES + 10], "a = 1\n", STATE_SLOT_BYTES);
    }
}

use std::collections::HashMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::caps;
use crate::manifest::{Content, Contents, Entry, EntryKind, FileEntry, Manifest};
use crate::path::RelPath;
use crate::tree::Tree;

mod planning;
mod travel;
mod wire;

/// Collects committed parts into whole contents, as an agent's staging directory does.
#[derive(Default)]
struct Memory {
    files: HashMap<u32, Vec<u8>>,
    open: Vec<u8>,
}

impl PartSink for Memory {
    fn begin(&mut self, _: &Part) -> io::Result<()> {
        self.open.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(&mut self, part: &Part) -> io::Result<()> {
        let file = self.files.entry(part.extent.content).or_default();
        let end = (part.extent.offset + part.extent.len) as usize;
        file.resize(file.len().max(end), 0);
        file[part.extent.offset as usize..end].copy_from_slice(&self.open);
        Ok(())
    }
}

/// What has been restored before a frame comes; what has not is not there to lean on.
struct Restored<'a> {
    contents: Contents<'a>,
    files: HashMap<u32, Vec<u8>>,
}

impl ContentSource for Restored<'_> {
    fn reader(&self, content: &Digest, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let number = self.contents.iter().position(|known| known.digest == *content).unwrap() as u32;
        let file = self.files.get(&number).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(file.get(offset as usize..).ok_or(io::ErrorKind::UnexpectedEof)?))
    }
}

/// Makes a package of which these are the contents, in this order.
fn holding(contents: &[Content]) -> Manifest {
    let file =
        |content: &Content| FileEntry { executable: false, size: content.size, digest: content.digest };
    let named =
        (0..).zip(contents).map(|(number, content): (u32, _)| (format!("{number:04}"), file(content)));
    manifest(&named.collect::<Vec<_>>())
}

fn manifest(files: &[(String, FileEntry)]) -> Manifest {
    let entries = files
        .iter()
        .map(|(path, file)| Entry { path: RelPath::new(path).unwrap(), kind: EntryKind::File(*file) });
    Manifest::new(entries).unwrap()
}

fn tree(files: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = dir.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap_or(Path::new("."))).unwrap();
        fs_err::write(path, bytes).unwrap();
    }
    let tree = Tree::scan(dir.path()).unwrap();
    (dir, tree)
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
    .take(len)
    .collect()
}

/// Plans, encodes, passes the plan through its wire form, decodes; returns the restored contents and all frame bytes.
fn travel(base: Option<&Tree>, target: &Tree, effort: Effort) -> (Memory, Vec<EncodedFrame>) {
    let base_contents = base.map(|tree| tree.manifest().contents()).unwrap_or_default();
    let contents = target.manifest().contents();
    let source: &dyn ContentSource = match base {
        Some(tree) => tree,
        None => &NoContent,
    };
    let specs = plan(base.map(Tree::manifest), target.manifest(), effort);
    let encoded =
        encode_all(&specs, (base_contents, source), (contents, target), effort, 2, |_, frame| Ok(frame))
            .unwrap();
    let sent = TransferPlan {
        base: base.map(|tree| tree.manifest().digest()),
        target: target.manifest().digest(),
        frames: encoded.iter().map(|e| e.frame.clone()).collect(),
    };
    let bytes = sent.encode(base_contents, contents).unwrap();
    let received = TransferPlan::decode(&bytes, base_contents, contents).unwrap();
    assert_eq!(received, sent);
    let mut memory = Memory::default();
    for (frame, encoded) in received.frames.iter().zip(&encoded) {
        let restored = Restored { contents, files: memory.files.clone() };
        decode_frame(
            frame,
            &encoded.bytes[..],
            (base_contents, source),
            (contents, &restored),
            &Workspace::new(std::env::temp_dir()),
            &mut memory,
        )
        .unwrap();
    }
    (memory, encoded)
}

fn assert_restored(memory: &Memory, base: Option<&Manifest>, target: &Tree) {
    for (number, content) in target.manifest().contents().iter().enumerate() {
        match memory.files.get(&(number as u32)) {
            Some(bytes) => assert_eq!(Digest::of(bytes), content.digest),
            None => assert!(
                content.size == 0 || base.is_some_and(|base| base.content_number(&content.digest).is_some()),
                "{content:?} never came"
            ),
        }
    }
}

use super::*;
use crate::transfer::Extent;

/// Notes its calls; fails at one of them.
#[derive(Default)]
struct Notes {
    calls: Vec<String>,
    fails_at: Option<usize>,
}

impl Notes {
    fn note(&mut self, call: String) -> io::Result<()> {
        self.calls.push(call);
        match self.fails_at {
            Some(at) if self.calls.len() > at => Err(io::Error::other("disk full")),
            _ => Ok(()),
        }
    }
}

impl PartSink for Notes {
    fn begin(&mut self, part: &Part) -> io::Result<()> {
        self.note(format!("begin {}", part.extent.content))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // In how many pieces they come is nobody's business.
        match self.calls.last_mut() {
            Some(last) if last.starts_with("write") => last.push_str(&"+".repeat(bytes.len() / 1_000)),
            _ => self.note(format!("write {}", bytes[0]))?,
        }
        Ok(())
    }

    fn commit(&mut self, part: &Part) -> io::Result<()> {
        self.note(format!("commit {}", part.extent.content))
    }
}

/// A frame of 3,000 parts, the longest of 3 MiB, and the bytes that it restores.
fn frame() -> (Frame, Vec<u8>) {
    let (mut parts, mut raw) = (Vec::new(), Vec::new());
    for content in 0..3_000_u32 {
        let len = if content % 1_000 == 7 { 3 << 20 } else { u64::from(content) + 1 };
        let bytes = vec![content as u8; len as usize];
        parts.push(Part { extent: Extent { content, offset: 0, len }, digest: Digest::of(&bytes) });
        raw.extend_from_slice(&bytes);
    }
    let frame =
        Frame { digest: Digest::of(b"frame"), wire_len: 1, codec: Codec::Zstd, base: Vec::new(), parts };
    (frame, raw)
}

fn begins_and_commits(notes: &Notes) -> Vec<&String> {
    notes.calls.iter().filter(|call| !call.starts_with("write")).collect()
}

#[test]
fn the_sink_sees_every_part_in_order() {
    let (frame, raw) = frame();
    let mut notes = Notes::default();
    decode_parts(&frame, &raw[..], &mut notes).unwrap();
    let expected: Vec<String> =
        (0..3_000).flat_map(|number| [format!("begin {number}"), format!("commit {number}")]).collect();
    assert!(begins_and_commits(&notes).into_iter().eq(&expected));
    assert_eq!(notes.calls.len(), 9_000);
}

#[test]
fn the_error_of_the_sink_ends_the_decoding_and_is_the_one_returned() {
    let (frame, raw) = frame();
    for fails_at in [0, 1, 5_000] {
        let mut notes = Notes { fails_at: Some(fails_at), ..Notes::default() };
        let error = decode_parts(&frame, &raw[..], &mut notes).unwrap_err();
        assert!(matches!(error, DecodeFrameError::Sink { .. }), "{error}");
        assert_eq!(notes.calls.len(), fails_at + 1, "nothing is called after a failure");
    }
}

#[test]
fn what_is_restored_whole_is_what_was_compressed_and_never_more_than_was_promised() {
    let (frame, raw) = frame();
    let prefix = &raw[..1 << 20];
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), 3, prefix).unwrap();
    io::Write::write_all(&mut encoder, &raw).unwrap();
    let compressed = encoder.finish().unwrap();
    let mut room = vec![7; raw.len() + 1];
    let (restored, ended) = whole::restore(&compressed[..], prefix, &mut room[..raw.len()]);
    assert!(restored == raw && ended.is_ok());
    let mut notes = Notes::default();
    take_whole(&frame, restored, ended, &mut notes).unwrap();
    assert_eq!(begins_and_commits(&notes).len(), 6_000);
    for (name, compressed, len, expected) in [
        ("more than promised", &compressed[..], raw.len() - 1, "small"),
        ("cut off", &compressed[..compressed.len() - 1], raw.len(), "too early"),
        ("nothing at all", &[][..], raw.len(), "too early"),
        ("no frame", &b"no such frame"[..], raw.len(), "nknown frame"),
    ] {
        let (restored, ended) = whole::restore(compressed, prefix, &mut room[..len]);
        let (ended, restored_len) = (ended.unwrap_err(), restored.len());
        assert!(restored_len <= len && *restored == raw[..restored_len], "{name}");
        assert!(ended.to_string().contains(expected), "{name}: {ended}");
        let error = take_whole(&frame, restored, Err(ended), &mut Notes::default()).unwrap_err();
        assert!(matches!(error, DecodeFrameError::Damaged { .. }), "{name}: {error}");
    }
}

#[test]
fn a_wrong_part_of_what_was_restored_whole_ends_it_and_no_part_after_it_is_begun() {
    let (frame, raw) = frame();
    for wrong in [0, 1_500, 2_999] {
        let end: u64 = frame.parts[..=wrong].iter().map(|part| part.extent.len).sum();
        let mut restored = raw.clone();
        restored[end as usize - 1] ^= 1;
        let mut notes = Notes::default();
        let error = take_whole(&frame, &restored, Ok(()), &mut notes).unwrap_err();
        assert!(matches!(error, DecodeFrameError::Damaged { .. }), "{error}");
        assert_eq!(begins_and_commits(&notes).len(), 2 * wrong, "{wrong}");
    }
    let mut notes = Notes { fails_at: Some(4), ..Notes::default() };
    let error = take_whole(&frame, &raw, Ok(()), &mut notes).unwrap_err();
    assert!(matches!(error, DecodeFrameError::Sink { .. }), "{error}");
    assert_eq!(notes.calls.len(), 5, "nothing is called after a failure");
}

#[test]
fn wrong_bytes_are_told_after_what_came_before_them_was_stored() {
    let (frame, raw) = frame();
    let (mut flipped, mut longer) = (raw.clone(), raw.clone());
    *flipped.last_mut().unwrap() ^= 1;
    longer.push(0);
    for (name, bytes, expected) in [
        ("a wrong byte", &flipped[..], "is wrong"),
        ("a byte too many", &longer[..], "holds more"),
        ("a byte too few", &raw[..raw.len() - 1], "ends before"),
    ] {
        let mut notes = Notes::default();
        let error = decode_parts(&frame, bytes, &mut notes).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert_eq!(
            begins_and_commits(&notes).len(),
            6_000 - usize::from(name != "a byte too many"),
            "{name}"
        );
    }
    struct Breaks<'a>(&'a [u8]);
    impl Read for Breaks<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match self.0.read(out)? {
                0 => Err(io::Error::other("no such block type")),
                n => Ok(n),
            }
        }
    }
    let mut notes = Notes::default();
    let error = decode_parts(&frame, Breaks(&raw[..raw.len() - 5]), &mut notes).unwrap_err().to_string();
    assert!(error.contains("no such block type"), "{error}");
    assert_eq!(begins_and_commits(&notes).len(), 5_999);
}

#[test]
fn a_frame_keeps_nothing_of_earlier_ones_that_it_does_not_take() {
    use crate::transfer::Lean;
    let extent = Extent { content: 0, offset: 0, len: 1 };
    let (base, produced) = (Lean::Base(extent), Lean::Produced(extent));
    for (codec, leans, keeps) in [
        (Codec::Zstd, vec![], (true, false)),
        (Codec::Zstd, vec![base], (true, true)),
        (Codec::Zstd, vec![base, produced], (false, false)),
        (Codec::Filtered, vec![produced], (true, false)),
        (Codec::Image, vec![base], (false, false)),
        (Codec::Archive, vec![base], (false, false)),
    ] {
        let workspace = Workspace::new(PathBuf::new());
        workspace.lend(1, |_| {});
        workspace.shelf.lend(1, |_| {});
        workspace.begin(&Frame { codec, base: leans.clone(), ..frame().0 });
        let kept = (!workspace.buffers.is_empty(), !workspace.shelf.is_empty());
        assert_eq!(kept, keeps, "{codec:?} {leans:?}");
    }
}

use proptest::prelude::*;

use super::deflate::{Method, deflated};
use super::*;

/// How a member stands in its zip file.
#[derive(Debug, Clone, Copy)]
enum Form {
    Stored,
    Deflated(Method),
    /// Deflated, with lengths behind instead of before.
    Described(Method),
}

/// Makes a zip file: members, then a directory as small as this codec cares for it.
fn zip(members: &[(&str, Vec<u8>, Form)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, plain, form) in members {
        let (method, flags, body) = match form {
            Form::Stored => (0_u16, 0_u16, plain.clone()),
            Form::Deflated(method) => (8, 0, deflated(plain, *method)),
            Form::Described(method) => (8, 8, deflated(plain, *method)),
        };
        let len = if flags == 0 { body.len() as u32 } else { 0 };
        out.extend_from_slice(b"PK\x03\x04\x14\x00");
        out.extend(flags.to_le_bytes());
        out.extend(method.to_le_bytes());
        out.extend([0x21, 0x43, 0x65, 0x57, 1, 2, 3, 4]);
        out.extend(len.to_le_bytes());
        out.extend((plain.len() as u32).to_le_bytes());
        out.extend((name.len() as u16).to_le_bytes());
        out.extend([0, 0]);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&body);
        if flags != 0 {
            out.extend_from_slice(b"PK\x07\x08");
            out.extend((body.len() as u32).to_le_bytes());
        }
    }
    out.extend_from_slice(b"PK\x05\x06 directory");
    out
}

fn gzip(plain: &[u8], method: Method) -> Vec<u8> {
    [&b"\x1f\x8b\x08\x08\0\0\0\0\x02\x03name.tar\0"[..], &deflated(plain, method), b"checksum"].concat()
}

/// Text of words that hardly repeat.
fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{:x} ", state >> 40)
    };
    std::iter::repeat_with(&mut word).flat_map(String::into_bytes).take(len).collect()
}

fn changed_text(mut plain: Vec<u8>) -> Vec<u8> {
    plain.splice(10..12, *b"changed");
    plain
}

fn restore(base: &[u8], encoded: &[u8], len: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    Expansion::open(base, encoded, Vec::new())?.decoder(len)?.read_to_end(&mut out)?;
    Ok(out)
}

fn encode_files(base: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let (base_files, files) = ([File::whole(base, 0..base.len())], [File::whole(target, 0..target.len())]);
    encode(Bytes { bytes: base, files: &base_files }, Bytes { bytes: target, files: &files }).unwrap()
}

fn round_trip(base: &[u8], target: &[u8]) -> Vec<u8> {
    let encoded = encode_files(base, target).expect("there is a member to deflate again");
    assert!(restore(base, &encoded, target.len()).unwrap() == target);
    encoded
}

/// As for an image frame, which an archive frame is too; the script and where members lie come on top. The expanded base
/// does not count: it is in a file.
#[test]
fn a_receiver_of_the_largest_archive_stays_within_its_memory() {
    let member = size_of::<usize>() + size_of::<Member>() + 2 * size_of::<File>();
    let script = (caps::ARCHIVE_MEMBERS_MAX * member) as u64;
    let buffers = 2 * PIECE_BYTES as u64 + Scratch::BUFFER_BYTES as u64 + DEFLATER_BYTES;
    let outside = caps::AGENT_BYTES + caps::FRAME_WIRE_BYTES_MAX;
    let total = outside + image::tests::decoder_bytes_max() + script + buffers;
    assert!(total <= caps::RECEIVER_AWARE_BYTES_MAX, "{total} bytes, of them {script} for members");
}

/// What the larger of both compressors takes, its buffers included: zlib's documentation says 256 KiB for itself.
const DEFLATER_BYTES: u64 = 512 << 10;

#[test]
fn a_changed_member_costs_what_changed_in_its_text() {
    const PLAIN_BYTES: usize = 60_000;
    for (name, form) in [
        ("zlib", Form::Deflated(Method::Zlib(6))),
        ("fast zlib", Form::Deflated(Method::Zlib(1))),
        ("miniz", Form::Deflated(Method::Miniz(6))),
        ("lengths behind", Form::Described(Method::Zlib(9))),
    ] {
        let archive = |second: Vec<u8>| {
            zip(&[
                ("same", text(1, PLAIN_BYTES), form),
                ("stored", text(2, 1_000), Form::Stored),
                ("changed", second, form),
                ("last", text(4, PLAIN_BYTES), form),
            ])
        };
        let (old, new) = (archive(text(3, PLAIN_BYTES)), archive(changed_text(text(3, PLAIN_BYTES))));
        let encoded = round_trip(&old, &new);
        assert!(encoded.len() < 200, "{name}: {} bytes", encoded.len());
    }
}

#[test]
fn gzip_files_among_others_are_inflated() {
    let (first, second) = (text(5, 50_000), text(6, 50_000));
    let files = |first: &[u8], second: &[u8]| {
        let (first, second) = (gzip(first, Method::Zlib(6)), gzip(second, Method::Zlib(9)));
        let bytes = [&first[..], &second].concat();
        let files = [0..first.len(), first.len()..bytes.len()].map(|place| File::whole(&bytes, place));
        (bytes, files)
    };
    let (old, old_files) = files(&first, &second);
    let (new, new_files) = files(&changed_text(first), &changed_text(second));
    let base = Bytes { bytes: &old, files: &old_files };
    let encoded = encode(base, Bytes { bytes: &new, files: &new_files }).unwrap().unwrap();
    assert!(restore(&old, &encoded, new.len()).unwrap() == new);
    assert!(encoded.len() < 300, "{} bytes", encoded.len());
}

#[test]
fn archives_cut_anywhere_or_inside_of_others_are_restored() {
    let inner = |plain| zip(&[("class", plain, Form::Deflated(Method::Zlib(6)))]);
    let outer = |plain: Vec<u8>| {
        zip(&[
            ("inner.jar", inner(plain.clone()), Form::Stored),
            ("text", plain, Form::Deflated(Method::Zlib(6))),
        ])
    };
    let (old, new) = (outer(text(7, 30_000)), outer(changed_text(text(7, 30_000))));
    assert!(round_trip(&old, &new).len() < 200);
    for cut in [0, 1, 40, 1_000, new.len() / 2, new.len() - 1] {
        for (base, target) in
            [(&old[..cut.min(old.len())], &new[..]), (&old[cut.min(old.len())..], &new[cut..])]
        {
            if let Some(encoded) = encode_files(base, target) {
                assert!(restore(base, &encoded, target.len()).unwrap() == target, "cut at {cut}");
            }
        }
    }
}

#[test]
fn what_has_nothing_to_deflate_again_is_left_to_other_codecs() {
    let same = zip(&[("a", text(8, 5_000), Form::Deflated(METHODS[0]))]);
    let stored = zip(&[("a", text(8, 5_000), Form::Stored)]);
    // A stream of stored blocks, which no method makes of this text.
    let odd = [&b"PK\x03\x04\x14\0\0\0\x08\0"[..], &[0; 20], &[1, 100, 0, 155, 255], &text(9, 100)].concat();
    for (name, base, target) in [
        ("same members", &same, &same),
        ("stored", &stored, &stored),
        ("text", &text(1, 1_000), &text(2, 1_000)),
        ("empty", &Vec::new(), &Vec::new()),
        ("unknown compressor", &stored, &odd),
    ] {
        assert!(encode_files(base, target).is_none(), "{name}");
    }
}

/// Pins the format and the compressors: when this fails, frames in the field no longer restore.
#[test]
fn golden_bytes_restore() {
    let archive = |change: fn(Vec<u8>) -> Vec<u8>| {
        zip(&[
            ("same", text(1, 500), Form::Deflated(Method::Zlib(6))),
            ("zlib", change(text(2, 2_000)), Form::Deflated(Method::Zlib(9))),
            ("miniz", change(text(3, 2_000)), Form::Described(Method::Miniz(6))),
        ])
    };
    let (old, new) = (archive(|plain| plain), archive(changed_text));
    let golden = include_bytes!("golden/zip.bin");
    assert!(restore(&old, golden, new.len()).unwrap() == new);
    let digest = "sha256:597aa6d8386935934de78d339eab5a7500e99f82638573bab84823d3ba9bcf40";
    assert_eq!(crate::digest::Digest::of(&new).to_string(), digest);
}

#[test]
fn a_bomb_of_a_base_is_refused_at_its_limit() {
    let bomb = deflated(&vec![0; caps::ARCHIVE_EXPANDED_BYTES_MAX as usize + 1], METHODS[3]);
    let script = Script { expanded_len: 0, base_gaps: vec![0], members: Vec::new() };
    assert!(Expansion::expand(&bomb[..], script, Vec::new()).is_err());
}

#[test]
fn any_flip_is_an_error_or_other_bytes_of_the_same_length_at_most() {
    let archive = |plain| zip(&[("a", plain, Form::Deflated(METHODS[0])), ("b", text(1, 50), Form::Stored)]);
    let (old, new) = (archive(text(10, 2_000)), archive(changed_text(text(10, 2_000))));
    let encoded = round_trip(&old, &new);
    for at in 0..encoded.len() {
        for bit in 0..8 {
            let mut damaged = encoded.clone();
            damaged[at] ^= 1 << bit;
            if let Ok(restored) = restore(&old, &damaged, new.len()) {
                assert!(restored.len() <= new.len());
            }
        }
        assert!(restore(&old, &encoded[..at], new.len()).map_or(true, |restored| restored != new));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn edited_archives_are_restored(
        members in proptest::collection::vec((0_usize..8_000, 0_usize..METHODS.len(), 0_u8..3), 1..6),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..4),
        garbage in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let build = |edits: &[(prop::sample::Index, prop::sample::Index, u8)]| {
            let mut texts: Vec<_> = members.iter().enumerate().map(|(i, m)| text(i as u64, m.0)).collect();
            for (member, at, byte) in edits {
                let plain = &mut texts[member.index(members.len())];
                if !plain.is_empty() {
                    let at = at.index(plain.len());
                    plain[at] = *byte;
                }
            }
            let form = |(_, method, form): &(usize, usize, u8)| match form {
                0 => Form::Stored,
                1 => Form::Deflated(METHODS[*method]),
                _ => Form::Described(METHODS[*method]),
            };
            let zipped: Vec<_> = texts.into_iter().zip(&members).map(|(plain, m)| ("name", plain, form(m))).collect();
            zip(&zipped)
        };
        let (old, new) = (build(&[]), [&garbage, &build(&edits)[..]].concat());
        if let Some(encoded) = encode_files(&old, &new) {
            prop_assert!(restore(&old, &encoded, new.len()).unwrap() == new);
        }
    }

    #[test]
    fn any_bytes_decode_to_an_error_or_within_bounds(
        encoded in proptest::collection::vec(any::<u8>(), 0..200),
        gaps in proptest::collection::vec(0_usize..3_000, 0..4),
        plain_lens in proptest::collection::vec(0_usize..3_000, 0..4),
        len in 0_usize..10_000,
    ) {
        let base = zip(&[("a", text(1, 5_000), Form::Deflated(METHODS[0]))]);
        let member = |plain_len: &usize| Member { gap: 7, plain_len: *plain_len, method: METHODS[0] };
        let script = Script {
            expanded_len: 20_000,
            base_gaps: gaps,
            members: plain_lens.iter().map(member).collect(),
        };
        let mut framed = Vec::new();
        put_bytes(&mut framed, &script.encode().unwrap());
        framed.extend_from_slice(&encoded);
        for encoded in [encoded, framed] {
            if let Ok(restored) = restore(&base, &encoded, len) {
                prop_assert!(restored.len() <= len);
            }
        }
    }
}

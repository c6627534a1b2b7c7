use proptest::prelude::*;

use super::*;

fn file<'a>(path: &'a str, bytes: &[u8]) -> Entry<'a> {
    let kind =
        EntryKind::File(FileEntry { executable: false, size: bytes.len() as u64, digest: Digest::of(bytes) });
    Entry { path: RelPath::new(path).unwrap(), kind }
}

fn dir(path: &str) -> Entry<'_> {
    Entry { path: RelPath::new(path).unwrap(), kind: EntryKind::Directory }
}

fn link<'a>(path: &'a str, target: &'a str) -> Entry<'a> {
    Entry { path: RelPath::new(path).unwrap(), kind: EntryKind::Symlink { target } }
}

#[test]
fn the_canonical_form_never_changes() {
    let manifest =
        Manifest::new(vec![dir("bin"), file("bin/a", b"one"), link("bin/b", "a"), file("c", b"two")])
            .unwrap();
    // A golden digest: when this fails, every package in the field gets another name.
    assert_eq!(
        manifest.digest().to_string(),
        "sha256:760875c50d081fe684d44715a1ae7507bffbaf61e5fd283f5f94f780a51e987f"
    );
    assert_eq!(Manifest::decode(manifest.as_bytes().to_vec()).unwrap(), manifest);
}

#[test]
fn an_entry_is_found_in_the_bytes_as_it_is_found_in_the_manifest() {
    let entries = [dir("bin"), file("bin/a", b"one"), link("bin/b", "a"), file("c", b"two")];
    let manifest = Manifest::new(entries).unwrap();
    for path in ["", "a", "bin", "bin/", "bin/a", "bin/aa", "bin/b", "c", "d"] {
        assert_eq!(Manifest::find(manifest.as_bytes(), path).unwrap(), manifest.get(path), "{path:?}");
    }
    for len in 0..manifest.as_bytes().len() {
        assert!(Manifest::find(&manifest.as_bytes()[..len], "d").is_err(), "{len}");
        assert!(Manifest::decode(manifest.as_bytes()[..len].to_vec()).is_err(), "{len}");
    }
    let longer = [manifest.as_bytes(), b"x"].concat();
    assert!(Manifest::find(&longer, "d").is_err() && Manifest::decode(longer).is_err());
}

#[test]
fn structure_is_checked() {
    for (name, entries) in [
        ("twice", vec![file("a", b""), file("a", b"")]),
        ("unsorted", vec![file("b", b""), file("a", b"")]),
        ("no parent", vec![file("a/b", b"")]),
        ("parent is a file", vec![file("a", b""), file("a/b", b"")]),
        ("parent is a link", vec![link("a", "."), file("a/b", b"")]),
        (
            "one digest, two sizes",
            vec![
                file("a", b"x"),
                Entry {
                    path: RelPath::new("b").unwrap(),
                    kind: EntryKind::File(FileEntry { executable: false, size: 9, digest: Digest::of(b"x") }),
                },
            ],
        ),
    ] {
        assert!(Manifest::new(entries).is_err(), "{name}");
    }
}

#[test]
fn links_that_leave_the_tree_are_refused() {
    for (name, entries) in [
        ("absolute", vec![link("a", "/etc/passwd")]),
        ("up", vec![link("a", "..")]),
        ("up and aside", vec![dir("d"), link("d/a", "../../x")]),
        ("down then up", vec![link("a", "b/../../x")]),
        (
            "through another link",
            vec![dir("d"), dir("d/e"), link("d/e/root", "../.."), link("out", "d/e/root/..")],
        ),
        ("empty", vec![link("a", "")]),
    ] {
        assert!(Manifest::new(entries).is_err(), "{name}");
    }
}

#[test]
fn links_that_lead_far_are_refused_before_they_are_followed_for_long() {
    let long = "./".repeat(caps::PATH_BYTES_MAX);
    let refused = Manifest::new(vec![link("a", "b"), link("b", &long)]).unwrap_err().to_string();
    assert!(refused.contains("too long"), "{refused}");

    let hops: Vec<(String, String)> = (0..30)
        .map(|hop| (format!("h{hop:02}"), format!("{}h{:02}", "d/../".repeat(200), hop + 1)))
        .chain((0..1_000).map(|number| (format!("l{number:04}"), "h00".to_owned())))
        .collect();
    let entries = |hops: &[(String, String)]| {
        let links = hops.iter().map(|(path, target)| link(path, target));
        Manifest::new(std::iter::once(dir("d")).chain(links.collect::<Vec<_>>()))
    };
    entries(&hops[..100]).unwrap();
    let refused = entries(&hops).unwrap_err().to_string();
    assert!(refused.contains("too long a way"), "{refused}");
}

#[test]
fn links_that_stay_inside_are_accepted() {
    for entries in [
        vec![link("a", "b"), file("b", b"")],
        vec![link("dangling", "nowhere")],
        vec![link("loop", "loop")],
        vec![dir("d"), link("d/up", ".."), file("x", b"")],
        vec![dir("d"), link("d/same", "../d/./same2")],
    ] {
        Manifest::new(entries).unwrap();
    }
}

#[test]
fn a_count_larger_than_the_bytes_is_refused_before_allocation() {
    let mut bytes = b"sluice-manifest\x01".to_vec();
    codec_put(&mut bytes, 1_000_000);
    assert!(Manifest::decode(bytes).is_err());
}

fn codec_put(bytes: &mut Vec<u8>, value: u64) {
    crate::codec::put_varint(bytes, value);
}

proptest! {
    #[test]
    fn places_are_what_a_look_at_every_entry_finds(bytes in proptest::collection::vec(0_u8..6, 0..40)) {
        let names: Vec<String> = (0..bytes.len()).map(|number| format!("{number:02}")).collect();
        let entries = names.iter().zip(&bytes).map(|(name, byte)| match byte {
            0 => dir(name),
            1 => link(name, "x"),
            _ => file(name, &[*byte]),
        });
        let manifest = Manifest::new(entries).unwrap();
        let mut distinct: Vec<Digest> = Vec::new();
        for (_, file) in manifest.files() {
            if !distinct.contains(&file.digest) {
                distinct.push(file.digest);
            }
        }
        prop_assert_eq!(manifest.contents().iter().map(|content| content.digest).collect::<Vec<_>>(), distinct);
        prop_assert_eq!(manifest.contents().get(manifest.contents().len() as u32), None);
        prop_assert_eq!(manifest.first_files().count(), manifest.contents().len());
        for (number, content) in (0_u32..).zip(manifest.contents().iter()) {
            let holds = |entry: &Entry<'_>| entry.file().is_some_and(|(_, file)| file.digest == content.digest);
            let expected = manifest.entries().enumerate().filter(|(_, entry)| holds(entry)).map(|(at, _)| at);
            prop_assert_eq!(manifest.places(number).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            prop_assert_eq!(manifest.content_number(&content.digest), Some(number));
        }
        prop_assert_eq!(manifest.content_number(&Digest::of(b"nowhere")), None);
        let other = Manifest::new([file("a", &[3]), file("b", &[5]), file("c", b"other")]).unwrap();
        let places = |number| other.places(number).collect::<Vec<usize>>();
        let shared = |content: Content| other.content_number(&content.digest).map(places);
        let expected: Vec<_> = manifest.contents().iter().map(shared).collect();
        let copies = |copies| other.copies(copies).collect::<Vec<usize>>();
        let found: Vec<_> = manifest.shared_with(&other).into_iter().map(|found| found.map(copies)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_bytes_decode_or_are_refused_and_what_decodes_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut with_magic = b"sluice-manifest\x01".to_vec();
        with_magic.extend_from_slice(&bytes);
        if let Ok(manifest) = Manifest::decode(with_magic.clone()) {
            let again = Manifest::new(manifest.entries()).unwrap();
            prop_assert_eq!(again.as_bytes(), with_magic);
        }
    }

    #[test]
    fn a_flipped_bit_never_decodes_to_the_same_package(position in 0_usize..200, bit in 0_u8..8) {
        let manifest = Manifest::new(vec![dir("bin"), file("bin/a", b"one"), link("bin/b", "a")]).unwrap();
        let mut bytes = manifest.as_bytes().to_vec();
        let at = position % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(other) = Manifest::decode(bytes) {
            prop_assert_ne!(other.digest(), manifest.digest());
        }
    }
}

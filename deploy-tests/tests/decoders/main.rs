//! Outside data, valid and hostile, through every decoder: the fuzzers' corpus, in every test run.

use std::path::{Path, PathBuf};

use sluice_deploy_tests::hostile;
use sluice_deploy_tests::hostile::fixture::Fixture;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// Returns every file below `dir`, or nothing where there is none.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(dir).map_or_else(|_| Vec::new(), |entries| entries.collect());
    entries.into_iter().map(|entry| entry.expect("the corpus is readable").path()).collect()
}

#[test]
fn no_decoder_breaks_its_promises_on_any_input_of_the_corpus() {
    let mut inputs: Vec<Vec<u8>> = hostile::seeds().into_iter().map(|(_, bytes)| bytes).collect();
    for (target, _) in hostile::ALL {
        let found = files(&corpus().join(target));
        assert!(!found.is_empty(), "no corpus for {target}");
        inputs.extend(found.iter().map(|file| fs_err::read(file).unwrap()));
    }
    for input in &inputs {
        for (_, decoder) in hostile::ALL {
            decoder(input);
        }
    }
}

#[test]
fn the_fixture_reaches_every_codec_and_survives_it() {
    let fixture = Fixture::get();
    let frames = fixture.frames();
    for (codec, bytes) in &frames {
        let target = hostile::target_of(*codec);
        let decoder = hostile::ALL.iter().find(|(name, _)| *name == target).unwrap().1;
        decoder(bytes);
    }
    let reached: std::collections::BTreeSet<_> =
        frames.iter().map(|(codec, _)| hostile::target_of(*codec)).collect();
    assert_eq!(
        reached.into_iter().collect::<Vec<_>>(),
        ["frame_archive", "frame_filtered", "frame_image", "frame_zstd"]
    );
}

/// Writes the seeds into the corpus, from which the fuzzers begin. Run after a format has changed.
#[test]
#[ignore = "writes into the source tree"]
fn write_seeds() {
    for (number, (target, bytes)) in hostile::seeds().into_iter().enumerate() {
        let dir = corpus().join(target);
        fs_err::create_dir_all(&dir).unwrap();
        fs_err::write(dir.join(format!("seed-{number:02}")), bytes).unwrap();
    }
}

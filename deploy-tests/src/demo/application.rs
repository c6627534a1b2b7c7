//! The demonstration's application: a page, a health answer and some assets, in three versions.

use std::path::Path;

use anyhow::Result;

use super::plan::DemoRelease;
use crate::lab::{noise, write_tree};

/// The application's name.
pub(super) const NAME: &str = "shop";

const ASSETS: u64 = 48;
const ASSET_BYTES: usize = 96 << 10;

/// What the package says of its life on a host. The gate is short: this is a demonstration.
const SPEC: &str = r#"[hooks.validate]
command = ["bin/validate"]
timeout = "10s"

[gate]
deadline = "2s"
bake = "300ms"

[[health]]
type = "http"
url = "http://127.0.0.1:${PORT}/health"
contains = "ok ${VERSION}"
interval = "100ms"
timeout = "1s"
successes = 2
"#;

const VALIDATE: &str = "#!/bin/sh\ngrep -q \"^shop $RELEASE_VERSION$\" index.txt\n";

/// Writes the three versions below `dir` and returns them in the order in which they roll out.
pub(super) fn releases(dir: &Path) -> Result<Vec<DemoRelease>> {
    let story = [
        ("1.0.0", "the first version, onto empty hosts", true),
        ("2.0.0", "a canary, then batches, under steady requests", true),
        ("3.0.0", "answers its health check wrongly; watch it go back by itself", false),
    ];
    let write = |(version, story, succeeds): (&str, &'static str, bool)| {
        let tree = dir.join(version);
        write_version(&tree, version, succeeds)?;
        Ok(DemoRelease { app: NAME.to_owned(), version: version.to_owned(), tree, story, succeeds })
    };
    story.into_iter().map(write).collect()
}

fn write_version(tree: &Path, version: &str, healthy: bool) -> Result<()> {
    let page = format!("shop {version}\n{}end {version}\n", "a line of the page\n".repeat(40));
    let health =
        if healthy { format!("ok {version}\n") } else { format!("degraded {version}: no database\n") };
    let mut files = vec![
        ("sluice.toml".to_owned(), SPEC.as_bytes().to_vec(), false),
        ("bin/validate".to_owned(), VALIDATE.as_bytes().to_vec(), true),
        ("index.txt".to_owned(), page.into_bytes(), false),
        ("health".to_owned(), health.into_bytes(), false),
    ];
    for number in 0..ASSETS {
        let mut bytes = noise(number, ASSET_BYTES);
        // One asset in eight changes a little from version to version.
        if number % 8 == 0 {
            bytes[1_000..1_000 + version.len()].copy_from_slice(version.as_bytes());
        }
        files.push((format!("assets/{number:02}.bin"), bytes, false));
    }
    let files: Vec<_> =
        files.iter().map(|(path, bytes, mode)| (path.as_str(), bytes.clone(), *mode)).collect();
    write_tree(tree, &files)
}

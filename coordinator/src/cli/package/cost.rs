//! `package cost`: what a cold install and an update would send, found by encoding both here.

use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::Context as _;
use serde::Serialize;
use sluice_common::spec;
use sluice_common::transfer::{self, Effort};
use sluice_common::tree::Tree;
use sluice_common::units::format_size;
use tokio::task::spawn_blocking;

use super::{build, tree_text};
use crate::cli::Context;
use crate::cli::args::CostArgs;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, pairs};
use crate::cli::progress;

/// The measure. The keys are a contract: exactly these.
#[derive(Serialize)]
struct Cost {
    files: u64,
    tree_bytes: u64,
    cold_bytes: u64,
    update_bytes: u64,
    spec_bytes: u64,
    manifest_bytes: u64,
    update_manifest_bytes: u64,
}

pub(super) async fn run(context: &Context, args: CostArgs) -> anyhow::Result<Exit> {
    let CostArgs { old, new, effort } = args;
    let output = context.output;
    let old = Arc::new(build::scan(output, old).await?);
    let new = Arc::new(build::scan(output, new).await?);
    let cold = measure(output, None, new.clone(), effort.into()).await?;
    let update = measure(output, Some(old), new.clone(), effort.into()).await?;
    let cost = Cost {
        files: new.manifest().file_count(),
        tree_bytes: new.manifest().tree_bytes(),
        cold_bytes: cold.total(),
        update_bytes: update.total(),
        spec_bytes: cold.spec_bytes,
        manifest_bytes: cold.manifest_bytes,
        update_manifest_bytes: update.manifest_bytes,
    };
    output.show(&cost, || text(&cost))?;
    Ok(Exit::Success)
}

async fn measure(
    output: Output,
    old: Option<Arc<Tree>>,
    new: Arc<Tree>,
    effort: Effort,
) -> anyhow::Result<transfer::Cost> {
    let bar = progress::counter(output, if old.is_some() { "update" } else { "cold" });
    let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let measure = move || {
        let cost = transfer::cost(old.as_deref(), &new, effort, workers, &|bytes| bar.inc(bytes));
        bar.finish_and_clear();
        cost.context("cannot encode the transfer; did a file change meanwhile?")
    };
    spawn_blocking(measure).await?
}

fn text(cost: &Cost) -> String {
    let share = |bytes: u64| format!("{:.1} %", bytes as f64 * 100.0 / cost.tree_bytes.max(1) as f64);
    let line = |bytes: u64, manifest: u64| {
        format!("{}, {} of the tree; manifest {}", format_size(bytes), share(bytes), format_size(manifest))
    };
    let mut lines = vec![
        ("new tree", tree_text(cost.files, cost.tree_bytes)),
        ("cold install", line(cost.cold_bytes, cost.manifest_bytes)),
        ("update", line(cost.update_bytes, cost.update_manifest_bytes)),
    ];
    if cost.spec_bytes > 0 {
        lines.push(("of each", format!("{} {}", spec::FILE_NAME, format_size(cost.spec_bytes))));
    }
    pairs(&lines)
}

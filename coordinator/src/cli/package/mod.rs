//! `package`: packing and its cost, here; pushing, listing and showing, and transfer plans, at the coordinator.

mod build;
mod cost;
mod plans;

use std::cell::Cell;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use sluice_common::digest::Digest;
use sluice_common::manifest::Manifest;
use sluice_common::transfer::decode_manifest;
use sluice_common::units::format_size;
use sluice_proto::v1;
use v1::get_package_response::Message;

use super::Context;
use super::args::PackageCommand;
use super::connect::Coordinator;
use super::error::context as advice;
use super::exit::Exit;
use super::output::{count, moment, or_dash, pairs, table};
use super::push;
use super::view::release::{File, Package};
use super::view::short;

#[derive(Serialize)]
struct Packages {
    packages: Vec<Package>,
}

/// A package with its entries, where they were asked for.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    package: Package,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Vec<File>>,
}

pub(super) async fn run(context: &Context, command: PackageCommand) -> anyhow::Result<Exit> {
    match command {
        PackageCommand::Build { dir } => build::run(context, dir).await,
        PackageCommand::Push { dir } => {
            let coordinator = context.connect().await?;
            let pushed = push_dir(context, &coordinator, &dir).await?;
            context.output.show(&pushed, || format!("{}\n", pushed.digest))?;
            Ok(Exit::Success)
        }
        PackageCommand::List => list(context).await,
        PackageCommand::Show { digest, files } => show(context, digest, files).await,
        PackageCommand::Plans { package } => plans::run(context, package).await,
        PackageCommand::Cost(args) => cost::run(context, args).await,
    }
}

/// Packs a directory, pushes it, and tells people what that took.
pub(super) async fn push_dir(
    context: &Context,
    coordinator: &Coordinator,
    dir: &Path,
) -> anyhow::Result<push::Pushed> {
    let tree = build::pack(context.output, dir.to_owned()).await?;
    let first = Cell::new(Some(coordinator.line()));
    let dial = async || match first.take() {
        Some(line) => Ok(line),
        None => coordinator.new_line().await,
    };
    let pushed = push::push(context.output, dial, tree, push::Patience::default())
        .await
        .with_context(|| format!("cannot push {}", dir.display()))?;
    context.output.note(&pushed);
    Ok(pushed)
}

/// Finds a package by the beginning of its digest.
pub(super) async fn find(coordinator: &Coordinator, prefix: &str) -> anyhow::Result<Package> {
    Ok(get(coordinator, prefix, false).await?.0)
}

async fn list(context: &Context) -> anyhow::Result<Exit> {
    let request = v1::ListPackagesRequest {};
    let mut pages = context.connect().await?.packages().list_packages(request).await?.into_inner();
    let mut packages = Packages { packages: Vec::new() };
    while let Some(page) = pages.message().await? {
        packages.packages.extend(page.packages.into_iter().map(Package::from));
    }
    context.output.show(&packages, || {
        let rows = packages.packages.iter().map(|package| {
            vec![
                short(&package.digest),
                package.files.to_string(),
                format_size(package.tree_bytes),
                moment(package.pushed_at),
                package.pushed_by.clone(),
                or_dash(&package.releases.join(", ")),
            ]
        });
        table(&["DIGEST", "FILES", "SIZE", "PUSHED", "BY", "RELEASES"], &["FILES", "SIZE"], rows.collect())
    })?;
    Ok(Exit::Success)
}

async fn show(context: &Context, digest: String, files: bool) -> anyhow::Result<Exit> {
    let coordinator = context.connect().await?;
    let (package, manifest) = get(&coordinator, &digest, files).await?;
    let entries = manifest.map(|manifest| manifest.entries().map(File::from).collect());
    let shown = Shown { package, entries };
    context.output.show(&shown, || {
        let Shown { package, entries } = &shown;
        let mut text = pairs(&[
            ("digest", package.digest.clone()),
            ("files", package.files.to_string()),
            ("size", format_size(package.tree_bytes)),
            ("pushed", format!("{} by {}", moment(package.pushed_at), package.pushed_by)),
            ("releases", or_dash(&package.releases.join(", "))),
        ]);
        if let Some(entries) = entries {
            text.push('\n');
            text.push_str(&entry_table(entries));
        }
        text
    })?;
    Ok(Exit::Success)
}

fn entry_table(entries: &[File]) -> String {
    let rows = entries.iter().map(|entry| {
        let kind = if entry.executable { "executable" } else { entry.kind };
        let path = match &entry.target {
            Some(target) => format!("{} -> {target}", entry.path),
            None => entry.path.clone(),
        };
        let digest = entry.digest.as_deref().map(short).unwrap_or_default();
        vec![kind.to_owned(), entry.size.map(|size| size.to_string()).unwrap_or_default(), digest, path]
    });
    table(&["KIND", "BYTES", "DIGEST", "PATH"], &["BYTES"], rows.collect())
}

/// Gets a package and, where asked for, its manifest, which must have the package's digest.
async fn get(
    coordinator: &Coordinator,
    prefix: &str,
    manifest: bool,
) -> anyhow::Result<(Package, Option<Manifest>)> {
    let missing =
        || advice(format!("cannot show the package {prefix}"), "sluice package list shows what there is");
    let request = v1::GetPackageRequest { digest_prefix: prefix.to_owned(), manifest };
    let mut answers = coordinator.packages().get_package(request).await.with_context(missing)?.into_inner();
    let (mut package, mut compressed) = (None, Vec::new());
    while let Some(answer) = answers.message().await.with_context(missing)? {
        match answer.message {
            Some(Message::Package(found)) => package = Some(found),
            Some(Message::Manifest(piece)) => compressed.extend_from_slice(&piece),
            None => {}
        }
        let limit = sluice_common::caps::MANIFEST_BYTES_MAX;
        anyhow::ensure!(
            compressed.len() as u64 <= limit,
            "the manifest is longer than {}",
            format_size(limit)
        );
    }
    let package = package.context("the coordinator answered without a package")?;
    if !manifest {
        return Ok((package.into(), None));
    }
    let bytes = decode_manifest(&compressed, &[]).context("the manifest that came is damaged")?;
    anyhow::ensure!(
        Digest::of(&bytes).as_bytes()[..] == package.digest[..],
        "the manifest that came is another's"
    );
    Ok((package.into(), Some(Manifest::decode(bytes)?)))
}

/// Formats the size of a tree in words.
fn tree_text(files: u64, bytes: u64) -> String {
    format!("{}, {}", count(usize::try_from(files).unwrap_or(usize::MAX), "file"), format_size(bytes))
}

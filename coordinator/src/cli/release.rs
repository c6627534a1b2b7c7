//! `release`: signs here, registers at the coordinator.

use std::collections::BTreeMap;

use anyhow::Context as _;
use fs_err as fs;
use serde::Serialize;
use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::keys::SecretKey;
use sluice_common::name::{AppName, Platform};
use sluice_common::release::{Release, ReleaseError, SignedRelease};
use sluice_proto::v1;

use super::Context;
use super::args::{PackageSource, ReleaseCommand, ReleaseCreateArgs, ReleasePackage};
use super::connect::Coordinator;
use super::error::{advise, context as advice};
use super::exit::Exit;
use super::output::{moment, or_dash, table};
use super::package;
use super::past;
use super::view::release::Release as ReleaseView;
use super::view::short;

#[derive(Serialize)]
struct Created {
    #[serde(flatten)]
    release: ReleaseView,
    created: bool,
}

#[derive(Serialize)]
struct Releases {
    releases: Vec<ReleaseView>,
}

pub(super) async fn run(context: &Context, command: ReleaseCommand) -> anyhow::Result<Exit> {
    match command {
        ReleaseCommand::Create(args) => create(context, args).await,
        ReleaseCommand::Where { app, version, limit } => past::release(context, app, version, limit).await,
        ReleaseCommand::List { app } => list(context, app).await,
    }
}

async fn create(context: &Context, args: ReleaseCreateArgs) -> anyhow::Result<Exit> {
    let ReleaseCreateArgs { app, version, package, key, notes, notes_file } = args;
    // What may fail here fails before anything is sent.
    let secret =
        SecretKey::load(&key).with_context(|| format!("cannot sign with the key {}", key.display()))?;
    let notes = match notes_file {
        Some(path) => fs::read_to_string(&path)?,
        None => notes.unwrap_or_default(),
    };
    if notes.len() > caps::NOTES_BYTES_MAX {
        return Err(ReleaseError::Notes(notes.len()).into());
    }
    check_platforms(&package)?;
    let coordinator = context.connect().await?;
    let packages = resolve(context, &coordinator, package).await?;
    let signed = Release { app, version, packages, notes }.sign(&secret)?;
    let request = v1::CreateReleaseRequest { release: Some((&signed).into()) };
    let answer = coordinator.packages().create_release(request).await.with_context(|| failed(&signed))?;
    let v1::CreateReleaseResponse { release, created } = answer.into_inner();
    let release = ReleaseView::try_from(release.context("the coordinator answered without a release")?)?;
    let created = Created { release, created };
    let Created { release: ReleaseView { app, version, key_id, .. }, created: is_new } = &created;
    context.output.show(&created, || format!("{app} {version}\n"))?;
    context.output.note(format_args!(
        "{}signed by the key {key_id}; next: sluice rollout start {app} {version}",
        if *is_new { "" } else { "was there already, the very same; " }
    ));
    Ok(Exit::Success)
}

fn failed(signed: &SignedRelease) -> super::error::Advice {
    let Release { app, version, .. } = &signed.release;
    advice(
        format!("cannot register the release {app} {version}"),
        "a version says one thing for ever: give a changed release another version; sluice release list shows them",
    )
}

fn check_platforms(packages: &[ReleasePackage]) -> anyhow::Result<()> {
    for (i, package) in packages.iter().enumerate() {
        if packages[..i].iter().any(|before| before.platform == package.platform) {
            return Err(advise(
                format_args!("two packages are given for the platform {}", package.platform),
                "write --package PLATFORM=DIR, one for each platform",
            ));
        }
    }
    Ok(())
}

/// Turns every package into a digest that the coordinator has; pushes directories.
async fn resolve(
    context: &Context,
    coordinator: &Coordinator,
    packages: Vec<ReleasePackage>,
) -> anyhow::Result<BTreeMap<Platform, Digest>> {
    let mut resolved = BTreeMap::new();
    for ReleasePackage { platform, source } in packages {
        let digest = match source {
            PackageSource::Digest(digest) => digest,
            PackageSource::Prefix(prefix) => package::find(coordinator, &prefix).await?.digest.parse()?,
            PackageSource::Dir(dir) => package::push_dir(context, coordinator, &dir).await?.digest,
        };
        resolved.insert(platform, digest);
    }
    Ok(resolved)
}

async fn list(context: &Context, app: Option<AppName>) -> anyhow::Result<Exit> {
    let request = v1::ListReleasesRequest { app: app.map(|app| app.to_string()).unwrap_or_default() };
    let mut pages = context.connect().await?.packages().list_releases(request).await?.into_inner();
    let mut releases = Vec::new();
    while let Some(page) = pages.message().await? {
        for release in page.releases {
            releases.push(ReleaseView::try_from(release)?);
        }
    }
    let releases = Releases { releases };
    context.output.show(&releases, || release_table(&releases.releases))?;
    Ok(Exit::Success)
}

fn release_table(releases: &[ReleaseView]) -> String {
    let rows = releases.iter().map(|release| {
        let packages =
            release.packages.iter().map(|(platform, digest)| format!("{platform}={}", short(digest)));
        vec![
            release.app.clone(),
            release.version.clone(),
            packages.collect::<Vec<_>>().join(","),
            release.key_id.clone(),
            moment(release.created_at),
            release.created_by.clone(),
            or_dash(release.notes.lines().next().unwrap_or_default()),
        ]
    });
    table(&["APP", "VERSION", "PACKAGES", "KEY", "CREATED", "BY", "NOTES"], &[], rows.collect())
}

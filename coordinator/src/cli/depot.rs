//! `depot`: what lies at the coordinator, and removing what nothing uses.

use sluice_common::units::format_size;
use sluice_proto::v1;

use super::Context;
use super::args::DepotCommand;
use super::exit::Exit;
use super::output::{count, moment, table};
use super::view::depot::{Collected, Depot};
use super::view::short;

pub(super) async fn run(context: &Context, command: DepotCommand) -> anyhow::Result<Exit> {
    match command {
        DepotCommand::Show => show(context).await,
        DepotCommand::Collect { dry_run, unreleased_after, accept_missing } => {
            let unreleased_after_seconds = unreleased_after.map(|after| after.as_secs());
            let request = v1::CollectDepotRequest { dry_run, unreleased_after_seconds, accept_missing };
            collect(context, request).await
        }
    }
}

async fn show(context: &Context) -> anyhow::Result<Exit> {
    let answer = context.connect().await?.depot().show(v1::ShowDepotRequest {}).await?;
    let depot = Depot::from(answer.into_inner());
    context.output.show(&depot, || depot_text(&depot))?;
    Ok(Exit::Success)
}

async fn collect(context: &Context, request: v1::CollectDepotRequest) -> anyhow::Result<Exit> {
    let answer = context.connect().await?.depot().collect(request).await?;
    let collected = Collected::new(answer.into_inner(), request.dry_run);
    context.output.show(&collected, || collected_text(&collected))?;
    for package in &collected.damaged_packages {
        context.output.note(format_args!(
            "packs were left alone: package {} is damaged, and what it uses cannot be told; push it again",
            short(package)
        ));
    }
    if collected.overtaken {
        context.output.note("packages came meanwhile: some packs wait for the next collection");
    }
    if let Some(until) = collected.kept_until {
        let missing = match collected.missing_packs {
            0 => "packs that the database named were missing".to_owned(),
            1 => "1 pack that the database names is missing".to_owned(),
            packs => format!("{packs} packs that the database names are missing"),
        };
        context.output.note(format_args!(
            "packs, manifests and indexes are left alone until {}: {missing}, so it may be older than the depot; bring the newer \
             database back, or, where this one is the newest, run: sluice depot collect --accept-missing",
            moment(Some(until)),
        ));
    }
    Ok(Exit::Success)
}

fn depot_text(depot: &Depot) -> String {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), format_size);
    let mut rows: Vec<Vec<String>> = Vec::new();
    for usage in &depot.usage {
        let cells = [usage.objects.to_string(), format_size(usage.bytes), size(usage.unused_bytes)];
        rows.push([usage.kind.to_owned()].into_iter().chain(cells).collect());
    }
    let cells =
        ["all".to_owned(), depot.objects.to_string(), format_size(depot.bytes), size(depot.unused_bytes)];
    rows.push(cells.into());
    let usage = table(&["KIND", "OBJECTS", "SIZE", "UNUSED"], &["OBJECTS", "SIZE", "UNUSED"], rows);
    let packages = count(depot.packages as usize, "package");
    format!("{usage}\n{packages}, {} of them in no release\n", depot.unreleased_packages)
}

fn collected_text(collected: &Collected) -> String {
    let (removed_header, moves, is) =
        if collected.dry_run { ("WOULD GO", "would move", "would be") } else { ("REMOVED", "moved", "are") };
    if collected.packages.is_empty() && collected.removed.iter().all(|removed| removed.objects == 0) {
        return format!("nothing to remove\n{}", waiting(collected));
    }
    let mut text = String::new();
    for package in &collected.packages {
        let (name, pushed) = (short(&package.digest), moment(package.pushed_at));
        text += &format!("package {name}  pushed {pushed}  no release names it\n");
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let removed = collected.removed.iter().filter(|removed| removed.objects > 0);
    let row =
        |kind: &str, objects: u64, bytes| vec![kind.to_owned(), objects.to_string(), format_size(bytes)];
    let rows: Vec<Vec<String>> =
        removed.map(|removed| row(removed.kind, removed.objects, removed.bytes)).collect();
    if !rows.is_empty() {
        text += &table(&[removed_header, "OBJECTS", "SIZE"], &["OBJECTS", "SIZE"], rows);
    }
    if collected.sparse_packs > 0 {
        let packs = count(collected.sparse_packs as usize, "pack");
        let rewritten = format_size(collected.rewritten_bytes);
        text += &format!("\n{packs} used in part: {rewritten} {moves} to another pack\n");
    }
    text + &format!("{} {is} free again\n", format_size(collected.freed_bytes)) + &waiting(collected)
}

/// Says what goes later, if anything.
fn waiting(collected: &Collected) -> String {
    match collected.waiting_bytes {
        0 => String::new(),
        bytes => {
            format!("{} more wait: written too short a while ago, or work is under way\n", format_size(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_common::digest::Digest;
    use v1::DepotKind as Kind;

    use super::*;

    fn fits(text: &str) {
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn the_depot_is_a_table_with_its_sum() {
        let usage = |kind: Kind, objects, bytes, unused_bytes| v1::DepotUsage {
            kind: kind.into(),
            objects,
            bytes,
            unused_bytes,
        };
        let mut message = v1::ShowDepotResponse {
            usage: vec![
                usage(Kind::Pack, 12, 380_200_000, Some(41_000_000)),
                usage(Kind::Frame, 140, 61_500_000, Some(0)),
            ],
            packages: 7,
            unreleased_packages: 1,
        };
        let text = depot_text(&Depot::from(message.clone()));
        fits(&text);
        insta::assert_snapshot!(text, @r"
        KIND    OBJECTS     SIZE   UNUSED
        packs        12   380 MB  41.0 MB
        frames      140  61.5 MB      0 B
        all         152   441 MB  41.0 MB

        7 packages, 1 of them in no release
        ");
        message.usage[0].unused_bytes = None;
        assert_eq!(Depot::from(message).unused_bytes, None);
    }

    #[test]
    fn a_collection_says_what_went_and_why() {
        let message = v1::CollectDepotResponse {
            packages: vec![v1::ForgottenPackage {
                digest: Digest::of(b"1").as_bytes().to_vec(),
                pushed_unix_ms: 1_000,
            }],
            sparse_packs: 2,
            rewritten_bytes: 12_000_000,
            removed: vec![
                v1::DepotRemoved { kind: Kind::Pack.into(), objects: 3, bytes: 96_100_000 },
                v1::DepotRemoved { kind: Kind::Plan.into(), objects: 0, bytes: 0 },
            ],
            freed_bytes: 84_100_000,
            waiting_bytes: 5_000,
            ..Default::default()
        };
        let text = collected_text(&Collected::new(message.clone(), false));
        fits(&text);
        insta::assert_snapshot!(text, @r"
        package 6b86b273ff34  pushed 1970-01-01 00:00:01Z  no release names it

        REMOVED  OBJECTS     SIZE
        packs          3  96.1 MB

        2 packs used in part: 12.0 MB moved to another pack
        84.1 MB are free again
        5.00 kB more wait: written too short a while ago, or work is under way
        ");
        let text = collected_text(&Collected::new(message, true));
        assert!(
            text.contains("WOULD GO") && text.contains("would move") && text.contains("would be free"),
            "{text}"
        );
        let text = collected_text(&Collected::new(v1::CollectDepotResponse::default(), false));
        assert_eq!(text, "nothing to remove\n");
    }
}

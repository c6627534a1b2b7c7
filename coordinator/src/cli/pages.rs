//! Answers that come page by page, because one message has no room for them: put together again.

use anyhow::Context as _;
use sluice_proto::v1;

use super::connect::Coordinator;

/// Returns the hosts of a selection.
pub(super) async fn hosts(coordinator: &Coordinator, selector: String) -> anyhow::Result<Vec<v1::Host>> {
    let mut hosts = Vec::new();
    let mut page = String::new();
    loop {
        let request = v1::ListHostsRequest { selector: selector.clone(), page: page.clone() };
        let answer = coordinator.fleet().list_hosts(request).await?.into_inner();
        hosts.extend(answer.hosts);
        match next(&page, answer.next_page)? {
            Some(next) => page = next,
            None => return Ok(hosts),
        }
    }
}

/// Returns what differs, and how much was looked at.
pub(super) async fn differences(
    coordinator: &Coordinator,
    name: &str,
) -> anyhow::Result<(Vec<v1::EnvironmentDifference>, u32)> {
    let mut all = Vec::new();
    let mut page = String::new();
    loop {
        let request = v1::DiffEnvironmentRequest { name: name.to_owned(), page: page.clone() };
        let answer = coordinator.environments().diff(request).await?.into_inner();
        all.extend(answer.differences);
        match next(&page, answer.next_page)? {
            Some(next) => page = next,
            None => return Ok((all, answer.looked_at)),
        }
    }
}

/// Returns the applications of a layout.
pub(super) async fn layout(coordinator: &Coordinator, name: &str) -> anyhow::Result<Vec<v1::LayoutApp>> {
    let mut apps: Vec<v1::LayoutApp> = Vec::new();
    let mut page = String::new();
    loop {
        let request = v1::LayoutEnvironmentRequest { name: name.to_owned(), page: page.clone() };
        let answer = coordinator.environments().layout(request).await?.into_inner();
        for app in answer.apps {
            match apps.last_mut().filter(|last| last.app == app.app) {
                Some(last) => last.hosts.extend(app.hosts),
                None => apps.push(app),
            }
        }
        match next(&page, answer.next_page)? {
            Some(next) => page = next,
            None => return Ok(apps),
        }
    }
}

/// Returns the next page; nothing after the last.
fn next(page: &str, next: String) -> anyhow::Result<Option<String>> {
    anyhow::ensure!(next.is_empty() || next != page, "the coordinator answered with the same page twice");
    Ok((!next.is_empty()).then_some(next))
}

/// Asks for the hosts that a rollout has left out.
pub(super) async fn whole(coordinator: &Coordinator, rollout: v1::Rollout) -> anyhow::Result<v1::Rollout> {
    let mut whole = rollout;
    while whole.hosts_left > 0 {
        let named: usize = whole.batches.iter().map(|batch| batch.hosts.len()).sum();
        let hosts_from = u32::try_from(named).unwrap_or(u32::MAX);
        let request = v1::GetRolloutRequest { id: whole.id.clone(), hosts_from };
        let answer = coordinator.rollouts().get(request).await?.into_inner();
        let piece = answer.rollout.context("the coordinator answered without a rollout")?;
        let left = whole.hosts_left;
        join(&mut whole, piece);
        anyhow::ensure!(whole.hosts_left < left, "the coordinator answered without the hosts that were left");
    }
    Ok(whole)
}

/// Adds the hosts of a further piece; what else it says is newer.
pub(super) fn join(whole: &mut v1::Rollout, piece: v1::Rollout) {
    let mut batches = std::mem::take(&mut whole.batches);
    *whole = piece;
    for (batch, more) in batches.iter_mut().zip(std::mem::take(&mut whole.batches)) {
        batch.state = more.state;
        batch.hosts.extend(more.hosts);
    }
    whole.batches = batches;
}

//! `rollout`.

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;
use sluice_common::name::{AppName, RolloutId};
use sluice_common::selector::Selector;
use sluice_common::units::{Share, format_duration};
use sluice_proto::convert::millis;
use sluice_proto::v1;

use super::Context;
use super::args::{OnFailureArg, RolloutArgs, RolloutCommand, RolloutStartArgs, WatchArgs};
use super::connect::Coordinator;
use super::error::context as advice;
use super::exit::Exit;
use super::output::{moment, or_dash, table};
use super::view::rollout::{Outcome, Rollout};
use super::watch::{self, Goal, Watch};
use super::{pages, plan_view};

const WATCH_IT: &str = "watch it with sluice rollout watch";

#[derive(Serialize)]
struct Rollouts {
    rollouts: Vec<Rollout>,
}

pub(super) async fn run(context: &Context, command: RolloutCommand) -> anyhow::Result<Exit> {
    let coordinator = match context.connect().await {
        Err(error) if matches!(command, RolloutCommand::Plan(_)) => {
            return Ok(plan_view::none(context, &error));
        }
        connected => connected?,
    };
    match command {
        RolloutCommand::Plan(args) => plan_view::run(context, &coordinator, *args).await,
        RolloutCommand::Start(args) => start(context, &coordinator, *args).await,
        RolloutCommand::List { app, limit } => list(context, &coordinator, app, limit).await,
        RolloutCommand::Show { id } => show(context, &coordinator, &id).await,
        RolloutCommand::Watch { id, timeout } => {
            let watch = Watch { id: id.as_str(), goal: Goal::Update, timeout, since_revision: 0 };
            watch::follow(context, &coordinator, watch).await
        }
        RolloutCommand::Pause { id, reason } => {
            let request = v1::PauseRolloutRequest { id: id.to_string(), reason };
            let answer = coordinator.rollouts().pause(request).await.with_context(|| no_such(&id))?;
            changed(context, &coordinator, answer.into_inner().rollout, "go on with sluice rollout resume")
                .await
        }
        RolloutCommand::Abort { id, reason } => {
            let request = v1::AbortRolloutRequest { id: id.to_string(), reason };
            let answer = coordinator.rollouts().abort(request).await.with_context(|| no_such(&id))?;
            changed(
                context,
                &coordinator,
                answer.into_inner().rollout,
                "hosts keep what they have; see sluice rollout show",
            )
            .await
        }
        RolloutCommand::Resume { id, watch } => {
            let request = v1::ResumeRolloutRequest { id: id.to_string() };
            let answer = coordinator.rollouts().resume(request).await.with_context(|| no_such(&id))?;
            begun(context, &coordinator, answer.into_inner().rollout, Goal::Update, watch).await
        }
        RolloutCommand::Rollback { id, reason, watch } => {
            let request = v1::RollBackRolloutRequest { id: id.to_string(), reason };
            let answer = coordinator.rollouts().roll_back(request).await.with_context(|| no_such(&id))?;
            begun(context, &coordinator, answer.into_inner().rollout, Goal::RollBack, watch).await
        }
        RolloutCommand::Retry { id, watch } => retry(context, &coordinator, &id, watch).await,
        RolloutCommand::Approve { id } => {
            let request = v1::ApproveRolloutRequest { id: id.to_string() };
            let answer = coordinator.rollouts().approve(request).await.with_context(|| no_such(&id))?;
            changed(context, &coordinator, answer.into_inner().rollout, WATCH_IT).await
        }
        RolloutCommand::Override { id, reason } => {
            let request = v1::OverrideRolloutRequest { id: id.to_string(), reason };
            let answer = coordinator.rollouts().r#override(request).await.with_context(|| no_such(&id))?;
            changed(context, &coordinator, answer.into_inner().rollout, WATCH_IT).await
        }
    }
}

async fn start(context: &Context, coordinator: &Coordinator, args: RolloutStartArgs) -> anyhow::Result<Exit> {
    let RolloutStartArgs { what, watch } = args;
    let spec = spec(&what);
    let RolloutArgs { app, version, .. } = what;
    let request = v1::StartRolloutRequest {
        app: app.to_string(),
        version: version.to_string(),
        spec: Some(spec),
        ..v1::StartRolloutRequest::default()
    };
    let failed = || {
        advice(
            format!("cannot start a rollout of {app} {version}"),
            format!(
                "sluice release list {app} shows its versions, sluice rollout list {app} what is under way"
            ),
        )
    };
    let answer = coordinator.rollouts().start(request).await.with_context(failed)?.into_inner();
    begun(context, coordinator, answer.rollout, Goal::Update, watch).await
}

/// Starts a rollout like an ended one, on the hosts on which that one failed.
async fn retry(
    context: &Context,
    coordinator: &Coordinator,
    id: &RolloutId,
    watch: WatchArgs,
) -> anyhow::Result<Exit> {
    let request = v1::GetRolloutRequest { id: id.to_string(), hosts_from: 0 };
    let answer = coordinator.rollouts().get(request).await.with_context(|| no_such(id))?;
    let rollout = answer.into_inner().rollout.context("the coordinator answered without a rollout")?;
    let rollout = pages::whole(coordinator, rollout).await?;
    let again = again(&rollout).ok_or_else(|| {
        anyhow::Error::from(advice(
            format!("no host of {id} is to be tried again: none has failed, or it has not ended"),
            format!("sluice rollout show {id} says how its hosts stand; one that is paused goes on with sluice rollout resume {id}"),
        ))
    })?;
    let failed = || {
        advice(
            format!("cannot try {id} again"),
            format!("sluice app show {} says whether it takes new rollouts", rollout.app),
        )
    };
    let answer = coordinator.rollouts().start(again).await.with_context(failed)?.into_inner();
    begun(context, coordinator, answer.rollout, Goal::Update, watch).await
}

/// Says what a second try asks for; nothing where there is nobody to try it on.
fn again(rollout: &v1::Rollout) -> Option<v1::StartRolloutRequest> {
    let hosts = rollout.batches.iter().flat_map(|batch| &batch.hosts);
    let failed: Vec<&str> = hosts
        .filter(|host| match host.outcome() {
            v1::HostOutcome::Failed | v1::HostOutcome::RolledBack => true,
            v1::HostOutcome::Unspecified
            | v1::HostOutcome::Waiting
            | v1::HostOutcome::Ordered
            | v1::HostOutcome::Updated
            | v1::HostOutcome::RollingBack => false,
        })
        .map(|host| host.name.as_str())
        .collect();
    if failed.is_empty() || rollout.ended_unix_ms == 0 {
        return None;
    }
    let spec = v1::RolloutSpec {
        selector: format!("host in ({})", failed.join(",")),
        emergency: String::new(),
        ..rollout.spec.clone().unwrap_or_default()
    };
    Some(v1::StartRolloutRequest {
        app: rollout.app.clone(),
        version: rollout.version.clone(),
        spec: Some(spec),
        retry_of: rollout.id.clone(),
    })
}

/// Says everything that was decided here, so that the defaults people read in `--help` are those that hold.
pub(super) fn spec(args: &RolloutArgs) -> v1::RolloutSpec {
    let RolloutArgs {
        app: _,
        version: _,
        selector,
        canary,
        batch,
        bake,
        first_site_bake,
        min_healthy,
        max_unavailable,
        max_failures,
        on_failure,
        host_deadline,
        stage_first,
        all_at_once,
        waves,
        exponential,
        one_host_first,
        blue_green,
        domain,
        domain_max_unavailable,
        domain_max_failures,
        windows,
        freezes,
        approvals,
        checks,
        emergency: _,
        reason,
    } = args;
    let has_canary = !matches!(canary, Share::Count(0) | Share::Percent(0));
    // They exclude one another: at most one of them is said.
    let said = [
        (*all_at_once, v1::StrategyKind::AllAtOnce),
        (!waves.is_empty(), v1::StrategyKind::Waves),
        (*exponential, v1::StrategyKind::Exponential),
        (*one_host_first, v1::StrategyKind::OneHostFirst),
        (*blue_green, v1::StrategyKind::BlueGreen),
        (has_canary, v1::StrategyKind::Canary),
    ];
    let said = said.into_iter().find_map(|(is_said, kind)| is_said.then_some(kind));
    let kind = said.unwrap_or(v1::StrategyKind::Rolling);
    let growing = Share::Percent(25);
    let batch = &batch.unwrap_or(if *blue_green { Share::Percent(100) } else { growing });
    let (canary, batch, at_once) = match kind {
        v1::StrategyKind::Canary => (canary.to_string(), batch.to_string(), *batch),
        v1::StrategyKind::Rolling | v1::StrategyKind::OneHostFirst | v1::StrategyKind::BlueGreen => {
            (String::new(), batch.to_string(), *batch)
        }
        v1::StrategyKind::Exponential => (canary.to_string(), String::new(), growing),
        v1::StrategyKind::Waves => (String::new(), String::new(), growing),
        v1::StrategyKind::AllAtOnce | v1::StrategyKind::Unspecified => {
            (String::new(), String::new(), Share::Percent(100))
        }
    };
    let on_failure = match on_failure {
        OnFailureArg::Rollback => v1::OnFailure::RollBack,
        OnFailureArg::Pause => v1::OnFailure::Pause,
    };
    v1::RolloutSpec {
        selector: selector.as_ref().map(Selector::to_string).unwrap_or_default(),
        strategy: kind.into(),
        canary,
        batch,
        bake_ms: millis(*bake),
        max_unavailable: max_unavailable.unwrap_or(at_once).to_string(),
        max_failures: max_failures.to_string(),
        on_failure: on_failure.into(),
        host_deadline_ms: millis(*host_deadline),
        stage_first: stage_first.to_string(),
        waves: waves.iter().map(Share::to_string).collect(),
        domain_max_unavailable: domain
            .as_ref()
            .map(|_| domain_max_unavailable.to_string())
            .unwrap_or_default(),
        domain_max_failures: domain_max_failures.map(|share| share.to_string()).unwrap_or_default(),
        domain_label: domain.clone().unwrap_or_default(),
        windows: windows.iter().map(ToString::to_string).collect(),
        freezes: freezes.iter().map(ToString::to_string).collect(),
        approvals: *approvals,
        checks: checks.iter().map(ToString::to_string).collect(),
        emergency: reason.clone().unwrap_or_default(),
        first_site_bake_ms: first_site_bake.map_or(0, millis),
        floors: min_healthy.iter().map(floor).collect(),
    }
}

fn floor(min_healthy: &Share) -> v1::RolloutFloor {
    v1::RolloutFloor { min_healthy: min_healthy.to_string(), ..v1::RolloutFloor::default() }
}

fn no_such(id: &RolloutId) -> super::error::Advice {
    advice(
        format!("cannot use the rollout {id}"),
        "sluice rollout list shows what there is and how it stands",
    )
}

async fn received(coordinator: &Coordinator, rollout: Option<v1::Rollout>) -> anyhow::Result<Rollout> {
    let rollout = rollout.context("the coordinator answered without a rollout")?;
    Ok(pages::whole(coordinator, rollout).await?.into())
}

/// Ends a command that does not watch.
async fn changed(
    context: &Context,
    coordinator: &Coordinator,
    rollout: Option<v1::Rollout>,
    next: &str,
) -> anyhow::Result<Exit> {
    let rollout = received(coordinator, rollout).await?;
    context.output.show(&rollout, || format!("{} {}\n", rollout.id, rollout.state.as_str()))?;
    context.output.note(format_args!("{next} {}", rollout.id));
    Ok(Exit::Success)
}

/// Follows what a command began, unless it is not to be watched.
async fn begun(
    context: &Context,
    coordinator: &Coordinator,
    rollout: Option<v1::Rollout>,
    goal: Goal,
    watch: WatchArgs,
) -> anyhow::Result<Exit> {
    let rollout = received(coordinator, rollout).await?;
    if watch.detach {
        context.output.show(&rollout, || format!("{}\n", rollout.id))?;
        context.output.note(format_args!("{WATCH_IT} {}", rollout.id));
        return Ok(Exit::Success);
    }
    let watch = Watch { id: &rollout.id, goal, timeout: watch.timeout, since_revision: rollout.revision };
    watch::follow(context, coordinator, watch).await
}

async fn list(
    context: &Context,
    coordinator: &Coordinator,
    app: Option<AppName>,
    limit: u32,
) -> anyhow::Result<Exit> {
    let request = v1::ListRolloutsRequest { app: app.map(|app| app.to_string()).unwrap_or_default(), limit };
    let answer = coordinator.rollouts().list(request).await?.into_inner();
    let rollouts = Rollouts { rollouts: answer.rollouts.into_iter().map(Rollout::from).collect() };
    context.output.show(&rollouts, || rollout_table(&rollouts.rollouts))?;
    Ok(Exit::Success)
}

fn rollout_table(rollouts: &[Rollout]) -> String {
    let rows = rollouts.iter().map(|rollout| {
        let total = rollout.hosts().count() + rollout.hosts_left as usize;
        let updated = rollout.hosts().filter(|(_, host)| host.outcome == Outcome::Updated).count();
        let updated = updated + rollout.hosts_left_updated as usize;
        vec![
            rollout.id.clone(),
            rollout.app.clone(),
            rollout.version.clone(),
            rollout.state.as_str().to_owned(),
            format!("{updated} of {total}"),
            moment(rollout.started_at),
            took(rollout).map_or_else(|| "-".to_owned(), format_duration),
            rollout.started_by.clone(),
            or_dash(rollout.reason.as_deref().unwrap_or_default()),
        ]
    });
    table(
        &["ID", "APP", "VERSION", "STATE", "UPDATED", "STARTED", "TOOK", "BY", "REASON"],
        &["UPDATED"],
        rows.collect(),
    )
}

fn took(rollout: &Rollout) -> Option<Duration> {
    let ended = rollout.ended_at?;
    Some(ended.duration_since(rollout.started_at?).unsigned_abs())
}

async fn show(context: &Context, coordinator: &Coordinator, id: &RolloutId) -> anyhow::Result<Exit> {
    let request = v1::GetRolloutRequest { id: id.to_string(), hosts_from: 0 };
    let answer = coordinator.rollouts().get(request).await.with_context(|| no_such(id))?;
    let rollout = received(coordinator, answer.into_inner().rollout).await?;
    context.output.show(&rollout, || watch::full_text(&rollout, Timestamp::now()))?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests;

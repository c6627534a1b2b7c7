//! The actor of one application: one task, which performs one step at a time and takes orders in between.
//!
//! In: orders, by a bounded channel (a full one drops them: orders are repeated). Out: reports, on the [`Board`]. It also
//! runs the application's [`Monitor`] and holds its lock. Which order may end which step early is [`may_take`], pure.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sluice_common::name::AppName;
use sluice_common::order::{Desired, Generation, Order, Phase, Stage};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::content::{Origin, chain};
use crate::engine::{Engine, Host, OpenError, answer, trouble};
use crate::health::Monitor;
use crate::lock::{self, Lock};
use crate::planner::{Rest, Step};
use crate::state::{AppState, Progress, StateError};

/// Time before a step is tried again whose disk failed.
const TROUBLE_DELAY: Duration = Duration::from_secs(2);

/// Runs the application until `token` is cancelled or the sender of `inbox` is gone.
pub(crate) async fn run<O: Origin>(
    app: AppName,
    host: Arc<Host<O>>,
    data: &Path,
    mut inbox: mpsc::Receiver<Order>,
    token: CancellationToken,
) {
    let _lock = match take_lock(data, &app).await {
        Ok(lock) => lock,
        Err(error) => {
            return tracing::error!(app = %app, error = chain(&error), "application is not looked after");
        }
    };
    let (monitored, subject) = watch::channel(None);
    let monitor = Monitor { app: app.clone(), subject, board: host.board.clone() };
    let board = host.board.clone();
    let stop = token.child_token();
    let act = async {
        let mut pending = None;
        while !token.is_cancelled() {
            match Engine::open(app.clone(), host.clone(), monitored.clone()).await {
                Ok(engine) => {
                    Actor { engine, inbox, pending, is_troubled: false, token }.run().await;
                    break;
                }
                Err(OpenError::State(StateError::Io(error)) | OpenError::Io(error)) => {
                    tracing::error!(app = %app, error = chain(&error), "application cannot be opened; it is tried again");
                    let wait = Trouble { reason: trouble(&error), accepted: None };
                    pending = wait.pass(&board, &mut inbox, pending, &token).await;
                }
                Err(OpenError::TakeUp { accepted, source }) => {
                    tracing::error!(app = %app, error = chain(&source), "application cannot be taken up; it is tried again");
                    let wait = Trouble { reason: trouble(&source), accepted: Some(accepted) };
                    pending = wait.pass(&board, &mut inbox, pending, &token).await;
                }
                Err(error @ OpenError::State(StateError::Damaged { .. })) => {
                    tracing::error!(app = %app, error = chain(&error), "application is not looked after");
                    refuse_all(&board, &mut inbox, &error.to_string(), &token).await;
                    break;
                }
            }
        }
        stop.cancel();
    };
    tokio::join!(act, monitor.run(stop.clone()));
}

async fn take_lock(data: &Path, app: &AppName) -> std::io::Result<Lock> {
    let path = crate::layout::app_lock(data, app);
    tokio::task::spawn_blocking(move || lock::take(&path)).await.map_err(std::io::Error::other)?
}

/// Answers every order with a failure, until an operator has mended the state.
async fn refuse_all(
    board: &Board,
    inbox: &mut mpsc::Receiver<Order>,
    reason: &str,
    token: &CancellationToken,
) {
    loop {
        let order = tokio::select! {
            order = inbox.recv() => order,
            () = token.cancelled() => return,
        };
        let Some(order) = order else { return };
        board.publish(answer(&order, Phase::Failed, reason));
    }
}

/// What keeps an application from being opened.
struct Trouble {
    reason: String,
    /// The generation of which it is known how it stands; nothing: of none.
    accepted: Option<Generation>,
}

impl Trouble {
    /// Waits before the application is tried again, and answers the orders that come that it waits; returns the newest. An
    /// order that had been accepted has been told to stand further than that, and is not answered.
    async fn pass(
        &self,
        board: &Board,
        inbox: &mut mpsc::Receiver<Order>,
        mut pending: Option<Order>,
        token: &CancellationToken,
    ) -> Option<Order> {
        let until = tokio::time::Instant::now() + TROUBLE_DELAY;
        loop {
            let is_new = |order: &&Order| self.accepted.is_none_or(|accepted| order.generation > accepted);
            if let Some(order) = pending.as_ref().filter(is_new) {
                board.publish(answer(order, Phase::Fetching, &self.reason));
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => return pending,
                () = token.cancelled() => return pending,
                order = inbox.recv() => match order {
                    Some(order) => pending = newer(pending, order),
                    None => token.cancel(),
                },
            }
        }
    }
}

struct Actor<O> {
    engine: Engine<O>,
    inbox: mpsc::Receiver<Order>,
    /// The newest order that could not be taken yet.
    pending: Option<Order>,
    /// Whether the last turn failed, which the report says.
    is_troubled: bool,
    token: CancellationToken,
}

impl<O: Origin> Actor<O> {
    async fn run(mut self) {
        while !self.token.is_cancelled() {
            match self.turn().await {
                Ok(()) => self.end_trouble().await,
                Err(_) if self.token.is_cancelled() => {}
                Err(error) => self.bear_trouble(&error).await,
            }
        }
    }

    /// Tells of a step that failed, and waits before it is tried again.
    async fn bear_trouble(&mut self, error: &std::io::Error) {
        tracing::error!(app = %self.engine.app(), error = chain(error), "step failed; it is tried again");
        self.is_troubled = true;
        let untaken = self.pending.as_ref().filter(|order| may_take(self.engine.state(), order));
        self.engine.tell_trouble(untaken, error).await;
        tokio::select! {
            () = tokio::time::sleep(TROUBLE_DELAY) => {}
            () = self.token.cancelled() => {}
        }
    }

    /// Takes back what was told of trouble, once a turn has gone well.
    async fn end_trouble(&mut self) {
        if self.is_troubled && self.engine.publish(None).await.is_ok() {
            self.is_troubled = false;
        }
    }

    async fn turn(&mut self) -> std::io::Result<()> {
        if let Some(order) = self.pending.take_if(|order| may_take(self.engine.state(), order))
            && let Err(error) = self.engine.take(order.clone()).await
        {
            self.put_off(order);
            return Err(error);
        }
        match self.engine.next().await? {
            // Before it rests, what was told of trouble is taken back.
            Step::Rest(_) if self.is_troubled => Ok(()),
            Step::Rest(rest) => {
                if rest == Rest::AwaitsRenewal {
                    tracing::info!(app = %self.engine.app(), "order has expired; its renewal is awaited");
                }
                tokio::select! {
                    order = self.inbox.recv() => match order {
                        Some(order) => self.put_off(order),
                        None => self.token.cancel(),
                    },
                    () = tokio::time::sleep_until(self.engine.next_look()) => {
                        return self.perform(Step::LookAfter).await;
                    }
                    () = self.token.cancelled() => {}
                }
                Ok(())
            }
            step => self.perform(step).await,
        }
    }

    /// Performs a step; a newer order that may be taken ends it early.
    async fn perform(&mut self, step: Step) -> std::io::Result<()> {
        let stop = self.token.child_token();
        let accepted = self.engine.state().cloned();
        let (mut newest, mut is_open) = (None, true);
        let result = {
            let performed = self.engine.perform(step, &stop);
            tokio::pin!(performed);
            loop {
                tokio::select! {
                    result = &mut performed => break result,
                    order = self.inbox.recv(), if is_open => match order {
                        Some(order) => {
                            if supersedes(accepted.as_ref(), &order) || confirms(accepted.as_ref(), &order) {
                                stop.cancel();
                            }
                            newest = newer(newest, order);
                        }
                        None => is_open = false,
                    },
                }
            }
        };
        if let Some(order) = newest {
            self.put_off(order);
        }
        if stop.is_cancelled() { Ok(()) } else { result }
    }

    fn put_off(&mut self, order: Order) {
        self.pending = newer(self.pending.take(), order);
    }
}

/// Returns the order of the higher generation; of the same, the one that came later.
fn newer(one: Option<Order>, other: Order) -> Option<Order> {
    match one {
        Some(one) if one.generation > other.generation => Some(one),
        Some(_) | None => Some(other),
    }
}

/// Says whether `order` is newer than what was accepted and may end what is under way.
fn supersedes(accepted: Option<&AppState>, order: &Order) -> bool {
    accepted.is_none_or(|state| order.generation > state.generation) && may_take(accepted, order)
}

/// Says whether `order` renews what was accepted with the confirmation for which it waits.
fn confirms(accepted: Option<&AppState>, order: &Order) -> bool {
    accepted.is_some_and(|state| {
        order.confirmed
            && order.generation == state.generation
            && matches!(state.progress, Progress::Validating { confirm_until: Some(_), .. })
    })
}

/// Says whether an order may be judged now. While links or hooks are on the move, a newer one waits; while a gate is
/// watched, only one that takes the release away ends it, so that no release stays which was never validated.
fn may_take(accepted: Option<&AppState>, order: &Order) -> bool {
    let Some(state) = accepted else { return true };
    if order.generation <= state.generation {
        return true;
    }
    match &state.progress {
        Progress::Fetching
        | Progress::Staged
        | Progress::Candidate
        | Progress::Active
        | Progress::Reverted
        | Progress::Failed => true,
        // A hook is let end: one that is cut off is never run again.
        Progress::Preparing { .. } | Progress::Switching { .. } | Progress::Reverting { .. } => false,
        Progress::Validating { .. } => match &order.desired {
            Desired::Absent => true,
            Desired::Release { stage: Stage::Staged | Stage::Candidate, .. } => false,
            Desired::Release { stage: Stage::Active, package, .. } => {
                state.wanted.package() != Some(*package)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sluice_common::digest::Digest;
    use sluice_common::keys::SecretKey;
    use sluice_common::name::Platform;
    use sluice_common::release::Release;

    use super::*;
    use crate::clock::BootTime;
    use crate::sequence::{BackStep, SwitchStep};
    use crate::state::Switch;

    fn order(generation: u64, stage: Option<Stage>, package: &str) -> Order {
        let release = Release {
            app: "shop".parse().unwrap(),
            version: "1".parse().unwrap(),
            packages: BTreeMap::from([(Platform::any(), Digest::of(package.as_bytes()))]),
            notes: String::new(),
        };
        let desired = match stage {
            Some(stage) => Desired::Release {
                stage,
                release: release.sign(&SecretKey::generate().unwrap()).unwrap(),
                package: Digest::of(package.as_bytes()),
            },
            None => Desired::Absent,
        };
        Order {
            app: "shop".parse().unwrap(),
            generation: Generation(generation),
            rollout: "r1".parse().unwrap(),
            desired,
            ttl: Duration::from_secs(9),
            confirmed: false,
            migrates: true,
            needs: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn orders_wait_while_something_moves() {
        let now = BootTime::at("b", Duration::ZERO);
        let switch = || Switch::plain(None);
        let fetching = || Progress::Fetching;
        let switching = || Progress::Switching { at: SwitchStep::Link, hook: None, switch: switch() };
        let reverting = || Progress::Reverting { at: BackStep::LinkBack, hook: None, switch: switch() };
        let validating = || Progress::Validating {
            deadline: now.clone(),
            bake_until: None,
            confirm_until: None,
            switch: switch(),
        };
        let active = Some(Stage::Active);
        for (name, progress, order, expected) in [
            ("newer while fetching", fetching(), order(6, active, "b"), true),
            ("newer while switching", switching(), order(6, active, "b"), false),
            ("renewal while switching", switching(), order(5, active, "a"), true),
            ("stale while switching", switching(), order(4, active, "b"), true),
            ("newer while reverting", reverting(), order(6, None, ""), false),
            ("another release ends a gate", validating(), order(6, active, "b"), true),
            ("nothing at all ends a gate", validating(), order(6, None, ""), true),
            ("staging does not end a gate", validating(), order(6, Some(Stage::Staged), "b"), false),
            ("the same release does not end a gate", validating(), order(6, active, "a"), false),
            ("newer when settled", Progress::Active, order(6, active, "b"), true),
        ] {
            let first = self::order(5, active, "a");
            let state = AppState { progress, ..AppState::accepted(&first, now.clone(), 1) };
            assert_eq!(may_take(Some(&state), &order), expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_trouble_only_orders_are_answered_of_which_nothing_was_told() {
        for (name, accepted, expected) in [
            ("nothing is known", None, Some("full")),
            ("an older one was accepted", Some(Generation(4)), Some("full")),
            ("it was accepted", Some(Generation(5)), None),
        ] {
            let (board, (sender, mut inbox)) = (Board::default(), mpsc::channel(1));
            sender.send(order(5, Some(Stage::Active), "a")).await.unwrap();
            let trouble = Trouble { reason: "full".to_owned(), accepted };
            let kept = trouble.pass(&board, &mut inbox, None, &CancellationToken::new()).await;
            assert_eq!(kept.map(|order| order.generation), Some(Generation(5)), "{name}");
            let answers = board.watch().borrow().clone();
            let answer = answers.values().next().and_then(|report| report.reason.as_deref());
            assert_eq!(answer, expected, "{name}");
        }
    }

    #[test]
    fn the_newest_order_is_kept() {
        let kept = newer(Some(order(6, None, "")), order(5, None, "")).unwrap();
        assert_eq!(kept.generation, Generation(6));
        assert_eq!(newer(Some(kept), order(7, None, "")).unwrap().generation, Generation(7));
    }
}

//! Plans as operators see them: what is there, what is being made, what waits its turn.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use sluice_common::digest::Digest;
use sluice_common::transfer::Effort;
use sluice_proto::convert::millis;
use sluice_proto::v1;
use sqlx::Row as _;

use super::PlanKey;
use super::demand::{Demand, Route};
use super::improver::{Improver, Survey};
use super::progress::Progress;
use super::queue::{self, Lane};
use crate::store::{self, Store};

/// Plans in one answer: more than anybody reads.
const LISTED_MAX: usize = 5_000;

/// Where a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is there, and nothing is to be done about it.
    Ready,
    /// One is being made.
    Encoding {
        /// Frames that are done.
        done: u32,
        /// All frames; zero before that is known.
        frames: u32,
    },
    /// One will be made.
    Queued {
        /// How many come before it, and one.
        place: u32,
    },
}

/// A plan as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanView {
    /// The package that hosts have; nothing for a cold install.
    pub base: Option<Digest>,
    /// The package that they get.
    pub target: Digest,
    /// Releases of both, as `APP VERSION`, newest first.
    pub releases: (Vec<String>, Vec<String>),
    /// The effort that makes it.
    pub effort: Effort,
    /// Where it stands.
    pub state: State,
    /// What a host is sent; zero while it is not there.
    pub wire_bytes: u64,
    /// The target's files.
    pub tree_bytes: u64,
    /// Hosts that would use it now.
    pub hosts: u64,
    /// CPU that encoding it took.
    pub cpu: Duration,
    /// When it was made.
    pub made: Option<Timestamp>,
}

impl Improver {
    /// Returns the plans from or to a package, or all: the newest target first, then what most hosts use.
    pub async fn overview(&self, package: Option<Digest>) -> Result<Vec<PlanView>, store::Error> {
        let survey = self.survey_now().await?;
        let states = self.states(&survey);
        let releases = releases(&self.plans.depot.store).await?;
        let demands: HashMap<Route, Demand> = survey
            .candidates
            .iter()
            .map(|candidate| ((candidate.key.base, candidate.key.target), candidate.demand))
            .collect();
        let keys: BTreeSet<PlanKey> = survey.stored.keys().chain(states.keys()).copied().collect();
        let asked = |key: &PlanKey| package.is_none_or(|p| key.target == p || key.base == Some(p));
        let view = |key: PlanKey| {
            let row = survey.stored.get(&key);
            let of =
                |package: Option<Digest>| package.and_then(|p| releases.get(&p).cloned()).unwrap_or_default();
            PlanView {
                base: key.base,
                target: key.target,
                releases: (of(key.base), of(Some(key.target))),
                effort: key.effort,
                state: states.get(&key).copied().unwrap_or(State::Ready),
                wire_bytes: row.map_or(0, |row| row.weight.wire_bytes),
                tree_bytes: survey.packages.get(&key.target).map_or(0, |row| row.tree_bytes),
                hosts: demands.get(&(key.base, key.target)).map_or(0, |demand| {
                    let bytes = |effort| {
                        survey.stored.get(&PlanKey { effort, ..key }).map(|row| row.weight.wire_bytes)
                    };
                    users(key.effort, demand, self.plans.effort, bytes)
                }),
                cpu: row.map(|row| row.cpu).unwrap_or_default(),
                made: row.map(|row| row.made),
            }
        };
        let mut views: Vec<PlanView> = keys.into_iter().filter(asked).map(view).collect();
        let pushed = |view: &PlanView| survey.packages.get(&view.target).map(|row| row.pushed);
        views.sort_by(|a, b| {
            let newest = pushed(b).cmp(&pushed(a)).then(a.target.cmp(&b.target));
            newest.then(a.base.cmp(&b.base)).then(a.effort.cmp(&b.effort))
        });
        views.truncate(LISTED_MAX);
        Ok(views)
    }

    /// Returns where every plan stands that is not simply there.
    fn states(&self, survey: &Survey) -> HashMap<PlanKey, State> {
        let mut states = HashMap::new();
        for lane in [Lane::Ahead, Lane::Better] {
            if !self.is_at_work(lane) {
                continue;
            }
            let waiting = queue::queue(lane, &survey.candidates);
            for (candidate, place) in waiting.iter().filter(|candidate| !candidate.is_held).zip(1..) {
                states.insert(candidate.key, State::Queued { place });
            }
        }
        let encoding = |Progress { done, frames }: Progress| State::Encoding { done, frames };
        for (key, lease) in &survey.leases {
            states.insert(*key, encoding(lease.progress));
        }
        // What this coordinator does itself it knows better than its own lease does.
        for (key, making) in self.plans.under_way() {
            states.insert(key, encoding(making.progress()));
        }
        states
    }
}

/// Returns how many hosts would be served this plan now.
/// `first` is the effort of plans that somebody waits for, `bytes` what a host is sent by the plans that are there. Pure.
fn users(effort: Effort, demand: &Demand, first: Effort, bytes: impl Fn(Effort) -> Option<u64>) -> u64 {
    let best = bytes(Effort::Best).filter(|best| bytes(first).is_none_or(|first| *best < first));
    // While the best plan is waited for, it is said of both whom it would suit.
    let is_to_come = effort == Effort::Best && bytes(Effort::Best).is_none();
    let limited = if best.is_some() || is_to_come { Effort::Best } else { first };
    let (open, limited) = ((first, demand.hosts() - demand.limited), (limited, demand.limited));
    [open, limited].into_iter().filter(|(served, _)| *served == effort).map(|(_, hosts)| hosts).sum()
}

/// Returns the releases that name each package, newest first.
async fn releases(store: &Store) -> Result<HashMap<Digest, Vec<String>>, store::Error> {
    let rows = sqlx::query(
        "SELECT DISTINCT p.package, p.app, p.version, r.created_ms FROM release_packages p
         JOIN releases r ON r.app = p.app AND r.version = p.version ORDER BY r.created_ms DESC, p.app, p.version",
    )
    .fetch_all(store.read())
    .await?;
    let mut releases: HashMap<Digest, Vec<String>> = HashMap::new();
    for row in rows {
        let package = store::parse("release_packages.package", &row.try_get::<String, _>("package")?)?;
        let (app, version): (String, String) = (row.try_get("app")?, row.try_get("version")?);
        releases.entry(package).or_default().push(format!("{app} {version}"));
    }
    Ok(releases)
}

fn effort_to_wire(effort: Effort) -> v1::PlanEffort {
    match effort {
        Effort::Quick => v1::PlanEffort::Quick,
        Effort::Best => v1::PlanEffort::Best,
    }
}

impl From<PlanView> for v1::TransferPlan {
    fn from(view: PlanView) -> Self {
        let PlanView {
            base,
            target,
            releases: (base_releases, target_releases),
            effort,
            state,
            wire_bytes,
            tree_bytes,
            hosts,
            cpu,
            made,
        } = view;
        let (state, frames_done, frames, place) = match state {
            State::Ready => (v1::PlanState::Ready, 0, 0, 0),
            State::Encoding { done, frames } => (v1::PlanState::Encoding, done, frames, 0),
            State::Queued { place } => (v1::PlanState::Queued, 0, 0, place),
        };
        Self {
            base: base.map(|base| base.as_bytes().to_vec()).unwrap_or_default(),
            base_releases,
            target: target.as_bytes().to_vec(),
            target_releases,
            effort: effort_to_wire(effort).into(),
            state: state.into(),
            frames_done,
            frames,
            place,
            wire_bytes,
            tree_bytes,
            hosts,
            cpu_ms: millis(cpu),
            made_unix_ms: made.map(store::to_millis).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_counted_at_the_plan_that_they_are_served() {
        let demand = Demand { ordered: 7, foreseen: 3, limited: 4, ..Demand::default() };
        for (name, first, quick, best, expected) in [
            ("the best one is to come", Effort::Quick, Some(100), None, (10, 4)),
            ("the best one is smaller", Effort::Quick, Some(100), Some(50), (6, 4)),
            ("the best one is not smaller", Effort::Quick, Some(100), Some(100), (10, 0)),
            ("the quick one was forgotten", Effort::Quick, None, Some(100), (6, 4)),
            ("hosts wait for the best one", Effort::Best, Some(100), Some(50), (0, 10)),
            ("hosts wait for one that is to come", Effort::Best, Some(100), None, (0, 10)),
        ] {
            let bytes = |effort| match effort {
                Effort::Quick => quick,
                Effort::Best => best,
            };
            let users = |effort| users(effort, &demand, first, bytes);
            assert_eq!((users(Effort::Quick), users(Effort::Best)), expected, "{name}");
        }
    }
}

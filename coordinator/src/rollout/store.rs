//! Rollouts in the database: read whole, changed action by action.
//!
//! Invariants: a commit names the revision it was planned on, so that of two writers one starts over (I13); the orders of
//! a plan, and with them the budget they spend, are committed before any of them is sent (I11); whatever was decided
//! stands in the audit log of the same transaction (I17).

mod checks;
mod commit;
mod history;
mod line;
mod load;
mod orders;
mod origin;
mod record;
pub(super) mod stays;
mod text;

pub(super) use checks::sampled;
pub use commit::CommitError;
pub(super) use commit::{commit, insert};
pub use history::Line;
pub(super) use history::history;
pub(super) use line::{reopen, standing_stop, stops};
pub(crate) use load::is_settled;
pub(super) use load::{
    Fleet, Stored, fleet, fleet_of, fleet_running, list, load, reports, unfinished, unfinished_hosts,
    unfinished_targets,
};
pub(super) use orders::{Standing, may_fetch, standing};
pub use origin::OfRun;
pub(super) use origin::{awaited, closed_apps, lost_hosts, of_run, unfinished_by_app};
pub use record::forget_reports;
pub(super) use record::{Recorded, record};
pub use stays::Stay;

use sluice_common::name::RolloutId;
use sqlx::{AnyConnection, Row};

use crate::store;

/// Returns the id of the rollout with this number.
pub(super) fn id_of(number: i64) -> Result<RolloutId, store::Error> {
    store::parse("rollouts.number", &format!("r{number}"))
}

/// Returns the number of the next rollout.
pub(super) async fn next_number(connection: &mut AnyConnection) -> Result<i64, store::Error> {
    let row = sqlx::query("SELECT number FROM rollouts ORDER BY number DESC LIMIT 1")
        .fetch_optional(connection)
        .await?;
    let last: i64 = row.map_or(Ok(0), |row| row.try_get("number"))?;
    Ok(last + 1)
}

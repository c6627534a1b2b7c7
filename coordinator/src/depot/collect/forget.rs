//! Forgetting a package: its row and everything about plans from or to it, in one transaction with its audit entry.

use jiff::Timestamp;
use serde_json::json;

use super::plan::PackageFacts;
use crate::audit;
use crate::depot::Depot;
use crate::store::{self, Actor};

/// What goes with a package: everything about plans to it and from it.
const PLANS_OF_PACKAGE: [&str; 2] = [
    "DELETE FROM depot_plan_frames WHERE target = $1 OR base = $2",
    "DELETE FROM depot_plans WHERE target = $1 OR base = $2",
];

/// Forgets a package, unless somebody has released or pushed it since it was looked at; says whether.
pub(super) async fn package(
    depot: &Depot,
    actor: &Actor,
    package: &PackageFacts,
) -> Result<bool, store::Error> {
    let PackageFacts { digest, wanted, is_released: _, is_in_use: _ } = package;
    let name = digest.to_string();
    let mut tx = depot.store.begin(actor.clone()).await?;
    let forgotten = sqlx::query(
        "DELETE FROM packages WHERE digest = $1 AND pushed_ms <= $2 AND wanted_ms <= $3
         AND NOT EXISTS (SELECT 1 FROM release_packages WHERE release_packages.package = packages.digest)",
    )
    .bind(name.as_str())
    .bind(store::to_millis(*wanted))
    .bind(store::to_millis(*wanted))
    .execute(&mut *tx)
    .await?;
    if forgotten.rows_affected() == 0 {
        tx.roll_back().await?;
        return Ok(false);
    }
    for sql in PLANS_OF_PACKAGE {
        sqlx::query(sql).bind(name.as_str()).bind(name.as_str()).execute(&mut *tx).await?;
    }
    let detail = json!({ "pushed_at": moment(*wanted), "reason": "no release names it" });
    audit::append(&mut tx, audit::Entry { action: "package.forget", subject: &name, detail }).await?;
    tx.commit().await?;
    depot.forget_package(digest);
    tracing::info!(package = %digest, "a package that no release names was forgotten");
    Ok(true)
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row};

    use super::*;
    use crate::depot::tests::Bench;

    #[tokio::test]
    async fn no_table_of_plans_is_read_whole_for_a_package() {
        let bench = Bench::new().await;
        for sql in PLANS_OF_PACKAGE {
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            let rows = sqlx::query(AssertSqlSafe(explain)).bind("sha256:aa").bind("sha256:aa");
            let rows = rows.fetch_all(bench.depot.store.read()).await.unwrap();
            let steps: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            assert!(!steps.is_empty() && steps.iter().all(|step| !step.contains("SCAN")), "{sql}: {steps:?}");
        }
    }
}

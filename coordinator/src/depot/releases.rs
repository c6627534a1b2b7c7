//! Signed releases: registered once, immutable from then on. Operators list them, rollouts order them.
//!
//! Invariant: a release in the table has a signature that fits its statement and names only packages that are whole
//! in the depot. Whose key it is, hosts judge.

use jiff::Timestamp;
use serde_json::json;
use sluice_common::digest::Digest;
use sluice_common::identity::Principal;
use sluice_common::keys::{PublicKey, Signature};
use sluice_common::name::{AppName, OperatorName, Version};
use sluice_common::release::{Release, ReleaseError, SignedRelease};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::audit;
use crate::store::{self, Actor, Store, Transaction};

/// A release as it stands in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The release.
    pub signed: SignedRelease,
    /// When it was registered.
    pub created: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// Says why a release was not registered.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The signature does not fit.
    #[error(transparent)]
    Signature(#[from] ReleaseError),
    /// Packages of it are not in the depot.
    #[error("the depot lacks {}; run: sluice package push", list_of(.packages))]
    PackagesMissing {
        /// Those that are missing.
        packages: Vec<Digest>,
    },
    /// The version exists with other content.
    #[error(
        "release {app} {version} exists already with other packages, notes or key; versions are immutable: choose another version"
    )]
    Exists {
        /// The application.
        app: AppName,
        /// The version.
        version: Version,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<CreateError> for tonic::Status {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Signature(_) => Self::invalid_argument(error.to_string()),
            CreateError::PackagesMissing { .. } => Self::failed_precondition(error.to_string()),
            CreateError::Exists { .. } => Self::already_exists(error.to_string()),
            CreateError::Store(error) => error.into(),
        }
    }
}

fn list_of(packages: &[Digest]) -> String {
    let names: Vec<String> = packages.iter().map(ToString::to_string).collect();
    format!("{} {}", if names.len() == 1 { "package" } else { "packages" }, names.join(", "))
}

/// Returns the release of this version.
pub async fn get(
    store: &Store,
    app: &AppName,
    version: &Version,
) -> Result<Option<SignedRelease>, store::Error> {
    let row = sqlx::query("SELECT * FROM releases WHERE app = $1 AND version = $2")
        .bind(app.as_str())
        .bind(version.as_str())
        .fetch_optional(store.read())
        .await?;
    Ok(row.as_ref().map(registered).transpose()?.map(|found| found.signed))
}

/// Returns the newest release of an application that brings this package.
pub async fn by_package(
    store: &Store,
    app: &AppName,
    package: &Digest,
) -> Result<Option<SignedRelease>, store::Error> {
    let row = sqlx::query(
        "SELECT r.* FROM releases r JOIN release_packages p ON p.app = r.app AND p.version = r.version
         WHERE r.app = $1 AND p.package = $2 ORDER BY r.created_ms DESC, r.version DESC LIMIT 1",
    )
    .bind(app.as_str())
    .bind(package.to_string())
    .fetch_optional(store.read())
    .await?;
    Ok(row.as_ref().map(registered).transpose()?.map(|found| found.signed))
}

/// Returns the releases of one application, or of all, newest first.
pub async fn list(store: &Store, app: Option<&AppName>) -> Result<Vec<Registered>, store::Error> {
    let rows = match app {
        Some(app) => {
            sqlx::query("SELECT * FROM releases WHERE app = $1 ORDER BY created_ms DESC, version DESC")
                .bind(app.as_str())
                .fetch_all(store.read())
                .await?
        }
        None => {
            sqlx::query("SELECT * FROM releases ORDER BY app, created_ms DESC, version DESC")
                .fetch_all(store.read())
                .await?
        }
    };
    rows.iter().map(registered).collect()
}

/// Returns the newest release of each application; where two are as new, both, the higher version first.
pub async fn newest(store: &Store) -> Result<Vec<Registered>, store::Error> {
    let rows = sqlx::query(
        "SELECT r.* FROM releases r
         JOIN (SELECT app, MAX(created_ms) AS newest_ms FROM releases GROUP BY app) n
           ON n.app = r.app AND n.newest_ms = r.created_ms
         ORDER BY r.app, r.version DESC",
    )
    .fetch_all(store.read())
    .await?;
    rows.iter().map(registered).collect()
}

/// Registers a release and returns it, and whether it is new: the very same one again changes nothing.
pub async fn create(
    store: &Store,
    by: &OperatorName,
    signed: SignedRelease,
) -> Result<(Registered, bool), CreateError> {
    signed.verify_self()?;
    let mut tx = store.begin(Actor::from(&Principal::Operator(by.clone()))).await?;
    if let Some(found) = find(&mut tx, &signed.release).await? {
        return if found.signed == signed {
            Ok((found, false))
        } else {
            let Release { app, version, .. } = signed.release;
            Err(CreateError::Exists { app, version })
        };
    }
    let packages = missing(&mut tx, &signed.release).await?;
    if !packages.is_empty() {
        return Err(CreateError::PackagesMissing { packages });
    }
    let created = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap_or_default();
    let registered = Registered { signed, created, created_by: by.to_string() };
    insert(&mut tx, &registered).await?;
    let Release { app, version, .. } = &registered.signed.release;
    let (subject, key) = (format!("{app} {version}"), registered.signed.signature.key.id());
    let entry = audit::Entry { action: "release.create", subject: &subject, detail: json!({ "key": key }) };
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    tracing::info!(app = %app, release = %version, "release registered");
    Ok((registered, true))
}

async fn find(tx: &mut Transaction, release: &Release) -> Result<Option<Registered>, store::Error> {
    let row = sqlx::query("SELECT * FROM releases WHERE app = $1 AND version = $2")
        .bind(release.app.as_str())
        .bind(release.version.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    row.as_ref().map(registered).transpose()
}

async fn missing(tx: &mut Transaction, release: &Release) -> Result<Vec<Digest>, store::Error> {
    let mut missing = Vec::new();
    for package in release.packages.values() {
        let row = sqlx::query("SELECT 1 FROM packages WHERE digest = $1")
            .bind(package.to_string())
            .fetch_optional(&mut **tx)
            .await?;
        if row.is_none() && !missing.contains(package) {
            missing.push(*package);
        }
    }
    Ok(missing)
}

async fn insert(tx: &mut Transaction, registered: &Registered) -> Result<(), store::Error> {
    let Registered { signed: SignedRelease { release, signature }, created, created_by } = registered;
    sqlx::query(
        "INSERT INTO releases (app, version, statement, public_key, signature, created_ms, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(release.app.as_str())
    .bind(release.version.as_str())
    .bind(release.encode())
    .bind(signature.key.as_bytes().to_vec())
    .bind(signature.bytes.to_vec())
    .bind(store::to_millis(*created))
    .bind(created_by.as_str())
    .execute(&mut **tx)
    .await?;
    for (platform, package) in &release.packages {
        sqlx::query("INSERT INTO release_packages (app, version, platform, package) VALUES ($1, $2, $3, $4)")
            .bind(release.app.as_str())
            .bind(release.version.as_str())
            .bind(platform.as_str())
            .bind(package.to_string())
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

fn registered(row: &AnyRow) -> Result<Registered, store::Error> {
    let statement: Vec<u8> = row.try_get("statement")?;
    let release =
        Release::decode(&statement).map_err(|error| store::Error::damaged("releases.statement", error))?;
    let key: Vec<u8> = row.try_get("public_key")?;
    let key = PublicKey::from_slice(&key)
        .ok_or_else(|| store::Error::damaged("releases.public_key", "something that is no key"))?;
    let bytes: Vec<u8> = row.try_get("signature")?;
    let bytes = bytes
        .try_into()
        .map_err(|_| store::Error::damaged("releases.signature", "something that is no signature"))?;
    Ok(Registered {
        signed: SignedRelease { release, signature: Signature { key, bytes } },
        created: store::from_millis("releases.created_ms", row.try_get("created_ms")?)?,
        created_by: row.try_get("created_by")?,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sluice_common::keys::SecretKey;
    use sluice_common::name::Platform;

    use super::*;
    use crate::store::Schema;

    async fn store_with(packages: &[Digest]) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        let mut tx = store.begin(Actor::console()).await.unwrap();
        for package in packages {
            sqlx::query("INSERT INTO packages (digest, files, tree_bytes, index_digest, pushed_ms, pushed_by) VALUES ($1, 1, 1, $2, 0, 'alice')")
                .bind(package.to_string())
                .bind(vec![0_u8; 32])
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        tx.commit_observation().await.unwrap();
        (dir, store)
    }

    fn signed(key: &SecretKey, version: &str, package: &[u8], notes: &str) -> SignedRelease {
        let packages = BTreeMap::from([(Platform::any(), Digest::of(package))]);
        let (app, version) = ("shop".parse().unwrap(), version.parse().unwrap());
        Release { app, version, packages, notes: notes.into() }.sign(key).unwrap()
    }

    #[tokio::test]
    async fn a_version_is_registered_once_and_never_changes() {
        let (_dir, store) = store_with(&[Digest::of(b"one"), Digest::of(b"two")]).await;
        let (key, other, by) =
            (SecretKey::generate().unwrap(), SecretKey::generate().unwrap(), "alice".parse().unwrap());
        let release = signed(&key, "1.0", b"one", "first");
        let (first, created) = create(&store, &by, release.clone()).await.unwrap();
        assert!(created);
        assert_eq!(create(&store, &by, release.clone()).await.unwrap(), (first, false));
        for changed in [
            signed(&key, "1.0", b"two", "first"),
            signed(&key, "1.0", b"one", "other notes"),
            signed(&other, "1.0", b"one", "first"),
        ] {
            let error = create(&store, &by, changed).await.unwrap_err();
            assert!(matches!(error, CreateError::Exists { .. }), "{error}");
        }
        create(&store, &by, signed(&key, "1.1", b"one", "again")).await.unwrap();
        let app = "shop".parse().unwrap();
        assert_eq!(get(&store, &app, &"1.0".parse().unwrap()).await.unwrap(), Some(release));
        let newest = by_package(&store, &app, &Digest::of(b"one")).await.unwrap().unwrap();
        assert_eq!(newest.release.version.as_str(), "1.1");
        assert_eq!(by_package(&store, &app, &Digest::of(b"two")).await.unwrap(), None);
        assert_eq!(list(&store, Some(&app)).await.unwrap().len(), 2);
        assert_eq!(list(&store, Some(&"other".parse().unwrap())).await.unwrap(), []);
        assert_eq!(audit::verify(&store).await.unwrap().entries, 2);
    }

    #[tokio::test]
    async fn the_newest_of_each_application_is_the_last_that_was_registered() {
        let (_dir, store) = store_with(&[Digest::of(b"one")]).await;
        let (key, by) = (SecretKey::generate().unwrap(), "alice".parse().unwrap());
        let release = |app: &str, version: &str| {
            let Release { packages, notes, .. } = signed(&key, version, b"one", "").release;
            let (app, version) = (app.parse().unwrap(), version.parse().unwrap());
            Release { app, version, packages, notes }.sign(&key).unwrap()
        };
        for (app, version, created_ms) in
            [("shop", "1.0", 30), ("shop", "2.0", 20), ("till", "1.0", 10), ("till", "1.1", 10)]
        {
            create(&store, &by, release(app, version)).await.unwrap();
            let mut tx = store.begin(Actor::console()).await.unwrap();
            let sql = "UPDATE releases SET created_ms = $1 WHERE app = $2 AND version = $3";
            let update = sqlx::query(sql).bind(created_ms).bind(app).bind(version);
            update.execute(&mut *tx).await.unwrap();
            tx.commit_observation().await.unwrap();
        }
        let newest = newest(&store).await.unwrap();
        let names = newest.iter().map(|found| &found.signed.release);
        let names: Vec<(&str, &str)> = names.map(|r| (r.app.as_str(), r.version.as_str())).collect();
        assert_eq!(names, [("shop", "1.0"), ("till", "1.1"), ("till", "1.0")]);
    }

    #[tokio::test]
    async fn what_no_host_could_run_is_refused() {
        let (_dir, store) = store_with(&[]).await;
        let (key, by) = (SecretKey::generate().unwrap(), "alice".parse().unwrap());
        let error = create(&store, &by, signed(&key, "1.0", b"one", "")).await.unwrap_err().to_string();
        assert!(error.contains(&Digest::of(b"one").to_string()) && error.contains("sluice package push"));
        let mut forged = signed(&key, "1.0", b"one", "");
        forged.release.notes = "forged".into();
        let error = create(&store, &by, forged).await.unwrap_err();
        assert!(matches!(error, CreateError::Signature(_)), "{error}");
        assert_eq!(audit::verify(&store).await.unwrap().entries, 0);
    }
}

//! The first operator: a token in `DATA/bootstrap-token`, as long as nobody has enrolled.

use std::io;
use std::path::Path;

use fs_err as fs;
use jiff::Timestamp;
use sluice_common::identity::Role;
use sluice_common::{caps, durable};
use sluice_proto::token::JoinToken;

use super::{Authority, OpenError, Subject, identities, tokens};
use crate::store::Actor;

/// Name of the file under the data directory.
const FILE: &str = "bootstrap-token";
/// Name of the operator that it makes.
const OPERATOR: &str = "admin";

impl Authority {
    /// Sees to it that `DATA/bootstrap-token` can be used while there is no operator, and is gone afterwards.
    pub async fn prepare_bootstrap(&self, data: &Path) -> Result<(), OpenError> {
        let path = data.join(FILE);
        let found = match fs::read_to_string(&path) {
            Ok(text) => text.parse::<JoinToken>().ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let mut tx = self.inner.store.begin(Actor::coordinator()).await?;
        if identities::has_operator(&mut tx).await? {
            return Ok(remove(&path)?);
        }
        if let Some(token) = found
            && tokens::is_open(&mut tx, token.secret(), Timestamp::now()).await?
        {
            return Ok(());
        }
        let name = OPERATOR.parse().expect("a valid name");
        let subject = Subject::Operator { name, role: Role::Admin };
        let made = tokens::create(&mut tx, &subject, caps::JOIN_TOKEN_TTL, 1, self.fingerprint()).await?;
        tx.commit().await?;
        durable::write_private(&path, format!("{}\n", made.0).as_bytes())?;
        tracing::info!(file = %path.display(), expires = %made.1, "token of the first operator written; use it with sluice login");
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => durable::sync_parent(path),
    }
}

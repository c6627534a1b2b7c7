//! `sluice-coordinator token`: a join token for an operator, made beside a running service or without one.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use sluice_common::caps;
use sluice_common::identity::Role;
use sluice_common::name::OperatorName;

use super::data::check_private;
use crate::access::Roster;
use crate::authority::{Authority, Subject};
use crate::store::{Actor, Schema, Store};

/// Makes the token and prints it.
pub(super) async fn create(data: &Path, name: OperatorName, role: Role) -> anyhow::Result<()> {
    check_private(data)
        .context("start the coordinator once with sluice-coordinator serve, then try again")?;
    let store = Store::open(data, Schema::MustMatch).await?;
    let authority = Authority::open_existing(data, store.clone(), Roster::default())?;
    let subject = Subject::Operator { name, role };
    let made = authority.create_token(Actor::console(), &subject, caps::JOIN_TOKEN_TTL, 1).await?;
    store.close().await;
    writeln!(std::io::stdout(), "{}", made.0).context("cannot print the token")
}

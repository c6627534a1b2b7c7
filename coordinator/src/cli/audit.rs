//! `audit`: the log as it streams, and its chain recomputed.

use serde::Serialize;
use sluice_proto::v1;

use super::Context;
use super::args::AuditCommand;
use super::error::advise;
use super::exit::Exit;
use super::output::{moment, one_line};
use super::view::fleet::AuditEntry;

#[derive(Serialize)]
struct Verified {
    entries: u64,
    head: String,
    broken_at: Option<u64>,
}

pub(super) async fn run(context: &Context, command: AuditCommand) -> anyhow::Result<Exit> {
    match command {
        AuditCommand::List { after, limit } => list(context, after, limit.unwrap_or(0)).await,
        AuditCommand::Verify => verify(context).await,
    }
}

async fn list(context: &Context, after: u64, limit: u32) -> anyhow::Result<Exit> {
    let request = v1::ListAuditRequest { after, limit };
    let mut entries = context.connect().await?.administration().list_audit(request).await?.into_inner();
    while let Some(entry) = entries.message().await? {
        let entry = AuditEntry::from(entry);
        if context.output.is_json() {
            context.output.json(&entry)?;
        } else {
            let AuditEntry { number, at, actor, action, subject, detail, hash: _ } = &entry;
            let what = [actor, action, subject, &detail.to_string()].map(|text| one_line(text)).join("  ");
            context.output.line(format_args!("{number:>6}  {}  {what}", moment(*at)))?;
        }
    }
    Ok(Exit::Success)
}

async fn verify(context: &Context) -> anyhow::Result<Exit> {
    let request = v1::VerifyAuditRequest {};
    let answer = context.connect().await?.administration().verify_audit(request).await?.into_inner();
    let broken_at = (answer.broken_at != 0).then_some(answer.broken_at);
    let verified = Verified { entries: answer.entries, head: hex::encode(answer.head), broken_at };
    if context.output.is_json() {
        context.output.json(&verified)?;
    }
    match broken_at {
        Some(number) => Err(advise(
            format_args!("the audit log was changed: entry {number} does not fit the one before"),
            "compare with a backup of the coordinator's database; entries before it still hold",
        )),
        None if context.output.is_json() => Ok(Exit::Success),
        None => {
            context.output.line(format_args!("{} entries fit; head {}", verified.entries, verified.head))?;
            Ok(Exit::Success)
        }
    }
}
